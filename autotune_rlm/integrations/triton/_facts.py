"""Facts of candidates from the first IR: in parallel, cached, of a part of them in large spaces."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from autotune_rlm._forks import no_fork
from autotune_rlm.ir import IRCache, Launch, NotRead, Reader, Refused, target_of
from autotune_rlm.measure.triton.layers import unwrap
from autotune_rlm.types import Candidate, Device

_log = logging.getLogger(__name__)

_SPREAD = 128  # distinct IRs that are read in a large space before anything is known of it
_BEST = 128  # and of what then looks best
_WORTH_WORKERS = 48  # fewer are read in this process sooner than a worker starts (about 1 s)
_IN_A_REQUEST = 8
_TIMEOUT_S = 60.0

Order = Callable[[Sequence[Candidate]], Sequence[int]]


@dataclasses.dataclass(frozen=True)
class FactsReport:
    """What reading cost and gave: candidates in order, with facts where they are known.

    Those of a candidate that the front end refuses, unlike others, are ``{"refused": 1.0}``.
    """

    candidates: list[Candidate]
    distinct: int  # different sets of constants among them
    read: int  # of these, read from the IR; the others' facts are estimated from those
    seconds: float
    reasons: Mapping[str, int]  # why there are no facts, with the number of candidates
    assumed: tuple[str, ...]  # what could not be known of the launches, as sentences


@no_fork()
def with_facts(
    kernel: Any,
    candidates: Sequence[Candidate],
    launch_of: Callable[[Candidate], Launch],
    device: Device,
    *,
    order: Order | None = None,
) -> FactsReport:
    """Candidates with what the first IR and the device say of them.

    Up to 256 distinct sets of constants are all read. Of more, a spread sample is read, the others'
    numbers are estimated from it, and then those are read that ``order`` puts first. A candidate whose
    ``launch_of`` raises stays without facts.
    """
    start = time.monotonic()
    try:
        reader = Reader(unwrap(kernel), target=target_of(device), cache=_cache())
    except (NotRead, TypeError) as error:
        return FactsReport(list(candidates), 0, 0, 0.0, {str(error): len(candidates)}, ())
    work = _Work(reader, candidates, launch_of, device)
    places = work.places()
    if len(places) <= _SPREAD + _BEST:
        work.read(places)
    else:
        work.read(_spread(places, _SPREAD))
        estimated = work.estimated()
        if order is not None and estimated is not None:
            wanted = dict.fromkeys(work.place_of[i] for i in order(estimated))
            unread = [p for p in wanted if p is not None and p not in work.done]
            work.read(unread[:_BEST])
    found, n, seconds = (
        work.estimated() or list(candidates),
        len(work.done),
        time.monotonic() - start,
    )
    report = FactsReport(found, len(places), n, seconds, work.reasons, tuple(work.assumed))
    for reason, count in report.reasons.items():
        _log.info("no facts of %d configurations: %s", count, reason)
    _log.debug("facts of %d of %d IRs in %.2f s", report.read, report.distinct, report.seconds)
    return report


class _Work:
    """The candidates of one call, grouped by what their facts depend on."""

    def __init__(
        self,
        reader: Reader,
        candidates: Sequence[Candidate],
        launch_of: Callable[[Candidate], Launch],
        device: Device,
    ) -> None:
        self._reader, self._device = reader, device
        self._candidates = list(candidates)
        self.reasons: dict[str, int] = {}
        self.assumed: dict[str, None] = {}
        self.done: set[str] = set()
        self._numbers: dict[int, dict[str, float]] = {}
        self._refused: set[int] = set()
        self._launches = [self._launch(launch_of, candidate) for candidate in candidates]
        self.place_of = [None if x is None else reader.place(x) for x in self._launches]

    def _launch(
        self, launch_of: Callable[[Candidate], Launch], candidate: Candidate
    ) -> Launch | None:
        try:
            launch = launch_of(candidate)
            self._reader.place(launch)
        except Exception as error:  # the user's grid or hook, or an argument of an unknown kind
            self._refuse(str(error) or type(error).__name__)
            return None
        return launch

    def _refuse(self, reason: str) -> None:
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def places(self) -> list[str]:
        """The distinct ones, in order."""
        return list(dict.fromkeys(p for p in self.place_of if p is not None))

    def read(self, places: Sequence[str]) -> None:
        """Read the IRs behind these places and note the numbers of all their candidates."""
        wanted = set(places)
        chosen = [i for i, p in enumerate(self.place_of) if p in wanted]
        launches = [self._launches[i] for i in chosen]
        unread = self._reader.unread([x for x in launches if x is not None])
        if len(unread) >= _WORTH_WORKERS and len(os.sched_getaffinity(0)) > 1:
            self._reader.keep(_in_workers(self._reader, unread))
            unread = self._reader.unread([x for x in launches if x is not None])
        self._reader.keep(self._reader.read(unread))
        for i, launch in zip(chosen, launches, strict=True):
            if launch is None:
                continue
            try:
                facts = self._reader.facts(launch)
            except NotRead as error:
                self._refuse(str(error))
                if isinstance(error, Refused):
                    self._refused.add(i)
                continue
            self.assumed.update(dict.fromkeys(facts.assumed))
            self._numbers[i] = self._reader.numbers(launch, self._device)
        self.done |= wanted

    def estimated(self) -> list[Candidate] | None:
        """All candidates with their facts, those that were not read by regression on the others."""
        if not self._numbers:
            return None
        missing = [i for i, p in enumerate(self.place_of) if p is not None and p not in self.done]
        numbers = dict(self._numbers)
        if missing:
            known = sorted(self._numbers)
            names = list(self._numbers[known[0]])
            table = np.array([[self._numbers[i][n] for n in names] for i in known])
            columns = _columns([c.config for c in self._candidates])
            for i, row in zip(missing, _regress(columns, known, table, missing), strict=True):
                numbers[i] = dict(zip(names, map(float, row), strict=True))
        numbers.update({i: {"refused": 1.0} for i in self._refused})
        return [
            dataclasses.replace(c, facts=numbers.get(i, {})) for i, c in enumerate(self._candidates)
        ]


def _spread(places: Sequence[str], n: int) -> list[str]:
    """A random sample, the same in every process; the first (the default) is in it."""
    picked = np.random.default_rng(0).permutation(len(places) - 1)[: n - 1] + 1
    return [places[0], *(places[i] for i in sorted(picked))]


def _columns(configs: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Logarithms of numeric parameters, their squares and products; texts by value. Shape (n, f)."""
    names = list(dict.fromkeys(name for config in configs for name in config))
    single: list[np.ndarray] = []
    for name in names:
        values = [config.get(name) for config in configs]
        if all(isinstance(v, (int, float)) and v >= 0 for v in values):
            single.append(np.log2(1.0 + np.array(values, dtype=float)))
        else:
            texts = np.array([str(v) for v in values])
            single += [(texts == kind).astype(float) for kind in sorted(set(texts))[1:16]]
    single = [x - x.mean() for x in single if np.ptp(x) > 0]
    products = [a * b for i, a in enumerate(single) for b in single[i:]]
    return np.stack([np.ones(len(configs)), *single, *products], axis=1)


def _regress(
    columns: np.ndarray, known: Sequence[int], table: np.ndarray, wanted: Sequence[int]
) -> np.ndarray:
    """Numbers of the wanted rows from those of the known ones, on a logarithmic scale where it fits."""
    positive = (table >= 0).all(axis=0)
    values = np.where(positive, np.log1p(np.maximum(table, 0)), table)
    x = columns[list(known)]
    weights = np.linalg.solve(x.T @ x + 1e-2 * np.eye(x.shape[1]), x.T @ values)
    guessed = np.clip(columns[list(wanted)] @ weights, values.min(axis=0), values.max(axis=0))
    return np.where(positive, np.expm1(np.where(positive, guessed, 0.0)), guessed)


def _in_workers(reader: Reader, unread: Mapping[str, Any]) -> dict[str, str]:
    """IRs made by several processes; none where another process cannot load the kernel."""
    from autotune_rlm.measure.triton.ir_worker import signature_to_json
    from autotune_rlm.measure.workers.process import WorkerFailure, WorkerProcess

    python = reader.kernel.fn
    file = inspect.getsourcefile(python)
    if file is None or file.startswith("<") or "<locals>" in python.__qualname__:
        return {}
    try:
        signatures = {key: signature_to_json(s) for key, s in unread.items()}
    except TypeError:
        return {}
    about = {
        "file": file,
        "function": python.__qualname__,
        "module": python.__module__,
        "source_key": reader.kernel.cache_key,
        "target": reader.target,
    }
    keys = list(signatures)
    parts = [keys[i : i + _IN_A_REQUEST] for i in range(0, len(keys), _IN_A_REQUEST)]
    count = min(len(os.sched_getaffinity(0)), max(1, len(keys) // (_WORTH_WORKERS // 2)))
    environment = {"TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1"}
    workers = [
        WorkerProcess("autotune_rlm.measure.triton.ir_worker:read", env=environment)
        for _ in range(count)
    ]
    texts: dict[str, str] = {}

    def serve(worker: WorkerProcess) -> None:
        while parts:
            part = parts.pop()
            request = {**about, "signatures": {key: signatures[key] for key in part}}
            texts.update(worker.call(request, timeout_s=_TIMEOUT_S)["texts"])

    try:
        with ThreadPoolExecutor(count) as threads:
            for future in [threads.submit(serve, worker) for worker in workers]:
                future.result()
    except (WorkerFailure, IndexError) as error:
        _log.debug("reading IRs in this process: %s", error)
    finally:
        for worker in workers:
            worker.kill()
    return texts


@functools.lru_cache(maxsize=1)
def _cache() -> IRCache:
    return IRCache()
