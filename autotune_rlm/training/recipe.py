"""Recipes: everything that decides what a trained surrogate becomes, in one YAML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from autotune_rlm._checks import check_path
from autotune_rlm.surrogate.backbone import backbone_config
from autotune_rlm.surrogate.network import NetworkConfig

__all__ = ["Holdout", "Recipe", "Source"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One data set of the mixture.

    Attributes:
        path: File in a format that ``landscapes.read_landscapes`` knows, or a table of architectures;
            relative to the recipe's ``root``, or to the recipe file where it begins with a dot.
        weight: Share of the steps; None for its share of candidates to the power of the recipe's
            ``temperature``.
        format: ``"landscapes"``: landscape CSV, Kernel Tuner cache, T4 or JSON lines; ``"store"``: a
            store's file or URL; ``"architectures"``: a table of networks; ``"regression"``: a table of
            texts and numbers as ``Code-Regression`` and ``GraphArch-Regression``.
        reserve: Share of a table's networks that is never trained on, drawn by a hash.
        live: Whether tasks are also rendered as the decorator renders a live Triton matmul, with
            source and tensors.
        options: Arguments of the format's reader.
        facts: File with the compiler's facts of the candidates (``FactsTable``), if they are to be
            read; relative to the recipe file where it begins with a dot.
        texts: Whether the candidates' texts are read. Of a table of architectures: the ONNX texts.
        sequence: Whether all columns of a table of architectures are learnt as one sequence.
        numbers: Whether values are learnt as absolute numbers (``metrics.NumberScale``), as of
            programs, and not as slow-downs over the best of their task.
    """

    path: str
    weight: float | None = None
    format: str = "landscapes"
    live: bool = False
    reserve: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    facts: str | None = None
    texts: bool = False
    sequence: bool = False
    numbers: bool = False


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """What is kept out of training, always whole landscapes.

    Attributes:
        shapes: Fraction of the problems of a source with many problems, drawn by a hash.
        devices: Names of devices.
        kernels: Names of kernels.
        ids: Prefixes of landscape ids.
        salt: Of the hash that draws the problems: another salt is another split.
    """

    shapes: float = 0.0
    devices: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    salt: str = ""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run.

    Attributes:
        name: Name of the surrogate.
        sources: The mixture.
        root: Folder that the sources' paths start from, relative to the recipe file.
        holdout: What is kept out.
        network: Arguments of ``NetworkConfig``.
        tokenizer: Path of a ``tokenizer.json``, relative to the recipe file; None to train one.
        steps: Optimiser steps; the learning rate falls to zero over them.
        minutes: Wall-clock limit; where it comes first, the schedule follows the clock.
        tasks: Landscapes per batch.
        candidates: Candidates per landscape in a batch.
        texts: Candidates of a batch in which their texts are read.
        only: Parts of the network that are trained, by the beginning of their parameters' names, such
            as ``"text."``; the others stay as they are. Empty for all.
        lr: Peak learning rate.
        weight_decay: Of AdamW.
        warmup: Steps of linear warm-up.
        smoothing: Standard deviation of the soft target, in bins.
        top: Share of a large landscape's sample drawn from its best twentieth.
        mined: Share drawn from what the network takes for its best hundredth, see ``mining``.
        drop: Rate at which shared fields are hidden, so that none is relied on alone.
        average: Decay of the averaged weights that are kept in the end.
        temperature: Exponent of the sizes of sources without a weight.
        seed: Of everything random.
    """

    name: str
    sources: tuple[Source, ...]
    root: str = "."
    holdout: Holdout = field(default_factory=Holdout)
    network: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    steps: int = 10_000
    minutes: float | None = None
    tasks: int = 16
    candidates: int = 32
    texts: int = 48
    only: tuple[str, ...] = ()
    lr: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 200
    smoothing: float = 1.5
    top: float = 0.25
    mined: float = 0.25
    drop: float = 0.05
    average: float = 0.998
    temperature: float = 0.5
    seed: int = 0

    def network_config(self, **overrides: Any) -> NetworkConfig:
        """The network's sizes."""
        sizes = {**dict(self.network), **overrides}
        if self.backbone is not None:
            sizes["backbone"] = backbone_config(self.backbone)
        return NetworkConfig(**sizes)

    @property
    def backbone(self) -> str | None:
        """Folder of the pretrained encoder that reads the candidates' texts."""
        path = self.network.get("backbone")
        return path if isinstance(path, str) else None

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a YAML file.

        ``extends: OTHER.yaml`` takes all keys of another recipe in the same folder that are not
        given here; those of ``network`` and ``holdout`` one by one.

        Raises:
            ValueError: A key is unknown or a value has the wrong kind.
        """
        path = check_path("path", path)
        data = _extended(path)
        if "sources" not in data:
            raise ValueError(f"{path}: a recipe is a mapping with 'name' and 'sources'")
        data["sources"] = tuple(
            _build(Source, _beside(path, s), f"{path}: sources") for s in data["sources"]
        )
        holdout = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.get("holdout", {}).items()
        }
        data["holdout"] = _build(Holdout, holdout, f"{path}: holdout")
        data["only"] = tuple(data.get("only", ()))
        data.setdefault("name", path.stem)
        data["root"] = str((path.parent / data.get("root", ".")).resolve())
        encoder = dict(data.get("network", {})).get("backbone")
        if isinstance(encoder, str) and (path.parent / encoder).is_dir():
            encoder = str((path.parent / encoder).resolve())
            data["network"] = {**data["network"], "backbone": encoder}
        if data.get("tokenizer"):
            data["tokenizer"] = str((path.parent / data["tokenizer"]).resolve())
        return _build(cls, data, str(path))


def _extended(path: Path) -> dict[str, Any]:
    data = yaml.safe_load(path.read_text())
    if not isinstance(data, dict):
        raise ValueError(f"{path}: a recipe is a mapping with 'name' and 'sources'")
    other = data.pop("extends", None)
    if other is None:
        return data
    if not isinstance(other, str) or Path(other).name != other or other == path.name:
        raise ValueError(
            f"{path}: extends must name another recipe of the same folder, got {other!r}"
        )
    before = _extended(path.parent / other)
    for key in ("network", "holdout"):
        if key in before and key in data:
            data[key] = {**before[key], **data[key]}
    return {**before, **data}


def _beside(recipe: Path, source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: str((recipe.parent / value).resolve())
        if key in ("path", "facts") and str(value)[:1] == "."
        else value
        for key, value in source.items()
    }


def _build(kind: Any, data: Mapping[str, Any], where: str) -> Any:
    known = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; known are {sorted(known)}")
    return kind(**data)
