"""The child's side of ``process``: reads requests, calls the handler, answers."""

from __future__ import annotations

import importlib
import os
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from autotune_rlm.measure.errors import Fault, classify, one_line
from autotune_rlm.types import Status

from .process import read_frame, write_frame


def main(fd: int) -> None:
    """Serve requests on the socket ``fd`` until the parent is gone."""
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    threading.Thread(target=_die_with_parent, args=(fd,), daemon=True).start()
    try:
        handler = _answer(sock, _prepare, read_frame(sock))
        while True:
            request = read_frame(sock)
            if handler is None:
                return
            _answer(sock, handler, request)
    except (EOFError, OSError, ValueError):
        return


def _prepare(hello: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    if hello["memory_mb"] is not None:
        size = int(hello["memory_mb"]) * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    if hello["niceness"]:
        os.nice(hello["niceness"])
    module_name, _, function = hello["handler"].partition(":")
    module = importlib.import_module(module_name)
    if hasattr(module, "setup"):
        module.setup(hello["init"])
    return getattr(module, function)


def _answer(sock: socket.socket, function: Callable[[Any], Any], request: dict[str, Any]) -> Any:
    try:
        answer = function(request)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        write_frame(sock, {"fault": classify(error).to_json()})
        return None
    try:
        write_frame(sock, {"answer": None if callable(answer) else answer})
    except (TypeError, ValueError) as error:
        reason = one_line(f"the answer cannot be sent as JSON: {error}")
        write_frame(sock, {"fault": Fault(Status.RUNTIME_ERROR, reason).to_json()})
    finally:
        sys.stdout.flush()
    return answer


def _die_with_parent(fd: int) -> None:
    poller = select.poll()
    poller.register(fd, select.POLLHUP | select.POLLRDHUP)
    poller.poll()
    os.killpg(0, signal.SIGKILL)
