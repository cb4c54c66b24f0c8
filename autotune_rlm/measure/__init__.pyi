from .capture import describe_call
from .compile import (
    CompilePool,
    CompileResult,
    CompileSpec,
    parse_target,
)
from .correctness import disagreement
from .detect import current_device, device_state
from .device_timers import EventTimer, GraphTimer
from .errors import Fault, classify
from .job import Bench, BenchSettings, Job
from .kernel_call import KernelCall, note_launch
from .onnxruntime import (
    OnnxRuntimeMeasurer,
    OnnxRuntimeSettings,
    OpenVinoMeasurer,
)
from .pace import PacedMeasurer
from .replay import ReplayMeasurer
from .statistics import (
    StoppingRule,
    is_hopeless,
    median_interval,
    race,
)
from .timing import (
    Call,
    Timing,
    WallTimer,
    default_timer,
    measure_call,
    race_calls,
)
from .triton import TritonMeasurer
from .worker import IsolatedMeasurer, Workload

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
    "device_state",
    "disagreement",
    "is_hopeless",
    "measure_call",
    "median_interval",
    "note_launch",
    "parse_target",
    "race",
    "race_calls",
]
