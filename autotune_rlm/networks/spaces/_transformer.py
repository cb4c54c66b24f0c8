"""Vision transformers whose layers choose their heads and widths, as in AutoFormer."""

from __future__ import annotations

from functools import partial

from autotune_rlm.networks._builder import NetworkBuilder
from autotune_rlm.networks.spaces._space import BuilderSpace, Config

_MAX_DEPTH = 12
_CLASSES = 10


def _is_deeper(layer: int, config: Config) -> bool:
    return bool(config["depth"] > layer)


class Transformer(BuilderSpace):
    """Vision transformers for images of 32 by 32, after AutoFormer (arXiv 2107.00651).

    ``depth`` layers of ``width`` numbers a token; each layer has its number of heads (``h0`` ...) and
    the ratio of its hidden width (``r0`` ...). The choices of layers beyond the depth do not matter.
    """

    name = "transformer"
    parameters = {  # noqa: RUF012
        "depth": tuple(range(2, _MAX_DEPTH + 1, 2)),
        "width": (96, 192, 288, 384, 576),
        **{f"h{i}": (3, 6, 12) for i in range(_MAX_DEPTH)},
        **{f"r{i}": (2, 3, 4) for i in range(_MAX_DEPTH)},
    }
    conditions = {  # noqa: RUF012
        f"{kind}{i}": partial(_is_deeper, i) for i in range(_MAX_DEPTH) for kind in "hr"
    }
    input_shape = (1, 3, 32, 32)

    def network(self, config: Config) -> tuple[NetworkBuilder, str]:
        """Patches of 4 by 4, layers with normalisation before each part, the mean of the tokens."""
        net = NetworkBuilder(self.input_shape)
        width = config["width"]
        x = net.patches(net.input, width, 4)
        for i in range(config["depth"]):
            x = net.add(x, net.attention(net.layer_norm(x), config[f"h{i}"]))
            hidden = net.relu(net.dense(net.layer_norm(x), width * config[f"r{i}"]))
            x = net.add(x, net.dense(hidden, width))
        return net, net.linear(net.mean_token(net.layer_norm(x)), _CLASSES)
