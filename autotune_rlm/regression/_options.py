"""Options of ``RLM.fit``, checked before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from autotune_rlm._checks import check_number


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Arguments of ``RLM`` that its ``fit`` works by; see there."""

    minutes: float = 3.0
    held_out: float = 0.2
    patience: int = 8
    batch_size: int = 48
    lr: float = 5e-4
    max_tokens: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("held_out", self.held_out, above=0, below=0.8)
        check_number("minutes", self.minutes, least=0)
        check_number("lr", self.lr, above=0)
        check_number("seed", self.seed, least=0, whole=True)
        for name in ("patience", "batch_size", "max_tokens"):
            check_number(name, getattr(self, name), least=1, whole=True)
