"""What the text of a program says of its memory and time."""

import ast
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_rlm.programs import COLUMNS, are_programs, columns
from autotune_rlm.programs._any import _COUNTED, any_facts
from autotune_rlm.record.programs import Sandbox

IMPORTS = "import {}\n\ndef solve(n):\n    return [[i * j for i in range(n)] for j in range(n)]\n"
JAVA = """class Solution {
    public int solve(int[] nums) {
        Map<Integer, Integer> seen = new HashMap<>();
        for (int x : nums) {
            for (int y : nums) {
                seen.put(x, y);
            }
        }
        return seen.size();
    }
}
"""


def fact(text, name):
    return float(np.expm1(columns([text])[0, COLUMNS.index(name)]))


@pytest.mark.parametrize("module", ["math", "json", "random", "datetime", "typing"])
def test_what_an_import_costs_is_about_what_is_measured(module):
    if module == "datetime" and sys.version_info >= (3, 12):
        pytest.skip("since then datetime is loaded without its Python part")
    with Sandbox() as sandbox:
        measured = sandbox.python(f"import {module}", trace=True).numbers["peak_bytes"]
    assert fact(IMPORTS.format(module), "python import_bytes") == pytest.approx(measured, rel=0.5)


def test_modules_that_share_what_they_load_are_not_counted_twice():
    both = fact("import re, json\nx = 1\n", "python import_bytes")
    assert both < fact("import re\n", "python import_bytes") + 0.5 * fact(
        "import json\n", "python import_bytes"
    )


def test_loops_in_loops_are_seen_in_python_and_in_other_languages():
    assert fact(IMPORTS.format("math"), "python deepest_growth") == pytest.approx(2, rel=1e-5)
    assert fact(JAVA, "nested loops") == pytest.approx(2, rel=1e-5)
    assert fact(JAVA, "maps") >= 1


def test_equal_texts_have_equal_facts_and_no_texts_have_none():
    x = columns([JAVA, "x = 1", JAVA])
    assert np.array_equal(x[0], x[2])
    assert columns([]).shape == (0, len(COLUMNS))


def test_programs_are_told_from_sentences_and_networks():
    assert are_programs([IMPORTS.format("re"), JAVA])
    assert not are_programs(["The quick brown fox.", "Two words", "one", ""])
    assert not are_programs([])


@given(st.text() | st.sampled_from(["(" * 500, "def f(:", "\x00", "for " * 99, ast.__doc__ or ""]))
@settings(max_examples=60)
def test_any_text_has_finite_facts(text):
    assert np.isfinite(columns([text])).all()


PIECES = [
    "for", "return", "map[", "unordered_map[", "HashMap", " ", "\n", "(", "append(", "xpush(", "push",
    "é", "_a", "9ab", "f64", ".5", "5", "::new(", "new", "?", "->", "=>", "[&]", "[:]", "%", "1e9 + 7",
    "def f(x)", "f(", "g (a) {", "if (b) {", "class", "<<", "²",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text())
@settings(max_examples=200)
def test_counts_are_those_of_one_search_for_words_calls_and_signs(text):
    facts = any_facts(text)
    for name, counted in _COUNTED.items():
        parts = [
            rf"\b(?:{counted.words.replace(' ', '|')})\b" if counted.words else "",
            rf"\b(?:{counted.calls.replace(' ', '|')})\(" if counted.calls else "",
            counted.pattern,
        ]
        whole = re.compile("|".join(filter(None, parts)), re.M)
        assert facts[name] == len(whole.findall(text)), name
    names = re.findall(r"\b(?:func|function|fn|def)\s+(\w+)|\b(\w+)\s*\([^()\n]*\)\s*\{", text)
    defined = {one or other for one, other in names} - {"if", "for", "while", "switch"}
    again = sum(len(re.findall(rf"\b{name}\(", text)) > 1 for name in defined)
    assert facts["calls itself"] == again
    words = re.findall(r"[A-Za-z_]\w*", text)
    assert (facts["words"], facts["different words"]) == (len(words), len(set(words)))
