"""A worker process that can be killed: JSON requests in, JSON answers out, whatever happens.

The child runs a *handler*, a function ``dict -> dict`` named ``"module:function"``. It may crash,
hang, print, or write garbage: ``WorkerProcess.call`` then raises ``WorkerFailure`` with a status
and one line of reason, and the next call gets a fresh process. Frames travel over a socket pair of
their own (not stdout) as magic, length, checksum and JSON text; nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
import zlib
from collections import deque
from collections.abc import Mapping
from typing import Any

from autotune_rlm.measure.errors import Fault, Owner, classify_exit, one_line
from autotune_rlm.types import Status

_HEADER = struct.Struct("!4sII")
_MAGIC = b"ARLM"
_MAX_FRAME = 256 * 2**20
_BOOT = (
    "import json,sys;sys.path[:]=json.loads(sys.argv[2]);"
    "from autotune_rlm.measure.workers._child import main;main(int(sys.argv[1]))"
)


class WorkerFailure(RuntimeError):
    """The request gave no answer; ``fault`` says why, ``started`` whether a worker ever had it."""

    def __init__(self, fault: Fault, *, started: bool = True) -> None:
        super().__init__(fault.reason)
        self.fault = fault
        self.started = started


class WorkerProcess:
    """One child process, started at the first call and again after each death.

    Args:
        handler: ``"module:function"``, called in the child with each request.
        init: Sent once to ``setup(init)`` of the handler's module, where there is one.
        env: Environment variables in addition to this process's.
        memory_mb: Limit of the child's address space; None for no limit (as CUDA needs it).
        niceness: Added to the child's niceness, so that it does not disturb what is being timed.
        start_timeout_s: Seconds that starting and importing the handler may take.
    """

    def __init__(
        self,
        handler: str,
        *,
        init: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        memory_mb: int | None = None,
        niceness: int = 0,
        start_timeout_s: float = 120.0,
    ) -> None:
        self._hello = {
            "handler": handler,
            "init": dict(init or {}),
            "memory_mb": memory_mb,
            "niceness": niceness,
        }
        self._env = dict(env or {})
        self._start_timeout_s = start_timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._output: deque[bytes] = deque(maxlen=64)
        self._finalizer: weakref.finalize | None = None
        self.starts = 0

    def start(self) -> None:
        """Start the process where none runs, as the next call would."""
        with self._lock:
            self._start_if_none_runs()

    def call(self, request: Mapping[str, Any], *, timeout_s: float | None) -> dict[str, Any]:
        """The handler's answer to ``request``.

        Raises:
            WorkerFailure: The handler raised, the process died or broke the protocol, or there was
                no answer within ``timeout_s`` seconds (the process and its children are killed).
        """
        with self._lock:
            self._start_if_none_runs()
            return self._exchange(request, timeout_s)

    def kill(self) -> None:
        """End the process and its children at once; the next call starts another."""
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = None
        self._process = self._socket = None

    @property
    def pid(self) -> int | None:
        """The running process's id, if there is one."""
        return self._process.pid if self._process is not None else None

    def _start_if_none_runs(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self.kill()
            self._start()

    def _start(self) -> None:
        try:
            ours, theirs = socket.socketpair()
            self._output.clear()
            path = json.dumps([str(place) for place in sys.path])
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _BOOT, str(theirs.fileno()), path],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, **self._env},
                    start_new_session=True,
                )
        except (OSError, ValueError, TypeError) as error:  # no memory, or embedded without a Python
            raise _cannot_start(error) from error
        self._socket = ours
        self._finalizer = weakref.finalize(self, _end, self._process, ours, os.getpid())
        threading.Thread(
            target=_drain, args=(self._process.stdout, self._output), daemon=True
        ).start()
        self.starts += 1
        try:
            self._exchange(self._hello, self._start_timeout_s)
        except WorkerFailure as failure:
            self.kill()
            raise _cannot_start(failure) from None

    def _exchange(self, request: Mapping[str, Any], timeout_s: float | None) -> dict[str, Any]:
        process, sock = self._process, self._socket
        assert process is not None
        assert sock is not None
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            write_frame(sock, request)
            answer = read_frame(sock, deadline)
        except TimeoutError:
            self.kill()
            fault = Fault(Status.TIMEOUT, f"no answer within {timeout_s:g} s", True)
            raise WorkerFailure(fault) from None
        except (OSError, EOFError, ValueError) as error:
            raise WorkerFailure(self._died(process, error)) from None
        except BaseException:
            self.kill()
            raise
        if "fault" in answer:
            fault = Fault.from_json(answer["fault"])
            if fault.poisoned:
                self.kill()
            raise WorkerFailure(fault)
        return answer["answer"]

    def _died(self, process: subprocess.Popen[bytes], error: Exception) -> Fault:
        try:
            code: int | None = process.wait(timeout=0.0 if isinstance(error, ValueError) else 2.0)
        except subprocess.TimeoutExpired:
            code = None
        time.sleep(0.02)  # lets the drain thread see the last words
        output = b"".join(self._output).decode("utf-8", "replace")
        self.kill()
        if code is None and isinstance(error, ValueError):
            return Fault(Status.CRASHED, f"the worker process sent garbage: {error}", True)
        return classify_exit(code, output)


def _cannot_start(error: Exception) -> WorkerFailure:
    """A worker that cannot be started, or cannot load its handler, says nothing of any candidate."""
    reason = one_line(f"a worker process cannot start: {error}")
    return WorkerFailure(Fault(Status.SKIPPED, reason, True, Owner.MACHINE), started=False)


def write_frame(sock: socket.socket, message: Mapping[str, Any]) -> None:
    """Send one message.

    Raises:
        TypeError, ValueError: The message is no plain JSON (NaN included); nothing was sent.
        OSError: The other side is gone.
    """
    body = json.dumps(message, allow_nan=False).encode("utf-8", "surrogatepass")
    sock.sendall(_HEADER.pack(_MAGIC, len(body), zlib.crc32(body)) + body)


def read_frame(sock: socket.socket, deadline: float | None = None) -> dict[str, Any]:
    """Receive one message.

    Raises:
        TimeoutError: It is not here at ``deadline`` (of ``time.monotonic``).
        EOFError: The other side is gone.
        ValueError: What came is no frame.
    """
    magic, size, checksum = _HEADER.unpack(read_bytes(sock.fileno(), _HEADER.size, deadline))
    if magic != _MAGIC or size > _MAX_FRAME:
        raise ValueError(f"expected a frame, got {magic!r}")
    body = read_bytes(sock.fileno(), size, deadline)
    if zlib.crc32(body) != checksum:
        raise ValueError("the checksum of a frame does not fit")
    return json.loads(body.decode("utf-8", "surrogatepass"))


def read_bytes(fd: int, size: int, deadline: float | None = None) -> bytes:
    """So many bytes from a socket or a pipe; raises as ``read_frame``."""
    parts: list[bytes] = []
    while size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise TimeoutError("it gave no answer")
        part = os.read(fd, min(size, 2**20))
        if not part:
            raise EOFError("the other side is gone")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _drain(pipe: Any, output: deque[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError), pipe:
        while chunk := pipe.read1(4096):
            output.append(chunk)


def _end(process: subprocess.Popen[bytes], sock: socket.socket, owner: int) -> None:
    with contextlib.suppress(OSError):
        sock.close()
    if os.getpid() != owner:  # a forked child: the worker is its parent's
        return
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10.0)
