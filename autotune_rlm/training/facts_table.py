"""The compiler's facts of recorded configurations, kept in a file, so that training needs no compiler."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune_rlm.ir import KernelFacts, NotRead, on_device, target_of
from autotune_rlm.surrogate.programs import Programs, options_of
from autotune_rlm.surrogate.text import normalise_name
from autotune_rlm.types import Candidate, Task, canonical_json, digest

__all__ = ["FactsTable"]

_NOT_READ = frozenset({"num_warps", "num_stages", "num_ctas", "group_m"})
"""Parameters that change no fact of the first IR."""


class FactsTable:
    """Facts by kernel, problem, target and tile; what is missing is read from programs.

    Args:
        programs: What is asked for facts that are not in the table; None for none.
    """

    def __init__(self, programs: Programs | None = None) -> None:
        self.programs = programs
        self._texts: dict[str, str] = {}
        self._rows: dict[str, KernelFacts | None] = {}

    def __len__(self) -> int:
        return len(self._texts)

    @classmethod
    def load(cls, path: str | os.PathLike[str], programs: Programs | None = None) -> FactsTable:
        """Read a file that ``save`` wrote; an empty table where there is none."""
        table = cls(programs)
        if Path(path).exists():
            with gzip.open(path, "rt", encoding="utf-8") as file:
                for line in file:
                    key, _, text = line.rstrip("\n").partition(" ")
                    table._texts[key] = text
        return table

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table, rows with like facts beside each other."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        rows = sorted(self._texts.items(), key=lambda item: item[1])
        with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
            file.write("".join(f"{key} {text}\n" for key, text in rows).encode())

    def key(self, task: Task, config: Mapping[str, Any]) -> str:
        """What the facts of a configuration are kept under."""
        tile = {normalise_name(str(k)): v for k, v in config.items()}
        tile = {k: v for k, v in tile.items() if k not in _NOT_READ}
        return digest([task.kernel, dict(task.problem), target_of(task.device), tile])

    def add(self, task: Task, config: Mapping[str, Any], facts: KernelFacts | None) -> None:
        """Keep facts; None where the front end refuses the configuration."""
        key = self.key(task, config)
        self._texts[key] = "" if facts is None else canonical_json(_short(facts.to_json()))
        self._rows[key] = facts

    def facts(self, task: Task, config: Mapping[str, Any]) -> KernelFacts | None:
        """Facts of a configuration; None where they are not known."""
        key = self.key(task, config)
        if key not in self._texts:
            if self.programs is None or task.kernel not in self.programs:
                return None
            try:
                self.add(task, config, self.programs.facts(task, config))
            except NotRead:
                self.add(task, config, None)
        if key not in self._rows:
            text = self._texts[key]
            self._rows[key] = KernelFacts.from_json(json.loads(text)) if text else None
        return self._rows[key]

    def candidate(self, task: Task, candidate: Candidate) -> Candidate:
        """The candidate with its numbers on the task's device; as it is where they are not known."""
        facts = self.facts(task, candidate.config)
        if facts is None:
            return candidate
        numbers = on_device(facts, task.device, **options_of(candidate.config))
        return Candidate(candidate.config, candidate.text, facts=numbers)


def _short(value: Any) -> Any:
    """Numbers with six digits, so that equal facts are equal texts."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {k: _short(v) for k, v in value.items()}
    return [_short(v) for v in value] if isinstance(value, (list, tuple)) else value
