"""What is read from a kernel's IR agrees with what can be counted by hand."""

import json

import ir_test_kernels as kernels
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_rlm import devices
from autotune_rlm.ir import KernelFacts, NotRead, floor_ms, kernel_facts, on_device

HALF = {"a": "*fp16", "b": "*fp16", "c": "*fp16"}


def _matmul(m, n, k, *, bm=64, bn=64, bk=32, group=8):
    sizes = {"M": m, "N": n, "K": k, "BM": bm, "BN": bn, "BK": bk, "GROUP": group}
    grid = (-(-m // bm) * -(-n // bn),)
    return kernel_facts(kernels.matmul, {**HALF, **sizes}, grid=grid)


@settings(max_examples=12)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.sampled_from([16, 32, 128]),
    st.sampled_from([1, 4, 8]),
)  # fmt: skip
def test_a_matrix_product_counts_its_work_and_bytes(rows, columns, depth, bk, group):
    m, n, k = 64 * rows, 64 * columns, 16 * depth
    facts = _matmul(m, n, k, bk=bk, group=group)
    trips = -(-k // bk)
    assert facts.dot_flops * facts.programs == pytest.approx(2 * m * n * trips * bk)
    assert facts.moved_bytes("store") * facts.programs == pytest.approx(2 * m * n)
    assert facts.moved_bytes("load") == pytest.approx(2 * 2 * 64 * k, rel=0.1)
    assert facts.loops[0].trips == pytest.approx(trips)


def test_bytes_are_counted_once_for_memory():
    facts = _matmul(2048, 1024, 512)
    assert facts.unique_bytes == pytest.approx(2 * (2048 * 512 + 512 * 1024 + 2048 * 1024), rel=0.1)
    assert facts.moved_bytes() * facts.programs > 5 * facts.unique_bytes


def test_rows_beyond_the_problem_are_masked():
    facts = _matmul(8, 64, 64)
    store = next(a for a in facts.accesses if a.kind == "store")
    assert store.active == pytest.approx(8 / 64)
    assert facts.moved_bytes("store") == 2 * 8 * 64


def test_the_edge_of_a_large_grid_weighs_no_more_than_it_is():
    arguments = {"x": "*fp32", "out": "*fp32", "n": 64 * 100_000 + 1, "B": 64}
    facts = kernel_facts(kernels.persistent, arguments, grid=(100_001,))
    assert facts.moved_bytes("load") == pytest.approx(4 * 64, rel=1e-3)


def test_a_causal_loop_is_an_expectation_over_programs():
    arguments = {"q": "*fp16", "k": "*fp16", "out": "*fp32", "S": 1024, "B": 64, "D": 32}
    facts = kernel_facts(kernels.causal, arguments, grid=(16,))
    assert facts.loops[0].trips == pytest.approx(8.5)
    assert facts.dots[0].times == pytest.approx(8.5)
    assert facts.imbalance == pytest.approx(16 / 8.5, rel=0.1)
    assert facts.special_ops == pytest.approx(8.5 * 64 * 64)


@pytest.mark.parametrize(("rows", "columns"), [(64, 128), (128, 64), (32, 32)])
@pytest.mark.parametrize("heads", [1, 24])
def test_an_attention_backwards_counts_four_products_below_the_diagonal(rows, columns, heads):
    n, d = 2048, 64
    arguments = {name: "*fp16" for name in ("q", "k", "v", "do", "dk", "dv")} | {"lse": "*fp32"}
    arguments |= {"n": n, "D": d, "BM": rows, "BN": columns}
    facts = kernel_facts(kernels.attention_keys, arguments, grid=(n // columns, heads))
    trips = [(n - i * columns // rows * rows) // rows for i in range(n // columns)]
    assert facts.loops[0].trips == pytest.approx(sum(trips) / len(trips), rel=0.01)
    work = heads * sum(trips) * 4 * 2 * rows * columns * d
    assert facts.dot_flops * facts.programs == pytest.approx(work, rel=0.01)
    moved = heads * (sum(trips) * rows * (2 * 2 * d + 4) + 2 * 2 * n * d)
    assert facts.moved_bytes("load") * facts.programs == pytest.approx(moved, rel=0.01)
    assert facts.unique_bytes == pytest.approx(heads * n * (6 * 2 * d + 4), rel=0.01)


def test_groups_whose_sizes_lie_in_memory_are_shared_by_the_programs():
    sizes = {"a": "*fp16", "b": "*fp16", "c": "*fp32", "sizes": "*i32", "E": 8, "N": 1024, "K": 512}
    facts = kernel_facts(kernels.grouped, {**sizes, "PROGRAMS": 132, "B": 64}, grid=(132,))
    assert facts.dot_flops * 132 == pytest.approx(8 * 2 * 1024 * 1024 * 512, rel=0.15)
    assert any("1024" in sentence for sentence in facts.assumed)


@pytest.mark.parametrize(
    ("groups", "rows", "width"), [(4, 1024, 1024), (64, 4096, 512), (128, 8192, 64)]
)
@pytest.mark.parametrize("programs", [66, 528])
def test_groups_whose_ends_lie_in_memory_part_the_rows_equally(groups, rows, width, programs):
    arguments = {
        **{"a": {"dtype": "fp16", "shape": (rows, 256)}, "b": "*fp16", "c": "*fp32"},
        **{"ends": {"dtype": "int32", "shape": (groups,)}, "E": groups, "N": width, "K": 256},
        **{"PROGRAMS": programs, "B": 32},
    }
    facts = kernel_facts(kernels.grouped_by_ends, arguments, grid=(programs,))
    assert facts.dot_flops * programs == pytest.approx(2 * rows * width * 256, rel=0.01)
    assert facts.moved_bytes("store") * programs == pytest.approx(4 * rows * width, rel=0.01)
    tiles = rows // 32 * width // 32
    assert facts.idle == pytest.approx(max(0.0, 1 - tiles / programs), abs=0.05)
    assert facts.assumed


def test_groups_of_unknown_tensors_have_the_usual_length():
    arguments = {
        "a": "*fp16",
        "b": "*fp16",
        "c": "*fp32",
        "ends": "*i32",
        "E": 16,
        "N": 64,
        "K": 128,
    }
    facts = kernel_facts(
        kernels.grouped_by_ends, {**arguments, "PROGRAMS": 99, "B": 64}, grid=(99,)
    )
    assert facts.dot_flops * 99 == pytest.approx(16 * 1024 * 64 * 2 * 128, rel=0.01)


@pytest.mark.parametrize("block", [32, 256])
def test_rows_of_a_sparse_matrix_are_as_long_as_its_values_allow(block):
    arguments = {
        **{name: {"dtype": "fp32", "shape": (96_000,)} for name in ("values", "columns")},
        **{"starts": {"dtype": "int32", "shape": (1001,)}, "x": "*fp32", "out": "*fp32"},
        **{"R": 1000, "PROGRAMS": 64, "B": block},
    }
    arguments["columns"] = {"dtype": "int32", "shape": (96_000,)}
    facts = kernel_facts(kernels.sparse_rows, arguments, grid=(64,))
    read = sum(a.bytes for a in facts.accesses if a.argument == "values") * 64
    assert read == pytest.approx(4 * 96_000, rel=0.02)


def test_a_sequence_that_memory_chooses_is_as_long_as_others():
    arguments = {"x": "*fp32", "cu_seqlens": "*i32", "chunks": "*i32", "out": "*fp32", "B": 64}
    facts = kernel_facts(kernels.packed_chunks, arguments, grid=(100,))
    assert facts.loops[0].trips == 16
    shapes = {
        "x": {"dtype": "fp32", "shape": (1, 6400)},
        "cu_seqlens": {"dtype": "int32", "shape": (6,)},
    }
    facts = kernel_facts(kernels.packed_chunks, arguments | shapes, grid=(100,))
    assert facts.loops[0].trips == 20


def test_pieces_between_two_arrays_are_not_empty():
    arguments = {"x": "*fp32", "begins": "*i32", "ends": "*i64", "out": "*fp32", "B": 64}
    assert kernel_facts(kernels.between, arguments, grid=(100,)).loops[0].trips == 16


def test_sizes_in_one_array_are_no_offsets():
    arguments = {"x": "*fp32", "sizes": "*i32", "out": "*fp32", "B": 64}
    assert kernel_facts(kernels.sized, arguments, grid=(100,)).loops[0].trips == 16 * 16


@pytest.mark.parametrize("each", [64, 100, 497])
def test_shares_of_a_sum_that_begin_within_a_tile_are_whole(each):
    arguments = {
        "a": "*fp16",
        "b": "*fp16",
        "c": "*fp32",
        "N": 2048,
        "K": 2048,
        "EACH": each,
        "B": 32,
    }
    facts = kernel_facts(kernels.stream_k, arguments, grid=(132,))
    assert facts.dots[0].times == pytest.approx(each, rel=0.06)
    assert not facts.assumed


def test_a_label_from_memory_is_rarely_the_one_to_ignore():
    arguments = {
        "x": "*fp32",
        "labels": "*i64",
        "out": "*fp32",
        "n": 5120,
        "ignored": -100,
        "B": 512,
    }
    facts = kernel_facts(kernels.labelled, arguments, grid=(64,))
    assert facts.moved_bytes("load") == pytest.approx(4 * 5120 + 8)
    assert facts.idle == 0


def test_words_that_hold_eight_weights_are_read_once():
    arguments = {"x": "*fp16", "w": "*i32", "out": "*fp32", "N": 1024, "K": 512}
    facts = kernel_facts(
        kernels.packed_int4, {**arguments, "BM": 16, "BN": 64, "BK": 64}, grid=(16,)
    )
    words = next(a for a in facts.accesses if a.argument == "w")
    assert words.bytes * 16 == pytest.approx(1024 * 512 / 2)


@pytest.mark.parametrize(("n", "align"), [(1024, 16), (1000, 1), (1003, 1)])
def test_a_mask_that_may_end_anywhere_is_read_element_by_element(n, align):
    facts = kernel_facts(
        kernels.guarded, {"x": "*fp16", "out": "*fp16", "n": n, "B": 128}, grid=(8,)
    )
    assert {a.align for a in facts.accesses} == {align}
    assert facts.accesses[0].width == 2 * align


@pytest.mark.parametrize(("k", "is_copied"), [(512, True), (500, False)])
def test_rows_that_begin_anywhere_are_not_fetched_ahead(k, is_copied):
    facts = _matmul(512, 512, k, bk=64)
    numbers = on_device(facts, devices.lookup("NVIDIA H100"), num_warps=4, num_stages=4)
    assert (numbers["piped"] > 0) == is_copied
    assert (numbers["unpiped"] > 0) != is_copied
    usual = on_device(_matmul(512, 512, 512, bk=64), devices.lookup("NVIDIA H100"))
    assert (numbers["registers"] < usual["registers"] + 50) == is_copied


@pytest.mark.parametrize(("stages", "ahead"), [(1, False), (3, True)])
def test_a_loop_without_products_fetches_ahead_where_it_asks_for_stages(stages, ahead):
    arguments = {"x": "*fp16", "out": "*fp16", "rows": 64, "STAGES": stages, "B": 128}
    facts = kernel_facts(kernels.by_rows, arguments, grid=(8,))
    numbers = on_device(facts, devices.lookup("NVIDIA H100"), num_warps=4, num_stages=4)
    assert (numbers["piped"], numbers["unpiped"]) == ((64, 0) if ahead else (0, 64))


def test_persistent_programs_share_the_blocks():
    facts = kernel_facts(
        kernels.persistent, {"x": "*fp32", "out": "*fp32", "n": 1000 * 128, "B": 128}, grid=(64,)
    )
    assert facts.loops[0].trips == pytest.approx(1000 / 64)
    assert facts.moved_bytes("load") * 64 == pytest.approx(4 * 128 * 1000)
    assert facts.unique_bytes == pytest.approx(2 * 4 * 128 * 1000, rel=0.05)


@pytest.mark.parametrize("n", [1, 128, 1000, 123456])
def test_a_while_loop_runs_as_often_as_its_condition_holds(n):
    facts = kernel_facts(
        kernels.halving, {"x": "*fp32", "out": "*fp32", "n": n, "B": 128}, grid=(1,)
    )
    assert sum(x.trips for x in facts.loops) == pytest.approx(-(-n // 128))
    assert not facts.assumed


def test_a_bound_from_memory_is_said_to_be_assumed():
    arguments = {"x": "*fp32", "lengths": "*i32", "out": "*fp32", "B": 128}
    facts = kernel_facts(kernels.ragged, arguments, grid=(8,))
    assert not facts.loops[0].known
    assert any("memory" in sentence for sentence in facts.assumed)


@pytest.mark.parametrize("block", [16, 64, 256])
def test_a_length_in_memory_is_covered_by_fewer_iterations_of_larger_blocks(block):
    arguments = {"x": "*fp32", "starts": "*i32", "out": "*fp32", "B": block}
    facts = kernel_facts(kernels.packed, arguments, grid=(8,))
    assert facts.loops[0].trips * block == pytest.approx(1024)


def test_programs_that_return_early_are_idle():
    facts = kernel_facts(
        kernels.early, {"x": "*fp32", "out": "*fp32", "limit": 16, "B": 64}, grid=(64,)
    )
    assert facts.idle == pytest.approx(0.75)
    assert facts.moved_bytes("store") == pytest.approx(4 * 64 / 4)
    assert facts.moved_bytes("load") == pytest.approx(4 * 64 * (16 + 4) / 64)


def test_calls_that_stay_calls_are_followed():
    facts = kernel_facts(kernels.calling, {"x": "*fp32", "out": "*fp32", "B": 256}, grid=(4,))
    assert facts.moved_bytes("load") == facts.moved_bytes("store") == 4 * 256


def test_descriptors_move_whole_blocks():
    arguments = {"a": "*fp16", "out": "*fp16", "M": 512, "N": 256, "BM": 64, "BN": 32}
    facts = kernel_facts(kernels.by_descriptor, arguments, grid=(8, 8))
    assert facts.moved_bytes("load") == facts.moved_bytes("store") == 2 * 64 * 32
    assert all(a.descriptor for a in facts.accesses)


def test_atomics_scans_and_histograms_are_seen():
    arguments = {"x": "*fp32", "out": "*fp32", "counts": "*i32", "n": 1000, "B": 256}
    facts = kernel_facts(kernels.many, arguments, grid=(4,))
    assert {r.kind for r in facts.reductions} == {"reduce", "scan", "histogram"}
    assert sum(a.kind == "atomic" for a in facts.accesses) == 1
    assert facts.moved > 0


def test_addresses_next_to_each_other_are_found():
    facts = _matmul(512, 512, 512)
    left = next(a for a in facts.accesses if a.argument == "a")
    right = next(a for a in facts.accesses if a.argument == "b")
    assert (left.axis, left.run) == (1, 32)
    assert (right.axis, right.run) == (1, 64)
    assert left.feeds_dot == right.feeds_dot == "load"


def test_items_of_a_tuple_are_arguments():
    facts = kernel_facts(
        kernels.pairs, {"values": ("*fp32", 2.5), "out": "*fp32", "B": 64}, grid=(1,)
    )
    assert facts.moved_bytes("load") == 4 * 64


def test_facts_survive_json():
    facts = _matmul(256, 256, 256)
    assert KernelFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


@pytest.mark.parametrize(
    ("kernel", "arguments", "words"),
    [
        (kernels.refused, {"x": "*fp32", "B": 16}, "small enough"),
        (kernels.persistent, {"x": "*fp32", "B": 16}, "out, n"),
        (kernels.persistent, {"x": "fp99", "out": "*fp32", "n": 1, "B": 16}, "x is 'fp99'"),
        (len, {}, "no @triton.jit function"),
    ],
)
def test_what_cannot_be_read_says_why(kernel, arguments, words):
    with pytest.raises(NotRead, match=words):
        kernel_facts(kernel, arguments, grid=(1,))


def test_a_gluon_kernel_is_said_to_be_one():
    gluon = pytest.importorskip("triton.experimental.gluon")
    language = pytest.importorskip("triton.experimental.gluon.language")

    def copy(x, y, layout: language.constexpr):
        at = language.arange(0, 128, layout=layout)
        language.store(y + at, language.load(x + at))

    arguments = {"x": "*fp32", "y": "*fp32", "layout": language.BlockedLayout([1], [32], [4], [0])}
    with pytest.raises(NotRead, match="Gluon"):
        kernel_facts(gluon.jit(copy), arguments, grid=(1,))


@pytest.mark.parametrize(
    "device", ["V100", "A100", "H100", "B200", "RTX 5090", "MI300X", "RX 7900 XTX"]
)
@pytest.mark.parametrize(("warps", "stages"), [(1, 1), (4, 3), (16, 5)])
def test_numbers_of_a_device_are_finite_and_obey_physics(device, warps, stages):
    facts, where = _matmul(4096, 4096, 4096), devices.lookup(device)
    numbers = on_device(facts, where, num_warps=warps, num_stages=stages)
    assert all(abs(v) < 1e18 for v in numbers.values())
    work = 2 * 4096**3 / (max(where.fp16_tensor_tflops, where.fp32_tflops) * 1e9)
    assert numbers["wave_ms"] >= numbers["roofline_ms"] >= numbers["floor_ms"] >= work
    assert floor_ms(facts, where) == numbers["floor_ms"]
    assert 0 < numbers["occupancy"] <= 1
    assert 0 <= numbers["tail"] < 1


def test_more_stages_take_more_shared_memory_and_more_warps_fewer_registers():
    facts, where = _matmul(4096, 4096, 4096, bm=128, bn=128), devices.lookup("A100")
    few, many = (on_device(facts, where, num_warps=4, num_stages=s) for s in (2, 4))
    assert many["shared_bytes"] == 3 * few["shared_bytes"]
    wide = on_device(facts, where, num_warps=8, num_stages=2)
    assert wide["registers"] < few["registers"]


def _has_block_pointers():
    arguments = {**HALF, "M": 64, "N": 64, "K": 64, "BM": 16, "BN": 16, "BK": 16}
    try:
        kernel_facts(kernels.matmul_blocks, arguments, grid=(4, 4))
    except NotRead as error:
        return "removed" not in str(error)
    return True


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("way", ["matmul_blocks", "matmul_descriptors", "matmul_host"])
def test_blocks_and_descriptors_count_as_pointers_do(way, target):
    if way == "matmul_blocks" and not _has_block_pointers():
        pytest.skip("this Triton has no block pointers")
    m, n, k, bm, bn, bk = 1024, 512, 768, 128, 64, 32
    arguments = {**HALF, "M": m, "N": n, "K": k, "BM": bm, "BN": bn, "BK": bk}
    if way == "matmul_host":
        shapes = {"a": ([m, k], [bm, bk]), "b": ([k, n], [bk, bn]), "c": ([m, n], [bm, bn])}
        for name, (shape, block) in shapes.items():
            arguments[name] = {"dtype": "fp16", "shape": shape, "block": block}
    facts = kernel_facts(getattr(kernels, way), arguments, grid=(m // bm, n // bn), target=target)
    assert facts.dot_flops * facts.programs == 2 * m * n * k
    assert facts.moved_bytes("load") == 2 * (bm + bn) * k
    assert facts.moved_bytes("store") == 2 * bm * bn
    assert facts.unique_bytes == pytest.approx(2 * (m * k + k * n + m * n), rel=0.02)
    assert {(d.a_from, d.b_from) for d in facts.dots} == {("load", "load")}
    assert facts.loops[0].stages == (5 if way == "matmul_host" else 0)


def test_gluon_kernels_are_said_not_to_be_read():
    gluon = pytest.importorskip("triton.experimental.gluon")

    @gluon.jit
    def copy(x, y):
        pass

    with pytest.raises(NotRead, match="Gluon"):
        kernel_facts(copy, {"x": "*fp32", "y": "*fp32"}, grid=(1,))


def test_operations_with_several_results_are_followed():
    facts = kernel_facts(kernels.halves, {"x": "*fp32", "out": "*fp32", "B": 64}, grid=(1,))
    assert facts.moved_bytes("load") == 2 * facts.moved_bytes("store") == 4 * 128
    assert facts.float_ops == 64
