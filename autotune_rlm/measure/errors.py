"""One table that says what every exception of Triton, ptxas, the driver, torch and Python means.

``classify`` turns an exception into a ``Fault``: whom it belongs to, the ``Status`` of the candidate,
one line of reason, and whether the process that raised it can still be used. After a *sticky* error
(an illegal address, a launch failure) every later call into the driver fails: the process has to be
replaced.

| owner | what it is | what becomes of it |
| --- | --- | --- |
| binary | it does not compile, or needs more than the device has | kept |
| launch | illegal access, time-out, crash, wrong result | kept with its time, tried again a day later |
| caller | the user's own functions and arguments | raised as it is, never kept |
| machine | memory full for a moment, busy, no driver, disk full | waited for, then skipped, never kept |

What belongs to the caller or the machine has the status ``skipped``: the candidate was never tried, and
nothing must be learned from it.

Neither torch nor triton is imported: classes are recognised by their qualified names.
"""

from __future__ import annotations

import re
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from ..types import Measurement, Observation, Status

Stage = Literal["compile", "run", "call"]
_MAX_REASON = 240
_RETRY_S = 24 * 3600.0
"""Seconds after which a failed launch is tried again: a day, in which drivers and data change."""


class Owner(str, Enum):
    """Whom a failure belongs to."""

    BINARY = "binary"
    LAUNCH = "launch"
    CALLER = "caller"
    MACHINE = "machine"


class WorkloadError(RuntimeError):
    """What makes the candidates of a workload failed, before any of them ran."""


@dataclass(frozen=True)
class Fault:
    """What an exception means.

    Attributes:
        status: The candidate's status.
        reason: One line.
        poisoned: Whether the process can measure nothing any more.
        owner: Whom it belongs to.
        passes: Whether it may be over in a moment, such as a full memory or a busy device.
    """

    status: Status
    reason: str
    poisoned: bool = False
    owner: Owner = Owner.LAUNCH
    passes: bool = False

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "status": self.status.value,
            "reason": self.reason,
            "poisoned": self.poisoned,
            "owner": self.owner.value,
            "passes": self.passes,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fault:
        """The inverse of ``to_json``."""
        return cls(**{**data, "status": Status(data["status"]), "owner": Owner(data["owner"])})


def failed(fault: Fault, **fields: Any) -> Measurement:
    """The measurement of a candidate that failed so; ``fields`` are its other attributes.

    Its ``state`` tells when, by which ``remembered`` knows what is to be tried again.
    """
    state = {**fields.pop("state", {}), "when": round(time.time(), 3)}
    return Measurement(status=fault.status, reason=fault.reason, state=state, **fields)


def owner_of(status: Status) -> Owner | None:
    """Whom a stored failure belongs to; None where nothing failed or nothing was tried."""
    if status.is_of_the_binary:
        return Owner.BINARY
    return Owner.LAUNCH if status.is_failure else None


def remembered(observations: Iterable[Observation]) -> list[Observation]:
    """What a search may take for known: no candidate that was skipped, no old failure of a launch."""
    oldest = time.time() - _RETRY_S
    return [
        o
        for o in observations
        if o.measurement.status is not Status.SKIPPED
        and (
            owner_of(o.measurement.status) is not Owner.LAUNCH
            or float(o.measurement.state.get("when", 0.0)) > oldest
        )
    ]


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """The exceptions of a class (its name, or the name of any base) whose text has a pattern."""

    status: Status
    names: str = ".*"
    text: str = ""
    owner: Owner
    poisoned: bool = False
    passes: bool = False
    tools_only: bool = False  # in a live launch: only where Triton's tools raised it

    def fits(self, names: list[str], text: str) -> bool:
        named = any(re.fullmatch(self.names, name) for name in names)
        return named and re.search(self.text, text, re.IGNORECASE) is not None


def _rule(status: Status, names: str = ".*", text: str = "", **more: Any) -> _Rule:
    owner = more.pop("owner", None) or owner_of(status) or Owner.MACHINE
    return _Rule(status=status, names=names, text=text, owner=owner, **more)


_TRITON = r"triton\..*\."
_ORT = r"onnxruntime\..*\."
_DEVICE = r"builtins\.(RuntimeError|OSError|SystemError|AssertionError)|(torch|triton)\..*"
# Errors after which a CUDA or HIP context answers every call with the same error.
_STICKY = (
    r"illegal memory access|illegal address|illegal instruction|misaligned address"
    r"|invalid address space|invalid program counter|unspecified launch failure|launch failure"
    r"|hardware stack error|device-side assert"
    r"|hipErrorLaunchFailure|hipErrorIllegalAddress|Code: (700|710|719)\b|memory access fault"
)
_BROKEN_DEVICE = (
    r"uncorrectable (ecc|nvlink)|ecc error|context is destroyed|mps client terminated"
    r"|(cuda|hip|triton)\b.*unknown error|gpu is lost|fallen off the bus|device.*requires reset"
)
_NO_DEVICE = (
    r"no (cuda|hip|rocm|xpu)?[ -]?(gpus?|devices?) (are |is )?available"
    r"|no (cuda|hip|rocm)-capable device|driver version is insufficient|no nvidia driver"
    r"|not compiled with cuda|\d+ active drivers|libcuda\.so|libamdhip64|stub library"
    r"|cannot open shared object|invalid device ordinal"
    r"|cannot find ptxas|failed to find c compiler|nvml|hipErrorNoDevice"
)
_BUSY = (
    r"busy or unavailable|devices are busy|initialization error"
    r"|(system|driver|cuda|hip) not (yet )?initialized|system not ready"
    r"|(device|gpu) (is )?(busy|unavailable)|mps server is not ready"
    r"|resource temporarily unavailable"
)
_NO_MEMORY = (
    r"(cuda|hip|xpu|triton error|device|accelerator).*out of memory|hipErrorOutOfMemory"
    r"|DefaultCPUAllocator|can('|no)t allocate memory|not enough memory|bad_alloc"
)
_NO_SPACE = (
    r"No space left|Disk quota|File too large|database or disk|disk is full"
    r"|Too many open files|Input/output error"
)
_TOO_LARGE = (
    r"uses too much shared data|too much (shared|local|parameter) |too many resources"
    r"|out of resource|exceed\w* .*(shared memory|registers|resources)|register allocation failed"
    r"|insufficient (shared memory|registers)|local memory limit"
)

# The first rule that fits decides. These hold wherever in a chain of exceptions they are met.
_STRONG: tuple[_Rule, ...] = (
    # Another kernel's search, in a hook; a warning that the user made an error.
    _rule(Status.SKIPPED, r"autotune_rlm\..*\.TuningError|builtins.Warning", owner=Owner.CALLER),
    # The device is broken, or the launch broke it.
    _rule(Status.SKIPPED, _DEVICE, _BROKEN_DEVICE, poisoned=True),
    _rule(Status.RUNTIME_ERROR, _DEVICE, _STICKY, poisoned=True),
    _rule(Status.TIMEOUT, _DEVICE, r"launch timed out|launch timeout", poisoned=True),
    # The machine.
    _rule(Status.SKIPPED, text=_NO_SPACE),
    _rule(Status.SKIPPED, _TRITON + "PTXASError", r"error code -(9|15)\b", passes=True),
    _rule(Status.SKIPPED, r"torch\..*OutOfMemoryError|builtins.MemoryError", passes=True),
    _rule(Status.SKIPPED, _DEVICE, _NO_MEMORY, passes=True),
    _rule(Status.SKIPPED, _DEVICE, _BUSY, passes=True),
    _rule(Status.SKIPPED, _DEVICE, _NO_DEVICE),
    _rule(
        Status.SKIPPED,
        _DEVICE,
        r"stream is capturing|during (stream )?capture|StreamCapture",
        owner=Owner.CALLER,
    ),
    # The binary.
    _rule(Status.OUT_OF_RESOURCES, _TRITON + "OutOfResources"),
    _rule(Status.OUT_OF_RESOURCES, _TRITON + "PTXASError", _TOO_LARGE),
    _rule(Status.OUT_OF_RESOURCES, _TRITON + "CompilationError", r"out of resource"),
    _rule(Status.OUT_OF_RESOURCES, "builtins.RuntimeError", _TOO_LARGE),
    _rule(Status.OUT_OF_RESOURCES, _ORT + ".*", r"bad.?alloc|failed to allocate|out of memory"),
)
# These judge the exception alone.
_TABLE: tuple[_Rule, ...] = (
    *_STRONG,
    _rule(Status.COMPILE_ERROR, _TRITON + "(PTXASError|CompilationError)"),
    _rule(
        Status.COMPILE_ERROR, _TRITON + "(CompileTimeAssertionFailure|UnsupportedLanguageConstruct)"
    ),
    _rule(Status.RUNTIME_ERROR, _TRITON + "InterpreterError"),
    _rule(Status.RUNTIME_ERROR, r"autotune_rlm\..*\.RejectedError"),
    _rule(
        Status.COMPILE_ERROR,
        "builtins.(RuntimeError|AssertionError|ValueError)",
        r"PassManager::run failed|failed to (translate|legalize|parse)|LLVM ERROR"
        r"|Translate to LLVM|MLIR|ptxas|lld.*failed|clang.*fail"
        r"|compatible backends for target|unsupported (target|arch)"
        r"|device kernel image is invalid|no kernel image|invalid ptx",
    ),
    # The launch.
    _rule(Status.RUNTIME_ERROR, r"torch\..*(AcceleratorError|DeviceError)"),
    _rule(Status.RUNTIME_ERROR, "builtins.(RuntimeError|SystemError)", r"triton error \["),
    _rule(
        Status.RUNTIME_ERROR,
        "builtins.(RuntimeError|SystemError)",
        r"\b(cuda|hip|xpu|cu\w+|hip\w+) ?error",
        tools_only=True,
    ),
    # ONNX Runtime.
    _rule(Status.COMPILE_ERROR, _ORT + "(NotImplemented|InvalidGraph|InvalidProtobuf|NoSuchFile)"),
    _rule(
        Status.COMPILE_ERROR, _ORT + "(ModelLoad.*|NoModel|Fail)", r"load|type error|not find|graph"
    ),
    _rule(Status.RUNTIME_ERROR, _ORT + ".*"),
    # Python.
    _rule(Status.TIMEOUT, r"builtins.TimeoutError|subprocess\.TimeoutExpired", tools_only=True),
    _rule(Status.SKIPPED, "filelock.*Timeout", tools_only=True),
    _rule(Status.SKIPPED, "sqlite3.*|sqlalchemy.*", r"locked|disk I/O|readonly", tools_only=True),
    _rule(Status.SKIPPED, "builtins.OSError|subprocess.CalledProcessError", tools_only=True),
)
_UNNAMED: Mapping[Stage, tuple[Status, Owner]] = {
    "compile": (Status.COMPILE_ERROR, Owner.BINARY),
    "run": (Status.RUNTIME_ERROR, Owner.LAUNCH),
    "call": (Status.SKIPPED, Owner.CALLER),
}
_COMPILER = re.compile(r"triton\.(compiler|backends\.\w+\.compiler)\b|triton\.experimental\.gluon")
_TOOLS = re.compile(r"triton\.(compiler|backends|runtime\.(cache|build|driver)|knobs)\b")
_NOT_THE_USERS = frozenset({"triton", *sys.stdlib_module_names}) - {"__main__"}


def classify(error: BaseException, *, stage: Stage = "run") -> Fault:
    """What ``error``, raised while compiling or running a candidate, says about it.

    Args:
        error: The exception; ``KeyboardInterrupt`` should not be caught at all.
        stage: What an exception that no rule names (a ValueError in somebody's code) is taken for.
            ``"compile"``: the binary's. ``"run"``: the launch's, where all that runs is the
            candidate's. ``"call"``: the caller's, in a live launch with the user's own hooks, grid and
            arguments, unless the compiler raised it.
    """
    for link in _chain(error):  # a sticky error or a lack of memory decides, also under a wrapper
        names, text = _names(link), _text(link)
        rule = next((rule for rule in _STRONG if rule.fits(names, text)), None)
        if rule is not None:
            fault = _fault(rule, link)
            break
    else:
        fault = _classify_one(error, stage)
    if isinstance(error, WorkloadError):
        reason = _reason(error, _text(error))
        return Fault(Status.SKIPPED, reason, fault.poisoned, Owner.CALLER)
    return fault


def classify_exit(returncode: int | None, output: str = "") -> Fault:
    """What the end of a worker (its return code, its last output) says about its candidate.

    A worker that was killed from outside (the kernel's own out-of-memory killer, a job scheduler) says
    nothing about it.
    """
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
    detail = f": {one_line(last)}" if last else ""
    if returncode is None:
        return Fault(Status.CRASHED, one_line(f"the worker process broke off{detail}"), True)
    if returncode < 0:
        try:
            name = signal.Signals(-returncode).name
        except ValueError:
            name = f"signal {-returncode}"
        hint = " (out of memory, or killed from outside)" if name == "SIGKILL" else ""
        reason = one_line(f"the worker process died of {name}{hint}{detail}")
        if name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"):
            return Fault(Status.SKIPPED, reason, True, Owner.MACHINE, passes=True)
        return Fault(Status.CRASHED, reason, True)
    reason = f"the worker process exited with code {returncode}{detail}"
    return Fault(Status.CRASHED, one_line(reason), True)


def one_line(text: str) -> str:
    """``text`` with all white space squeezed to single blanks, cut to 240 characters."""
    squeezed = " ".join(text.split())
    return squeezed if len(squeezed) <= _MAX_REASON else squeezed[: _MAX_REASON - 1] + "…"


def _classify_one(error: BaseException, stage: Stage) -> Fault:
    names, text = _names(error), _text(error)
    by_tools = stage != "call" or _passed_through(error, _TOOLS)
    for rule in _TABLE:
        if rule.fits(names, text) and (by_tools or not rule.tools_only):
            return _fault(rule, error)
    if stage == "call" and _passed_through(error, _COMPILER):
        stage = "compile"
    status, owner = _UNNAMED[stage]
    return Fault(status, _reason(error, text), owner=owner)


def _fault(rule: _Rule, error: BaseException) -> Fault:
    reason = _reason(error, _text(error))
    return Fault(rule.status, reason, rule.poisoned, rule.owner, rule.passes)


def _names(error: BaseException) -> list[str]:
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__]


def _passed_through(error: BaseException, modules: re.Pattern[str]) -> bool:
    """Whether such a module was running when ``error`` was raised, and not by the user's own code.

    A signal's handler (an alarm) may raise anywhere.
    """
    steps = traceback.walk_tb(error.__traceback__)
    names = [str(frame.f_globals.get("__name__", "")) for frame, _ in steps]
    if not names or names[-1].partition(".")[0] not in _NOT_THE_USERS:
        return False
    return any(map(modules.match, names))


def _reason(error: BaseException, text: str) -> str:
    name = type(error).__name__
    detail = getattr(error, "error_message", None)
    lines = [line.strip() for line in str(detail or text).splitlines() if line.strip()]
    if not lines and error.__cause__ is not None:
        return _reason(error.__cause__, _text(error.__cause__))
    if not lines:
        return name
    # Compilers end with what went wrong (after the source excerpt); others begin with it.
    is_compiler = hasattr(error, "node") or (detail is not None and name == "InterpreterError")
    telling = next((s for s in lines if re.search(r"\berror\b|fatal", s, re.IGNORECASE)), lines[0])
    line = lines[-1] if is_compiler else telling
    number = getattr(getattr(error, "node", None), "lineno", None)
    return one_line(f"{name}: {line}" + (f" (line {number} of the kernel)" if number else ""))


def _text(error: BaseException) -> str:
    told = getattr(error, "error_message", None)  # without the excerpt of a kernel's source
    try:
        return str(told or error)
    except Exception:
        return ""


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links and len(links) < 10:
        links.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return links
