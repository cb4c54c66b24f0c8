"""A search as an entry of the accuracy log."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from autotune_rlm._version import __version__
from autotune_rlm.search.engine import Search
from autotune_rlm.store.accuracy import (
    TuningEvent,
    first_choice_regret,
    predicted_vs_measured,
    scores,
)
from autotune_rlm.types import Status


def tuning_event(search: Search, *, stop: str, seed: int, when: str) -> TuningEvent:
    """The entry of a search in the accuracy log, without the seconds of the model and of all.

    Args:
        search: The search, at its end.
        stop: Why it ended.
        seed: Its seed.
        when: When it began, in ISO format.
    """
    task = search.task
    measurements = [o.measurement for o in search.observations]
    new = [o.measurement for o in search.observations if o.candidate.key not in search.reused]
    tried = [m for m in new if m.status is not Status.SKIPPED]
    cost_s = sum(m.cost_s for m in tried)
    compile_s = sum(m.compile_s or 0.0 for m in tried)
    left = len(search.candidates) - sum(m.status is not Status.SKIPPED for m in measurements)
    best = search.best
    return TuningEvent(
        task_key=task.key,
        kernel=task.kernel,
        device=task.device.name,
        problem=dict(task.problem),
        metric=task.metric,
        minimize=task.minimize,
        when=when,
        versions={**task.versions, "autotune_rlm": __version__},
        n_candidates=len(search.candidates),
        n_measured=len(tried),
        n_reused=len(search.reused),
        n_failed=dict(Counter(m.status.value for m in measurements if m.status.is_failure)),
        reasons=dict(Counter(m.reason for m in measurements if not m.ok and m.reason)),
        n_skipped=len(new) - len(tried),
        best_config=None if best is None else dict(best.candidate.config),
        best_value=None if best is None else best.measurement.value,
        compile_s=compile_s,
        measure_s=max(0.0, cost_s - compile_s),
        saved_s=left * cost_s / len(tried) if tried else 0.0,
        stop=stop,
        seed=seed,
        **_accuracy(search),
    )


def _accuracy(search: Search) -> dict[str, Any]:
    if search.surrogate is None or not search.asked:
        return {}
    first, final = search.zero_shot, search.prediction
    observed = [o for o in search.observations if o.measurement.status is not Status.SKIPPED]
    place = {c.key: i for i, c in enumerate(search.candidates)}
    working = [o for o in observed if o.measurement.ok]
    at = np.array([place[o.candidate.key] for o in working], dtype=int)
    measured = [float(o.measurement.value or 0.0) for o in working]
    before, after = (scores(p.take(at), measured) for p in (first, final))
    return {
        **before,
        "familiar": first.familiar and not first.unfamiliar,
        **{f"{name}_final": value for name, value in after.items()},
        "first_choice_regret": first_choice_regret(
            first.median[at], measured, minimize=search.task.minimize
        ),
        "points": tuple(
            predicted_vs_measured(
                first,
                place[o.candidate.key],
                o.candidate,
                o.measurement,
                o.candidate.key in search.reused,
            )
            for o in observed
        ),
    }
