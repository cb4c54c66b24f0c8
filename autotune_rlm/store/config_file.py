"""Recommended configurations as a JSON file: kernels, devices and problems, best configuration first.

Written by ``autotune-rlm rank`` for devices that nobody has, by ``autotune-rlm tune`` for the one at
hand and by ``autotune-rlm store export --format configs`` for what is stored; read by
``rlm_autotune(configs_from=...)``. One file holds many kernels and many devices. A file named ``SHIPPED``
beside a kernel's module is found without being named.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autotune_rlm._version import __version__
from autotune_rlm.devices import distance, lookup
from autotune_rlm.store import means_none, problem_distance
from autotune_rlm.types import Observation, Task, canonical_json

__all__ = [
    "FORMAT",
    "SHIPPED",
    "VERSION",
    "ConfigFile",
    "Recommendation",
    "RecommendedConfig",
    "read_configs",
    "shipped_with",
]

_log = logging.getLogger(__name__)
SHIPPED = "autotune_rlm.json"
"""Name of the file that a package of kernels ships, in the folder of the kernels or of the package."""
FORMAT = "autotune_rlm/configs"
"""What the key `format` of a file of recommended configurations says."""
VERSION = 1
"""The newest version of the format that this package reads, and the one that it writes."""
_ORIGINS = ("model", "measured")
_OTHER_SOURCE = 1000.0  # a recommendation for another version of the kernel comes last
_OTHER_DTYPE = 4.0
_FARTHEST = 4.0  # between devices, beyond which the model knows better: an architecture at most


@dataclass(frozen=True, kw_only=True)
class RecommendedConfig:
    """One configuration and what is known of it.

    Attributes:
        config: Parameters by name, ``num_warps`` and ``num_stages`` among them.
        time_ms: Predicted or measured milliseconds.
        low_ms: Lower end of the interval.
        high_ms: Upper end.
        p_fails: Probability that it does not work; 0.0 where it was measured.
    """

    config: Mapping[str, Any]
    time_ms: float
    low_ms: float | None = None
    high_ms: float | None = None
    p_fails: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The configurations to use for one kernel, device and problem.

    Attributes:
        kernel: The kernel's name.
        device: The device's canonical name, such as ``"NVIDIA H100"``.
        problem: Arguments by name, as in ``Task.problem``; ``"dtype"`` stands for all tensors.
        configs: Best first; at least one.
        origin: ``"model"`` or ``"measured"``.
        module: Where the kernel is defined, for people.
        source_hash: ``Task.source_hash`` of the kernel.
        key: Names of the arguments that a choice depends on.
        versions: Such as ``{"triton": "3.9"}``.
    """

    kernel: str
    device: str
    problem: Mapping[str, Any]
    configs: tuple[RecommendedConfig, ...]
    origin: str = "model"
    module: str = ""
    source_hash: str = ""
    key: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def measured(
        cls,
        task: Task,
        observations: Sequence[Observation],
        *,
        key: Sequence[str] = (),
        module: str = "",
        top: int = 4,
    ) -> Recommendation | None:
        """The fastest of what was measured; None where nothing worked.

        Args:
            task: What was measured.
            observations: Its measurements.
            key: Names of the arguments that a choice depends on.
            module: Where the kernel is defined.
            top: How many configurations to recommend.
        """
        working = [o for o in observations if o.measurement.value is not None]
        working.sort(key=lambda o: o.measurement.value or 0.0)
        if not working:
            return None
        return cls(
            kernel=task.kernel,
            device=task.device.name,
            problem=dict(task.problem),
            origin="measured",
            module=module,
            source_hash=task.source_hash,
            key=tuple(key),
            versions=dict(task.versions),
            configs=tuple(
                RecommendedConfig(
                    config=dict(o.candidate.config),
                    time_ms=float(o.measurement.value or 0.0),
                    low_ms=o.measurement.low,
                    high_ms=o.measurement.high,
                )
                for o in working[:top]
            ),
        )

    def describe(self, key: Sequence[str] = ()) -> str:
        """What it was found for, in words: origin, device and the sizes that a choice depends on."""
        sizes, kinds = _parts(self.problem)
        names = [name for name in (key or self.key) if name in sizes] or sorted(sizes)
        told = [f"{name}={sizes[name]}" for name in names[:6] if name != "grid"]
        told += sorted({str(kind) for kind in kinds.values()})
        how = "measured" if self.origin == "measured" else "predicted"
        return f"{how} for {self.device}" + (f" with {', '.join(told)}" if told else "")

    @property
    def identity(self) -> str:
        """What a newer recommendation takes the place of."""
        return canonical_json(
            [self.kernel, self.module, lookup(self.device).name, dict(self.problem)]
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        told = {**asdict(self), "key": list(self.key), "configs": [asdict(c) for c in self.configs]}
        return {name: told[name] for name in sorted(told, key=list(_FIELDS).index)}

    def distance(self, task: Task, key: Sequence[str] = ()) -> float:
        """How far this problem is from a task's; 0.0 where the key arguments and dtypes are equal.

        Args:
            task: The task.
            key: Names of the arguments that count; all that both know where empty.
        """
        sizes, kinds = _parts(self.problem)
        other_sizes, other_kinds = _parts(task.problem)
        shared = sizes.keys() & other_sizes.keys()
        named = [name for name in (key or self.key) if name in shared] or sorted(shared)
        gap = problem_distance({n: sizes[n] for n in named}, {n: other_sizes[n] for n in named})
        general = kinds.pop("dtype", None)
        if general is not None and other_kinds and general not in other_kinds.values():
            gap += _OTHER_DTYPE
        gap += _OTHER_DTYPE * sum(
            kinds[name] != other_kinds[name] for name in kinds.keys() & other_kinds.keys()
        )
        return gap + _OTHER_SOURCE * (self.source_hash not in ("", task.source_hash))


class ConfigFile:
    """Recommendations, at most one per kernel, module, device and problem.

    Args:
        recommendations: Later ones take the place of earlier ones.
    """

    def __init__(self, recommendations: Iterable[Recommendation] = ()) -> None:
        self._by_identity = {r.identity: r for r in recommendations}

    def __len__(self) -> int:
        return len(self._by_identity)

    @property
    def recommendations(self) -> list[Recommendation]:
        """All of them, by kernel, device and problem."""
        return [self._by_identity[identity] for identity in sorted(self._by_identity)]

    def merged(self, other: ConfigFile) -> ConfigFile:
        """These and ``other``'s, which win."""
        return ConfigFile([*self.recommendations, *other.recommendations])

    def find(self, task: Task, key: Sequence[str] = ()) -> list[RecommendedConfig]:
        """The configurations recommended for a task's kernel and device, best first.

        Those of the nearest problem come first, then those of the next. Where there is none for the
        device, those of the nearest device count (``devices.distance``). A kernel is known by its name;
        recommendations for the very source come before those for another version of it.

        Args:
            task: What to choose for.
            key: See ``Recommendation.distance``.
        """
        found: dict[str, RecommendedConfig] = {}
        for recommendation in self.nearest(task, key):
            for config in recommendation.configs:
                found.setdefault(canonical_json(dict(config.config)), config)
        return list(found.values())

    def nearest(self, task: Task, key: Sequence[str] = ()) -> list[Recommendation]:
        """The recommendations that ``find`` takes, the nearest problem first."""
        device = lookup(task.device.name)
        if not device.target:
            device = task.device
        mine = [r for r in self._by_identity.values() if r.kernel == task.kernel]
        apart = {name: distance(device, lookup(name)) for name in {r.device for r in mine}}
        least = min(apart.values(), default=_FARTHEST)
        fit = [r for r in mine if apart[r.device] == least] if least < _FARTHEST else []
        return sorted(
            fit, key=lambda r: (r.distance(task, key), r.origin != "measured", r.identity)
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "written_by": f"autotune_rlm {__version__}",
            "recommendations": [r.to_json() for r in self.recommendations],
        }

    @classmethod
    def from_json(cls, data: Any, *, where: str = "the file") -> ConfigFile:
        """The inverse of ``to_json``.

        Args:
            data: Parsed JSON.
            where: What errors name.

        Raises:
            ValueError: It is not of this format, of a newer version, or an entry is wrong; the
                message names the entry.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(
                f"{where} holds no recommended configurations: expected an object with "
                f'"format": "{FORMAT}"; autotune-rlm rank --out makes such a file'
            )
        version = data.get("version")
        if version != VERSION:
            raise ValueError(
                f"{where} has version {version!r} of the format and this package knows {VERSION}; "
                "upgrade autotune-rlm or write the file again"
            )
        listed = data.get("recommendations")
        if not isinstance(listed, list):
            raise ValueError(f"{where}: recommendations must be a list, got {listed!r:.60}")
        return cls(_read(entry, f"{where}: recommendations[{i}]") for i, entry in enumerate(listed))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ConfigFile:
        """Read a file.

        Raises:
            FileNotFoundError: There is none.
            ValueError: It is no JSON, or not of this format.
        """
        path = Path(path).expanduser()
        try:
            data = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"no recommended configurations at {path}; autotune-rlm rank --out makes such a file"
            ) from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is no JSON: {error}") from None
        return cls.from_json(data, where=str(path))

    def save(self, path: str | os.PathLike[str], *, merge: bool = True) -> ConfigFile:
        """Write a file in one step, so that a reader sees the old one or the new one.

        Args:
            path: Where to.
            merge: Whether what the file already holds is kept where these say nothing else.

        Returns:
            What the file holds now.

        Raises:
            ValueError: ``merge`` and the file that is there is not of this format.
        """
        from filelock import FileLock

        path = Path(path).expanduser().absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        with lock:
            whole = ConfigFile.load(path).merged(self) if merge and path.exists() else self
            scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                scratch.write_text(json.dumps(whole.to_json(), indent=1) + "\n", "utf-8")
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)
        return whole


def read_configs(given: Any) -> ConfigFile | None:
    """The recommendations that an argument ``configs_from`` means; files are read once per change.

    Args:
        given: None; a ``ConfigFile``; a path; several as a list, or in one string separated like
            ``PATH``. Later files win. ``"none"`` and an empty list are a file without any.

    Raises:
        TypeError: It is none of these.
        FileNotFoundError: A file is not there.
        ValueError: A file is not of the format.
    """
    if given is None or isinstance(given, ConfigFile):
        return given
    if isinstance(given, str):
        given = [] if means_none(given) else given
    if isinstance(given, str):
        given = [path for path in given.split(os.pathsep) if path]
    elif isinstance(given, os.PathLike):
        given = [given]
    if not isinstance(given, (list, tuple)) or not all(
        isinstance(path, (str, os.PathLike)) for path in given
    ):
        raise TypeError(f"configs_from must be a path, several, or a ConfigFile, got {given!r}")
    whole = ConfigFile()
    for path in given:
        path = os.path.abspath(os.path.expanduser(path))
        changed = os.stat(path).st_mtime_ns if os.path.exists(path) else 0
        whole = whole.merged(_loaded(path, changed)) if len(given) > 1 else _loaded(path, changed)
    return whole


def shipped_with(source: str | None) -> tuple[Path, ConfigFile] | None:
    """The file that a package ships for its kernels, and where it is; None where there is none.

    It is looked for beside the kernel's own file, then in the folders above as far as the package goes.
    A file that cannot be read costs one warning and nothing else: the caller did not ask for it.

    Args:
        source: The Python file that defines the kernel.
    """
    if not source or source.startswith("<"):
        return None
    path = _shipped_path(str(Path(source).parent))
    if path is None:
        return None
    try:
        return path, _loaded(str(path), os.stat(path).st_mtime_ns)
    except (OSError, ValueError) as error:
        _warn(str(path), str(error))
        return None


@functools.lru_cache(maxsize=1024)
def _shipped_path(folder: str) -> Path | None:
    place = Path(folder)
    for _ in range(16):
        if (place / SHIPPED).is_file():
            return place / SHIPPED
        if not (place / "__init__.py").is_file():
            break
        place = place.parent
    return None


@functools.lru_cache(maxsize=64)
def _warn(path: str, reason: str) -> None:
    _log.warning("the configurations in %s are not used: %s", path, reason)


@functools.lru_cache(maxsize=32)
def _loaded(path: str, changed: int) -> ConfigFile:
    return ConfigFile.load(path)


_FIELDS: Mapping[str, tuple[type, ...]] = {
    "kernel": (str,),
    "module": (str,),
    "source_hash": (str,),
    "key": (list,),
    "device": (str,),
    "problem": (dict,),
    "origin": (str,),
    "versions": (dict,),
    "configs": (list,),
}
_CONFIG_FIELDS: Mapping[str, tuple[type, ...]] = {
    "config": (dict,),
    "time_ms": (int, float),
    "low_ms": (int, float, type(None)),
    "high_ms": (int, float, type(None)),
    "p_fails": (int, float),
}


def _read(entry: Any, where: str) -> Recommendation:
    fields = _checked(entry, _FIELDS, ("kernel", "device", "problem", "configs"), where)
    if not fields["kernel"] or not fields["device"].strip():
        raise ValueError(f"{where}: kernel and device must not be empty")
    if fields.get("origin", "model") not in _ORIGINS:
        raise ValueError(f"{where}: origin must be one of {', '.join(_ORIGINS)}")
    if not all(isinstance(name, str) for name in fields.get("key", ())):
        raise ValueError(f"{where}: key must be a list of names of arguments")
    if not fields["configs"]:
        raise ValueError(f"{where}: configs must hold at least one configuration")
    configs = []
    for i, config in enumerate(fields["configs"]):
        place = f"{where}.configs[{i}]"
        known = _checked(config, _CONFIG_FIELDS, ("config", "time_ms"), place)
        odd = [n for n, v in known["config"].items() if not _is_scalar(v)]
        if odd:
            raise ValueError(f"{place}: {', '.join(odd)} must be numbers, words or truth values")
        configs.append(RecommendedConfig(**known))
    fields["key"] = tuple(fields.get("key", ()))
    return Recommendation(**{**fields, "configs": tuple(configs)})


def _checked(
    entry: Any, kinds: Mapping[str, tuple[type, ...]], needed: Sequence[str], where: str
) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be an object, got {entry!r:.60}")
    lacking = [name for name in needed if name not in entry]
    if lacking:
        raise ValueError(f"{where} lacks {', '.join(lacking)}")
    for name, types in kinds.items():
        value = entry.get(name, None)
        if name in entry and (not isinstance(value, types) or isinstance(value, bool)):
            expected = " or ".join(t.__name__ for t in types)
            raise ValueError(f"{where}: {name} must be {expected}, got {value!r:.60}")
    return {name: entry[name] for name in kinds if name in entry}


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list))


def _parts(problem: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plain values by name, and dtypes of tensors by name."""
    kinds = {n: v.get("dtype") for n, v in problem.items() if isinstance(v, Mapping)}
    plain = {n: v for n, v in problem.items() if n not in kinds}
    if "dtype" in plain:
        kinds["dtype"] = plain.pop("dtype")
    return plain, kinds
