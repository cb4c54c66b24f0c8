"""One table that says what every exception of Triton, ptxas, the driver, torch and Python means.

``classify`` turns an exception into a ``Fault``: the ``Status`` of the candidate, one line of
reason, and whether the process that raised it can still be used. After a *sticky* error (an illegal
address, a launch failure) every later call into the driver fails: the process has to be replaced.

Faults of the machine and not of the candidate (disk full, no permission) are ``skipped``: the
candidate was never tried, and nothing must be learned from it.

Neither torch nor triton is imported: classes are recognised by their qualified names.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Any, Literal

from ..types import Status

__all__ = ["Fault", "Stage", "classify", "classify_exit", "one_line"]

Stage = Literal["compile", "run"]
_LONGEST_REASON = 240


@dataclass(frozen=True)
class Fault:
    """What an exception means.

    Attributes:
        status: The candidate's status.
        reason: One line.
        poisoned: Whether the process can measure nothing any more.
    """

    status: Status
    reason: str
    poisoned: bool = False

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {"status": self.status.value, "reason": self.reason, "poisoned": self.poisoned}


@dataclass(frozen=True)
class _Rule:
    """The exceptions of a class (its name, or the name of any base) whose text has a pattern."""

    names: str = ".*"
    text: str = ""
    compiling: Status = Status.COMPILE_ERROR
    running: Status = Status.RUNTIME_ERROR
    poisoned: bool = False

    def fits(self, names: list[str], text: str) -> bool:
        return any(re.fullmatch(self.names, name) for name in names) and bool(
            re.search(self.text, text, re.IGNORECASE)
        )


def _rule(status: Status, names: str = ".*", text: str = "", *, poisoned: bool = False) -> _Rule:
    return _Rule(names=names, text=text, compiling=status, running=status, poisoned=poisoned)


_TRITON = r"triton\..*\."
_ORT = r"onnxruntime\..*\."
# Errors after which a CUDA or HIP context answers every call with the same error.
_STICKY = (
    r"illegal memory access|illegal address|illegal instruction|misaligned address"
    r"|invalid address space|invalid program counter|unspecified launch failure|launch failure"
    r"|hardware stack error|device-side assert|launch timed out|launch timeout"
    r"|uncorrectable (ecc|nvlink)|ecc error|context is destroyed|unknown error"
    r"|hipErrorLaunchFailure|hipErrorIllegalAddress|Code: (700|710|719)\b|memory access fault"
    r"|mps client terminated"
)
_TOO_LARGE = (
    r"uses too much shared data|too much (shared|local|parameter) |too many resources"
    r"|out of resource|exceed\w* .*(shared memory|registers|resources)|register allocation failed"
    r"|insufficient (shared memory|registers)|local memory limit"
)

# The first rule that fits decides.
_TABLE: tuple[_Rule, ...] = (
    # Triton and the tools that it runs.
    _rule(Status.OUT_OF_RESOURCES, _TRITON + "OutOfResources"),
    _rule(Status.OUT_OF_RESOURCES, _TRITON + "PTXASError", _TOO_LARGE),
    _rule(Status.COMPILE_ERROR, _TRITON + "PTXASError"),
    _rule(Status.OUT_OF_RESOURCES, _TRITON + "CompilationError", r"out of resource"),
    _rule(Status.COMPILE_ERROR, _TRITON + "(CompilationError|CompileTimeAssertionFailure)"),
    _rule(Status.COMPILE_ERROR, _TRITON + "UnsupportedLanguageConstruct"),
    _rule(Status.RUNTIME_ERROR, _TRITON + "InterpreterError"),
    _rule(
        Status.COMPILE_ERROR, text=r"PassManager::run failed|failed to (translate|legalize|parse)"
    ),
    _rule(
        Status.COMPILE_ERROR,
        text=r"LLVM ERROR|Translate to LLVM|MLIR|ptxas|lld.*failed|clang.*fail",
    ),
    _rule(Status.COMPILE_ERROR, text=r"compatible backends for target|unsupported (target|arch)"),
    _rule(Status.COMPILE_ERROR, text=r"device kernel image is invalid|no kernel image|invalid ptx"),
    # The driver and torch.
    _rule(Status.RUNTIME_ERROR, text=_STICKY, poisoned=True),
    _rule(Status.OUT_OF_RESOURCES, r"torch\..*OutOfMemoryError"),
    _rule(Status.OUT_OF_RESOURCES, text=r"(cuda|hip|triton error|device).*out of memory"),
    _rule(
        Status.OUT_OF_RESOURCES, text=r"DefaultCPUAllocator|can't allocate memory|cannot allocate"
    ),
    _rule(Status.OUT_OF_RESOURCES, text=_TOO_LARGE),
    _rule(Status.RUNTIME_ERROR, r"torch\..*(AcceleratorError|DeviceError)"),
    # ONNX Runtime.
    _rule(Status.OUT_OF_RESOURCES, _ORT + ".*", r"bad.?alloc|failed to allocate|out of memory"),
    _rule(Status.COMPILE_ERROR, _ORT + "(NotImplemented|InvalidGraph|InvalidProtobuf|NoSuchFile)"),
    _rule(
        Status.COMPILE_ERROR, _ORT + "(ModelLoad.*|NoModel|Fail)", r"load|type error|not find|graph"
    ),
    _rule(Status.RUNTIME_ERROR, _ORT + ".*"),
    # The machine: not the candidate's fault.
    _rule(
        Status.SKIPPED,
        "builtins.OSError",
        r"No space left|Disk quota|File too large|database or disk",
    ),
    _rule(
        Status.SKIPPED, "builtins.OSError", r"Too many open files|Read-only file|Input/output error"
    ),
    _rule(Status.SKIPPED, "builtins.PermissionError"),
    _rule(Status.SKIPPED, "filelock.*Timeout"),
    _rule(Status.SKIPPED, "sqlite3.*|sqlalchemy.*", r"locked|disk is full|disk I/O|readonly"),
    # Python.
    _rule(Status.OUT_OF_RESOURCES, "builtins.MemoryError"),
    _rule(Status.TIMEOUT, r"builtins.TimeoutError|subprocess\.TimeoutExpired"),
    _Rule("builtins.BaseException"),
)


def classify(error: BaseException, *, stage: Stage = "run") -> Fault:
    """What ``error``, raised while compiling or running a candidate, says about it.

    Args:
        error: The exception; ``KeyboardInterrupt`` should not be caught at all.
        stage: ``"compile"`` makes an exception that no rule names (a ValueError in the kernel's
            own code) a ``compile_error``, ``"run"`` a ``runtime_error``.
    """
    chain = _chain(error)
    for link in chain:  # a sticky error or a lack of memory decides, also under a wrapper
        fault = _classify_one(link, stage)
        if fault.poisoned or fault.status in (Status.OUT_OF_RESOURCES, Status.SKIPPED):
            return fault
    return _classify_one(error, stage)


def classify_exit(returncode: int | None, output: str = "") -> Fault:
    """What the end of a worker (its return code, its last output) says about its candidate."""
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
        return Fault(
            Status.CRASHED, one_line(f"the worker process died of {name}{hint}{detail}"), True
        )
    reason = f"the worker process exited with code {returncode}{detail}"
    return Fault(Status.CRASHED, one_line(reason), True)


def one_line(text: str, *, limit: int = _LONGEST_REASON) -> str:
    """``text`` with all white space squeezed to single blanks, cut to ``limit`` characters."""
    squeezed = " ".join(text.split())
    return squeezed if len(squeezed) <= limit else squeezed[: limit - 1] + "…"


def _classify_one(error: BaseException, stage: Stage) -> Fault:
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__]
    text = _text(error)
    rule = next(rule for rule in _TABLE if rule.fits(names, text))
    status = rule.compiling if stage == "compile" else rule.running
    return Fault(status, _reason(error, text), rule.poisoned)


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
    try:
        return str(error)
    except Exception:
        return ""


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links and len(links) < 10:
        links.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return links
