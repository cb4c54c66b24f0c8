"""The record: an append-only file of landscapes that being killed at any moment cannot corrupt.

The lines are those of the landscape JSON lines (``autotune_rlm.landscapes`` reads a record as it
is). A ``.gz`` file is a sequence of gzip members, each whole in itself and written at once; what a
kill left half written at the end is cut off when the record is opened again.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from autotune_rlm._closing import Closing
from autotune_rlm.landscapes import Landscape, read_landscapes, write_landscapes
from autotune_rlm.landscapes.jsonl import parse as parse_lines
from autotune_rlm.types import Candidate, Measurement, Observation, Task

_FLUSH_ROWS = 200
_FLUSH_S = 2.0
_LATE = "put off"


class RecordLog(Closing):
    """A record open for appending; one process at a time.

    Args:
        path: File, made with its folder where missing. Compressed where its name ends in ``.gz``.
        max_bytes: ``full`` is true once the file is about this large.

    Raises:
        BlockingIOError: Another process has it open.
        ValueError: The file is no record.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = 15_000_000) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._gzip = self.path.suffix == ".gz"
        self._file = open(self.path, "a+b")  # noqa: SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise BlockingIOError(f"{self.path} is being written by another process") from None
        self._max_bytes = max_bytes
        self.tasks: dict[str, Task] = {}  # by landscape id
        # Measured value, None for a failure, of what was recorded by landscape id and candidate key.
        self.done: dict[tuple[str, str], float | None] = {}
        self.late: set[tuple[str, str]] = set()  # not in time: to be tried again at the end
        self.rows = 0  # measurements in the file
        self._pending: list[str] = []
        self._flushed = time.monotonic()
        try:
            whole, lines = _whole_part(self.path)
            for number, line in enumerate(lines, start=1):
                self._know(line, f"{self.path}: line {number}")
        except ValueError:
            self._file.close()
            raise
        if whole < self.path.stat().st_size:
            self._file.truncate(whole)
        self.size = whole

    @property
    def full(self) -> bool:
        """Whether the file has reached its size, with what is still to be written."""
        waiting = sum(len(line) for line in self._pending) // (6 if self._gzip else 1)
        return self.size + waiting >= self._max_bytes - 65536

    def note(self, text: str, **facts: Any) -> None:
        """Write an event: readers of landscapes pass over it."""
        self._pending.append(_line({"event": text, **facts}))

    def put_off(self, name: str, candidate: Candidate) -> None:
        """Write that a candidate did not end in time here, which says nothing about it."""
        self.late.add((name, candidate.key))
        self.note(_LATE, landscape=name, candidate=candidate.key)

    def open_landscape(self, name: str, task: Task) -> None:
        """Write the task of a landscape, unless it stands there; ValueError where another one does."""
        known = self.tasks.get(name)
        if known is not None:
            if known.key != task.key:
                raise ValueError(
                    f"{self.path} has {name!r} of another version, kernel text or device; "
                    "record into another file and merge the two"
                )
            return
        self.tasks[name] = task
        self._pending.append(_line({"landscape": name, "task": task.to_json()}))

    def add(self, name: str, candidate: Candidate, measurement: Measurement) -> None:
        """Write one measurement, within two seconds or at ``flush``."""
        self.done[name, candidate.key] = measurement.value
        self.rows += 1
        row = {
            "landscape": name,
            "candidate": {k: v for k, v in candidate.to_json().items() if v},
            "measurement": _compact(measurement),
        }
        self._pending.append(_line(row))
        if len(self._pending) >= _FLUSH_ROWS or time.monotonic() - self._flushed > _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Bring everything to the disk."""
        self._flushed = time.monotonic()
        if not self._pending:
            return
        data = "".join(self._pending).encode()
        self._pending.clear()
        if self._gzip:
            data = gzip.compress(data, mtime=0)
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.size += len(data)

    def close(self) -> None:
        """Flush and give the file free."""
        if not self._file.closed:
            self.flush()
            self._file.close()

    def _know(self, line: str, where: str) -> None:
        try:
            value = dict(json.loads(line))
            if value.get("event") == _LATE:
                self.late.add((value["landscape"], value["candidate"]))
            elif "task" in value:
                self.tasks[value["landscape"]] = Task.from_json(value["task"])
            elif "measurement" in value:
                candidate = Candidate.from_json(value["candidate"])
                self.done[value["landscape"], candidate.key] = value["measurement"].get("value")
                self.rows += 1
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{where}: not a line of a record: {error!r}") from None


def read_record(*paths: str | os.PathLike[str]) -> Iterator[Landscape]:
    """The landscapes of some records or other landscape files, those of one name together.

    Where a candidate was recorded several times, a measurement that worked goes before one that
    did not, and among equals the first.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file is no record, or two have different tasks under one name.
    """
    tasks: dict[str, Task] = {}
    found: dict[str, dict[str, Observation]] = {}
    for path in map(Path, paths):
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            landscapes = parse_lines("\n".join(_whole_part(path)[1]), path)
        else:
            landscapes = read_landscapes(path)
        for landscape in landscapes:
            name, task = landscape.id, landscape.task
            if tasks.setdefault(name, task).key != task.key:
                raise ValueError(f"{path} has another task under the name {name!r}")
            known = found.setdefault(name, {})
            for seen in landscape.observations:
                before = known.get(seen.candidate.key)
                if before is None or (seen.measurement.ok and not before.measurement.ok):
                    known[seen.candidate.key] = seen
    for name, by_key in found.items():
        if by_key:
            yield Landscape.from_observations(tasks[name], by_key.values(), id=name)


def convert(paths: Iterable[str | os.PathLike[str]], out: str | os.PathLike[str]) -> int:
    """Write the landscapes of some records as a CSV (or whatever ``out`` ends in); gives its rows."""
    landscapes = list(read_record(*paths))
    write_landscapes(out, landscapes)
    return sum(len(landscape) for landscape in landscapes)


def merge(paths: Iterable[str | os.PathLike[str]], out: str | os.PathLike[str]) -> int:
    """Add to the record ``out`` what other records have and it has not; gives how much that was."""
    landscapes = list(read_record(*paths))
    with RecordLog(out, max_bytes=2**62) as log:
        before = log.rows
        for landscape in landscapes:
            log.open_landscape(landscape.id, landscape.task)
            for seen in landscape.observations:
                if (landscape.id, seen.candidate.key) not in log.done:
                    log.add(landscape.id, seen.candidate, seen.measurement)
        return log.rows - before


def _compact(measurement: Measurement) -> dict[str, Any]:
    """What differs from an empty measurement, times to five digits."""
    data = {
        k: v
        for k, v in measurement.to_json().items()
        if v not in (None, "", [], {}, 0.0) or (k == "value" and v is not None)
    }
    for name in ("value", "low", "high", "compile_s", "cost_s"):
        if name in data:
            data[name] = _short(data[name])
    if "samples" in data:
        data["samples"] = [_short(x) for x in data["samples"]]
    return data


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n"


def _whole_part(path: Path) -> tuple[int, list[str]]:
    """How many bytes of the file are whole, and their lines."""
    raw = path.read_bytes()
    if path.suffix != ".gz":
        whole = raw.rfind(b"\n") + 1
        return whole, _lines(raw[:whole], path)
    parts: list[bytes] = []
    whole = 0
    while whole < len(raw):
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(raw[whole:])
        except zlib.error as error:
            if not parts:
                raise ValueError(f"{path} is not a gzip file: {error}") from None
            break
        if not member.eof:
            break
        parts.append(part)
        whole = len(raw) - len(member.unused_data)
    return whole, _lines(b"".join(parts), path)


def _lines(data: bytes, path: Path) -> list[str]:
    try:
        return [line for line in data.decode().split("\n") if line]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no record: {error}") from None
