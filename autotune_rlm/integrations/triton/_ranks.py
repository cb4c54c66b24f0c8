"""All ranks of a distributed job take the same configuration.

Timing noise makes ranks that search on their own choose differently, which costs speed (the slowest
rank is what a step waits for) and equal results. So one rank decides per key and the others take what
it says, through the key-value store that ``torch.distributed`` is initialised with. No collective is
used: ranks that never meet a key hold nobody up.

Rank 0 decides. Where it has not met the key some seconds after another rank did (a pipeline stage of
its own, say), the first rank that no longer waits decides, and the next such key is waited for less.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from autotune_rlm.types import Candidate, digest

from ._select import Outcome

__all__ = ["Ranks", "ranks"]

_log = logging.getLogger(__name__)
_PREFIX = "autotune_rlm"
_FIRST_S = 10.0
_PATIENCE_S = 3600.0


class Ranks:
    """The ranks of this process's job.

    Args:
        first_s: Seconds to wait for rank 0 to begin with a key; halved each time it does not.
        patience_s: Seconds to wait for the decision of a rank that has begun.
    """

    def __init__(self, first_s: float = _FIRST_S, patience_s: float = _PATIENCE_S) -> None:
        self._longest_s = self._first_s = first_s
        self._patience_s = patience_s

    @property
    def several(self) -> bool:
        """Whether this process is one of several ranks."""
        return _job() is not None

    def agree(
        self, about: Any, candidates: Sequence[Candidate], decide: Callable[[], Outcome]
    ) -> Outcome:
        """The outcome of ``decide`` on one rank, on all ranks; here where there is but one.

        Args:
            about: JSON that is equal where the choice must be.
            candidates: The choices; payloads are configurations.
            decide: Chooses.
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
        if is_mine:
            return _decide_for_all(store, f"{name}/answer", rank, candidates, decide)
        return self._answer(store, f"{name}/answer", rank, candidates) or decide()

    def _claim(self, store: Any, name: str, rank: int) -> bool:
        """Whether this rank is to decide."""
        claims = f"{name}/claims"
        if rank != 0:
            try:
                store.wait([claims], timedelta(seconds=self._first_s))
                self._first_s = min(2 * self._first_s, self._longest_s)
                return False
            except Exception as error:
                _log.info("rank 0 has not met %s after %.1f s: %s", name, self._first_s, error)
                self._first_s /= 2
        return int(store.add(claims, 1)) == 1

    def _answer(
        self, store: Any, name: str, rank: int, candidates: Sequence[Candidate]
    ) -> Outcome | None:
        try:
            store.wait([name], timedelta(seconds=self._patience_s))
            answer = json.loads(store.get(name))
        except Exception as error:
            _log.warning("rank %d has no answer and decides alone: %s", rank, _line(error))
            return None
        if "failed" in answer:
            _log.warning("rank %d failed to decide: %s", answer["rank"], answer["failed"])
            return None
        found = {c.key: c.payload for c in candidates}.get(answer["chosen"])
        if found is None:
            _log.warning("rank %d chose a configuration that rank %d lacks", answer["rank"], rank)
            return None
        return Outcome(found, f"rank {answer['rank']}")


def _decide_for_all(
    store: Any,
    name: str,
    rank: int,
    candidates: Sequence[Candidate],
    decide: Callable[[], Outcome],
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
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or os.environ.get("AUTOTUNE_RLM_AGREE", "1").strip() == "0":
        return None
    if not distributed.is_available() or not distributed.is_initialized():
        return None
    if distributed.get_world_size() < 2:
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
