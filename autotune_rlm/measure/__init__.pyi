from .detect import current_device, device_state
from .errors import Fault, classify
from .onnxruntime import OnnxRuntimeMeasurer, OnnxRuntimeSettings, OpenVinoMeasurer
from .pace import PacedMeasurer
from .replay import ReplayMeasurer
from .statistics import StoppingRule, is_hopeless, median_interval, race
from .statistics.device_timers import EventTimer, GraphTimer
from .statistics.timing import Call, Timing, WallTimer, default_timer, measure_call, race_calls
from .triton.capture import describe_call
from .triton.compile import CompilePool, CompileResult, CompileSpec, parse_target
from .triton.correctness import disagreement
from .triton.in_process import TritonMeasurer
from .triton.isolated import IsolatedMeasurer, Workload
from .triton.job import Bench, BenchSettings, Job
from .triton.kernel_call import KernelCall, describe_launch

__all__ = [
    "Bench",
    "BenchSettings",
    "Call",
    "CompilePool",
    "CompileResult",
    "CompileSpec",
    "EventTimer",
    "Fault",
    "GraphTimer",
    "IsolatedMeasurer",
    "Job",
    "KernelCall",
    "OnnxRuntimeMeasurer",
    "OnnxRuntimeSettings",
    "OpenVinoMeasurer",
    "PacedMeasurer",
    "ReplayMeasurer",
    "StoppingRule",
    "Timing",
    "TritonMeasurer",
    "WallTimer",
    "Workload",
    "classify",
    "current_device",
    "default_timer",
    "describe_call",
    "describe_launch",
    "device_state",
    "disagreement",
    "is_hopeless",
    "measure_call",
    "median_interval",
    "parse_target",
    "race",
    "race_calls",
]
