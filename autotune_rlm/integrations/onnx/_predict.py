"""What a network will cost and reach, before it is trained or run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from autotune_rlm.integrations.onnx._default import default_surrogate
from autotune_rlm.learn.gaussian_process import Points, fit
from autotune_rlm.networks import (
    Graph,
    GraphFacts,
    graph_facts,
    network_fields,
    onnx_text,
    read_graph,
)
from autotune_rlm.networks._load import ModelLike
from autotune_rlm.networks.regression import standardised, with_trends
from autotune_rlm.networks.rendering import (
    TRAINED_METRICS,
    network_candidate,
    network_device,
    network_task,
)
from autotune_rlm.networks.spaces import space
from autotune_rlm.types import (
    Candidate,
    Device,
    Measurement,
    Observation,
    Prediction,
    Status,
    Surrogate,
    Task,
)

__all__ = ["FACTS", "predict"]

FACTS = {
    "parameters": lambda f: float(f.parameters),
    "macs": lambda f: float(f.macs),
    "flops": lambda f: float(f.flops),
    "depth": lambda f: float(f.depth),
    "activation_mb": lambda f: f.activation_bytes / 2**20,
    "peak_memory_mb": lambda f: (f.peak_bytes + f.weight_bytes) / 2**20,
}
_ROOFLINE_SPREAD = 1.0  # of log(latency): public figures say little about a network's efficiency
_ENOUGH = 2  # measured networks from which a process is fitted to them
_TRUST, _INERTIA = 0.8, 10.0  # of a surrogate's word, as in ``networks.regression``
_TYPICAL = Device(name="unknown", fp32_tflops=0.05, mem_gb_s=15.0)


def predict(
    models: ModelLike | Graph | Sequence[ModelLike | Graph],
    metric: str | Sequence[str] = "latency_ms",
    *,
    device: str | Device | None = None,
    observed: Mapping[str, Sequence[tuple[ModelLike | Graph, float]]] | None = None,
    dims: Mapping[str, int] | None = None,
    context: Mapping[str, Any] | None = None,
    surrogate: Surrogate | str | bool | None = None,
) -> Prediction | dict[str, Prediction]:
    """Predict one or several metrics of one or many networks, each with its interval.

    ``parameters``, ``macs``, ``flops``, ``depth``, ``activation_mb`` and ``peak_memory_mb`` are
    computed from shapes and exact. Others come from the surrogate where it was trained on networks.
    Without one, and on a device that it was not trained on, ``latency_ms`` starts from the device's
    peak rates, with a wide interval. What was
    measured (``observed``) corrects either: a few networks measured on a device make the rest good.

    Args:
        models: A model (``ModelProto``, path, bytes, ``Graph``) or a list of n.
        metric: Name of the metric with its unit, or several names.
        device: Where latency is meant: a name or a ``Device``; by default this machine's CPU.
        observed: Measured networks with their values, by metric.
        dims: Sizes of dynamic dimensions, see ``graph_facts``.
        context: More that the surrogate should know, such as ``{"dataset": "cifar10"}``.
        surrogate: A surrogate, the name or path of one, or False for none. By default the bundled
            one if it knows networks, for the metrics that it was trained on: ``accuracy`` (in per
            cent), ``accuracy_top5``, ``latency_ms``, ``throughput`` and ``train_time_s``.

    Returns:
        The ``Prediction`` of n networks, or one per metric by name where several were asked for.

    Raises:
        ValueError: A model is not sound, or nothing is known of a metric: it is no fact, no
            surrogate knows networks, and nothing was observed.
    """
    several = not isinstance(metric, str)
    metrics = [metric] if isinstance(metric, str) else list(metric)
    many: list[Any] = list(models) if isinstance(models, (list, tuple)) else [models]
    networks = [_network(m, dims) for m in many]
    place = _device(device)
    result = {}
    for name in metrics:
        if name in FACTS:
            result[name] = _exact(name, [n.facts for n in networks])
            continue
        seen = [(_network(m, dims), float(v)) for m, v in (observed or {}).get(name, ())]
        known = _surrogate_for(name, surrogate)
        if known is not None:
            result[name] = _asked(known, name, place, networks, seen, context)
        else:
            result[name] = _fitted(name, place, networks, seen)
    return result if several else result[metrics[0]]


def _surrogate_for(metric: str, given: Surrogate | str | bool | None) -> Surrogate | None:
    if given is None or given is True:
        return default_surrogate() if metric in TRAINED_METRICS else None
    if given is False:
        return None
    if not isinstance(given, str):
        return given
    from autotune_rlm.surrogate import load

    return load(given)


class _Network(NamedTuple):
    facts: GraphFacts
    fields: Mapping[str, float]
    candidate: Candidate


def _network(model: ModelLike | Graph, dims: Mapping[str, int] | None) -> _Network:
    facts = graph_facts(model, dims=dims)
    graph = model if isinstance(model, Graph) else read_graph(model, dims=facts.dims)
    fields = network_fields(graph)
    return _Network(facts, fields, network_candidate(fields, text=onnx_text(graph)))


def _device(device: str | Device | None) -> Device:
    if isinstance(device, Device):
        return device
    if isinstance(device, str):
        return network_device(device)
    from autotune_rlm.measure.detect import cpu_device

    return cpu_device()


def _exact(name: str, facts: Sequence[GraphFacts]) -> Prediction:
    values = np.array([FACTS[name](f) for f in facts])
    zeros, ones = np.zeros(len(values)), np.ones(len(values))
    return Prediction(
        metric=name,
        median=values,
        low=values,
        high=values,
        spread=zeros,
        p_valid=ones,
        log_scale=False,
    )


def _asked(
    surrogate: Surrogate,
    name: str,
    device: Device,
    networks: Sequence[_Network],
    seen: Sequence[tuple[_Network, float]],
    context: Mapping[str, Any] | None,
) -> Prediction:
    task = network_task(name, device=device, context=context)
    if len(seen) >= _ENOUGH:
        everyone = [n.candidate for n in (*networks, *(n for n, _ in seen))]
        lead = surrogate.predict(task, everyone).location
        return _fitted(name, device, networks, seen, lead)
    observations = [
        Observation(n.candidate, Measurement(status=Status.OK, value=value)) for n, value in seen
    ]
    told = surrogate.predict(task, [n.candidate for n in networks], observed=observations)
    knows = getattr(surrogate, "knows_device", None)
    if name != "latency_ms" or observations or knows is None or knows(device):
        return told
    return _roofline_at_level(told, surrogate, task, device, networks)


def _roofline_at_level(
    told: Prediction,
    surrogate: Surrogate,
    task: Task,
    device: Device,
    networks: Sequence[_Network],
) -> Prediction:
    """The roofline of a device that the surrogate was not trained on, at the surrogate's level.

    Operations and traffic still order networks well there, and the surrogate does not. The level is
    taken from networks that are always the same, so that a network's value is its own.
    """
    known = _reference()
    level = surrogate.predict(task, [n.candidate for n in known]).location
    level = level - np.log([_roofline_ms(n.facts, device) for n in known])
    roofline = np.log([_roofline_ms(n.facts, device) for n in networks])
    spread = np.hypot(told.spread, _ROOFLINE_SPREAD)
    return _as_prediction(task.metric, roofline + float(np.median(level)), spread, True)


@functools.lru_cache(maxsize=1)
def _reference() -> tuple[_Network, ...]:
    """A few networks of three published spaces."""
    found, rng = [], np.random.default_rng(0)
    for name in ("nasbench201", "fbnet", "mnasnet"):
        known = space(name)
        found += [_network(known.graph(known.sample(rng)), None) for _ in range(4)]
    return tuple(found)


def _fitted(
    name: str,
    device: Device,
    networks: Sequence[_Network],
    seen: Sequence[tuple[_Network, float]],
    lead: np.ndarray | None = None,
) -> Prediction:
    """A process on fields and operator counts around the roofline, fitted to what was seen.

    Where there is a surrogate, its word on the networks and then the seen (``lead``) is one more
    input, whose weight is learned, and where there is no roofline the prior mean.
    """
    positive = name.endswith(("_ms", "_s", "_mb")) and all(v > 0 for *_, v in seen)
    if not seen and name != "latency_ms":
        raise ValueError(
            f"metric: nothing is known of {name!r}; give observed={{{name!r}: [(model, value), "
            f"...]}}, a surrogate that was trained on networks, or one of {sorted(FACTS)}"
        )
    everyone = [*networks, *(n for n, _ in seen)]
    prior = np.zeros(len(everyone))
    if name == "latency_ms":
        prior = np.log([_roofline_ms(n.facts, device) for n in everyone])
    n, inertia = len(networks), 0.0
    if len(seen) < _ENOUGH:
        shift = float(np.log(seen[0][1]) - prior[n]) if seen and positive else 0.0
        return _as_prediction(name, prior[:n] + shift, np.full(n, _ROOFLINE_SPREAD), positive)
    values = np.array([v for *_, v in seen])
    targets = np.log(values) if positive else values
    if lead is not None and name != "latency_ms":
        prior, inertia = _TRUST * standardised(lead) * (float(targets.std()) or 1.0), _INERTIA
    rest = targets - prior[n:]
    middle, width = float(np.median(rest)), float(rest.std()) or 1.0
    points = _points(everyone, lead)
    process = fit(points.take(np.arange(n, len(everyone))), (rest - middle) / width, noise=1e-2)
    mean, deviation = process.predict(points.take(np.arange(n)))
    mean = mean * len(seen) / (len(seen) + inertia)
    deviation = np.sqrt(deviation**2 + process.noise)
    return _as_prediction(name, prior[:n] + middle + width * mean, width * deviation, positive)


def _as_prediction(
    name: str, mean: np.ndarray, deviation: np.ndarray, positive: bool
) -> Prediction:
    low, high = mean - 1.6449 * deviation, mean + 1.6449 * deviation
    if positive:
        mean, low, high = np.exp(mean), np.exp(low), np.exp(high)
    return Prediction(
        metric=name,
        median=mean,
        low=low,
        high=high,
        spread=deviation,
        p_valid=np.ones(len(mean)),
        log_scale=positive,
    )


def _roofline_ms(facts: GraphFacts, device: Device) -> float:
    """Milliseconds at the device's peak rates, and 5 microseconds an operator."""
    tflops = device.fp32_tflops or _TYPICAL.fp32_tflops or 1.0
    bandwidth = device.mem_gb_s or _TYPICAL.mem_gb_s or 1.0
    compute = facts.flops / (tflops * 1e9)
    memory = (2 * facts.activation_bytes + facts.weight_bytes) / (bandwidth * 1e6)
    return compute + memory + 0.005 * facts.nodes


def _points(networks: Sequence[_Network], lead: np.ndarray | None = None) -> Points:
    operators = sorted({op for n in networks for op in n.facts.operators})
    fields = np.log1p([list(n.fields.values()) for n in networks])
    counts = np.log1p([[n.facts.operators.get(op, 0) for op in operators] for n in networks])
    columns = np.hstack([fields, counts])
    spread = columns.std(0)
    columns = ((columns - columns.mean(0)) / np.where(spread > 1e-9, spread, 1.0))[:, spread > 1e-9]
    width = max(columns.shape[1], 1)
    groups = np.zeros(columns.shape[1], dtype=int)
    points = Points(0.5 * columns / np.sqrt(width), columns / np.sqrt(width), groups, groups)
    return points if lead is None else with_trends(points, lead[:, None])
