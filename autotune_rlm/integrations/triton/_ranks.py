"""All ranks of a distributed job come to the same configuration, and none waits long for another.

Timing noise makes ranks that search on their own choose differently, which costs speed (the slowest
rank is what a step waits for) and equal results. So one rank decides per key and the others take what
it says, through the key-value store that ``torch.distributed`` is initialised with. No collective is
used: ranks that never meet a key hold nobody up.

Rank 0 decides. Where it has not met the key some seconds after another rank did (a pipeline stage of
its own, say), the first rank that no longer waits decides.

A rank that decides measures, and a measurement waits for what its device has to do before: for a
message from another rank, perhaps. That rank must be able to send it. So a rank waits for the answer for
seconds only. It then goes on with what it chooses without measuring, and takes the answer over later: at
a later launch, or at the point of the program where ``agree_ranks`` is called.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from autotune_rlm.types import Candidate, digest

from ._refresh import Later, refresher
from ._select import Outcome
from .device import job_of_ranks

_log = logging.getLogger(__name__)
_PREFIX = "autotune_rlm"
_FIRST_S = 2.0
_PATIENCE_S = 120.0
_POLL_S = 0.01  # a wait within torch's store would keep it from other threads, and warn


class Ranks:
    """The ranks of this process's job.

    ``first_s`` are waited for rank 0 to begin with a key, and as many for the answer of a rank that has
    begun; each is halved when it was waited in vain, and doubled when it was not.
    """

    def __init__(self, first_s: float = _FIRST_S, patience_s: float = _PATIENCE_S) -> None:
        self._longest_s = self._first_s = self._answer_s = first_s
        self._patience_s = patience_s
        self._missing: set[str] = set()

    @property
    def several(self) -> bool:
        """Whether this process is one of several ranks."""
        return _job() is not None

    def agree(
        self,
        about: Any,
        candidates: Sequence[Candidate],
        decide: Callable[[], Outcome],
        meanwhile: Callable[[], Outcome] | None = None,
    ) -> Outcome:
        """The outcome of ``decide`` on one rank, on all ranks where ``about`` (JSON) is equal.

        Where another rank has not decided yet, the outcome of ``meanwhile``, which does not touch the
        device; its ``measured_later`` gives the decision once it is there.
        """
        job = _job()
        if job is None:
            return decide()
        store, rank = job
        name = f"{_PREFIX}/{digest([about, [c.key for c in candidates]])}"
        try:
            is_mine = self._claim(store, name, rank)
        except Exception as error:
            _log.warning("deciding without the other ranks: %s", _line(error))
            return decide()
        answer = f"{name}/answer"
        if is_mine:
            return _decide_for_all(store, answer, rank, candidates, decide)
        came, self._answer_s = self._comes(store, answer, self._answer_s)
        if came:
            return _answer(store, answer, candidates) or decide()
        _log.info("another rank is still deciding about %s; going on without", name)
        self._missing.add(answer)

        def later() -> Any:
            if not store.check([answer]):
                return None
            self._missing.discard(answer)
            found = _answer(store, answer, candidates)
            return None if found is None else found.config

        return replace((meanwhile or decide)(), measured_later=Later(later))

    def settle(self) -> None:
        """Wait for the answers that are missing, and take them over."""
        job = _job()
        if job is not None and self._missing:
            try:
                job[0].wait(sorted(self._missing), timedelta(seconds=self._patience_s))
            except Exception as error:
                _log.warning("ranks may differ, one has not decided: %s", _line(error))
        refresher.look()

    def _claim(self, store: Any, name: str, rank: int) -> bool:
        """Whether this rank is to decide."""
        claims = f"{name}/claims"
        if rank != 0:
            came, self._first_s = self._comes(store, claims, self._first_s)
            if came:
                return False
        return int(store.add(claims, 1)) == 1

    def _comes(self, store: Any, name: str, seconds: float) -> tuple[bool, float]:
        """Whether ``name`` is in the store within some seconds, and how many to wait the next time."""
        end = time.monotonic() + seconds
        while not store.check([name]):
            if time.monotonic() >= end:
                return False, seconds / 2
            time.sleep(_POLL_S)
        return True, min(2 * seconds, self._longest_s)


def agree_ranks() -> None:
    """Make all ranks use the same configurations from here on.

    Call it on every rank, where none has a message under way that another waits for: after the first
    step of training, beside a barrier. It waits, for up to two minutes, for ranks that are still
    tuning what this one has met. Without it ranks agree within seconds after the tuning, each at a
    launch of its own. Does nothing outside of a job of several ranks.
    """
    ranks.settle()


def _answer(store: Any, name: str, candidates: Sequence[Candidate]) -> Outcome | None:
    """What another rank has decided; None where that is no use here."""
    try:
        answer = json.loads(store.get(name))
    except Exception as error:
        _log.warning("there is no answer of another rank, this one decides: %s", _line(error))
        return None
    if "failed" in answer:
        _log.warning("rank %d failed to decide: %s", answer["rank"], answer["failed"])
        return None
    found = {c.key: c.payload for c in candidates}.get(answer["chosen"])
    if found is None:
        _log.warning("rank %d chose a configuration that this rank lacks", answer["rank"])
        return None
    return Outcome(found, f"rank {answer['rank']}")


def _decide_for_all(
    store: Any, name: str, rank: int, candidates: Sequence[Candidate], decide: Callable[[], Outcome]
) -> Outcome:
    told: dict[str, Any] = {"rank": rank, "failed": "it was interrupted"}
    try:
        outcome = decide()
        chosen = {c.payload: c.key for c in candidates}[outcome.config]
        told = {"rank": rank, "chosen": chosen}
    except Exception as error:
        told["failed"] = _line(error)
        raise
    finally:
        try:
            store.set(name, json.dumps(told))
        except Exception as error:
            _log.warning("the other ranks cannot be told: %s", _line(error))
    # A rank that looked into the measurements on its own would leave the others behind.
    return replace(outcome, measured_later=None)


def _job() -> tuple[Any, int] | None:
    """The store that all ranks share, and this rank; None outside of a job of several."""
    distributed = job_of_ranks()
    if distributed is None:
        return None
    try:
        return distributed.distributed_c10d._get_default_store(), distributed.get_rank()
    except Exception as error:
        _log.warning("each rank decides alone, there is no store to agree by: %s", _line(error))
        return None


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


ranks = Ranks()
"""The ones of this process's job."""
