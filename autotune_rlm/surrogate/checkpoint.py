"""Checkpoints: a folder with weights (safetensors), ``config.json``, ``tokenizer.json`` and a card.

The weights are kept in half precision; nothing in a checkpoint is ever executed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from autotune_rlm._files import replacing
from autotune_rlm._version import __version__
from autotune_rlm.surrogate.eye import Eye
from autotune_rlm.surrogate.network import Network, NetworkConfig
from autotune_rlm.surrogate.program_eye import ProgramEye
from autotune_rlm.surrogate.tokenizer import TextTokenizer

__all__ = ["BUNDLED", "Checkpoint", "load_checkpoint", "save_checkpoint"]

BUNDLED = Path(__file__).parent / "weights"
_FORMAT = 1
_TEXT_TOKENIZER = "text_tokenizer.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded checkpoint.

    ``eye`` is what it learned of the compiler's facts, ``program_eye`` of those of programs, if anything.
    """

    name: str
    network: Network
    tokenizer: TextTokenizer
    settings: dict[str, object]
    eye: Eye | None = None
    program_eye: ProgramEye | None = None


def save_checkpoint(
    folder: str | Path,
    network: Network,
    tokenizer: TextTokenizer,
    *,
    name: str,
    settings: dict[str, object] | None = None,
    eye: Eye | None = None,
    program_eye: ProgramEye | None = None,
) -> Path:
    """Write a checkpoint.

    Args:
        folder: Made if it is not there.
        network: Weights are stored as fp16.
        tokenizer: Of the texts.
        name: Of the surrogate.
        settings: Anything else worth keeping, such as calibration; JSON.
        eye: What was learned of the compiler's facts.
        program_eye: What was learned of the facts of programs.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().half().contiguous() for k, v in network.state_dict().items()}
    with replacing(folder / "model.safetensors") as draft:
        save_file(weights, str(draft), metadata={"format": "pt"})
    tokenizer.save(folder / "tokenizer.json")
    if tokenizer.of_texts is not None:
        tokenizer.of_texts.save(str(folder / _TEXT_TOKENIZER))
    if eye is not None:
        eye.save(folder)
    if program_eye is not None:
        program_eye.save(folder)
    config = {
        "model_type": "autotune_rlm",
        "name": name,
        "format": _FORMAT,
        "package": __version__,
        "network": network.config.to_json(),
        "settings": settings or {},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder


def load_checkpoint(name_or_path: str | Path | None = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        name_or_path: Folder, or the name of a bundled one; None for ``"nano"``.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: It was written by a newer version.
    """
    wanted = "nano" if name_or_path is None else str(name_or_path)
    folder = BUNDLED / wanted if (BUNDLED / wanted / "config.json").exists() else Path(wanted)
    if not (folder / "config.json").exists():
        bundled = sorted(p.parent.name for p in BUNDLED.glob("*/config.json"))
        raise FileNotFoundError(
            f"surrogate {wanted!r} is neither bundled (there are: {', '.join(bundled) or 'none'}) "
            "nor a folder with a config.json"
        )
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != "autotune_rlm" or config.get("format", 0) > _FORMAT:
        raise ValueError(
            f"{folder}: written as {config.get('model_type')!r} format {config.get('format')}, this "
            f"version reads 'autotune_rlm' up to format {_FORMAT}; update autotune-rlm"
        )
    network = Network(NetworkConfig.from_json(config["network"]), initialise=False)
    weights = load_file(str(folder / "model.safetensors"))
    network.load_state_dict({k.removeprefix("network."): v.float() for k, v in weights.items()})
    network.eval().requires_grad_(False)
    tokenizer = TextTokenizer.load(folder / "tokenizer.json")
    if (folder / _TEXT_TOKENIZER).exists():
        tokenizer.of_texts = Tokenizer.from_file(str(folder / _TEXT_TOKENIZER))
    return Checkpoint(
        config.get("name", wanted),
        network,
        tokenizer,
        config.get("settings", {}),
        Eye.load(folder),
        ProgramEye.load(folder),
    )
