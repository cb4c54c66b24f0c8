"""The accuracy log, summed up: per kernel, per device, over time."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from autotune_rlm._checks import check_all
from autotune_rlm.report._curves import Curve, regret_curve
from autotune_rlm.report._verdict import Verdict, verdicts
from autotune_rlm.store import read_rounds as read_rounds
from autotune_rlm.store.accuracy import TuningEvent

_MANY_DAYS = 60


@dataclass(frozen=True, kw_only=True)
class Group:
    """Several tuning runs together. A score that no run has is None, else the median over runs.

    Attributes:
        name: Kernel, device, day or month.
        runs: Tuning runs.
        measured: Measurements made in them.
        reused: Measurements known before.
        candidates: Candidates that there were to choose from.
        failed: Measurements that failed.
        skipped: Candidates that were not tried although chosen.
        spearman: Rank correlation of the prediction before anything was measured.
        kendall: Kendall's tau-b of the same.
        regret: Regret of the model's first choice, as a fraction of the best.
        coverage: Share of all values inside the predicted 90 % interval.
        model_s: Seconds in the model, all runs together.
        compile_s: Seconds in compilation.
        measure_s: Seconds of measuring.
        saved_s: Estimated seconds saved against measuring every candidate.
    """

    name: str
    runs: int
    measured: int
    reused: int
    candidates: int
    failed: int
    skipped: int
    spearman: float | None
    kendall: float | None
    regret: float | None
    coverage: float | None
    model_s: float
    compile_s: float
    measure_s: float
    saved_s: float


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How often a reason was given for a failed or skipped candidate."""

    reason: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the accuracy log says.

    Attributes:
        events: The runs, oldest first.
        total: The runs by which the model is judged: all but ``apart``; all where there are no others.
        apart: Runs on kernels or devices that the model was never told of, such as Triton's
            interpreter; None without any.
        verdicts: What the numbers mean for each kernel on each device, most runs first.
        by_kernel: Per kernel, most runs first.
        by_device: Per device, most runs first.
        over_time: Per day, or per month where there are many days; oldest first.
        statuses: Failed measurements by status.
        failures: Failures and skips by reason, most frequent first.
        stops: Runs by why they ended.
        regret: Mean regret over the number of measurements; None without runs to draw it from.
        rounds: Records of fine-tuning rounds, oldest first.
    """

    events: tuple[TuningEvent, ...]
    total: Group
    apart: Group | None
    verdicts: tuple[Verdict, ...]
    by_kernel: tuple[Group, ...]
    by_device: tuple[Group, ...]
    over_time: tuple[Group, ...]
    statuses: Mapping[str, int]
    failures: tuple[Failure, ...]
    stops: Mapping[str, int]
    regret: Curve | None
    rounds: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary with everything that the figures show."""
        bare = dataclasses.asdict(dataclasses.replace(self, events=(), rounds=()))
        events = [event.to_json() for event in self.events]
        return {**bare, "events": events, "rounds": [dict(item) for item in self.rounds]}


def summarize(events: Iterable[TuningEvent], *, rounds: Sequence[Mapping[str, Any]] = ()) -> Report:
    """Sum up tuning events.

    Args:
        events: As ``Store.events`` gives them.
        rounds: Records of fine-tuning rounds (``read_rounds``).
    """
    check_all("events", events := tuple(events), TuningEvent)
    listed = tuple(sorted(events, key=lambda e: e.when))
    failed: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for event in listed:
        failed.update(event.n_failed)
        reasons.update(event.reasons)
    days = {event.when[:10] for event in listed}
    apart = [event for event in listed if event.familiar is False]
    judged = [event for event in listed if event.familiar is not False] or apart
    digits = 7 if len(days) > _MANY_DAYS else 10
    return Report(
        events=listed,
        total=_group("all", judged),
        apart=_group("apart", apart) if apart else None,
        verdicts=verdicts(listed),
        by_kernel=_groups(listed, lambda e: e.kernel),
        by_device=_groups(listed, lambda e: e.device),
        over_time=tuple(
            sorted(_groups(listed, lambda e: e.when[:digits] or "?"), key=lambda g: g.name)
        ),
        statuses=dict(failed.most_common()),
        failures=tuple(
            Failure(reason=r or "no reason given", count=n) for r, n in reasons.most_common()
        ),
        stops=dict(Counter(event.stop or "?" for event in listed).most_common()),
        regret=regret_curve(judged),
        rounds=tuple(rounds),
    )


def when(text: str) -> datetime | None:
    """The time that was recorded; None where none was."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _groups(events: Sequence[TuningEvent], key: Callable[[TuningEvent], str]) -> tuple[Group, ...]:
    members: dict[str, list[TuningEvent]] = defaultdict(list)
    for event in events:
        members[key(event)].append(event)
    found = (_group(name, group) for name, group in members.items())
    return tuple(sorted(found, key=lambda g: (-g.runs, g.name)))


def _group(name: str, events: Sequence[TuningEvent]) -> Group:
    return Group(
        name=name,
        runs=len(events),
        measured=sum(e.n_measured for e in events),
        reused=sum(e.n_reused for e in events),
        candidates=sum(e.n_candidates for e in events),
        failed=sum(sum(e.n_failed.values()) for e in events),
        skipped=sum(e.n_skipped for e in events),
        spearman=_median(e.spearman for e in events),
        kendall=_median(e.kendall for e in events),
        regret=_median(e.first_choice_regret for e in events),
        coverage=_coverage(events),
        model_s=sum(e.model_s for e in events),
        compile_s=sum(e.compile_s for e in events),
        measure_s=sum(e.measure_s for e in events),
        saved_s=sum(e.saved_s for e in events),
    )


def _coverage(events: Sequence[TuningEvent]) -> float | None:
    known = [e for e in events if e.coverage is not None]
    if not known:
        return None
    weights = [max(1, sum(p.value is not None for p in e.points)) for e in known]
    return float(np.average([e.coverage for e in known], weights=weights))


def _median(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None and np.isfinite(v)]
    return float(np.median(known)) if known else None
