"""The network as a Hugging Face model: ``from_pretrained``, ``save_pretrained``, accelerate, peft.

The same checkpoints are read by ``load``, which needs no transformers and starts faster. A folder that
``save_checkpoint`` wrote loads with ``RLMModel.from_pretrained(folder)`` and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from autotune_rlm.surrogate.network import FieldTensors, Network, NetworkConfig
from autotune_rlm.training.loss import cross_entropy

__all__ = ["PretrainedBackbone", "RLMConfig", "RLMModel", "RLMOutput"]


class RLMConfig(PretrainedConfig):
    """Configuration of ``RLMModel``.

    Args:
        network: Arguments of ``NetworkConfig``.
        backbone: Configuration of a transformers encoder (or encoder-decoder, of which the encoder
            is used) that reads the source, such as ``T5GemmaConfig(...).to_dict()``; None for our own
            layers.
        freeze_backbone: Whether the backbone's weights stay as they are.
        **kwargs: Passed on.
    """

    model_type = "autotune_rlm"

    def __init__(
        self,
        network: dict[str, Any] | None = None,
        backbone: dict[str, Any] | None = None,
        freeze_backbone: bool = True,
        **kwargs: Any,
    ) -> None:
        self.network = NetworkConfig.from_json(network or {}).to_json()
        self.backbone = backbone
        self.freeze_backbone = freeze_backbone
        super().__init__(**kwargs)


class PretrainedBackbone(nn.Module):
    """A transformers encoder that reads source tokens, projected to the network's width.

    This is the design of the paper (arXiv 2509.26476): a pretrained T5Gemma encoder under a small
    decoder of numbers.

    Args:
        encoder: A transformers model; of an encoder-decoder only the encoder is used.
        d_model: Width of the network.
        freeze: Whether its weights stay as they are.
    """

    def __init__(self, encoder: Any, *, d_model: int, freeze: bool = True) -> None:
        super().__init__()
        is_pair = getattr(encoder.config, "is_encoder_decoder", False)
        self.encoder = encoder.get_encoder() if is_pair else encoder
        self.project = nn.Linear(_width(encoder.config), d_model)
        self.freeze = freeze
        if freeze:
            self.encoder.requires_grad_(False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Hidden states (k, t, d_model) of tokens (k, t)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            out = self.encoder(input_ids=tokens, attention_mask=mask.long())
        return self.project(out.last_hidden_state.to(self.project.weight.dtype))


def _width(config: Any) -> int:
    for part in (config, getattr(config, "encoder", None), getattr(config, "text_config", None)):
        for holder in (part, getattr(part, "text_config", None)):
            width = getattr(holder, "hidden_size", None)
            if isinstance(width, int):
                return width
    raise ValueError(f"backbone {type(config).__name__} has no hidden_size")


@dataclass
class RLMOutput(ModelOutput):
    """What ``RLMModel`` returns.

    Attributes:
        loss: Cross-entropy with the labels, where given.
        logits: (n, k + 1, number_vocab).
        hidden_states: (n, k + 1, d_model).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: Tensor | None = None


class RLMModel(PreTrainedModel):
    """The network behind the interface of transformers.

    Args:
        config: Sizes and backbone.
    """

    config_class = RLMConfig
    base_model_prefix = "network"
    main_input_name = "candidates"

    def __init__(self, config: RLMConfig) -> None:
        super().__init__(config)
        sizes = NetworkConfig.from_json(config.network)
        backbone = None
        if config.backbone:
            settings = dict(config.backbone)
            inner = AutoModel.from_config(
                AutoConfig.for_model(settings.pop("model_type"), **settings)
            )
            backbone = PretrainedBackbone(
                inner, d_model=sizes.d_model, freeze=config.freeze_backbone
            )
        self.network = Network(sizes, backbone=backbone)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Weights are drawn by the network itself."""

    def forward(
        self,
        fields: FieldTensors | tuple[Tensor, ...],
        shared: Tensor,
        candidates: Tensor,
        metrics: Tensor,
        source: Tensor | None = None,
        previous: Tensor | None = None,
        labels: Tensor | None = None,
        smoothing: float = 1.5,
    ) -> RLMOutput:
        """Decode candidates.

        Args:
            fields: The u distinct fields.
            shared: Long, (b, f): the tasks' fields, -1 where there is none.
            candidates: Long, (n, c): the candidates' fields, n / b of each task.
            metrics: Long, (b, m).
            source: Long, (b, t): source tokens, -1 where there is none.
            previous: Tokens known so far, (n, k).
            labels: Fractional bins (n, k + 1); -1 failed, -2 unknown.
            smoothing: Standard deviation of the soft targets in bins.
        """
        embedded = self.network.embed_fields(FieldTensors(*fields))
        memory = self.network.encode(embedded[shared.clamp(min=0)], shared >= 0, source)
        logits, hidden = self.network.decode(memory, embedded, candidates, metrics, previous)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), smoothing)
        return RLMOutput(loss=loss, logits=logits, hidden_states=hidden)


AutoConfig.register(RLMConfig.model_type, RLMConfig, exist_ok=True)
AutoModel.register(RLMConfig, RLMModel, exist_ok=True)
