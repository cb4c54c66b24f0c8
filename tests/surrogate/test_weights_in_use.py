"""One set of weights: what was fine-tuned on a store and accepted is what every front door asks."""

import contextlib
import dataclasses

import pytest
from typer.testing import CliRunner

from autotune_rlm.devices import lookup
from autotune_rlm.store import Store, weights_folder, weights_in_use
from autotune_rlm.surrogate import RLMSurrogate, load
from autotune_rlm.training.finetune import Versions
from autotune_rlm.types import Measurement


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The environment's store, with a version of weights of its own that is called ``tuned``."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "store.sqlite"
    monkeypatch.setenv("AUTOTUNE_RLM_STORE", str(path))
    versions = Versions()
    shipped = load()
    tuned = type(shipped)(dataclasses.replace(shipped.checkpoint, name="tuned"))
    tuned.save(versions.folder / "v1")
    versions.use(1)
    return path


def test_whatever_names_the_store(store, tmp_path):
    assert load().name == "tuned"
    assert load(store=store).name == "tuned"
    assert load(store=str(store)).name == "tuned"
    with Store(store) as opened:
        assert load(store=opened).name == "tuned"
        assert Versions(store=opened).current == 1
    assert load("nano").name != "tuned", "named weights are those named"


def test_another_store_has_its_own(store, tmp_path, monkeypatch):
    other = tmp_path / "other.sqlite"
    assert load(store=other).name != "tuned"
    assert weights_in_use(other) is None
    assert weights_folder("postgresql://me:secret@host/x") == weights_folder(
        "postgresql://me:changed@host/x"
    )
    monkeypatch.delenv("AUTOTUNE_RLM_STORE")
    assert load().name != "tuned"


def test_it_can_be_taken_back(store):
    Versions().use(None)
    assert load().name != "tuned"
    Versions().use(1)
    assert load().name == "tuned"


def test_a_version_that_cannot_be_read_costs_a_warning(store, caplog):
    (weights_in_use() / "model.safetensors").write_bytes(b"half of it")
    assert load().name != "tuned"
    assert "going on with the bundled weights" in caplog.text


def test_the_decorator_and_tune(store, tmp_path):
    pytest.importorskip("triton")
    from autotune_rlm.integrations.triton.resources import LazySurrogate

    assert LazySurrogate()._surrogate().name == "tuned"
    assert LazySurrogate(None, str(store))._surrogate().name == "tuned"
    assert LazySurrogate(None, tmp_path / "other.sqlite")._surrogate().name != "tuned"
    assert LazySurrogate(None, False)._surrogate().name != "tuned"
    Versions().use(None)
    assert LazySurrogate()._surrogate().name != "tuned", "a running program sees the change"
    Versions().use(1)
    (weights_in_use() / "config.json").unlink()
    assert LazySurrogate(None, str(store))._surrogate() is not None


def test_inductor(store, tmp_path):
    pytest.importorskip("torch._inductor")
    from autotune_rlm.integrations.inductor import _enable

    with Store(store) as opened, Store(tmp_path / "other.sqlite") as other:
        assert _enable._load(None, opened).name == "tuned"
        assert _enable._load(None, other).name != "tuned"
    assert _enable._load(None, None).name != "tuned"


def test_kernel_tuner(store):
    pytest.importorskip("kernel_tuner")
    from autotune_rlm.integrations.kernel_tuner import RLMStrategy

    with Store(store) as opened:
        assert RLMStrategy(store=opened)._surrogate().name == "tuned"
    assert RLMStrategy()._surrogate().name != "tuned"


def test_configuration_files_of_servers(store, tmp_path, monkeypatch):
    pytest.importorskip("triton")
    from autotune_rlm.integrations import serving

    class Measurer:
        def measure(self, task, candidates):
            return ((c, Measurement(status="ok", value=1.0)) for c in candidates)

    asked = []
    predict = RLMSurrogate.predict
    monkeypatch.setattr(
        RLMSurrogate,
        "predict",
        lambda self, *a, **b: asked.append(self.name) or predict(self, *a, **b),
    )
    file = serving.ServingFile(
        kernel="w8a8_block_fp8_matmul", device_name="NVIDIA H200", N=512, K=512
    )
    for path in (store, tmp_path / "other.sqlite"):
        with Store(path) as opened:
            found = serving.measure(
                file,
                batches=[16],
                budget=2,
                device=lookup("NVIDIA H200"),
                store=opened,
                facts=lambda task, candidates: candidates,
                measurer=lambda task: contextlib.nullcontext(Measurer()),
                quiet=True,
            )
            assert [entry.measured for entry in found] == [2]
    assert asked[0] == "tuned" != asked[-1]


def test_networks_and_samplers(store, monkeypatch):
    pytest.importorskip("onnx")
    from autotune_rlm.integrations.onnx import default

    if default.networks_checkpoint() is None:
        pytest.skip("the bundled weights know no networks")
    default.default_surrogate.cache_clear()
    try:
        assert default.default_surrogate().name == "tuned"
    finally:
        default.default_surrogate.cache_clear()


def test_watch_fine_tunes_the_version_in_use(store):
    from autotune_rlm.cli.watch import _model

    with Store(store) as opened:
        versions, model = _model(None, True, opened)
        assert model.name == "tuned"
        assert versions.folder == weights_folder(store)
        assert _model(None, False, opened)[1].name == "tuned"


def test_the_commands_say_it_and_take_it_back(store):
    from autotune_rlm.cli import app

    run = CliRunner()
    assert "version 1" in run.invoke(app, ["report"]).output
    listed = run.invoke(app, ["store", "weights"])
    assert listed.exit_code == 0, listed.output
    assert run.invoke(app, ["store", "weights", "--use", "bundled"]).exit_code == 0
    assert "as shipped" in run.invoke(app, ["report"]).output
    assert Versions().current is None
    assert run.invoke(app, ["store", "weights", "--use", "7"]).exit_code != 0
    assert run.invoke(app, ["store", "weights", "--use", "1"]).exit_code == 0
    assert Versions().current == 1
