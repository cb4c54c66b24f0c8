"""Every kernel of the suite agrees with its reference under Triton's interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotune_rlm.record.suite import load_suite

pytest.importorskip("triton")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def faults():
    script = Path(__file__).with_name("interpret.py")
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], env=env, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return dict(map(json.loads, run.stdout.splitlines()))


@pytest.mark.parametrize("name", load_suite())
def test_the_kernel_is_right_on_its_small_problems(faults, name):
    if any("only 0-dimensional arrays can be converted" in fault for fault in faults[name]):
        pytest.skip("older interpreters of Triton cannot loop to a run-time bound with numpy 2.4")
    assert faults[name] == []
