"""Errors of a search that programs catch as Triton's own."""

from __future__ import annotations

from triton.runtime import errors as _triton

from autotune_rlm.search.tuner import TuningError

_AutotunerError = getattr(_triton, "AutotunerError", Exception)


class KernelTuningError(TuningError, _AutotunerError):  # type: ignore[misc, valid-type]
    """No configuration of a kernel worked, for several reasons; also Triton's ``AutotunerError``."""

    def __init__(self, error_message: str = "") -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        return self.error_message


class NothingLeftError(KernelTuningError, ValueError):
    """``early_config_prune`` kept no configuration."""
