"""The examples, the demo and the code in docs/decorator.md run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(command, store, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={
            **os.environ,
            "AUTOTUNE_RLM_STORE": store,
            "AUTOTUNE_RLM_BUDGET": "3",
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize("name", ["matmul_decorator", "library_of_kernels"])
def test_an_example_runs(name, store_path):
    done = run([ROOT / "examples" / f"{name}.py"], store_path, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr
    errors = [float(e) for e in re.findall(r"largest error:? (\S+)", done.stdout)]
    assert errors
    assert max(errors) < 1e-3


def test_the_code_in_the_documentation_runs(tmp_path, store_path):
    text = (ROOT / "docs" / "decorator.md").read_text()
    program = tmp_path / "documentation.py"
    program.write_text("\n\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)))
    done = run([program], store_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # three configurations, of which two may have one binary, which is timed once
    assert re.search(r"BLOCK: \d+, num_warps: \d+.* [23]$", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_the_demo_runs(tmp_path):
    done = run(
        ["-m", "autotune_rlm.cli", "demo", "--store", tmp_path / "demo.db"],
        "",
        AUTOTUNE_RLM_BUDGET="",
    )
    assert done.returncode == 0, done.stderr
    measured = re.findall(r"(\d+) of (\d+)  ", done.stdout)
    assert len(measured) == 8
    for new, same, near, everything in (measured[:4], measured[4:]):
        assert int(new[0]) < int(new[1])
        assert same[0] == "0"
        assert int(near[0]) < int(new[0])
        assert everything[0] == everything[1]
