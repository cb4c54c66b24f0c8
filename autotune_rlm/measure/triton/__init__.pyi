from .in_process import TritonMeasurer
from .isolated import IsolatedMeasurer, Workload

__all__ = ["IsolatedMeasurer", "TritonMeasurer", "Workload"]
