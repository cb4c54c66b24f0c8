"""ONNX networks: latency, memory, and faults, in a worker process."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from autotune_rlm.measure.onnxruntime import (  # noqa: E402
    OnnxRuntimeMeasurer,
    OnnxRuntimeSettings,
)
from autotune_rlm.measure.onnxruntime._measurer import _quantile_interval  # noqa: E402
from autotune_rlm.types import Candidate, Device, Status, Task  # noqa: E402

TASK = Task(kernel="net", device=Device(name="CPU"), language="onnx", metric="latency_ms")


def matmuls(count, size=192, batch="batch"):
    weight = np.full((size, size), 0.01, np.float32)
    nodes = [helper.make_node("MatMul", [f"x{i}", "w"], [f"x{i + 1}"]) for i in range(count)]
    shape = [batch, size]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{count}", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def measure(models, metric="latency_ms", **settings):
    task = Task(kernel="net", device=Device(name="CPU"), language="onnx", metric=metric)
    candidates = [Candidate({"i": i}, payload=model) for i, model in enumerate(models)]
    with OnnxRuntimeMeasurer(settings=OnnxRuntimeSettings(**settings)) as measurer:
        return {c.config["i"]: m for c, m in measurer.measure(task, candidates)}


def test_latencies_rank_networks_and_a_broken_one_costs_only_itself(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(matmuls(8).SerializeToString())
    models = [
        matmuls(2),
        b"not a network",
        matmuls(32).SerializeToString(),
        path,
        object(),
        "no.onnx",
    ]
    found = measure(models, dims={"batch": 16}, rounds=4)
    assert [found[i].ok for i in range(6)] == [True, False, True, True, False, False]
    assert found[0].value < found[3].value < found[2].value
    assert found[2].value > 4 * found[0].value
    for i in (0, 2, 3):
        m = found[i]
        assert m.low <= m.value <= m.high
        assert len(m.samples) == 4 * 3
        assert m.compile_s > 0
        assert m.state["clock"] == "cpu"
    assert {found[i].status for i in (1, 4, 5)} == {Status.COMPILE_ERROR}
    assert "no.onnx" in found[5].reason


def test_peak_memory_is_that_of_the_activations():
    small, large = matmuls(3, size=64), matmuls(3, size=64)
    by_batch = [
        measure([model], metric="peak_memory_mb", dims={"batch": batch})[0].value
        for model, batch in ((small, 1), (large, 2**16))
    ]
    activation = 2**16 * 64 * 4 / 2**20
    assert by_batch[0] < 30
    assert 1.5 * activation < by_batch[1] < 6 * activation


def test_a_network_that_kills_the_worker_while_timed_costs_only_itself(monkeypatch):
    """The second network dies in the second round, as one with a faulty operator would."""
    measurer = OnnxRuntimeMeasurer(settings=OnnxRuntimeSettings(rounds=3), timeout_s=30)
    real, rounds = measurer._worker.call, []

    def call(request, *, timeout_s):
        if request["do"] == "round":
            rounds.append(request)
            if len(rounds) > 1 and any(key.endswith("1.onnx") for key, _, _ in request["items"]):
                import os
                import signal

                os.kill(measurer._worker.pid, signal.SIGSEGV)
        return real(request, timeout_s=timeout_s)

    monkeypatch.setattr(measurer._worker, "call", call)
    candidates = [Candidate({"i": i}, payload=matmuls(i + 1)) for i in range(3)]
    with measurer:
        found = {c.config["i"]: m for c, m in measurer.measure(TASK, candidates)}
    assert found[1].status is Status.CRASHED
    assert found[0].ok
    assert found[2].ok


def test_wrong_settings_are_refused_before_anything_runs():
    with pytest.raises(ValueError, match="providers"):
        OnnxRuntimeMeasurer(settings=OnnxRuntimeSettings(providers=("NoSuchProvider",)))
    with pytest.raises(ValueError, match="rounds"):
        OnnxRuntimeSettings(rounds=0)
    with pytest.raises(ValueError, match="clock"):
        OnnxRuntimeSettings(clock="cpu", intra_op_threads=2)
    with pytest.raises(ValueError, match="optimization"):
        OnnxRuntimeSettings(optimization="FASTEST")
    assert OnnxRuntimeSettings(intra_op_threads=2).clock == "wall"
    wrong = Task(kernel="n", device=Device(name="CPU"), metric="time_ms")
    with OnnxRuntimeMeasurer() as measurer, pytest.raises(ValueError, match="metric"):
        next(measurer.measure(wrong, [Candidate({})]))


def test_interval_covers_the_true_quantile():
    rng = np.random.default_rng(0)
    true = -np.log(0.75)
    covered = 0
    for _ in range(1000):
        value, low, high = _quantile_interval(rng.exponential(1, 60), 0.25)
        assert low <= value <= high
        covered += low <= true <= high
    assert covered >= 930


def test_dynamic_sizes_are_those_of_the_facts():
    from autotune_rlm.networks import graph_facts

    def image(size):
        node = helper.make_node("Conv", ["x", "w"], ["y"])
        graph = helper.make_graph(
            [node], "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "w")],
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    dynamic = image(["n", "c", "h", -1])
    assert graph_facts(dynamic).macs == graph_facts(image([1, 3, 224, 224])).macs
    found = measure([dynamic, image([1, 3, 224, 224])], rounds=4)
    assert found[0].ok
    assert 0.4 < found[0].value / found[1].value < 2.5


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_networks_run(precision):
    found = measure([matmuls(4)], dims={"batch": 4}, rounds=2, precision=precision)
    assert found[0].ok, found[0].reason
    with pytest.raises(ValueError, match="precision"):
        OnnxRuntimeSettings(precision="int3")


def test_openvino_runs_what_onnx_runtime_runs():
    pytest.importorskip("openvino")
    from autotune_rlm.measure import OpenVinoMeasurer

    models = [matmuls(2), b"not a network", matmuls(32)]
    settings = OnnxRuntimeSettings(dims={"batch": 16}, rounds=3)
    with OpenVinoMeasurer(settings=settings) as measurer:
        asked = [Candidate({"i": i}, payload=m) for i, m in enumerate(models)]
        found = {c.config["i"]: m for c, m in measurer.measure(TASK, asked)}
    assert [found[i].ok for i in range(3)] == [True, False, True]
    assert found[2].value > 3 * found[0].value
    assert found[0].state["clock"] == "wall"
    assert "openvino" in found[0].state


def test_energy_is_read_where_the_machine_tells_it(tmp_path):
    from autotune_rlm.measure.statistics.energy import Rapl

    assert not Rapl(tmp_path / "nowhere").available
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "energy_uj").write_text("900")
    (zone / "max_energy_range_uj").write_text("1000")
    (zone / "name").write_text("package-0\n")
    for other, name in (("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
        (tmp_path / other).mkdir()  # a part of it, and the platform around it, would count twice
        (tmp_path / other / "name").write_text(name)
        (tmp_path / other / "energy_uj").write_text("5")
    counters = Rapl(tmp_path)
    before = counters.read()
    assert before == (900,)
    (zone / "energy_uj").write_text("300")  # wrapped around
    assert counters.joules(before, counters.read()) == pytest.approx(400e-6)
    if not Rapl().available:
        found = measure([matmuls(1)], metric="energy_j", dims={"batch": 2})
        assert not found[0].ok
        assert "does not tell its energy" in found[0].reason
