"""Parallel compilation with the real compiler, for targets that are not here."""

import importlib.util
import json
import linecache
import os
import re
import signal
import subprocess
import textwrap
import threading
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest

from autotune_rlm.measure.triton.compile import CompilePool, CompileSpec, parse_target
from autotune_rlm.types import Status

triton = pytest.importorskip("triton")
torch = pytest.importorskip("torch")

import kernels_for_tests as kernels  # noqa: E402

from autotune_rlm.measure.triton._shipping import pack, unpack  # noqa: E402
from autotune_rlm.measure.triton.capture import _pretend, describe_call, encode_value  # noqa: E402

FILE = str(Path(kernels.__file__))


def spec(target="sm_90", block=1024, unused=0, warps=4, **fields):
    return CompileSpec(
        file=FILE,
        function="add",
        signature={"x": "*fp32", "y": "*fp32", "out": "*fp32", "n": "i32"},
        constexprs={"BLOCK": block, "EVEN": True, "UNUSED": unused},
        attrs={"x": 16, "y": 16, "out": 16, "n": 16},
        options={"num_warps": warps, "num_stages": 2},
        target=parse_target(target),
        **fields,
    )


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with CompilePool(2, cache_dir=str(tmp_path_factory.mktemp("cache"))) as pool:
        yield pool


@pytest.mark.amd
def test_facts_for_nvidia_and_amd_and_what_fails(pool):
    """One by one: only needed statements of the file run, or they would all fail."""
    wanted = {
        "hopper": spec(),
        "twin": spec(unused=1),
        "other": spec(unused=666),
        "amd": spec("gfx942"),
        "odd block": spec(block=1000),
        "missing": replace(spec(), constexprs={"BLOCK": 1024}),
        "no such": replace(spec(), function="nothing"),
        "changed": replace(spec(), source_key="something else"),
        "no file": replace(spec(), file="/no/such/file.py"),
        "small device": replace(spec(), max_shared_bytes=-1),
    }
    results = {id(s): r for s, r in pool.compile_many(wanted.values())}
    found = {name: results[id(s)] for name, s in wanted.items()}
    for name in ("hopper", "twin", "other", "amd"):
        result = found[name]
        assert result.ok, result
        assert result.compile_s > 0
        assert result.facts["registers"] > 4
        assert result.facts["spills"] == 0
        assert 100 < result.facts["code_bytes"] < result.facts["binary_bytes"]
    hashes = {name: found[name].facts["binary_hash"] for name in ("hopper", "twin", "other")}
    assert hashes["hopper"] == hashes["twin"] != hashes["other"]
    assert found["odd block"].status is Status.COMPILE_ERROR
    assert "power of 2" in found["odd block"].reason
    assert "EVEN" in found["missing"].reason
    assert "nothing" in found["no such"].reason
    for name in ("no such", "changed", "no file"):  # the worker's inability, not the binary's
        assert found[name].status is Status.SKIPPED
    assert found["small device"].status is Status.OUT_OF_RESOURCES
    assert found["small device"].facts["registers"] > 4
    again = pool.compile(spec())
    assert again.cached
    assert again.compile_s is None
    assert again.facts == found["hopper"].facts


def test_registers_and_stack_are_those_that_the_vendors_tool_tells(tmp_path):
    from autotune_rlm.measure.triton._binary import binary_facts

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        pytest.skip("cuobjdump is not here")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {"x": "*fp32", "n": "constexpr"}
    source = ASTSource(kernels.endless, signature, {"n": 300}, {})
    options = {"num_warps": 4, "maxnreg": 24}
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options)
    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(compiled.kernel)
    told = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True).stdout
    facts = binary_facts(compiled.kernel)
    assert facts["registers"] == int(re.search(r"REG:(\d+)", told)[1])
    assert facts["spills"] == int(re.search(r"STACK:(\d+)", told)[1]) // 4


@pytest.mark.parametrize("target", ["sm_90", pytest.param("gfx942", marks=pytest.mark.amd)])
def test_the_pool_compiles_what_the_launch_looks_for(pool, target, monkeypatch):
    x = torch.empty(5000, device="meta")
    config = {"BLOCK": 256, "EVEN": False, "UNUSED": None, "num_warps": 8, "num_stages": 2}
    described = describe_call(kernels.add, (x, x, x, 5000), config, target=parse_target(target))
    assert described == CompileSpec.from_json(described.to_json())
    assert pool.compile(described).ok
    hits = []
    monkeypatch.setenv("TRITON_CACHE_DIR", pool._cache_dir)  # a knob that is set would stay set
    monkeypatch.setattr(
        triton.knobs.compilation, "listener", lambda **told: hits.append(told["cache_hit"])
    )
    function = kernels.add.fn
    function.device_caches.clear()
    with _pretend(parse_target(target)):
        function.warmup(x, x, x, 5000, grid=(1,), **config)
    function.device_caches.clear()
    assert hits == [True]


def test_describing_a_call_compiles_nothing_and_leaves_other_hooks_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(
        triton.knobs.runtime, "jit_cache_hook", lambda **told: asked.append(1) or True
    )
    x = torch.empty(64, device="meta")
    config = {"BLOCK": 64, "EVEN": True, "UNUSED": 0}
    target = parse_target("sm_80")
    assert describe_call(kernels.add, (x, x, x, 64), config, target=target)
    assert not asked
    with pytest.raises(TypeError):
        describe_call(kernels.add, (x,), config, target=target)

    secret = object()

    @triton.jit
    def local(x):
        tl.store(x, secret)  # noqa: F821

    assert describe_call(local, (x,), target=target) is None


class TestShipping:
    """Kernels travel to the workers as they are in this process."""

    @staticmethod
    def again(kernel):
        return unpack(json.loads(json.dumps(pack(kernel, encode_value))))

    def test_every_kernel_of_the_suite_keeps_its_key(self):
        count = 0
        for file in sorted((Path(__file__).parents[2] / "benchmarks" / "kernels").glob("*.py")):
            spec = importlib.util.spec_from_file_location(file.stem, file)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            for kernel in vars(module).values():
                while hasattr(kernel, "fn") and not hasattr(kernel, "cache_key"):
                    kernel = kernel.fn
                if hasattr(kernel, "cache_key"):
                    assert self.again(kernel).cache_key == kernel.cache_key
                    count += 1
        assert count >= 40

    def test_closures_helpers_constants_and_modules_of_ones_own(self, pool):
        mine = types.ModuleType("a_module_that_no_worker_can_import")
        mine.SIZE = triton.language.constexpr(3)
        names = {"tl": triton.language, "triton": triton, "mine": mine, "__name__": "__main__"}
        source = textwrap.dedent(
            """
            def make(factor):
                @triton.jit
                def helper(value):
                    return value * factor

                @triton.jit
                def kernel(x, n, BLOCK: tl.constexpr):
                    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
                    value = helper(tl.load(x + at, mask=at < n)) + mine.SIZE
                    tl.store(x + at, tl.where(value > 1, value, 0.0), mask=at < tl.cdiv(n, 2))

                return kernel
            """
        )
        file = "<ipython-input-7-c0ffee>"
        linecache.cache[file] = (len(source), None, source.splitlines(True), file)
        exec(compile(source, file, "exec"), names)
        x = torch.empty(64, device="meta")
        hashes, keys = set(), set()
        for factor in (2, 3):
            kernel = names["make"](triton.language.constexpr(factor))
            assert self.again(kernel).cache_key == kernel.cache_key
            given = {"BLOCK": 64, "num_warps": 1}
            target = parse_target("sm_90")
            result = pool.compile(describe_call(kernel, (x, 64), given, target=target))
            assert result.ok, result.reason
            hashes.add(result.facts["binary_hash"])
            keys.add(kernel.cache_key)
        assert len(hashes) == len(keys)  # one in Triton 3.4, which leaves closures out of its key
        assert len(keys) == 2 or triton.__version__ < "3.6"

    def test_arguments_may_have_the_names_of_globals(self):
        """In a script ``x`` is often a tensor too."""
        source = "@triton.jit\ndef kernel(x, n):\n    y = n\n    tl.store(x, y)\n"
        names = {"tl": triton.language, "triton": triton, "x": torch.ones(3), "y": object()}
        linecache.cache["<script>"] = (len(source), None, source.splitlines(True), "<script>")
        exec(compile(source, "<script>", "exec"), names)
        assert self.again(names["kernel"]).cache_key == names["kernel"].cache_key

    def test_a_kernel_that_is_not_made_again_faithfully_is_not_compiled(self, pool):
        x = torch.empty(64, device="meta")
        config = {"BLOCK": 64, "EVEN": True, "UNUSED": 0}
        spec = describe_call(kernels.add, (x, x, x, 64), config, target=parse_target("sm_80"))
        assert spec.packed
        assert pool.compile(replace(spec, file="/no/such/file.py")).ok
        other = replace(spec, file="/no/such/file.py", source_key="of another kernel")
        assert pool.compile(other).status is Status.SKIPPED


@pytest.mark.parametrize("value", [1, 2.5, True, None, "text", (1, (2.0, None))])
def test_constants_survive_as_json(value):
    from autotune_rlm.measure.triton._compile_worker import decode_value

    assert decode_value(encode_value(value)) == value


def test_constants_of_tritons_own_survive_as_json():
    import math

    import triton.language as tl

    from autotune_rlm.measure.triton._compile_worker import decode_value

    assert decode_value(encode_value(tl.float16)) == tl.float16
    assert decode_value(encode_value(tl.constexpr(3))).value == 3
    assert decode_value(encode_value(math.inf)) == math.inf
    assert decode_value(encode_value(kernels.twice)).fn.__name__ == "twice"
    with pytest.raises(TypeError):
        encode_value(object())


def test_a_worker_that_hangs_or_dies_costs_its_own_spec(tmp_path):
    slow = CompileSpec(
        file=FILE,
        function="endless",
        signature={"x": "*fp32"},
        constexprs={"n": 20_000},
        target=parse_target("sm_80"),
    )
    with CompilePool(1, timeout_s=4, cache_dir=str(tmp_path)) as pool:
        assert pool.compile(slow).status is Status.TIMEOUT
        with CompilePool(1, timeout_s=100, cache_dir=str(tmp_path)) as patient:
            assert patient.compile(spec(block=1000)).status is Status.COMPILE_ERROR
            killer = threading.Timer(1, lambda: os.kill(patient._all[0].pid, signal.SIGKILL))
            killer.start()
            result = patient.compile(slow)
            assert result.status is Status.SKIPPED
            assert "SIGKILL" in result.reason
            assert patient.compile(spec(block=1000)).status is Status.COMPILE_ERROR


def test_what_no_worker_has_begun_can_be_taken_back(tmp_path):
    slow = replace(spec(), function="endless", signature={"x": "*fp32"}, constexprs={"n": 50_000})
    with CompilePool(1, cache_dir=str(tmp_path)) as pool:
        starting = pool.submit(spec())
        assert pool.take_back(starting)  # long before the worker is up
        assert not pool.take_back(starting)
        assert starting.result().status is Status.SKIPPED
        done = pool.submit(spec(block=1000))
        assert done.result().status is Status.COMPILE_ERROR
        assert not pool.take_back(done)
        begun = pool.submit(replace(slow, attrs={}))
        waiting = pool.submit(spec())
        time.sleep(1)
        assert not pool.take_back(begun)
        assert pool.take_back(waiting)


LOOP = """
    import triton, triton.language as tl
    BLOCKS = []
    for name, times in {"a": 2, "b": 3}.items():
        FACTOR = tl.constexpr(times)
        launched = 1 / 0
        if times > 2:
            continue

        @launched
        @triton.jit
        def scale(x, n, BLOCK: tl.constexpr):
            at = tl.arange(0, BLOCK)
            tl.store(x + at, tl.load(x + at) * FACTOR)

        scale[(1,)](None, 4)
        with open("/nowhere/results") as file:
            print(file.read())
    """


def test_of_a_loop_that_defines_a_kernel_nothing_else_runs(pool, tmp_path):
    file = tmp_path / "looped.py"
    file.write_text(textwrap.dedent(LOOP))
    wanted = CompileSpec(
        file=str(file),
        function="scale",
        signature={"x": "*fp32", "n": "i32"},
        constexprs={"BLOCK": 64},
        target=parse_target("sm_80"),
    )
    result = pool.compile(wanted)
    assert result.ok, result.reason


def test_a_worker_launches_nothing(pool, tmp_path):
    file = tmp_path / "launching.py"
    file.write_text(
        textwrap.dedent(
            """
            import triton, triton.language as tl
            @triton.jit
            def first(x, BLOCK: tl.constexpr): pass
            tuned = triton.autotune([triton.Config({"BLOCK": b}) for b in (1, 2)], key=[])(first)
            SIZE = tl.constexpr(tuned[(1,)](None))
            @triton.jit
            def second(x, BLOCK: tl.constexpr):
                tl.store(x, SIZE)
            """
        )
    )
    wanted = replace(spec(), file=str(file), function="second", signature={"x": "*fp32"})
    result = pool.compile(replace(wanted, constexprs={"BLOCK": 64}, attrs={}))
    assert result.status is Status.SKIPPED
    assert "launches nothing" in result.reason


def test_closing_ends_the_workers_in_mid_compilation(tmp_path):
    slow = replace(spec(), function="endless", signature={"x": "*fp32"}, constexprs={"n": 50_000})
    pool = CompilePool(1, cache_dir=str(tmp_path))
    future = pool.submit(replace(slow, attrs={}))
    while not pool._all or pool._all[0].pid is None:
        time.sleep(0.05)
    pool.close()
    assert future.done()


def test_targets():
    assert parse_target("sm_90a") == ("cuda", 90, 32)
    assert parse_target("SM100") == ("cuda", 100, 32)
    assert parse_target("gfx942") == ("hip", "gfx942", 64)
    assert parse_target("gfx1100") == ("hip", "gfx1100", 32)
    with pytest.raises(ValueError, match="target"):
        parse_target("H100")
    with pytest.raises(ValueError, match="workers"):
        CompilePool(0)
