"""The expected time of a launch, and what it rests on: placement of warps, shared memory."""

from __future__ import annotations

import math

import ir_test_kernels as kernels
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_rlm import devices
from autotune_rlm.ir import (
    CONSTANTS,
    INPUTS,
    Access,
    Dot,
    KernelFacts,
    Loop,
    Reduction,
    kernel_facts,
    on_device,
    time_us,
)
from autotune_rlm.measure.triton._binary import binary_facts

triton = pytest.importorskip("triton")

WORK = (
    "products",
    "special",
    "issue",
    "l2",
    "operands",
    "staged",
    "exchanged",
    "spilled",
    "memory",
    "scattered",
    "unpiped",
    "barriers",
    "shuffled",
    "atomics",
)


def launches(number, decades=3.0):
    rng = np.random.default_rng(number)
    one = {name: 10 ** rng.uniform(-decades, decades, 50) for name in WORK}
    one |= {"resident": rng.integers(1, 9, 50), "warps": 2.0 ** rng.integers(0, 5, 50)}
    one |= {"waves": 10 ** rng.uniform(0, decades, 50), "busy": rng.uniform(0.05, 1, 50)}
    one |= {"trips": rng.integers(1, 999, 50), "ahead": rng.integers(1, 6, 50)}
    one |= {name: rng.integers(0, 2, 50) for name in ("asynchronous", "fits", "unstaged", "serial")}
    one["rounds"] = np.ceil(one["waves"])
    return {name: np.asarray(one[name], dtype=float) for name in INPUTS}


@given(st.integers(0, 10**6), st.sampled_from(WORK))
@settings(max_examples=60)
def test_more_work_never_takes_less_time(number, what):
    x = launches(number)
    more = {**x, what: x[what] * 2}
    time = time_us(x, CONSTANTS)
    assert np.isfinite(time).all()
    assert (time > 0).all()
    assert (time_us(more, CONSTANTS) >= time * (1 - 1e-9)).all()


def test_torch_and_numpy_agree():
    torch = pytest.importorskip("torch")
    x = launches(0)
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in x.items()}
    assert np.allclose(time_us(tensors, CONSTANTS, torch).numpy(), time_us(x, CONSTANTS))


def test_the_constants_find_their_way_back():
    """Times that the model itself makes with other constants are ranked better after the fit."""
    pytest.importorskip("torch")
    from autotune_rlm.training.eye import RankedList
    from autotune_rlm.training.eye_time import PLAUSIBLE, fit_time

    true = {**PLAUSIBLE, "operands": 3.0, "load_us": 0.05, "spills": 4.0}
    lists = []
    for i in range(12):
        x = launches(i, 0.5)
        x["resident"][:] = 2
        rows = np.stack([x[name] for name in INPUTS], 1)
        none = np.zeros((len(rows), 0))
        lists.append(RankedList("k", "d", "product", none, rows, np.log(time_us(x, true) / 1e3)))
    found = fit_time(lists, steps=60)

    def error(constants):
        left = [one.expected(constants) - one.log_time for one in lists]
        return np.mean([np.std(x) for x in left])

    assert error(found) < 0.7 * error(PLAUSIBLE)


@given(st.integers(0, 10**6), st.sampled_from([4, 8, 16]))
@settings(max_examples=20)
def test_warps_of_a_program_overlap_as_programs_do_or_less(number, warps):
    """Twice the warps with the same work wait less, but not less than half as long."""
    few = {**launches(number), "warps": np.full(50, float(warps))}
    time, more = (time_us({**few, "warps": few["warps"] * n}, CONSTANTS) for n in (1, 2))
    assert (more <= time).all()
    assert (more >= time / 2).all()


def rows_summed(*, warps=4, stages=3, own_stages=0, kind="store"):
    """Numbers of a kernel that loads 64 tiles one after the other and sums each."""
    tile = {
        "shape": (1024,),
        "item_bytes": 4,
        "distinct": 1024,
        "active": 1.0,
        "axis": 0,
        "run": 1024,
    }
    facts = KernelFacts(
        grid=(4096, 1, 1),
        accesses=(
            Access(kind="load", argument="x", times=64.0, loop=0, **tile),
            Access(kind=kind, argument="out", times=1.0, **tile),
        ),
        loops=(Loop(trips=16.0, times=4.0, stages=own_stages),),
        reductions=(
            Reduction(kind="reduce", shape=(1024,), axis=0, operands=1, item_bytes=4, times=64.0),
        ),
        unique_bytes=4096.0 * 1024 * 4,
    )
    gpu = devices.lookup("NVIDIA H100")
    return on_device(facts, gpu, num_warps=warps, num_stages=stages)


def test_stages_change_only_loops_that_triton_pipelines():
    assert rows_summed()["unpiped"] == 64.0
    assert rows_summed(stages=1)["expected_ms"] == rows_summed(stages=5)["expected_ms"]
    assert rows_summed(own_stages=3)["unpiped"] == 0.0


def test_each_warp_goes_through_a_reduction():
    """Of small tiles, more warps have less to do each, and as many instructions for a sum."""
    assert rows_summed(warps=16)["expected_ms"] > rows_summed(warps=2)["expected_ms"]


def test_adding_to_memory_takes_longer_than_writing_it():
    assert rows_summed(kind="atomic")["expected_ms"] > rows_summed()["expected_ms"]


def product_of_bytes(k, item_bytes, source):
    """A product of 64 x 128 whose second operand lies along its sum."""
    load = {"kind": "load", "times": 32.0, "active": 1.0, "loop": 0, "feeds_dot": source}
    load |= {"item_bytes": item_bytes, "axis": 0, "run": k}
    return KernelFacts(
        grid=(64, 1, 1),
        dots=(
            Dot(m=64, n=128, k=k, a="f16", b="f16", acc="f32", times=32.0, loop=0, b_from=source),
        ),
        accesses=(Access(argument="b", shape=(k, 128), distinct=k * 128, **load),),
        loops=(Loop(trips=32.0, times=1.0),),
    )


@pytest.mark.parametrize(
    ("k", "item_bytes", "run"), [(32, 1, 32), (64, 1, 64), (64, 2, 128), (256, 2, 128)]
)
def test_neighbouring_bytes_count_up_to_a_line_of_the_cache(k, item_bytes, run):
    facts = product_of_bytes(k, item_bytes, "load")
    assert on_device(facts, devices.lookup("NVIDIA H100"))["run_bytes"] == run


def test_converted_operands_go_through_shared_memory_again():
    gpu = devices.lookup("NVIDIA H100")
    straight, converted = (on_device(product_of_bytes(64, 1, x), gpu) for x in ("load", "loaded"))
    assert straight["converted_kb"] == 0
    assert converted["converted_kb"] == 64 * 128 * (1 + 2) / 1024
    assert converted["expected_ms"] > straight["expected_ms"]


@pytest.mark.parametrize("device", ["NVIDIA A100", "NVIDIA H100", "AMD MI300X"])
def test_a_launch_takes_about_as_long_as_its_roofline_at_best(device):
    arguments = {"a": "*fp16", "b": "*fp16", "c": "*fp16", "M": 4096, "N": 4096, "K": 4096}
    arguments |= {"BM": 128, "BN": 128, "BK": 64, "GROUP": 8}
    facts = kernel_facts(kernels.matmul, arguments, grid=(1024,))
    numbers = on_device(facts, devices.lookup(device), num_warps=8, num_stages=3)
    assert 0.7 < numbers["expected_ms"] / numbers["roofline_ms"] < 5
    assert math.isfinite(numbers["expected_ms"])


@pytest.mark.parametrize("element", ["fp32", "fp16"])
@pytest.mark.parametrize("device", ["NVIDIA A100", "NVIDIA H100", "NVIDIA B200"])
def test_only_exact_fp32_products_do_without_the_matrix_units(device, element):
    arguments = {"a": f"*{element}", "b": f"*{element}", "c": "*fp32", "K": 4096}
    arguments |= {"BM": 128, "BN": 64, "BK": 32}
    gpu = devices.lookup(device)
    told = {}
    for precision in ("ieee", "tf32"):
        facts = kernel_facts(kernels.product_of_tiles, {**arguments, "P": precision}, grid=(256,))
        told[precision] = on_device(facts, gpu, num_warps=4, num_stages=3)
        assert facts.dots[0].precision in (precision, "")
    same = element == "fp16"
    assert (told["ieee"] == told["tf32"]) == same
    assert same or told["ieee"]["dot_ms"] == pytest.approx(
        2 * 256 * 128 * 64 * 4096 / (gpu.fp32_tflops * 1e9)
    )
    assert same or told["ieee"]["asynchronous"] == 0


def compiled(kernel, arguments, target, warps=4, stages=3):
    """What Triton's compiler makes of a kernel."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from autotune_rlm.ir._signature import signature_of

    known = signature_of(kernel, arguments)
    aligned = {path: [["tt.divisibility", n]] for path, n in known.divisible.items()}
    source = ASTSource(kernel, dict(known.types), dict(known.constants), aligned)
    gpu = GPUTarget("cuda", int(target[3:]), 32)
    return triton.compile(source, target=gpu, options={"num_warps": warps, "num_stages": stages})


@pytest.mark.parametrize(("device", "uses"), [("NVIDIA T4", False), ("NVIDIA A100", True)])
def test_products_before_ampere_do_without_the_matrix_units_as_triton_compiles_them(device, uses):
    arguments = {"a": "*fp16", "b": "*fp16", "c": "*fp32", "K": 4096}
    arguments |= {"BM": 64, "BN": 64, "BK": 32, "P": "tf32"}
    gpu = devices.lookup(device)
    numbers = on_device(kernel_facts(kernels.product_of_tiles, arguments, grid=(256,)), gpu)
    peak = gpu.fp16_tensor_tflops if uses else gpu.fp32_tflops
    assert numbers["dot_ms"] == pytest.approx(2 * 256 * 64 * 64 * 4096 / (peak * 1e9))
    assert ("mma" in compiled(kernels.product_of_tiles, arguments, gpu.target).asm["ptx"]) == uses


@pytest.mark.parametrize(
    ("device", "head", "block", "warps", "stages"),
    [
        ("NVIDIA A100", 64, 64, 4, 3),  # Q as large as K
        ("NVIDIA A100", 128, 32, 4, 2),  # wider than high: warps along the columns
        ("NVIDIA A100", 64, 32, 8, 3),  # warps that repeat each other's rows
        ("NVIDIA H100", 128, 64, 4, 3),
    ],
)
def test_shared_memory_of_an_attention_is_the_compilers(device, head, block, warps, stages):
    arguments = {name: "*fp16" for name in ("q", "k", "v", "out")}
    arguments |= {"n": 2048, "D": head, "BM": 64, "BN": block}
    facts = kernel_facts(kernels.attention, arguments, grid=(32, 8))
    gpu = devices.lookup(device)
    told = on_device(facts, gpu, num_warps=warps, num_stages=stages)["shared_bytes"]
    true = compiled(kernels.attention, arguments, gpu.target, warps, stages).metadata.shared
    assert told == pytest.approx(true, rel=0.02)


@pytest.mark.parametrize(
    ("kernel", "constants", "warps"),
    [
        ("turned", {"BM": 64, "BN": 64}, 4),
        ("turned", {"BM": 64, "BN": 64}, 1),
        ("sums", {"BM": 64, "BN": 64, "AXIS": 0}, 4),  # rows lie in several warps
        ("sums", {"BM": 64, "BN": 64, "AXIS": 1}, 4),  # a row lies in one warp
        ("sums", {"BM": 4, "BN": 1024, "AXIS": 1}, 8),  # a row lies in several
        ("running", {"BM": 128, "BN": 64}, 8),
        ("running", {"BM": 32, "BN": 32}, 4),
    ],
)
def test_shared_memory_of_layouts_is_the_compilers(kernel, constants, warps):
    if kernel == "turned" and triton.__version__ < "3.6":
        pytest.skip("this Triton pads a tile that turns")
    arguments = {"x": "*fp32", "out": "*fp32", **constants}
    function, gpu = getattr(kernels, kernel), devices.lookup("NVIDIA A100")
    facts = kernel_facts(function, arguments, grid=(64,), target=gpu.target)
    told = on_device(facts, gpu, num_warps=warps, num_stages=3)["shared_bytes"]
    assert told == compiled(function, arguments, gpu.target, warps, 3).metadata.shared


@pytest.mark.parametrize("rows", [32, 64])
def test_what_the_compiler_gives_up_on_is_known_to_spill(rows):
    # 16 or 32 results of a thread, and factors of 512 or 768 words, which are converted and held
    arguments = {"a": "*fp16", "b": "*fp16", "c": "*fp32", "K": 4096}
    arguments |= {"BM": rows, "BN": 64, "BK": 64, "P": "tf32"}
    facts = kernel_facts(kernels.product_of_tiles, arguments, grid=(256,))
    told = on_device(facts, devices.lookup("NVIDIA T4"), num_warps=4)["excess_registers"]
    binary = compiled(kernels.product_of_tiles, arguments, "sm_75", 4, 1).asm["cubin"]
    spills = binary_facts(binary)["spills"]
    assert (spills > 300) == (told > 300) == (rows == 64)


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
@pytest.mark.parametrize("device", ["NVIDIA A100", "NVIDIA H100"])
def test_shared_memory_of_an_fp32_product_is_the_compilers(device, precision):
    arguments = {"a": "*fp32", "b": "*fp32", "c": "*fp32", "K": 4096}
    arguments |= {"BM": 64, "BN": 64, "BK": 32, "P": precision}
    facts = kernel_facts(kernels.product_of_tiles, arguments, grid=(256,))
    gpu = devices.lookup(device)
    told = on_device(facts, gpu, num_warps=4, num_stages=3)["shared_bytes"]
    true = compiled(kernels.product_of_tiles, arguments, gpu.target, 4, 3).metadata.shared
    assert told == pytest.approx(true, rel=0.02)


@pytest.mark.parametrize("tile", [(64, 64, 64), (128, 64, 32), (64, 128, 64)])
@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_wgmma_turns_wide_operands_that_lie_across_its_sum(tile, first, second):
    """Axis 1 of the first operand and axis 0 of the second are summed over: these may be contiguous."""
    m, n, k = tile
    load = {"kind": "load", "item_bytes": 4, "times": 8.0, "active": 1.0, "loop": 0, "run": 32}
    load |= {"feeds_dot": "load"}
    facts = KernelFacts(
        grid=(64, 1, 1),
        dots=(
            Dot(m=m, n=n, k=k, a="f32", b="f32", acc="f32", precision="tf32", times=8.0, loop=0),
        ),
        accesses=(
            Access(argument="a", shape=(m, k), distinct=m * k, axis=first, **load),
            Access(argument="b", shape=(k, n), distinct=k * n, axis=second, **load),
        ),
        loops=(Loop(trips=8.0, times=1.0),),
    )
    told = on_device(facts, devices.lookup("NVIDIA H100"), num_warps=4, num_stages=3)
    assert told["turned"] == float((first, second) != (1, 0))
