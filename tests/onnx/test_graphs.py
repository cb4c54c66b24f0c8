"""Any graph is read right: graphs within graphs, functions, sizes, foreign operators, damage."""

from __future__ import annotations

import contextlib
import random
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from graph_support import (  # noqa: E402
    MACS,
    X,
    branch,
    ints,
    model,
    product,
    quantised,
    scalar,
    value,
    weight,
)
from onnx import TensorProto as T  # noqa: E402
from onnx import helper as h  # noqa: E402

from autotune_rlm.networks import graph_facts, network_fields, onnx_text, read_graph  # noqa: E402

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import onnx_models  # noqa: E402

# ---- graphs within graphs


def chosen(then, other, condition=None):
    node = h.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    if condition is None:
        return model([node], [value("c", T.BOOL, []), X], [weight("w", 128, 64)])
    return model([node], [X], [weight("w", 128, 64), scalar("c", condition, bool)])


def test_of_branches_the_dearer_counts_and_all_weights():
    small = branch([h.make_node("ReduceMean", ["x"], ["u"])], "u")
    large = branch([product(w="v", y="t")], "t", [weight("v", 128, 64)])
    facts = graph_facts(chosen(small, large))
    assert (facts.macs, facts.unknown, facts.parameters) == (MACS, 0, 128 * 64)
    assert facts.operators == {"If": 1, "MatMul": 1}
    assert facts.depth == 2


@pytest.mark.parametrize(("condition", "macs"), [(True, MACS), (False, 0)])
def test_a_known_condition_takes_its_branch(condition, macs):
    model = chosen(
        branch([product(y="t")], "t"), branch([h.make_node("Abs", ["x"], ["u"])], "u"), condition
    )
    facts = graph_facts(model)
    assert (facts.macs, facts.unknown) == (macs, 0)
    assert ("MatMul" in onnx_text(model)) is condition


def loop(trips=None, keep=True, *, grows=False, stops=False):
    going = "less" if stops else "keep"
    body = [product("s", "square", "t"), h.make_node("Identity", ["go"], ["keep"])]
    if stops:
        body.append(h.make_node("Less", ["i", "five"], ["less"]))
    if grows:
        body[0] = h.make_node("Concat", ["s", "s"], ["t"], axis=0)
    graph = h.make_graph(
        body, "b", [value("i", T.INT64, []), value("go", T.BOOL, []), value("s", T.FLOAT, None)],
        [value(going, T.BOOL, []), value("t", T.FLOAT, None), value("s", T.FLOAT, None)],
    )  # fmt: skip
    inputs = [X] if trips is not None else [X, value("m", T.INT64, [])]
    stored = [weight("square", 128, 128), scalar("five", 5), scalar("k", keep, bool)]
    if trips is not None:
        stored.append(scalar("m", trips))
    node = h.make_node("Loop", ["m", "k", "x"], ["y", "each"], body=graph)
    return model([node], inputs, stored, out=("y", "each"))


def test_a_body_counts_as_often_as_it_runs():
    once = 4 * 128 * 128
    facts = graph_facts(loop(7))
    assert (facts.macs, facts.unknown, facts.parameters) == (7 * once, 0, 128 * 128)
    assert graph_facts(loop(0)).macs == 0
    assert graph_facts(loop(7, keep=False)).macs == 0
    assert read_graph(loop(7)).tensor("each").shape == (7, 4, 128)
    assert network_fields(read_graph(loop(7)))["macs"] == 7 * once


@pytest.mark.parametrize("unsteady", [{}, {"trips": 3, "grows": True}, {"trips": 3, "stops": True}])
def test_runs_that_are_not_known_say_so(unsteady):
    assert graph_facts(loop(**unsteady)).unknown > 0


def test_scan_runs_once_for_each_slice():
    body = h.make_graph(
        [product("slice", "w", "t"), h.make_node("Add", ["state", "t"], ["next"])],
        "b", [value("state", T.FLOAT, [64]), value("slice", T.FLOAT, [128])],
        [value("next", T.FLOAT, [64]), value("t", T.FLOAT, [64])],
    )  # fmt: skip
    node = h.make_node("Scan", ["h", "x"], ["y", "all"], body=body, num_scan_inputs=1)
    facts = graph_facts(
        model([node], [X], [weight("w", 128, 64), weight("h", 64)], out=("y", "all"))
    )
    assert (facts.macs, facts.unknown, facts.parameters) == (MACS, 0, 128 * 64 + 64)


def test_a_branch_may_read_a_sequence_and_a_value_of_the_graph_around_two():
    inner = chosen(branch([product(y="t")], "t"), branch([product(y="u")], "u")).graph.node[0]
    inner.output[0] = "z"
    outer = branch([inner, h.make_node("SequenceAt", ["list", "zero"], ["q"])], "q")
    nodes = [
        h.make_node("SequenceConstruct", ["x", "x"], ["list"]),
        h.make_node("If", ["c"], ["y"], then_branch=outer, else_branch=outer),
    ]
    built = model(nodes, [value("c", T.BOOL, []), X], [weight("w", 128, 64), scalar("zero", 0)])
    outer.output[0].name = "q"
    assert graph_facts(built).operators["SequenceAt"] == 1
    assert "SequenceAt" in onnx_text(built)


def test_what_a_branch_reads_of_the_graph_around_is_part_of_the_text():
    texts = set()
    for read in ("x", "n", "r"):
        nodes = [h.make_node("Neg", ["x"], ["n"]), h.make_node("Relu", ["x"], ["r"])]
        then = branch([product(read, y="t")], "t")
        other = branch([h.make_node("MatMul", ["n", "w"], ["u"])], "u")
        nodes.append(h.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other))
        texts.add(onnx_text(model(nodes, [value("c", T.BOOL, []), X], [weight("w", 128, 64)])))
    assert len(texts) == 3


# ---- functions


def test_functions_of_the_model_are_inlined():
    layer = h.make_function(
        "mine", "Layer", ["a", "b"], ["c"],
        [product("a", "b", "t"), h.make_node("Relu", ["t"], ["c"])], [h.make_opsetid("", 18)],
    )  # fmt: skip
    called = model(
        [h.make_node("Layer", ["x", "w"], ["y"], domain="mine")],
        [X], [weight("w", 128, 64)], functions=[layer], domains=["mine"],
    )  # fmt: skip
    written = model(
        [product(y="t"), h.make_node("Relu", ["t"], ["y"])], [X], [weight("w", 128, 64)]
    )
    assert onnx_text(called) == onnx_text(written)
    assert graph_facts(called).macs == MACS


def calling(number, calls, first="Relu"):
    """Functions that each call the one before ``calls`` times."""
    opsets = [h.make_opsetid("", 18), h.make_opsetid("mine", 1)]
    functions = []
    for i in range(number):
        op, domain = (f"F{i - 1}", "mine") if i else (first, "mine" if first != "Relu" else "")
        names = ["a", *(f"t{j}" for j in range(calls - 1)), "b"]
        nodes = [h.make_node(op, [names[j]], [names[j + 1]], domain=domain) for j in range(calls)]
        functions.append(h.make_function("mine", f"F{i}", ["a"], ["b"], nodes, opsets))
    last = h.make_node(f"F{number - 1}", ["x"], ["y"], domain="mine")
    return model([last], [X], functions=functions, domains=["mine"])


def test_functions_that_multiply_or_call_themselves_are_an_error():
    assert graph_facts(calling(3, 2)).nodes == 8
    with pytest.raises(ValueError, match="expand to more than"):
        graph_facts(calling(40, 2))
    with pytest.raises(ValueError, match="calls itself"):
        graph_facts(calling(2, 1, first="F1"))


B, S, HEADS, D = 2, 16, 8, 32


# ---- sizes


@pytest.mark.parametrize("size", [-1, 0, None, "batch"])
def test_sizes_that_are_not_told_are_dynamic(size):
    net = model(
        [h.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)],
        [value("x", T.FLOAT, [size, 3, 32, 32])], [weight("w", 8, 3, 3, 3)],
        out=(value("y", T.FLOAT, [size, 8, 32, 32]),),
    )  # fmt: skip
    name = size if isinstance(size, str) else "x:0"
    facts = graph_facts(net)
    assert facts.dims == {name: 1}
    assert facts.macs == 32 * 32 * 8 * 27
    assert facts.activation_bytes == 32 * 32 * 8 * 4
    assert graph_facts(net, dims={name: 4}).macs == 4 * facts.macs
    assert "[?0,3,32,32]" in onnx_text(net)
    with pytest.raises(ValueError, match="positive integer"):
        graph_facts(net, dims={name: 0})


def test_channels_and_sums_of_sizes_are_assumed_as_the_model_needs_them():
    net = model(
        [h.make_node("Conv", ["x", "w"], ["y"])],
        [value("x", T.FLOAT, ["n", "c", "h", "w_"]), value("mask", T.INT64, ["n", "past + new"]),
         value("p", T.FLOAT, ["past", "new"])],
        [weight("w", 8, 3, 3, 3)],
    )  # fmt: skip
    dims = graph_facts(net).dims
    assert dims["c"] == 3
    assert dims["past + new"] == dims["past"] + dims["new"]


def decoder(layers):
    """Reshapes whose sizes are computed from the input's, as exporters write them."""
    nodes, last = [], "x"
    for i in range(layers):
        nodes += [
            h.make_node("Shape", [last], [f"s{i}"]),
            h.make_node("Gather", [f"s{i}", "one"], [f"n{i}"]),
            h.make_node("Mul", [f"n{i}", "four"], [f"m{i}"]),
            h.make_node("Unsqueeze", [f"m{i}", "zeros"], [f"u{i}"]),
            h.make_node("Concat", [f"u{i}", "tail"], [f"c{i}"], axis=0),
            h.make_node("Reshape", [last, f"c{i}"], [f"r{i}"]),
            h.make_node("MatMul", [f"r{i}", "w"], [f"p{i}"]),
            h.make_node("Range", ["zero", f"n{i}", "one_"], [f"range{i}"]),
            h.make_node("Gather", [f"p{i}", f"range{i}"], [f"g{i}"], axis=0),
            h.make_node("Unsqueeze", [f"g{i}", "zeros"], [f"h{i}"]),
        ]
        last = f"h{i}"
    stored = [scalar("one", 1), scalar("four", 4), scalar("zero", 0), scalar("one_", 1),
              ints("zeros", 0), ints("tail", 32), weight("w", 32, 128)]  # fmt: skip
    return model(nodes, [value("x", T.FLOAT, ["b", "seq", 128])], stored, out=(last,))


def test_sizes_fold_through_computed_shapes():
    facts = graph_facts(decoder(20), dims={"b": 1, "seq": 64})
    assert (facts.macs, facts.unknown) == (20 * 64 * 4 * 32 * 128, 0)
    assert set(facts.operators) == {"Reshape", "MatMul", "Gather", "Unsqueeze"}


# ---- large, damaged and hostile files


def test_work_grows_with_the_nodes_alone(monkeypatch):
    """Calls of Python functions, a measure that no clock disturbs."""

    def calls(graph):
        count = 0

        def profile(frame, event, argument):
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(profile)
        try:
            graph_facts(graph)
        finally:
            sys.setprofile(None)
        return count

    def wide(n):
        """One node that reads n others, and a chain of n."""
        nodes = [h.make_node("Neg", ["x"], [f"n{i}"]) for i in range(n)]
        nodes.append(h.make_node("Concat", [f"n{i}" for i in range(n)], ["c0"], axis=0))
        nodes += [h.make_node("Relu", [f"c{i}"], [f"c{i + 1}"]) for i in range(n)]
        return model(nodes, [X], out=(f"c{n}",))

    calls(decoder(2))  # imports onnx's evaluator
    assert calls(wide(1600)) < 5 * calls(wide(400))
    assert calls(decoder(160)) < 5 * calls(decoder(40))


def nested(depth):
    """The bytes of an ``If`` in an ``If``..., whose innermost branch is a product."""

    def field(number, content):
        size, length = len(content), b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    inner = branch([product(y="t")], "t").SerializeToString()
    for _ in range(depth):
        held = field(1, b"then_branch") + bytes([0xA0, 1, 5]) + field(6, inner)
        shell = field(1, b"c") + field(2, b"t") + field(4, b"If") + field(5, held)
        inner = field(1, shell) + field(2, b"b") + field(12, field(1, b"t"))
    around = model([], [value("c", T.BOOL, []), X], [weight("w", 128, 64)], out=()).graph
    graph = inner + around.SerializeToString()
    return field(7, graph) + field(8, bytes([2 << 3, 18])) + bytes([1 << 3, 10])


@pytest.mark.parametrize("depth", [1, 10, 25, 40, 300, 5000])
def test_graphs_nested_without_end_are_an_error(depth):
    if depth <= 25:
        assert graph_facts(nested(depth)).macs == MACS
        assert onnx_text(nested(depth)).count("If") == depth
    else:
        with pytest.raises(ValueError, match=r"^model: .*(nested|not a whole ONNX model)"):
            graph_facts(nested(depth))


def test_sizes_that_explode_are_counted_not_made():
    nodes = [
        h.make_node("Range", ["zero", "huge", "one"], ["r"]),
        h.make_node("ConstantOfShape", ["big"], ["z"]),
        h.make_node("Shape", ["z"], ["y"]),
        h.make_node("Add", ["r", "r"], ["q"]),
    ]
    stored = [
        scalar("zero", 0),
        scalar("huge", 10**12),
        scalar("one", 1),
        ints("big", 10**6, 10**6),
    ]
    facts = graph_facts(model(nodes, [X], stored, out=("y", "q")))
    assert facts.activation_bytes >= 10**12


def test_damaged_files_are_one_clear_error():
    files = [decoder(2), loop(3), quantised(4), quantised(8), calling(2, 2)]
    contents = [f.SerializeToString() for f in files]
    rng = random.Random(0)
    for _ in range(1500):
        damaged = bytearray(rng.choice(contents))
        for _ in range(rng.choice([1, 1, 2, 8])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        said = ""
        try:
            graph_facts(bytes(damaged)), onnx_text(bytes(damaged))
        except ValueError as error:
            said = str(error)
        assert not said or said.startswith(("model", "dims"))


# ---- other people's models


@pytest.fixture(scope="module")
def generated():
    from onnx.backend.test.case.node import collect_testcases

    with np.errstate(all="ignore"), contextlib.redirect_stdout(None):
        cases = collect_testcases(None)
    return [(c.name, c.model) for c in cases if c.model is not None]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_models_that_onnx_generates_are_read(generated):
    sample = generated[::5]
    assert len(sample) > 200
    assert not {name: wrong for name, m in sample if (wrong := onnx_models.check(m))}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_all_models_that_onnx_generates_and_ships_are_read(generated):
    assert not {name: wrong for name, m in generated if (wrong := onnx_models.check(m))}
    shipped = sorted(Path(onnx.__file__).parent.rglob("*.onnx"))
    assert not {p: wrong for p in shipped if (wrong := onnx_models.check(p))}
