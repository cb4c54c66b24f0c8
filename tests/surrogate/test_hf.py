from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from surrogate_support import make_candidates, make_task

from autotune_rlm.surrogate.checkpoint import load_checkpoint
from autotune_rlm.surrogate.fields import FieldTable
from autotune_rlm.surrogate.network import NetworkConfig
from autotune_rlm.surrogate.rlm import RLMSurrogate
from autotune_rlm.surrogate.text import Field
from autotune_rlm.training.hf import RLMConfig, RLMModel


def make_inputs(tokenizer):
    table = FieldTable()
    for i in range(5):
        table.add(Field("BLOCK", float(2**i)))
    return {
        "fields": table.tensors(tokenizer),
        "shared": torch.tensor([[0, 1]]),
        "candidates": torch.tensor([[2, 3], [3, 4]]),
        "metrics": torch.tensor([[0]]),
        "source": torch.randint(0, 100, (1, 20)),
        "labels": torch.tensor([[3.0], [-1.0]]),
    }


def test_our_checkpoints_load_with_from_pretrained(surrogate, tmp_path, tokenizer):
    surrogate.save(tmp_path)
    model = RLMModel.from_pretrained(tmp_path)
    ours, theirs = surrogate.checkpoint.network.state_dict(), model.network.state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert torch.allclose(weight, theirs[name].float(), atol=2e-3), name


def test_their_checkpoints_load_with_ours(surrogate, tmp_path, tokenizer):
    surrogate.save(tmp_path / "ours")
    RLMModel.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs" / "tokenizer.json")
    again = RLMSurrogate(load_checkpoint(tmp_path / "theirs"))
    task, candidates = make_task(), make_candidates()
    one, two = surrogate.predict(task, candidates), again.predict(task, candidates)
    assert torch.allclose(torch.tensor(one.median).log(), torch.tensor(two.median).log(), atol=0.05)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_pretrained_encoder_reads_texts(tokenizer, frozen):
    from transformers import T5GemmaConfig

    part = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": len(tokenizer),
    }
    backbone = T5GemmaConfig(encoder=part, decoder=part, vocab_size=len(tokenizer)).to_dict()
    sizes = {"vocab_size": len(tokenizer), "d_model": 32, "d_ff": 64, "decoder_layers": 2}
    training = "frozen" if frozen else "full"
    model = RLMModel(RLMConfig({**sizes, "backbone": backbone, "backbone_training": training}))
    texts = {"texts": torch.tensor([[3, 4, 5], [6, 7, -1]]), "text_of": torch.tensor([0, 1])}
    out = model(**make_inputs(tokenizer), **texts)
    out.loss.backward()
    assert torch.isfinite(out.loss)
    gradients = [p.grad for p in model.network.text.encoder.parameters()]
    assert all(g is None for g in gradients) == frozen
    assert model.network.text.project.weight.grad is not None


def test_a_backbone_beside_the_network_names_the_way():
    with pytest.raises(ValueError, match="network="):
        RLMConfig(backbone={"model_type": "t5"})


def test_adapters_of_peft_train(surrogate, tokenizer, tmp_path):
    peft = pytest.importorskip("peft")
    surrogate.save(tmp_path)
    model = RLMModel.from_pretrained(tmp_path).float()
    lora = peft.LoraConfig(r=2, target_modules=["queries", "up"])
    adapted = peft.get_peft_model(model, lora)
    out = adapted(**make_inputs(tokenizer))
    out.loss.backward()
    trained = [n for n, p in adapted.named_parameters() if p.grad is not None]
    assert trained
    assert all("lora" in n for n in trained)


TEXT_SIZES = {"metrics": ("slowdown", "scale", "number"), "text_words": 512, "max_text": 128}


def make_text_model(tokenizer):
    sizes = {"d_model": 32, "heads": 2, "d_ff": 64, "decoder_layers": 2, **TEXT_SIZES}
    torch.manual_seed(0)
    config = RLMConfig(network=NetworkConfig(vocab_size=len(tokenizer), **sizes).to_json())
    model = RLMModel(config)
    model.tokenizer = tokenizer
    return model


def make_rows(n=64):
    words = ("sort", "scan", "join", "hash")
    return [
        {"text": f"def f(x): return {words[i % 4]}(x)", "number": 10.0 ** (i % 4), "size": i}
        for i in range(n)
    ]


def test_weights_are_fp32_and_everything_is_written_again(surrogate, tmp_path):
    surrogate.save(tmp_path / "ours")
    (tmp_path / "ours" / "eye.safetensors").write_bytes(b"as it is")
    model = RLMModel.from_pretrained(tmp_path / "ours")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path / "theirs")
    names = {p.name for p in (tmp_path / "theirs").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "eye.safetensors"} <= names


def test_what_trainer_trained_is_loaded_by_name_alone(tokenizer, tmp_path):
    from transformers import Trainer, TrainingArguments

    from autotune_rlm.surrogate import load_surrogate
    from autotune_rlm.surrogate.metrics import NumberScale
    from autotune_rlm.training.collator import TextCollator
    from autotune_rlm.types import Candidate, Device, Task

    model, rows = make_text_model(tokenizer), make_rows()
    scale = NumberScale.of([row["number"] for row in rows])
    arguments = TrainingArguments(
        str(tmp_path / "out"), remove_unused_columns=False, max_steps=60, learning_rate=5e-3,
        per_device_train_batch_size=16, report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    collate = TextCollator(model, "bytes", scale, language="python")
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=collate)
    first = float(model(**collate(rows)).loss)
    trainer.train()
    assert float(model.eval()(**collate(rows)).loss) < 0.7 * first
    trainer.save_model(str(tmp_path / "saved"))
    surrogate = load_surrogate(tmp_path / "saved")
    task = Task(kernel="", device=Device(name=""), language="python", metric="bytes")
    few, many = (Candidate({}, text=f"def f(x): return {w}(x)") for w in ("sort", "hash"))
    told = surrogate.predict(task, [few, many]).median
    assert told[1] > 10 * told[0]


@pytest.mark.slow
def test_two_processes_of_accelerate_train(tokenizer, tmp_path):
    make_text_model(tokenizer).save_pretrained(tmp_path / "start")
    script = tmp_path / "run.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_hf import make_rows
from transformers import Trainer, TrainingArguments
from autotune_rlm.surrogate.metrics import NumberScale
from autotune_rlm.training.collator import TextCollator
from autotune_rlm.training.hf import RLMModel

model, rows = RLMModel.from_pretrained({str(tmp_path / "start")!r}), make_rows()
collate = TextCollator(model, "bytes", NumberScale.of([r["number"] for r in rows]))
arguments = TrainingArguments({str(tmp_path / "out")!r}, remove_unused_columns=False, max_steps=3,
                              per_device_train_batch_size=4, report_to=[], use_cpu=True)
trainer = Trainer(model, arguments, train_dataset=rows, data_collator=collate)
trainer.train()
trainer.save_model({str(tmp_path / "saved")!r})
"""
    )
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2"]
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "saved" / "tokenizer.json").exists()
