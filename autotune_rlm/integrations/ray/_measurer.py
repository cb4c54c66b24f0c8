"""A measurer whose candidates run on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from autotune_rlm._closing import Closing
from autotune_rlm.integrations.ray._cluster import Actor, Cluster, where
from autotune_rlm.types import Candidate, Measurement, Measurer, Preparing, Status, Task

_SOON = 4  # candidates that a worker compiles while it measures another


class RayMeasurer(Closing):
    """A ``Parallel`` and ``Preparing`` measurer: each worker of a cluster measures one candidate.

    What was measured when a worker is lost has been given out by then, and a ``Tuner`` has written it.

    Args:
        make: Makes the measurer of a worker, once in each, such as ``isolated(workload)``. It is sent
            by ``cloudpickle``; ``autotune_rlm`` has to be installed on the machines. One that is
            ``Preparing`` compiles what is likely to be measured next, while it measures.
        cluster: Whose workers measure; they stay when this ends. None for one of its own.
        **options: Of ``Cluster``, for one of its own.

    Attributes:
        cluster: Whose workers measure: what they have, how many were lost.

    Raises:
        RayClusterError: As ``Cluster``, or the measurer cannot be made.
    """

    def __init__(
        self, make: Callable[[], Measurer], *, cluster: Cluster | None = None, **options: Any
    ) -> None:
        self._own = cluster is None
        self.cluster = Cluster(**options) if cluster is None else cluster
        self._likely: Sequence[Candidate] = ()
        try:
            self.cluster.use(partial(_Measuring, make))
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:
        """How many candidates are measured at a time at most."""
        return self.cluster.workers

    def prepare(self, task: Task, candidates: Sequence[Candidate]) -> None:
        """Have the workers compile these ahead, dealt out as they get their next candidates."""
        self._likely = candidates

    def is_ready(self, candidate: Candidate) -> bool:
        """Whether the worker that is free has it compiled."""
        return candidate.key in self.cluster.asking.ready

    def measure(
        self, task: Task, candidates: Iterable[Candidate]
    ) -> Iterator[tuple[Candidate, Measurement]]:
        """Yield ``(candidate, measurement)`` as each is done; takes one whenever a worker is free.

        A candidate whose worker raised, or was lost more often than it is retried, is ``skipped``.
        """
        begun: dict[Actor, set[str]] = {}
        sent = task.to_json()

        def send(candidate: Candidate, actor: Actor) -> tuple[Any, ...]:
            likely = [c for c in self._likely if c.key != candidate.key]
            mine = [c for c in likely if c.key in begun.get(actor, ())]
            free = [c for c in likely if not any(c.key in keys for keys in begun.values())]
            mine = [*mine, *free[:: self.workers]][:_SOON]
            begun[actor] = {c.key for c in mine}
            return sent, candidate.to_json(), [c.to_json() for c in mine]

        for done in self.cluster.each(candidates, send):
            if done.actor is None or done.reason:
                yield done.item, Measurement(status=Status.SKIPPED, reason=done.reason)
            else:
                measurement, ready = done.answer
                done.actor.ready = frozenset(ready)
                yield done.item, Measurement.from_json(measurement)

    def close(self) -> None:
        """End the cluster's workers, where it is this one's own."""
        if self._own:
            self.cluster.close()


class _Measuring:
    """Measures in a worker."""

    def __init__(self, make: Callable[[], Measurer]) -> None:
        self._measurer = make()
        self.close = getattr(self._measurer, "close", lambda: None)

    def __call__(
        self,
        task: Mapping[str, Any],
        candidate: Mapping[str, Any],
        soon: Sequence[Mapping[str, Any]],
    ) -> tuple[dict[str, Any], list[str]]:
        """A measurement, and keys of what is prepared; all as JSON."""
        what, given = Task.from_json(task), Candidate.from_json(candidate)
        likely = [Candidate.from_json(c) for c in soon]
        ahead = self._measurer if isinstance(self._measurer, Preparing) else None
        if ahead:
            ahead.prepare(what, [given, *likely])
        ((_, found),) = self._measurer.measure(what, [given])
        ready = [c.key for c in likely if ahead and ahead.is_ready(c)]
        data = found.to_json()
        return {**data, "state": {**data["state"], **where()}}, ready
