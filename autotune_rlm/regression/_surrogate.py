"""The package's own model as a predictor of numbers for single texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import norm

from autotune_rlm.regression._inputs import Asked
from autotune_rlm.surrogate.checkpoint import Checkpoint
from autotune_rlm.surrogate.rlm import RLMSurrogate
from autotune_rlm.types import Candidate, Device, Prediction, Task

_MAIN = ("python", "peak_bytes")
_Z90 = float(norm.ppf(0.95))


class SurrogateModel:
    """One metric of texts in one language, each text a candidate; by default the first it learned."""

    def __init__(
        self, checkpoint: Checkpoint, *, metric: str | None = None, language: str | None = None
    ) -> None:
        self._surrogate = RLMSurrogate(checkpoint)
        learned = learned_of_texts(checkpoint)
        metrics = list(dict.fromkeys(m for _, m in learned))
        if metric is not None and learned and metric not in metrics:
            raise ValueError(f"metric must be one of {metrics}, got {metric!r}")
        metric = metric or next(iter(metrics), "time_ms")
        languages = [name for name, m in learned if m == metric]
        if language is not None and languages and language not in languages:
            raise ValueError(f"language must be one of {languages} for {metric}, got {language!r}")
        self._task = Task(
            kernel="program",
            device=Device(name=""),
            language=language or next(iter(languages), "text"),
            metric=metric,
        )

    @property
    def targets(self) -> tuple[str, ...]:
        """The metric."""
        return (self._task.metric,)

    def quantiles(self, asked: Asked, levels: Sequence[float]) -> np.ndarray:
        """Quantiles of the numbers, (n, 1, levels)."""
        prediction = self._ask(asked)
        at = [_placed(prediction, np.full(len(prediction), norm.ppf(q))) for q in levels]
        return np.stack(at, axis=-1)[:, None] if at else np.zeros((len(prediction), 1, 0))

    def sample(self, asked: Asked, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers drawn from the distributions, (n, draws, 1)."""
        prediction = self._ask(asked)
        drawn = [_placed(prediction, rng.standard_normal(len(prediction))) for _ in range(draws)]
        return np.stack(drawn, axis=1)[..., None]

    def log_prob(self, asked: Asked, numbers: np.ndarray) -> np.ndarray:
        """Natural logarithm of the density of numbers (n, 1), shape (n,)."""
        prediction = self._ask(asked)
        value, (low, middle, high) = numbers[:, 0], _ends(prediction)
        scaled = np.log(np.maximum(value, 1e-300)) if prediction.log_scale else value
        side = np.where(scaled < middle, middle - low, high - middle) / _Z90
        side = np.maximum(side, 1e-12)
        total = 0.5 * (high - low) / _Z90  # the two halves join as one density
        density = norm.logpdf((scaled - middle) / side) - np.log(np.maximum(total, 1e-12))
        if prediction.log_scale:
            density = np.where(value > 0, density - np.log(np.maximum(value, 1e-300)), -np.inf)
        return density

    def _ask(self, asked: Asked) -> Prediction:
        pairs = zip(asked.texts, asked.fields, strict=True)
        candidates = [Candidate(fields, text=text) for text, fields in pairs]
        return self._surrogate.predict(self._task, candidates)


def learned_of_texts(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Languages and metrics of which a checkpoint learned absolute numbers, its main ones first."""
    pairs: dict[tuple[str, str], None] = {}
    if checkpoint.program_eye is not None:
        for metric, fitted in checkpoint.program_eye.metrics.items():
            pairs |= {(language, metric): None for language in fitted.languages}
    texts, numbers = (checkpoint.settings.get(name) for name in ("texts", "numbers"))
    for pair in texts if isinstance(texts, list) else []:
        if isinstance(numbers, Mapping) and pair[1] in numbers:
            pairs[pair[0], pair[1]] = None
    return sorted(pairs, key=lambda pair: (pair != _MAIN, pair[1], pair[0]))


def _ends(prediction: Prediction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends = (prediction.low, prediction.median, prediction.high)
    if not prediction.log_scale:
        return ends
    low, middle, high = (np.log(np.maximum(x, 1e-300)) for x in ends)
    return low, middle, high


def _placed(prediction: Prediction, deviations: np.ndarray) -> np.ndarray:
    """Numbers as many standard deviations from the median, of the side on which they lie."""
    low, middle, high = _ends(prediction)
    side = np.where(deviations < 0, middle - low, high - middle) / _Z90
    at = middle + deviations * side
    return np.exp(np.minimum(at, 700.0)) if prediction.log_scale else at
