"""What KTT, the Kernel Tuning Toolkit, saves: JSON and XML (version 2), CSV (version 1 and a script).

Read only; KTT itself reads no other file. The names are those of its ``Source/Output`` (JsonConverters,
XmlConverters) and ``Scripts/ConvertXmlToCsv.py``: https://github.com/HiPerCoRe/KTT. The three are one
structure, which ``_landscapes`` turns into one landscape per kernel.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from autotune_rlm._json import plain, shown
from autotune_rlm.devices import lookup
from autotune_rlm.landscapes._common import TO_MS, finite, results_of
from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.types import Candidate, Measurement, Observation, Status, Task

_STATUS = {
    "Ok": Status.OK,
    "ComputationFailed": Status.RUNTIME_ERROR,
    "ValidationFailed": Status.WRONG_RESULT,
    "CompilationFailed": Status.COMPILE_ERROR,
    "DeviceLimitsExceeded": Status.OUT_OF_RESOURCES,
}
_FACTS = {  # KTT's names of what the compiler says, beside ours
    "RegistersCount": "registers",
    "LocalMemorySize": "shared_bytes",
    "PrivateMemorySize": "private_bytes",
    "ConstantMemorySize": "constant_bytes",
    "MaxWorkGroupSize": "max_threads",
}
_COLUMNS = {  # of a CSV file
    "Registers count": "RegistersCount",
    "Local memory size": "LocalMemorySize",
    "Private memory size": "PrivateMemorySize",
    "Constant memory size": "ConstantMemorySize",
    "Maximum work-group size": "MaxWorkGroupSize",
}
_HEAD = re.compile(r"Kernel name,(Computation duration \((\w+)\)|Error message)")
_SIZES = re.compile(r"(Global|Local) size( \d+)?$")
# Counters stand between the parameters and the compiler's figures; only their names tell them: those of
# Nsight Compute, of CUPTI's metrics and of AMD's GPU performance API.
_COUNTER = re.compile(
    r"\w+__[\w.]+\.\w+"
    r"|\w+_(transactions|utilization|efficiency|throughput|occupancy|hit_rate|percentage|requests"
    r"|replays|per_warp|per_request|per_cycle|fu_utilization)( \d+)?|(inst|flop)_\w+|(issued_)?ipc"
    r"|(VALU|SALU|Mem|Write)(Unit)?(Utilization|Busy|Stalled)|(Fetch|Write)Size|CacheHit|Wavefronts"
    r"|LDSBankConflict|(VALU|SALU|VFetch|SFetch|VWrite|LDS|GDS|FlatVMem|FlatLDS)Insts",
    re.ASCII,
)
_TYPED: dict[str, Callable[[str], Any]] = {
    "Int": int,
    "UnsignedInt": int,
    "Double": float,
    "Float": float,
    "Bool": lambda text: text.strip().lower() in ("true", "1"),
    "String": str,
}
Result = Mapping[str, Any]


def is_ktt(text: str) -> bool:
    """Whether a text looks like one of KTT's files."""
    start = text.lstrip()
    if start.startswith("<"):
        return "<TuningData" in start[:2000]
    if start.startswith("{"):
        return bool(re.search(r'"(KttVersion|ComputationResults)"\s*:', start))
    return bool(_HEAD.match(start))


def parse(text: str, path: Path) -> list[Landscape]:
    """The landscapes of a file, one per kernel."""
    metadata: Mapping[str, Any]
    start = text.lstrip()[:1]
    if start == "<":
        metadata, results = _of_xml(text, path)
    elif start == "{":
        metadata, results = results_of(text, path, "Metadata", "Results")
    else:
        metadata, results = _of_csv(text, path)
    unit = metadata.get("TimeUnit") or "Milliseconds"
    if str(unit).lower() not in TO_MS:
        raise ValueError(f"{path}: TimeUnit must be one of {', '.join(TO_MS)}, got {unit!r}")
    return _landscapes(metadata, results, TO_MS[unit.lower()], path)


def _landscapes(
    metadata: Mapping[str, Any], results: Iterable[Result], to_ms: float, path: Path
) -> list[Landscape]:
    found: dict[str, list[Observation]] = {}
    for number, result in enumerate(results):
        try:
            seen = _observation(result, to_ms, metadata)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path}: result {number + 1}: {_said(error)}") from None
        found.setdefault(str(result["KernelName"]), []).append(seen)
    device = lookup(str(metadata.get("Device") or path.name.split(".")[0]))
    language = str(metadata.get("ComputeApi") or "cuda").lower()
    return [
        Landscape.from_observations(
            Task(kernel=kernel, device=device, language=language), observations
        )
        for kernel, observations in found.items()
    ]


def _said(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _observation(result: Result, to_ms: float, metadata: Mapping[str, Any]) -> Observation:
    status = _STATUS.get(result["Status"])
    if status is None:
        raise ValueError(f"Status must be one of {', '.join(_STATUS)}, got {result['Status']!r}")
    config = {str(p["Name"]): p["Value"] for p in result["Configuration"]}
    value = finite(result.get("TotalDuration"))
    reason = result.get("Error", "")
    if status is Status.OK and value is None:
        status, reason = Status.RUNTIME_ERROR, "no duration"
    runs = result.get("ComputationResults") or ()
    compile_ms = [result.get("CompilationOverhead"), *(r.get("CompilationOverhead") for r in runs)]
    compiled = next((t * to_ms for t in map(finite, compile_ms) if t is not None), None)
    spent = [finite(result.get(name)) or 0.0 for name in ("TotalDuration", "TotalOverhead")]
    if status is not Status.OK:
        spent[0] = 0.0  # KTT writes the largest number for a time that there is not
    state = {"timestamp": str(metadata["Timestamp"])} if metadata.get("Timestamp") else {}
    measurement = Measurement(
        status=status,
        value=value * to_ms if status is Status.OK and value is not None else None,
        reason=reason,
        compile_s=None if compiled is None else compiled / 1e3,
        cost_s=sum(spent) * to_ms / 1e3,
        facts=_facts(runs),
        state=state,
    )
    return Observation(Candidate(config=plain(config)), measurement)


def _facts(runs: Sequence[Result]) -> dict[str, Any]:
    """What the compiler and the counters say of the first function that a configuration launches."""
    if not runs:
        return {}
    first = runs[0]
    said = first.get("CompilationData") or {}
    facts = {ours: said[name] for name, ours in _FACTS.items() if name in said}
    counters = (first.get("ProfilingData") or {}).get("Counters") or ()
    facts |= {str(c["Name"]): c["Value"] for c in counters}
    for name, ours in (("PowerUsage", "power_mw"), ("EnergyConsumption", "energy")):
        if name in first:
            facts[ours] = first[name]
    return plain(facts)


def _of_xml(text: str, path: Path) -> tuple[Mapping[str, Any], list[Result]]:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError(f"{path}: KTT writes no document type, and none is read")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: line {error.position[0]}: not XML: {error}") from None
    if root.tag != "TuningData":
        raise ValueError(f"{path}: line 1: KTT's XML begins with TuningData, got {shown(root.tag)}")
    metadata = root.find("Metadata")
    results = [_xml_result(node) for node in root.iterfind("Results/KernelResult")]
    return {} if metadata is None else metadata.attrib, results


def _xml_result(node: ElementTree.Element) -> Result:
    return {
        **_numbers(node.attrib),
        "Configuration": [_xml_pair(pair) for pair in node.iterfind("Configuration/Pair")],
        "ComputationResults": [
            {
                **_numbers(run.attrib),
                "CompilationData": _numbers(getattr(run.find("CompilationData"), "attrib", {})),
                "ProfilingData": {
                    "Counters": [
                        _numbers(c.attrib) for c in run.iterfind("ProfilingData/Counters/Counter")
                    ]
                },
            }
            for run in node.iterfind("ComputationResults/ComputationResult")
        ],
    }


def _xml_pair(node: ElementTree.Element) -> dict[str, Any]:
    kind, text = node.attrib.get("ValueType"), node.attrib.get("Value", "")
    made = _TYPED.get(kind or "")
    try:
        value = _number(text) if made is None else made(text)
    except ValueError:
        value = text
    return {"Name": node.attrib.get("Name"), "Value": value}


def _numbers(attributes: Mapping[str, str]) -> dict[str, Any]:
    names = ("KernelName", "Status", "Name", "Type", "KernelFunction")
    return {k: v if k in names else _number(v) for k, v in attributes.items()}


def _number(text: str) -> Any:
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return text


def _of_csv(text: str, path: Path) -> tuple[Mapping[str, Any], list[Result]]:
    """A CSV file: a table of results and, after an empty line, one of failures."""
    results: list[Result] = []
    header: list[str] = []
    unit = ""
    for line, row in enumerate(csv.reader(text.splitlines()), start=1):
        if not row:
            header = []
            continue
        head = _HEAD.match(",".join(row[:2]))
        if head:
            header, unit = row, head.group(2) or unit
            continue
        if not header:
            raise ValueError(f"{path}: line {line}: KTT's CSV begins with {_HEAD.pattern!r}")
        if len(row) != len(header):
            raise ValueError(
                f"{path}: line {line}: {len(row)} fields where the header has {len(header)}"
            )
        results.append(_csv_result(dict(zip(header, row, strict=True))))
    if unit not in TO_MS:
        raise ValueError(f"{path}: line 1: the unit of time must be one of {', '.join(TO_MS)}")
    return {"TimeUnit": unit}, results


def _csv_result(row: Mapping[str, str]) -> Result:
    fields = dict(_csv_fields(row))
    error = row.get("Error message")
    return {
        "KernelName": row["Kernel name"],
        "Status": "Ok" if error is None else "ComputationFailed",
        "Error": error or "",
        "TotalDuration": next(
            (_number(v) for k, v in row.items() if k.startswith("Computation duration")), None
        ),
        "Configuration": [{"Name": k, "Value": v} for k, v in fields.items() if not _is_fact(k)],
        "ComputationResults": [
            {
                "CompilationData": {
                    name: _number(row[column])
                    for column, name in _COLUMNS.items()
                    if row.get(column)
                },
                "ProfilingData": {
                    "Counters": [
                        {"Name": k, "Value": v} for k, v in fields.items() if _COUNTER.fullmatch(k)
                    ]
                },
            }
        ],
    }


def _csv_fields(row: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """The parameters and counters of a row."""
    for name, value in row.items():
        if not (name == "Kernel name" or _HEAD.match(f"Kernel name,{name}") or _SIZES.match(name)):
            yield name, _number(value)


def _is_fact(column: str) -> bool:
    """Whether a column of a CSV file is no parameter."""
    named = re.sub(r" \d+$", "", column)
    return named in _COLUMNS or column in ("Power", "Energy") or bool(_COUNTER.fullmatch(column))
