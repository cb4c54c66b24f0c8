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

__all__ = ["WRAPPERS", "NotWrapped"]

_ROUNDS = 5


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
    return _CPP.replace("SOLUTION", text).replace("CASES", "".join(cases))


_CPP = r"""#include <bits/stdc++.h>
#include <malloc.h>
#include <unistd.h>
using namespace std;
static long now, peak;
void *operator new(size_t size) {
    void *block = malloc(size);
    now += malloc_usable_size(block);
    if (now > peak) peak = now;
    return block;
}
void operator delete(void *block) noexcept { now -= block ? malloc_usable_size(block) : 0; free(block); }
void operator delete(void *block, size_t) noexcept { operator delete(block); }
SOLUTION
static double clock_now() {
    return chrono::duration<double, milli>(chrono::steady_clock::now().time_since_epoch()).count();
}
static double all_bytes, all_ms;
static int cases;
template <class Run> void each(Run run) {
    double least = 1e30; long bytes = 0;
    for (int i = 0; i <= ROUNDS; i++) {
        auto [taken, ms] = run();
        if (i) least = min(least, ms);
        bytes = taken;
    }
    all_bytes += bytes; all_ms += least; cases++;
}
int main() {
CASES
    dprintf(atoi(getenv("AUTOTUNE_RLM_REPORT_FD")), "call_bytes %.1f\ncall_ms %.7f\n", all_bytes / cases,
            all_ms / cases);
}
""".replace("ROUNDS", str(_ROUNDS))


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
    return (
        _JAVA.replace("SOLUTION", text).replace("METHODS", "".join(methods)).replace("RUNS", runs)
    )


_JAVA = """import java.math.*;
import java.util.*;
import java.util.function.*;
import java.util.stream.*;
SOLUTION
class Main {
    static com.sun.management.ThreadMXBean bean =
        (com.sun.management.ThreadMXBean) java.lang.management.ManagementFactory.getThreadMXBean();
    static long self = Thread.currentThread().getId();
    static long lastBytes, lastNs;
    static long bytes() { return bean.getThreadAllocatedBytes(self); }
    static void taken(long bytes, long ns) { lastBytes = bytes; lastNs = ns; }
METHODS
    public static void main(String[] words) throws Exception {
        Runnable[] cases = {RUNS};
        double allBytes = 0, allMs = 0;
        long zero = bytes(); zero = bytes(); zero = bytes() - zero;
        for (Runnable one : cases) {
            long least = Long.MAX_VALUE;
            for (int i = 0; i <= ROUNDS; i++) { one.run(); if (i > 0) least = Math.min(least, lastNs); }
            allBytes += lastBytes; allMs += least / 1e6;
        }
        String place = "/proc/self/fd/" + System.getenv("AUTOTUNE_RLM_REPORT_FD");
        try (java.io.FileOutputStream out = new java.io.FileOutputStream(place, true)) {
            out.write(String.format("call_bytes %.1f%ncall_ms %.7f%n", allBytes / cases.length,
                allMs / cases.length).getBytes());
        }
    }
}
""".replace("ROUNDS", str(_ROUNDS))


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
        _GO.replace("IMPORTS", imports)
        .replace("SHIMS", shims)
        .replace("SOLUTION", body)
        .replace("CASES", cases)
    )


def _go_typed(kind: str, literal: str) -> str:
    return literal if kind.startswith("[]") else f"{kind}({literal})"


_GO = """package main

IMPORTS
type ordered interface { ~int | ~int64 | ~int32 | ~uint | ~uint8 | ~float64 | ~string }
SHIMS
SOLUTION
var kept interface{}
var allBytes, allMs float64
var cases int

func taken() uint64 {
	var state runtime.MemStats
	runtime.ReadMemStats(&state)
	return state.TotalAlloc
}

func each(run func() (uint64, int64)) {
	least := int64(1) << 60
	var bytes uint64
	for i := 0; i <= ROUNDS; i++ {
		b, ns := run()
		if i > 0 && ns < least { least = ns }
		bytes = b
	}
	allBytes += float64(bytes)
	allMs += float64(least) / 1e6
	cases++
}

func main() {
	debug.SetGCPercent(-1)
CASES
	fd, _ := strconv.Atoi(os.Getenv("AUTOTUNE_RLM_REPORT_FD"))
	out := os.NewFile(uintptr(fd), "report")
	fmt.Fprintf(out, "call_bytes %.1f\\ncall_ms %.7f\\n", allBytes/float64(cases), allMs/float64(cases))
}
""".replace("ROUNDS", str(_ROUNDS))


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
    return _RUST.replace("SOLUTION", text).replace("CASES", cases)


_RUST = """#![allow(warnings)]
use std::collections::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
static NOW: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);
struct Counting;
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size() as i64, Relaxed) + layout.size() as i64;
        PEAK.fetch_max(now, Relaxed);
        System.alloc(layout)
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size() as i64, Relaxed);
        System.dealloc(block, layout)
    }
}
#[global_allocator]
static ALLOCATOR: Counting = Counting;
struct Solution;
mod shadow { }
SOLUTION
fn each(sums: &mut (f64, f64, f64), run: &dyn Fn() -> (i64, u128)) {
    let mut least = u128::MAX;
    let mut bytes = 0;
    for i in 0..=ROUNDS {
        let (b, ns) = run();
        if i > 0 && ns < least { least = ns; }
        bytes = b;
    }
    sums.0 += bytes as f64; sums.1 += least as f64 / 1e6; sums.2 += 1.0;
}
fn main() {
    use std::io::Write;
    let mut sums = (0.0, 0.0, 0.0);
CASES
    let place = format!("/proc/self/fd/{}", std::env::var("AUTOTUNE_RLM_REPORT_FD").unwrap());
    let mut out = std::fs::OpenOptions::new().append(true).open(place).unwrap();
    write!(out, "call_bytes {:.1}\\ncall_ms {:.7}\\n", sums.0 / sums.2, sums.1 / sums.2).unwrap();
}
""".replace("ROUNDS", str(_ROUNDS)).replace("mod shadow { }\n", "")


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
    return declared + text + _JAVASCRIPT.replace("NAME", short).replace("CASES", cases)


_JAVASCRIPT = """
;(function () {
    require("v8").setFlagsFromString("--expose_gc");
    const collect = require("vm").runInNewContext("gc");
    let allBytes = 0, allMs = 0, cases = 0;
    function taken() { return process.memoryUsage().heapUsed; }
    function once(makes) {
        const given = makes();
        const before = taken(), start = process.hrtime();
        const result = NAME.apply(null, given);
        const time = process.hrtime(start), after = taken();
        return [after - before, 1e3 * time[0] + time[1] / 1e6, result];
    }
    function each(makes) {
        let least = 1e30, bytes = 1e30;
        collect();
        for (let i = 0; i <= ROUNDS; i++) {
            const [b, ms] = once(makes);
            if (i) { least = Math.min(least, ms); bytes = Math.min(bytes, b); }
        }
        allBytes += Math.max(bytes, 0); allMs += least; cases++;
    }
CASES
    require("fs").writeSync(parseInt(process.env.AUTOTUNE_RLM_REPORT_FD),
        "call_bytes " + allBytes / cases + "\\ncall_ms " + allMs / cases + "\\n");
})();
""".replace("ROUNDS", str(_ROUNDS))


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
    return _CSHARP.replace("SOLUTION", text).replace("CASES", cases)


_CSHARP = """using System;
using System.Collections;
using System.Collections.Generic;
using System.Linq;
using System.Text;
SOLUTION
class Program {
    static object kept;
    static Func<long> bytes = (Func<long>) Delegate.CreateDelegate(typeof(Func<long>),
        typeof(GC).GetMethod("GetAllocatedBytesForCurrentThread"));
    static double allBytes, allMs;
    static int cases;
    static void Each(Func<Tuple<long, TimeSpan>> run) {
        double least = 1e30, bytes = 1e30;
        for (int i = 0; i <= ROUNDS; i++) {
            var found = run();
            if (i == 0) continue;
            least = Math.Min(least, found.Item2.TotalMilliseconds);
            if (found.Item1 >= 0) bytes = Math.Min(bytes, found.Item1);
        }
        allBytes += bytes < 1e30 ? bytes : 0; allMs += least; cases++;
    }
    static void Main() {
CASES
        var place = "/proc/self/fd/" + Environment.GetEnvironmentVariable("AUTOTUNE_RLM_REPORT_FD");
        System.IO.File.AppendAllText(place, "call_bytes " + allBytes / cases + "\\ncall_ms " + allMs / cases + "\\n");
    }
}
""".replace("ROUNDS", str(_ROUNDS))


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
    return "<?php\n" + body + _PHP.replace("NAME", called).replace("CASES", cases)


_PHP = """
$all_bytes = 0; $all_ms = 0; $cases = 0;
function each($makes) {
    global $all_bytes, $all_ms, $cases;
    $least = 1e30; $bytes = 0;
    for ($i = 0; $i <= ROUNDS; $i++) {
        $given = $makes(); $one = new Solution();
        memory_reset_peak_usage(); $before = memory_get_usage(); $start = hrtime(true);
        $result = $one->NAME(...$given);
        $ms = (hrtime(true) - $start) / 1e6; $bytes = memory_get_peak_usage() - $before;
        if ($i) $least = min($least, $ms);
        unset($result);
    }
    $all_bytes += $bytes; $all_ms += $least; $cases++;
}
CASES
file_put_contents("php://fd/" . getenv("AUTOTUNE_RLM_REPORT_FD"),
    "call_bytes " . $all_bytes / $cases . "\\ncall_ms " . $all_ms / $cases . "\\n");
""".replace("ROUNDS", str(_ROUNDS))


def _python(text: str, name: str, inputs: Sequence[Sequence[Any]]) -> str:
    short = _camel(name)
    if not re.search(rf"\bdef {short}\(", text):
        raise NotWrapped("no such method")
    return _PYTHON + text + f"\n\ndef _solve(*given):\n    return Solution().{short}(*given)\n"


_PYTHON = """from __future__ import annotations
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from operator import *
from string import *
from typing import *
import heapq, math, re, sys, bisect, itertools, functools, collections, random, string

"""

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
