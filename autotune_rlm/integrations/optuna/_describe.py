"""What a trial's parameters stand for: text for the surrogate, and facts for the process."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from autotune_rlm.types import Candidate, Device, Surrogate, Task, canonical_json

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["Describe", "Describer", "Description", "tasks_of"]

Describe = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Description:
    """Text, configuration and facts of one trial's parameters."""

    candidate: Candidate
    facts: Mapping[str, float] = field(default_factory=dict)


class Describer:
    """Describes parameters, once each, and turns descriptions into columns.

    Args:
        describe: Parameters to an ONNX model (``ModelProto``, path, ``Graph``), a text, a mapping of
            numbers, or None where these parameters have no description; or an
            ``ArchitectureSpace``, whose parameters the trial's are.
        surrogate: Asked for the value of each description; None for facts only.
    """

    def __init__(self, describe: Describe | Any, surrogate: Surrogate | None) -> None:
        self._describe = _from_space(describe) if hasattr(describe, "costs") else describe
        self._surrogate = surrogate
        self._known: dict[str, Description] = {}
        self._predicted: dict[tuple[str, str], float] = {}
        self._names: list[str] = []

    @property
    def asks(self) -> bool:
        """Whether there is a surrogate to ask."""
        return self._surrogate is not None

    def descriptions(self, params: Sequence[Mapping[str, Any]]) -> list[Description]:
        """The descriptions of n sets of parameters."""
        found = []
        for one in params:
            key = repr(sorted(one.items()))
            if key not in self._known:
                self._known[key] = _description(one, self._describe(dict(one)))
                for name in self._known[key].facts:
                    if name not in self._names:
                        self._names.append(name)
            found.append(self._known[key])
        return found

    def facts(self, params: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Facts as columns, shape (n, f); f grows as new ones are seen."""
        descriptions = self.descriptions(params)
        rows = [[d.facts.get(name, 0.0) for name in self._names] for d in descriptions]
        return np.array(rows, dtype=float).reshape(len(descriptions), len(self._names))

    def predicted(self, task: Task, params: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """What the surrogate expects of each, to be maximised, on its scale; shape (n,)."""
        assert self._surrogate is not None
        candidates = [d.candidate for d in self.descriptions(params)]
        new = {c.key: c for c in candidates if (task.key, c.key) not in self._predicted}
        if new:
            location = self._surrogate.predict(task, list(new.values())).location
            sign = -1.0 if task.minimize else 1.0
            for key, value in zip(new, location, strict=True):
                self._predicted[task.key, key] = sign * float(value)
        values = np.array([self._predicted[task.key, c.key] for c in candidates])
        finite = np.isfinite(values)
        return np.where(finite, values, values[finite].min() if finite.any() else 0.0)


def tasks_of(study: Study, context: Task | Mapping[str, Any] | Sequence[Any] | None) -> list[Task]:
    """One task per objective, for the surrogate."""
    given = list(context) if isinstance(context, Sequence) else [context] * len(study.directions)
    if len(given) != len(study.directions):
        raise ValueError(
            f"context must be one mapping per objective ({len(study.directions)}), got {len(given)}"
        )
    names = study.metric_names or [f"objective_{i}" for i in range(len(given))]
    tasks = []
    for one, name, direction in zip(given, names, study.directions, strict=True):
        if isinstance(one, Task):
            tasks.append(one)
            continue
        problem = dict(one or {})
        tasks.append(
            Task(
                kernel=str(problem.pop("space", study.study_name)),
                device=Device(name=str(problem.pop("device", "none"))),
                metric=str(problem.pop("metric", name)),
                minimize=direction.name == "MINIMIZE",
                language=str(problem.pop("language", "onnx")),
                problem=problem,
            )
        )
    return tasks


def _from_space(space: Any) -> Describe:
    def describe(params: Mapping[str, Any]) -> Description | None:
        config = {name: params[name] for name in space.parameters if name in params}
        if len(config) < len(space.parameters) or not space.valid(config):
            return None
        config = space.canonical(config)
        costs = space.costs(config)
        facts = {f"log {k}": math.log1p(v) for k, v in costs.items()}
        for value in config.values():
            if isinstance(value, str):
                facts[f"number of {value}"] = facts.get(f"number of {value}", 0.0) + 1.0
        network = {f"net_{k}": v for k, v in costs.items()}
        return Description(Candidate({**config, **network}), facts)

    return describe


def _description(params: Mapping[str, Any], given: Any) -> Description:
    if isinstance(given, Description):
        return given
    config = {k: v for k, v in params.items() if _is_json(v)}
    if given is None:
        return Description(Candidate(config))
    if isinstance(given, Mapping):
        facts = {str(k): float(v) for k, v in given.items()}
        return Description(Candidate({**config, **facts}), facts)
    if isinstance(given, str) and not given.endswith(".onnx"):
        return Description(Candidate(config, text=given))
    if (
        not isinstance(given, (str, os.PathLike))
        and not hasattr(given, "graph")
        and not hasattr(given, "nodes")
    ):
        raise TypeError(
            "describe must return an ONNX model, a path, a text, a mapping of numbers or None, got "
            f"{type(given).__name__}"
        )
    from autotune_rlm.networks import graph_facts, onnx_text

    known = graph_facts(given)
    facts = {
        "log parameters": math.log1p(known.parameters),
        "log macs": math.log1p(known.macs),
        "log activation_bytes": math.log1p(known.activation_bytes),
        "log depth": math.log1p(known.depth),
        **{f"number of {op}": float(n) for op, n in known.operators.items()},
    }
    costs = {
        "net_parameters": known.parameters,
        "net_macs": known.macs,
        "net_activation_bytes": known.activation_bytes,
        "net_depth": known.depth,
    }
    return Description(Candidate({**config, **costs}, text=onnx_text(given)), facts)


def _is_json(value: Any) -> bool:
    try:
        canonical_json(value)
    except (TypeError, ValueError):
        return False
    return True
