"""Spaces of inverted residual blocks: FBNet, MnasNet-style ones, and NAS-Bench-Macro."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune_rlm.networks._builder import NetworkBuilder
from autotune_rlm.networks.spaces._space import BuilderSpace, Config

_FBNET_STAGES = (
    (16, 1, 1),
    (24, 4, 2),
    (32, 4, 2),
    (64, 4, 2),
    (112, 4, 1),
    (184, 4, 2),
    (352, 1, 1),
)
_FBNET_BLOCKS = (
    "k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip",
)  # fmt: skip


class FBNet(BuilderSpace):
    """FBNet (Wu et al., CVPR 2019): one of nine blocks in each of 22 layers ``b0`` ... ``b21``."""

    name = "fbnet"
    parameters = {f"b{i}": _FBNET_BLOCKS for i in range(22)}  # noqa: RUF012
    input_shape = (1, 3, 224, 224)

    def parse(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of a row with ``op_idx``, such as ``7_8_1...``."""
        indices = [int(i) for i in str(row["op_idx"]).split("_")]
        return self.check({f"b{i}": _FBNET_BLOCKS[k] for i, k in enumerate(indices)})

    def network(self, config: Config) -> tuple[NetworkBuilder, str]:
        """Stem, 22 blocks in seven stages, 1504 channels before the classifier."""
        net = NetworkBuilder(self.input_shape)
        x = net.conv_bn_relu(net.input, 16, 3, stride=2)
        layer = 0
        for channels, repeats, first_stride in _FBNET_STAGES:
            for i in range(repeats):
                stride = first_stride if i == 0 else 1
                x = _fbnet_block(net, x, channels, stride, config[f"b{layer}"])
                layer += 1
        x = net.conv_bn_relu(x, 1504, 1)
        return net, net.linear(net.global_pool(x), 1000)


def _fbnet_block(net: NetworkBuilder, x: str, channels: int, stride: int, block: str) -> str:
    if block == "skip":
        if stride == 1 and net.channels(x) == channels:
            return x
        return net.conv_bn_relu(x, channels, 1, stride=stride)
    kernel, expansion, *grouped = block.split("_")
    return net.inverted_residual(
        x,
        channels,
        kernel=int(kernel[1:]),
        expansion=int(expansion[1:]),
        stride=stride,
        groups=2 if grouped else 1,
    )


_MNASNET_STAGES = ((16, 1), (24, 2), (40, 2), (80, 2), (112, 1), (192, 2), (320, 1))


class MnasNet(BuilderSpace):
    """MnasNet-style stages as in Accel-NASBench (Afzal et al., 2024).

    Seven stages, each with expansion ``block0_e``, kernel ``block0_k``, layers ``block0_l`` and
    squeeze-and-excitation ``block0_se``.
    """

    name = "mnasnet"
    parameters = {  # noqa: RUF012
        f"block{i}_{field}": values
        for i in range(7)
        for field, values in (
            ("e", (1, 4, 6)),
            ("k", (3, 5)),
            ("l", (1, 2, 3, 4) if i == 5 else (1, 2, 3)),
            ("se", (False, True)),
        )
    }
    input_shape = (1, 3, 224, 224)

    def parse(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of a row with one column per parameter."""
        config: dict[str, Any] = {}
        for name in self.parameters:
            text = str(row[name])
            config[name] = text in ("True", "1", "true") if name.endswith("_se") else int(text)
        return self.check(config)

    def network(self, config: Config) -> tuple[NetworkBuilder, str]:
        """Stem of 32 channels, seven stages, 1280 channels before the classifier."""
        net = NetworkBuilder(self.input_shape)
        x = net.conv_bn_relu(net.input, 32, 3, stride=2)
        for i, (channels, first_stride) in enumerate(_MNASNET_STAGES):
            for layer in range(config[f"block{i}_l"]):
                width = net.channels(x)
                x = net.inverted_residual(
                    x,
                    channels,
                    kernel=config[f"block{i}_k"],
                    expansion=config[f"block{i}_e"],
                    stride=first_stride if layer == 0 else 1,
                    squeeze=max(1, width // 4) if config[f"block{i}_se"] else 0,
                )
        x = net.conv_bn_relu(x, 1280, 1)
        return net, net.linear(net.global_pool(x), 1000)


_MACRO_LAYERS = ((64, 2), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1), (256, 1))


class NASBenchMacro(BuilderSpace):
    """NAS-Bench-Macro (Su et al., CVPR 2021): eight layers ``b0`` ... ``b7`` for CIFAR-10.

    0 is the identity (a pointwise convolution where the shape changes), 1 MobileNetV2's block with
    expansion 3 and kernel 3, 2 the one with expansion 6 and kernel 5.
    """

    name = "nasbench_macro"
    parameters = {f"b{i}": (0, 1, 2) for i in range(8)}  # noqa: RUF012
    input_shape = (1, 3, 32, 32)

    def parse(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of a row with ``arch``: a string of eight digits."""
        named = str(row.get("arch", "")).strip()
        values = [named.zfill(8) if named.isdigit() else named, *map(str, row.values())]
        for digits in values:
            if len(digits) == 8 and set(digits) <= set("012"):
                return self.check({f"b{i}": int(d) for i, d in enumerate(digits)})
        raise ValueError(f"no column holds eight digits of 0, 1 and 2: {dict(row)}")

    def network(self, config: Config) -> tuple[NetworkBuilder, str]:
        """Stem of 32 channels, eight layers in three stages, 1280 channels at the end."""
        net = NetworkBuilder(self.input_shape)
        x = net.conv_bn_relu(net.input, 32, 3)
        for i, (channels, stride) in enumerate(_MACRO_LAYERS):
            choice = config[f"b{i}"]
            if choice:
                kernel, expansion = ((3, 3), (5, 6))[choice - 1]
                x = net.inverted_residual(
                    x, channels, kernel=kernel, expansion=expansion, stride=stride
                )
            elif stride > 1 or net.channels(x) != channels:
                x = net.bn(net.conv(x, channels, 1, stride=stride))
        x = net.conv_bn_relu(x, 1280, 1)
        return net, net.linear(net.global_pool(x), 10)
