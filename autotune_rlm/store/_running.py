"""What a process is trying right now, noted before it begins: such a note outlives the process.

A candidate that hangs or kills the process that measures it (or the machine) leaves no measurement. Its
note stays, and the next search for the same task finds out by it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import sqlalchemy as sa

from autotune_rlm.store import _schema
from autotune_rlm.store._database import Database
from autotune_rlm.types import Candidate, Task, canonical_json, digest

_ELSEWHERE_S = 900.0
"""Seconds after which a process on another machine, which cannot be asked, counts as gone."""

_column = _schema.meta.c


@dataclass(frozen=True)
class Interrupted:
    """A candidate whose process is gone.

    Attributes:
        candidate: What it was trying.
        process: Its number and machine, for people.
        when: When it began, in seconds since the epoch.
    """

    candidate: Candidate
    process: str
    when: float


def begin(database: Database, task: Task, candidate: Candidate) -> None:
    """Note that this process is about to try ``candidate``, in place of what it noted before."""
    own = _this_process()
    name = _name(task, own)
    text = canonical_json({"candidate": candidate.to_json(), "when": time.time(), **own})

    def note(connection: sa.Connection) -> None:
        known = sa.update(_schema.meta).where(_column.key == name).values(value=text)
        if not connection.execute(known).rowcount:
            connection.execute(sa.insert(_schema.meta), {"key": name, "value": text})

    database.execute(note)


def end(database: Database, task: Task) -> None:
    """Forget what this process noted for ``task``."""
    name = _name(task, _this_process())
    database.execute(lambda c: c.execute(sa.delete(_schema.meta).where(_column.key == name)))


def interrupted(database: Database, task: Task) -> list[Interrupted]:
    """What processes were trying for ``task`` when they ended; each is told once."""
    like = _column.key.like(f"running/{task.key}/%")
    query = sa.select(_column.key, _column.value).where(like)
    nothing: list[tuple[str, str]] = []
    rows = database.read(lambda c: [(row[0], row[1]) for row in c.execute(query)], nothing)
    found, gone = [], []
    for name, text in rows:
        try:
            note = json.loads(text)
            candidate = Candidate.from_json(note["candidate"])
            if _is_alive(note):
                continue
            process = f"process {note['pid']} on {note['host']}"
            found.append(Interrupted(candidate, process, float(note["when"])))
        except (ValueError, TypeError, KeyError):
            pass
        gone.append(name)
    if gone:
        forget = sa.delete(_schema.meta).where(_column.key.in_(gone))
        database.execute(lambda c: c.execute(forget))
    return found


def _name(task: Task, process: dict[str, object]) -> str:
    return f"running/{task.key}/{digest(process)}"


def _this_process() -> dict[str, object]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot": _boot(), "pid": pid, "began": _began(pid)}


def _is_alive(note: dict[str, object]) -> bool:
    if note["host"] != socket.gethostname():
        return time.time() - float(str(note["when"])) < _ELSEWHERE_S
    return note["boot"] == _boot() and _began(int(str(note["pid"]))) == note["began"]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


def _began(pid: int) -> float | None:
    """When a process began, which tells it from a later one of the same number; None: it is gone."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None
