"""What a network will cost and reach, before it is trained or run."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import norm

from autotune_rlm._checks import check_all, check_number, check_surrogate, check_type
from autotune_rlm.integrations.onnx._fitted import (
    MIN_FITTED,
    NORMAL,
    SPREAD,
    Network,
    fitted,
    network_of,
    within,
)
from autotune_rlm.integrations.onnx.default import default_surrogate
from autotune_rlm.networks import Graph, GraphFacts, ModelLike
from autotune_rlm.networks.latency import Latency, latency_ms
from autotune_rlm.networks.rendering import (
    NO_DEVICE,
    TRAINED_METRICS,
    depends_on_device,
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

FACTS = {
    "parameters": lambda f: float(f.parameters),
    "macs": lambda f: float(f.macs),
    "flops": lambda f: float(f.flops),
    "depth": lambda f: float(f.depth),
    "activation_mb": lambda f: f.activation_bytes / 2**20,
    "peak_memory_mb": lambda f: (f.peak_bytes + f.weight_bytes) / 2**20,
}
# Facts of which an operator may hide a part.
_COSTS = frozenset({"macs", "flops", "activation_mb", "peak_memory_mb"})
_ARRAYS = ("median", "low", "high", "spread", "p_valid")  # of a ``Prediction``
_MIN_WIDTH = 1e-3  # of either side of log(latency)
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
    networks = [network_of(m, dims) for m in many]
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
        seen = [(network_of(m, dims), float(v)) for m, v in measured.get(name, ())]
        known = _surrogate_for(name, surrogate)
        if known is None and not seen and name != "latency_ms":
            raise ValueError(
                f"metric: nothing is known of {name!r}; give observed={{{name!r}: [(model, value), "
                f"...]}}, a surrogate that was trained on networks, or one of {sorted(FACTS)}"
            )
        if known is not None:
            result[name] = _asked(known, name, place, networks, seen, context)
        else:
            result[name] = fitted(name, place, networks, seen)
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
    check_surrogate(given)
    if not isinstance(given, (str, os.PathLike)):
        return given
    from autotune_rlm.surrogate import load

    return load(given)


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
    networks: Sequence[Network],
    seen: Sequence[tuple[Network, float]],
    context: Mapping[str, Any] | None,
) -> Prediction:

    def ask(context: Mapping[str, Any], candidates: Sequence[Candidate]) -> list[Prediction]:
        task = network_task(name, device=device, context=context)
        return [surrogate.predict(task, candidates, observed=observations)]

    observations: list[Observation] = []
    if len(seen) >= MIN_FITTED:
        (told,) = _told([*networks, *(n for n, _ in seen)], name, context, ask)
        return fitted(name, device, networks, seen, told.location)
    if name != "latency_ms":
        observations = [
            Observation(n.candidate, Measurement(status=Status.OK, value=value))
            for n, value in seen
        ]
        (told,) = _told(networks, name, context, ask)
        return within(told, 0.0, 100.0) if name.startswith("accuracy") else told
    physical = fitted(name, device, networks, seen)
    knows = getattr(surrogate, "knows_device", None)
    if seen or (knows is not None and not knows(device, networks=name)):
        return physical
    return _possible(_told(networks, name, context, ask)[0], physical, networks, device)


def _told(
    networks: Sequence[Network],
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
    told: Prediction, physical: Prediction, networks: Sequence[Network], device: Device
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
    weight = SPREAD**2 / (SPREAD**2 + off**2)
    doubt = SPREAD * np.sqrt(1.0 - weight)
    center = weight * middle + (1.0 - weight) * np.log(physical.median)
    down, up, spread = (
        np.maximum(np.hypot(weight * x, doubt), _MIN_WIDTH)
        for x in ((middle - low) / NORMAL, (high - middle) / NORMAL, told.spread)
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
    networks: Sequence[Network],
    context: Mapping[str, Any] | None,
    surrogate: Surrogate | None,
) -> dict[str, Prediction]:
    """Accuracy, and latency on each device; those that the surrogate knows in sequences of targets."""
    places = {d.name if isinstance(d, Device) else d: _device(d) for d in devices}
    if surrogate is None:
        return {name: fitted("latency_ms", place, networks, ()) for name, place in places.items()}
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
            told.setdefault("accuracy", within(first, 0.0, 100.0))
            told |= dict(zip(some, rest, strict=True))
    else:
        told["accuracy"] = _asked(surrogate, "accuracy", NO_DEVICE, networks, (), context)
    for name, place in places.items():
        if name in told:
            physical = fitted("latency_ms", place, networks, ())
            told[name] = _possible(told[name], physical, networks, place)
        else:
            told[name] = _asked(surrogate, "latency_ms", place, networks, (), context)
    return {name: told[name] for name in ("accuracy", *places)}


def _is_like_the_tables(fields: Mapping[str, float]) -> bool:
    """Whether a network is a convolutional one of a size that the surrogate was trained on."""
    convs = fields["convs"] + fields["convs_pointwise"] + fields["convs_grouped"]
    few = fields["products"] <= max(1.0, _FEW_PRODUCTS * convs)
    return bool(few and _TABLED_MACS[0] <= fields["macs"] <= _TABLED_MACS[1])
