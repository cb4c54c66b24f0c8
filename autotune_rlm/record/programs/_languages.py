"""How each language is compiled and run, and which number is its memory."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Language:
    """A language whose programs can be measured.

    The words of a command may hold ``{source}``, ``{out}`` (a file to make), ``{folder}`` (of both) and
    ``{main}`` (the class that holds ``main``).

    Attributes:
        name: Its name in tables.
        suffixes: Of its files.
        compile: The compiler's command; empty where the source runs as it is.
        run: The command of a compiled or interpreted program.
        allocator: Whether memory is what malloc gave out. Runtimes that bring their own heap are
            measured by their resident size.
        empty: A program that does nothing: what it takes is subtracted.
        main: How ``main`` begins, where the class that holds it names the file.
    """

    name: str
    suffixes: Sequence[str]
    compile: Sequence[str] = ()
    run: Sequence[str] = ("{out}",)
    allocator: bool = False
    empty: str = ""
    main: str = ""

    @property
    def missing(self) -> str:
        """The first tool that is not installed; empty where all are."""
        tools = [words[0] for words in (self.compile, self.run) if words and "{" not in words[0]]
        return next((tool for tool in tools if shutil.which(tool) is None), "")

    def file_name(self, text: str) -> str:
        """What the source file has to be called: after the class that holds ``main``, in Java."""
        before = text.partition(self.main)[0] if self.main else ""
        classes = re.findall(r"\bclass\s+(\w+)", before)
        return (classes[-1] if classes else "Main") + self.suffixes[0]


_C_MAIN = "int main(void) { return 0; }\n"
_FLAGS = ("-O2", "-o", "{out}", "{source}")

LANGUAGES: dict[str, Language] = {
    language.name: language
    for language in (
        Language(name="python", suffixes=(".py",), run=()),
        Language(
            name="c",
            suffixes=(".c",),
            compile=("cc", *_FLAGS, "-lm"),
            allocator=True,
            empty=_C_MAIN,
        ),
        Language(
            name="cpp",
            suffixes=(".cpp", ".cc", ".cxx"),
            compile=("g++", "-std=c++20", *_FLAGS),
            allocator=True,
            empty="#include <iostream>\nint main() { return 0; }\n",
        ),
        Language(
            name="rust",
            suffixes=(".rs",),
            compile=("rustc", "--edition=2021", "-O", "-o", "{out}", "{source}"),
            allocator=True,
            empty="fn main() {}\n",
        ),
        Language(
            name="go",
            suffixes=(".go",),
            compile=("go", "build", "-o", "{out}", "{source}"),
            empty="package main\n\nfunc main() {}\n",
        ),
        Language(
            name="java",
            suffixes=(".java",),
            compile=("javac", "-proc:none", "-J-XX:TieredStopAtLevel=1", "-d", "{folder}", "{source}"),
            run=("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", "{folder}", "{main}"),
            empty="class Main { public static void main(String[] words) {} }\n",
            main="static void main",
        ),
        Language(
            name="javascript", suffixes=(".js", ".mjs"), run=("node", "{source}"), empty=";\n"
        ),
        Language(
            name="typescript",
            suffixes=(".ts",),
            compile=("tsc", "--noLib", "--target", "es2020", "--module", "commonjs", "--outFile", "{out}",
                     "{source}"),
            run=("node", "{out}"),
            empty=";\n",
        ),
        Language(
            name="csharp",
            suffixes=(".cs",),
            compile=("mcs", "-optimize", "-out:{out}", "{source}"),
            run=("mono", "{out}"),
            empty="class Program { static void Main() {} }\n",
        ),
        Language(name="php", suffixes=(".php",), run=("php", "{source}"), empty="<?php\n"),
        Language(name="ruby", suffixes=(".rb",), run=("ruby", "{source}"), empty="\n"),
        Language(name="perl", suffixes=(".pl",), run=("perl", "{source}"), empty="1;\n"),
        Language(name="lua", suffixes=(".lua",), run=("lua", "{source}"), empty="\n"),
    )
}  # fmt: skip
"""By name."""

_OTHER_NAMES = {"c++": "cpp", "c#": "csharp", "js": "javascript", "ts": "typescript", "py": "python",
                "python3": "python", "golang": "go", "rs": "rust", "rb": "ruby"}  # fmt: skip
_OF_SUFFIX = {suffix: name for name, one in LANGUAGES.items() for suffix in one.suffixes}


def language_of(name: str) -> str:
    """The language of a name or of a file's suffix (``"C++"``, ``".cc"``); empty where it is none."""
    name = name.strip().lower()
    name = _OTHER_NAMES.get(name, name)
    return name if name in LANGUAGES else _OF_SUFFIX.get(name, "")
