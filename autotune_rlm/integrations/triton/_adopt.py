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

from triton.runtime.autotuner import Autotuner

from autotune_rlm.types import Device

from ._autotuner import PlainAutotuner, RLMAutotuner
from ._resources import TUNING_LOCK
from ._settings import Settings
from ._source import unwrap

__all__ = ["Enabled", "disable", "enable"]

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
        return list(_adopted)


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
) -> Enabled:
    """Make ``triton.autotune`` mean ``rlm_autotune``, for the kernels of libraries too.

    That holds for kernels that are defined from now on and for those of modules that are imported
    already: every live ``triton.runtime.autotuner.Autotuner``, and every one of a subclass that
    reaches Triton's ``run`` through ``super()``. A key that Triton tuned before keeps its
    configuration. Kernels under ``rlm_autotune`` keep their own settings. A second call takes the
    place of the first.

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
    )
    return Enabled(_switch(_Adoption(settings, names)))


def disable() -> None:
    """Give every kernel that ``enable`` took back to Triton, which knows of no choice made meanwhile.

    Without an ``enable`` before, nothing happens.
    """
    _switch(None)


_current: _Adoption | None = None
_adopted: weakref.WeakKeyDictionary[Autotuner, dict[Any, Any]] = weakref.WeakKeyDictionary()


def _switch(to: _Adoption | None) -> _Adoption | None:
    """Adopt as ``to`` says; returns what held before."""
    global _current
    with TUNING_LOCK:
        for autotuner in list(_adopted):
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
    state = vars(autotuner)
    finished = {"fn", "configs", "cache", "configs_top_k"} <= set(state)
    if isinstance(autotuner, (RLMAutotuner, PlainAutotuner)) or not finished:
        return
    if not adoption.wants(autotuner):
        return
    before = dict(state)
    before.setdefault("bench_time", 0.0)
    before.setdefault("configs_timings", {})
    _adopted[autotuner] = dict(before["cache"])
    state.clear()
    autotuner.__class__ = _ours(type(autotuner))
    autotuner._prepare(adoption.settings)
    for name, value in before.items():
        setattr(autotuner, name, value)
    autotuner._is_made = True


def _release(autotuner: Any) -> None:
    state = {**autotuner.plain_state(), "cache": _adopted.pop(autotuner)}
    autotuner.__dict__.clear()
    autotuner.__class__ = _theirs[type(autotuner)]
    autotuner.__dict__.update(state)


_theirs: dict[type, type] = {RLMAutotuner: Autotuner}


def _ours(theirs: type) -> type:
    """The class that tunes as ours and does all else as ``theirs``."""
    known = {their: our for our, their in _theirs.items()}
    if theirs in known:
        return known[theirs]
    namespace = {"__module__": theirs.__module__, "__doc__": theirs.__doc__}
    made = type(theirs.__name__, (theirs, RLMAutotuner), namespace)
    _theirs[made] = theirs
    return made
