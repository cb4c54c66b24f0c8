"""``enable`` and ``disable``: kernels under ``triton.autotune``, in any library, tuned as ours.

Nothing is replaced by name, so it does not matter how a library imported ``autotune``. Each autotuner
of Triton's class becomes one of ours in place, where it is, and becomes Triton's again on ``disable``.
"""

from __future__ import annotations

import functools
import gc
import logging
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from triton.runtime.autotuner import Autotuner, Config

from autotune_rlm.measure.triton.layers import unwrap
from autotune_rlm.types import Device

from ._autotuner import RLMAutotuner
from .resources import TUNING_LOCK
from .settings import Settings

_log = logging.getLogger(__name__)
_triton_init = Autotuner.__init__


@dataclass(frozen=True)
class _Adoption:
    settings: Settings
    only: tuple[str, ...] = ()

    def wants(self, autotuner: Autotuner) -> bool:
        module = str(getattr(unwrap(autotuner).fn, "__module__", ""))
        return not self.only or any(f"{module}.".startswith(f"{name}.") for name in self.only)


class Enabled:
    """What ``enable`` returns: a context manager that goes back to what was before."""

    def __init__(self, before: _Adoption | None) -> None:
        self._before = before

    def __enter__(self) -> Enabled:
        return self

    def __exit__(self, *_: object) -> None:
        _switch(self._before)

    @property
    def kernels(self) -> list[Any]:
        """The autotuners that are ours now; those of kernels defined later join them."""
        return list(_adopted.values())


def enable(
    *,
    only: str | Sequence[str] = (),
    budget: int | float | None = None,
    budget_s: float | None = None,
    mode: str = "tune",
    surrogate: Any = None,
    store: Any = None,
    device: Device | str | None = None,
    seed: int = 0,
    configs_from: Any = None,
    isolate: bool = False,
    check: str | None = None,
    quiet: bool = False,
) -> Enabled:
    """Make ``triton.autotune`` mean ``rlm_autotune``, for the kernels of libraries too.

    That holds for kernels that are defined from now on and for those of modules that are imported
    already: every live ``triton.runtime.autotuner.Autotuner``, and every one of a subclass that adds
    to Triton's. Where a subclass has a way of tuning of its own (its own cache, its own benchmark, a
    ``run`` that does not just call Triton's), it is left as it is. A key that Triton tuned before
    keeps its configuration. Kernels under ``rlm_autotune`` keep their own settings. A second call
    takes the place of the first.

    Call it before other threads launch kernels.

    Args:
        only: Modules or packages whose kernels are meant, such as ``"fla"``; all where empty.
        budget: See ``rlm_autotune``, as for all that follow.
        budget_s: Seconds after which no further measurement is started.
        mode: ``"tune"``, ``"predict"`` or ``"full"``.
        surrogate: The model.
        store: Where measurements are kept.
        device: For the model and the store.
        seed: Of the search.
        configs_from: Files of recommended configurations.
        isolate: Whether a process of its own measures.
        check: ``"default"`` to leave out configurations whose outputs differ from the first one's.
        quiet: Whether searches write nothing about themselves.

    Returns:
        A context manager that goes back to what was before; need not be used as one.

    Raises:
        ImportError: There is no Triton.
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of range.

    Example:
        >>> import autotune_rlm
        >>> autotune_rlm.enable(mode="predict")
        >>> import fla.layers
    """
    if not isinstance(only, (str, Sequence)):
        raise TypeError(f"only must be names of modules such as 'fla', got {only!r}")
    names = (only,) if isinstance(only, str) else tuple(only)
    if not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"only must be names of modules such as 'fla', got {only!r}")
    settings = Settings(
        budget=budget,
        budget_s=budget_s,
        mode=mode,
        surrogate=surrogate,
        store=store,
        device=device,
        seed=seed,
        configs_from=configs_from,
        isolate=isolate,
        check=check,
        quiet=quiet,
    )
    return Enabled(_switch(_Adoption(settings, names)))


def disable() -> None:
    """Give every kernel that ``enable`` took back to Triton, which knows of no choice made meanwhile.

    Without an ``enable`` before, nothing happens.
    """
    _switch(None)


_current: _Adoption | None = None
_adopted: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # by id


def _switch(to: _Adoption | None) -> _Adoption | None:
    """Adopt as ``to`` says; returns what held before."""
    global _current
    with TUNING_LOCK:
        for autotuner in list(_adopted.values()):
            _release(autotuner)
        before, _current = _current, to
        Autotuner.__init__ = _triton_init if to is None else _adopting_init
        if to is not None:
            for thing in gc.get_objects():
                if issubclass(type(thing), Autotuner):  # asking an instance may run its code
                    _adopt(thing, to)
            _log.info("%d autotuned kernels are tuned by autotune_rlm", len(_adopted))
    return before


@functools.wraps(_triton_init)
def _adopting_init(self: Autotuner, *args: Any, **kwargs: Any) -> None:
    _triton_init(self, *args, **kwargs)
    adoption = _current
    if adoption is not None:
        _adopt(self, adoption)


def _adopt(autotuner: Any, adoption: _Adoption) -> None:
    """Make an autotuner ours, or leave it as it is; raises nothing."""
    theirs = type(autotuner)
    try:
        if issubclass(theirs, RLMAutotuner) or not adoption.wants(autotuner):
            return
        cannot = _cannot_serve(autotuner)
        if cannot:
            _log.debug("%s is left to itself: %s", theirs.__qualname__, cannot)
            return
        autotuner.__class__ = _ours(theirs)
    except Exception as error:
        _log.warning("a %s is left to itself: %s", theirs.__qualname__, error)
        return
    autotuner.adopted(adoption.settings)
    _adopted[id(autotuner)] = autotuner


def _release(autotuner: Any) -> None:
    """Give an autotuner back; raises nothing."""
    _adopted.pop(id(autotuner), None)
    theirs = _theirs.get(type(autotuner))
    if theirs is None:
        _log.warning("a %s is no longer as it was adopted", type(autotuner).__qualname__)
        return
    autotuner.released()
    autotuner.__class__ = theirs


_METHODS = ("run", "warmup", "prune_configs", "check_disk_cache", "_bench", "do_bench")
_STATE = ("arg_names", "cache", "configs", "configs_top_k", "fn", "keys", "perf_model")
_ACCESS = ("__getattribute__", "__getattr__", "__setattr__", "__getitem__", "__slots__")
_INPUT = {
    "arg_names",
    "keys",
}  # what a key is made of; fla's asks for it to look into its own files
_CHOOSING = {*_METHODS[1:], *_STATE, "nargs", "best_config", "early_config_prune"} - _INPUT


def _cannot_serve(autotuner: Any) -> str:
    """Why an autotuner tunes in a way of its own; empty where it does not."""
    state = vars(autotuner)
    for name in _STATE:
        if name not in state:
            return f"it has no {name}"
    for name in _METHODS[:-1]:  # do_bench is kept in the instance when it was asked for
        if name in state:
            return f"it has its own {name}"
    for level in type(autotuner).__mro__:
        if level is Autotuner:
            break
        for name in vars(level).keys() & {*_METHODS, *_CHOOSING, *_ACCESS}:
            if name != "run" or not _only_adds(vars(level)["run"]):
                return f"{level.__qualname__} has its own {name}"
    for name in ("run", "_bench", "prune_configs"):
        if _file_of(getattr(Autotuner, name)) != _file_of(Config.__init__):
            return f"Autotuner.{name} of Triton was replaced"
    return ""


def _only_adds(run: Any) -> bool:
    """Whether a ``run`` ends in Triton's and knows nothing of how that chooses."""
    names = {*getattr(getattr(run, "__code__", None), "co_names", ())}
    return "super" in names and not names & _CHOOSING


def _file_of(function: Any) -> str | None:
    return getattr(getattr(function, "__code__", None), "co_filename", None)


_theirs: dict[type, type] = {RLMAutotuner: Autotuner}


def _ours(theirs: type) -> type:
    """The class that tunes as ours and does all else as ``theirs``."""
    for our, their in _theirs.items():
        if their is theirs:
            return our
    namespace = {"__module__": theirs.__module__, "__doc__": theirs.__doc__}
    made = type(theirs.__name__, (theirs, RLMAutotuner), namespace)
    _theirs[made] = theirs
    return made
