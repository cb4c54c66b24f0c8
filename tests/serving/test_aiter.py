"""AITER's files: names, keys and the entry that its loader takes."""

from __future__ import annotations

import json

import pytest
from test_serving import CONFIG
from typer.testing import CliRunner

from autotune_rlm.cli import app
from autotune_rlm.integrations.serving import M_BOUNDS, AiterFile, ServingFile

# As in ROCm/aiter; a folder of an architecture counts where it has the DEFAULT.json of the kernel.
_NESTED = "gfx950/triton/gemm/gemm_afp4wfp4"
PLACES = {
    "gemm/gfx950-GEMM-A8W8_BLOCKSCALE-N=7168-K=2048.json": {"N": 7168, "K": 2048},
    "gemm/gfx950-GEMM-A8W8_BLOCKSCALE.json": {},
    "gemm/gluon/gfx942-BATCHED_GEMM-A16W16-B=8-N=1024-K=4096.json": {"B": 8, "N": 1024, "K": 4096},
    "gemm/gfx950-FUSED-GEMM-A8W8_BLOCKSCALE-A16W16-N8=512-N16=256-K=7168.json": {
        "N8": 512,
        "N16": 256,
        "K": 7168,
    },
    "gemm/gfx1250-FF-A16W16-fused.json": {},
    "moe/gfx950-MOE-FP8_W8A8.json": {},
    "moe/MI300X-MOE-DEFAULT.json": {},
    f"{_NESTED}/GEMM-AFP4WFP4-N=7168-K=2048.json": {"N": 7168, "K": 2048},
    f"{_NESTED}/DEFAULT.json": {},
}
ENTRY = {**CONFIG, "waves_per_eu": 2, "matrix_instr_nonkdim": 16, "cache_modifier": ".cg"}


@pytest.mark.parametrize("place", PLACES)
def test_files_are_read_and_written_as_they_are(place, tmp_path):
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    content = {"_note": "by hand", "M_LEQ_64": ENTRY, "any": {**ENTRY, "cache_modifier": None}}
    path.write_text(json.dumps(content))
    file = AiterFile.read(path)
    assert file.sizes == PLACES[place]
    assert set(file.configs) == {"M_LEQ_64", "any"}
    out = tmp_path / "out"
    if _NESTED in place:
        (out / _NESTED).mkdir(parents=True)
        (out / _NESTED / "DEFAULT.json").write_text("{}")
    assert file.write(out) == out / place
    assert json.loads((out / place).read_text()) == content


def test_the_entry_is_the_one_that_aiter_takes():
    entries = {key: {**ENTRY, "num_stages": i} for i, key in enumerate(("M_LEQ_16", "M_LEQ_64"))}
    more = {"M_GEQ_4096": {**ENTRY, "num_stages": 2}, "any": {**ENTRY, "num_stages": 3}}
    file = AiterFile(family="GEMM-A8W8_BLOCKSCALE", arch="gfx950", configs={**entries, **more})
    taken = [file.config(m)["num_stages"] for m in (1, 16, 17, 64, 65, 4095, 4096, 9000)]
    assert taken == [0, 0, 1, 1, 3, 3, 2, 2]
    moe = AiterFile(family="MOE-FP8_W8A8", arch="gfx942", configs={"small_M": ENTRY})
    assert moe.config(255) == ENTRY
    with pytest.raises(ValueError, match="no entry for M=256"):
        moe.config(256)


def test_predicted_entries_become_ranges():
    product = ServingFile(kernel="w8a8_block_fp8_matmul", device_name="MI355X", N=7168, K=2048)
    found = {m: {**CONFIG, "num_stages": i} for i, m in enumerate(M_BOUNDS)}
    file = AiterFile.of(product.with_configs(found))
    assert file.name() == "gfx950-GEMM-A8W8_BLOCKSCALE-N=7168-K=2048.json"
    assert [file.config(m)["num_stages"] for m in M_BOUNDS] == list(range(len(M_BOUNDS)))
    assert file.config(10**6)["num_stages"] == len(M_BOUNDS) - 1
    assert file.config(1)["NUM_KSPLIT"] == 1
    experts = ServingFile(kernel="fused_moe", device_name="AMD Instinct MI300X", E=8, N=64)
    moe = AiterFile.of(experts.with_configs({64: CONFIG, 4096: {**CONFIG, "num_warps": 8}}))
    assert moe.name() == "gfx942-MOE-DEFAULT.json"
    assert [moe.config(m)["num_warps"] for m in (1, 5000)] == [4, 8]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"device_name": "NVIDIA H200"}, "GPUs of AMD"),
        ({"device_name": "MI355X", "kernel": "w8a8_block_int8_matmul"}, "AITER has no file"),
    ],
)
def test_what_aiter_has_not_is_one_clear_error(given, match):
    file = ServingFile(**{"kernel": "w8a8_block_fp8_matmul", "N": 64, "K": 64, **given})
    with pytest.raises(ValueError, match=match):
        AiterFile.of(file.with_configs({1: CONFIG}))


@pytest.mark.parametrize(
    "name",
    [
        *("x.json", "gfx950-GEMM.json", "N=1,K=1,device_name=X.json", "gfx950-MHA-DEFAULT.json"),
        *("gfx950-CONV-3X3-NHWC.json", "gfx950-A8W4.json", "a8w8_tuned_gemm.csv"),
    ],
)
def test_other_names_are_refused(name, tmp_path):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match="no name of an AITER file"):
        AiterFile.read(tmp_path / name)


def test_the_command_writes_it_where_aiter_looks(tmp_path):
    arguments = ["w8a8_block_fp8_matmul", "--device", "MI355X", "--n", "512", "--k", "256"]
    arguments += ["--server", "aiter", "--batches", "64", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["serve-configs", "predict", *arguments])
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.rglob("*.json")
    assert path == tmp_path / "gemm" / "gfx950-GEMM-A8W8_BLOCKSCALE-N=512-K=256.json"
    assert set(AiterFile.read(path).configs) == {"M_LEQ_64", "any"}
