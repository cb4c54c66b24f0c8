"""The surrogate: a trained network behind the ``Surrogate`` protocol."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from autotune_rlm._checks import check_all, check_type
from autotune_rlm._forks import ForkSafeLock
from autotune_rlm._threads import one_thread
from autotune_rlm.learn.columns import Column
from autotune_rlm.store import Store, weights_in_use
from autotune_rlm.surrogate._answer import nothing_of, prediction_of
from autotune_rlm.surrogate._asking import (
    Decoded,
    ask,
    ask_several,
    columns_read,
    number_scale,
    reads_texts,
)
from autotune_rlm.surrogate.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from autotune_rlm.surrogate.compiled import from_ir
from autotune_rlm.surrogate.eye import Eye, Seen, has_facts
from autotune_rlm.surrogate.fields import parameter_features
from autotune_rlm.surrogate.known import (
    CERTAIN,
    OTHER_KERNEL,
    Doubt,
    contradiction,
    doubt,
    knows,
    knows_device,
    unfamiliar,
)
from autotune_rlm.surrogate.metrics import FACTS, ErrorScale
from autotune_rlm.surrogate.online import Prior, correct
from autotune_rlm.surrogate.physics import physical
from autotune_rlm.surrogate.program_eye import ProgramPrediction
from autotune_rlm.surrogate.text import candidate_columns
from autotune_rlm.types import Candidate, Device, Observation, Prediction, Task

__all__ = ["RLMSurrogate", "load_surrogate"]

_log = logging.getLogger(__name__)

_CACHED_TASKS = 16
_Z90 = 1.6448536
# Least standard deviation of the error in a task's scale, as a logarithm: one measurement far from its
# prediction may be that of a bad candidate.
_MIN_OFFSET = 0.5
# Shares of the compiler's facts beside the network in the predicted slow-down; docs/surrogate.md gives
# the landscapes on which they were chosen.
_EYE_FAMILIAR = 0.2  # kernel and device were in the training
_EYE_OTHER_DEVICE = 0.4  # only the kernel was
_EYE_OTHER_KERNEL = 1.0  # the kernel was not
_Key: TypeAlias = tuple[Hashable, ...]
_T = TypeVar("_T")
_TIME = "time_ms"  # the one metric that the compiler's facts predict


@dataclass(frozen=True, eq=False)
class _ZeroShot:
    """The network's prediction for a task's candidates, on the logarithmic scale of errors.

    A slow-down cannot be negative, so its distribution is skewed to the right. The prior's spread is
    that of the side of smaller values, where improvements lie. ``lean`` is the ratio of the other
    side's spread to it. ``contradicted`` says why the compiler's facts contradict the network, where
    they do.
    """

    prior: Prior
    lean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    contradicted: str = ""


def _doubted(decoded: Decoded, unsure: Doubt) -> Decoded:
    """The network's prediction with the uncertainty ``unsure`` added."""
    return decoded._replace(
        down=np.hypot(decoded.down, unsure.slowdown),
        up=np.hypot(decoded.up, unsure.slowdown),
        scale_spread=float(np.hypot(decoded.scale_spread, unsure.scale)),
    )


def _with_eye(decoded: Decoded, seen: Seen, share: float, unsure: Doubt) -> Decoded:
    """The network's prediction mixed with that from the compiler's facts, which has weight ``share``."""
    own, theirs = decoded.mean - decoded.mean.min(), seen.slowdown - seen.slowdown.min()
    mean = (1 - share) * own + share * theirs
    if unsure.slowdown > 0:  # the network was not trained on this device's costs
        mean = mean + (1 - share) * seen.costs
    doubtful = _doubted(decoded, unsure)
    by_facts = unsure.trust < CERTAIN.trust
    spread = share * seen.spread
    return Decoded(
        mean,
        np.hypot((1 - share) * doubtful.down, spread),
        np.hypot((1 - share) * doubtful.up, spread),
        (1 - share) * decoded.p_valid + share * seen.p_valid,
        seen.states if by_facts else decoded.hidden,
        seen.best if by_facts else decoded.scale + float(decoded.mean.min()),
        seen.scale_spread if by_facts else doubtful.scale_spread,
    )


def _with_program_eye(decoded: Decoded, seen: ProgramPrediction, share: float) -> Decoded:
    """The network's prediction mixed with that from a program's facts, which has this share."""
    return decoded._replace(
        mean=(1 - share) * decoded.mean + share * seen.mean,
        down=seen.down,  # from the errors on programs left out of the fit
        up=seen.up,
        p_valid=(1 - share) * decoded.p_valid + share,
        scale=0.0,
        scale_spread=0.0,
    )


def _unread(n: int) -> Decoded:
    """The place of the network's prediction of n candidates where it has no share and is not run."""
    nothing = np.zeros(n)
    return Decoded(nothing, nothing, nothing, nothing, np.zeros((n, 1)))


def _share(unsure: Doubt) -> float:
    """The share of the compiler's facts beside the network.

    The network dominates on kernels of its training. Of another kernel it knows only names and sizes.
    """
    if unsure.trust < CERTAIN.trust:
        return _EYE_OTHER_KERNEL
    return _EYE_OTHER_DEVICE if unsure.slowdown > 0 else _EYE_FAMILIAR


class RLMSurrogate:
    """Predicts a task's metric for its candidates from their text.

    One forward pass gives the exact distributions of each candidate's slow-down over the task's best
    and of the task's scale. Measurements correct both (``online.correct``). Calls are deterministic
    and may come from several threads. The last few tasks are cached, so that a prediction after a
    further measurement costs only the correction.

    Args:
        checkpoint: Network and tokenizer.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._network, self._tokenizer = checkpoint.network, checkpoint.tokenizer
        self._lock = ForkSafeLock()
        self._known: OrderedDict[_Key, _ZeroShot] = OrderedDict()
        self._decoded: OrderedDict[_Key, Decoded] = OrderedDict()

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self.checkpoint.name

    def save(self, folder: str | Path) -> Path:
        """Write the checkpoint to a folder."""
        c = self.checkpoint
        return save_checkpoint(
            folder,
            c.network,
            c.tokenizer,
            name=c.name,
            settings=c.settings,
            eye=c.eye,
            program_eye=c.program_eye,
        )

    @classmethod
    def load(cls, name_or_path: str | Path | None = None) -> RLMSurrogate:
        """Read a checkpoint; see ``checkpoint.load_checkpoint``."""
        return cls(load_checkpoint(name_or_path))

    @property
    def eye(self) -> Eye | None:
        """The checkpoint's models from the compiler's facts to times; None where it has none."""
        return self.checkpoint.eye

    def knows(self, task: Task, candidates: Sequence[Candidate]) -> bool:
        """Whether configurations like these were timed in its training; see ``known.knows``."""
        return self._knows_programs(task) or knows(self.checkpoint.settings, task, candidates)

    def knows_device(self, device: Device, *, networks: str | None = None) -> bool:
        """Whether it was trained on this device, by name; see ``known.knows_device``."""
        return knows_device(self.checkpoint.settings, device, networks=networks)

    def _doubt(self, task: Task, candidates: Sequence[Candidate]) -> Doubt:
        if not task.minimize or task.metric in FACTS:
            return CERTAIN
        if self._knows_programs(task) or (
            number_scale(self.checkpoint, task.metric) is not None
            and reads_texts(self.checkpoint, task.language, task.metric)
        ):
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
            observed: Observations of this task; their candidates need not be among the n.

        Returns:
            Medians, 90 % intervals, spreads and probabilities of working. Without observations the
            interval is that of the network's distribution, with them the Gaussian process's.
        """
        check_type("task", task, Task)
        check_all("candidates", candidates, Candidate)
        check_all("observed", observed, Observation)
        if not candidates:
            return nothing_of(task)
        usable = [o for o in observed if o.measurement.ok or o.measurement.status.is_failure]
        if not usable:
            zero = self._zero_shot(task, candidates)
            mean, p = zero.prior.mean, zero.prior.p_valid
            scale = self._scale(task)
            prediction = prediction_of(task, scale, mean, zero.prior.spread, p, zero.low, zero.high)
            return physical(self._placed(prediction, task, candidates, zero), task, candidates)
        together, index = _with_observed(candidates, usable)
        zero = self._zero_shot(task, together, states=True)
        values = np.array([np.nan if not o.measurement.ok else o.measurement.value for o in usable])
        scale = self._scale(task, values)
        logs = np.log(scale.to_error(values))
        with one_thread():
            posterior = correct(zero.prior, index, logs)
        n = len(candidates)
        mean, spread = posterior.mean[:n], posterior.spread[:n]
        lean = np.clip(zero.lean[:n], 0.5, 8.0)
        low, high = mean - _Z90 * spread, mean + _Z90 * spread * lean
        prediction = prediction_of(task, scale, mean, spread, posterior.p_valid[:n], low, high)
        return self._placed(prediction, task, candidates, zero)

    @property
    def longest_sequence(self) -> int:
        """The most targets in one sequence of the training; 1 where it had no sequences."""
        return int(self.checkpoint.settings.get("sequences", 1))  # type: ignore[call-overload]

    def predict_several(
        self, tasks: Sequence[Task], candidates: Sequence[Candidate]
    ) -> list[Prediction]:
        """Predict several targets of the same n candidates in one sequence, without observations.

        Each target is conditioned on the decoded values of those before it, such as accuracy, then
        latency on each device ("Regression Language Models for Code", arXiv 2509.26476, figure 6).

        Args:
            tasks: The targets in their order, of one kernel and language; their metrics, devices and
                problems differ.
            candidates: The n candidates.

        Returns:
            A prediction for each target.

        Raises:
            ValueError: The checkpoint does not decode sequences, or the tasks are of several kernels.
        """
        if len({(t.kernel, t.language) for t in tasks}) != 1:
            raise ValueError("tasks must be at least one, and of one kernel and language")
        if not candidates:
            return [nothing_of(t) for t in tasks]
        predictions = []
        columns = candidate_columns(tasks[0], candidates).values()
        for task, decoded in zip(
            tasks, ask_several(self.checkpoint, tasks, candidates), strict=True
        ):
            zero = _zero_shot(columns, _doubted(decoded, self._doubt(task, candidates)))
            mean, p = zero.prior.mean, zero.prior.p_valid
            scale = self._scale(task)
            prediction = prediction_of(task, scale, mean, zero.prior.spread, p, zero.low, zero.high)
            predictions.append(self._placed(prediction, task, candidates, zero))
        return predictions

    def _scale(self, task: Task, values: np.ndarray | None = None) -> ErrorScale:
        if self._knows_programs(task) or number_scale(self.checkpoint, task.metric) is not None:
            return ErrorScale("number")
        return ErrorScale.of(task, values)

    def _placed(
        self, prediction: Prediction, task: Task, candidates: Sequence[Candidate], zero: _ZeroShot
    ) -> Prediction:
        """The prediction with ``familiar``, ``informed`` and ``unfamiliar`` set."""
        familiar = self.knows(task, candidates) and not zero.contradicted
        informed = not familiar and self._informed(task, candidates)
        why = unfamiliar(self.checkpoint.settings, task, candidates)
        why = (zero.contradicted, *why) if zero.contradicted else why
        if self._knows_programs(task):
            why = ()
        return replace(prediction, familiar=familiar, informed=informed, unfamiliar=why)

    def _zero_shot(
        self, task: Task, candidates: Sequence[Candidate], *, states: bool = False
    ) -> _ZeroShot:
        """The prediction before measurements; ``states`` asks for the network's hidden states too."""
        stateless = not states and self._knows_programs(task)
        key = (*_key(task, candidates, facts=True), stateless)
        with self._lock:
            return _kept(self._known, key, lambda: self._ask(task, candidates, states))

    def facts(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        *,
        metrics: Sequence[str] | None = None,
    ) -> dict[str, Prediction]:
        """Predict what the compiler would report for n candidates, by metric.

        Where ``Candidate.facts`` has the facts of the first IR, registers, spills and shared memory
        follow from them (``compiled.from_ir``), else from the network.

        Args:
            task: What is tuned; its own metric does not matter.
            candidates: The n candidates.
            metrics: Some of ``shared_bytes``, ``registers``, ``spills`` (of a thread) and
                ``compile_s``; default: all that this model predicts. For a task with one of these
                metrics ``predict`` gives the network's prediction, and takes observations.

        Raises:
            ValueError: The model does not predict one of the metrics.
        """
        written = [m for m in self._network.config.metrics if m in FACTS]
        requested = written if metrics is None else list(metrics)
        if unknown := [m for m in requested if m not in written]:
            raise ValueError(
                f"metrics: {self.name} does not write {unknown}, it writes {written}; train it with "
                "a recipe whose network.metrics has them"
            )
        predictions = {}
        for m in requested:
            from_compiler = from_ir(m, candidates)
            predictions[m] = (
                from_compiler
                if from_compiler is not None
                else self.predict(replace(task, metric=m, minimize=True), candidates)
            )
        return predictions

    def _seen(self, task: Task, candidates: Sequence[Candidate]) -> Seen | None:
        """The prediction from the compiler's facts; None without facts or for another metric."""
        if self.eye is None or not self._informed(task, candidates):
            return None
        return self.eye.look(candidates, task.device.name)

    def _informed(self, task: Task, candidates: Sequence[Candidate]) -> bool:
        """Whether the compiler's facts order the candidates."""
        timed = task.metric == _TIME and task.minimize
        return self.eye is not None and timed and has_facts(candidates)

    def _knows_programs(self, task: Task) -> bool:
        """Whether the eye for programs was fitted to this metric in this language."""
        eye = self.checkpoint.program_eye
        return eye is not None and eye.knows(task)

    def _ask(self, task: Task, candidates: Sequence[Candidate], states: bool) -> _ZeroShot:
        unsure = self._doubt(task, candidates)
        columns = columns_read(self.checkpoint, task, candidates)
        eye = self.checkpoint.program_eye
        program = eye.look(task, candidates) if eye is not None else None
        share = 0.0
        if program is not None:
            share = program.share if number_scale(self.checkpoint, task.metric) else 1.0
        if share == 1.0 and not states:
            decoded = _unread(len(candidates))
        else:
            decoded = _kept(
                self._decoded,
                _key(task, candidates, facts=bool(self.checkpoint.settings.get("facts"))),
                lambda: ask(self.checkpoint, task, candidates, columns),
            )
        if program is not None:
            return _zero_shot(columns.values(), _with_program_eye(decoded, program, share))
        seen = self._seen(task, candidates)
        if seen is None:
            return _zero_shot(columns.values(), _doubted(decoded, unsure), unsure.trust)
        why = ""
        if unsure is not OTHER_KERNEL:
            why = contradiction(decoded.scale + float(decoded.mean.min()), seen.best)
            unsure = OTHER_KERNEL if why else unsure
        zero = _zero_shot(columns.values(), _with_eye(decoded, seen, _share(unsure), unsure))
        return replace(zero, contradicted=why)


def _key(task: Task, candidates: Sequence[Candidate], *, facts: bool) -> _Key:
    """What tells predictions apart: candidates and, with ``facts``, what the compiler says of them.

    Of the facts the expected time is looked at, which follows from most of the others.
    """
    told = [(len(c.facts), c.facts.get("expected_ms")) for c in candidates] if facts else []
    return task.key, len(candidates), hash((*map(attrgetter("key"), candidates), *told))


def _kept(kept: OrderedDict[_Key, _T], key: _Key, make: Callable[[], _T]) -> _T:
    """What ``kept`` has under ``key``, made where it has nothing; the last few are kept."""
    if key not in kept:
        kept[key] = make()
        while len(kept) > _CACHED_TASKS:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]


def _zero_shot(
    columns: Iterable[Column], decoded: Decoded, trust: float = CERTAIN.trust
) -> _ZeroShot:
    mean, down, up = decoded.scale + decoded.mean, decoded.down, decoded.up
    prior = Prior(
        mean=mean,
        spread=down,
        p_valid=decoded.p_valid,
        hidden=decoded.hidden,
        parameters=parameter_features(columns, len(decoded.mean)),
        offset_sd=max(decoded.scale_spread, _MIN_OFFSET),
        trust=trust,
    )
    low = mean - _Z90 * np.hypot(down, decoded.scale_spread)
    high = mean + _Z90 * np.hypot(up, decoded.scale_spread)
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


def _with_observed(
    candidates: Sequence[Candidate], observed: Sequence[Observation]
) -> tuple[list[Candidate], np.ndarray]:
    """The candidates, then the observed ones not among them; and the index of each observation."""
    together = list(candidates)
    keys = list(map(attrgetter("key"), together))
    observed_keys = {o.candidate.key for o in observed}
    place = {key: i for i, key in reversed(list(enumerate(keys))) if key in observed_keys}
    for o in observed:
        if o.candidate.key not in place:
            place[o.candidate.key] = len(together)
            together.append(o.candidate)
    return together, np.array([place[o.candidate.key] for o in observed])
