"""The limited child that programs run in: no network, little memory, no time to spare.

A small server process (``_server.py``) forks once for each run. Where the system allows it, the server
lives in namespaces of its own: without a network, and so that everything a program starts ends with
it. The limits guard against accidents. They are no wall against a program that means harm: it runs as
this user and can read and write this user's files.
"""

from __future__ import annotations

import contextlib
import functools
import marshal
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autotune_rlm._checks import check_number
from autotune_rlm._closing import Closing
from autotune_rlm.measure.workers.process import read_bytes

_SERVER = Path(__file__).with_name("_server.py")
_NAMESPACES = ("--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
_GRACE_S = 10.0
_ENDED: Mapping[str, Callable[[float], Any]] = {
    **{"timeout": bool, "signal": int, "code": int, "wall_s": float},
    **{"cpu_s": float, "rss_bytes": int},
}
_REQUEST: Mapping[str, Any] = {
    "text": "",
    "call": "",
    "inputs": [],
    "argv": [],
    "stdin": "",
    "trace": False,
    "name": "program.py",
    "command": [],
    "environment": {},
}


class SandboxError(RuntimeError):
    """The server process is gone, which says nothing about the program."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one run of a program may take.

    Attributes:
        timeout_s: Seconds from start to end.
        memory_mb: Mebibytes of private memory (``RLIMIT_DATA``).
        processes: Processes and threads of this user while it runs. The system does not hold
            root to it.
    """

    timeout_s: float = 10.0
    memory_mb: int = 1024
    processes: int = 4096

    def __post_init__(self) -> None:
        for name in ("timeout_s", "memory_mb", "processes"):
            check_number(name, getattr(self, name), above=0)


@dataclass(frozen=True, kw_only=True)
class Run:
    """How one run ended.

    Attributes:
        timeout: Whether it was ended at its time-out.
        signal: The signal that ended it; 0 for none.
        code: Its exit code.
        wall_s: Seconds from start to end.
        cpu_s: Seconds of processor time, with those of its children.
        rss_bytes: Largest resident size, which counts the server's own.
        stdout: What it wrote to its output and error output, at most a mebibyte.
        numbers: What was reported by name: ``peak_bytes``, ``time_ms`` and so on.
        error: ``"Name: text"`` of the exception that ended a Python program.
    """

    timeout: bool
    signal: int
    code: int
    wall_s: float
    cpu_s: float
    rss_bytes: int
    stdout: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


@functools.cache
def _isolation() -> tuple[str, ...]:
    """The words before a command that take the network away; empty where the system forbids it."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    words = (unshare, *_NAMESPACES)
    tried = subprocess.run([*words, "true"], capture_output=True, check=False, timeout=30)
    return words if tried.returncode == 0 else ()


class Sandbox(Closing):
    """Runs programs, each in a process of its own.

    Python programs run under ``-s -S -B`` in an environment that holds nothing but
    ``PYTHONHASHSEED=0``: what ``-I`` does, except that ``-I`` would ignore the fixed seed.

    Args:
        limits: What each run may take.
        python: The interpreter of Python programs; None for this one.

    Raises:
        ValueError: This is not Linux.
    """

    def __init__(self, *, limits: Limits | None = None, python: str | None = None) -> None:
        if not sys.platform.startswith("linux"):
            raise ValueError(f"programs are measured on Linux only, this is {sys.platform}")
        self._limits = limits or Limits()
        self._python = python or sys.executable
        self._folder = tempfile.TemporaryDirectory(prefix="autotune_rlm_programs_")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def has_network(self) -> bool:
        """Whether programs can reach the network: the system allows no namespace without one."""
        return not _isolation()

    @property
    def folder(self) -> Path:
        """A folder of its own, deleted at the end."""
        return Path(self._folder.name)

    def python(
        self,
        text: str,
        *,
        argv: Sequence[str] = (),
        stdin: str = "",
        trace: bool = False,
        name: str = "program.py",
    ) -> Run:
        """Run a Python program.

        Args:
            text: The program.
            argv: Words of its command line.
            stdin: Its standard input.
            trace: Whether memory is traced (``peak_bytes``) or processor time is taken (``time_ms``).
            name: File name in its messages.

        Raises:
            SandboxError: The server is gone.
        """
        return self._whole(
            self._ask(text=text, argv=list(argv), stdin=stdin, trace=trace, name=name)
        )

    def calls(
        self, text: str, call: str, inputs: Sequence[Any], *, trace: bool = False
    ) -> list[Run]:
        """Run a Python program's text once, then call one of its functions with each input.

        Each call is made in a fork of the process that ran the text, so that none sees another.

        Args:
            text: The program.
            call: The function's name.
            inputs: Its arguments by name or in order, for each call: JSON values.
            trace: Whether memory is traced (``peak_bytes`` from the start of the text, ``call_bytes`` of
                the call above what the text had left) or processor time is taken (``time_ms``,
                ``call_ms``).

        Returns:
            One run for each input; all of them the same failure where the text itself fails.

        Raises:
            SandboxError: The server is gone.
        """
        answer = self._ask(text=text, call=call, inputs=list(inputs), trace=trace)
        parts = answer["report"].decode("utf-8", "replace").split("next input\n")
        runs = []
        for part in parts[:-1]:
            numbers, problem = _parse(part)
            ended = {name: kind(numbers.pop(name, 0.0)) for name, kind in _ENDED.items()}
            runs.append(Run(**ended, stdout="", numbers=numbers, error=problem))
        missing = len(inputs) - len(runs)
        if missing:  # the text failed, or the time is up
            runs += [replace(self._whole(answer), numbers={})] * missing
        return runs

    def command(
        self,
        words: Sequence[str],
        *,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> Run:
        """Run a command; ``words[0]`` is a path.

        Raises:
            SandboxError: The server is gone.
        """
        return self._whole(
            self._ask(
                limits=limits,
                stdin=stdin,
                command=[str(word) for word in words],
                environment=dict(environment or {}),
            )
        )

    def close(self) -> None:
        """End the server and delete its folder."""
        self._end()
        self._folder.cleanup()

    def _ask(self, *, limits: Limits | None = None, **request: Any) -> dict[str, Any]:
        limits = limits or self._limits
        request = {**_REQUEST, **request}
        body = marshal.dumps(
            {
                **request,
                "stdin": request["stdin"].encode("utf-8", "replace"),
                "folder": str(self.folder),
                "timeout_s": float(limits.timeout_s),
                "memory_bytes": int(limits.memory_mb) * 2**20,
                "processes": int(limits.processes),
            }
        )
        seconds = limits.timeout_s * (1 + len(request["inputs"])) + _GRACE_S
        process = self._process
        if process is None or process.poll() is not None:
            process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(len(body).to_bytes(8, "big") + body)
            process.stdin.flush()
            deadline = time.monotonic() + seconds
            answers = process.stdout.fileno()
            size = int.from_bytes(read_bytes(answers, 8, deadline), "big")
            return marshal.loads(read_bytes(answers, size, deadline))
        except (OSError, EOFError, ValueError) as error:
            self._end()
            raise SandboxError(f"the process that runs programs is gone: {error}") from None
        except BaseException:
            self._end()
            raise

    @staticmethod
    def _whole(answer: Mapping[str, Any]) -> Run:
        numbers, problem = _parse(answer["report"].decode("utf-8", "replace"))
        printed = answer["stdout"].decode("utf-8", "replace")
        ended = {name: answer[name] for name in _ENDED}
        return Run(**ended, stdout=printed, numbers=numbers, error=problem)

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            self._process = subprocess.Popen(
                [*_isolation(), self._python, "-s", "-S", "-B", str(_SERVER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env={"PYTHONHASHSEED": "0"},
                cwd=self.folder,
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxError(f"cannot start {self._python}: {error}") from None
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _parse(report: str) -> tuple[dict[str, float], str]:
    """The numbers of a report's lines ``name value``, and the text of its line ``error``."""
    numbers: dict[str, float] = {}
    problem = ""
    for line in report.splitlines():
        name, _, value = line.partition(" ")
        if name == "error":
            problem = problem or value
        elif name.isidentifier():
            with contextlib.suppress(ValueError):
                numbers[name] = float(value)
    return numbers, problem
