"""A Helion configuration as a candidate: its parameters, and facts of the Triton code behind it."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from autotune_rlm._json import is_json
from autotune_rlm.integrations.triton.task import describe
from autotune_rlm.ir import Launch, NotRead, Reader, as_grid, target_of
from autotune_rlm.types import Candidate, Device, Task

_log = logging.getLogger(__name__)
_SCALARS = (bool, int, float, str, type(None))


class _Captured(Exception):
    """Ends the host code at its first launch, whose arguments it carries."""

    def __init__(self, kernel: Any, grid: Any, args: Sequence[Any], options: Mapping[str, Any]):
        super().__init__()
        self.kernel, self.grid, self.args_, self.options = kernel, grid, args, options


def task_of(kernel: Any, args: Sequence[object], device: Device) -> Task:
    """What is tuned: a kernel of Helion, or one of ``helion.autotuner.autotune``, with its arguments."""
    own = getattr(kernel, "kernel", None)
    name = str(getattr(own, "name", "") or "external")
    source = ""
    if own is not None:
        try:
            source = str(own.kernel_source())
        except (OSError, TypeError):
            _log.debug("the source of %s cannot be read", name)
    problem = {f"arg{i}": describe(value) for i, value in enumerate(args)}
    plain = {n: v for n, v in problem.items() if is_json(v)}
    return Task(kernel=name, device=device, problem=plain, source=source, language="triton")


def candidate_of(config: Any, facts: Mapping[str, float] | None = None) -> Candidate:
    """The candidate of a Helion configuration, which is its payload.

    Lists become one parameter for each item, ``block_sizes.0`` and so on.
    """
    flat: dict[str, Any] = {}
    for name, value in dict(config).items():
        items = enumerate(value) if isinstance(value, (list, tuple)) else [("", value)]
        for index, item in items:
            place = name if index == "" else f"{name}.{index}"
            flat[place] = item if isinstance(item, _SCALARS) else json.dumps(item, default=str)
    return Candidate(flat, payload=config, facts=dict(facts or {}))


def facts_of_config(
    kernel: Any, config: Any, args: Sequence[object], device: Device
) -> dict[str, float]:
    """What the compiler says of the Triton code of a configuration; empty where there is none.

    Helion generates the code and its host part runs as far as its first launch; nothing is compiled
    or launched.
    """
    try:
        host = kernel.compile_config(config, allow_print=False)
        if "_launcher" not in inspect.signature(host).parameters:
            return {}  # a callable of the user's own
        host(*args, _launcher=_capture)
    except _Captured as found:
        return _numbers(found, device)
    except Exception as error:  # Helion says why when it tries the configuration
        _log.debug("no facts of %s: %s", config, error)
    return {}


def _capture(kernel: Any, grid: Any, *args: Any, **options: Any) -> None:
    raise _Captured(kernel, grid, args, options)


def _numbers(found: _Captured, device: Device) -> dict[str, float]:
    arguments = dict(zip(found.kernel.arg_names, found.args_, strict=False))
    extra = {n: v for n, v in found.options.items() if n in found.kernel.arg_names}
    try:
        reader = Reader(found.kernel, target=target_of(device))
        launch = Launch(
            {**arguments, **extra},
            as_grid(found.grid, arguments),
            int(found.options.get("num_warps", 4)),
            int(found.options.get("num_stages", 3)),
        )
        return reader.numbers(launch, device)
    except (NotRead, ValueError, TypeError) as error:
        _log.debug("no facts of %s: %s", found.kernel, error)
        return {}
