from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr

from autotune_rlm.learn.gaussian_process import Points
from autotune_rlm.learn.transform import standardised
from autotune_rlm.networks.regression import FewShot


def rank_correlation(related: np.ndarray, truth: np.ndarray, **more) -> float:
    n = len(truth)
    points = Points(np.zeros((n, 1)), np.zeros((n, 1)), np.zeros(1, int), np.zeros(1, int))
    predictor = FewShot(points, standardised(related.mean(1)), 0.95, 3.0, related, **more)
    shots = np.arange(10)
    mean, deviation = predictor.predict(shots, truth[shots])
    assert (deviation > 0).all()
    return spearmanr(mean[10:], truth[10:]).statistic


def test_devices_that_tell_the_shots_count_for_more():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(200)
    others = rng.standard_normal((200, 8))
    alike = standardised(truth + 0.2 * rng.standard_normal(200))[:, None]
    contrary = -alike
    assert rank_correlation(np.hstack([others, alike]), truth) > 0.8
    assert rank_correlation(np.hstack([others, contrary]), truth) < 0.5  # never turned round


def test_a_lead_is_heard_beside_related_devices():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(200)
    others = np.column_stack([standardised(x) for x in rng.standard_normal((3, 200))])
    without = rank_correlation(others, truth)
    assert rank_correlation(others, truth, lead=standardised(truth)) > without + 0.3
