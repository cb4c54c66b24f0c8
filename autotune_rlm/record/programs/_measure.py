"""Measures one program on its inputs: peak memory and processor time."""

from __future__ import annotations

import os
import re
import shutil
import signal
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune_rlm._checks import check_number
from autotune_rlm._closing import Closing
from autotune_rlm.measure.errors import Fault, Owner, classify_exit, failed, one_line
from autotune_rlm.record.programs._languages import LANGUAGES, Language
from autotune_rlm.record.programs._program import Program
from autotune_rlm.record.programs._sandbox import Limits, Run, Sandbox, SandboxError
from autotune_rlm.types import Measurement, Status

_HERE = Path(__file__).parent
_COMPILER = Limits(timeout_s=120.0, memory_mb=4096)
_EMPTY_RUNS = 5
_NO_MEMORY = re.compile(
    r"MemoryError|bad_alloc|OutOfMemory|out of memory|memory allocation of", re.I
)
_ERROR_LINE = re.compile(r"error\b|exception|panicked", re.I)


class NotPrepared(RuntimeError):
    """The program cannot be run here; ``fault`` says why and whose it is."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class ProgramMeasurer(Closing):
    """Measures programs one run at a time.

    Of a Python program ``peak_bytes`` is the peak that ``tracemalloc`` sees from its start to its end,
    whatever it imports included, its compilation not; ``call_bytes`` is the peak of the call above what
    the text had left. ``time_ms`` and ``call_ms`` are processor time in a run without tracing.

    Of other programs ``peak_bytes`` is the peak of what malloc gave out (C, C++, Rust) or of the resident
    size, above that of an empty program of the language; ``time_ms`` is processor time above an empty
    program's. A program that knows better writes lines such as ``peak_bytes 1234`` or ``call_ms 0.5`` to
    the descriptor that ``AUTOTUNE_RLM_REPORT_FD`` names.

    Args:
        limits: What each run may take.
        repeats: Runs of each input; the median counts. Memory of Python programs is traced once.
        python: The interpreter of Python programs; None for this one.
    """

    def __init__(
        self, *, limits: Limits | None = None, repeats: int = 1, python: str | None = None
    ) -> None:
        check_number("repeats", repeats, least=1, whole=True)
        self._repeats = repeats
        self._sandbox = Sandbox(limits=limits, python=python)
        self._empty: dict[str, dict[str, float]] = {}
        self._tools: dict[str, str] | None = None

    @property
    def has_network(self) -> bool:
        """Whether programs can reach the network, because the system cannot take it away."""
        return self._sandbox.has_network

    def close(self) -> None:
        """End the children and delete their files."""
        self._sandbox.close()

    def prepare(self, program: Program) -> Callable[[Sequence[Any]], Iterator[Measurement]]:
        """Compile it where it has to be.

        Returns:
            A function from inputs to their measurements.

        Raises:
            NotPrepared: It does not compile, or there is no compiler.
        """
        if program.call:
            return lambda inputs: self._calls(program, inputs)
        if program.language == "python":
            return self._one_by_one(program, lambda given: self._python(program, given))
        language = LANGUAGES[program.language]
        self._zero(language)
        words = [*self._compiled(language, program.runs or program.text), *program.arguments]
        return self._one_by_one(program, lambda given: self._command(language, words, given))

    def _calls(self, program: Program, inputs: Sequence[Any]) -> Iterator[Measurement]:
        rounds = [True] + [False] * self._repeats
        try:
            text = program.runs or program.text
            runs = [self._sandbox.calls(text, program.call, inputs, trace=t) for t in rounds]
        except SandboxError as error:
            yield from [failed(Fault(Status.CRASHED, one_line(str(error)), True))] * len(inputs)
            return
        for traced, *timed in zip(*runs, strict=True):
            worst = next((run for run in (traced, *timed) if _fault(run) is not None), traced)
            numbers = {**traced.numbers, **_medians([run.numbers for run in timed])}
            yield _measured(worst, numbers, "")

    def _one_by_one(
        self, program: Program, run: Callable[[str], tuple[Run, dict[str, float]]]
    ) -> Callable[[Sequence[str]], Iterator[Measurement]]:
        wanted = dict(zip(program.inputs, program.outputs, strict=False))

        def measure(inputs: Sequence[str]) -> Iterator[Measurement]:
            for given in inputs:
                try:
                    yield _measured(*run(given), wanted.get(given))
                except SandboxError as error:  # noqa: PERF203 - each run has its own fate
                    yield failed(Fault(Status.CRASHED, one_line(str(error)), True))

        return measure

    def _python(self, program: Program, given: str) -> tuple[Run, dict[str, float]]:
        text = program.runs or program.text
        request: dict[str, Any] = {"stdin": given, "argv": program.arguments}
        traced = self._sandbox.python(text, trace=True, **request)
        if _fault(traced) is not None:
            return traced, {}
        timed = [self._sandbox.python(text, **request) for _ in range(self._repeats)]
        worst = next((run for run in timed if _fault(run) is not None), traced)
        return worst, {**traced.numbers, **_medians([run.numbers for run in timed])}

    def _command(
        self, language: Language, words: Sequence[str], given: str
    ) -> tuple[Run, dict[str, float]]:
        empty = self._empty.get(language.name, {})
        runs = [self._once(language, words, given) for _ in range(self._repeats)]
        bad = next((run for run in runs if _fault(run) is not None), None)
        if bad is not None:
            return bad, {}
        found = _medians([_memory_and_time(run, language) for run in runs])
        own = "peak_bytes" in runs[0].numbers
        zero = {**empty, **({"peak_bytes": 0.0} if own else {})}
        return runs[0], {
            name: max(value - zero.get(name, 0.0), 0.0) for name, value in found.items()
        } | {name: v for name, v in runs[0].numbers.items() if name in ("call_bytes", "call_ms")}

    def _once(self, language: Language, words: Sequence[str], given: str) -> Run:
        tools = self._built_tools()
        environment = _environment(self._sandbox.folder)
        if language.allocator and "allocator" in tools:
            environment["LD_PRELOAD"] = tools["allocator"]
        before = [tools["launch"]] if "launch" in tools else []
        return self._sandbox.command([*before, *words], stdin=given, environment=environment)

    def _zero(self, language: Language) -> None:
        """Measure an empty program of a language, once."""
        if language.name in self._empty:
            return
        words = self._compiled(language, language.empty)
        runs = [self._once(language, words, "") for _ in range(_EMPTY_RUNS)]
        for run in runs:
            fault = _fault(run)
            if fault is not None:
                reason = f"an empty {language.name} program fails: {fault.reason}"
                raise NotPrepared(Fault(Status.SKIPPED, reason, owner=Owner.MACHINE))
        self._empty[language.name] = _medians([_memory_and_time(run, language) for run in runs])

    def _compiled(self, language: Language, text: str) -> list[str]:
        """The command that runs the text."""
        if language.missing:
            reason = f"no {language.missing} on the path, which {language.name} programs need"
            raise NotPrepared(Fault(Status.SKIPPED, reason, owner=Owner.MACHINE))
        folder = self._sandbox.folder / "build"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        source = folder / language.file_name(text)
        source.write_text(text, encoding="utf-8", errors="replace")
        out = folder / ("program.js" if language.name == "typescript" else "program")
        paths = {"source": str(source), "out": str(out), "folder": str(folder)}
        places = {**paths, "main": source.stem}
        if language.compile:
            run = self._compile(_words(language.compile, places))
            # ``tsc`` complains about types and leaves a program.
            if run.timeout or run.signal or (run.code and not out.is_file()):
                told = _telling(run.stdout, 0) or "no message"
                reason = one_line(told.replace(str(folder) + os.sep, ""))
                if run.code and not (run.timeout or run.signal):
                    raise NotPrepared(Fault(Status.COMPILE_ERROR, reason, owner=Owner.BINARY))
                reason = f"its compiler was ended: {reason}"
                raise NotPrepared(Fault(Status.SKIPPED, reason, owner=Owner.MACHINE))
        return _words(language.run, places)

    def _compile(self, words: Sequence[str]) -> Run:
        # Go and others keep compiled libraries in the user's own cache.
        environment = _environment(Path.home())
        return self._sandbox.command(words, environment=environment, limits=_COMPILER)

    def _built_tools(self) -> Mapping[str, str]:
        """The launcher and the counting allocator, compiled once; none where there is no C compiler."""
        if self._tools is None:
            self._tools = {}
            compiler = shutil.which("cc")
            for name, flags in (("launch", ["-static"]), ("allocator", ["-shared", "-fPIC"])):
                out = str(self._sandbox.folder / f"{name}.so")
                words = [compiler or "", "-O2", *flags, "-o", out, str(_HERE / f"_{name}.c")]
                if compiler and not self._compile(words).code:
                    self._tools[name] = out
        return self._tools


def _measured(ended: Run, numbers: Mapping[str, float], wanted: str | None) -> Measurement:
    """What a run gave; ``wanted`` is what it has to print, None or empty where nothing is compared."""
    fault = _fault(ended)
    if fault is None and wanted and ended.stdout.split() != wanted.split():
        fault = Fault(Status.WRONG_RESULT, "it printed something else than its output file")
    if fault is None and "peak_bytes" not in numbers:
        fault = Fault(Status.RUNTIME_ERROR, "it ended without a report of its memory")
    if fault is not None:
        return failed(fault, cost_s=ended.wall_s)
    facts = {name: float(f"{v:.5g}") for name, v in numbers.items() if name != "peak_bytes"}
    return Measurement(
        status=Status.OK, value=numbers["peak_bytes"], cost_s=ended.wall_s, facts=facts
    )


def _telling(output: str, otherwise: int) -> str:
    """The first line that speaks of an error, else the one at a place; empty where nothing is said."""
    lines = [line for line in output.splitlines() if line.strip()]
    found = next((line for line in lines if _ERROR_LINE.search(line)), "")
    return found or (lines[otherwise] if lines else "")


def _words(pattern: Sequence[str], places: Mapping[str, str]) -> list[str]:
    words = [word.format_map(places) for word in pattern]
    return [shutil.which(words[0]) or words[0], *words[1:]]


def _environment(home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "GOCACHE") if name in os.environ}
    return {**kept, "HOME": str(home), "TMPDIR": os.environ.get("TMPDIR", "/tmp")}


def _memory_and_time(run: Run, language: Language) -> dict[str, float]:
    own = run.numbers.get("peak_bytes")
    resident = run.numbers.get("rss_bytes", float(run.rss_bytes))
    taken = run.numbers.get("allocated_bytes", resident) if language.allocator else resident
    return {
        "peak_bytes": taken if own is None else own,
        "rss_bytes": resident,
        "time_ms": run.numbers.get("time_ms", 1e3 * run.cpu_s),
    }


def _medians(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {
        name: statistics.median(one[name] for one in found)
        for name in found[0]
        if all(name in one for one in found)
    }


def _fault(run: Run) -> Fault | None:
    """What went wrong; None where nothing did."""
    if run.timeout or run.signal == signal.SIGXCPU:
        return Fault(Status.TIMEOUT, f"it had not ended after {run.wall_s:.1f} s")
    if run.signal:
        fault = classify_exit(-run.signal, run.stdout)
        return replace(fault, reason=fault.reason.replace("the worker process", "it"))
    if not run.code:
        return None
    last = _telling(run.stdout, -1) or f"it exited with code {run.code}"
    reason = one_line(run.error or last)
    if _NO_MEMORY.search(run.error or run.stdout):
        return Fault(Status.OUT_OF_RESOURCES, reason)
    return Fault(Status.RUNTIME_ERROR, reason)
