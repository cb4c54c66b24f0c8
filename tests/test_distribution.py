"""The wheel that `make dist` builds holds all that the package needs at run time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("build")
ROOT = Path(__file__).parents[1]
USE = """
import sys
from pathlib import Path
import autotune_rlm
assert Path(autotune_rlm.__file__).is_relative_to(Path.cwd()), autotune_rlm.__file__
from autotune_rlm import Candidate, Task, load_surrogate
from autotune_rlm.devices import lookup
task = Task(kernel="k", device=lookup("NVIDIA A100"), problem={"n": 1024})
prediction = load_surrogate().predict(task, [Candidate({"BLOCK": 64}), Candidate({"BLOCK": 128})])
assert all(value > 0 for value in prediction.median)
from autotune_rlm.report import render_html, summarize
assert "<html" in render_html(summarize([]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    return file


def run(python: Path | str, *arguments: str, cwd: Path, **variables: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
    done = subprocess.run(
        [str(python), *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_wheel_runs_from_another_folder(wheel, tmp_path):
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", "."]
    run(sys.executable, *install, str(wheel), cwd=tmp_path)
    run(sys.executable, "-c", USE, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    run(
        sys.executable,
        "-m",
        "autotune_rlm.cli",
        "rank",
        "--help",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path),
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_wheel_installs_with_its_extras_in_an_empty_environment(wheel, tmp_path):
    python = tmp_path / "environment" / "bin" / "python"
    run(sys.executable, "-m", "venv", "environment", cwd=tmp_path)
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[all]", cwd=tmp_path)
    use = USE.replace("Path.cwd()", "sys.prefix")
    run(
        python,
        "-c",
        f"{use}\nimport optuna, onnx, triton, autotune_rlm.integrations.onnx",
        cwd=tmp_path,
    )
