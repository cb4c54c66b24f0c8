"""A pretrained encoder as the reader of texts: trained from a recipe, recorded, loaded again."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from autotune_rlm.surrogate.backbone import BackboneReader, backbone_config, backbone_tokenizer
from autotune_rlm.surrogate.checkpoint import load_checkpoint, save_checkpoint
from autotune_rlm.surrogate.network import Network, NetworkConfig

SIZES = {"d_model": 32, "heads": 2, "d_ff": 64, "decoder_layers": 2, "max_text": 64}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny pretrained T5 with a tokenizer of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5Model

    folder = tmp_path_factory.mktemp("encoder")
    words = {w: i for i, w in enumerate(["<pad>", "<unk>", "sort", "scan", "x", "y"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=6, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    T5Model(config).save_pretrained(folder)
    return folder


def network_of(encoder, tokenizer, kind):
    torch.manual_seed(0)
    sizes = NetworkConfig(
        vocab_size=len(tokenizer),
        backbone=backbone_config(encoder),
        backbone_training=kind,
        **SIZES,
    )
    network = Network(sizes)
    network.text.read(encoder)
    return network


TOKENS = torch.tensor([[2, 4, 5, -1], [3, 4, -1, -1], [-1, -1, -1, -1]])


@pytest.mark.parametrize("kind", ["frozen", "full", "lora"])
def test_what_is_trained_is_what_was_asked_for(encoder, tokenizer, kind):
    if kind == "lora":
        pytest.importorskip("peft")
    network = network_of(encoder, tokenizer, kind).train()
    vectors, start = network.read_texts(TOKENS)
    assert torch.isfinite(vectors).all()
    (vectors.sum() + start.sum()).backward()
    names = {n for n, p in network.text.encoder.named_parameters() if p.grad is not None}
    if kind == "frozen":
        assert not names
    elif kind == "lora":
        assert names
        assert all("lora" in n for n in names)
    else:
        assert any("layer.0" in n for n in names)
    assert network.text.project.weight.grad is not None


def test_the_pretrained_weights_are_read(encoder, tokenizer):
    from transformers import T5Model

    theirs = T5Model.from_pretrained(encoder).get_encoder().state_dict()
    ours = network_of(encoder, tokenizer, "frozen").text.encoder.state_dict()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())


def test_a_frozen_encoder_reads_a_text_once(encoder, tokenizer):
    network = network_of(encoder, tokenizer, "frozen").eval()
    with torch.no_grad():
        first = network.read_texts(TOKENS)[0]
        network.text.encoder.forward = None  # called again, it would fail
        padded = torch.nn.functional.pad(TOKENS, (0, 3), value=-1)
        again = network.read_texts(padded.flip(0))[0].flip(0)
    assert torch.allclose(first, again, atol=1e-5)


def test_a_checkpoint_records_it_and_loads_again(encoder, tokenizer, tmp_path):
    network = network_of(encoder, tokenizer, "frozen").eval()
    tokenizer.of_texts = backbone_tokenizer(encoder)
    try:
        assert tokenizer.encode_batch(["sort x", "scan"], limit=9) == [[2, 4], [3]]
        save_checkpoint(tmp_path, network, tokenizer, name="with encoder")
    finally:
        tokenizer.of_texts = None
    again = load_checkpoint(tmp_path)
    assert isinstance(again.network.text, BackboneReader)
    assert again.tokenizer.encode_batch(["sort x", "scan"], limit=9) == [[2, 4], [3]]
    with torch.no_grad():
        ours, theirs = network.read_texts(TOKENS)[0], again.network.read_texts(TOKENS)[0]
    assert torch.allclose(ours, theirs, atol=0.05)


def test_bad_settings_are_named(encoder, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="cannot read"):
        backbone_config(tmp_path / "nothing")
    with pytest.raises(ValueError, match="backbone_training must be one of"):
        network_of(encoder, tokenizer, "thawed")


def test_a_recipe_names_it(encoder, tokenizer, tmp_path):
    from test_training_mixture import METRICS, SIZES, program, recorded_program, written

    from autotune_rlm.landscapes import write_landscapes
    from autotune_rlm.surrogate import load
    from autotune_rlm.training.run import run_recipe

    write_landscapes(tmp_path / "programs.jsonl", [recorded_program(n) for n in range(1, 6)])
    recipe = written(
        tmp_path,
        tokenizer,
        name="with-encoder",
        steps=3,
        network={**SIZES, "metrics": METRICS, "max_text": 64, "backbone": str(encoder)},
        sources=[{"path": "programs.jsonl", "format": "programs", "texts": True, "numbers": True}],
    )
    folder = run_recipe(recipe, out=tmp_path / "out", device="cpu", progress=False)
    surrogate = load(folder)
    assert isinstance(surrogate.checkpoint.network.text, BackboneReader)
    ids = surrogate.checkpoint.tokenizer.encode_batch(["sort x", program(2)], limit=64)
    assert ids[0] == [2, 4]
    assert max(ids[1]) < 6
