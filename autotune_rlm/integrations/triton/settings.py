"""How an autotuner of ours searches: arguments of the decorator, overridden by the environment."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autotune_rlm._checks import check_number, check_surrogate, check_type
from autotune_rlm.search.tuner import resolve_budget
from autotune_rlm.store import Store
from autotune_rlm.store.config_file import read_configs
from autotune_rlm.types import Device

MODES = ("tune", "predict", "full")
_PREFIX = "AUTOTUNE_RLM_"
_NO = ("", "0", "false", "no", "off")
_YES = ("1", "true", "yes", "on")
_SMALL_LIST = 8
_MAX_BY_DEFAULT = 32


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``rlm_autotune`` adds to ``triton.autotune``; see there.

    Raises:
        FileNotFoundError: A file of ``configs_from`` is not there.
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of range, or a file is not of its format.
    """

    budget: int | float | None = None
    budget_s: float | None = None
    mode: str = "tune"
    surrogate: Any = None
    store: Any = None
    device: Device | str | None = None
    seed: int = 0
    configs_from: Any = None
    isolate: bool = False
    check: str | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        resolve_budget(self.budget, 1)
        check_number("budget_s", self.budget_s, above=0, none=True)
        check_number("seed", self.seed, least=0, whole=True)
        if self.store is not None and self.store is not False:
            check_type("store", self.store, str, os.PathLike, Store)
        if self.surrogate is not None:
            check_surrogate(self.surrogate)
        read_configs(self.configs_from)
        if self.check not in (None, "default"):
            raise ValueError(f"check must be None or 'default', got {self.check!r}")
        for name in ("isolate", "quiet"):
            check_type(name, getattr(self, name), bool)
        check_type("device", self.device, Device, str, type(None))

    def with_environment(self) -> Settings:
        """These settings with every ``AUTOTUNE_RLM_*`` variable in place of its argument.

        Raises:
            ValueError: A variable does not hold what its argument takes; the message names it.
        """
        given: dict[str, Any] = {}
        for name, read in _READERS.items():
            text = os.environ.get(_PREFIX + name.upper(), "").strip()
            if text:
                try:
                    given[name] = read(text)
                    dataclasses.replace(self, **{name: given[name]})
                except (ValueError, OSError) as error:
                    raise ValueError(
                        f"the environment variable {_PREFIX}{name.upper()}={text!r}: {error}"
                    ) from None
        return dataclasses.replace(self, **given) if given else self

    def measurements(self, n: int, *, near: bool = False) -> int:
        """How many of ``n`` configurations may be measured.

        Without a budget: all of up to 8, a quarter of more, between 8 and 32; half of that, at
        least 4, where a near problem is known.

        Args:
            n: Configurations there are.
            near: Whether another problem of the same kernel was measured on this device.
        """
        if self.mode == "full":
            return n
        if self.budget is not None:
            return resolve_budget(self.budget, n)
        few = max(_SMALL_LIST, min(_MAX_BY_DEFAULT, -(-n // 4)))
        return n if n <= _SMALL_LIST else min(n, few // 2 if near else few)

    def for_readers(self, n: int) -> int:
        """How many of ``n`` configurations those get who ask for what a search would measure.

        With ``mode="predict"`` that is one, the choice.
        """
        return 1 if self.mode == "predict" else self.measurements(n)


def is_disabled() -> bool:
    """Whether ``AUTOTUNE_RLM_DISABLE`` asks for Triton's own autotuner."""
    return os.environ.get(_PREFIX + "DISABLE", "").strip().lower() not in _NO


def _flag(text: str) -> bool:
    if text.lower() not in (*_NO, *_YES):
        raise ValueError("must be 1 or 0")
    return text.lower() in _YES


def _number(text: str) -> int | float:
    return float(text) if any(c in text for c in ".eE") else int(text)


def _store(text: str) -> str | bool:
    from autotune_rlm.store import means_none

    return False if means_none(text) else text


_READERS: dict[str, Callable[[str], Any]] = {
    "budget": _number,
    "budget_s": float,
    "mode": str.lower,
    "surrogate": str,
    "store": _store,
    "configs_from": str,
    "isolate": _flag,
    "check": str.lower,
    "quiet": _flag,
}
