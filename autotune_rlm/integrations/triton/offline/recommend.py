"""Recommended configurations for kernels that nobody runs here: ranked, and compiled on request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune_rlm.integrations.triton._facts import FactsReport, with_facts
from autotune_rlm.integrations.triton.settings import Settings
from autotune_rlm.measure.triton.compile import CompilePool, CompileResult
from autotune_rlm.store.config_file import Recommendation, RecommendedConfig
from autotune_rlm.types import Candidate, Device, Prediction, Surrogate, Task

from .kernel import OfflineKernel


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One kernel for one problem on one device."""

    where: str  # ``module:function``
    kernel: OfflineKernel
    device: Device
    problem: Mapping[str, Any]
    order: tuple[Candidate, ...] = ()  # the most promising first
    recommendation: Recommendation | None = None  # of the first of them
    reason: str = ""  # why there is none

    @property
    def kept(self) -> int:
        """How many configurations a search would measure, by default and with nothing known."""
        return Settings().measurements(len(self.kernel.candidates))

    def compile(
        self, candidates: Sequence[Candidate], pool: CompilePool
    ) -> Iterator[tuple[Candidate, CompileResult]]:
        """Compile configurations for the device with real Triton, in the order given."""
        specs = [self.kernel.spec(self.problem, self.device, c) for c in candidates]
        pending = [pool.submit(spec) for spec in specs]
        for candidate, future in zip(candidates, pending, strict=True):
            yield candidate, future.result()


def rank_all(
    kernels: Mapping[str, Any],
    devices: Sequence[Device],
    problems: Sequence[Mapping[str, Any]],
    *,
    surrogate: Surrogate,
    top: int = 4,
) -> Iterator[Ranked]:
    """Rank the configurations of every kernel for every device and problem.

    Of ``problems`` what is not given is guessed from a kernel's text, and what it has not is left out;
    ``top`` configurations are recommended.
    """
    for where, decorated in kernels.items():
        kernel = OfflineKernel.of(decorated)
        seen: list[Any] = []
        for given in problems or [{}]:
            try:
                problem = kernel.default_problem(given)
            except ValueError as error:
                yield Ranked(
                    where=where, kernel=kernel, device=devices[0], problem={}, reason=str(error)
                )
                break
            if problem in seen:
                continue
            seen.append(problem)
            for device in devices:
                yield _rank(where, kernel, problem, device, surrogate, top)


def read_offline(
    kernel: OfflineKernel,
    problem: Mapping[str, Any],
    task: Task,
    surrogate: Surrogate,
    *,
    grid: Sequence[str] = (),
) -> FactsReport:
    """The kernel's candidates with the compiler's facts, for a launch that is not made here.

    The surrogate tells which to read in a large space; without a grid one is guessed.
    """

    def order(known: Sequence[Candidate]) -> list[int]:
        return surrogate.predict(task, known).order(minimize=task.minimize).tolist()

    try:
        launch = kernel.launches(problem, grid=grid)
    except ValueError as error:  # an argument that nobody knows: ranked without facts
        candidates = list(kernel.candidates)
        return FactsReport(candidates, 0, 0, 0.0, {str(error): len(candidates)}, ())
    return with_facts(kernel.kernel, kernel.candidates, launch, task.device, order=order)


def recommendation(
    kernel: OfflineKernel, task: Task, prediction: Prediction, top: int
) -> Recommendation:
    """The ``top`` most promising configurations of a kernel for a task."""
    order = prediction.order(minimize=task.minimize)[:top].tolist()
    return Recommendation(
        kernel=task.kernel,
        device=task.device.name,
        problem=dict(task.problem),
        module=kernel.module,
        source_hash=task.source_hash,
        key=kernel.key,
        versions=dict(task.versions),
        configs=tuple(_recommended(kernel.candidates[i], prediction, i) for i in order),
    )


def _rank(
    where: str,
    kernel: OfflineKernel,
    problem: dict[str, Any],
    device: Device,
    surrogate: Surrogate,
    top: int,
) -> Ranked:
    task = kernel.task(problem, device)
    candidates = read_offline(kernel, problem, task, surrogate).candidates
    prediction = surrogate.predict(task, candidates)
    order = prediction.order(minimize=task.minimize).tolist()
    return Ranked(
        where=where,
        kernel=kernel,
        device=device,
        problem=problem,
        order=tuple(candidates[i] for i in order),
        recommendation=recommendation(kernel, task, prediction, top),
    )


def _recommended(candidate: Candidate, prediction: Prediction, i: int) -> RecommendedConfig:
    return RecommendedConfig(
        config=dict(candidate.config),
        time_ms=float(prediction.median[i]),
        low_ms=float(prediction.low[i]),
        high_ms=float(prediction.high[i]),
        p_fails=1.0 - float(prediction.p_valid[i]),
    )
