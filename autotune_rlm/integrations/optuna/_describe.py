"""What a trial's parameters stand for: text for the surrogate, and facts for the process."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

from autotune_rlm._json import is_json
from autotune_rlm.networks.rendering import (
    TRAINED_METRICS,
    is_known_space,
    network_candidate,
    network_task,
)
from autotune_rlm.types import Candidate, Surrogate, Task

if TYPE_CHECKING:
    from optuna.study import Study

_logger = optuna.logging.get_logger(__name__)
_COSTS = ("parameters", "macs", "activation_bytes", "depth")

_MAX_WORDS = 48  # most frequent words of a text whose counts become facts
_MAX_NUMBERS = 16  # first numbers of a text that become facts

Describe = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Description:
    """Text, configuration and facts of one trial's parameters, and whether they are a network's."""

    candidate: Candidate
    facts: Mapping[str, float] = field(default_factory=dict)
    is_network: bool = False


class Describer:
    """Describes parameters, once each, and turns descriptions into columns.

    With ``only_networks`` the surrogate is asked of networks, and of the metrics that it was trained on;
    for other metrics it says 0. A ``describe`` or surrogate that raises does not end the study: what it
    was asked about has no description, or no prediction, and a warning says so once.
    """

    def __init__(
        self, describe: Describe | Any, surrogate: Surrogate | None, *, only_networks: bool = False
    ) -> None:
        self._describe = _from_space(describe) if hasattr(describe, "costs") else describe
        self._surrogate = surrogate
        self._only_networks = only_networks
        self._known: dict[str, Description] = {}
        self._predicted: dict[tuple[str, str], float] = {}
        self._warned: set[str] = set()
        self.names: list[str] = []

    @property
    def asks(self) -> bool:
        """Whether there is a surrogate to ask of what was described so far."""
        if self._surrogate is None:
            return False
        return not self._only_networks or any(d.is_network for d in self._known.values())

    def descriptions(self, params: Sequence[Mapping[str, Any]]) -> list[Description]:
        found = []
        for one in params:
            key = repr(sorted(one.items()))
            if key not in self._known:
                try:
                    self._known[key] = _description(one, self._describe(dict(one)))
                except Exception as error:  # the caller's own code
                    self._warn("describe", f"failed for {dict(one)}", error)
                    self._known[key] = _description(one, None)
                for name in self._known[key].facts:
                    if name not in self.names:
                        self.names.append(name)
            found.append(self._known[key])
        return found

    def facts(self, params: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Facts as columns, shape (n, f); f grows as new ones are seen."""
        descriptions = self.descriptions(params)
        rows = [[d.facts.get(name, 0.0) for name in self.names] for d in descriptions]
        return np.array(rows, dtype=float).reshape(len(descriptions), len(self.names))

    def predicted(self, task: Task, params: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """What the surrogate expects of each, to be maximised, on its scale; shape (n,)."""
        assert self._surrogate is not None
        if self._only_networks and task.metric not in TRAINED_METRICS:
            return np.zeros(len(params))
        candidates = [d.candidate for d in self.descriptions(params)]
        new = {c.key: c for c in candidates if (task.key, c.key) not in self._predicted}
        if new:
            try:
                location = self._surrogate.predict(task, list(new.values())).location
                location = np.asarray(location, dtype=float).reshape(len(new))
            except Exception as error:  # any surrogate of the caller's
                self._warn("surrogate", "cannot predict", error)
                location = np.zeros(len(new))
            sign = -1.0 if task.minimize else 1.0
            for key, value in zip(new, location, strict=True):
                self._predicted[task.key, key] = sign * float(value)
        values = np.array([self._predicted[task.key, c.key] for c in candidates])
        finite = np.isfinite(values)
        return np.where(finite, values, values[finite].min() if finite.any() else 0.0)

    def _warn(self, what: str, happened: str, error: Exception) -> None:
        if what not in self._warned:
            self._warned.add(what)
            _logger.warning(
                f"RLMSampler: {what} {happened} ({type(error).__name__}: {error}); the study goes "
                "on without it, and this is said once."
            )


def names_trained_metric(context: Any) -> bool:
    """Whether the context of an objective names a metric that the bundled surrogate knows."""
    given = context if isinstance(context, Sequence) else [context]
    metrics = [c.metric if isinstance(c, Task) else (c or {}).get("metric") for c in given]
    return any(metric in TRAINED_METRICS for metric in metrics)


def tasks_of(
    study: Study, context: Task | Mapping[str, Any] | Sequence[Any] | None, space: str | None = None
) -> list[Task]:
    """One task per objective, for the surrogate; ``space`` names the networks' space."""
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
        language = str(problem.pop("language", "onnx"))
        task = network_task(
            str(problem.pop("metric", name)),
            device=problem.pop("device", None),
            space=problem.pop("space", space),
            minimize=direction.name == "MINIMIZE",
            context=problem,
        )
        tasks.append(task if language == task.language else replace(task, language=language))
    return tasks


def _from_space(space: Any) -> Describe:
    def describe(params: Mapping[str, Any]) -> Description | None:
        config = {name: params[name] for name in space.parameters if name in params}
        if len(config) < len(space.parameters) or not space.valid(config):
            return None
        config = space.canonical(config)
        try:
            fields = space.fields(config)
        except Exception:  # it cannot be built; its trial fails and says why
            return None
        facts = _cost_facts(fields) | {k: float(v) for k, v in space.hints(config).items()}
        for value in config.values():
            if isinstance(value, str):
                facts[f"number of {value}"] = facts.get(f"number of {value}", 0.0) + 1.0
        choices = config if is_known_space(space) else None
        return Description(network_candidate(fields, choices), facts, is_network=True)

    return describe


def _description(params: Mapping[str, Any], given: Any) -> Description:
    if isinstance(given, Description):
        return given
    config = {k: v for k, v in params.items() if is_json(v)}
    if given is None:
        return Description(Candidate(config))
    if isinstance(given, Mapping):
        facts = {str(k): x for k, v in given.items() if math.isfinite(x := float(v))}
        return Description(Candidate({**config, **facts}), facts)
    if isinstance(given, str) and not given.endswith(".onnx"):
        return Description(Candidate(config, text=given), _text_facts(given))
    is_path = isinstance(given, (str, os.PathLike))
    if not is_path and not hasattr(given, "graph") and not hasattr(given, "nodes"):
        raise TypeError(
            "describe must return an ONNX model, a path, a text, a mapping of numbers or None, got "
            f"{type(given).__name__}"
        )
    from autotune_rlm.networks import Graph, graph_facts, network_fields, onnx_text, read_graph

    graph = given if isinstance(given, Graph) else read_graph(given, dims=graph_facts(given).dims)
    fields = network_fields(graph)
    operators = Counter(node.op for node in graph.nodes)
    facts = _cost_facts(fields) | {f"number of {op}": float(n) for op, n in operators.items()}
    candidate = network_candidate(fields, text=onnx_text(graph))
    return Description(candidate, facts, is_network=True)


def is_number_of_text(fact: str) -> bool:
    """Whether a fact is one of the numbers in a text, which may mean anything."""
    return fact.startswith("number ") and fact[7:].isdigit()


def _text_facts(text: str) -> dict[str, float]:
    """Of code or prose: its length, how often its words occur, and the numbers in it, in their order."""
    words = Counter(re.findall(r"[^\W\d]\w*|[^\w\s]", text)).most_common(_MAX_WORDS)
    numbers = re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e[+-]?\d+)?", text)[:_MAX_NUMBERS]
    facts = {"log length": math.log1p(len(text)), "log lines": math.log1p(text.count("\n"))}
    facts |= {f"number of {word}": math.log1p(count) for word, count in words}
    return facts | {f"number {i}": math.log1p(float(n)) for i, n in enumerate(numbers)}


def _cost_facts(fields: Mapping[str, float]) -> dict[str, float]:
    return {f"log {name}": math.log1p(fields[name]) for name in _COSTS}
