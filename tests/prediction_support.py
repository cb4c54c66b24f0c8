"""What stand-ins for a surrogate answer."""

import numpy as np

from autotune_rlm.types import Prediction


def around(task, median, *, factor=1.1, spread=0.1, **more):
    """A prediction of n medians whose intervals reach a factor below and above."""
    ones = np.ones(len(median))
    return Prediction(
        metric=task.metric,
        median=median,
        low=median / factor,
        high=median * factor,
        spread=spread * ones,
        p_valid=ones,
        **more,
    )
