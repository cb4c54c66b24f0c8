"""The bundled surrogate, if it was trained on networks."""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path

from autotune_rlm.types import Surrogate


@functools.lru_cache(maxsize=1)
def networks_checkpoint() -> Path | None:
    """The bundled checkpoint whose settings name ``"onnx"`` among their ``languages``, else None.

    Nothing heavy is imported to find that out.
    """
    found = importlib.util.find_spec("autotune_rlm.surrogate")
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(next(iter(found.submodule_search_locations))) / "weights"
    for config in sorted(folder.glob("*/config.json")):
        settings = json.loads(config.read_text(encoding="utf-8")).get("settings") or {}
        if "onnx" in settings.get("languages", ()):
            return config.parent
    return None


@functools.lru_cache(maxsize=1)
def default_surrogate() -> Surrogate | None:
    """The package's own surrogate where ``networks_checkpoint`` is; None where there is none.

    Its weights are those in use: what was fine-tuned on the store and accepted, else those shipped.
    """
    if networks_checkpoint() is None:
        return None
    from autotune_rlm.surrogate import load

    return load()
