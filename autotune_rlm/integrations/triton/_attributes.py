"""The attributes of an autotuner that Triton defines and others read or replace."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import triton
from triton.runtime.autotuner import Autotuner

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.types import Candidate, Task

from ._launch import CacheDict, LaunchShape
from ._live import launch_of
from ._prune import config_of, prune
from ._select import Selector
from ._traced import traceable_prune
from .settings import Settings, is_disabled
from .task import KernelTasks, candidates_of

_log = logging.getLogger(__name__)
_RANKINGS = 16  # problems whose predictions a reader of perf_model finds again


class State:
    """All that is ours in an autotuner; the rest of its attributes are Triton's."""

    __slots__ = (
        *("before", "is_made", "local", "perf_model", "prune", "rankings", "settings", "shapes"),
        *("tasks", "untuned", "warned_of_capture"),
    )

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.before: dict[Any, Any] | None = None  # Triton's cache when it was adopted
        self.shapes: dict[tuple[Any, ...], LaunchShape] = {}
        self.local = threading.local()
        self.tasks: KernelTasks | None = None
        self.untuned: dict[tuple[Any, ...], triton.Config] = {}  # choices made in graph captures
        self.warned_of_capture = False
        self.is_made = False  # Triton's constructor reads pruning attributes before it sets them
        # What readers of the pruning attributes get: the same objects each time, which
        # torch.compile's guards compare.
        self.prune: Callable[..., list[triton.Config]] | None = None
        self.perf_model: Callable[..., float] | None = None
        self.rankings: OrderedDict[Any, dict[Any, float]] = OrderedDict()

    def forget_choices(self) -> None:
        """Launches ask for the configuration again."""
        self.untuned.clear()
        for shape in list(self.shapes.values()):
            shape.choices.clear()


class Attributes(Autotuner):
    """The part of ``RLMAutotuner`` that has Triton's names: state, pruning, compiling ahead."""

    _rlm: State

    def adopted(self, settings: Settings) -> None:
        """Begin to tune as ours, where Triton's constructor has run on another class.

        What was chosen so far stays; ``released`` goes back to it.
        """
        state = self.__dict__
        state.pop("nargs", None)
        self._rlm = State(settings)
        self._rlm.before = state["cache"]
        self.cache = state["cache"]
        state.setdefault("bench_time", 0.0)
        state.setdefault("configs_timings", {})
        self._rlm.is_made = True

    def released(self) -> None:
        """Leave nothing of ours: Triton's state, and its choices from before ``adopted``."""
        state = self.__dict__
        ours = state.pop("_rlm")
        state["cache"] = ours.before
        state["nargs"] = None

    def __copy__(self) -> Attributes:
        """An autotuner whose configurations and choices can be changed apart from these."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._rlm = State(self._rlm.settings)
        made._rlm.before = self._rlm.before
        made.cache = self.cache
        made._rlm.is_made = True
        return made

    # What Triton's constructor assigns and others may replace stays in the instance's dictionary,
    # under Triton's names. The fast path holds copies.

    @property
    def configs(self) -> list[triton.Config]:
        """The configurations; those of a ``ConfigSpace`` are made when first asked for."""
        configs = self.__dict__["configs"]
        if isinstance(configs, ConfigSpace):
            configs = self.__dict__["configs"] = configs.to_triton()
        return configs

    @configs.setter
    def configs(self, configs: list[triton.Config] | ConfigSpace) -> None:
        self.__dict__["configs"] = configs
        self._rlm.tasks = None
        self._rlm.rankings.clear()
        self._rlm.forget_choices()

    @property
    def cache(self) -> dict[Any, triton.Config]:
        """The choice by Triton's key: values of the key arguments, then dtypes of all tensors."""
        return self.__dict__["cache"]

    @cache.setter
    def cache(self, cache: Mapping[Any, triton.Config]) -> None:
        self.__dict__["cache"] = CacheDict(self._rlm.forget_choices, cache)
        self._rlm.forget_choices()

    @property
    def nargs(self) -> dict[str, Any] | None:
        """The positional arguments by name, while this thread chooses a configuration."""
        return getattr(self._rlm.local, "nargs", None)

    @nargs.setter
    def nargs(self, nargs: dict[str, Any] | None) -> None:
        self._rlm.local.nargs = nargs

    @property
    def _selector(self) -> Selector:
        return Selector(self._tasks, self.keys, self._rlm.settings.with_environment())

    @property
    def _tasks(self) -> KernelTasks:
        tasks = self._rlm.tasks
        if tasks is None:
            tasks = self._rlm.tasks = KernelTasks.of(self, self.configs)
        return tasks

    def _pruned_by_user(
        self, configs: list[triton.Config], named: Mapping[str, Any], kwargs: Mapping[str, Any]
    ) -> list[triton.Config]:
        return prune(
            configs,
            named,
            kwargs,
            early=self.__dict__["early_config_prune"],
            perf_model=self.__dict__["perf_model"],
            top_k=self.__dict__["configs_top_k"],
            kernel=self.base_fn.__name__,
        )

    # What readers of Triton's pruning attributes get: the user's own; where there is no perf_model,
    # the model's choice. They can be traced by ``torch.compile``, and are the same objects each time.

    @property
    def early_config_prune(self) -> Callable[..., list[triton.Config]] | None:
        """Prunes as the user asked, then to the configurations that a search would measure.

        The user's own function, or None, where all configurations would be measured, and where the
        user gave a ``perf_model``.
        """
        given = self.__dict__.get("early_config_prune")
        if not self._model_prunes():
            return given
        if self._rlm.prune is None:
            self._rlm.prune = traceable_prune(self._choose_indices, given)
        return self._rlm.prune

    @early_config_prune.setter
    def early_config_prune(self, given: Callable[..., list[triton.Config]] | None) -> None:
        self.__dict__["early_config_prune"] = given
        self._rlm.prune = None

    @property
    def perf_model(self) -> Callable[..., float] | None:
        """The user's own, else predicted milliseconds of a configuration; all arguments by name."""
        if not self._model_prunes():
            return self.__dict__.get("perf_model")
        if self._rlm.perf_model is None:
            self._rlm.perf_model = self._predict_ms
        return self._rlm.perf_model

    @perf_model.setter
    def perf_model(self, model: Callable[..., float] | None) -> None:
        self.__dict__["perf_model"] = model

    @property
    def configs_top_k(self) -> int | float:
        """The user's own, else how many configurations a search would measure."""
        if not self._model_prunes():
            return self.__dict__.get("configs_top_k", 1.0)
        return self._rlm.settings.with_environment().for_readers(len(self.configs))

    @configs_top_k.setter
    def configs_top_k(self, top_k: int | float) -> None:
        self.__dict__["configs_top_k"] = top_k

    def _model_prunes(self) -> bool:
        if not self._rlm.is_made or self.__dict__.get("perf_model") is not None or is_disabled():
            return False
        n = len(self.configs)
        return self._rlm.settings.with_environment().for_readers(n) < n

    def _choose_indices(
        self, arguments: dict[str, Any], described: list[dict[str, Any]]
    ) -> list[int]:
        configs = [config_of(options) for options in described]
        places = {id(config): i for i, config in enumerate(configs)}
        selector, task, candidates = self._read(arguments, configs)
        chosen = selector.shortlist(task, candidates)
        return [places[id(candidate.payload)] for candidate in chosen]

    def _predict_ms(self, **arguments: Any) -> float:
        rankings = self._rlm.rankings
        options = {name for config in self.configs for name in config.all_kwargs()}
        given = {name: value for name, value in arguments.items() if name not in options}
        asked = frozenset((name, arguments[name]) for name in options & set(arguments))
        about = tuple((name, _cheap(value)) for name, value in given.items())
        times = rankings.get(about)
        if times is None:
            selector, task, candidates = self._read(given, self.configs)
            predicted = selector.predicted(task, candidates)
            times = rankings[about] = {
                frozenset(c.payload.all_kwargs().items()): t
                for c, t in zip(candidates, predicted, strict=True)
            }
            while len(rankings) > _RANKINGS:
                rankings.popitem(last=False)
        if asked not in times:  # a configuration that is not in the list
            selector, task, candidates = self._read(given, [config_of(dict(asked))])
            (times[asked],) = selector.predicted(task, candidates)
        return times[asked]

    def _read(
        self, named: Mapping[str, Any], configs: list[triton.Config]
    ) -> tuple[Selector, Task, list[Candidate]]:
        """What chooses, the task, and candidates with the compiler's facts, without a grid."""
        selector = self._selector
        task, candidates = selector.task(named), candidates_of(configs)
        read = selector.read(task, candidates, lambda c: launch_of(self.fn, named, c.payload))
        return selector, task, read

    def prune_configs(self, kwargs: dict[str, Any]) -> list[triton.Config]:
        """The configurations that a search would measure, for the arguments in ``nargs``."""
        if is_disabled():
            return super().prune_configs(kwargs)
        named = self.nargs or {}
        kept = self._pruned_by_user(self.configs, named, kwargs)
        selector, task, candidates = self._read({**named, **kwargs}, kept)
        return [c.payload for c in selector.shortlist(task, candidates)]

    def warmup(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Compile the configurations that a search would measure; launches nothing.

        Arguments may be dtypes in place of tensors. Returns the kernels that compile; where none does,
        the first one's error is raised.
        """
        if is_disabled():
            return super().warmup(*args, **kwargs)
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


def _cheap(value: Any) -> Any:
    """What tells arguments apart, with little work; hashable."""
    if hasattr(value, "dtype"):
        shape = tuple(getattr(value, "shape", ()))
        strides = tuple(value.stride()) if callable(getattr(value, "stride", None)) else ()
        return str(value.dtype), shape, strides
    try:
        hash(value)
    except TypeError:
        return type(value), repr(value)
    return type(value), value
