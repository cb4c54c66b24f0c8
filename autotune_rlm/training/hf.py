"""The network as a Hugging Face model: ``from_pretrained``, ``save_pretrained``, accelerate, peft.

The same checkpoints are read by ``load``, which needs no transformers and starts faster. A folder that
``save_checkpoint`` wrote loads with ``RLMModel.from_pretrained(folder)`` and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput
from transformers.utils.hub import cached_file

from autotune_rlm.surrogate.network import FieldTensors, Network, NetworkConfig
from autotune_rlm.surrogate.tokenizer import TextTokenizer
from autotune_rlm.training.loss import cross_entropy

__all__ = ["RLMConfig", "RLMModel", "RLMOutput"]


_TOKENIZER = "tokenizer.json"
_COMPANIONS = (
    _TOKENIZER,
    "text_tokenizer.json",
    "eye.safetensors",
    "programs.safetensors",
    "table.safetensors",
)


class RLMConfig(PretrainedConfig):
    """Configuration of ``RLMModel``.

    Args:
        network: Arguments of ``NetworkConfig``, a pretrained ``backbone`` among them.
        **kwargs: Passed on.

    Raises:
        ValueError: ``backbone`` is given beside ``network``.
    """

    model_type = "autotune_rlm"

    def __init__(self, network: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if kwargs.pop("backbone", None):
            raise ValueError(
                "backbone: give it as network={'backbone': ..., 'backbone_training': 'frozen'}"
            )
        self.network = NetworkConfig.from_json(network or {}).to_json()
        self.name = str(kwargs.pop("name", "model"))
        self.format = int(kwargs.pop("format", 1))
        super().__init__(**kwargs)


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
        config: Sizes.
    """

    config_class = RLMConfig
    base_model_prefix = "network"
    main_input_name = "candidates"

    def __init__(self, config: RLMConfig) -> None:
        super().__init__(config)
        self.companions: dict[str, bytes] = {}
        self.network = Network(NetworkConfig.from_json(config.network))
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a folder or a repository of the Hub; weights are fp32 unless ``dtype`` says otherwise.

        What else a checkpoint of ours holds (tokenizer, trees, a table's leading model) is kept, and
        written again by ``save_pretrained``, so that ``load_surrogate`` and ``RLM.load`` read the result.
        """
        if not {"dtype", "torch_dtype"} & kwargs.keys():
            kwargs["dtype"] = torch.float32
        model = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        found = (model[0] if isinstance(model, tuple) else model).companions
        for name in _COMPANIONS:
            options = {k: v for k, v in kwargs.items() if k in ("revision", "token", "cache_dir")}
            path = cached_file(
                str(pretrained_model_name_or_path),
                name,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                **options,
            )
            if path is not None:
                found[name] = Path(path).read_bytes()
        return model

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Write a checkpoint that ``load_surrogate`` reads too."""
        result = super().save_pretrained(save_directory, *args, **kwargs)
        for name, content in self.companions.items():
            Path(save_directory, name).write_bytes(content)
        return result

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of the checkpoint.

        Raises:
            ValueError: There is none: the model was made from a configuration alone.
        """
        if _TOKENIZER not in self.companions:
            raise ValueError(
                "this model has no tokenizer: set model.tokenizer, or use from_pretrained"
            )
        return TextTokenizer.from_bytes(self.companions[_TOKENIZER])

    @tokenizer.setter
    def tokenizer(self, tokenizer: TextTokenizer) -> None:
        self.companions[_TOKENIZER] = tokenizer.to_bytes()

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
        texts: Tensor | None = None,
        text_of: Tensor | None = None,
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
            texts: Long, (k, t): the candidates' distinct texts, -1 where there is no token.
            text_of: Long, (n,): each candidate's text, -1 for none.
            labels: Fractional bins (n, k + 1); -1 failed, -2 unknown.
            smoothing: Standard deviation of the soft targets in bins.
        """
        embedded = self.network.embed_fields(FieldTensors(*fields))
        memory = self.network.encode(embedded[shared.clamp(min=0)], shared >= 0, source)
        read = None if texts is None else self.network.read_texts(texts)
        logits, hidden = self.network.decode(
            memory, embedded, candidates, metrics, previous, texts=read, text_of=text_of
        )
        loss = None
        if labels is not None:
            loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), smoothing)
        return RLMOutput(loss=loss, logits=logits, hidden_states=hidden)


AutoConfig.register(RLMConfig.model_type, RLMConfig, exist_ok=True)
AutoModel.register(RLMConfig, RLMModel, exist_ok=True)
