"""Whether a candidate's outputs are right: compared with a reference, element by element.

A candidate sums in another order, so its outputs differ by rounding: relative to each element, and,
where an element is small because large terms cancel, relative to what is usual around it. That is a size
of its row times one of its column, as in a product of matrices, both told by medians: a few large
elements, a large row or a mask value hide nothing elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune_rlm.measure.errors import one_line

TOLERANCES: Mapping[str, float] = {
    "float64": 1e-8,
    "float32": 2e-3,  # leaves room for TF32 products
    "float16": 1e-2,
    "bfloat16": 4e-2,
    "float8": 2e-1,
    "complex64": 2e-3,
    "complex128": 1e-8,
}
"""Relative tolerance by dtype; integers and booleans must be equal."""

_CHUNK = 1 << 19  # elements that are compared at a time: a few MiB of temporary memory
_SAMPLE = 1 << 16  # elements from which mask values and the usual size are told
_LINE = 64  # elements of a row or column from which its usual size is told
_BLOCK = 256  # length of a row where the tensor has none
_CONSTANT = 1 / 16  # a value with this share is a mask or padding: of fp8, any other has less
_FAR = 1e3  # so many times the usual size is a mask value, if it occurs twice
_MIN_COUNT = 16  # elements without which a row or column has no usual size of its own
_ROOM = 2.0  # 1.48 medians are a normal deviation, and medians of few elements are inexact
_MIN_VALUE = 1 / 16  # of the whole's usual size: what is usual in a row that cancels altogether


def snapshot(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Copies of the tensors in ``outputs``; other values are left out."""
    return {
        name: value.detach().clone()
        for name, value in outputs.items()
        if hasattr(value, "detach") and hasattr(value, "dtype")
    }


def disagreement(
    outputs: Mapping[str, Any],
    expected: Mapping[str, Any],
    *,
    rtol: float | None = None,
    atol: float | None = None,
) -> str | None:
    """One line on where ``outputs`` are wrong, or None where they agree with ``expected``.

    Tensors are compared piece by piece: the memory that it takes does not grow with them.

    Args:
        outputs: Tensors by name; those that ``expected`` does not name are ignored.
        expected: Tensors by name; a higher precision than that of the output is welcome.
        rtol: Relative tolerance; None for that of the output's dtype in ``TOLERANCES``.
        atol: Absolute tolerance; None for ``rtol`` times what is usual around the element, mask
            values (constants that fill a part of the tensor or lie far from all others) left out.
    """
    for name, want in expected.items():
        got = outputs.get(name)
        if got is None:
            return f"{name}: there is no such output"
        if got.shape != want.shape:
            return f"{name}: shape {tuple(got.shape)} where {tuple(want.shape)} is right"
        if not got.numel():
            continue
        relative = _relative(got.dtype) if rtol is None else rtol
        wrong, worst = _compared(got, want, relative, atol)
        if wrong:
            by = f", by up to {worst:.3g}" if worst else ""
            return one_line(f"{name}: {wrong / got.numel():.2%} of the elements are wrong{by}")
    return None


def _compared(got: Any, want: Any, rtol: float, atol: float | None) -> tuple[int, float]:
    """How many elements are wrong, and by how much at most."""
    want = want.to(got.device)
    exact = rtol == 0.0 and not atol
    wide = _wide(got.dtype, want.dtype)
    usual = _Usual.of(want, wide) if atol is None and not exact else None
    found = [
        _differing(a, b, rtol, atol or 0.0, None if exact else wide, usual)
        for a, b in zip(_matrices(got), _matrices(want), strict=True)
    ]
    return sum(int(count) for count, _ in found), max(float(worst) for _, worst in found)


def _differing(
    got: Any, want: Any, rtol: float, atol: float, wide: Any, usual: _Usual | None
) -> tuple[Any, Any]:
    import torch

    count = torch.zeros((), dtype=torch.int64, device=got.device)
    worst = torch.zeros((), dtype=torch.float32, device=got.device)
    rows, columns = usual.around(want) if usual is not None and usual.whole else (None, None)
    for piece in _pieces(want):
        a, b = got[piece], want[piece]
        if wide is None:
            count += (a != b).sum()
            continue
        a, b = a.to(wide), b.to(wide)
        allowed = b.abs().mul_(rtol)
        if usual is None:
            allowed += atol
        elif rows is not None and columns is not None:
            around = rows[piece, None] * columns[None, :]
            allowed += around.clamp_min_(_MIN_VALUE * usual.whole).mul_(_ROOM * rtol)
        away = (a - b).abs()
        same = (a == b) | (a.isnan() & b.isnan())  # the difference of infinities is NaN
        wrong = ~(same | ((away <= allowed) & b.isfinite()))
        count += wrong.sum()
        away.nan_to_num_(float("inf")).masked_fill_(~wrong, 0.0)
        worst = torch.maximum(worst, away.max().float())
    return count, worst


@dataclass(frozen=True)
class _Usual:
    """What size of an element is usual, zeros, mask values and what is not finite left out."""

    whole: float  # median of the absolute values; 0.0 where all are zero
    masks: tuple[float, ...]  # constants that fill a part of the tensor or lie far off
    wide: Any  # the dtype to compute in

    @classmethod
    def of(cls, want: Any, wide: Any) -> _Usual:
        """Of a tensor, told from a sample of it."""
        some = _spread(want.reshape(-1), _SAMPLE).to(wide)
        some = some[some.isfinite() & (some != 0)]
        if not len(some):
            return cls(0.0, (), wide)
        if some.is_complex():
            return cls(float(some.abs().median()), (), wide)
        values, counts = some.unique(return_counts=True)
        often = (counts > 1) & (counts > _CONSTANT * len(some))
        ordinary = _without(some, values[often].tolist())
        if ordinary.isnan().all():
            return cls(float(values.abs().min()), tuple(values.tolist()), wide)
        middle = float(ordinary.nanmedian())
        masks = values[often | ((counts > 1) & (values.abs() > _FAR * middle))]
        return cls(middle, tuple(masks.tolist()), wide)

    def around(self, matrix: Any) -> tuple[Any, Any]:
        """Sizes of the rows and the columns of a matrix; their product is usual at an element.

        They are told from some columns and rows, by Tukey's median polish of the logarithms (Tukey,
        Exploratory Data Analysis, 1977, ch. 11).
        """
        middle = math.log(self.whole)
        high, wide = _spread(matrix.T, _LINE).T, _spread(matrix, _LINE)
        core = _spread(high, _LINE)
        columns = self._effects(core.T, None, middle)
        rows = self._effects(core, columns, 0.0)
        columns = self._effects(core.T, rows, middle)
        return (
            self._effects(high, columns, 0.0).exp_(),
            self._effects(wide.T, rows, middle).exp_(),
        )

    def _effects(self, matrix: Any, others: Any, default: float) -> Any:
        """Median logarithm of each row after the ``others`` of the columns; shape (rows,)."""
        import torch

        found = []
        for piece in _pieces(matrix):
            logs = _without(matrix[piece].to(self.wide), self.masks).log_()
            if others is not None:
                logs -= others
            few = (~logs.isnan()).sum(1) < _MIN_COUNT
            found.append(logs.nanmedian(1).values.masked_fill_(few, default))
        return torch.cat(found)


def _without(values: Any, masks: Sequence[float]) -> Any:
    """Absolute values with NaN in place of zeros, masks and what is not finite."""
    leave = (values == 0) | ~values.isfinite()
    for mask in masks:
        leave |= values == mask
    return values.abs().masked_fill_(leave, float("nan"))


def _matrices(tensor: Any) -> list[Any]:
    """As a matrix of the last dimension's rows, or where these are no rows, of blocks and a rest."""
    if tensor.dim() > 1 and _MIN_COUNT <= tensor.shape[-1] <= _CHUNK:
        return [tensor.reshape(-1, tensor.shape[-1])]
    flat = tensor.reshape(-1)
    whole = len(flat) // _BLOCK * _BLOCK
    parts = [flat[:whole].view(-1, _BLOCK), flat[whole:].view(1, -1)]
    return [part for part in parts if part.numel()]


def _spread(tensor: Any, most: int) -> Any:
    """At most ``most`` entries of the first dimension, evenly spread."""
    return tensor[:: -(-len(tensor) // most)]


def _pieces(matrix: Any) -> Iterator[slice]:
    size = max(1, _CHUNK // max(1, matrix.shape[1]))
    for start in range(0, len(matrix), size):
        yield slice(start, start + size)


def _wide(*dtypes: Any) -> Any:
    """The dtype to compare in: that of the most precise one, fp32 at least."""
    import torch

    double = any(d in (torch.float64, torch.complex128) for d in dtypes) or not any(
        d.is_floating_point or d.is_complex for d in dtypes
    )
    if any(d.is_complex for d in dtypes):
        return torch.complex128 if double else torch.complex64
    return torch.float64 if double else torch.float32


def _relative(dtype: Any) -> float:
    name = str(dtype).removeprefix("torch.")
    return TOLERANCES.get(name, TOLERANCES["float8"] if name.startswith("float8") else 0.0)
