"""Timing statistics: when a median is known well enough, which of several is faster, the timers."""

from .intervals import Interval, RaceResult, StoppingRule, is_hopeless, median_interval, race

__all__ = ["Interval", "RaceResult", "StoppingRule", "is_hopeless", "median_interval", "race"]
