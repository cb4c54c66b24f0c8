"""JSON as it may be: no NaN, no infinity, an object where an object is meant, one text a value."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(value: Any) -> str:
    """The one JSON text of ``value``: sorted keys, no spaces. Raises ValueError on NaN or infinity."""
    return _CANONICAL.encode(value)


def is_json(value: Any) -> bool:
    """Whether ``value`` has such a text."""
    try:
        canonical_json(value)
    except (TypeError, ValueError):
        return False
    return True


def digest(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def is_drawn(text: str, share: float) -> bool:
    """Whether a hash of ``text`` draws it into a ``share`` of all, the same one everywhere."""
    return zlib.crc32(text.encode()) % 10_000 < share * 10_000


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not allowed in JSON here")


def strict_json(text: str) -> Any:
    """Parse JSON; raises ValueError also on NaN and infinity."""
    return json.loads(text, parse_constant=_refuse_constant)


def json_object(text: str, what: str) -> dict[str, Any]:
    """Parse a JSON object; raises ValueError that names ``what`` it should have been."""
    try:
        value = strict_json(text)
    except ValueError as error:
        raise ValueError(f"{what} must be a JSON object, got {shown(text)}: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a JSON object, got {shown(text)}")
    return value


def known_fields(cls: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``data`` the dataclass ``cls`` has fields for."""
    names = {f.name for f in dataclasses.fields(cls)}
    return {k: v for k, v in data.items() if k in names}


def shown(value: Any) -> str:
    """``value`` short enough for an error message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def plain(value: Any) -> Any:
    """``value`` with every number that JSON cannot write turned into None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def has_non_finite(value: Any) -> bool:
    """Whether ``value`` is or contains a NaN or an infinity."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(map(has_non_finite, value.values()))
    return isinstance(value, (list, tuple)) and any(map(has_non_finite, value))


def non_finite_as_text(value: Any) -> Any:
    """A copy of ``value`` in which NaN and infinities are replaced by their names."""
    if isinstance(value, Mapping):
        return {name: non_finite_as_text(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [non_finite_as_text(item) for item in value]
    return str(value) if has_non_finite(value) else value
