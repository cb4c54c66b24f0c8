"""What a compiled kernel needs, read from its binary: registers, spills, code size, identity.

A cubin tells its registers and stack in the ``.nv.info`` section (EIATTR_REGCOUNT,
EIATTR_FRAME_SIZE); an AMD code object in the metadata at the end of its assembly. Debug sections
(line tables, PTX text) count neither for the size of the code nor for the identity of a binary.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

_NOBITS = 8
_SVAL, _REGCOUNT, _FRAME_SIZE = 4, 0x2F, 0x11
_IGNORED = re.compile(r"\.(debug|nv_debug|rela|strtab|shstrtab|symtab|comment|note\.nv\.tkinfo)")
_AMD_FIELD = re.compile(r"\.(vgpr_count|vgpr_spill_count|sgpr_spill_count):\s+(\d+)")


class _Section(NamedTuple):
    name: str
    type: int
    size: int
    data: bytes


def binary_facts(binary: bytes, *, assembly: str = "") -> dict[str, int | str]:
    """Facts of a cubin or a code object (ELF), with the AMD assembly text where it is an AMD kernel.

    ``registers`` per thread; ``spills`` in 32-bit words per thread; ``binary_bytes`` of the whole file
    and ``code_bytes`` of the instructions; ``binary_hash`` of everything that runs. What cannot be read
    is left out.
    """
    facts: dict[str, int | str] = {"binary_bytes": len(binary)}
    try:
        sections = list(_sections(binary))
    except (struct.error, ValueError, UnicodeDecodeError):
        return {**facts, "binary_hash": hashlib.sha256(binary).hexdigest()[:16]}
    facts["code_bytes"] = sum(s.size for s in sections if s.name.startswith(".text"))
    hashed = hashlib.sha256()
    for section in sections:
        if not _IGNORED.match(section.name):
            hashed.update(f"{section.name}:{section.size};".encode())
            hashed.update(section.data)
    facts["binary_hash"] = hashed.hexdigest()[:16]
    info = next((s.data for s in sections if s.name == ".nv.info"), b"")
    counts = dict(_nv_info(info))
    if _REGCOUNT in counts:
        facts["registers"] = counts[_REGCOUNT]
        facts["spills"] = counts.get(_FRAME_SIZE, 0) // 4
    amd = {name: int(value) for name, value in _AMD_FIELD.findall(assembly)}
    if "vgpr_count" in amd:
        facts["registers"] = amd["vgpr_count"]
        facts["spills"] = amd.get("vgpr_spill_count", 0) + amd.get("sgpr_spill_count", 0)
    return facts


def _sections(elf: bytes) -> Iterator[_Section]:
    if elf[:5] != b"\x7fELF\x02":
        raise ValueError("not a 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    entry, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)

    def header(index: int) -> tuple[int, ...]:
        return struct.unpack_from("<IIQQQQIIQQ", elf, table + index * entry)

    names = header(names_index)[4]
    for index in range(count):
        name, kind, _, _, offset, size, *_ = header(index)
        start = names + name
        text = elf[start : elf.index(b"\0", start)].decode()
        data = b"" if kind == _NOBITS else elf[offset : offset + size]
        yield _Section(text, kind, size, data)


def _nv_info(data: bytes) -> Iterator[tuple[int, int]]:
    """``(attribute, largest value of any function)`` of the sized attributes."""
    values: dict[int, int] = {}
    position = 0
    while position + 4 <= len(data):
        form, attribute, size = struct.unpack_from("<BBH", data, position)
        position += 4
        if form != _SVAL:
            continue
        if attribute in (_REGCOUNT, _FRAME_SIZE) and size == 8:
            _, value = struct.unpack_from("<II", data, position)
            values[attribute] = max(values.get(attribute, 0), value)
        position += size
    yield from values.items()
