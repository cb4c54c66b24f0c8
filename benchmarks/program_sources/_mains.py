"""Puts a ``main`` around a solution that is one function: calls it on given inputs and reports what it took.

Each ``main`` calls the function once to warm up and five times on fresh arguments for each input. It
reports ``call_bytes``, the bytes that the runtime's own counters see (the peak in C++, Rust and PHP; all
that was allocated where memory is collected), and ``call_ms``, the least of the five times; both are means
over the inputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from _templates import CPP, CSHARP, GO, JAVA, JAVASCRIPT, PHP, PYTHON, RUST

__all__ = ["WRAPPERS", "NotWrapped"]


class NotWrapped(ValueError):
    """The solution's signature is not understood, or an input has no literal of its type."""


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def _split(text: str) -> list[str]:
    """Parts between commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        depth += letter in "<([{"
        depth -= letter in ">)]}"
        if letter == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def _signature(pattern: str, text: str, inputs: Sequence[Sequence[Any]]) -> tuple[str, list[str]]:
    """The function's name and its parameters; ``pattern`` has both as groups."""
    for found in re.finditer(pattern, text):
        parameters = _split(found.group(2))
        if len(parameters) == len(inputs[0]):
            return found.group(1), parameters
    raise NotWrapped("no such function")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise NotWrapped(f"no text: {value!r}")
    return json.dumps(value)


def _number(value: Any, most: float = 2**31) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < most:
        raise NotWrapped(f"no number: {value!r}")
    return repr(value)


def _letter(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 1:
        raise NotWrapped(f"no letter: {value!r}")
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _truth(value: Any) -> str:
    if not isinstance(value, bool):
        raise NotWrapped(f"no truth value: {value!r}")
    return str(value).lower()


_SCALARS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("int", "i32", "i64", "long", "long long", "int64", "u32", "usize"), _number),
    **dict.fromkeys(("double", "f64", "float64"), lambda value: repr(float(_number(value)))),
    **dict.fromkeys(("string", "String", "str"), _text),
    **dict.fromkeys(("char", "byte"), _letter),
    **dict.fromkeys(("bool", "boolean"), _truth),
}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise NotWrapped(f"no list: {value!r}")
    return list(value)


def _cpp_literal(kind: str, value: Any) -> str:
    inner = re.fullmatch(r"vector<(.*)>", kind)
    if inner:
        return "{" + ", ".join(_cpp_literal(inner[1].strip(), one) for one in _list(value)) + "}"
    return _scalar(kind, value)


def _scalar(kind: str, value: Any) -> str:
    if kind not in _SCALARS:
        raise NotWrapped(f"a parameter of type {kind}")
    return _SCALARS[kind](value)


def _cpp(text: str, name: str, inputs: Sequence[Sequence[Any]]) -> str:
    called, parameters = _signature(
        rf"\b({_camel(name)})\s*\(([^)]*)\)\s*(?:const\s*)?\{{", text, inputs
    )
    kinds = [re.sub(r"\bconst\b|&", "", re.sub(r"\w+$", "", one)).strip() for one in parameters]
    cases = []
    for given in inputs:
        makes = "".join(
            f"        {kind} a{j} = {_cpp_literal(kind, one)};\n"
            for j, (kind, one) in enumerate(zip(kinds, given, strict=True))
        )
        names = ", ".join(f"a{j}" for j in range(len(kinds)))
        cases.append(
            f"    each([]() -> std::pair<long, double> {{\n{makes}        Solution one;\n"
            f"        long before = now; peak = now; auto start = clock_now();\n"
            f"        auto result = one.{called}({names});\n"
            f"        double ms = clock_now() - start;\n"
            f"        return {{peak - before, ms}};\n    }});\n"
        )
    return CPP.replace("SOLUTION", text).replace("CASES", "".join(cases))


def _java_literal(kind: str, value: Any) -> str:
    kind = kind.strip()
    if kind.endswith("[]"):
        inner = ", ".join(_java_literal(kind[:-2], one) for one in _list(value))
        return f"new {kind}{{{inner}}}"
    many = re.fullmatch(r"List<(.*)>", kind)
    if many:
        inner = ", ".join(_java_literal(many[1], one) for one in _list(value))
        return f"new ArrayList<{many[1]}>(Arrays.asList({inner}))"
    return _scalar(
        {"Integer": "int", "Boolean": "bool", "Character": "char"}.get(kind, kind), value
    )


def _makers(
    inputs: Sequence[Sequence[Any]],
    parameters: Sequence[str],
    kind_of: Callable[[str], str],
    literal: Callable[[str, Any], str],
) -> list[tuple[list[str], list[str]]]:
    """For each input the types and the literals of its arguments."""
    kinds = [kind_of(one) for one in parameters]
    return [
        (kinds, [literal(kind, one) for kind, one in zip(kinds, given, strict=True)])
        for given in inputs
    ]


def _before_name(parameter: str) -> str:
    return re.sub(r"^final\s+", "", re.sub(r"\s+\w+$", "", parameter)).strip()


def _calls(made: Sequence[tuple[list[str], list[str]]], pattern: str, name: str) -> str:
    """One call for each input, by a pattern with ``DECLARED`` and ``CALL``."""
    found = []
    for kinds, literals in made:
        declared = " ".join(
            f"{kind} a{j} = {one};"
            for j, (kind, one) in enumerate(zip(kinds, literals, strict=True))
        )
        call = f"{name}({', '.join(f'a{j}' for j in range(len(kinds)))})"
        found.append(pattern.replace("DECLARED", declared).replace("CALL", call))
    return "".join(found)


def _java(text: str, name: str, inputs: Sequence[Sequence[Any]]) -> str:
    called, parameters = _signature(
        rf"\bpublic\s[^=;(]*?\b({_camel(name)})\s*\(([^)]*)\)", text, inputs
    )
    made = _makers(inputs, parameters, _before_name, _java_literal)
    methods = [
        f"    static void case{i}() {{ {body} }}\n"
        for i, body in enumerate(
            _calls(
                [one],
                "DECLARED Solution one = new Solution(); long before = bytes(); "
                "long start = System.nanoTime(); Object result = one.CALL; "
                "long ns = System.nanoTime() - start; taken(bytes() - before, ns);",
                called,
            )
            for one in made
        )
    ]
    runs = ", ".join(f"Main::case{i}" for i in range(len(methods)))
    return JAVA.replace("SOLUTION", text).replace("METHODS", "".join(methods)).replace("RUNS", runs)


def _go_literal(kind: str, value: Any) -> str:
    if kind.startswith("[]"):
        return f"{kind}{{{', '.join(_go_literal(kind[2:], one) for one in _list(value))}}}"
    return _scalar(kind, value)


_GO_PACKAGES = {
    "sort": "sort", "strings": "strings", "strconv": "strconv", "math": "math", "bits": "math/bits",
    "heap": "container/heap", "list": "container/list", "unicode": "unicode", "bytes": "bytes",
    "rand": "math/rand", "regexp": "regexp", "big": "math/big", "utf8": "unicode/utf8",
}  # fmt: skip
_GO_SHIMS = {
    "min": "func min[T ordered](a T, rest ...T) T { for _, b := range rest { if b < a { a = b } }; return a }",
    "max": "func max[T ordered](a T, rest ...T) T { for _, b := range rest { if b > a { a = b } }; return a }",
}


def _go(text: str, name: str, inputs: Sequence[Sequence[Any]]) -> str:
    called, parameters = _signature(rf"\bfunc\s+({_camel(name)})\s*\(([^)]*)\)", text, inputs)
    kinds: list[str] = []
    for one in reversed(parameters):  # (a, b int) names the type once
        words = one.split(None, 1)
        kinds.insert(0, words[1].strip() if len(words) == 2 else kinds[0])
    made = [
        (kinds, [_go_literal(kind, one) for kind, one in zip(kinds, given, strict=True)])
        for given in inputs
    ]
    cases = "".join(
        "\teach(func() (uint64, int64) {\n"
        + "".join(
            f"\t\ta{j} := {_go_typed(kind, one)}\n"
            for j, (kind, one) in enumerate(zip(*pair, strict=True))
        )
        + "\t\tbefore := taken()\n\t\tstart := time.Now()\n\t\tresult := "
        + f"{called}({', '.join(f'a{j}' for j in range(len(kinds)))})\n"
        + "\t\tns := time.Since(start).Nanoseconds()\n\t\tafter := taken()\n\t\tkept = result\n"
        + "\t\treturn after - before, ns\n\t})\n"
        for pair in made
    )
    own = [place for short, place in _GO_PACKAGES.items() if re.search(rf"\b{short}\.\w", text)]
    known = {"fmt", "os", "runtime", "strconv", "time", "runtime/debug"}
    imports = "".join(f'import "{place}"\n' for place in sorted(known | set(own)))
    shims = "\n".join(
        code
        for short, code in _GO_SHIMS.items()
        if not re.search(rf"\bfunc {short}\b|\b{short}\s*:?=|\b{short} :=", text)
    )
    body = re.sub(r"^package \w+|^import (\"[^\"]+\"|\([^)]*\))", "", text, flags=re.M)
    return (
        GO.replace("IMPORTS", imports)
        .replace("SHIMS", shims)
        .replace("SOLUTION", body)
        .replace("CASES", cases)
    )


def _go_typed(kind: str, literal: str) -> str:
    return literal if kind.startswith("[]") else f"{kind}({literal})"


def _rust_literal(kind: str, value: Any) -> str:
    inner = re.fullmatch(r"Vec<(.*)>", kind)
    if inner:
        return f"vec![{', '.join(_rust_literal(inner[1], one) for one in _list(value))}]"
    if kind == "String":
        return f"String::from({_text(value)})"
    return _scalar(kind, value)


def _rust(text: str, name: str, inputs: Sequence[Sequence[Any]]) -> str:
    called, parameters = _signature(rf"\bfn\s+({name})\s*\(([^)]*)\)", text, inputs)
    kinds = [one.partition(":")[2].strip() for one in parameters]
    cases = "".join(
        "    each(&mut sums, &|| {\n"
        + "".join(
            f"        let a{j}: {kind} = {_rust_literal(kind, one)};\n"
            for j, (kind, one) in enumerate(zip(kinds, given, strict=True))
        )
        + "        let before = NOW.load(Relaxed); PEAK.store(before, Relaxed);\n"
        + "        let start = std::time::Instant::now();\n"
        + f"        let result = Solution::{called}({', '.join(f'a{j}' for j in range(len(kinds)))});\n"
        + "        let ns = start.elapsed().as_nanos();\n        std::hint::black_box(&result);\n"
        + "        (PEAK.load(Relaxed) - before, ns)\n    });\n"
        for given in inputs
    )
    return RUST.replace("SOLUTION", text).replace("CASES", cases)


def _json(value: Any) -> str:
    return json.dumps(value)


def _javascript(text: str, name: str, inputs: Sequence[Sequence[Any]], typed: bool = False) -> str:
    short = _camel(name)
    pattern = rf"\bfunction\s+({short})\s*\(([^)]*)\)|\b({short})\s*=\s*(?:function\s*)?\(([^)]*)\)"
    if not re.search(pattern, text):
        raise NotWrapped("no such function")
    cases = "".join(
        f"each(() => [{', '.join(_json(one) for one in given)}]);\n" for given in inputs
    )
    declared = "declare var require: any, process: any;\n" if typed else ""
    return declared + text + JAVASCRIPT.replace("NAME", short).replace("CASES", cases)


def _typescript(text: str, name: str, inputs: Sequence[Sequence[Any]]) -> str:
    return _javascript(text, name, inputs, typed=True)


def _csharp_literal(kind: str, value: Any) -> str:
    kind = kind.strip()
    if kind.endswith("[]"):
        inner = ", ".join(_csharp_literal(kind[:-2], one) for one in _list(value))
        return f"new {kind} {{{inner}}}"
    many = re.fullmatch(r"I?List<(.*)>", kind)
    if many:
        inner = ", ".join(_csharp_literal(many[1], one) for one in _list(value))
        return f"new List<{many[1]}> {{{inner}}}"
    return _scalar(kind, value)


def _csharp(text: str, name: str, inputs: Sequence[Sequence[Any]]) -> str:
    camel = _camel(name)
    called, parameters = _signature(
        rf"\bpublic\s[^=;(]*?\b({camel[:1].upper() + camel[1:]})\s*\(([^)]*)\)", text, inputs
    )
    made = _makers(inputs, parameters, _before_name, _csharp_literal)
    cases = _calls(
        made,
        "        Each(() => { DECLARED var one = new Solution(); long before = bytes(); "
        "var watch = System.Diagnostics.Stopwatch.StartNew(); var result = one.CALL; watch.Stop(); "
        "kept = result; return Tuple.Create(bytes() - before, watch.Elapsed); });\n",
        called,
    )
    return CSHARP.replace("SOLUTION", text).replace("CASES", cases)


def _php_literal(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_php_literal, value))}]"
    if isinstance(value, str):
        return "'" + _text(value)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
    return _truth(value) if isinstance(value, bool) else _number(value, 2**53)


def _php(text: str, name: str, inputs: Sequence[Sequence[Any]]) -> str:
    called, _ = _signature(rf"\bfunction\s+({_camel(name)})\s*\(([^)]*)\)", text, inputs)
    cases = "".join(f"each(fn() => [{', '.join(map(_php_literal, given))}]);\n" for given in inputs)
    body = re.sub(r"^\s*<\?php|\?>\s*$", "", text)
    return "<?php\n" + body + PHP.replace("NAME", called).replace("CASES", cases)


def _python(text: str, name: str, inputs: Sequence[Sequence[Any]]) -> str:
    short = _camel(name)
    if not re.search(rf"\bdef {short}\(", text):
        raise NotWrapped("no such method")
    return PYTHON + text + f"\n\ndef _solve(*given):\n    return Solution().{short}(*given)\n"


WRAPPERS: dict[str, Callable[[str, str, Sequence[Sequence[Any]]], str]] = {
    "python": _python,
    "cpp": _cpp,
    "java": _java,
    "go": _go,
    "rust": _rust,
    "typescript": _typescript,
    "javascript": _javascript,
    "csharp": _csharp,
    "php": _php,
}
"""``(solution, its function's name in snake case, inputs)`` to the program that is run, by language."""
