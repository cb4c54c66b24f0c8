"""A Gaussian process on what networks are made of, around the roofline, fitted to measured ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t

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
from autotune_rlm.networks.latency import Work, latency_ms, network_work
from autotune_rlm.networks.regression import with_trends
from autotune_rlm.networks.rendering import network_candidate
from autotune_rlm.types import Candidate, Device, Prediction

SPREAD = 1.0  # of log(latency) from public figures: they say little about a network's efficiency
_NOISE = 1e-2  # expected variance of the noise of measurements, relative to their spread
_FITTED = 3  # level, width and noise: what is fitted to the networks that were seen
NORMAL = 1.6449  # 95 % quantile of the normal distribution
MIN_FITTED = 2  # measured networks from which a process is fitted to them
_FOLDS = 10  # in which measured networks are left out, to see how far the process errs
_MAX_REFITTED = 40  # measured networks up to which it is fitted again without them
_TRUST, _INERTIA = 0.8, 10.0  # of a surrogate's word, as in ``networks.regression``


class Network(NamedTuple):
    """What is read of a network once; ``sample`` are the fields of one sample of its batch."""

    facts: GraphFacts
    fields: Mapping[str, float]
    sample: Mapping[str, float]
    batch: int
    candidate: Candidate
    work: Work


def network_of(model: ModelLike | Graph, dims: Mapping[str, int] | None) -> Network:
    """Read a network, with sizes for its dynamic dimensions."""
    facts = graph_facts(model, dims=dims)
    graph = model if isinstance(model, Graph) else read_graph(model, dims=facts.dims)
    fields, batch = network_fields(graph), batch_size(graph)
    sample = of_one_sample(fields, batch)
    candidate = network_candidate(sample, text=onnx_text(graph))
    return Network(facts, fields, sample, batch, candidate, network_work(graph))


def within(told: Prediction, low: Any, high: Any) -> Prediction:
    return replace(
        told, **{key: np.clip(getattr(told, key), low, high) for key in ("median", "low", "high")}
    )


def fitted(
    name: str,
    device: Device,
    networks: Sequence[Network],
    seen: Sequence[tuple[Network, float]],
    lead: np.ndarray | None = None,
) -> Prediction:
    """A process on fields and operator counts around the roofline, fitted to what was seen.

    Where there is a surrogate, its word on the networks and then the seen (``lead``) is one more
    input, whose weight is learned, and where there is no roofline the prior mean.
    """
    positive = name.endswith(("_ms", "_s", "_mb")) and all(v > 0 for *_, v in seen)
    everyone = [*networks, *(n for n, _ in seen)]
    prior = np.zeros(len(everyone))
    if name == "latency_ms":
        prior = np.log([latency_ms(n.work, device).expected_ms for n in everyone])
    n, inertia = len(networks), 0.0
    if len(seen) < MIN_FITTED:
        if seen and positive:
            shift = float(np.log(seen[0][1]) - prior[n])
            return _as_prediction(name, prior[:n] + shift, np.full(n, SPREAD), True)
        told = _as_prediction(name, prior[:n], np.full(n, SPREAD), positive)
        times = [latency_ms(x.work, device) for x in networks]
        floor = np.array([x.floor_ms for x in times])
        return within(told, floor, np.array([x.ceiling_ms for x in times]))
    values = np.array([v for *_, v in seen])
    targets = np.log(values) if positive else values
    if lead is not None and name != "latency_ms":
        inertia = _INERTIA
        prior = _TRUST * standardised(lead) * (float(targets.std()) or 1.0)
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
    deviation = deviation * t.ppf(0.95, free) / NORMAL * np.sqrt(len(seen) / free) * error
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
    low, high = mean - NORMAL * deviation, mean + NORMAL * deviation
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


def _points(networks: Sequence[Network], lead: np.ndarray | None = None) -> Points:
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
