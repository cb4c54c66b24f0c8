"""``RLMAutotuner``: Triton's autotuner with another way to choose."""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import triton
from triton import knobs
from triton.runtime.autotuner import Autotuner

from autotune_rlm.config_space import ConfigSpace

from ._device import device_of, is_capturing, wait_for_device
from ._launch import CacheDict, Choice, LaunchShape, triton_key
from ._live import LiveLaunch
from ._prune import check_conflicts, check_names, config_of, prune
from ._ranks import ranks
from ._refresh import refresher
from ._resources import TUNING_LOCK
from ._select import Outcome, Selector
from ._settings import Settings, is_disabled
from ._source import kernel_source, unwrap
from ._task import KernelTasks, candidates_of, describe
from ._traced import traceable_prune

__all__ = ["PlainAutotuner", "RLMAutotuner"]

_log = logging.getLogger(__name__)

_OWN_STATE = frozenset(
    {
        *("_shapes", "_configs", "_cache", "_local", "_settings", "_predicted"),
        *("_warned_of_capture", "_plain", "_tasks", "_is_made"),
        *("_user_prune", "_reader_prune", "_user_perf_model", "_user_top_k"),
    }
)


class PlainAutotuner(Autotuner):
    """Triton's own, for kernels that are left to it."""


class RLMAutotuner(Autotuner):
    """A ``triton.runtime.autotuner.Autotuner`` that asks a model before it measures.

    Made by ``rlm_autotune``, which documents the arguments. Everything that Triton documents of its
    autotuner holds: ``cache`` maps Triton's keys to configurations and may be changed,
    ``best_config`` is the configuration of the last launch, ``configs_timings`` and ``bench_time``
    tell of the last search.

    Raises:
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
        check_names(arg_names, key=key, reset_to_zero=reset_to_zero, restore_value=restore_value)
        self._prepare(settings)
        super().__init__(fn, arg_names, configs, key, reset_to_zero, restore_value, **options)
        self._is_made = True
        self.bench_time = 0.0
        self.configs_timings: dict[triton.Config, list[float]] = {}

    def _prepare(self, settings: Settings) -> None:
        """The state that Triton's constructor knows nothing of."""
        self._shapes: dict[tuple[Any, ...], LaunchShape] = {}
        self._configs: list[triton.Config] | ConfigSpace = []
        self._local = threading.local()
        self._settings = settings
        self._reader_prune: Callable[..., list[triton.Config]] | None = None
        self._is_made = False  # Triton's constructor reads pruning attributes before it sets them
        self._predicted: tuple[str, dict[str, float]] = ("", {})
        self._warned_of_capture = False

    def plain_state(self) -> dict[str, Any]:
        """The attributes of Triton's autotuner with the same choice to make and nothing chosen yet."""
        state = {name: value for name, value in vars(self).items() if name not in _OWN_STATE}
        return {
            **state,
            "configs": self.configs,
            "cache": {},
            "nargs": None,
            "early_config_prune": self._user_prune,
            "perf_model": self._user_perf_model,
            "configs_top_k": self._user_top_k,
        }

    # What Triton's constructor assigns and others may replace. The fast path holds copies.

    @property
    def configs(self) -> list[triton.Config]:
        """The configurations; those of a ``ConfigSpace`` are made when first asked for."""
        configs = self._configs
        if isinstance(configs, ConfigSpace):
            configs = self._configs = configs.to_triton()
        return configs

    @configs.setter
    def configs(self, configs: list[triton.Config] | ConfigSpace) -> None:
        self._configs = configs
        self._forget_choices()

    @property
    def cache(self) -> dict[Any, triton.Config]:
        """The choice by Triton's key: values of the key arguments, then dtypes of all tensors."""
        return self._cache

    @cache.setter
    def cache(self, cache: Mapping[Any, triton.Config]) -> None:
        self._cache = CacheDict(self._forget_choices, cache)
        self._forget_choices()

    @property
    def nargs(self) -> dict[str, Any] | None:
        """The positional arguments by name, while this thread chooses a configuration."""
        return getattr(self._local, "nargs", None)

    @nargs.setter
    def nargs(self, nargs: dict[str, Any] | None) -> None:
        self._local.nargs = nargs

    def _forget_choices(self) -> None:
        for shape in list(self._shapes.values()):
            shape.choices.clear()

    # Launching.

    def __getitem__(self, grid: Any) -> Any:
        """The kernel with its launch grid, to be called with the arguments."""
        return functools.partial(self.run, grid=grid, warmup=False)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Launch with the chosen configuration; choose one where the key is new."""
        shape = self._shapes.get((*map(type, args), *kwargs, *map(type, kwargs.values())))
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
            result = self._plain.run(*args, **kwargs)
            self.best_config = self._plain.best_config
            return result
        types = (*map(type, args), *kwargs, *map(type, kwargs.values()))
        shape = self._shapes.get(types)
        if shape is None:
            shape = self._shapes[types] = LaunchShape(self.arg_names, self.keys, args, kwargs)
        config, lasting = self._choose(args, kwargs)
        choice = Choice.of(config)
        if lasting:
            shape.choices[shape.key(args, kwargs)] = choice
            if self._is_outdated(config, args, kwargs):
                shape.choices.clear()
        self.best_config = config
        return self._launch(choice, args, kwargs)

    def _is_outdated(
        self, config: triton.Config, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Whether another thread has replaced the choice since it was read."""
        named = dict(zip(self.arg_names, args, strict=False))
        key = triton_key(self.arg_names, self.keys, {**named, **kwargs})
        return self.cache.get(key, config) is not config

    @functools.cached_property
    def _plain(self) -> Autotuner:
        plain = object.__new__(PlainAutotuner)
        plain.__dict__.update(self.plain_state())
        return plain

    # Choosing.

    def _choose(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[triton.Config, bool]:
        """The configuration of a launch, and whether it may be kept."""
        if len(self.configs) == 1:
            return self.configs[0], True
        named = dict(zip(self.arg_names, args, strict=False))
        key = triton_key(self.arg_names, self.keys, {**named, **kwargs})
        found = self.cache.get(key)
        if found is not None:
            return found, True
        with TUNING_LOCK:
            found = self.cache.get(key)
            if found is not None:
                return found, True
            self.nargs = named
            try:
                return self._choose_new(key, args, kwargs)
            finally:
                self.nargs = None

    def _choose_new(
        self, key: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[triton.Config, bool]:
        configs = self._pruned_by_user(self.configs, self.nargs or {}, kwargs)
        outcome = Outcome(configs[0], "only")
        lasting = True
        if len(configs) > 1:
            measures = self._selector.settings.mode != "predict"
            if measures and (kwargs.get("warmup") or is_capturing()):
                measures = lasting = False
                if not kwargs.get("warmup"):
                    self._warn_of_capture()
            search = functools.partial(self._search, configs, args, kwargs, measures=measures)
            outcome = self._with_all_ranks(key, configs, search) if lasting else search()
        if lasting:
            self.cache[key] = outcome.config
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
        return outcome.config, lasting

    def _with_all_ranks(
        self, key: tuple[Any, ...], configs: list[triton.Config], search: Callable[[], Outcome]
    ) -> Outcome:
        if not ranks.several:
            return search()
        device = device_of(self._selector.settings.device)
        values = [describe(value) for value in key]
        about = [self.base_fn.__name__, kernel_source(self.fn), values, device.name]
        return ranks.agree(about, candidates_of(configs), search)

    def _search(
        self,
        configs: list[triton.Config],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        measures: bool,
    ) -> Outcome:
        selector = self._selector
        named = {**(self.nargs or {}), **kwargs}
        check_conflicts(configs, kwargs)
        task = selector.task(named)
        candidates = selector.feasible(task, candidates_of(configs))
        found = selector.finished(task, candidates)
        if found is not None:
            return found
        hooks = (self.pre_hook, self.post_hook)
        launch = LiveLaunch(self.fn, args, kwargs, named=named, hooks=hooks)
        if not measures:
            predicts = selector.settings.mode == "predict"
            reset = [*self.reset_to_zero, *self.restore_value]
            workload = functools.partial(launch.workload, reset=reset)
            outcome = selector.by_model(task, candidates, workload if predicts else None)
            if predicts and outcome.how in ("model", "file") and selector.store is not None:
                best = functools.partial(selector.best_measured, task, candidates)
                return dataclasses.replace(outcome, measured_later=best)
            return outcome
        wait_for_device()
        measurer = launch.measurer(self._do_bench, self._announce)
        return selector.by_measuring(task, candidates, measurer)

    @property
    def _selector(self) -> Selector:
        return Selector(self._tasks, self.keys, self._settings.with_environment())

    @functools.cached_property
    def _tasks(self) -> KernelTasks:
        return KernelTasks(self.fn, {name for config in self.configs for name in config.kwargs})

    def _pruned_by_user(
        self, configs: list[triton.Config], named: Mapping[str, Any], kwargs: Mapping[str, Any]
    ) -> list[triton.Config]:
        return prune(
            configs,
            named,
            kwargs,
            early=self._user_prune,
            perf_model=self._user_perf_model,
            top_k=self._user_top_k,
            kernel=self.base_fn.__name__,
        )

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
        if not self._warned_of_capture:
            self._warned_of_capture = True
            warnings.warn(
                f"{self.base_fn.__name__} was launched with a new key inside CUDA graph capture, "
                "where nothing can be measured: the graph keeps the stored or predicted "
                "configuration; launch once before the capture to tune it",
                RuntimeWarning,
                stacklevel=6,
            )

    # What readers of Triton's pruning attributes get: the model's choice.

    @property
    def early_config_prune(self) -> Callable[..., list[triton.Config]] | None:
        """Prunes as the user asked, then to the configurations that a search would measure.

        The user's own function, or None, where all configurations would be measured. Can be traced
        by ``torch.compile``.
        """
        if not self._ranks():
            return self._user_prune
        if self._reader_prune is None:
            self._reader_prune = traceable_prune(self._choose_indices, self._user_prune)
        return self._reader_prune

    @early_config_prune.setter
    def early_config_prune(self, given: Callable[..., list[triton.Config]] | None) -> None:
        self._user_prune = given
        self._reader_prune = None

    @property
    def perf_model(self) -> Callable[..., float] | None:
        """Predicted milliseconds of a configuration for a launch; all arguments by name."""
        return self._predict_ms if self._ranks() else self._user_perf_model

    @perf_model.setter
    def perf_model(self, model: Callable[..., float] | None) -> None:
        self._user_perf_model = model

    @property
    def configs_top_k(self) -> int | float:
        """How many configurations a search would measure."""
        if not self._ranks():
            return self._user_top_k
        return self._settings.with_environment().measurements(len(self.configs))

    @configs_top_k.setter
    def configs_top_k(self, top_k: int | float) -> None:
        self._user_top_k = top_k

    def _ranks(self) -> bool:
        if not self._is_made:
            return False
        n = len(self.configs)
        return self._settings.with_environment().measurements(n) < n

    def _choose_indices(
        self, arguments: dict[str, Any], described: list[dict[str, Any]]
    ) -> list[int]:
        configs = [config_of(options) for options in described]
        places = {id(config): i for i, config in enumerate(configs)}
        selector = self._selector
        chosen = selector.shortlist(selector.task(arguments), candidates_of(configs))
        return [places[id(candidate.payload)] for candidate in chosen]

    def _prune_by_model(
        self, configs: list[triton.Config], named_args: Mapping[str, Any], **kwargs: Any
    ) -> list[triton.Config]:
        kept = self._pruned_by_user(list(configs), named_args, kwargs)
        selector = self._selector
        task = selector.task({**named_args, **kwargs})
        return [c.payload for c in selector.shortlist(task, candidates_of(kept))]

    def _predict_ms(self, **arguments: Any) -> float:
        selector = self._selector
        task, candidates = selector.task(arguments), candidates_of(self.configs)
        if self._predicted[0] != task.key:
            times = selector.predicted(task, candidates)
            by_key = {c.key: t for c, t in zip(candidates, times, strict=True)}
            self._predicted = (task.key, by_key)
        names = {name for c in self.configs for name in c.all_kwargs()}
        (asked,) = candidates_of([config_of({k: arguments[k] for k in names if k in arguments})])
        return self._predicted[1][asked.key]

    def prune_configs(self, kwargs: dict[str, Any]) -> list[triton.Config]:
        """The configurations that a search would measure, for the arguments in ``nargs``."""
        return self._prune_by_model(self.configs, self.nargs or {}, **kwargs)

    def warmup(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Compile the configurations that a search would measure; launches nothing.

        Arguments may be dtypes in place of tensors.

        Returns:
            The compiled kernels; those that do not compile are left out.

        Raises:
            Exception: None compiles; the first one's error.
        """
        if is_disabled():
            return self._plain.warmup(*args, **kwargs)
        self.nargs = dict(zip(self.arg_names, args, strict=False))
        try:
            configs = self.prune_configs(kwargs)
        finally:
            self.nargs = None
        compiled: list[Any] = []
        errors: list[Exception] = []
        for config in configs:
            try:
                compiled.append(self.fn.warmup(*args, **kwargs, **config.all_kwargs()))
            except Exception as error:  # noqa: PERF203
                _log.info("%s does not compile with %s: %s", self.base_fn, config, error)
                errors.append(error)
        if errors and not compiled:
            raise errors[0]
        return compiled
