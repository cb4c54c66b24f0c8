"""What a sampler remembers of a study, so that it need not be computed for each trial again."""

from __future__ import annotations

import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from autotune_rlm.integrations.optuna._describe import Describer
from autotune_rlm.integrations.optuna._knowledge import Descriptions, EarlierStudies, EarlierTrials

if TYPE_CHECKING:
    from optuna.study import Study

_MAX_SPACES = 8
_MAX_STUDIES = 64
_MAX_RARE = 24  # parameters of one trial each that are modelled


@dataclass
class SpaceState:
    """Of one search space of a study; ``representatives`` are those of an architecture space's twins."""

    raw: dict[int, np.ndarray] = field(default_factory=dict)  # of finished trials by storage id
    starts: dict[str, np.ndarray] = field(default_factory=dict)  # ``theta`` of the last fits
    fitted_at: int = 0  # trials at the last fit
    descriptions: Descriptions | None = None
    describer: Describer | None = None
    described: dict[tuple[float, ...], np.ndarray] = field(default_factory=dict)  # by key
    representatives: dict[tuple[float, ...], np.ndarray] = field(default_factory=dict)  # by key
    earlier: EarlierStudies | None = None


class StudyState:
    """Of one study. ``lock`` is held while a proposal is computed."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.earlier: list[EarlierTrials] | None = None
        self.opening: dict[int, dict[str, Any]] = {}
        self.proposals: dict[int, dict[str, Any]] = {}  # of running trials, by storage id
        self.warned: set[str] = set()
        self._spaces: OrderedDict[tuple[Any, ...], SpaceState] = OrderedDict()
        self._held: Counter[str] = Counter()
        self._distributions: dict[str, tuple[int, BaseDistribution]] = {}
        self._counted: set[int] = set()

    def of_space(self, search_space: Mapping[str, BaseDistribution]) -> SpaceState:
        key = tuple((name, repr(d)) for name, d in search_space.items())
        state = self._spaces.pop(key, None) or SpaceState()
        self._spaces[key] = state
        while len(self._spaces) > _MAX_SPACES:
            self._spaces.popitem(last=False)
        return state

    def space(self, study: Study) -> dict[str, BaseDistribution]:
        """The parameters of finished trials by name, with the distribution of the latest of them.

        Where there are many that one trial alone has (names made of its number, say), these are left
        out.
        """
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        for trial in finished:
            if trial._trial_id in self._counted:
                continue
            self._counted.add(trial._trial_id)
            self._held.update(trial.distributions.keys())
            for name, distribution in trial.distributions.items():
                known = self._distributions.get(name)
                if known is None or known[0] <= trial.number:
                    self._distributions[name] = trial.number, distribution
        once = sum(count == 1 for count in self._held.values())
        enough = 2 if once > _MAX_RARE and len(finished) > 1 else 1
        return {
            name: distribution
            for name, (_, distribution) in sorted(self._distributions.items())
            if self._held[name] >= enough and not distribution.single()
        }


class StudyStates:
    """The states of all studies that a sampler serves; forgotten with their storages."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_storage: weakref.WeakKeyDictionary[Any, OrderedDict[int, StudyState]] = (
            weakref.WeakKeyDictionary()
        )

    def of(self, study: Study) -> StudyState:
        with self._lock:
            studies = self._by_storage.setdefault(study._storage, OrderedDict())
            state = studies.pop(study._study_id, None) or StudyState()
            studies[study._study_id] = state
            while len(studies) > _MAX_STUDIES:
                studies.popitem(last=False)
            return state
