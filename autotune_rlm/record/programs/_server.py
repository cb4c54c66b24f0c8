"""Runs programs one after the other, each in a limited process of its own; run as a script.

``python -s -S -B _server.py`` reads requests from standard input and answers on standard output. It
imports nothing but modules that are built into the interpreter, so that whatever a Python program
imports is that program's own memory. A Python program runs in a fork of this process; any other
command is executed from one.
"""

# mypy: disable-error-code="no-untyped-def"

import _tracemalloc
import gc
import marshal
import posix
import sys
import time

import fcntl
import resource
import select

_SIGKILL = 9
_FILE_BYTES = 64 * 2**20
_OUTPUT_BYTES = 2**20


def serve() -> None:
    """Answer requests until standard input ends.

    A request is a marshalled dictionary, an answer the same; both come after their length in eight
    bytes. What a program says of itself is text and is never unmarshalled.
    """
    del sys.path[0]  # this file's folder
    requests, answers = posix.dup(0), posix.dup(1)
    nothing = posix.open("/dev/null", posix.O_RDWR)
    for fd in (0, 1):
        posix.dup2(nothing, fd)
    while True:
        head = _read(requests, 8)
        if len(head) < 8:
            return
        request = marshal.loads(_read(requests, int.from_bytes(head, "big")))
        body = marshal.dumps(_run(request, (requests, answers)))
        data = len(body).to_bytes(8, "big") + body
        while data:
            data = data[posix.write(answers, data) :]


def _run(request: dict, ours: tuple[int, int]) -> dict:
    """One run: how it ended, what it printed and reported, what the system counted."""
    given = posix.memfd_create("stdin")
    _write(given, request["stdin"])
    posix.lseek(given, 0, 0)
    printed, reported = posix.memfd_create("stdout"), posix.memfd_create("report")
    posix.set_inheritable(reported, True)
    fcntl.fcntl(reported, fcntl.F_SETFL, posix.O_APPEND)  # a program may open it anew by its name
    child = posix.fork()
    if not child:
        for fd in ours:
            posix.close(fd)
        _be_the_program(request, given, printed, reported)
    seconds = request["timeout_s"] * (1 + len(request["inputs"]))
    answer = _ended(child, seconds)
    _reap()
    answer["stdout"] = _contents(printed)
    answer["report"] = _contents(reported)
    for fd in (given, printed, reported):
        posix.close(fd)
    return answer


def _ended(child: int, seconds: float) -> dict:
    """How a child ended, which is made to after some seconds."""
    started = time.monotonic()
    ending = posix.pidfd_open(child)
    in_time = bool(select.select([ending], [], [], seconds)[0])
    wall_s = time.monotonic() - started
    _kill_group(child)
    _, state, usage = posix.wait4(child, 0)
    posix.close(ending)
    return {
        "timeout": not in_time,
        "signal": state & 127,
        "code": state >> 8,
        "wall_s": wall_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_bytes": usage.ru_maxrss * 1024,
    }


def _be_the_program(request: dict, given: int, printed: int, reported: int) -> None:
    code = 1
    try:
        posix.setsid()
        posix.chdir(request["folder"])
        for fd, place in ((given, 0), (printed, 1), (printed, 2)):
            posix.dup2(fd, place)
        _limit(request)
        if request["command"]:
            environment = {**request["environment"], "AUTOTUNE_RLM_REPORT_FD": str(reported)}
            posix.execve(request["command"][0], request["command"], environment)
        code = _python(request, reported)
    except BaseException as error:
        code = _tell(reported, error)
    finally:
        posix._exit(code)


def _limit(request: dict) -> None:
    seconds = int(request["timeout_s"]) + 2
    for name, most in (
        ("RLIMIT_DATA", request["memory_bytes"]),  # not AS: runtimes reserve more than they use
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_FSIZE", _FILE_BYTES),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NPROC", request["processes"]),
    ):
        limit = getattr(resource, name)
        hard = resource.getrlimit(limit)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(limit, (most, most))


def _python(request: dict, reported: int) -> int:
    """Run a Python program in this process, and each call that it is measured by in a fork of it."""
    call = request["call"]
    sys.argv = [request["name"], *request["argv"]]
    sys.stdin = open(0, encoding="utf-8", errors="replace")
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace")
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace")
    module = type(sys)("program" if call else "__main__")
    sys.modules[module.__name__] = module
    scope = module.__dict__
    compiled = compile(request["text"], request["name"], "exec", dont_inherit=True)
    code = 0
    gc.collect()
    if request["trace"]:
        _tracemalloc.start(1)
    begun = time.process_time()
    try:
        exec(compiled, scope)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    text_ms = 1e3 * (time.process_time() - begun)
    if not call:
        if request["trace"]:
            _report(reported, peak_bytes=_tracemalloc.get_traced_memory()[1])
        else:
            _report(reported, time_ms=text_ms)
        sys.stdout.flush()
        return code
    for arguments in request["inputs"]:
        child = posix.fork()
        if not child:
            _call(scope[call], arguments, reported, text_ms, request["trace"])
        ended = _ended(child, request["timeout_s"])
        _report(reported, **{name: float(value) for name, value in ended.items()})
        _write(reported, b"next input\n")
    return code


def _call(
    function: object, arguments: dict | tuple, reported: int, text_ms: float, trace: bool
) -> None:
    """Call a function once, in a process of its own."""
    code = 1
    try:
        posix.setsid()
        if trace:
            before, whole = _tracemalloc.get_traced_memory()
            _tracemalloc.reset_peak()
        begun = time.process_time()
        try:
            function(**arguments) if isinstance(arguments, dict) else function(*arguments)  # type: ignore[operator]
        except SystemExit:
            pass
        call_ms = 1e3 * (time.process_time() - begun)
        if trace:
            peak = _tracemalloc.get_traced_memory()[1]
            _tracemalloc.stop()
            _report(reported, peak_bytes=max(peak, whole), call_bytes=peak - before)
        else:
            _report(reported, time_ms=text_ms + call_ms, call_ms=call_ms)
        code = 0
    except BaseException as error:
        code = _tell(reported, error)
    finally:
        posix._exit(code)


def _report(reported: int, **numbers: float) -> None:
    _write(reported, "".join("%s %r\n" % pair for pair in numbers.items()).encode())


def _tell(reported: int, error: BaseException) -> int:
    try:
        text = "error %s: %s\n" % (type(error).__name__, error)
        _write(reported, text.encode("utf-8", "replace")[:2000])
    except BaseException:
        return 1
    return 1


def _kill_group(child: int) -> None:
    try:
        posix.killpg(child, _SIGKILL)
    except OSError:
        try:
            posix.kill(child, _SIGKILL)
        except OSError:
            pass


def _reap() -> None:
    """Where this is the first process of its namespace, orphans of the program are its children."""
    try:
        while posix.waitpid(-1, posix.WNOHANG)[0]:
            pass
    except OSError:
        pass


def _contents(fd: int) -> bytes:
    posix.lseek(fd, 0, 0)
    return _read(fd, _OUTPUT_BYTES)


def _read(fd: int, size: int) -> bytes:
    parts = []
    while size > 0:
        part = posix.read(fd, min(size, 2**20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[posix.write(fd, data) :]


if __name__ == "__main__":
    serve()
