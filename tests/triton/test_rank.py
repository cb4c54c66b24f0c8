"""``autotune-rlm rank``: kernels of a file, problems of a command line, other devices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import triton
from triton_test_support import Oracle
from typer.testing import CliRunner

from autotune_rlm.cli import app
from autotune_rlm.devices import lookup
from autotune_rlm.formats import milliseconds
from autotune_rlm.integrations.triton.offline import kernel as offline
from autotune_rlm.store import Store
from autotune_rlm.types import Measurement

KERNELS = Path(__file__).with_name("triton_test_kernels.py")
SPACE = "BLOCK=64,128,256; num_warps=1,2"


@pytest.fixture
def run(monkeypatch):
    """Runs the command with a surrogate that knows."""
    import autotune_rlm.surrogate

    monkeypatch.setattr(autotune_rlm.surrogate, "load", lambda name=None, **options: Oracle())
    monkeypatch.setenv("TRITON_INTERPRET", "0")

    def run(*arguments):
        return CliRunner().invoke(app, ["rank", *arguments])

    return run


def test_the_ranking_is_best_first(run):
    told = run(
        f"{KERNELS}:scale", "--device", "h100", "--problem", "n=4096,dtype=fp16",
        "--configs", SPACE, "--json", "--top", "3",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["device"]["name"] == "NVIDIA H100"
    assert found["n_configs"] == 6
    assert [row["rank"] for row in found["ranking"]] == [1, 2, 3]
    assert found["ranking"][0]["config"] == {"BLOCK": 256, "num_warps": 2, "num_stages": 3}
    times = [row["predicted_ms"] for row in found["ranking"]]
    assert times == sorted(times)


def test_what_a_store_knows_of_the_problem_is_told_to_the_model(run, monkeypatch, tmp_path):
    import autotune_rlm.surrogate
    from autotune_rlm.integrations.triton.offline.kernel import load_file, parse_space

    told = []

    class Listening(Oracle):
        def predict(self, task, candidates, *, observed=()):
            told.append(len(observed))
            return super().predict(task, candidates, observed=observed)

    asked = []
    monkeypatch.setattr(
        autotune_rlm.surrogate,
        "load",
        lambda name=None, **options: asked.append(options) or Listening(),
    )
    kernel = load_file(f"{KERNELS}:scale", parse_space(SPACE))
    task = kernel.task(offline.parse_problem("n=4096,dtype=fp16"), lookup("h100"))
    path = str(tmp_path / "s.db")
    with Store(path) as store:
        store.add(task, kernel.candidates[0], Measurement(status="ok", value=1.0))
    options = ["--device", "h100", "--problem", "n=4096,dtype=fp16", "--configs", SPACE]
    assert run(f"{KERNELS}:scale", *options, "--store", path).exit_code == 0
    assert told[-1] == 1
    assert asked[-1] == {"store": path}
    assert run(f"{KERNELS}:scale", *options).exit_code == 0
    assert told[-1] == 0


@pytest.mark.amd
def test_compiling_tells_the_facts_of_the_other_device(run):
    told = run(
        f"{KERNELS}:scale", "--device", "AMD Instinct MI300X", "--problem", "n=4096,dtype=fp16",
        "--configs", "BLOCK=256; num_warps=2", "--compile", "--json",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    (row,) = json.loads(told.stdout)["ranking"]
    assert row["compiled"]["status"] == "ok"
    assert row["compiled"]["registers"] > 0


def test_a_table_for_people(run):
    told = run(
        f"{KERNELS}:scale", "--device", "no such device", "--configs", SPACE,
        "--problem", "n=4096,dtype=fp16",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    assert "6 configurations" in told.stdout
    assert "Nothing is known of 'no such device'" in told.stdout
    assert "Assumed: x=*fp16; y=*fp16." in told.stdout


def test_what_cannot_compile_comes_last_and_says_why(run):
    told = run(
        f"{KERNELS}:picky", "--device", "h100", "--problem", "n=4096,dtype=fp16",
        "--configs", "BLOCK=32,64; num_warps=1", "--compile",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    rows = [line for line in told.stdout.splitlines() if line.lstrip()[:1].isdigit()]
    assert "compile_error" in rows[-1]
    assert "Number 2: compile_error: CompileTimeAssertionFailure: a block of 32" in told.stdout


def test_arguments_are_guessed_where_that_is_asked_for(run):
    told = run(
        f"{KERNELS}:scale", "--device", "h100", "--configs", SPACE, "--guess", "--json",
        "--problem", "dtype=bf16",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["assumed"] == ["x=*bf16", "y=*bf16", "n=4096"]


def test_a_grid_may_be_given(run):
    told = run(
        f"{KERNELS}:scale", "--device", "h100", "--problem", "n=4096,dtype=fp16",
        "--configs", SPACE, "--grid", "cdiv(n, BLOCK)", "--json",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["read"]["distinct"] == 3


@pytest.mark.parametrize(
    ("ms", "text"), [(0.0015, "1.5 us"), (0.39, "390 us"), (1.25, "1.25 ms"), (2500, "2.5 s")]
)
def test_times_have_units_that_people_use(ms, text):
    assert milliseconds(ms) == text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.py:scale"], "with a file that exists"),
        ([f"{KERNELS}:nothing"], "it has masked, picky, product, scale, twice"),
        ([f"{KERNELS}:scale"], "it is under no autotuner"),
        ([f"{KERNELS}:scale", "--configs", "BLOCK"], "NAME=VALUE,VALUE"),
        ([f"{KERNELS}:scale", "--configs", SPACE, "--problem", "m=3"], "names m, which scale has"),
        ([f"{KERNELS}:scale", "--configs", SPACE, "--problem", "n"], "takes NAME=VALUE"),
        ([f"{KERNELS}:scale", "--configs", SPACE, "--problem", "dtype=f17"], "dtype must be one"),
        ([f"{KERNELS}:scale", "--configs", "BLK=64"], "names BLK, which is no argument of scale"),
        (
            [f"{KERNELS}:scale", "--configs", SPACE, "--problem", "n=many,dtype=fp16"],
            "gives n=many, which is no number",
        ),
        (
            [f"{KERNELS}:scale", "--configs", SPACE, "--problem", "n=64,dtype=fp16", "--grid", "N"],
            "cannot evaluate the grid 'N'",
        ),
        (
            [f"{KERNELS}:scale", "--configs", SPACE],
            "lacks x, y, n; add n=VALUE, dtype=fp16 for the tensors (or x=fp16[4096,4096])",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, arguments, says):
    told = run(*arguments, "--device", "h100")
    assert told.exit_code == 1
    assert says in " ".join(told.stderr.split())


def test_options_of_every_backend_may_be_given(run):
    told = run(
        f"{KERNELS}:scale", "--device", "mi300x", "--problem", "n=4096,dtype=fp16", "--json",
        "--configs", "BLOCK=64; waves_per_eu=1,2; num_ctas=1",
    )  # fmt: skip
    assert told.exit_code == 0, told.output


def test_problems_are_read():
    problem = offline.parse_problem("M=64, eps=1e-5,x=fp16[64,128],y=*i32,causal=true,dtype=bf16")
    assert problem == {
        "M": 64,
        "eps": 1e-5,
        "x": {"dtype": "fp16", "align": 16, "shape": [64, 128], "strides": [128, 1]},
        "y": {"dtype": "i32", "align": 16},
        "causal": True,
        "dtype": "bf16",
    }


def test_a_decorated_kernel_brings_its_configurations(tmp_path):
    file = tmp_path / "decorated.py"
    file.write_text(
        "import triton\nimport triton.language as tl\n"
        "@triton.autotune(configs=[triton.Config({'B': b}) for b in (16, 32)], key=['n'])\n"
        "@triton.heuristics({'E': lambda given: given['n'] % given['B'] == 0})\n"
        "@triton.jit\n"
        "def k(x_ptr, n, stride_xm, stride_xk, E: tl.constexpr, B: tl.constexpr):\n"
        "    at = tl.arange(0, B)\n"
        "    tl.store(x_ptr + at * stride_xk, 1.0, mask=at < n)\n"
    )
    kernel = offline.load_file(f"{file}:k")
    assert [c.config["B"] for c in kernel.candidates] == [16, 32]
    spec = kernel.spec({"n": 48, "dtype": "fp32"}, lookup("h100"), kernel.candidates[1])
    assert spec.signature == {"x_ptr": "*fp32", "n": "i32", "stride_xm": "i32"}
    assert spec.constexprs == {"stride_xk": 1, "E": False, "B": 32}
    assert spec.target == ("cuda", 90, 32)
    assert isinstance(kernel.candidates[0].payload, triton.Config)
