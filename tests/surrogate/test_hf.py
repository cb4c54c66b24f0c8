from __future__ import annotations

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
def test_a_pretrained_encoder_reads_the_source(tokenizer, frozen):
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
    sizes = NetworkConfig(vocab_size=len(tokenizer), d_model=32, d_ff=64, decoder_layers=2)
    config = RLMConfig(network=sizes.to_json(), backbone=backbone, freeze_backbone=frozen)
    model = RLMModel(config)
    out = model(**make_inputs(tokenizer))
    out.loss.backward()
    assert torch.isfinite(out.loss)
    gradients = [p.grad for p in model.network.backbone.encoder.parameters()]
    assert all(g is None for g in gradients) == frozen
    assert model.network.backbone.project.weight.grad is not None


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
