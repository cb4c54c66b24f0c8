"""Measures Triton candidates in this process, with live arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from autotune_rlm.measure.errors import Owner, owner_of
from autotune_rlm.measure.statistics.timing import Timer
from autotune_rlm.types import Candidate, Measurement, Status, Task

from .ahead import ahead
from .compile import CompilePool, CompileResult, CompileSpec
from .job import Bench, BenchSettings, Job


class CompilesAhead:
    """The part of a ``Preparing`` measurer that compiles before it is asked to measure."""

    _begun: Begun

    def prepare(self, task: Task, candidates: Sequence[Candidate]) -> None:
        """Compile these in the background, the first first; what was wanted before no more."""
        self._begun.replace(candidates)

    def is_ready(self, candidate: Candidate) -> bool:
        """Whether its compilation is done."""
        return self._begun.is_done(candidate)


class TritonMeasurer(CompilesAhead):
    """A ``Measurer`` for live launches: compiles ahead in a pool, then checks and times here.

    The device never waits for a compiler while another candidate is ready. This process does not wait for
    workers to start: it compiles what none of them has begun. A candidate that
    corrupts the device's context (an illegal address) spoils this process: the rest are
    ``skipped``. Use ``IsolatedMeasurer`` where that must not happen. An exception of the caller's own (in
    a hook, the grid, the arguments) ends measuring: nothing more is yielded and ``bench.fatal`` holds it.

    A pool that finds no binary is believed once it was right: the first configuration that it gives up
    is compiled here, and where that works, so is every other one.

    Attributes:
        tried: Keys of the candidates whose result can be relied on; not those that a compile worker gave
            up for lack of time.

    Args:
        make: Makes the job of a candidate, once it is its turn.
        spec: Gives what to compile for a candidate, or None; None for no compiling ahead.
        pool: Compiles ahead; None compiles at the first launch, in this process.
        here: Compiles a candidate in this process, while no worker has begun with it.
        settings: How candidates are timed.
        timer: By default events on an accelerator, else the wall clock.
        expected: Right outputs by name, or a function that gives them; None to take those of the
            first of the candidates, or where it does not work, of the first that does.
        told: Called with each candidate before it runs.
    """

    def __init__(
        self,
        make: Callable[[Candidate], Job],
        *,
        spec: Callable[[Candidate], CompileSpec | None] | None = None,
        pool: CompilePool | None = None,
        here: Callable[[Candidate], CompileResult] | None = None,
        settings: BenchSettings | None = None,
        timer: Timer | None = None,
        expected: Mapping[str, Any] | Callable[[], Mapping[str, Any] | None] | None = None,
        told: Callable[[Candidate], None] = lambda candidate: None,
    ) -> None:
        self._make = make
        self._told = told
        self._believes: bool | None = None
        self.tried: set[str] = set()
        self.bench = Bench(settings, timer=timer, expected=expected, stage="call")
        self._begun = Begun(pool, spec, here)

    def measure(
        self, task: Task, candidates: Iterable[Candidate]
    ) -> Iterator[tuple[Candidate, Measurement]]:
        """Yield ``(candidate, measurement)`` as each is done, the first compiled first.

        The first of the candidates, the default, goes before all others where none has worked yet: it
        is what their outputs and times are compared with.
        """
        compiled_first = compiled_ahead(
            self._begun, candidates, default_first=not self.bench.has_default
        )
        for candidate, compiled in compiled_first:
            if self.bench.fatal is not None:
                return
            self._told(candidate)
            measurement = self._one(candidate, compiled)
            if self.bench.fatal is not None:
                return
            if compiled is None or compiled.status is not Status.TIMEOUT:
                self.tried.add(candidate.key)
            yield candidate, measurement

    def _one(self, candidate: Candidate, compiled: CompileResult | None) -> Measurement:
        make = functools.partial(self._make, candidate)
        if compiled is None:
            return self.bench.measure(make)
        if owner_of(compiled.status) is not Owner.BINARY or self._believes:
            if compiled.ok and self._believes is None:
                self._believes = True
            return self.bench.measure(make, compiled)
        here = self.bench.measure(make, CompileResult(status=Status.OK, facts=compiled.facts))
        if self._believes is None and here.status is not Status.SKIPPED:
            self._believes = owner_of(here.status) is Owner.BINARY
        return here


class Begun:
    """Compilations that were begun before their results are asked for.

    ``spec`` gives what to compile for a candidate, or None; ``here`` compiles one in this process.
    Without a pool or a spec nothing is compiled.
    """

    def __init__(
        self,
        pool: CompilePool | None,
        spec: Callable[[Candidate], CompileSpec | None] | None,
        here: Callable[[Candidate], CompileResult] | None = None,
    ) -> None:
        self._pool, self._spec, self._here = pool, spec, here
        self._futures: dict[str, Future[CompileResult] | None] = {}

    @property
    def most(self) -> int:
        """Compilations that may be on their way or ready."""
        return 0 if self._pool is None or self._spec is None else 4 * self._pool.workers

    def start(self, candidate: Candidate) -> Future[CompileResult] | None:
        """The compilation of a candidate; None where it is not tried here."""
        if candidate.key in self._futures:
            return self._futures.pop(candidate.key)
        try:
            wanted = None if self._spec is None else self._spec(candidate)
        except Exception:
            return None
        return None if wanted is None or self._pool is None else self._pool.submit(wanted)

    def instead(
        self, future: Future[CompileResult], item: tuple[int, Candidate]
    ) -> CompileResult | None:
        """The compilation of a candidate that no worker has begun, made here; else None."""
        if self._here is None or self._pool is None or not self._pool.take_back(future):
            return None
        return self._here(item[1])

    def replace(self, candidates: Sequence[Candidate]) -> None:
        """Begin with these, and give up what was begun with others and did not start."""
        wanted = {c.key: c for c in candidates[: self.most]}
        for key, future in list(self._futures.items()):
            if key not in wanted and (future is None or future.cancel()):
                del self._futures[key]
        for key, candidate in wanted.items():
            if key not in self._futures:
                self._futures[key] = self.start(candidate)

    def is_done(self, candidate: Candidate) -> bool:
        """Whether the result of a candidate is there."""
        future = self._futures.get(candidate.key)
        return future is not None and future.done()


def compiled_ahead(
    begun: Begun, candidates: Iterable[Candidate], *, default_first: bool = False
) -> Iterator[tuple[Candidate, CompileResult | None]]:
    """Candidates with what compiling them gave, as it is done; None where it was not tried.

    At most four compilations per worker are ahead. A spec that cannot be made or compiled there
    counts as not tried: the launch says why. With ``default_first`` the first candidate is waited for,
    whatever is compiled before it.
    """
    if not begun.most:
        for candidate in candidates:
            yield candidate, None
        return
    early: list[tuple[Candidate, CompileResult | None]] = []
    numbered = enumerate(candidates)
    for (number, candidate), result in ahead(
        numbered, lambda item: begun.start(item[1]), most=begun.most, instead=begun.instead
    ):
        untried = result is None or result.status is Status.SKIPPED
        early.append((candidate, None if untried else result))
        if default_first and number > 0:
            continue
        if number == 0:
            early.insert(0, early.pop())
            default_first = False
        yield from early
        early.clear()
    yield from early
