"""The table of errors: real exceptions of Triton, torch, ONNX Runtime, the driver and Python."""

import ast
import errno
import os

import pytest

from autotune_rlm.measure.errors import (
    Fault,
    Owner,
    WorkloadError,
    classify,
    classify_exit,
    failed,
    remembered,
)
from autotune_rlm.types import Candidate, Measurement, Observation, Status


def _triton_errors():
    triton = pytest.importorskip("triton")
    from triton.compiler.errors import (
        CompilationError,
        CompileTimeAssertionFailure,
        UnsupportedLanguageConstruct,
    )
    from triton.runtime.errors import InterpreterError, OutOfResources, PTXASError

    assert triton
    node = ast.parse("x = 1\ny = 2").body[1]
    shared = "ptxas error   : Entry function 'k' uses too much shared data (0x40000 bytes)"
    return [
        (OutOfResources(300000, 232448, "shared memory"), Status.OUT_OF_RESOURCES),
        (CompilationError("x = 1\ny = 2", node, "arange's range must be"), Status.COMPILE_ERROR),
        (CompileTimeAssertionFailure("x = 1\ny", node, "no"), Status.COMPILE_ERROR),
        (UnsupportedLanguageConstruct("x = 1\ny", node, "no"), Status.COMPILE_ERROR),
        (PTXASError(f"`ptxas` failed with error code 255\n{shared}"), Status.OUT_OF_RESOURCES),
        (PTXASError("Internal Triton PTX codegen error\nsyntax error"), Status.COMPILE_ERROR),
        (InterpreterError("ValueError('bad')"), Status.RUNTIME_ERROR),
    ]


def test_errors_of_triton():
    for error, status in _triton_errors():
        for stage in ("compile", "run"):
            fault = classify(error, stage=stage)
            assert fault.status is status, error
            assert not fault.poisoned
            assert fault.reason.startswith(type(error).__name__)
            assert "\n" not in fault.reason


def test_reason_names_the_line_of_the_kernel_and_what_was_wrong():
    error, _ = _triton_errors()[1]
    assert (
        classify(error).reason == "CompilationError: arange's range must be (line 2 of the kernel)"
    )


@pytest.mark.parametrize(
    ("message", "status", "poisoned"),
    [
        ("Triton Error [CUDA]: an illegal memory access was encountered", "runtime_error", True),
        ("CUDA error: unspecified launch failure", "runtime_error", True),
        ("CUDA error: misaligned address", "runtime_error", True),
        ("CUDA error: device-side assert triggered", "runtime_error", True),
        ("HIP error: hipErrorLaunchFailure", "runtime_error", True),
        ("Triton Error [HIP]:  Code: 700, Messsage: illegal", "runtime_error", True),
        ("CUDA error: too many resources requested for launch", "out_of_resources", False),
        ("Triton Error [CUDA]: device kernel image is invalid", "compile_error", False),
        ("Triton Error [CUDA]: invalid argument", "runtime_error", False),
        ("PassManager::run failed", "compile_error", False),
        ("something else", "runtime_error", False),
    ],
)
def test_errors_of_the_driver(message, status, poisoned):
    fault = classify(RuntimeError(message))
    assert (fault.status.value, fault.poisoned) == (status, poisoned)


def test_errors_of_torch():
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    for error in (torch.OutOfMemoryError("CUDA out of memory"), caught.value):
        fault = classify(error)
        assert (fault.owner, fault.status, fault.passes) == (Owner.MACHINE, Status.SKIPPED, True)
    if hasattr(torch, "AcceleratorError"):
        error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        assert classify(error).poisoned


def test_errors_of_onnxruntime():
    ort = pytest.importorskip("onnxruntime")
    with pytest.raises(Exception) as caught:
        ort.InferenceSession(b"not a model")
    assert classify(caught.value, stage="run").status is Status.COMPILE_ERROR
    with pytest.raises(Exception) as caught:
        ort.InferenceSession("/no/such/file.onnx")
    assert classify(caught.value, stage="run").status is Status.COMPILE_ERROR


@pytest.mark.parametrize(
    ("message", "passes", "poisoned"),
    [
        ("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has 79 GiB", True, False),
        ("CUDA error: out of memory", True, False),
        ("Triton Error [CUDA]: out of memory", True, False),
        ("HIP error: out of memory", True, False),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", True, False),
        ("CUDA error: initialization error", True, False),
        ("Triton Error [CUDA]: system not yet initialized", True, False),
        ("CUDA driver version is insufficient for CUDA runtime version", False, False),
        ("No CUDA GPUs are available", False, False),
        ("0 active drivers ([]). There should only be one.", False, False),
        ("Failed to find C compiler. Please specify via CC environment variable", False, False),
        ("CUDA error: uncorrectable ECC error encountered", False, True),
        ("CUDA error: unknown error", False, True),
    ],
)
def test_a_device_without_room_or_driver_says_nothing_of_a_candidate(message, passes, poisoned):
    for stage in ("compile", "run", "call"):
        fault = classify(RuntimeError(message), stage=stage)
        assert (fault.owner, fault.status) == (Owner.MACHINE, Status.SKIPPED)
        assert (fault.passes, fault.poisoned) == (passes, poisoned)


def test_a_callers_own_error_that_speaks_of_cuda_is_the_callers():
    for error in (RuntimeError("CUDA error in my own check"), RuntimeError("hipError of my own")):
        assert classify(error, stage="call").owner is Owner.CALLER
        assert classify(error, stage="run").owner is Owner.LAUNCH


def test_a_launch_inside_capture_is_the_callers():
    error = RuntimeError("CUDA error: operation not permitted when stream is capturing")
    assert classify(error).owner is Owner.CALLER


def test_words_of_a_device_in_other_exceptions_mean_nothing():
    """Also where a kernel's source, which the compiler prints, has them."""
    assert classify(KeyError("unknown error"), stage="call").owner is Owner.CALLER
    pytest.importorskip("triton")
    from triton.compiler.errors import CompilationError

    source = "x = 1  # CUDA error: an illegal memory access\ny = 2"
    error = CompilationError(source, ast.parse(source).body[1], "no such thing")
    assert classify(error, stage="call").owner is Owner.BINARY
    assert not classify(error).poisoned


def test_in_a_live_launch_an_exception_is_the_compilers_only_if_it_passed_through_it():
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    with pytest.raises(Exception) as caught:  # a signature that has no argument of that name
        triton.compile(ASTSource(None, {}, {}, {}), target=GPUTarget("cuda", 90, 32))
    assert classify(caught.value, stage="call").owner is Owner.BINARY
    for error in (KeyError("BLOCK"), TypeError("missing 1 argument"), FileNotFoundError("mine")):
        assert classify(error, stage="call").owner is Owner.CALLER
        assert classify(error, stage="call").status is Status.SKIPPED


def test_an_alarm_that_rings_inside_the_compiler_is_the_callers():
    triton = pytest.importorskip("triton")

    class Alarm(Exception):
        pass

    def ring(*_):
        raise Alarm

    for raised in (ring, lambda *_: (_ for _ in ()).throw(TimeoutError("mine"))):
        names = {"__name__": triton.compiler.compiler.__name__, "ring": raised}
        exec("def compile():\n    ring()", names)  # a function of the compiler's module
        with pytest.raises((Alarm, TimeoutError)) as caught:
            names["compile"]()
        assert classify(caught.value, stage="call").owner is Owner.CALLER


def test_anothers_search_and_warnings_made_errors_are_the_callers():
    from autotune_rlm.search.tuner import TuningError

    nested = TuningError("3 x out_of_resources: OutOfResources: out of resource: shared memory")
    for error in (nested, DeprecationWarning("unknown error")):
        assert classify(error, stage="call").owner is Owner.CALLER


def test_a_workload_that_cannot_be_made_is_no_candidates_failure():
    error = WorkloadError("ImportError: no module")
    assert classify(error).owner is Owner.CALLER
    error.__cause__ = RuntimeError("CUDA error: an illegal memory access was encountered")
    assert classify(error).poisoned


def test_faults_survive_as_json():
    fault = classify(MemoryError())
    assert Fault.from_json(fault.to_json()) == fault


def test_what_a_search_believes_of_the_store():
    """Binaries for ever, launches for a day, what was skipped never."""
    old = {"when": 1.0}
    rows = [
        Measurement(status=Status.OK, value=1.0),
        Measurement(status=Status.COMPILE_ERROR, state=old),
        Measurement(status=Status.OUT_OF_RESOURCES),
        Measurement(status=Status.RUNTIME_ERROR, state=old),
        Measurement(status=Status.CRASHED),
        Measurement(status=Status.SKIPPED),
        failed(Fault(Status.WRONG_RESULT, "")),
        failed(Fault(Status.TIMEOUT, "")),
    ]
    known = remembered([Observation(Candidate({"i": i}), m) for i, m in enumerate(rows)])
    assert [o.candidate.config["i"] for o in known] == [0, 1, 2, 6, 7]


def test_faults_of_the_machine_are_nobodys():
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.EROFS):
        fault = classify(OSError(number, os.strerror(number)), stage="compile")
        assert fault.status is Status.SKIPPED
    import sqlite3

    assert classify(sqlite3.OperationalError("database is locked")).status is Status.SKIPPED


def test_python_errors_follow_the_stage():
    assert classify(ValueError("x"), stage="compile").status is Status.COMPILE_ERROR
    assert classify(ValueError("x"), stage="run").status is Status.RUNTIME_ERROR
    assert classify(ValueError("x"), stage="call").owner is Owner.CALLER
    assert classify(MemoryError()).owner is Owner.MACHINE
    assert classify(SystemExit(3)).status is Status.RUNTIME_ERROR


def test_a_sticky_error_shows_through_its_wrapper():
    wrapped = ValueError("my hook failed")
    wrapped.__cause__ = RuntimeError("CUDA error: an illegal memory access was encountered")
    assert classify(wrapped).poisoned


def test_an_error_that_cannot_be_printed_is_classified():
    class Silent(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    assert classify(Silent()).reason == "Silent"


def test_reasons_are_short():
    assert len(classify(RuntimeError("x " * 10_000)).reason) <= 240


def test_ends_of_workers():
    assert "SIGSEGV" in classify_exit(-11).reason
    assert classify_exit(-11).status is Status.CRASHED
    assert "out of memory" in classify_exit(-9).reason
    assert {classify_exit(-n).owner for n in (2, 9, 15)} == {Owner.MACHINE}
    assert "code 3: last words" in classify_exit(3, "first\nlast words\n\n").reason
    assert classify_exit(None).status is Status.CRASHED
