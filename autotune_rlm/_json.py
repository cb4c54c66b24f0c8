"""JSON as it may be: no NaN, no infinity, an object where an object is meant."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["json_object", "plain", "shown", "strict_json"]


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
