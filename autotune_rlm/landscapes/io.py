"""The one face of all formats: find out which it is, open, read; write whole or not at all."""

from __future__ import annotations

import gzip
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from autotune_rlm._checks import check_all, check_path
from autotune_rlm._files import replacing
from autotune_rlm.devices import lookup
from autotune_rlm.landscapes import _csv, _kernel_tuner, _ktt, _t4, _triton_cache, jsonl
from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.types import Device

FORMATS = ("csv", "jsonl", "kernel-tuner", "t4")
"""Names of the formats that can be read and written."""
READ_ONLY = ("ktt", "triton")
"""Names of the formats that can be read alone."""

_GZIP_MAGIC = b"\x1f\x8b"


def read_landscapes(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    device: Device | str | None = None,
) -> list[Landscape]:
    """Read every landscape of a file, or of all known files directly in a folder.

    A folder without any, such as Triton's cache (``~/.triton/cache``), is searched for the timings of
    Triton's autotuner, ``<kernel>.autotune.json``, however deep they are.

    Args:
        path: File, plain or gzipped, or a folder.
        format: One of ``FORMATS`` and ``READ_ONLY``; by default found from the extension and the
            content.
        device: What was measured on, for files of Triton's autotuner, which do not say it.

    Returns:
        The landscapes in the order of the file. A Kernel Tuner or T4 file holds one.

    Raises:
        ValueError: If the content is malformed; names the file, the line and what was wrong.
        FileNotFoundError: If there is no such file.
    """
    path = check_path("path", path)
    _check_format(format, (*FORMATS, *READ_ONLY))
    device = lookup(device) if isinstance(device, str) else device
    if path.is_dir():
        files = _files_of(path)
        if not files:
            raise ValueError(
                f"{path}: no .csv, .json, .jsonl or .xml file (plain or .gz) in this folder, and no "
                f"*{_triton_cache.SUFFIX} below it"
            )
        return [
            landscape
            for file in files
            for landscape in read_landscapes(file, format, device=device)
        ]
    text = read_text(path)
    try:
        found = format or _detect(path, text)
        if found == "triton":
            return _triton_cache.parse(text, path, device)
        return _READERS[found](text, path)
    except ValueError as error:
        message = str(error)
        raise ValueError(
            message if message.startswith(str(path)) else f"{path}: {message}"
        ) from None


def write_landscapes(
    path: str | os.PathLike[str],
    landscapes: Iterable[Landscape],
    format: str | None = None,
) -> list[Path]:
    """Write landscapes to a file, gzipped where the name ends in ``.gz``.

    Kernel Tuner and T4 files hold one landscape each: for several, ``path`` becomes a folder with
    one ``.json`` file per landscape. A file is replaced whole or not touched.

    Args:
        path: Where to write.
        landscapes: What to write.
        format: One of ``FORMATS``; by default from the extension (``.csv``, ``.jsonl``).

    Returns:
        The files written.

    Raises:
        ValueError: If the format is unknown or cannot hold these landscapes.
    """
    path = check_path("path", path)
    _check_format(format)
    chosen = format or _from_suffix(path)
    if chosen in (None, "json", *READ_ONLY):
        raise ValueError(
            f"format must be given for {path.name!r}: one of {', '.join(FORMATS)} "
            "(only .csv and .jsonl tell by themselves)"
        )
    check_all("landscapes", found := list(landscapes), Landscape)
    if chosen in ("csv", "jsonl"):
        twice = [name for name, n in Counter(one.id for one in found).items() if n > 1]
        if twice:
            raise ValueError(f"landscapes must have different ids, {twice[0]!r} appears twice")
        render = _csv.render if chosen == "csv" else jsonl.render
        return [write_text(path, render(found))]
    one = _kernel_tuner.render if chosen == "kernel-tuner" else _t4.render
    if len(found) == 1 and not path.is_dir():
        return [write_text(path, one(found[0]))]
    path.mkdir(parents=True, exist_ok=True)
    names = _file_names(found)
    return [write_text(path / n, one(item)) for n, item in zip(names, found, strict=True)]


_READERS: dict[str, Callable[[str, Path], list[Landscape]]] = {
    "csv": _csv.parse,
    "jsonl": jsonl.parse,
    "kernel-tuner": _kernel_tuner.parse,
    "ktt": _ktt.parse,
    "t4": _t4.parse,
}


def _files_of(folder: Path) -> list[Path]:
    direct = [p for p in folder.iterdir() if p.is_file() and _from_suffix(p) is not None]
    return sorted(direct or folder.rglob(f"*{_triton_cache.SUFFIX}"))


def _check_format(format: str | None, known: tuple[str, ...] = FORMATS) -> None:
    if format is not None and format not in known:
        raise ValueError(f"format must be one of {', '.join(known)}, got {format!r}")


def _from_suffix(path: Path) -> str | None:
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    known = {".csv": "csv", ".jsonl": "jsonl", ".json": "json", ".xml": "ktt"}
    return known.get(suffixes[-1] if suffixes else "")


def _detect(path: Path, text: str) -> str:
    known = _from_suffix(path)
    if path.name.endswith(_triton_cache.SUFFIX):
        return "triton"
    if known == "ktt" or _ktt.is_ktt(text):
        return "ktt"
    if known in ("csv", "jsonl"):
        return known
    start = text.lstrip()[:1]
    if start != "{":
        if known == "json" or not start:
            raise ValueError(f"{path}: line 1: neither a landscape CSV nor a JSON object")
        return "csv"
    first_line = text.lstrip().split("\n", 1)[0]
    if re.match(r'\{\s*"(landscape|event|request)"', first_line):
        return "jsonl"
    if re.search(r'"cache"\s*:\s*\{', text):
        return "kernel-tuner"
    if re.search(r'"results"\s*:\s*\[', text):
        return "t4"
    raise ValueError(
        f"{path}: line 1: a JSON object without 'cache' (Kernel Tuner), 'results' (T4) or 'Results' "
        f"(KTT); give format, one of {', '.join((*FORMATS, *READ_ONLY))}"
    )


def read_text(path: Path) -> str:
    """The text of a file, gzip or not."""
    raw = path.read_bytes()
    if raw[:2] == _GZIP_MAGIC:
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path}: damaged gzip file: {error}") from None
    try:
        return raw.decode("utf-8-sig", "surrogatepass")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}: line {line}: not UTF-8: {error.reason}") from None


def write_text(path: Path, text: str) -> Path:
    """Write a file, through gzip where it ends in ``.gz``; gives its path."""
    raw = text.encode("utf-8", "surrogatepass")
    if path.suffix.lower() == ".gz":
        raw = gzip.compress(raw, mtime=0)
    with replacing(path) as draft:
        draft.write_bytes(raw)
    return path


def _file_names(landscapes: list[Landscape]) -> list[str]:
    names: list[str] = []
    taken: set[str] = set()
    for landscape in landscapes:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", landscape.id).strip("._")[:120] or "landscape"
        name, count = f"{stem}.json", 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}.json"
        taken.add(name)
        names.append(name)
    return names
