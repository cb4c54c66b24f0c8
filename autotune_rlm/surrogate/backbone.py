"""A pretrained encoder reads the texts of candidates: T5Gemma, T5, CodeT5 and others of transformers.

This is the design of "Regression Language Models for Code" (arXiv 2509.26476): a pretrained encoder
under a small decoder of numbers. A text's hidden states are averaged over a few equal stretches, so that
those of an encoder that stays as it is fit into memory and are computed once.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from autotune_rlm.surrogate._layers import Attention, NetworkConfig, initialised

__all__ = ["TRAININGS", "BackboneReader", "backbone_config", "backbone_tokenizer"]

TRAININGS = ("frozen", "full", "lora")
_STRETCHES = 16
_CACHED = 100_000  # texts
_LORA_RANK = 8
_HINT = "a backbone needs transformers: pip install 'autotune-rlm[train]'"


def backbone_config(path: str | Path) -> dict[str, Any]:
    """The configuration of a pretrained model's folder; nothing in it is executed.

    Raises:
        ValueError: There is no model, or one that transformers does not know.
        ImportError: transformers is not installed.
    """
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise ImportError(_HINT) from error
    try:
        config = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"network.backbone: cannot read {str(path)!r}: {error}") from error
    return dict(json.loads(config.to_json_string(use_diff=False)))


def backbone_tokenizer(path: str | Path) -> Tokenizer:
    """The encoder's own tokenizer.

    Raises:
        ValueError: It has none that the ``tokenizers`` library can read.
    """
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
        return Tokenizer.from_str(found.backend_tokenizer.to_str())
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"network.backbone: no tokenizer in {str(path)!r}: {error}") from error


class _Cache(dict[bytes, Tensor]):
    """Averaged states by tokens; copies of a module share it, as their encoder is the same."""

    def __deepcopy__(self, memo: Any) -> _Cache:
        return self


class BackboneReader(nn.Module):
    """Tokens of k texts in, a few vectors of each out; stands in the place of ``TextReader``.

    Args:
        config: Sizes; ``backbone`` and ``backbone_training`` say which encoder, and whether its
            weights stay (``"frozen"``), are trained (``"full"``) or get adapters of peft (``"lora"``).

    Raises:
        ValueError: The training is unknown.
        ImportError: transformers, or for adapters peft, is not installed.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        if config.backbone_training not in TRAININGS:
            raise ValueError(
                f"network.backbone_training must be one of {TRAININGS}, got "
                f"{config.backbone_training!r}"
            )
        assert config.backbone is not None
        d = config.d_model
        self.training_kind, self._most = config.backbone_training, config.max_text
        self.encoder = _encoder(config.backbone)
        if self.training_kind == "lora":
            self.encoder = _adapted(self.encoder)
        elif self.training_kind == "frozen":
            self.encoder.requires_grad_(False)
        self.project = nn.Linear(_width(self.encoder.config), d)
        self.position = nn.Embedding(_STRETCHES, d)
        self.latents = nn.Parameter(torch.randn(config.text_latents, d) * 0.5)
        self.pool, self.pool_norm = Attention(config), nn.LayerNorm(d)
        self.start = nn.Linear(d, d)
        self.drop = nn.Dropout(config.text_dropout)
        self._cache = _Cache()

    def initialise(self) -> None:
        """Draw random weights of all but the encoder."""
        for part in (self.project, self.position, self.pool, self.start):
            part.apply(initialised)
        nn.init.zeros_(self.start.weight)

    def read(self, path: str | Path) -> None:
        """Take the encoder's pretrained weights from a folder or the Hub."""
        from transformers import AutoModel

        model = AutoModel.from_pretrained(str(path), trust_remote_code=False, dtype=torch.float32)
        weights = _encoder_of(model).state_dict()
        inner = self.encoder.get_base_model() if self.training_kind == "lora" else self.encoder
        ours = inner.state_dict()
        plain = {name: name.replace(".base_layer.", ".") for name in ours}
        kept = {n: weights[p] for n, p in plain.items() if p in weights}
        inner.load_state_dict({**ours, **kept})
        self._cache = _Cache()

    def forward(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Read texts; see ``TextReader.forward``."""
        texts = texts[:, : self._most]
        states = self._frozen(texts) if self.training_kind == "frozen" else self._states(texts)
        x = self.project(states.to(self.project.weight.dtype)) + self.position.weight
        latents = self.latents.expand(len(texts), -1, -1)
        latents = latents + self.pool(latents, self.pool.keys(self.pool_norm(x)), None)
        summary = x.mean(1, keepdim=True)
        return torch.cat([self.drop(latents), summary], dim=1), self.start(latents.mean(1))

    @torch.no_grad()
    def _frozen(self, texts: Tensor) -> Tensor:
        keys = [row[row >= 0].cpu().numpy().tobytes() for row in texts]
        new = {key: i for i, key in enumerate(keys) if key not in self._cache}
        if new:
            self.encoder.eval()
            states = self._states(texts[list(new.values())]).cpu().half()
            if len(self._cache) + len(new) > _CACHED:
                self._cache.clear()
            fresh = dict(zip(new, states, strict=True))
            self._cache.update(fresh)
        found = [self._cache[key] for key in keys if key in self._cache]
        if len(found) < len(keys):  # the cache was emptied in between
            return self._states(texts)
        return torch.stack(found).to(texts.device)

    def _states(self, texts: Tensor) -> Tensor:
        """Means of the hidden states over equal stretches, (k, stretches, width)."""
        there = texts >= 0
        there[:, 0] = True  # an empty text is one padding token
        out = self.encoder(input_ids=texts.clamp(min=0), attention_mask=there.long())
        states = out.last_hidden_state.float()
        count = there.sum(1, keepdim=True)
        place = torch.arange(texts.shape[1], device=texts.device) * _STRETCHES // count
        of = torch.where(there, place.clamp(max=_STRETCHES - 1), -1)
        stretch = torch.arange(_STRETCHES, device=texts.device)[:, None]
        member = (of[:, None, :] == stretch).to(states.dtype)
        return member @ states / member.sum(2, keepdim=True).clamp(min=1)


def _encoder(settings: Mapping[str, Any]) -> Any:
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise ImportError(_HINT) from error
    told = copy.deepcopy(dict(settings))
    model = AutoModel.from_config(AutoConfig.for_model(told.pop("model_type"), **told))
    return _encoder_of(model)


def _encoder_of(model: Any) -> Any:
    return model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model


def _adapted(encoder: Any) -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            "network.backbone_training 'lora' needs peft: pip install peft"
        ) from error
    return peft.get_peft_model(
        encoder,
        peft.LoraConfig(r=_LORA_RANK, lora_alpha=2 * _LORA_RANK, target_modules="all-linear"),
    )


def _width(config: Any) -> int:
    for part in (config, getattr(config, "encoder", None), getattr(config, "text_config", None)):
        for holder in (part, getattr(part, "text_config", None)):
            width = getattr(holder, "hidden_size", None)
            if isinstance(width, int):
                return width
    raise ValueError(f"backbone {type(config).__name__} has no hidden_size")
