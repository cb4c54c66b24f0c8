"""The one table of data types: Triton's short names, torch's names, sizes, and other spellings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Dtype(NamedTuple):
    """A data type, by Triton's short name (in tasks and records), torch's and others."""

    name: str
    torch: str
    bytes: int
    spellings: tuple[str, ...] = ()


_TABLE = (
    Dtype("fp64", "float64", 8, ("f64", "double")),
    Dtype("fp32", "float32", 4, ("f32", "float", "tf32")),
    Dtype("fp16", "float16", 2, ("f16", "half")),
    Dtype("bf16", "bfloat16", 2),
    Dtype("fp8e4nv", "float8_e4m3fn", 1, ("float8e4nv", "fp8e4", "fp8", "f8e4m3")),
    Dtype("fp8e4b8", "float8_e4m3fnuz", 1, ("float8e4b8",)),
    Dtype("fp8e5", "float8_e5m2", 1, ("float8e5", "f8e5m2")),
    Dtype("fp8e5b16", "float8_e5m2fnuz", 1, ("float8e5b16",)),
    Dtype("i1", "bool", 1, ("int1",)),
    *(Dtype(f"i{bits}", f"int{bits}", bits // 8) for bits in (8, 16, 32, 64)),
    *(Dtype(f"u{bits}", f"uint{bits}", bits // 8) for bits in (8, 16, 32, 64)),
)
_BY_NAME: Mapping[str, Dtype] = {
    name: dtype for dtype in _TABLE for name in (dtype.name, dtype.torch, *dtype.spellings)
}

TORCH_NAMES: Mapping[str, str] = {dtype.name: dtype.torch for dtype in _TABLE}
"""torch's name of each dtype."""


def short_name(name: str) -> str | None:
    """Triton's short name of a dtype in any spelling, such as ``"torch.float16"``; None for others."""
    known = _BY_NAME.get(name.rpartition(".")[2].removeprefix("*").lower())
    return None if known is None else known.name


def dtype_name(dtype: Any) -> str:
    """Triton's short name of a dtype: ``torch.float16`` and ``tl.float16`` are ``"fp16"``."""
    name = str(dtype)
    return short_name(name) or name.rpartition(".")[2]


def dtype_bytes(name: str, otherwise: int = 4) -> int:
    """Bytes of one element of a dtype in any spelling; ``otherwise`` where it is not known."""
    known = _BY_NAME.get(name.rpartition(".")[2].removeprefix("*").lower())
    return otherwise if known is None else known.bytes
