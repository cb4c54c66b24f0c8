"""What the words of a program in any language say of the memory and the time that it will take."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple


class _Counted(NamedTuple):
    """What is counted under one name; no match of ``pattern`` overlaps with one of the words."""

    words: str = ""
    """Whole words, separated by spaces."""
    calls: str = ""
    """Whole words that a parenthesis follows."""
    pattern: str = ""


_COUNTED = {
    "loop words": _Counted("for foreach while loop each"),
    "branch words": _Counted("if else elif switch match case", pattern=r"\?"),
    "returns": _Counted("return"),
    "new things": _Counted(pattern=r"\bnew\b|\bmake\(|\bvec!|\bmalloc\b|::new\(|\bArray\("),
    "growing": _Counted(
        calls="append push push_back emplace_back add put insert offer enqueue Add push_str"
    ),
    "shrinking": _Counted("pop pop_back poll remove erase shift delete dequeue popleft Pop"),
    "maps": _Counted(
        pattern=r"\b(?:unordered_map|HashMap|map\[|Map|dict|Dictionary|defaultdict|Counter|BTreeMap)\b|map\["
    ),
    "set words": _Counted("unordered_set HashSet Set set BTreeSet"),
    "heaps": _Counted("priority_queue PriorityQueue BinaryHeap heap heappush"),
    "queues": _Counted("queue Queue deque Deque VecDeque Stack stack"),
    "sorting": _Counted("sort sorted Sort sort_unstable OrderBy usort"),
    "text building": _Counted("StringBuilder Builder join concat substr substring slice Substring"),
    "text splitting": _Counted("split chars toCharArray split_whitespace Fields explode implode"),
    "two dimensions": _Counted(
        pattern=r"\[\]\[\]|vector<vector|Vec<Vec|List<List|\]\s*\*\s*\w+\s+for|\[,\]|\w\[\w+\]\["
    ),
    "functions": _Counted("func function fn def lambda", pattern=r"=>|\[&\]|->"),
    "clones": _Counted(
        "clone copy Clone ToArray toArray to_vec collect array_slice", pattern=r"\[:\]"
    ),
    "modulus": _Counted(pattern=r"%|1000000007|1e9\s*\+\s*7"),
    "shifts": _Counted(pattern=r"<<|>>|\^|&"),
    "indexing": _Counted(pattern=r"\[[^\]\n]{1,40}\]"),
    "arithmetic signs": _Counted(pattern=r"[+*/-]"),
    "imports": _Counted(pattern=r"^\s*(?:import|using|use|#include|require|from)\b"),
    "classes": _Counted("class struct interface impl trait"),
    "wide numbers": _Counted("long int64 i64 u64 BigInteger bigint usize"),
    "fractions": _Counted(pattern=r"\b(?:double|float|f64|float64|Double)\b|\d\.\d"),
}
_WORDS = {name: counted.words.split() for name, counted in _COUNTED.items()}
_CALLS = {name: counted.calls.split() for name, counted in _COUNTED.items()}
_PATTERNS = {n: re.compile(c.pattern, re.M) for n, c in _COUNTED.items() if c.pattern}
_TOKEN = re.compile(r"\w+\(?")
_LOOP = re.compile(rf"\b(?:{'|'.join(_WORDS['loop words'])})\b")
_CONSTANT = re.compile(r"(?<![\w.])\d[\d_]*(?:\.\d+)?(?:e\d+)?(?!\w)")
_NAMED = r"\b(?:func|function|fn|def)\s+(\w+)"
_FUNCTION_BY_WORD = re.compile(_NAMED)
_FUNCTION = re.compile(rf"{_NAMED}|\b(\w+)\s*\([^()\n]*\)\s*\{{")
_BODY = re.compile(r"\)\s*\{")
_WORD = re.compile(r"[A-Za-z_]\w*")
NAMES: tuple[str, ...] = (
    *_COUNTED,
    "lines",
    "letters",
    "words",
    "different words",
    "deepest indent",
    "nested loops",
    "largest number",
    "calls itself",
)
"""Names of the facts, in order."""


def any_facts(text: str) -> dict[str, float]:
    """Facts by the names of ``NAMES``."""
    words, calls = _words(text)
    found = {
        name: float(
            sum(words.get(word, 0) for word in _WORDS[name])
            + sum(calls.get(word, 0) for word in _CALLS[name])
            + (len(_PATTERNS[name].findall(text)) if name in _PATTERNS else 0)
        )
        for name in _COUNTED
    }
    lines = [line.expandtabs(4) for line in text.splitlines() if line.strip()]
    indents = [len(line) - len(line.lstrip()) for line in lines]
    constants = [_number(word) for word in _CONSTANT.findall(text)]
    named = [(match[0], n) for word, n in words.items() if (match := _WORD.search(word))]
    found |= {
        "lines": len(lines),
        "letters": len(text),
        "words": sum(n for _, n in named),
        "different words": len({word for word, _ in named}),
        "deepest indent": max(indents, default=0),
        "nested loops": _nested(lines, indents),
        "largest number": max(constants, default=0.0),
        "calls itself": sum(calls.get(name, 0) > 1 for name in _functions(text)),
    }
    return found


def _words(text: str) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """How often each word occurs, and how often with a parenthesis behind it."""
    words, calls = Counter[str](), Counter[str]()
    for token, count in Counter(_TOKEN.findall(text)).items():
        word = token.removesuffix("(")
        words[word] += count
        if word != token:
            calls[word] += count
    return words, calls


def _functions(text: str) -> set[str]:
    """Names of the functions that are defined: behind a keyword, or in front of a body in braces."""
    if not _BODY.search(text):  # the longer pattern would find no more, and is slow
        found = set(_FUNCTION_BY_WORD.findall(text))
    else:
        found = {one or other for one, other in _FUNCTION.findall(text)}
    return found - {"if", "for", "while", "switch"}


def _nested(lines: list[str], indents: list[int]) -> int:
    """How many loops are inside of each other at most, by the lines' indents."""
    open_at: list[int] = []
    deepest = 0
    for line, indent in zip(lines, indents, strict=True):
        while open_at and indent <= open_at[-1]:
            open_at.pop()
        if _LOOP.search(line):
            open_at.append(indent)
            deepest = max(deepest, len(open_at))
    return deepest


def _number(word: str) -> float:
    try:
        value = float(word.replace("_", ""))
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
