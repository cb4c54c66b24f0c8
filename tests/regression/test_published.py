"""Published checkpoints of the authors: their layout is read without their code, numbers are exact."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from autotune_rlm.regression import RLM
from autotune_rlm.regression._inputs import Asked
from autotune_rlm.regression._published import PublishedModel
from autotune_rlm.surrogate.tokenizer import TextTokenizer

transformers = pytest.importorskip("transformers")

PART = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 64,
}  # fmt: skip
TEXTS = ["int main() { return 0; }", "for (;;) {}"]
DIGITS = "+-0123456789"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A random checkpoint in the published shape, and the model that it was made of."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published")
    tokenizer = TextTokenizer.train(TEXTS * 5, vocab_size=300)
    tokenizer.save(folder / "tokenizer.json")
    settings = {"encoder": {**PART, "vocab_size": 300}, "decoder": {**PART, "vocab_size": 13}}
    config = transformers.T5GemmaConfig(**settings, vocab_size=300, attn_implementation="eager")
    model = transformers.T5GemmaForConditionalGeneration(config).eval()
    model.lm_head.out_proj.weight = torch.nn.Parameter(torch.randn(13, 32))
    bias = torch.randn(1, 13)
    weights = {f"backbone.{k.removeprefix('model.')}": v for k, v in model.state_dict().items()}
    weights["backbone.lm_head.out_proj.weight"] = model.lm_head.out_proj.weight.detach().clone()
    weights = {k: v.detach().clone().contiguous() for k, v in weights.items()}
    save_file({**weights, "final_logits_bias": bias}, str(folder / "model.safetensors"))
    backbone = {
        **config.to_dict(),
        "decoder": {**config.to_dict()["decoder"], "vocab_size": 256_000},
    }
    about = {
        "model_type": "regresslm", "backbone_config": backbone, "num_tokens_per_obj": 9,
        "max_num_objs": 1, "auto_map": {"AutoModelForSeq2SeqLM": "evil.Evil"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "evil.py").write_text("raise SystemExit('remote code was run')")
    return folder, model, bias, tokenizer


def probabilities(published, prompt, tokens):
    """Probability of each token after those before it, by the model itself."""
    _, model, bias, tokenizer = published
    ids = torch.tensor([tokenizer.encode(prompt, limit=2048)])
    told = [0] + [1 + DIGITS.index(c) for c in tokens]
    with torch.inference_mode():
        out = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            decoder_input_ids=torch.tensor([told]),
            decoder_attention_mask=torch.ones(1, len(told), dtype=torch.long),
        )
        logits = out.logits[0] + bias
    return logits.double().numpy()


def test_numbers_have_the_probability_that_the_model_gives(published):
    model = RLM.load(published[0])
    value, tokens = -0.1234, "--0011234"
    logits = probabilities(published, "KBSS\n" + TEXTS[0], tokens)
    expected = 0.0
    for position, token in enumerate(tokens):
        allowed = [1, 2] if position < 2 else list(range(3, 13))
        row = logits[position]
        expected += row[1 + DIGITS.index(token)] - np.logaddexp.reduce(row[allowed])
    told = model.log_prob(TEXTS[:1], [value], fields=[{"space": "KBSS"}])
    assert told[0] == pytest.approx(expected, abs=1e-4)


def test_logits_are_those_of_generate(published):
    folder, model, bias, tokenizer = published
    ours = PublishedModel.load(folder)
    ids = torch.tensor([tokenizer.encode(TEXTS[0], limit=2048)])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        decoder_start_token_id=0,
        do_sample=False,
        min_new_tokens=4,
        max_new_tokens=4,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ((memory, mask),) = ours._memories(Asked.of(TEXTS[:1], None))
    written = out.sequences[0, 1:].numpy()
    for t in range(4):
        if (written[:t] == 0).any():  # padding, which no number has
            break
        logits = ours._logits(memory, mask, written[None, :t] + 1)[0, 2:]
        expected = (out.logits[t][0] + bias[0]).numpy()[1:]
        assert logits == pytest.approx(expected, abs=1e-3)


def test_the_expansion_is_the_exact_distribution(published):
    model = PublishedModel.load(published[0])
    model.codec = type(model.codec)(style="ieee", mantissa=1, exponent=1)
    model._width = 400  # all sequences of two signs and two digits
    (found,) = next(model.distributions(Asked.of(TEXTS[:1], None)))
    assert found.missing == pytest.approx(0.0, abs=1e-9)
    assert found.probabilities.sum() == pytest.approx(1.0)
    logits = {}
    for signs in itertools.product("+-", repeat=2):
        logits[signs] = probabilities(published, TEXTS[0], (*signs, "0", "7"))
    by_hand = 0.0
    for signs in itertools.product("+-", repeat=2):
        row = logits[signs]
        p = 1.0
        for position, token in enumerate((*signs, "0", "7")):
            allowed = [1, 2] if position < 2 else list(range(3, 13))
            p *= np.exp(
                row[position][1 + DIGITS.index(token)] - np.logaddexp.reduce(row[position][allowed])
            )
        by_hand += p if signs[0] == "+" else 0.0
    assert found.probabilities[found.values == 7.0].sum() == pytest.approx(by_hand, rel=1e-4)


def test_prompts_are_those_of_the_authors(published):
    model = PublishedModel.load(published[0], language="C++")
    assert model.prompt("x", {}) == "# CDSS\n# Language: C++\nx"
    plain = PublishedModel.load(published[0])
    assert plain.prompt("x", {"space": "APPS"}) == "APPS\nx"
    assert plain.prompt("x", {"language": "Go"}) == "# CDSS\n# Language: Go\nx"


def test_predict_sample_and_quantiles(published):
    model = RLM.load(published[0])
    low, middle, high = model.predict_quantiles(TEXTS, fields=[{"space": "KBSS"}] * 2).T
    assert (low <= middle).all()
    assert (middle <= high).all()
    assert np.isfinite(model.sample(TEXTS, 5)).all()


@pytest.mark.parametrize(("told", "expected"), [({}, (4, 3)), ({"num_exponent_digits": 1}, (6, 1))])
def test_digits_are_as_the_folder_says(published, tmp_path, told, expected):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        (folder / name).write_bytes((published[0] / name).read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    codec = PublishedModel.load(folder).codec
    assert (codec.mantissa, codec.exponent) == expected


def test_other_weights_are_refused(published, tmp_path):
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes((published[0] / name).read_bytes())
    with pytest.raises(FileNotFoundError, match="safetensors only"):
        RLM.load(tmp_path)
    save_file(
        {"decoder.embed_tokens.weight": torch.zeros(5, 2)}, str(tmp_path / "model.safetensors")
    )
    with pytest.raises(ValueError, match="must have 13 tokens, it has 5"):
        RLM.load(tmp_path)
