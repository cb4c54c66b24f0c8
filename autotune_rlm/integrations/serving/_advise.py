"""Configurations for each batch size, as the model ranks the servers' own spaces."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune_rlm import devices
from autotune_rlm._checks import check_type
from autotune_rlm.integrations.serving._file import MOE_DTYPES, ServingFile
from autotune_rlm.integrations.serving._spaces import space
from autotune_rlm.types import Candidate, Device, Prediction, Surrogate, Task

BATCHES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 1536, 2048, 3072, 4096)
"""Batch sizes that the servers' own tuning scripts measure."""

Facts = Callable[[Task, Sequence[Candidate]], Sequence[Candidate]]
# An entry is doubtful where the model expects another configuration to be faster by more than a fifth,
# which is above what two tunings of one problem differ by.
_DOUBTFUL = 0.2


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A predicted configuration for a batch of so many tokens.

    Times are in ms; ``low`` and ``high`` are the 5 % and 95 % quantiles. ``unfamiliar`` says why the
    model has little to go by; empty where it has.
    """

    batch: int
    config: dict[str, int]
    median: float
    low: float
    high: float
    unfamiliar: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """An entry of a file that looks slow: what it says, and what the model would take (``better``).

    ``slower`` is how much longer the model expects the file's choice to take, as a fraction.
    ``unfamiliar`` says why the model has little to go by; empty where it has.
    """

    batch: int
    config: dict[str, int]
    better: dict[str, int]
    slower: float
    unfamiliar: tuple[str, ...] = ()


def predict(
    file: ServingFile,
    *,
    batches: Sequence[int] = BATCHES,
    device: Device | None = None,
    surrogate: Surrogate | None = None,
    facts: Facts | None = None,
) -> Iterator[Entry]:
    """The model's choice for each batch size, without a measurement.

    Args:
        file: What the configurations are for; its own are not looked at.
        batches: Tokens.
        device: The GPU; None for the one that the file names.
        surrogate: The model; None for the bundled one.
        facts: Gives candidates the compiler's facts; None for this package's kernels of the same
            algorithms (Triton is needed).

    Yields:
        One entry a batch size, as soon as it is known.

    Raises:
        ValueError: A batch size is below 1, no server knows the dtype, or nothing is known of the GPU.
    """
    checked(file, batches)
    if device is None and not devices.lookup(file.device_name).target:
        near = difflib.get_close_matches(file.device_name, devices.known(), 3)
        raise ValueError(
            f"nothing is known of the device {file.device_name!r}"
            + (f"; did you mean {' or '.join(near)}?" if near else "")
            + "; autotune-rlm devices lists those that are known"
        )
    for task, candidates, prediction in _ranked(file, batches, device, surrogate, facts):
        best = int(_worth(prediction).argmin())
        yield Entry(
            batch=task.problem["M"],
            config=dict(candidates[best].config),
            median=float(prediction.median[best]),
            low=float(prediction.low[best]),
            high=float(prediction.high[best]),
            unfamiliar=prediction.unfamiliar,
        )


def check(
    file: ServingFile,
    *,
    device: Device | None = None,
    surrogate: Surrogate | None = None,
    facts: Facts | None = None,
) -> Iterator[Doubt]:
    """The entries of a file for which the model expects something clearly faster.

    Args:
        file: The file.
        device: The GPU that it is used on; None for the one that it names.
        surrogate: As for ``predict``.
        facts: As for ``predict``.

    Yields:
        The doubtful entries.
    """
    checked(file, ())
    for task, candidates, prediction in _ranked(file, list(file.configs), device, surrogate, facts):
        batch = task.problem["M"]
        worth = _worth(prediction)
        own = Candidate(dict(file.configs[batch])).key
        mine, best = [c.key for c in candidates].index(own), int(worth.argmin())
        slower = float(worth[mine] / worth[best] - 1)
        if slower > _DOUBTFUL:
            yield Doubt(
                batch=batch,
                config=dict(file.configs[batch]),
                better=dict(candidates[best].config),
                slower=slower,
                unfamiliar=prediction.unfamiliar,
            )


def _ranked(
    file: ServingFile,
    batches: Sequence[int],
    device: Device | None,
    surrogate: Surrogate | None,
    facts: Facts | None,
) -> Iterator[tuple[Task, Sequence[Candidate], Prediction]]:
    device = device or devices.lookup(file.device_name)
    if surrogate is None:
        from autotune_rlm.surrogate import load_surrogate

        surrogate = load_surrogate()
    for batch in batches:
        task = file.task(batch, device)
        known = [Candidate(dict(file.configs[batch]))] if batch in file.configs else []
        candidates = candidates_of(file, task, facts, known=known)
        yield task, candidates, surrogate.predict(task, candidates)


def checked(file: ServingFile, batches: Sequence[int]) -> None:
    """Raise where it is no file, no server looks for such a one, or a batch size is below 1."""
    check_type("file", file, ServingFile)
    if any(not isinstance(b, int) or isinstance(b, bool) or b < 1 for b in batches):
        raise ValueError(f"batches must be whole numbers of at least 1, got {list(batches)!r}")
    if file.kernel == "fused_moe" and file.dtype not in (None, *MOE_DTYPES):
        raise ValueError(
            f"dtype must be one of {', '.join(MOE_DTYPES)}, or none for 16 bits, got {file.dtype!r}"
        )


def candidates_of(
    file: ServingFile, task: Task, facts: Facts | None, *, known: Sequence[Candidate] = ()
) -> Sequence[Candidate]:
    """The space of the server's tuner and what is ``known`` beside it, with the compiler's facts."""
    choices = {c.key: c for c in (*space(file, task.device), *known)}
    return (facts or _facts())(task, list(choices.values()))


def _worth(prediction: Prediction) -> np.ndarray:
    """Milliseconds, longer for what likely does not compile or fit."""
    return np.asarray(prediction.median / np.maximum(prediction.p_valid, 1e-9))


@functools.cache
def _facts() -> Any:
    """Of this package's kernels of the servers' algorithms; what was read serves all batch sizes."""
    from autotune_rlm.integrations.serving.programs import PROGRAMS
    from autotune_rlm.surrogate.programs import Programs

    return Programs(PROGRAMS).candidates
