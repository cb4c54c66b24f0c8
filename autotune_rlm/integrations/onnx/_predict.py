"""What a network will cost and reach, before it is trained or run."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm, t

from autotune_rlm._checks import check_all, check_number, check_type
from autotune_rlm.integrations.onnx.default import default_surrogate
from autotune_rlm.learn.gaussian_process import GaussianProcess, Points, fit
from autotune_rlm.learn.transform import standardised
from autotune_rlm.networks import (
    Graph,
    GraphFacts,
    ModelLike,
    graph_facts,
    network_fields,
    onnx_text,
    read_graph,
)
from autotune_rlm.networks.fields import batch_size, of_one_sample
from autotune_rlm.networks.latency import Latency, Work, latency_ms, network_work
from autotune_rlm.networks.regression import with_trends
from autotune_rlm.networks.rendering import (
    NO_DEVICE,
    TRAINED_METRICS,
    depends_on_device,
    network_candidate,
    network_device,
    network_task,
)
from autotune_rlm.types import (
    Candidate,
    DecodesSequences,
    Device,
    Measurement,
    Observation,
    Prediction,
    Status,
    Surrogate,
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
_COSTS = frozenset(
    {"macs", "flops", "activation_mb", "peak_memory_mb"}
)  # that an operator may hide
_ARRAYS = ("median", "low", "high", "spread", "p_valid")  # of a ``Prediction``
_SPREAD = 1.0  # of log(latency) from public figures: they say little about a network's efficiency
_MIN_WIDTH = 1e-3  # of either side of log(latency)
_NOISE = 1e-2  # expected variance of the noise of measurements, relative to their spread
_FITTED = 3  # level, width and noise: what is fitted to the networks that were seen
_NORMAL = 1.6449  # 95 % quantile of the normal distribution
_MIN_FITTED = 2  # measured networks from which a process is fitted to them
_FOLDS = 10  # in which measured networks are left out, to see how far the process errs
_MAX_REFITTED = 40  # measured networks up to which it is fitted again without them
_SURROGATE_TRUST, _SURROGATE_INERTIA = (
    0.8,
    10.0,
)  # of a surrogate's word, as in ``networks.regression``
_TABLED_MACS = (1e6, 3e9)  # of the networks in the tables that the surrogate is trained on
_FEW_PRODUCTS = 0.2  # share of matrix products among their weighted layers


def predict(
    models: ModelLike | Graph | Sequence[ModelLike | Graph],
    metric: str | Sequence[str] = "latency_ms",
    *,
    device: str | Device | None = None,
    devices: Sequence[str | Device] | None = None,
    observed: Mapping[str, Sequence[tuple[ModelLike | Graph, float]]] | None = None,
    dims: Mapping[str, int] | None = None,
    context: Mapping[str, Any] | None = None,
    surrogate: Surrogate | str | bool | None = None,
) -> Prediction | dict[str, Prediction]:
    """Predict one or several metrics of one or many networks, each with its interval.

    ``parameters``, ``macs``, ``flops``, ``depth``, ``activation_mb`` and ``peak_memory_mb`` are
    computed from shapes and exact; where the cost of an operator is unknown they are a lower bound,
    with an infinite upper end and a warning. Others come from the surrogate where it was trained on
    networks. ``latency_ms`` comes from the device's public figures (``networks.latency``), with a wide
    interval, where the surrogate was trained on no network's latency on that device, or on none
    like this one; it never leaves what those figures and launches allow. Accuracies stay within 0
    and 100. What was measured (``observed``) corrects either: a few networks measured on a device
    make the rest good.

    Args:
        models: A model (``ModelProto``, path, bytes, ``Graph``) or a list of n.
        metric: Name of the metric with its unit, or several names.
        device: Where latency is meant: a name or a ``Device``; by default this machine's CPU.
        devices: Several of them: the answer is then ``accuracy`` and the latency on each. A surrogate
            that was trained on sequences of targets decodes them in one, each told those before.
        observed: Measured networks with their values, by metric; not with ``devices``.
        dims: Sizes of dynamic dimensions, see ``graph_facts``.
        context: More that the surrogate should know, such as ``{"dataset": "cifar10"}``.
        surrogate: A surrogate, the name or path of one, or False for none. By default the bundled
            one if it knows networks, for the metrics that it was trained on: ``accuracy`` (in per
            cent), ``accuracy_top5``, ``latency_ms``, ``throughput`` and ``train_time_s``.

    Returns:
        The ``Prediction`` of n networks, or one per metric by name where several were asked for. With
        ``devices``, one by the name ``"accuracy"`` and one by the name of each device as it was given
        (of a ``Device``, its ``name``); no accuracy where no surrogate knows networks.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A model is not sound, or nothing is known of a metric: it is no fact, no
            surrogate knows networks, and nothing was observed.
    """
    several = not isinstance(metric, str)
    metrics = [metric] if isinstance(metric, str) else metric
    check_all("metric", metrics, str)
    check_type("device", device, str, Device, type(None))
    check_type("context", context, Mapping, type(None))
    measured = _checked(observed, metrics)
    many: list[Any] = list(models) if isinstance(models, (list, tuple)) else [models]
    networks = [_network(m, dims) for m in many]
    if devices is not None:
        check_type("devices", devices, list, tuple)
        for one in devices:
            check_type("each of devices", one, str, Device)
        if observed or device is not None or metric != "latency_ms":
            raise ValueError(
                "devices: gives accuracy and the latency on each; ask for other metrics, for what was "
                "observed, or for one device without it"
            )
        return _on_each(devices, networks, context, _surrogate_for("latency_ms", surrogate))
    place = _device(device)
    result = {}
    for name in metrics:
        if name in FACTS:
            result[name] = _exact(name, [n.facts for n in networks])
            continue
        seen = [(_network(m, dims), float(v)) for m, v in measured.get(name, ())]
        known = _surrogate_for(name, surrogate)
        if known is not None:
            result[name] = _asked(known, name, place, networks, seen, context)
        else:
            result[name] = _fitted(name, place, networks, seen)
    return result if several else result[metrics[0]]


def _checked(
    observed: Any, metrics: Sequence[str]
) -> Mapping[str, Sequence[tuple[ModelLike | Graph, float]]]:
    check_type("observed", observed, Mapping, type(None))
    for name, pairs in (observed or {}).items():
        if name not in metrics:
            raise ValueError(f"observed: {name!r} is not asked for; metric is {list(metrics)}")
        check_type(f"observed[{name!r}]", pairs, list, tuple, hint="pairs of a model and its value")
        for pair in pairs:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(f"observed[{name!r}] must hold pairs (model, value), got {pair!r}")
            above = 0.0 if name == "latency_ms" else None
            check_number(f"a value of observed[{name!r}]", pair[1], above=above, below=math.inf)
    return observed or {}


def _surrogate_for(metric: str, given: Surrogate | str | bool | None) -> Surrogate | None:
    if given is None or given is True:
        return default_surrogate() if metric in TRAINED_METRICS else None
    if given is False:
        return None
    if not isinstance(given, (str, os.PathLike)):
        if not callable(getattr(given, "predict", None)):
            raise TypeError(
                f"surrogate must be a surrogate, the name or path of one or False, got {given!r}"
            )
        return given
    from autotune_rlm.surrogate import load

    return load(given)


class _Network(NamedTuple):
    facts: GraphFacts
    fields: Mapping[str, float]
    sample: Mapping[str, float]  # the fields of one sample of the batch
    batch: int
    candidate: Candidate
    work: Work


def _network(model: ModelLike | Graph, dims: Mapping[str, int] | None) -> _Network:
    facts = graph_facts(model, dims=dims)
    graph = model if isinstance(model, Graph) else read_graph(model, dims=facts.dims)
    fields, batch = network_fields(graph), batch_size(graph)
    sample = of_one_sample(fields, batch)
    candidate = network_candidate(sample, text=onnx_text(graph))
    return _Network(facts, fields, sample, batch, candidate, network_work(graph))


def _device(device: str | Device | None) -> Device:
    if isinstance(device, Device):
        return device
    if isinstance(device, str):
        found = network_device(device)
        if not found.fp32_tflops and not found.mem_gb_s:
            warnings.warn(
                f"device: {device!r} is not known; the figures of a typical GPU are assumed. Give a "
                "Device with its fp32_tflops and mem_gb_s",
                UserWarning,
                stacklevel=3,
            )
        return found
    from autotune_rlm.measure.detect import cpu_device

    return cpu_device()


def _exact(name: str, facts: Sequence[GraphFacts]) -> Prediction:
    values = np.array([FACTS[name](f) for f in facts])
    unknown = np.array([f.unknown if name in _COSTS else 0 for f in facts])
    if unknown.any():
        warnings.warn(
            f"{name} is a lower bound for {int((unknown > 0).sum())} of {len(facts)} networks: the "
            f"cost of up to {int(unknown.max())} of their operators is not known "
            "(graph_facts(...).unknown); give dims= if a size is dynamic",
            UserWarning,
            stacklevel=3,
        )
    return Prediction(
        metric=name,
        median=values,
        low=values,
        high=np.where(unknown > 0, np.inf, values),
        spread=np.where(unknown > 0, np.inf, 0.0),
        p_valid=np.ones(len(values)),
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

    def ask(context: Mapping[str, Any], candidates: Sequence[Candidate]) -> list[Prediction]:
        task = network_task(name, device=device, context=context)
        return [surrogate.predict(task, candidates, observed=observations)]

    observations: list[Observation] = []
    if len(seen) >= _MIN_FITTED:
        (told,) = _told([*networks, *(n for n, _ in seen)], name, context, ask)
        return _fitted(name, device, networks, seen, told.location)
    if name != "latency_ms":
        observations = [
            Observation(n.candidate, Measurement(status=Status.OK, value=value))
            for n, value in seen
        ]
        (told,) = _told(networks, name, context, ask)
        return _within(told, 0.0, 100.0) if name.startswith("accuracy") else told
    physical = _fitted(name, device, networks, seen)
    knows = getattr(surrogate, "knows_device", None)
    if seen or (knows is not None and not knows(device, networks=name)):
        return physical
    return _possible(_told(networks, name, context, ask)[0], physical, networks, device)


def _told(
    networks: Sequence[_Network],
    metric: str,
    context: Mapping[str, Any] | None,
    ask: Callable[[Mapping[str, Any], Sequence[Candidate]], list[Prediction]],
) -> list[Prediction]:
    """What a surrogate says of networks, asked once for each size of their batches.

    The tables that it is trained on give the fields of one sample, and the batch in the context of what
    a device decides.
    """
    given = dict(context or {})
    alike = "batch" in given or not depends_on_device(metric)
    batches = np.array([0 if alike else n.batch for n in networks])
    told, rows = [], []
    for batch in np.unique(batches):
        rows.append(np.flatnonzero(batches == batch))
        candidates = [networks[int(i)].candidate for i in rows[-1]]
        told.append(ask(given | ({"batch": int(batch)} if batch else {}), candidates))
    back = np.argsort(np.concatenate(rows))
    return [
        replace(
            parts[0], **{k: np.concatenate([getattr(p, k) for p in parts])[back] for k in _ARRAYS}
        )
        for parts in zip(*told, strict=True)
    ]


def _possible(
    told: Prediction, physical: Prediction, networks: Sequence[_Network], device: Device
) -> Prediction:
    """A surrogate's word where networks are like the tables', within what a device allows."""
    alike = np.array([_is_like_the_tables(n.sample) for n in networks])
    told = _conditioned(told, physical, [latency_ms(n.work, device) for n in networks])
    either = {k: np.where(alike, getattr(told, k), getattr(physical, k)) for k in _ARRAYS}
    return replace(told, **either)


def _conditioned(told: Prediction, physical: Prediction, times: Sequence[Latency]) -> Prediction:
    """The surrogate's distribution, given that the latency lies within the device's bounds.

    A median outside of them shows that the surrogate errs by that factor at least. It is averaged with
    the one from public figures then, each weighted by the inverse of its variance.
    """
    floor, ceiling = (np.log([getattr(x, n) for x in times]) for n in ("floor_ms", "ceiling_ms"))
    low, middle, high = (np.log(np.maximum(x, 1e-300)) for x in (told.low, told.median, told.high))
    off = np.maximum(np.maximum(middle - ceiling, floor - middle), 0.0)
    weight = _SPREAD**2 / (_SPREAD**2 + off**2)
    doubt = _SPREAD * np.sqrt(1.0 - weight)
    center = weight * middle + (1.0 - weight) * np.log(physical.median)
    down, up, spread = (
        np.maximum(np.hypot(weight * x, doubt), _MIN_WIDTH)
        for x in ((middle - low) / _NORMAL, (high - middle) / _NORMAL, told.spread)
    )
    below, above = (
        norm.cdf((x - center) / np.where(x < center, down, up)) for x in (floor, ceiling)
    )
    ends = []
    for level in (0.05, 0.5, 0.95):
        z = norm.ppf(below + level * (above - below))
        ends.append(np.exp(center + z * np.where(z < 0, down, up)))
    return replace(told, low=ends[0], median=ends[1], high=ends[2], spread=spread)


def _on_each(
    devices: Sequence[str | Device],
    networks: Sequence[_Network],
    context: Mapping[str, Any] | None,
    surrogate: Surrogate | None,
) -> dict[str, Prediction]:
    """Accuracy, and latency on each device; those that the surrogate knows in sequences of targets."""
    places = {d.name if isinstance(d, Device) else d: _device(d) for d in devices}
    if surrogate is None:
        return {name: _fitted("latency_ms", place, networks, ()) for name, place in places.items()}
    knows = getattr(surrogate, "knows_device", None)
    longest = getattr(surrogate, "longest_sequence", 1)
    known = [n for n, d in places.items() if knows is not None and knows(d, networks="latency_ms")]
    accuracy = network_task("accuracy", context=context)
    told: dict[str, Prediction] = {}
    if isinstance(surrogate, DecodesSequences) and longest > 1:
        for start in range(0, max(len(known), 1), longest - 1):
            some = known[start : start + longest - 1]

            def ask(
                context: Mapping[str, Any], candidates: Sequence[Candidate], some: Any = some
            ) -> list[Prediction]:
                tasks = [
                    network_task("latency_ms", device=places[n], context=context) for n in some
                ]
                return surrogate.predict_several([accuracy, *tasks], candidates)

            first, *rest = _told(networks, "latency_ms", context, ask)
            told.setdefault("accuracy", _within(first, 0.0, 100.0))
            told |= dict(zip(some, rest, strict=True))
    else:
        told["accuracy"] = _asked(surrogate, "accuracy", NO_DEVICE, networks, (), context)
    for name, place in places.items():
        if name in told:
            physical = _fitted("latency_ms", place, networks, ())
            told[name] = _possible(told[name], physical, networks, place)
        else:
            told[name] = _asked(surrogate, "latency_ms", place, networks, (), context)
    return {name: told[name] for name in ("accuracy", *places)}


def _is_like_the_tables(fields: Mapping[str, float]) -> bool:
    """Whether a network is a convolutional one of a size that the surrogate was trained on."""
    convs = fields["convs"] + fields["convs_pointwise"] + fields["convs_grouped"]
    few = fields["products"] <= max(1.0, _FEW_PRODUCTS * convs)
    return bool(few and _TABLED_MACS[0] <= fields["macs"] <= _TABLED_MACS[1])


def _within(told: Prediction, low: Any, high: Any) -> Prediction:
    """The prediction with its median and interval within bounds."""
    return replace(
        told, **{key: np.clip(getattr(told, key), low, high) for key in ("median", "low", "high")}
    )


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
        prior = np.log([latency_ms(n.work, device).expected_ms for n in everyone])
    n, inertia = len(networks), 0.0
    if len(seen) < _MIN_FITTED:
        if seen and positive:
            shift = float(np.log(seen[0][1]) - prior[n])
            return _as_prediction(name, prior[:n] + shift, np.full(n, _SPREAD), True)
        told = _as_prediction(name, prior[:n], np.full(n, _SPREAD), positive)
        times = [latency_ms(x.work, device) for x in networks]
        floor = np.array([x.floor_ms for x in times])
        return _within(told, floor, np.array([x.ceiling_ms for x in times]))
    values = np.array([v for *_, v in seen])
    targets = np.log(values) if positive else values
    if lead is not None and name != "latency_ms":
        prior, inertia = (
            _SURROGATE_TRUST * standardised(lead) * (float(targets.std()) or 1.0),
            _SURROGATE_INERTIA,
        )
    rest = targets - prior[n:]
    middle, width = float(np.median(rest)), float(rest.std()) or 1.0
    points = _points(everyone, lead)
    measured, scaled = points.take(np.arange(n, len(everyone))), (rest - middle) / width
    process = fit(measured, scaled, noise=_NOISE)
    mean, deviation = process.predict(points.take(np.arange(n)))
    mean = mean * len(seen) / (len(seen) + inertia)
    deviation = np.sqrt(deviation**2 + process.noise)
    # The process thinks too well of what it was fitted to, and few networks tell how much too well.
    free = max(len(seen) - _FITTED, 1)
    error = max(_error(process, measured, scaled), 1.0)
    deviation = deviation * t.ppf(0.95, free) / _NORMAL * np.sqrt(len(seen) / free) * error
    return _as_prediction(name, prior[:n] + middle + width * mean, width * deviation, positive)


def _error(process: GaussianProcess, points: Points, targets: np.ndarray) -> float:
    """Root mean square error at networks that are left out, in deviations of the process.

    Fitted again without them where they are few: hyperparameters that saw a network are too sure of
    it. The rule was chosen on the sixty networks of ``benchmarks/exported_networks.py`` and on cells
    of NAS-Bench-Macro with made-up efficiencies; its intervals cover 90 % after 3 to 30 measurements.
    """
    if len(targets) > _MAX_REFITTED:
        return float(np.sqrt(np.mean(process.left_out() ** 2)))
    fold, squares = np.arange(len(targets)) % _FOLDS, []
    for i in np.unique(fold):
        kept, left = np.flatnonzero(fold != i), np.flatnonzero(fold == i)
        other = fit(points.take(kept), targets[kept], noise=_NOISE)
        mean, deviation = other.predict(points.take(left))
        squares.extend((targets[left] - mean) ** 2 / (deviation**2 + other.noise))
    return float(np.sqrt(np.mean(squares)))


def _as_prediction(
    name: str, mean: np.ndarray, deviation: np.ndarray, positive: bool
) -> Prediction:
    low, high = mean - _NORMAL * deviation, mean + _NORMAL * deviation
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
