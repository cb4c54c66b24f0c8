from .in_process import TritonMeasurer
from .isolated import Fleet, IsolatedMeasurer, Workload

__all__ = ["Fleet", "IsolatedMeasurer", "TritonMeasurer", "Workload"]
