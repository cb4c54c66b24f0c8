"""Whether a candidate's outputs are right: compared with a reference, with tolerances by dtype.

A candidate sums in another order, so its outputs differ by rounding. Differences are judged
relative to the size of the expected values (their root mean square) and of each single one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import one_line

__all__ = ["TOLERANCES", "disagreement", "snapshot"]

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

    Args:
        outputs: Tensors by name; those that ``expected`` does not name are ignored.
        expected: Tensors by name; a higher precision than that of the output is welcome.
        rtol: Relative tolerance; None for that of the output's dtype in ``TOLERANCES``.
        atol: Absolute tolerance; None for ``rtol`` times the root mean square of the expected
            values.
    """
    import torch

    for name, want in expected.items():
        got = outputs.get(name)
        if got is None:
            return f"{name}: there is no such output"
        if got.shape != want.shape:
            return f"{name}: shape {tuple(got.shape)} where {tuple(want.shape)} is right"
        if not got.numel():
            continue
        relative = _relative(got.dtype) if rtol is None else rtol
        if relative == 0.0 and not atol:
            wrong = got != want.to(got.device)
            worst = ""
        else:
            wide = torch.complex128 if got.dtype.is_complex else torch.float64
            a, b = got.to(wide), want.to(got.device).to(wide)
            size = b[torch.isfinite(b)].abs().square().mean().sqrt().item() if b.numel() else 0.0
            absolute = relative * (0.0 if size != size else size) if atol is None else atol
            wrong = ~torch.isclose(a, b, rtol=relative, atol=absolute, equal_nan=True)
            difference = (a - b).abs()[wrong].nan_to_num(float("inf"))
            worst = f", by up to {difference.max().item():.3g}" if difference.numel() else ""
        if bool(wrong.any()):
            share = wrong.double().mean().item()
            return one_line(f"{name}: {share:.2%} of the elements are wrong{worst}")
    return None


def _relative(dtype: Any) -> float:
    name = str(dtype).removeprefix("torch.")
    return TOLERANCES.get(name, TOLERANCES["float8"] if name.startswith("float8") else 0.0)
