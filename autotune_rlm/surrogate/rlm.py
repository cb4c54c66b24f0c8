"""The surrogate: a trained network, asked through the ``Surrogate`` protocol."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from autotune_rlm._forks import ForkSafeLock
from autotune_rlm._threads import one_thread
from autotune_rlm.store import Store, weights_in_use
from autotune_rlm.surrogate.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from autotune_rlm.surrogate.codec import FAILED, NAN
from autotune_rlm.surrogate.compiled import from_ir
from autotune_rlm.surrogate.eye import Eye, Seen, has_facts
from autotune_rlm.surrogate.fields import (
    FieldTable,
    encode_candidates,
    encode_task,
    parameter_features,
)
from autotune_rlm.surrogate.known import CERTAIN, Doubt, doubt, knows, knows_device, unfamiliar
from autotune_rlm.surrogate.metrics import CODECS, FACTS, ErrorScale, work_scale
from autotune_rlm.surrogate.online import Prior, correct
from autotune_rlm.surrogate.physics import physical
from autotune_rlm.types import Candidate, Device, Observation, Prediction, Task

__all__ = ["RLMSurrogate", "load_surrogate"]

_log = logging.getLogger(__name__)

_SPECIAL = max(FAILED, NAN) + 1
_CHUNK = 2048
_CACHED_TASKS = 16
_Z75, _Z90 = 0.6744898, 1.6448536
_SMOOTHING = 1.5  # of the recipes, in bins
_LEAST_SCALE_SPREAD = 0.05
_LEAST_OFFSET = 0.5  # a first measurement far from what was expected may be that of a bad candidate
_EYE_FAMILIAR, _EYE_OTHER_DEVICE, _EYE_OTHER_KERNEL = 0.2, 0.4, 1.0
_TIME = "time_ms"  # the metric of the tasks whose facts of compilation are told


@dataclass(frozen=True, eq=False)
class _ZeroShot:
    """What the network says of a task's candidates, on the logarithmic scale of errors.

    A slow-down cannot be below nothing, so its distribution leans to the right. The prior's spread is
    that of the side of smaller values, where improvement lies; ``lean`` is the other side's over it.
    """

    prior: Prior
    lean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class _Word(NamedTuple):
    """The slow-down of n candidates and the scale of their task, as logarithms."""

    mean: np.ndarray
    down: np.ndarray
    up: np.ndarray
    p_valid: np.ndarray
    scale: float
    scale_spread: float

    def doubted(self, unsure: Doubt) -> _Word:
        """The network's word, with what it errs where it was not trained."""
        return self._replace(
            down=np.hypot(self.down, unsure.slowdown),
            up=np.hypot(self.up, unsure.slowdown),
            scale_spread=float(np.hypot(self.scale_spread, unsure.scale)),
        )

    def with_eye(self, seen: Seen, share: float, unsure: Doubt) -> _Word:
        """The network's word and that of the compiler's facts, which has the given share."""
        own, theirs = self.mean - self.mean.min(), seen.slowdown - seen.slowdown.min()
        mean = (1 - share) * own + share * theirs
        if unsure.slowdown > 0:  # the network was never told what this device costs
            mean = mean + (1 - share) * seen.costs
        doubtful = self.doubted(unsure)
        by_facts = unsure.trust < CERTAIN.trust
        spread = share * seen.spread
        return _Word(
            mean,
            np.hypot((1 - share) * doubtful.down, spread),
            np.hypot((1 - share) * doubtful.up, spread),
            (1 - share) * self.p_valid + share * seen.p_valid,
            seen.best if by_facts else self.scale + float(self.mean.min()),
            seen.scale_spread if by_facts else doubtful.scale_spread,
        )


def _share(unsure: Doubt) -> float:
    """The say of the compiler's facts beside the network's.

    The network keeps the word on what it knows; of another kernel it knows names and sizes alone.
    """
    if unsure.trust < CERTAIN.trust:
        return _EYE_OTHER_KERNEL
    return _EYE_OTHER_DEVICE if unsure.slowdown > 0 else _EYE_FAMILIAR


class RLMSurrogate:
    """Predicts a task's metric for its candidates from their text.

    The network gives the exact distribution of each candidate's slow-down over the task's best and of
    the task's scale, in one forward pass. What was measured corrects both (``online.correct``). Calls
    are deterministic, may come from several threads, and remember the last few tasks, so that asking
    again after a measurement costs only the correction.

    Args:
        checkpoint: Network and tokenizer.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._network, self._tokenizer = checkpoint.network, checkpoint.tokenizer
        self._lock = ForkSafeLock()
        self._known: OrderedDict[tuple[str, int, int], _ZeroShot] = OrderedDict()

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self.checkpoint.name

    def save(self, folder: str | Path) -> Path:
        """Write the checkpoint to a folder."""
        c = self.checkpoint
        return save_checkpoint(
            folder, c.network, c.tokenizer, name=c.name, settings=c.settings, eye=c.eye
        )

    @classmethod
    def load(cls, name_or_path: str | Path | None = None) -> RLMSurrogate:
        """Read a checkpoint; see ``checkpoint.load_checkpoint``."""
        return cls(load_checkpoint(name_or_path))

    @property
    def eye(self) -> Eye | None:
        """What the checkpoint learned of the compiler's facts."""
        return self.checkpoint.eye

    def knows(self, task: Task, candidates: Sequence[Candidate]) -> bool:
        """Whether configurations like these were timed in its training; see ``known.knows``."""
        return knows(self.checkpoint.settings, task, candidates)

    def knows_device(self, device: Device, *, networks: str | None = None) -> bool:
        """Whether it was trained on this device, by name; see ``known.knows_device``."""
        return knows_device(self.checkpoint.settings, device, networks=networks)

    def _doubt(self, task: Task, candidates: Sequence[Candidate]) -> Doubt:
        if not task.minimize or task.metric in FACTS:
            return CERTAIN
        return doubt(self.checkpoint.settings, task, candidates)

    def predict(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        *,
        observed: Sequence[Observation] = (),
    ) -> Prediction:
        """Predict the task's metric for n candidates.

        Args:
            task: What is tuned.
            candidates: The n candidates.
            observed: What was measured of this task; candidates may be among the n or not.

        Returns:
            Medians, 90 % intervals, spreads and probabilities of working. The interval is that of the
            network's own distribution before anything is measured, and the Gaussian process's after.
        """
        if not candidates:
            return _empty(task)
        seen = [o for o in observed if o.measurement.ok or o.measurement.status.is_failure]
        if not seen:
            zero = self._zero_shot(task, candidates)
            mean, p = zero.prior.mean, zero.prior.p_valid
            scale = ErrorScale.of(task)
            told = _prediction(task, scale, mean, zero.prior.spread, p, zero.low, zero.high)
            why = unfamiliar(self.checkpoint.settings, task, candidates)
            told = replace(told, unfamiliar=why)
            return physical(self._placed(told, task, candidates), task, candidates)
        everyone, index = _with_observed(candidates, seen)
        zero = self._zero_shot(task, everyone)
        values = np.array([np.nan if not o.measurement.ok else o.measurement.value for o in seen])
        scale = ErrorScale.of(task, values)
        logs = np.log(scale.to_error(values))
        with one_thread():
            posterior = correct(zero.prior, index, logs)
        n = len(candidates)
        mean, spread = posterior.mean[:n], posterior.spread[:n]
        lean = np.clip(zero.lean[:n], 0.5, 8.0)
        low, high = mean - _Z90 * spread, mean + _Z90 * spread * lean
        told = _prediction(task, scale, mean, spread, posterior.p_valid[:n], low, high)
        return self._placed(told, task, candidates)

    def _placed(self, told: Prediction, task: Task, candidates: Sequence[Candidate]) -> Prediction:
        """The prediction with what its order rests on."""
        familiar = self.knows(task, candidates)
        informed = not familiar and self._informed(task, candidates)
        return replace(told, familiar=familiar, informed=informed)

    def _zero_shot(self, task: Task, candidates: Sequence[Candidate]) -> _ZeroShot:
        keys = tuple((c.key, bool(c.facts)) for c in candidates)
        key = (task.key, len(candidates), hash(keys))
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
            found = self._ask(task, candidates)
            self._known[key] = found
            while len(self._known) > _CACHED_TASKS:
                self._known.popitem(last=False)
            return found

    def facts(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        *,
        metrics: Sequence[str] | None = None,
    ) -> dict[str, Prediction]:
        """Predict what compiling n candidates would tell, by the name of the metric.

        Where ``Candidate.facts`` tells what the first IR says, registers, spills and shared memory
        follow from that (``compiled.from_ir``), else from the network.

        Args:
            task: What is tuned; its own metric does not matter.
            candidates: The n candidates.
            metrics: Some of ``shared_bytes``, ``registers``, ``spills`` (of a thread) and
                ``compile_s``; default: all that this model writes. ``predict`` gives the same for
                a task with one of these metrics, and takes measurements of it.

        Raises:
            ValueError: The model does not write one of the metrics.
        """
        written = [m for m in self._network.config.metrics if m in FACTS]
        wanted = written if metrics is None else list(metrics)
        if unknown := [m for m in wanted if m not in written]:
            raise ValueError(
                f"metrics: {self.name} does not write {unknown}, it writes {written}; train it with "
                "a recipe whose network.metrics has them"
            )
        told = {}
        for m in wanted:
            read = from_ir(m, candidates)
            told[m] = (
                read
                if read is not None
                else self.predict(replace(task, metric=m, minimize=True), candidates)
            )
        return told

    def _sequence(self, metric: str) -> list[str]:
        """The metrics to decode until the one asked for, in the order in which they were learned."""
        written = self._network.config.metrics
        if metric not in FACTS or metric not in written:
            return ["slowdown"]
        known = [fact for fact in FACTS if fact in written]
        return known[: known.index(metric) + 1]

    def _seen(self, task: Task, candidates: Sequence[Candidate]) -> Seen | None:
        """What the compiler's facts say; None where they are not known or tell nothing of the metric."""
        return self.eye.look(candidates) if self.eye and self._informed(task, candidates) else None

    def _informed(self, task: Task, candidates: Sequence[Candidate]) -> bool:
        """Whether the compiler's facts order the candidates."""
        timed = task.metric == _TIME and task.minimize
        return self.eye is not None and timed and has_facts(candidates)

    @torch.inference_mode()
    def _ask(self, task: Task, candidates: Sequence[Candidate]) -> _ZeroShot:
        network, config = self._network, self._network.config
        metrics = self._sequence(task.metric)
        shown = task if metrics[-1] == "slowdown" else replace(task, metric=_TIME)
        table = FieldTable()
        shared = encode_task(shown, table, self._tokenizer, max_source=config.max_source)
        index, _ = encode_candidates(shown, candidates, table)
        fields = network.embed_fields(table.tensors(self._tokenizer))
        own = fields[torch.from_numpy(shared.fields)][None]
        source = torch.from_numpy(shared.source)[None] if len(shared.source) else None
        memory = network.encode(own, torch.ones(own.shape[:2], dtype=torch.bool), source)
        asked = torch.tensor([[config.metrics.index(m) for m in metrics]])
        rows = torch.from_numpy(index)
        probabilities, hidden = [], []
        for start in range(0, len(rows), _CHUNK):
            told = None
            for _ in metrics:
                some = rows[start : start + _CHUNK]
                logits, state = network.decode(memory, fields, some, asked, told)
                likely = logits[:, -1:].argmax(-1)
                told = likely if told is None else torch.cat([told, likely], dim=1)
            probabilities.append(logits[:, -1].softmax(-1))
            hidden.append(state[:, -1])
        scale, scale_spread = 0.0, 0.0
        if metrics == ["slowdown"]:
            asked = torch.tensor([[config.metrics.index("scale")]])
            logits, _ = network.decode(memory, fields, torch.full((1, 1), -1), asked)
            scale, scale_spread = _scale(task, logits[0, 0].softmax(-1).double().numpy())
        p = torch.cat(probabilities).double().numpy()
        p_valid = 1.0 - p[:, FAILED]
        bins = p[:, _SPECIAL:] / np.maximum(p[:, _SPECIAL:].sum(1, keepdims=True), 1e-12)
        codec = CODECS[metrics[-1]]
        mean = codec.value_at(bins @ np.arange(codec.bins))
        down = np.maximum(mean - codec.quantile(bins, 0.05), 1e-3) / _Z90
        up = np.maximum(codec.quantile(bins, 0.95) - mean, 1e-3) / _Z90
        unsure = self._doubt(task, candidates)
        word = _Word(mean, down, up, p_valid, scale, scale_spread)
        hidden_states = torch.cat(hidden).double().numpy()
        seen = self._seen(task, candidates)
        if seen is None:
            word = word.doubted(unsure)
        else:
            word = word.with_eye(seen, _share(unsure), unsure)
            if unsure.trust < CERTAIN.trust:
                hidden_states = seen.states
        mean, down, up, p_valid, scale, scale_spread = word
        prior = Prior(
            mean=scale + mean,
            spread=down,
            p_valid=p_valid,
            hidden=hidden_states,
            parameters=parameter_features(task, candidates),
            offset_sd=max(scale_spread, _LEAST_OFFSET),
            trust=unsure.trust if seen is None else CERTAIN.trust,
        )
        low = scale + mean - _Z90 * np.hypot(down, scale_spread)
        high = scale + mean + _Z90 * np.hypot(up, scale_spread)
        return _ZeroShot(prior, up / down, low, high)


def load_surrogate(
    name_or_path: str | Path | None = None,
    *,
    store: Store | str | os.PathLike[str] | None = None,
) -> RLMSurrogate:
    """The package's own surrogate, or another checkpoint.

    Args:
        name_or_path: Folder or name, such as ``"nano"`` for the bundled weights as they were shipped.
            None for the weights in use: the bundled ones, or the version of them that was fine-tuned
            on the measurements of ``store`` and accepted (``autotune-rlm watch``,
            ``training.finetune.Versions``). A version that cannot be read costs a warning.
        store: A ``Store``, or what its constructor takes; None for that of the environment, else the
            user's own.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: It was written by a newer version.
    """
    if name_or_path is not None:
        return RLMSurrogate.load(name_or_path)
    version = weights_in_use(store)
    if version is not None:
        try:
            return RLMSurrogate.load(version)
        except Exception as error:
            _log.warning(
                "going on with the bundled weights: cannot read the fine-tuned ones in %s (%s: %s)",
                version,
                type(error).__name__,
                error,
            )
    return RLMSurrogate.load()


def _scale(task: Task, p: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, as the middle half of the distribution has it.

    What the soft targets of training added to its width is taken off again.
    """
    codec = CODECS["scale"]
    bins = p[_SPECIAL:] / max(p[_SPECIAL:].sum(), 1e-12)
    low, high = (float(codec.quantile(bins[None], q)[0]) for q in (0.25, 0.75))
    added = _SMOOTHING * (codec.high - codec.low) / (codec.bins - 1)
    variance = ((high - low) / (2 * _Z75)) ** 2 - added**2
    spread = float(np.sqrt(max(variance, _LEAST_SCALE_SPREAD**2)))
    return float(bins @ codec.centers) + float(np.log(work_scale(task))), spread


def _with_observed(
    candidates: Sequence[Candidate], observed: Sequence[Observation]
) -> tuple[list[Candidate], np.ndarray]:
    """The candidates followed by observed ones that are not among them, and the observed's places."""
    everyone = list(candidates)
    keys = list(map(attrgetter("key"), everyone))
    wanted = {o.candidate.key for o in observed}
    place = {key: i for i, key in reversed(list(enumerate(keys))) if key in wanted}
    for o in observed:
        if o.candidate.key not in place:
            place[o.candidate.key] = len(everyone)
            everyone.append(o.candidate)
    return everyone, np.array([place[o.candidate.key] for o in observed])


def _prediction(
    task: Task,
    scale: ErrorScale,
    mean: np.ndarray,
    spread: np.ndarray,
    p_valid: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> Prediction:
    mean, low, high = (np.clip(x, -60.0, 60.0) for x in (mean, low, high))
    ends = [scale.from_error(np.exp(x)) for x in (np.minimum(low, mean), np.maximum(high, mean))]
    if not task.minimize:
        ends.reverse()
    return Prediction(
        metric=task.metric,
        median=scale.from_error(np.exp(mean)),
        low=ends[0],
        high=ends[1],
        spread=spread if task.minimize else spread * np.exp(mean),
        p_valid=np.clip(p_valid, 0.0, 1.0),
        log_scale=task.minimize,
    )


def _empty(task: Task) -> Prediction:
    nothing = np.zeros(0)
    return Prediction(
        metric=task.metric,
        median=nothing,
        low=nothing,
        high=nothing,
        spread=nothing,
        p_valid=nothing,
        log_scale=task.minimize,
    )
