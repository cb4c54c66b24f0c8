"""Whether Triton interprets kernels, and making it so for a while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_NAME = "TRITON_INTERPRET"


def interpreting() -> bool:
    """Whether kernels decorated now run in Triton's interpreter."""
    return os.environ.get(_NAME, "0").lower() in ("1", "true", "on", "yes")


@contextlib.contextmanager
def interpreted(on: bool = True) -> Iterator[None]:
    """Kernels decorated and processes started within are interpreted, or with False compiled."""
    before = os.environ.get(_NAME)
    os.environ[_NAME] = "1" if on else "0"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_NAME, None)
        else:
            os.environ[_NAME] = before
