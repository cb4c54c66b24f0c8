"""A model fitted to a table: a leading model, the network's correction, calibrated intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune_rlm.regression._fields import FieldColumns
from autotune_rlm.regression._inputs import Asked
from autotune_rlm.regression._lead import Lead
from autotune_rlm.regression._model import CODEC, RowModel, Rows
from autotune_rlm.regression._scale import TargetScale
from autotune_rlm.regression._training import tokens_of

_TAIL = 1e-3  # share of a wide distribution in the density, so that no number is impossible
_BIN = (CODEC.high - CODEC.low) / (CODEC.bins - 1)
_STEP = 0.1  # rounding of the lead's prediction as the network's input, in standard deviations


@dataclass(frozen=True, eq=False)
class TableModel:
    """The model that ``RLM.fit`` makes, of k targets.

    ``marginal`` are probabilities of the bins, the same for all rows, (k, bins), where the network's own
    distributions are no better.
    """

    model: RowModel
    lead: Lead
    scales: tuple[TargetScale, ...]
    spread: np.ndarray  # deviations of the leading model's residuals, on the targets' scales, (k,)
    shares: np.ndarray  # of the network's correction that are used, (k,)
    widths: np.ndarray  # factors that widen its distributions to their nominal coverage, (k,)
    marginal: np.ndarray | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets, in the order in which they are decoded."""
        return self.model.targets

    def encode(self, asked: Asked) -> tuple[Rows, np.ndarray]:
        """The encoded rows, and the leading model's predictions (n, k)."""
        lead = self.lead.predict(asked.texts, asked.fields).lead
        return self.model.encode_rows(asked.texts, lead_fields(asked.fields, lead)), lead

    def quantiles(self, asked: Asked, levels: Sequence[float]) -> np.ndarray:
        """Quantiles of the numbers, (n, k, levels)."""
        rows, lead = self.encode(asked)
        p = self.histograms(rows, batch_size=asked.batch_size)
        out = np.zeros((len(lead), len(self.targets), len(levels)))
        for j, scale in enumerate(self.scales):
            middle = CODEC.quantile(p[:, j], 0.5)
            for i, level in enumerate(levels):
                at = middle if level == 0.5 else CODEC.quantile(p[:, j], level)
                out[:, j, i] = scale.from_scale(self._placed(j, lead[:, j], middle, at))
        return out

    def sample(self, asked: Asked, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers drawn from the joint distribution of the targets, (n, draws, k)."""
        rows, lead = self.encode(asked)
        p = self.histograms(rows, batch_size=asked.batch_size)
        if self.marginal is None:
            places = self.model.sample(rows, draws, rng, batch_size=asked.batch_size)
        else:
            below = np.cumsum(self.marginal, axis=1)
            u = rng.random((len(rows), draws, len(below)))
            bins = np.stack([np.searchsorted(b, u[..., j]) for j, b in enumerate(below)], axis=-1)
            places = bins + rng.uniform(-0.5, 0.5, bins.shape)
        drawn = CODEC.value_at(np.clip(places, 0, CODEC.bins - 1))
        out = np.zeros_like(drawn)
        for j, scale in enumerate(self.scales):
            middle = CODEC.quantile(p[:, j], 0.5)[:, None]
            out[..., j] = scale.from_scale(self._placed(j, lead[:, j, None], middle, drawn[..., j]))
        return out

    def log_prob(self, asked: Asked, numbers: np.ndarray) -> np.ndarray:
        """Natural logarithm of the joint density of numbers (n, k); NaN does not count. Shape (n,)."""
        rows, lead = self.encode(asked)
        z = np.column_stack([s.to_scale(numbers[:, j]) for j, s in enumerate(self.scales)])
        tokens = tokens_of(CODEC.position((z - lead) / self.spread))
        p = self.histograms(rows, batch_size=asked.batch_size, known=tokens)
        total = np.zeros(len(z))
        for j, scale in enumerate(self.scales):
            middle = CODEC.quantile(p[:, j], 0.5)
            r = (z[:, j] - lead[:, j]) / self.spread[j]
            r = middle + (r - self.shares[j] * middle) / self.widths[j]
            place = CODEC.position(np.nan_to_num(r))
            inside = p[np.arange(len(p)), j, np.rint(place).astype(int)] / _BIN
            inside = np.where(np.abs(r) <= CODEC.high, inside, 0.0)
            density = (1 - _TAIL) * inside + _TAIL / (np.pi * (1 + r**2))
            change = scale.log_slope(numbers[:, j]) - np.log(self.spread[j] * self.widths[j])
            total += np.where(np.isnan(numbers[:, j]), 0.0, np.log(density) + change)
        return total

    def histograms(
        self, rows: Rows, *, batch_size: int = 64, known: np.ndarray | None = None
    ) -> np.ndarray:
        """Probabilities of the bins of the leading model's residuals, (n, k, bins)."""
        if self.marginal is not None:
            return np.broadcast_to(self.marginal, (len(rows), *self.marginal.shape))
        return self.model.histograms(rows, batch_size=batch_size, known=known)

    def _placed(self, j: int, lead: np.ndarray, middle: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Places on the target's scale of residuals ``at`` whose median is ``middle``."""
        moved = self.shares[j] * middle + self.widths[j] * (at - middle)
        return lead + self.spread[j] * moved

    def to_json(self) -> dict[str, Any]:
        """Everything but arrays."""
        return {
            "targets": list(self.targets),
            "max_tokens": self.model.max_tokens,
            "scales": [s.to_json() for s in self.scales],
            "columns": self.lead.columns.to_json(),
            "spread": self.spread.tolist(),
            "shares": self.shares.tolist(),
            "widths": self.widths.tolist(),
            "marginal": None if self.marginal is None else self.marginal.tolist(),
        }

    @classmethod
    def from_json(
        cls, data: Mapping[str, Any], arrays: Mapping[str, np.ndarray], model: RowModel
    ) -> TableModel:
        """The inverse of ``to_json`` and ``lead.arrays``."""
        return cls(
            model=model,
            lead=Lead.from_arrays(arrays, FieldColumns.from_json(data["columns"])),
            scales=tuple(TargetScale.from_json(s) for s in data["scales"]),
            spread=np.array(data["spread"]),
            shares=np.array(data["shares"]),
            widths=np.array(data["widths"]),
            marginal=None if data["marginal"] is None else np.array(data["marginal"]),
        )


def lead_fields(fields: Sequence[Mapping[str, Any]], lead: np.ndarray) -> list[dict[str, Any]]:
    """The fields with the lead's predictions (n, k) as numbers whose base-2 logarithms they are."""
    rounded = np.round(np.clip(lead, -8, 8) / _STEP) * _STEP
    powers = np.exp2(rounded).tolist()
    return [
        {**row, **{f"lead.{j}": x for j, x in enumerate(numbers)}}
        for row, numbers in zip(fields, powers, strict=True)
    ]
