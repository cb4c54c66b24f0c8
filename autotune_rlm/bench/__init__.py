"""The harness: tuning methods compared on recorded landscapes."""

from autotune_rlm.bench._method import Method, NotApplicableError, Search, Stepwise
from autotune_rlm.bench._plots import plot_measurements, plot_time
from autotune_rlm.bench._results import results_json, summarize
from autotune_rlm.bench._time import REACHES, reach_table, seconds_to_reach
from autotune_rlm.bench.kernels import Bench, Run, Skipped, pick_landscapes, run, run_search
from autotune_rlm.bench.registry import METHODS

__all__ = [
    "METHODS",
    "REACHES",
    "Bench",
    "Method",
    "NotApplicableError",
    "Run",
    "Search",
    "Skipped",
    "Stepwise",
    "pick_landscapes",
    "plot_measurements",
    "plot_time",
    "reach_table",
    "results_json",
    "run",
    "run_search",
    "seconds_to_reach",
    "summarize",
]
