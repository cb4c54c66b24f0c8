"""The table of errors: real exceptions of Triton, torch, ONNX Runtime, the driver and Python."""

import ast
import errno
import os

import pytest

from autotune_rlm.measure.errors import classify, classify_exit
from autotune_rlm.types import Status


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
        ("Triton Error [CUDA]: out of memory", "out_of_resources", False),
        ("CUDA error: out of memory", "out_of_resources", False),
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
    assert classify(torch.OutOfMemoryError("CUDA out of memory")).status is Status.OUT_OF_RESOURCES
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert classify(caught.value).status is Status.OUT_OF_RESOURCES
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


def test_faults_of_the_machine_are_nobodys():
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.EROFS):
        fault = classify(OSError(number, os.strerror(number)), stage="compile")
        assert fault.status is Status.SKIPPED
    import sqlite3

    assert classify(sqlite3.OperationalError("database is locked")).status is Status.SKIPPED


def test_python_errors_follow_the_stage():
    assert classify(ValueError("x"), stage="compile").status is Status.COMPILE_ERROR
    assert classify(ValueError("x"), stage="run").status is Status.RUNTIME_ERROR
    assert classify(MemoryError()).status is Status.OUT_OF_RESOURCES
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
    assert "out of memory" in classify_exit(-9).reason
    assert "code 3: last words" in classify_exit(3, "first\nlast words\n\n").reason
    assert classify_exit(None).status is Status.CRASHED
