"""Checks of arguments: a wrong type or a number out of range is an error that names the argument."""

from __future__ import annotations

import contextlib
import math
import numbers
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    whole: bool = False,
    none: bool = False,
) -> None:
    """A number from ``least`` to ``most``, ``above`` and ``below`` limits that it must not reach."""
    if value is None and none:
        return
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
        what = "a whole number" if whole else "a number"
        raise TypeError(f"{name} must be {what}{' or None' if none else ''}, got {value!r}")
    limits = {"at least": least, "above": above, "at most": most, "below": below}
    fits = {
        "at least": lambda limit: value >= limit,
        "above": lambda limit: value > limit,
        "at most": lambda limit: value <= limit,
        "below": lambda limit: value < limit,
    }
    given = {word: limit for word, limit in limits.items() if limit is not None}
    if math.isnan(value) or not all(fits[word](limit) for word, limit in given.items()):
        wanted = " and ".join(f"{word} {limit:g}" for word, limit in given.items()) or "a number"
        raise ValueError(f"{name} must be {wanted}{' or None' if none else ''}, got {value!r}")


def check_type(name: str, value: Any, *kinds: type, hint: str = "") -> None:
    """A value of one of these classes, else TypeError."""
    if not isinstance(value, kinds):
        wanted = " or ".join("None" if k is type(None) else k.__name__ for k in kinds)
        article = "an" if wanted[0] in "AEIOaeio" else "a"
        raise TypeError(f"{name} must be {article} {wanted}, got {value!r}{hint and f': {hint}'}")


def check_path(name: str, value: Any) -> Path:
    """The path that a text or a path object names, else TypeError."""
    check_type(name, value, str, os.PathLike)
    return Path(value)


def check_all(name: str, values: Iterable[Any], kind: type, hint: str = "") -> None:
    """Several values of one class, not a single text, else TypeError."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of {kind.__name__}, got {values!r}")
    values = list(values)
    if not all(issubclass(each, kind) for each in set(map(type, values))):
        wrong = next(value for value in values if not isinstance(value, kind))
        check_type(f"each of {name}", wrong, kind, hint=hint)


def check_surrogate(given: Any) -> None:
    """A surrogate, or the name or folder of one that is there, else ValueError; loads nothing."""
    if not isinstance(given, (str, os.PathLike)):
        if not callable(getattr(given, "predict", None)):
            raise TypeError(f"surrogate must be a surrogate, its name or its folder, got {given!r}")
        return
    weights = Path(__file__).parent / "surrogate" / "weights"
    if not any((folder / given / "config.json").is_file() for folder in (weights, Path())):
        bundled = ", ".join(sorted(p.parent.name for p in weights.glob("*/config.json")))
        raise ValueError(
            f"surrogate: there is no folder {os.fspath(given)} with a config.json; bundled ones are: "
            f"{bundled or 'none'}"
        )


@contextlib.contextmanager
def of_extra(extra: str, what: str) -> Iterator[None]:
    """Imports of packages that an extra brings; ImportError says how ``what`` gets it."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{error}; {what} needs the extra: pip install 'autotune-rlm[{extra}]'"
        ) from error
