"""ONNX as text: canonical, folded, and sound on bad models."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from autotune_rlm.networks import (  # noqa: E402
    graph_facts,
    onnx_text,
    printable_text,
    space,
)
from autotune_rlm.networks._fold import fold  # noqa: E402


def _model(nodes, weights=(), *, shape=(1, 4), out="y", opset=17, extra_inputs=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), *extra_inputs],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def _weight(name, *shape):
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def _branches(order, names):
    """Two branches of one input; the file order of the nodes and all names may vary."""
    a, b, w = names
    nodes = [
        helper.make_node("MatMul", ["x", w], [a]),
        helper.make_node("Relu", ["x"], [b]),
        helper.make_node("Sigmoid", ["x"], ["unused" + b]),
    ]
    nodes = [nodes[i] for i in order] + [helper.make_node("Add", [a, b], ["y"])]
    return _model(nodes, [_weight(w, 4, 4)])


def test_names_order_and_dead_nodes_change_nothing():
    text = onnx_text(_branches([0, 1, 2], ["a", "b", "w"]))
    assert onnx_text(_branches([2, 1, 0], ["q", "p", "weight.7"])) == text
    assert "Sigmoid" not in text


def test_structure_shapes_and_attributes_change_the_text():
    texts = {
        onnx_text(_model([helper.make_node("Softmax", ["x"], ["y"], axis=axis)], shape=shape))
        for axis in (0, 1)
        for shape in ((1, 4), (2, 4))
    }
    assert len(texts) == 4


def test_default_attributes_are_left_out():
    explicit = helper.make_node("Softmax", ["x"], ["y"], axis=-1)
    assert onnx_text(_model([explicit])) == onnx_text(
        _model([helper.make_node("Softmax", ["x"], ["y"])])
    )


def unfold(lines):
    """The lines of a folded text, of which ``3x{`` to ``}`` stands for three times what is between."""
    stack = [(1, [])]
    for line in lines:
        if line.endswith("x{"):
            stack.append((int(line[:-2]), []))
        elif line == "}":
            count, block = stack.pop()
            stack[-1][1].extend(block * count)
        else:
            stack[-1][1].append(line)
    return stack[0][1]


@given(st.lists(st.sampled_from("abc"), max_size=60))
@settings(max_examples=200)
def test_folding_loses_nothing(lines):
    folded = fold(lines)
    assert unfold(folded) == list(lines)
    assert len(folded) <= len(lines)


def test_repeated_blocks_fold_to_a_text_that_does_not_grow_with_depth():
    def chain(n):
        nodes, last = [], "x"
        for i in range(n):
            nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"m{i}"]))
            nodes.append(helper.make_node("Relu", [f"m{i}"], [f"r{i}"]))
            nodes.append(helper.make_node("Add", [f"r{i}", last], [f"a{i}"]))
            last = f"a{i}"
        weights = [_weight(f"w{i}", 4, 4) for i in range(n)]
        return _model([*nodes, helper.make_node("Identity", [last], ["y"])], weights)

    short, long = onnx_text(chain(20)), onnx_text(chain(200))
    assert len(long.splitlines()) == len(short.splitlines()) < 15


@pytest.mark.parametrize("opset", range(7, 25))
def test_every_opset_gives_text_and_facts(opset):
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    model = _model(nodes, [_weight("w", 4, 3), _weight("b", 3)], opset=opset)
    assert onnx_text(model).startswith(f"onnx {opset}\n")
    facts = graph_facts(model)
    assert (facts.parameters, facts.macs, facts.depth) == (15, 12, 2)


def test_weights_in_the_file_beside_it_or_in_memory_give_one_text(tmp_path):
    known = space("nasbench_macro")
    config = {name: 1 for name in known.parameters}
    model = known.model(config)
    text = onnx_text(model)
    inside, outside = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model, str(inside))
    onnx.save(
        model, str(outside), save_as_external_data=True, location="w.bin", size_threshold=1024
    )
    assert onnx_text(inside) == onnx_text(str(outside)) == onnx_text(inside.read_bytes()) == text
    os.remove(tmp_path / "w.bin")  # what is not there cannot be read
    assert onnx_text(outside) == text
    assert graph_facts(outside) == graph_facts(model)
    assert "Conv" in printable_text(outside)


def test_a_model_of_many_gigabytes_is_not_read(tmp_path):
    """The declared weights are 40 GB and do not exist."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[100_000, 100_000])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="missing.bin")
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor], shape=(1, 100_000))
    path = tmp_path / "huge.onnx"
    path.write_bytes(model.SerializeToString())
    assert graph_facts(path).parameters == 10**10
    assert "w100000x100000" in onnx_text(path)


def test_a_given_model_is_left_as_it_was():
    model = space("nasbench_macro").model({f"b{i}": 2 for i in range(8)})
    before = model.SerializeToString(deterministic=True)
    onnx_text(model), graph_facts(model)
    assert model.SerializeToString(deterministic=True) == before


@given(st.floats(0.001, 0.999))
@settings(max_examples=30)
def test_a_cut_file_is_an_error_or_a_graph(share):
    whole = _branches([0, 1, 2], ["a", "b", "w"]).SerializeToString()
    cut = whole[: int(len(whole) * share)]
    with contextlib.suppress(ValueError):
        assert onnx_text(cut).startswith("onnx")


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x00" * 64, b"\xff" * 64])
def test_other_files_are_a_clear_error(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.onnx"):
        onnx_text(path)


def test_missing_files_and_other_types_are_named():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        onnx_text(Path("nowhere.onnx"))
    with pytest.raises(TypeError, match="ModelProto"):
        onnx_text(3)


def test_cycles_dangling_reads_and_double_writes_are_named():
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    with pytest.raises(ValueError, match="cycle"):
        onnx_text(_model([*nodes, helper.make_node("Relu", ["b"], ["y"])]))
    with pytest.raises(ValueError, match="'nothing' is read"):
        onnx_text(_model([helper.make_node("Add", ["x", "nothing"], ["y"])]))
    with pytest.raises(ValueError, match="two nodes produce 'y'"):
        onnx_text(_model([helper.make_node("Relu", ["x"], ["y"])] * 2))


def test_unknown_operators_give_text_and_count_as_unknown():
    nodes = [
        helper.make_node("Mystery", ["x"], ["h"], domain="my.ops", level=3),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    model = _model(nodes)
    assert "my.ops.Mystery in0 level=3" in onnx_text(model)
    assert graph_facts(model).unknown == 2


def test_dynamic_dimensions_are_numbered_or_bound():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    first = _model(nodes, [_weight("w", 4, 3)], shape=("batch", 4))
    second = _model(nodes, [_weight("w", 4, 3)], shape=("N", 4))
    assert onnx_text(first) == onnx_text(second)
    assert "[?0,4]" in onnx_text(first)
    assert graph_facts(first, dims={"batch": 8}).macs == 8 * graph_facts(first).macs == 96
    with pytest.raises(ValueError, match="no dynamic dimension named"):
        onnx_text(first, dims={"height": 3})


def test_subgraphs_are_part_of_the_text():
    def branch(op):
        return helper.make_graph(
            [helper.make_node(op, ["x"], ["z"])],
            "b",
            [],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        )

    def chosen(op):
        node = helper.make_node(
            "If", ["c"], ["y"], then_branch=branch(op), else_branch=branch("Relu")
        )
        flag = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
        return onnx_text(_model([node], extra_inputs=[flag]))

    assert chosen("Sigmoid") != chosen("Tanh")
