"""Triton's own cache of timings on disk: ``cache_results=True`` and ``TRITON_CACHE_AUTOTUNING=1``.

The place of a file, its name and its content are those of ``Autotuner.check_disk_cache`` in
``triton/runtime/autotuner.py`` (equal in Triton 3.4 to 3.9), so that Triton's autotuner and ours read
each other's files: one for each kernel, compiler, target, environment, key and list of configurations.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import triton
from triton import knobs
from triton._C.libtriton import get_cache_invalidating_env_vars
from triton.compiler import make_backend
from triton.runtime.autotuner import Config
from triton.runtime.cache import get_cache_manager
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from autotune_rlm.landscapes import triton_measurement, triton_problem
from autotune_rlm.measure.triton.layers import unwrap
from autotune_rlm.types import Task

from ._select import Outcome, Selector
from .task import candidates_of

try:
    from triton.runtime.cache import triton_key
except ImportError:  # Triton 3.4
    from triton.compiler.compiler import triton_key

_log = logging.getLogger(__name__)
_NAME = 150  # characters of a kernel's name in a file's
Timings = dict[Config, list[float]]


class DiskCache:
    """The file of one key (of the arguments' values, then all tensors' dtypes) and its configurations."""

    def __init__(self, kernel: Any, key: tuple[Any, ...], configs: Sequence[triton.Config]) -> None:
        function = unwrap(kernel)
        self._key = key
        self._name = f"{function.__name__[:_NAME]}.autotune.json"
        parts = [
            triton_key(),
            make_backend(driver.active.get_current_target()).hash(),
            function.cache_key,
            str(sorted(get_cache_invalidating_env_vars().items())),
            str(key),
            *map(str, configs),
        ]
        self._files = get_cache_manager(hashlib.sha256("-".join(parts).encode()).hexdigest())

    @classmethod
    def of(
        cls, autotuner: Any, key: tuple[Any, ...], configs: Sequence[triton.Config]
    ) -> DiskCache | None:
        """The file of an autotuner's key; None where Triton keeps none.

        Triton keeps nothing without ``cache_results``, in its interpreter, without a key, and where a
        configuration has a hook.
        """
        kept = getattr(autotuner, "cache_results", False) and not knobs.runtime.interpret
        if not kept or not key or any(config.pre_hook for config in configs):
            return None
        if not isinstance(unwrap(autotuner.fn), JITFunction):
            return None
        try:
            return cls(autotuner.fn, key, configs)
        except Exception as error:  # no device
            _log.info("Triton's cache of timings is left alone: %s", error)
            return None

    def read(self) -> Timings | None:
        """What was measured, in milliseconds: median, 20 % and 80 % quantiles; None where nothing was."""
        path = self._files.get_file(self._name)
        if path is None:
            return None
        try:
            with open(path) as file:
                pairs = json.load(file)["configs_timings"]
            timings = {Config(**config): [float(t) for t in times] for config, times in pairs}
        except (OSError, ValueError, TypeError, KeyError) as error:
            _log.warning("%s is not read: %s: %s", path, type(error).__name__, error)
            return None
        return timings or None

    def outcome(
        self, selector: Selector, task: Task, configs: Sequence[triton.Config]
    ) -> Outcome | None:
        """The choice by what is on disk, which the store keeps too.

        Triton knows a problem by its key alone, so it is kept as what was measured of a problem that has
        nothing else. None where the search is not ended by it: nothing worked, all have to be measured
        and some were not, or results have to be checked.
        """
        settings, store = selector.settings, selector.store
        timings = self.read() if settings.check is None else None
        here = {c: timings[c] for c in configs if c in timings} if timings else {}
        if not any(math.isfinite(times[0]) for times in here.values()):
            return None
        if settings.mode == "full" and len(here) < len(configs):
            return None
        problem = triton_problem(self._key, selector.key)
        known = dataclasses.replace(task, problem=problem, binary="", like="")
        if store is not None and not store.observations(known):
            found = candidates_of(list(here))
            store.add_many((known, c, triton_measurement(here[c.payload])) for c in found)
        return Outcome(min(here, key=lambda config: here[config]), "disk", here)

    def write(self, timings: Mapping[Config, Sequence[float]]) -> None:
        """Keep what was measured, for Triton and for us."""
        pairs = [(config.__dict__, list(times)) for config, times in timings.items()]
        try:
            text = json.dumps({"key": self._key, "configs_timings": pairs})
            self._files.put(text, self._name, binary=False)
        except (OSError, TypeError, ValueError) as error:  # a full disk, a key that JSON lacks
            _log.warning(
                "the timings are not in Triton's cache: %s: %s", type(error).__name__, error
            )
