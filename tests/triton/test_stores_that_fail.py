"""A cache must never break the program: launches with stores that cannot be used."""

import sys
from pathlib import Path

import pytest
import torch
from triton_test_support import Oracle, configs

from autotune_rlm import rlm_autotune

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
from test_store_trouble import BROKEN, warnings

X = torch.zeros(64)


@pytest.mark.parametrize("mode", ["tune", "predict"])
@pytest.mark.parametrize("named_by", ["argument", "variable"])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_launch_goes_on_with_one_warning(
    stub, quick, tmp_path, monkeypatch, caplog, broken, named_by, mode
):
    where = str(broken(tmp_path))
    if named_by == "variable":
        monkeypatch.setenv("AUTOTUNE_RLM_STORE", where)
    caplog.clear()
    for _ in range(2):  # the second one has nothing in its cache
        kernel = rlm_autotune(
            configs=configs(),
            key=["n"],
            surrogate=Oracle(),
            mode=mode,
            store=where if named_by == "argument" else None,
        )(quick)
        for n in (64, 65):
            assert kernel[(1,)](X, X, n) == "launched"
        assert kernel.best_config.kwargs["BLOCK"] == 256
    assert len(warnings(caplog)) == 1
    if mode == "tune":
        assert len(stub.benchmarked) < 2 * 2 * 8, "the second kernel knows what the first measured"
