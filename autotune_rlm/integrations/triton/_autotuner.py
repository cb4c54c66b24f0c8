"""``RLMAutotuner``: Triton's autotuner with another way to choose."""

from __future__ import annotations

import dataclasses
import functools
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import triton
from triton import knobs

from autotune_rlm._checks import check_all
from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.measure.errors import Owner, classify
from autotune_rlm.measure.triton import IsolatedMeasurer, Workload
from autotune_rlm.measure.triton.layers import unwrap
from autotune_rlm.types import Candidate

from ._attributes import Attributes, State
from ._check import OutputCheck
from ._disk_cache import DiskCache
from ._launch import Choice, LaunchShape, triton_key
from ._live import LiveLaunch
from ._prune import check_conflicts, check_names
from ._ranks import ranks
from ._refresh import Later, refresher
from ._select import Outcome
from ._source import kernel_source
from .device import device_of, is_capturing, wait_for_device
from .resources import TUNING_LOCK, compile_pool
from .settings import Settings, is_disabled
from .task import candidates_of, describe

_log = logging.getLogger(__name__)


class RLMAutotuner(Attributes):
    """A ``triton.runtime.autotuner.Autotuner`` that asks a model before it measures.

    Made by ``rlm_autotune``, which documents the arguments. Everything that Triton documents of its
    autotuner holds: ``cache`` maps Triton's keys to configurations and may be changed,
    ``best_config`` is the configuration of the last launch, ``configs_timings`` and ``bench_time``
    tell of the last search.

    Raises:
        TypeError: ``configs`` are none.
        ValueError: ``key``, ``reset_to_zero`` or ``restore_value`` name no argument of the kernel.
    """

    def __init__(
        self,
        fn: Any,
        arg_names: Sequence[str],
        configs: Sequence[triton.Config] | ConfigSpace | None,
        key: Sequence[str],
        reset_to_zero: Sequence[str] | None,
        restore_value: Sequence[str] | None,
        *,
        settings: Settings,
        **options: Any,
    ) -> None:
        if configs and not isinstance(configs, ConfigSpace):
            check_all("configs", configs, triton.Config)
        check_names(arg_names, key=key, reset_to_zero=reset_to_zero, restore_value=restore_value)
        self._rlm = State(settings)
        super().__init__(fn, arg_names, configs, key, reset_to_zero, restore_value, **options)
        self.bench_time = 0.0
        self.configs_timings: dict[triton.Config, list[float]] = {}
        self._rlm.is_made = True

    # Launching.

    def __getitem__(self, grid: Any) -> Any:
        """The kernel with its launch grid, to be called with the arguments."""
        return functools.partial(self.run, grid=grid, warmup=False)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Launch with the chosen configuration; choose one where the key is new."""
        shape = self._rlm.shapes.get((*map(type, args), *kwargs, *map(type, kwargs.values())))
        if shape is not None:
            choice = shape.choices.get(shape.key(args, kwargs))
            if choice is not None:
                self.best_config = choice.config
                if choice.pre_hook is None:
                    return self.fn.run(*args, **kwargs, **choice.options)
                return self._launch(choice, args, kwargs)
        return self._first_launch(args, kwargs)

    def _launch(self, choice: Choice, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if choice.pre_hook is not None:
            named = dict(zip(self.arg_names, args, strict=False))
            choice.pre_hook({**named, **kwargs, **choice.options})
        return self.fn.run(*args, **kwargs, **choice.options)

    def _first_launch(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if is_disabled():
            return super().run(*args, **kwargs)
        types = (*map(type, args), *kwargs, *map(type, kwargs.values()))
        shapes = self._rlm.shapes
        shape = shapes.get(types)
        if shape is None:
            shape = shapes[types] = LaunchShape(self.arg_names, self.keys, args, kwargs)
        unfit: list[triton.Config] = []
        first: Exception | None = None
        while True:
            config, lasting, is_guess = self._choose(args, kwargs, unfit)
            choice = Choice.of(config)
            if lasting:
                shape.choices[shape.key(args, kwargs)] = choice
                if self._is_outdated(config, args, kwargs):
                    shape.choices.clear()
            self.best_config = config
            try:
                return self._launch(choice, args, kwargs)
            except Exception as error:
                if not is_guess or not self._leave_out(config, error, args, kwargs, unfit):
                    raise first or error from None
                first = first or error
            unfit.append(config)

    def _leave_out(
        self,
        config: triton.Config,
        error: Exception,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        unfit: Sequence[triton.Config],
    ) -> bool:
        """Leave out an unmeasured choice whose binary failed; False where the error is to be raised."""
        fault = classify(error, stage="call")
        if fault.owner is not Owner.BINARY or len(unfit) + 1 >= len(self.configs):
            return False
        named = {**dict(zip(self.arg_names, args, strict=False)), **kwargs}
        _log.warning("%s goes on without %s: %s", self.base_fn.__name__, config, fault.reason)
        selector = self._selector
        selector.leave_out(selector.task(named), candidates_of(self.configs), config, fault)
        self.cache.pop(triton_key(self.arg_names, self.keys, named), None)
        return True

    def _is_outdated(
        self, config: triton.Config, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Whether another thread has replaced the choice since it was read."""
        named = dict(zip(self.arg_names, args, strict=False))
        key = triton_key(self.arg_names, self.keys, {**named, **kwargs})
        return self.cache.get(key, config) is not config

    # Choosing.

    def _choose(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], unfit: Sequence[triton.Config] = ()
    ) -> tuple[triton.Config, bool, bool]:
        """A launch's configuration, whether it may be cached, and whether it never ran here."""
        if len(self.configs) == 1:
            return self.configs[0], True, False
        named = dict(zip(self.arg_names, args, strict=False))
        key = triton_key(self.arg_names, self.keys, {**named, **kwargs})
        cached = self.cache.get(key)
        if cached is not None:
            return cached, True, False
        if not kwargs.get("warmup") and is_capturing():
            return self._choose_captured(key, named, args, kwargs, unfit), False, True
        with TUNING_LOCK:
            cached = self.cache.get(key)
            if cached is not None:
                return cached, True, False
            self.nargs = named
            try:
                return self._choose_new(key, args, kwargs, unfit)
            finally:
                self.nargs = None

    def _choose_captured(
        self,
        key: tuple[Any, ...],
        named: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        unfit: Sequence[triton.Config],
    ) -> triton.Config:
        """The stored or predicted configuration: a graph capture forbids measuring on the device."""
        state = self._rlm
        chosen = state.untuned.get(key)
        if chosen is None or chosen in unfit:
            self._warn_of_capture()
            self.nargs = named
            try:
                pruned = self._pruned_by_user(self.configs, named, kwargs)
                configs = [c for c in pruned if c not in unfit] or pruned
                chosen = configs[0]
                if len(configs) > 1:
                    chosen = self._search(configs, args, kwargs, only_looks=True).config
            finally:
                self.nargs = None
            state.untuned[key] = chosen
        return chosen

    def _choose_new(
        self,
        key: tuple[Any, ...],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        unfit: Sequence[triton.Config],
    ) -> tuple[triton.Config, bool, bool]:
        pruned = self._pruned_by_user(self.configs, self.nargs or {}, kwargs)
        configs = [c for c in pruned if c not in unfit] or pruned
        outcome = Outcome(configs[0], "only")
        lasting = True
        if len(configs) > 1:
            lasting = not kwargs.get("warmup")
            search = functools.partial(self._search, configs, args, kwargs, only_looks=not lasting)
            looks = functools.partial(self._search, configs, args, kwargs, only_looks=True)
            alone = not lasting or bool(unfit)
            outcome = search() if alone else self._with_all_ranks(key, configs, search, looks)
        self._keep(key, pruned, outcome)
        if lasting:
            self.cache[key] = outcome.config
            self._rlm.untuned.pop(key, None)
            if outcome.measured_later is not None:
                refresher.add(self, key, outcome.measured_later)
        if outcome.timings:
            self.configs_timings = outcome.timings
        if outcome.how == "measured":
            self.bench_time = outcome.seconds
            best = {**(self.nargs or {}), **kwargs, **outcome.config.all_kwargs()}
            self.pre_hook(best, reset_only=True)
        if lasting:
            self._tell(key, outcome)
        is_guess = outcome.how not in ("only", "measured") and len(configs) > 1
        return outcome.config, lasting, is_guess

    def _keep(self, key: tuple[Any, ...], configs: list[triton.Config], outcome: Outcome) -> None:
        """Write the timings to Triton's own cache of timings where Triton would use it."""
        if outcome.how in ("measured", "store") and outcome.is_of_this and outcome.timings:
            disk = DiskCache.of(self, key, configs)
            if disk is not None:
                disk.write(outcome.timings)

    def _with_all_ranks(
        self,
        key: tuple[Any, ...],
        configs: list[triton.Config],
        search: Callable[[], Outcome],
        looks: Callable[[], Outcome],
    ) -> Outcome:
        if not ranks.several:
            return search()
        device = device_of(self._selector.settings.device)
        values = [describe(value) for value in key]
        about = [self.base_fn.__name__, kernel_source(self.fn), values, device.name]
        return ranks.agree(about, candidates_of(configs), search, looks)

    def _search(
        self,
        configs: list[triton.Config],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        only_looks: bool,
    ) -> Outcome:
        """Choose a configuration for a launch; with ``only_looks`` nothing is measured or noted."""
        selector = self._selector
        named = {**(self.nargs or {}), **kwargs}
        check_conflicts(configs, kwargs)
        task = selector.task(named)
        key = triton_key(self.arg_names, self.keys, named)
        disk = DiskCache.of(self, key, configs)
        found = None if disk is None else disk.outcome(selector, task, configs)
        if found is not None:
            return found
        candidates = selector.feasible(task, candidates_of(configs))
        found = selector.finished(task, candidates)
        if found is not None:
            return found
        hooks = (self.pre_hook, self.post_hook)
        launch = LiveLaunch(self.fn, args, kwargs, named=named, hooks=hooks)
        candidates = selector.read(task, candidates, launch.launch_of)
        predicts = selector.settings.mode == "predict" and not only_looks
        if predicts or only_looks:
            reset = [*self.reset_to_zero, *self.restore_value]
            workload = functools.partial(launch.workload, reset=reset)
            outcome = selector.by_model(task, candidates, workload if predicts else None)
            if predicts and outcome.how in ("model", "file") and selector.store is not None:
                best = functools.partial(
                    selector.best_measured,
                    task,
                    candidates,
                    chosen=outcome.config,
                    expected_ms=outcome.expected_ms,
                )
                later = Later(best, selector.store, task.key)
                return dataclasses.replace(outcome, measured_later=later)
            return outcome
        wait_for_device()
        measurer = functools.partial(launch.measurer, self._do_bench, self._announce)
        checks, isolated = selector.settings.check is not None, None
        if selector.settings.isolate:
            isolated = functools.partial(self._isolated, launch, candidates, checks)
        if not checks:
            return selector.by_measuring(task, candidates, measurer, isolated)
        check = OutputCheck(named, launch.job(candidates[0].payload).call)
        measurer = functools.partial(measurer, check=check)
        try:
            return selector.by_measuring(task, candidates, measurer, isolated)
        finally:
            check.restore()

    def _isolated(
        self, launch: LiveLaunch, candidates: Sequence[Candidate], checks: bool
    ) -> IsolatedMeasurer | None:
        """A measurer in a separate process; None, with a warning, where that is not possible."""
        own = {
            "do_bench": self._do_bench is not None,
            "pre_hook": getattr(self, "user_defined_pre_hook", False),
            "post_hook": getattr(self, "user_defined_post_hook", False),
        }
        why = next((f"a {name} of its own" for name, is_own in own.items() if is_own), "")
        reset = [*self.reset_to_zero, *self.restore_value]
        workload: dict[str, Any] = {"obstacle": why}
        if not why:
            workload = launch.workload(candidates, reset=reset, checks=checks)
        if "obstacle" in workload:
            why = workload["obstacle"]
            name = self.base_fn.__name__
            _log.warning("%s is measured in this process although isolate=True: %s", name, why)
            return None
        right = dict(candidates[0].config) if checks else None
        return IsolatedMeasurer(Workload(**workload), pool=compile_pool(), reference=right)

    def _announce(self, config: triton.Config) -> None:
        if knobs.autotuning.print:
            print(f"Autotuning kernel {self.base_fn.__name__} with config {config}")

    def _tell(self, key: tuple[Any, ...], outcome: Outcome) -> None:
        name, config = self.base_fn.__name__, outcome.config
        _log.info("%s, key %s: %s, from %s", name, key, config, outcome.how)
        measured = outcome.how == "measured"
        if knobs.autotuning.print and measured:
            print(
                f"Triton autotuning for function {name},\nwith key as {key},\n"
                f"finished after {outcome.seconds:.2f}s,\nbest config selected: {config};"
            )
        listener = getattr(knobs.autotuning, "listener", None)
        if listener is not None and outcome.timings:
            listener(
                fn=unwrap(self.fn),
                key=key,
                best_config=config,
                configs_timings=outcome.timings,
                duration=outcome.seconds if measured else None,
                cache_hit=not measured,
            )

    def _warn_of_capture(self) -> None:
        if not self._rlm.warned_of_capture:
            self._rlm.warned_of_capture = True
            warnings.warn(
                f"{self.base_fn.__name__} was launched with a new key inside CUDA graph capture, "
                "where nothing can be measured: the graph keeps the stored or predicted "
                "configuration; launch once before the capture to tune it",
                RuntimeWarning,
                stacklevel=6,
            )
