r"""Published checkpoints of the paper's authors (``model_type`` ``"regresslm"``), without their code.

Such a folder holds a T5Gemma encoder-decoder (``backbone_config``) whose decoder has a vocabulary of 13:
padding, two signs and ten digits, and a bias of the logits. A number is a fixed count of IEEE tokens. The
prompts are the collection's name and the text (``KBSS\n...``), for programs of many languages
``# CDSS\n# Language: C++\n...``. What the authors estimate from 64 samples is expanded exactly here
(``surrogate.decoding``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from autotune_rlm.regression._inputs import Asked
from autotune_rlm.surrogate.codec import SPECIAL, DigitCodec
from autotune_rlm.surrogate.decoding import NumberDistribution, expand
from autotune_rlm.surrogate.tokenizer import padded

_VOCABULARY = 13
_MANTISSA = 4  # digits of the authors' library where the folder does not say
_MAX_TOKENS = 2048
_NAME = re.compile(r"(?:^|\.)((?:encoder|decoder|lm_head)\..+|final_logits_bias)$")


class PublishedModel:
    """A published checkpoint that decodes the numbers ``targets`` one after the other.

    The model is a ``T5GemmaForConditionalGeneration`` with a decoder vocabulary of 13, ``bias`` (13,) is
    added to its logits. ``language`` is that of texts whose fields name none.
    """

    def __init__(
        self,
        model: Any,
        bias: torch.Tensor,
        tokenizer: Tokenizer,
        codec: DigitCodec,
        *,
        targets: Sequence[str] = ("number",),
        language: str | None = None,
    ) -> None:
        self._model, self._bias, self._tokenizer = model.eval(), bias, tokenizer
        self.codec, self.targets = codec, tuple(targets)
        self._language = language
        self._width = 256  # prefixes that an expansion keeps

    @classmethod
    def load(cls, folder: str | Path, *, language: str | None = None) -> PublishedModel:
        """Read ``config.json``, safetensors and ``tokenizer.json``; nothing in the folder is executed.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: The weights are of another shape.
            ImportError: transformers is not installed.
        """
        from transformers import T5GemmaConfig, T5GemmaForConditionalGeneration

        folder = Path(folder)
        config = json.loads((folder / "config.json").read_text())
        weights = {_plain(name): w for name, w in _weights(folder).items()}
        decoder = weights.get("decoder.embed_tokens.weight")
        if decoder is None or len(decoder) != _VOCABULARY:
            found = "none" if decoder is None else len(decoder)
            raise ValueError(
                f"{folder}: the decoder must have {_VOCABULARY} tokens, it has {found}"
            )
        settings = dict(config["backbone_config"])
        settings.pop("model_type", None)
        settings["decoder"] = {**dict(settings["decoder"]), "vocab_size": _VOCABULARY}
        settings["encoder"] = dict(settings["encoder"])
        settings["encoder"]["vocab_size"] = len(weights["encoder.embed_tokens.weight"])
        settings["attn_implementation"] = "eager"  # its logits of attention are capped
        model = T5GemmaForConditionalGeneration(T5GemmaConfig(**settings))
        bias = weights.pop("final_logits_bias", torch.zeros(_VOCABULARY)).float().flatten()
        weights.setdefault("lm_head.out_proj.weight", decoder)
        model.lm_head.out_proj.weight = torch.nn.Parameter(decoder.float().clone())  # not tied
        own = {name: _plain(name) for name in model.state_dict()}
        if missing := [name for name in own.values() if name not in weights]:
            raise ValueError(
                f"{folder}: the weights lack {missing[0]!r} and {len(missing) - 1} more"
            )
        model.load_state_dict({name: weights[plain].float() for name, plain in own.items()})
        count = int(config.get("max_num_objs", 1))
        names = ["number"] if count == 1 else [f"number{i}" for i in range(count)]
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        codec = _codec(folder, config)
        return cls(model, bias, tokenizer, codec, targets=names, language=language)

    def prompt(self, text: str, fields: Mapping[str, Any]) -> str:
        """The text as the model was trained to read it.

        ``fields`` may have ``space``, the collection (``"KBSS"``, ``"APPS"``, ``"CDSS"``), and
        ``language``.
        """
        space, language = fields.get("space"), fields.get("language", self._language)
        if language is not None:
            return f"# {space or 'CDSS'}\n# Language: {language}\n{text}"
        return f"{space}\n{text}" if space is not None else text

    def distributions(self, asked: Asked) -> Iterator[list[NumberDistribution]]:
        """The distribution of each number of each text; later ones after the most probable before."""
        for memory, mask in self._memories(asked):
            written = np.zeros((1, 0), dtype=np.int64)
            found: list[NumberDistribution] = []
            for _ in self.targets:
                found.append(self._expanded(memory, mask, written))
                best = found[-1].values[[int(np.argmax(found[-1].probabilities))]]
                written = np.concatenate([written, self.codec.encode(best)], axis=1)
            yield found

    def quantiles(self, asked: Asked, levels: Sequence[float]) -> np.ndarray:
        """Quantiles of the numbers, (n, k, levels)."""
        predicted = self.distributions(asked)
        rows = [[[d.quantile(q) for q in levels] for d in row] for row in predicted]
        return np.array(rows).reshape(len(asked.texts), len(self.targets), len(levels))

    def sample(self, asked: Asked, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers drawn one after the other, (n, draws, k)."""
        out = np.zeros((len(asked.texts), draws, len(self.targets)))
        for i, (memory, mask) in enumerate(self._memories(asked)):
            after: dict[bytes, NumberDistribution] = {}
            for d in range(draws):
                written = np.zeros((1, 0), dtype=np.int64)
                for j in range(len(self.targets)):
                    key = written.tobytes()
                    if key not in after:
                        after[key] = self._expanded(memory, mask, written)
                    p = after[key].probabilities
                    out[i, d, j] = rng.choice(after[key].values, p=p / p.sum())
                    tokens = self.codec.encode(out[i, d, [j]])
                    written = np.concatenate([written, tokens], axis=1)
        return out

    def log_prob(self, asked: Asked, numbers: np.ndarray) -> np.ndarray:
        """Natural logarithm of the probability of the tokens of numbers (n, k), shape (n,).

        All numbers with the same tokens share this probability: it is not a density.
        """
        total = np.zeros(len(asked.texts))
        length, masks = self.codec.length, self.codec.masks()
        for i, (memory, mask) in enumerate(self._memories(asked)):
            tokens = self.codec.encode(numbers[i]).reshape(1, -1)
            for t, token in enumerate(tokens[0]):
                logits = self._logits(memory, mask, tokens[:, :t])[0]
                allowed = np.where(masks[t % length], logits, -np.inf)
                total[i] += allowed[token] - np.logaddexp.reduce(allowed)
        return total

    def _expanded(
        self, memory: torch.Tensor, mask: torch.Tensor, written: np.ndarray
    ) -> NumberDistribution:
        def step(prefixes: np.ndarray) -> np.ndarray:
            before = np.repeat(written, len(prefixes), axis=0)
            return self._logits(memory, mask, np.concatenate([before, prefixes], axis=1))

        return expand(self.codec, step, width=self._width)

    @torch.inference_mode()
    def _logits(self, memory: torch.Tensor, mask: torch.Tensor, prefixes: np.ndarray) -> np.ndarray:
        """Logits (m, codec's vocabulary) of the tokens after prefixes (m, t) of the codec's tokens."""
        from transformers.modeling_outputs import BaseModelOutput

        m = len(prefixes)
        start = np.zeros((m, 1), dtype=np.int64)  # padding begins a number
        ids = np.concatenate([start, prefixes - SPECIAL + 1], axis=1)
        out = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=memory.expand(m, -1, -1)),
            attention_mask=mask.expand(m, -1),
            decoder_input_ids=torch.from_numpy(ids),
            decoder_attention_mask=torch.ones_like(torch.from_numpy(ids)),  # as generate() has it
            use_cache=False,
        )
        logits = (out.logits[:, -1] + self._bias).double().numpy()
        special = np.full((m, SPECIAL), -np.inf)
        return np.concatenate([special, logits[:, 1:]], axis=1)

    @torch.inference_mode()
    def _memories(self, asked: Asked) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Encoder states (1, t, d) and mask (1, t) of each text."""
        prompts = [self.prompt(t, f) for t, f in zip(asked.texts, asked.fields, strict=True)]
        for start in range(0, len(prompts), asked.batch_size):
            some = prompts[start : start + asked.batch_size]
            ids = [e.ids[:_MAX_TOKENS] for e in self._tokenizer.encode_batch(some)]
            tokens = torch.from_numpy(padded(ids))
            mask = (tokens >= 0).long()
            states = self._model.get_encoder()(input_ids=tokens.clamp(min=0), attention_mask=mask)
            for row, states_of in enumerate(states.last_hidden_state):
                count = len(ids[row])
                yield states_of[None, :count], mask[row : row + 1, :count]


def _plain(name: str) -> str:
    found = _NAME.search(name)
    return found[1] if found else name


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    index = folder / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if index.exists():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    if any(Path(name).name != name for name in files):
        raise ValueError(f"{index} names files outside of its folder")
    for name in files:
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{folder} has no {name}; weights are read from safetensors only"
            )
    return {k: v for name in files for k, v in load_file(str(folder / name)).items()}


def _codec(folder: Path, config: Mapping[str, Any]) -> DigitCodec:
    beside = folder / "tokenizer_config.json"
    settings = {**(json.loads(beside.read_text()) if beside.exists() else {}), **config}
    digits = int(settings.get("num_tokens_per_obj", 9)) - 2
    exponent = settings.get("num_exponent_digits")
    mantissa = (
        digits - int(exponent) if exponent else settings.get("num_mantissa_digits", _MANTISSA)
    )
    exponent = exponent or digits - int(mantissa)
    if int(mantissa) < 1 or int(exponent) < 1:
        raise ValueError(f"{folder}: {digits + 2} tokens a number leave no digits")
    return DigitCodec(style="ieee", mantissa=int(mantissa), exponent=int(exponent))
