"""Configurations for each batch size, the model's best few measured with the server's own kernel."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

from autotune_rlm._checks import check_number
from autotune_rlm.integrations.serving._advise import BATCHES, Facts, candidates_of, checked
from autotune_rlm.integrations.serving._default import rule_of_thumb
from autotune_rlm.integrations.serving._file import ServingFile
from autotune_rlm.integrations.serving._installed import kernel_file, version_of
from autotune_rlm.measure.triton import Fleet, IsolatedMeasurer, Workload
from autotune_rlm.measure.triton.compile import CompilePool
from autotune_rlm.search.progress import Reporter
from autotune_rlm.search.tuner import Tuner, TuningResult
from autotune_rlm.types import Candidate, Device, Measurer, Surrogate, Task

_FACTORY = "autotune_rlm.integrations.serving._workload:bench"
_MAX_S = 60.0  # for one configuration: thousands of tokens in a slow one, its outputs compared
_INTERPRETED_S = 600.0
_OTHER_KERNELS = ("int4_w4a16", "fp8_w8a16")  # of vLLM's and SGLang's mixtures of experts

MeasurerOf = Callable[[Task], AbstractContextManager[Measurer]]
"""Gives what measures a task; entered for its search."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found for a batch size.

    Attributes:
        batch: Tokens.
        config: The fastest configuration.
        time_ms: Its median in ms.
        low_ms: Lower end of its interval.
        high_ms: Upper end.
        default_ms: Of the configuration that the server takes without a file; None where that fails.
        measured: Configurations measured now.
        reused: Configurations that the store knew.
        failed: Configurations that did not work.
        seconds: What the search took.
        saved_s: What measuring the others of the space would have taken.
    """

    batch: int
    config: Mapping[str, Any]
    time_ms: float
    low_ms: float
    high_ms: float
    default_ms: float | None
    measured: int
    reused: int
    failed: int
    seconds: float
    saved_s: float


def measure(
    file: ServingFile,
    *,
    server: str = "vllm",
    batches: Sequence[int] = BATCHES,
    budget: int = 24,
    device: Device | None = None,
    first: Sequence[ServingFile] = (),
    store: Any = None,
    surrogate: Surrogate | None = None,
    facts: Facts | None = None,
    interpreted: bool = False,
    quiet: bool = False,
    measurer: MeasurerOf | None = None,
    fleet: Fleet | None = None,
) -> Iterator[Measured]:
    """The fastest of the model's choices for each batch size, measured here or on other machines.

    The server's own rule of thumb is measured first, so that the result is not slower, then what is
    best for the neighbouring batch sizes and in ``first``, then what the model asks for. Outputs are
    compared with a product in 32 bits. Of ``fused_moe`` the two products of the experts are timed.

    Args:
        file: What the configurations are for; its own are among the first to be measured.
        server: Whose kernel is measured: ``"vllm"`` or ``"sglang"``, which must be installed.
        batches: Tokens.
        budget: Configurations for each batch size; those in the store count.
        device: What is here; None to find out.
        first: Files of other devices or shapes, whose choices are tried first.
        store: A ``Store``, where what is measured is kept at once: a search that is killed goes on
            where it was. None keeps nothing.
        surrogate: The model; None for the weights in use for the store.
        facts: As for ``predict``.
        interpreted: Whether Triton's interpreter runs the kernel, on the CPU, for small sizes.
        quiet: Write no line of progress to the standard error stream.
        measurer: Gives another measurer of a task.
        fleet: Makes what measures a workload on other machines, such as ``Cluster.measurer`` of
            ``integrations.ray``; ``device`` is then what they have. The server must be installed here
            alone. None for a process here.

    Yields:
        One result a batch size, as soon as it is known.

    Raises:
        LookupError: The installed server has no such kernel.
        ModuleNotFoundError: The server is not installed.
        TuningError: No configuration works for a batch size.
        ValueError: An argument is out of range, ``fleet`` is given without ``device``, or there is no
            GPU and ``interpreted`` is false.
    """
    checked(file, batches)
    if file.dtype in _OTHER_KERNELS:
        raise ValueError(
            f"{file.dtype} runs on another kernel of the server, which is not measured here; "
            "autotune-rlm serve-configs predict ranks it"
        )
    check_number("budget", budget, least=1, whole=True)
    file.name(server)
    if device is None:
        if fleet is not None:
            raise ValueError("fleet takes device too, which is what its machines have")
        device = _device_here(interpreted)
    elif interpreted:
        device = dataclasses.replace(device, target="interpreter")
    if surrogate is None:
        from autotune_rlm.surrogate import load_surrogate

        surrogate = load_surrogate(store=store)
    with ExitStack() as stack:
        if measurer is None:
            path, function = kernel_file(server, file.kernel)
            make = fleet
            if make is None:
                pool = None if interpreted else stack.enter_context(CompilePool())
                make = functools.partial(IsolatedMeasurer, pool=pool)
            measurer = _of_workloads(make, str(path), function, interpreted=interpreted)
        found: dict[int, Mapping[str, Any]] = {}
        for batch in batches:
            task = _task(file, batch, device, server, interpreted)
            known = [Candidate(dict(f.config(batch))) for f in (file, *first) if f.configs]
            near = [found[b] for b in sorted(found, key=lambda b: abs(b - batch))[:2]]
            wanted = [
                rule_of_thumb(file, batch, device, server),
                *(Candidate(dict(c)) for c in near),
            ]
            candidates = candidates_of(file, task, facts, known=[*wanted, *known])
            place = {c.key: i for i, c in enumerate(candidates)}
            with measurer(task) as here, Reporter(quiet=quiet) as line:
                tuner = Tuner(surrogate=surrogate, measurer=here, store=store)
                result = tuner.tune(
                    task,
                    candidates,
                    budget=budget,
                    default=place[wanted[0].key],
                    suggested=[place[c.key] for c in (*wanted[1:], *known)],
                    progress=line,
                )
                line.done(result.event)
            result.raise_if_failed()
            entry = _measured(batch, result, wanted[0])
            found[batch] = entry.config
            yield entry


def _measured(batch: int, result: TuningResult, default: Candidate) -> Measured:
    assert result.best is not None
    best = result.best.measurement
    value = float(best.value or 0.0)
    by_key = {o.candidate.key: o.measurement.value for o in result.observations}
    return Measured(
        batch=batch,
        config=dict(result.best.candidate.config),
        time_ms=value,
        low_ms=value if best.low is None else best.low,
        high_ms=value if best.high is None else best.high,
        default_ms=by_key.get(default.key),
        measured=result.event.n_measured,
        reused=result.event.n_reused,
        failed=sum(result.event.n_failed.values()),
        seconds=result.event.total_s,
        saved_s=result.event.saved_s,
    )


def _task(file: ServingFile, batch: int, device: Device, server: str, interpreted: bool) -> Task:
    task = file.task(batch, device)
    if file.kernel == "fused_moe":
        from autotune_rlm.integrations.serving.programs import experts_of

        hidden_size, top_k = experts_of(dict(task.problem))
        whole = {**task.problem, "hidden_size": hidden_size, "top_k": top_k}
        task = dataclasses.replace(task, problem=whole)
    versions = {server: version_of(server), "interpreted": "1" if interpreted else ""}
    return dataclasses.replace(task, versions={n: v for n, v in versions.items() if v})


def _of_workloads(make: Fleet, path: str, function: str, *, interpreted: bool) -> MeasurerOf:
    """Measures in a process of its own, which loads the server's kernel."""

    def measurer(task: Task) -> AbstractContextManager[Measurer]:
        arguments = {
            "file": path,
            "function": function,
            "kernel": task.kernel,
            "problem": dict(task.problem),
        }
        if interpreted:
            arguments["device"] = "cpu"
        return make(
            Workload(factory=_FACTORY, arguments=arguments),
            env={"TRITON_INTERPRET": "1" if interpreted else "0"},
            timeout_s=_INTERPRETED_S if interpreted else _MAX_S,
        )

    return measurer


def _device_here(interpreted: bool) -> Device:
    from autotune_rlm.measure.detect import current_device

    device = current_device()
    if device.target == "cpu" and not interpreted:
        raise ValueError(
            "there is no GPU here to measure on; autotune-rlm serve-configs predict needs none, and "
            "--interpreter runs small sizes on Triton's interpreter"
        )
    return dataclasses.replace(device, target="interpreter") if interpreted else device
