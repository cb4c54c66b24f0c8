"""Tuning methods side by side on recorded kernel landscapes.

Every search sees the candidates in an order shuffled by its seed, and values only of what it
measured. One search runs to the largest budget; its regret at a smaller budget is that of its first
measurements.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from autotune_rlm._checks import check_number
from autotune_rlm.bench._method import NotApplicableError, Search
from autotune_rlm.bench.registry import METHODS, SURROGATE_METHODS
from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.measure.replay import ReplayMeasurer
from autotune_rlm.store.accuracy import spearman
from autotune_rlm.types import Measurement

__all__ = ["Bench", "Run", "Skipped", "pick_landscapes", "run", "run_search"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What to compare.

    Attributes:
        landscapes: The records to search.
        methods: Names in ``METHODS``.
        budgets: Numbers of measurements at which regret is read.
        seeds: Searches per landscape and method, with seeds 0, 1, ...
        train: Landscapes that were known before (``nearest``).
        surrogate: Name or path of the surrogate; None for the bundled one.

    Raises:
        ValueError: An unknown method, or a number below 1.
    """

    landscapes: tuple[Landscape, ...]
    methods: tuple[str, ...]
    budgets: tuple[int, ...]
    seeds: int = 1
    train: tuple[Landscape, ...] = ()
    surrogate: str | None = None

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
        if not self.budgets or min(self.budgets) < 1:
            raise ValueError(f"budgets must be numbers of at least 1, got {self.budgets!r}")
        check_number("seeds", self.seeds, least=1, whole=True)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One search on one landscape.

    Attributes:
        landscape: The landscape's id.
        kernel: Kernel's name.
        device: Device's name.
        method: Method's name.
        seed: The search's seed.
        n_configs: Candidates in the landscape.
        n_ok: Candidates that work.
        regret: By budget: best of the first measurements over the best of the landscape, minus 1;
            None where none of them worked.
        worst_regret: Regret of the slowest working configuration; None where none works.
        spearman: Zero-shot rank correlation over the working configurations; None without a model.
        surrogate_s: Seconds of everything that is not measuring, learning included.
        stopped: After how many measurements the method ended by itself; None where it did not.
        seconds: Simulated wall clock after each measurement: recorded compilation and runs plus
            ``surrogate_s`` so far; None where compile seconds are not recorded.
        best: Regret after each measurement, None until something worked; None as ``seconds``.
    """

    landscape: str
    kernel: str
    device: str
    method: str
    seed: int
    n_configs: int
    n_ok: int
    regret: dict[int, float | None]
    worst_regret: float | None
    spearman: float | None
    surrogate_s: float
    stopped: int | None = None
    seconds: tuple[float, ...] | None = None
    best: tuple[float | None, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A method that gave nothing on a landscape, with the reason; ``failed`` where it raised."""

    landscape: str
    method: str
    reason: str
    failed: bool = False


def run_search(
    landscape: Landscape,
    method_name: str,
    *,
    budgets: Sequence[int],
    seed: int,
    train: Sequence[Landscape] = (),
    load_surrogate: Callable[[], Any] | None = None,
) -> Run:
    """Search one recorded landscape with one method to the largest of the budgets.

    Raises:
        NotApplicableError: The method has nothing to say about this landscape.
    """
    order = np.random.default_rng([seed, 0]).permutation(len(landscape))
    begin = time.perf_counter()
    search = Search(
        task=landscape.task,
        candidates=[landscape.candidates[i] for i in order],
        seed=seed,
        train=train,
        load_surrogate=load_surrogate,
    )
    method = METHODS[method_name](search)
    begun_s = time.perf_counter() - begin
    replay = ReplayMeasurer(landscape)
    limit = min(max(budgets), len(landscape))
    steps = list(method.run(replay, limit))
    thinking_s = begun_s + (steps[-1].seconds - replay.clock_s if steps else 0.0)
    recorded = any(m.compile_s is not None for m in landscape.measurements)
    best = _best_so_far(landscape, [s.measurement for s in steps])
    return Run(
        landscape=landscape.id,
        kernel=landscape.task.kernel,
        device=landscape.task.device.name,
        method=method_name,
        seed=seed,
        n_configs=len(landscape),
        n_ok=int(landscape.ok.sum()),
        regret={n: best[min(n, len(best)) - 1] if best else None for n in budgets},
        worst_regret=_finite(landscape.regret(landscape.worst)),
        spearman=_zero_shot_spearman(method.zero_shot(), landscape, order),
        surrogate_s=thinking_s,
        stopped=len(steps) if method.stop else None,
        seconds=tuple(s.seconds + begun_s for s in steps) if recorded else None,
        best=tuple(best) if recorded else None,
    )


def run(bench: Bench, *, jobs: int = 1) -> Iterator[list[Run] | Skipped]:
    """Run all searches; yields, as each is done, the runs of one method on one landscape.

    Args:
        bench: What to compare.
        jobs: Processes; 1 runs here.
    """
    work = [(i, m) for i in range(len(bench.landscapes)) for m in bench.methods]
    if jobs <= 1 or len(work) == 1:
        _Worker.start(bench)
        for item in work:
            yield _Worker.do(*item)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    pool = ProcessPoolExecutor(
        min(jobs, len(work)), get_context("spawn"), initializer=_Worker.start, initargs=(bench,)
    )
    try:
        for future in as_completed([pool.submit(_Worker.do, *item) for item in work]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker:
    """The state of one process."""

    bench: Bench
    surrogate: Any = None

    @classmethod
    def start(cls, bench: Bench) -> None:
        cls.bench, cls.surrogate = bench, None
        if SURROGATE_METHODS & set(bench.methods):
            cls.load_surrogate()

    @classmethod
    def load_surrogate(cls) -> Any:
        if cls.surrogate is None:
            from autotune_rlm.surrogate import load

            cls.surrogate = load(cls.bench.surrogate or "nano")  # as shipped
        return cls.surrogate

    @classmethod
    def do(cls, index: int, method: str) -> list[Run] | Skipped:
        bench, landscape = cls.bench, cls.bench.landscapes[index]
        try:
            return [
                run_search(
                    landscape,
                    method,
                    budgets=bench.budgets,
                    seed=seed,
                    train=bench.train,
                    load_surrogate=cls.load_surrogate,
                )
                for seed in range(bench.seeds)
            ]
        except NotApplicableError as error:
            return Skipped(landscape=landscape.id, method=method, reason=str(error))
        except ImportError as error:
            return Skipped(landscape=landscape.id, method=method, reason=f"not installed: {error}")
        except Exception as error:
            _log.exception("%s failed on %s", method, landscape.id)
            reason = f"{type(error).__name__}: {error}"
            return Skipped(landscape=landscape.id, method=method, reason=reason, failed=True)


def pick_landscapes(
    files: Sequence[Path], number: int | None = None, *, seed: int = 0
) -> list[Landscape]:
    """The landscapes of the files, or a random ``number`` of them spread over files and devices.

    Kernels on devices, file by file, take turns in giving one of their landscapes at random.

    Raises:
        ValueError: A file without landscapes, or ``number`` below 1.
    """
    check_number("landscapes", number, least=1, whole=True, none=True)
    groups: dict[tuple[int, str, str], list[Landscape]] = {}
    for i, file in enumerate(files):
        found = read_landscapes(file)
        if not found:
            raise ValueError(f"{file} holds no landscape")
        for landscape in found:
            key = (i, landscape.task.kernel, landscape.task.device.name)
            groups.setdefault(key, []).append(landscape)
    if number is None:
        return [landscape for group in groups.values() for landscape in group]
    rng = np.random.default_rng(seed)
    queues = [[group[i] for i in rng.permutation(len(group))] for group in groups.values()]
    by_file: dict[int, list[list[Landscape]]] = {}
    for (i, _, _), queue in zip(groups, queues, strict=True):
        by_file.setdefault(i, []).append(queue)
    turns = [_round_robin(queues) for queues in by_file.values()]
    return _round_robin(turns)[:number]


def _round_robin(queues: Sequence[Sequence[Landscape]]) -> list[Landscape]:
    depth = max(map(len, queues), default=0)
    return [queue[rank] for rank in range(depth) for queue in queues if rank < len(queue)]


def _best_so_far(landscape: Landscape, measured: list[Measurement]) -> list[float | None]:
    """Regret of the best after each measurement; None until something worked."""
    sign = 1.0 if landscape.task.minimize else -1.0
    values = np.array([math.inf if m.value is None else sign * m.value for m in measured])
    best = np.minimum.accumulate(values) if len(values) else values
    return [landscape.regret(sign * v) if math.isfinite(v) else None for v in best.tolist()]


def _zero_shot_spearman(
    predicted: np.ndarray | None, landscape: Landscape, order: np.ndarray
) -> float | None:
    if predicted is None:
        return None
    ok = landscape.ok[order]
    return spearman(predicted[ok], landscape.values[order][ok])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
