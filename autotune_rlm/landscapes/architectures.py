"""Tables of measured neural architectures: accuracy, latency and cost by network.

Reads the published benchmark tables as plain CSV (``.csv`` or ``.csv.gz``): NAS-Bench-201
(``arch_str``), NAS-Bench-101 (``adjacency``, ``ops``), FBNet (``op_idx``), MnasNet-style
(``block0_e`` ...) and NAS-Bench-Macro (eight digits). Rows that give the same network once unreachable
parts are dropped are one network with the mean of their values.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TextIO

import numpy as np

from autotune_rlm._checks import check_path
from autotune_rlm._json import is_drawn
from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.landscapes._network_fields import fields_of
from autotune_rlm.landscapes.columns import column_task, maximised
from autotune_rlm.networks.fields import FIELDS
from autotune_rlm.networks.rendering import network_candidate
from autotune_rlm.networks.spaces import ArchitectureSpace, space
from autotune_rlm.types import Candidate, Measurement, Status, canonical_json

__all__ = ["ArchitectureTable", "is_reserved", "maximised", "read_architectures"]

COSTS = ("parameters", "macs", "activation_bytes", "depth")

_KEYS = {  # column that tells the space, columns that are no targets
    "nasbench201": ("arch_str", {"idx", "arch_str"}),
    "nasbench101": ("adjacency", {"hash", "n_vertices", "adjacency", "ops"}),
    "fbnet": ("op_idx", {"idx", "op_idx", "arch"}),
    "mnasnet": ("block0_e", {"id"}),
    "nasbench_macro": ("arch", {"idx", "id", "arch"}),
}
_FROM_SHAPES = frozenset({"macs", "params", "trainable_parameters"})
_UNMEASURED = -1.0


@dataclass(frozen=True)
class ArchitectureTable:
    """Networks of one space with what was measured of each.

    Attributes:
        space: Their space.
        configs: Canonical configurations of the n distinct networks.
        targets: Measured values by column, float64 of shape (n,); NaN where not measured.
        name: Name of the table.
    """

    space: ArchitectureSpace
    configs: tuple[dict[str, Any], ...]
    targets: Mapping[str, np.ndarray]
    name: str = ""

    def __len__(self) -> int:
        return len(self.configs)

    def target(self, column: str) -> np.ndarray:
        """The values of a column, shape (n,).

        Raises:
            ValueError: The table has no such column.
        """
        if column not in self.targets:
            raise ValueError(
                f"target: table {self.name!r} has no column {column!r}; it has "
                f"{sorted(self.targets)}"
            )
        return self.targets[column]

    @cached_property
    def fields(self) -> tuple[dict[str, float], ...]:
        """The numbers that every network has, of each network; see ``networks.network_fields``."""
        rows = fields_of(self.space, self.configs)
        return tuple(dict(zip(FIELDS, row.tolist(), strict=True)) for row in rows)

    @cached_property
    def costs(self) -> tuple[dict[str, int], ...]:
        """Parameters, MACs, bytes of activations and depth of each network."""
        return tuple({name: int(fields[name]) for name in COSTS} for fields in self.fields)

    def take(self, rows: Sequence[int] | np.ndarray) -> ArchitectureTable:
        """The table of the networks at ``rows``."""
        rows = np.asarray(rows)
        chosen = tuple(self.configs[i] for i in np.arange(len(self))[rows])
        targets = {name: values[rows] for name, values in self.targets.items()}
        taken = ArchitectureTable(self.space, chosen, targets, self.name)
        if "fields" in self.__dict__:
            taken.__dict__["fields"] = tuple(self.fields[i] for i in np.arange(len(self))[rows])
        return taken

    def without(self, columns: Sequence[str]) -> ArchitectureTable:
        """The table without some of its columns."""
        left = {name: values for name, values in self.targets.items() if name not in columns}
        return replace(self, targets=left)

    def split(self, share: float) -> tuple[ArchitectureTable, ArchitectureTable]:
        """What a recipe's ``reserve`` of that share trains on, and what it never trains on.

        Raises:
            ValueError: Either is empty.
        """
        kept = np.array([is_reserved(config, share) for config in self.configs])
        if kept.all() or not kept.any():
            raise ValueError(
                f"reserved: a share of {share} keeps {kept.sum()} of the {len(self)} networks of "
                f"{self.name!r} out of training"
            )
        return self.take(np.flatnonzero(~kept)), self.take(np.flatnonzero(kept))

    def landscapes(
        self,
        columns: Sequence[str] | None = None,
        *,
        unnamed: bool = False,
        texts: bool = False,
    ) -> list[Landscape]:
        """One landscape per measured column, of the networks that have a value in it.

        Tasks and candidates are worded by ``networks.rendering``, as ``integrations.onnx`` words
        them. Accuracies are in per cent, whatever the table's unit.

        Args:
            columns: By default all but those that shapes alone tell (parameters, MACs).
            unnamed: Whether to give each column once more as that of networks of no known space,
                without their choices.
            texts: Whether the networks come with their ONNX texts.
        """
        if columns is None:
            columns = [c for c in self.targets if c not in _FROM_SHAPES]
        words = [self.space.text(c) for c in self.configs] if texts else [""] * len(self)
        named = [
            network_candidate(fields, config, text=text)
            for config, fields, text in zip(self.configs, self.fields, words, strict=True)
        ]
        found = [x for c in columns if (x := self._landscape(c, named, named=True))]
        if unnamed:
            plain = [
                network_candidate(fields, text=text)
                for fields, text in zip(self.fields, words, strict=True)
            ]
            found += [x for c in columns if (x := self._landscape(c, plain, named=False))]
        return found

    def _landscape(
        self, column: str, candidates: Sequence[Candidate], *, named: bool
    ) -> Landscape | None:
        values = self.target(column)
        rows = np.flatnonzero(np.isfinite(values))
        if not len(rows):
            return None
        task = column_task(column, self.space.name, named=named)
        if task.metric.startswith("accuracy") and values[rows].max() <= 1.0:
            values = 100.0 * values
        name = f"{self.name or self.space.name}/{column}"
        return Landscape(
            task=task,
            candidates=tuple(candidates[int(i)] for i in rows),
            measurements=tuple(Measurement(status=Status.OK, value=float(values[i])) for i in rows),
            id=name if named else f"{name}/unnamed",
        )


def is_reserved(config: Mapping[str, Any], share: float) -> bool:
    """Whether a network belongs to the share that is never trained on, drawn by a hash."""
    return is_drawn(canonical_json(dict(config)), share)


def read_architectures(
    path: str | os.PathLike[str], *, space_name: str | None = None
) -> ArchitectureTable:
    """Read a table of architectures.

    Args:
        path: A CSV file, gzipped or not, with a header.
        space_name: Name of the space (``"nasbench201"``, ``"nasbench101"``, ``"fbnet"``,
            ``"mnasnet"``, ``"nasbench_macro"``); by default told from the columns.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The space cannot be told from the columns, or a row is not of the space; the
            error names the row.
    """
    path = check_path("path", path)
    opener = gzip.open if path.suffix == ".gz" else open
    file: TextIO
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        header = list(reader.fieldnames or ())
        rows = list(reader)
    if not rows:
        raise ValueError(f"{path.name}: the table has no rows")
    known = space(space_name or _space_of(header, rows[0], path.name))
    aside = _KEYS[known.name][1] | set(known.parameters)
    parsed, places = _merge(known, rows, path.name)
    count = len(parsed)
    targets = {}
    for column in header:
        if column in aside:
            continue
        values = [_number(row[column]) for row in rows]
        if values.count(None) == len(values):
            continue
        column_values = np.array([math.nan if v is None else v for v in values])
        if np.nanmin(column_values) >= _UNMEASURED:
            column_values[column_values == _UNMEASURED] = math.nan
        targets[column] = _mean_by(column_values, places, count)
    name = path.name.split(".")[0]
    return ArchitectureTable(known, tuple(parsed), targets, name)


def _space_of(header: Sequence[str], row: Mapping[str, str], name: str) -> str:
    for space_name, (column, _) in _KEYS.items():
        if column in header and space_name != "nasbench_macro":
            return space_name
    if any(len(v or "") == 8 and set(v) <= set("012") for v in row.values()):
        return "nasbench_macro"
    raise ValueError(f"{name}: no known space has the columns {list(header)}; name it")


def _merge(
    known: ArchitectureSpace, rows: Sequence[Mapping[str, str]], name: str
) -> tuple[list[dict[str, Any]], np.ndarray]:
    configs: list[dict[str, Any]] = []
    index: dict[str, int] = {}
    places = np.empty(len(rows), dtype=int)
    for i, row in enumerate(rows):
        try:
            config = known.canonical(known.parse(row))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{name}: row {i + 2} is not of {known.name}: {error}") from None
        key = canonical_json(config)
        if key not in index:
            index[key] = len(configs)
            configs.append(config)
        places[i] = index[key]
    return configs, places


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _mean_by(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    known = np.isfinite(values)
    total = np.bincount(places[known], values[known], count)
    times = np.bincount(places[known], minlength=count)
    with np.errstate(invalid="ignore"):
        return np.where(times > 0, total / np.maximum(times, 1), np.nan)
