"""Kernels of files and packages: found, their arguments read from the text, ranked, tuned."""

from __future__ import annotations

import importlib.util
import json
import sys
import textwrap

import pytest
import torch
import triton
from triton_test_support import Oracle
from typer.testing import CliRunner

import autotune_rlm
from autotune_rlm.cli import app
from autotune_rlm.devices import lookup
from autotune_rlm.integrations.triton import (
    RLMAutotuner,
    resources,
    rlm_autotune,
)
from autotune_rlm.integrations.triton.offline import discover
from autotune_rlm.integrations.triton.offline import kernel as offline
from autotune_rlm.integrations.triton.offline.kernel import OfflineKernel
from autotune_rlm.integrations.triton.offline.recommend import rank_all
from autotune_rlm.measure.triton.compile import CompilePool
from autotune_rlm.store.config_file import ConfigFile

KERNELS = """
    import triton
    import triton.language as tl


    @triton.jit
    def read(at, index_ptr):
        return tl.load(index_ptr + at)


    @triton.heuristics({"EVEN": lambda given: given["n"] % 2 == 0, "ALSO": lambda given: True})
    @triton.autotune(
        configs=[triton.Config({"BLOCK": b}, num_warps=w) for b in (64, 128, 256) for w in (1, 2)],
        key=["n"],
    )
    @triton.heuristics({"MORE": lambda given: given["BLOCK"] > 64})
    @triton.jit
    def gather(
        x, where, out, lengths, mask, n, scale, stride_x, ACTIVATION: tl.constexpr, USE: tl.constexpr,
        TYPE: tl.constexpr, WIDTH: tl.constexpr, EVEN: tl.constexpr, ALSO: tl.constexpr,
        MORE: tl.constexpr, BLOCK: tl.constexpr, cu_seqlens=None, RESULT: tl.constexpr = tl.float32,
    ):
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        rows = read(at, where)
        length = tl.load(lengths)
        keep = (at < n) & (tl.load(mask + at) > 0)
        p = x + rows * stride_x
        p += length
        value = tl.load(p, mask=keep).to(TYPE) * scale * WIDTH
        if ACTIVATION == "relu":
            value = tl.maximum(value, 0.0)
        if USE and EVEN and MORE and ALSO:
            value += 1
        tl.store(out + at, value.to(RESULT), mask=keep)


    @triton.autotune(configs=[triton.Config({"BLOCK": 64})], key=[])
    @triton.jit
    def described(desc, BLOCK: tl.constexpr):
        desc.store([0], desc.load([0]))


    def not_a_kernel():
        pass
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with two kernels, a module that does not import, and one that must not be."""
    root = tmp_path / "made_up_kernels"
    (root / "deep").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "deep" / "__init__.py").write_text("")
    (root / "deep" / "ops.py").write_text(textwrap.dedent(KERNELS))
    (root / "broken.py").write_text("# autotune\nimport no_such_module_at_all\n")
    (root / "unrelated.py").write_text("raise SystemExit('must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "made_up_kernels"
    for name in [name for name in sys.modules if name.startswith("made_up_kernels")]:
        del sys.modules[name]


@pytest.fixture
def command(monkeypatch):
    import autotune_rlm.surrogate

    monkeypatch.setattr(autotune_rlm.surrogate, "load", lambda name=None, **options: Oracle())
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    yield lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])
    resources._loaded.cache_clear()  # no oracle for the tests that follow


def one(package, name="gather"):
    found = discover.find_kernels(package)
    (kernel,) = [k for where, k in found.kernels.items() if where.endswith(f":{name}")]
    return OfflineKernel.of(kernel)


def test_every_kernel_of_a_package_is_found(package):
    found = discover.find_kernels(package)
    names = [f"{package}.deep.ops:described", f"{package}.deep.ops:gather"]
    assert list(found.kernels) == names
    assert list(found.failed) == [f"{package}.broken"]
    assert "no_such_module_at_all" in found.failed[f"{package}.broken"]
    assert list(discover.find_kernels(f"{package}.deep.ops:gather").kernels) == names[1:]
    assert f"{package}.unrelated" not in sys.modules


def test_there_must_be_something():
    with pytest.raises(ValueError, match="no module 'no_such'"):
        discover.find_kernels("no_such")
    with pytest.raises(ValueError, match=r"no file at nowhere\.py"):
        discover.find_kernels("nowhere.py")


def test_arguments_are_read_from_the_text(package):
    kernel = one(package)
    assert kernel.key == ("n",)
    problem = kernel.default_problem({"dtype": "bf16", "n": 999, "other": 1})
    tensor = {"dtype": "bf16", "align": 16}
    index = {"dtype": "i32", "align": 16}
    assert problem == {
        "x": tensor,
        "where": index,  # its values become addresses, in a device function
        "out": tensor,
        "lengths": index,
        "mask": tensor,
        "n": 999,
        "scale": 0.5,
        "stride_x": 4096,
        "ACTIVATION": "relu",
        "USE": False,
        "TYPE": "bf16",
        "WIDTH": 4096,
        "cu_seqlens": None,
        "RESULT": "fp32",
    }
    json.dumps(problem)


def test_what_cannot_be_guessed_is_said(package):
    (row,) = rank_all(
        {"described": one(package, "described").kernel}, [lookup("h100")], [], surrogate=Oracle()
    )
    assert row.recommendation is None
    assert "takes tensor descriptors (desc)" in row.reason


def test_guessed_arguments_compile(package):
    kernel = one(package)
    (row,) = rank_all({"gather": kernel.kernel}, [lookup("h100")], [], surrogate=Oracle())
    assert row.order[0].config["BLOCK"] == 256
    assert row.kept == 6
    with CompilePool(1) as pool:
        ((_, result),) = row.compile(row.order[:1], pool)
    assert result.ok, result.reason


def test_rank_writes_what_the_decorator_loads(package, command, tmp_path, stub):
    out = tmp_path / "configs.json"
    told = command(
        "rank", package, "--device", "h100", "--device", "AMD MI300X", "--problem", "n=1024",
        "--problem", "n=64,dtype=fp32", "--top", 2, "--out", out,
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    assert "4 ranked, 1 not" in " ".join(told.output.split())
    assert "n=1024" in told.output
    assert f"not imported: {package}.broken" in " ".join(told.output.split())
    file = ConfigFile.load(out)
    assert {(r.device, r.problem["n"]) for r in file.recommendations} == {
        (device, n) for device in ("NVIDIA H100", "AMD MI300X") for n in (64, 1024)
    }
    gather = one(package).kernel
    autotuner = discover.autotuner_of(gather)
    ours = rlm_autotune(
        autotuner.configs, ["n"], mode="predict", configs_from=out, device="h100", store=False
    )(autotuner.fn)
    x = torch.zeros(64, dtype=torch.float16)
    given = {name: x for name in ("x", "out", "mask")}
    given |= {name: torch.zeros(64, dtype=torch.int32) for name in ("where", "lengths")}
    ours.run(
        **given, n=1000, scale=1.0, stride_x=1, ACTIVATION="", USE=False, TYPE=triton.language.float16,
        WIDTH=1, EVEN=True, ALSO=True, grid=(1,), warmup=True,
    )  # fmt: skip
    assert ours.best_config.kwargs["BLOCK"] == 256


def test_rank_as_json_and_for_one_kernel(package, command, tmp_path):
    told = command("rank", package, "--device", "h100", "--json")
    assert json.loads(told.stdout)["format"] == "autotune_rlm/configs"
    out = tmp_path / "one.json"
    told = command(
        "rank", f"{package}.deep.ops:gather", "--device", "h100", "--out", out, "--guess"
    )
    assert told.exit_code == 0, told.output
    assert "6 configurations" in told.output
    assert len(ConfigFile.load(out)) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{package}", "--problem", "zzz=1"], "names zzz, which no kernel in"),
        (["{package}", "--configs", "B=1"], "take one FILE.py:KERNEL"),
        (["{package}.unrelated"], "defines no kernel under triton.autotune"),
        (["no_such_package"], "no module 'no_such_package'"),
    ],
)
def test_rank_says_what_is_wrong(package, command, arguments, says):
    arguments = [a.format(package=package) for a in arguments]
    told = command("rank", *arguments, "--device", "h100")
    assert told.exit_code == 1
    assert says in " ".join(told.stderr.split())


PROGRAM = """
    import sys
    import torch
    import triton
    from triton_test_support import Quick, body, configs

    kernel = triton.autotune(configs=configs(), key=["n"])(Quick(body))
    x = torch.zeros(64)
    for n in map(int, sys.argv[1:]):
        kernel[(1,)](x, x, n)
"""


def test_tune_a_program(command, tmp_path, stub, monkeypatch):
    from autotune_rlm.cli import tune

    monkeypatch.setattr(tune, "_check_device", lambda interpreter: None)
    program, out = tmp_path / "program.py", tmp_path / "configs.json"
    program.write_text(textwrap.dedent(PROGRAM))
    told = command("tune", program, "--mode", "full", "--out", out, "64", "128")
    assert told.exit_code == 0, told.output
    found = ConfigFile.load(out).recommendations
    assert [(r.kernel, r.origin, r.problem["n"]) for r in found] == [
        ("body", "measured", 128),
        ("body", "measured", 64),
    ]
    assert found[0].configs[0].config["BLOCK"] == 256
    told = command("tune", "nothing.of.it", "--program", program, "64")
    assert told.exit_code == 1
    assert "launched no autotuned kernel of nothing.of.it" in " ".join(told.stderr.split())


def test_tune_a_kernel_on_the_interpreter(command, tmp_path):
    file, out = tmp_path / "kernels.py", tmp_path / "configs.json"
    file.write_text(
        "import triton\nimport triton.language as tl\n"
        "@triton.autotune([triton.Config({'B': b}) for b in (16, 64)], ['n'])\n"
        "@triton.heuristics({'E': lambda given: given['n'] % given['B'] == 0})\n"
        "@triton.jit\n"
        "def double(x, y, n, E: tl.constexpr, B: tl.constexpr):\n"
        "    at = tl.program_id(0) * B + tl.arange(0, B)\n"
        "    tl.store(y + at, 2 * tl.load(x + at, mask=at < n), mask=at < n)\n"
    )
    told = command(
        "tune", f"{file}:double", "--problem", "x=fp32[256],y=fp32[256],n=256", "--grid", "cdiv(n, B)",
        "--interpreter", "--out", out,
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    (found,) = ConfigFile.load(out).recommendations
    assert found.origin == "measured"
    assert {c.config["B"] for c in found.configs} == {16, 64}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["some.package"], "--program SCRIPT.py, which launches them"),
        (["x.py:k", "--problem", "n=1"], "--problem takes --grid too"),
        (["some.package", "--program", "nowhere.py"], "no program at nowhere.py"),
    ],
)
def test_tune_says_what_is_wrong(command, arguments, says):
    told = command("tune", *arguments, "--interpreter")
    assert told.exit_code == 1
    assert says in " ".join(told.stderr.split())


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_tune_without_a_gpu_says_what_it_cannot_do(command):
    told = command("tune", "some.package")
    assert told.exit_code == 1
    assert "nothing can be timed; autotune-rlm rank --device NAME" in " ".join(told.stderr.split())


REAL = {
    "liger_kernel.ops.dyt": 2,
    "late_interaction_kernels.varlen": 3,
    "fla.ops.rwkv7.channel_mixing": 2,
}


@pytest.mark.parametrize("module", REAL)
def test_real_packages(module, command, tmp_path):
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    out = tmp_path / "configs.json"
    told = command("rank", module, "--device", "NVIDIA H100", "--out", out)
    assert told.exit_code == 0, told.output
    file = ConfigFile.load(out)
    assert len(file) >= REAL[module]
    found = discover.find_kernels(module)
    with autotune_rlm.enable(mode="predict", store=False, only=package) as enabled:
        assert len(enabled.kernels) >= REAL[module]
        assert all(isinstance(kernel, RLMAutotuner) for kernel in enabled.kernels)
        taken = enabled.kernels
    assert not any(isinstance(kernel, RLMAutotuner) for kernel in taken)
    rows = list(rank_all(found.kernels, [lookup("h100")], [], surrogate=Oracle()))
    with CompilePool(1) as pool:
        ((_, result),) = rows[0].compile(rows[0].order[:1], pool)
    assert result.ok, result.reason
    assert offline.load_file(rows[0].where).name in {r.kernel for r in file.recommendations}
