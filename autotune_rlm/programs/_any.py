"""What the words of a program in any language say of the memory and the time that it will take."""

from __future__ import annotations

import math
import re

__all__ = ["NAMES", "any_facts"]

_COUNTED = {
    "loop words": r"\b(?:for|foreach|while|loop|each)\b",
    "branch words": r"\b(?:if|else|elif|switch|match|case)\b|\?",
    "returns": r"\breturn\b",
    "new things": r"\bnew\b|\bmake\(|\bvec!|\bmalloc\b|::new\(|\bArray\(",
    "growing": r"\b(?:append|push|push_back|emplace_back|add|put|insert|offer|enqueue|Add|push_str)\(",
    "shrinking": r"\b(?:pop|pop_back|poll|remove|erase|shift|delete|dequeue|popleft|Pop)\b",
    "maps": r"\b(?:unordered_map|HashMap|map\[|Map|dict|Dictionary|defaultdict|Counter|BTreeMap)\b|map\[",
    "set words": r"\b(?:unordered_set|HashSet|Set|set|BTreeSet)\b",
    "heaps": r"\b(?:priority_queue|PriorityQueue|BinaryHeap|heap|heappush)\b",
    "queues": r"\b(?:queue|Queue|deque|Deque|VecDeque|Stack|stack)\b",
    "sorting": r"\b(?:sort|sorted|Sort|sort_unstable|OrderBy|usort)\b",
    "text building": r"\b(?:StringBuilder|Builder|join|concat|substr|substring|slice|Substring)\b",
    "text splitting": r"\b(?:split|chars|toCharArray|split_whitespace|Fields|explode|implode)\b",
    "two dimensions": r"\[\]\[\]|vector<vector|Vec<Vec|List<List|\]\s*\*\s*\w+\s+for|\[,\]|\w\[\w+\]\[",
    "functions": r"\b(?:func|function|fn|def|lambda)\b|=>|\[&\]|->",
    "clones": r"\b(?:clone|copy|Clone|ToArray|toArray|to_vec|collect|array_slice)\b|\[:\]",
    "modulus": r"%|1000000007|1e9\s*\+\s*7",
    "shifts": r"<<|>>|\^|&",
    "indexing": r"\[[^\]\n]{1,40}\]",
    "arithmetic signs": r"[+*/-]",
    "imports": r"^\s*(?:import|using|use|#include|require|from)\b",
    "classes": r"\b(?:class|struct|interface|impl|trait)\b",
    "wide numbers": r"\b(?:long|int64|i64|u64|BigInteger|bigint|usize)\b",
    "fractions": r"\b(?:double|float|f64|float64|Double)\b|\d\.\d",
}
_PATTERNS = {name: re.compile(pattern, re.M) for name, pattern in _COUNTED.items()}
_LOOP = re.compile(_COUNTED["loop words"])
_CONSTANT = re.compile(r"(?<![\w.])\d[\d_]*(?:\.\d+)?(?:e\d+)?(?!\w)")
_FUNCTION = re.compile(r"\b(?:func|function|fn|def)\s+(\w+)|\b(\w+)\s*\([^()\n]*\)\s*\{")
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
    found = {name: float(len(pattern.findall(text))) for name, pattern in _PATTERNS.items()}
    lines = [line.expandtabs(4) for line in text.splitlines() if line.strip()]
    words = _WORD.findall(text)
    indents = [len(line) - len(line.lstrip()) for line in lines]
    constants = [_number(word) for word in _CONSTANT.findall(text)]
    names = {one or other for one, other in _FUNCTION.findall(text)} - {
        "if",
        "for",
        "while",
        "switch",
    }
    found |= {
        "lines": len(lines),
        "letters": len(text),
        "words": len(words),
        "different words": len(set(words)),
        "deepest indent": max(indents, default=0),
        "nested loops": _nested(lines, indents),
        "largest number": max(constants, default=0.0),
        "calls itself": sum(len(re.findall(rf"\b{name}\(", text)) > 1 for name in names if name),
    }
    return found


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
