"""Builds a network layer by layer: as a ``Graph`` in microseconds, or as a runnable model."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from autotune_rlm.networks._graph import Graph, Node, Tensor

if TYPE_CHECKING:
    import onnx

OPSET = 17
_IR_VERSION = 8


class NetworkBuilder:
    """Layers of a network in float32 on an input of a shape. Methods take and return value names."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.input = "input"
        self._nodes: list[Node] = []
        self._tensors: dict[str, Tensor] = {self.input: Tensor("f32", shape)}
        self._weights: dict[str, str] = {}
        self._constants: dict[str, np.ndarray] = {}
        self._level: dict[str, int] = {}
        self._written = self._macs = self._parameters = 0

    def shape(self, value: str) -> tuple[int, ...]:
        return self._tensors[value].shape  # type: ignore[return-value]  # all are known here

    def channels(self, value: str) -> int:
        """Size of the second axis."""
        return self.shape(value)[1]

    def _add(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> str:
        name = f"v{len(self._nodes)}"
        self._nodes.append(Node(op, tuple(inputs), (name,), attributes))
        tensor = self._tensors[name] = _f32(shape)
        self._level[name] = 1 + max([self._level.get(i, 0) for i in inputs])
        self._written += tensor.size() or 0
        return name

    def _weight(self, kind: str, shape: tuple[int, ...]) -> str:
        name = f"w{len(self._weights)}"
        self._weights[name] = kind
        tensor = self._tensors[name] = _f32(shape)
        if shape and kind != "statistic zero" and kind != "statistic one":
            self._parameters += tensor.size() or 0
        return name

    def _integers(self, values: list[int]) -> str:
        name = f"c{len(self._constants)}"
        self._constants[name] = np.array(values, dtype=np.int64)
        self._tensors[name] = Tensor("i64", (len(values),))
        return name

    def conv(
        self,
        x: str,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        pad: int | None = None,
        bias: bool = False,
    ) -> str:
        """Convolution, padded by half the kernel unless told otherwise."""
        n, c, h, w = self.shape(x)
        weights = [self._weight("conv", (channels, c // groups, kernel, kernel))]
        if bias:
            weights.append(self._weight("zero", (channels,)))
        pad = kernel // 2 if pad is None else pad
        size = tuple((s + 2 * pad - kernel) // stride + 1 for s in (h, w))
        attributes: dict[str, Any] = {"kernel_shape": [kernel] * 2, "pads": [pad] * 4}
        attributes["strides"] = [stride] * 2
        if groups > 1:
            attributes["group"] = groups
        self._macs += n * math.prod(size) * channels * (c // groups) * kernel * kernel
        return self._add("Conv", [x, *weights], (n, channels, *size), **attributes)

    def bn(self, x: str) -> str:
        c = self.channels(x)
        kinds = ("one", "zero", "statistic zero", "statistic one")
        stats = [self._weight(kind, (c,)) for kind in kinds]
        return self._add("BatchNormalization", [x, *stats], self.shape(x))

    def relu(self, x: str) -> str:
        return self._add("Relu", [x], self.shape(x))

    def relu6(self, x: str) -> str:
        return self.unary("Clip", x, low=0.0, high=6.0)

    def unary(self, op: str, x: str, *, low: float | None = None, high: float | None = None) -> str:
        """An element-wise operator such as ``Sigmoid``; ``Clip`` with its bounds."""
        bounds = [self._weight(f"value {b}", ()) for b in (low, high) if b is not None]
        return self._add(op, [x, *bounds], self.shape(x))

    def max_pool(self, x: str, kernel: int, *, stride: int, pad: int) -> str:
        return self._pool("MaxPool", x, kernel, stride, pad)

    def avg_pool(self, x: str, kernel: int, *, stride: int, pad: int) -> str:
        """Average pooling; padding does not count."""
        return self._pool("AveragePool", x, kernel, stride, pad)

    def _pool(self, op: str, x: str, kernel: int, stride: int, pad: int) -> str:
        n, c, h, w = self.shape(x)
        size = tuple((s + 2 * pad - kernel) // stride + 1 for s in (h, w))
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        return self._add(op, [x], (n, c, *size), **attributes)

    def global_pool(self, x: str) -> str:
        """Mean over height and width, which stay as axes of size 1."""
        return self._add("GlobalAveragePool", [x], (*self.shape(x)[:2], 1, 1))

    def add(self, *values: str) -> str:
        """Sum of values of one shape."""
        total = values[0]
        for value in values[1:]:
            total = self._add("Add", [total, value], self.shape(total))
        return total

    def mul(self, x: str, y: str) -> str:
        """Product, broadcast to the shape of ``x``."""
        return self._add("Mul", [x, y], self.shape(x))

    def zero(self, x: str) -> str:
        """Zeros of the shape of ``x``."""
        return self._add("Mul", [x, self._weight("value 0.0", ())], self.shape(x))

    def concat(self, *values: str) -> str:
        if len(values) == 1:
            return values[0]
        n, _, h, w = self.shape(values[0])
        channels = sum(self.channels(v) for v in values)
        return self._add("Concat", list(values), (n, channels, h, w), axis=1)

    def first_channels(self, x: str, channels: int) -> str:
        """The first ``channels`` channels."""
        n, c, h, w = self.shape(x)
        if c == channels:
            return x
        bounds = [self._integers([v]) for v in (0, channels, 1)]
        return self._add("Slice", [x, *bounds], (n, channels, h, w))

    def shuffle(self, x: str, groups: int) -> str:
        """Channel shuffle: channels of the groups interleaved."""
        n, c, h, w = self.shape(x)
        wide = (n, groups, c // groups, h, w)
        x = self._add("Reshape", [x, self._integers(list(wide))], wide)
        turned = (n, c // groups, groups, h, w)
        x = self._add("Transpose", [x], turned, perm=[0, 2, 1, 3, 4])
        return self._add("Reshape", [x, self._integers([n, c, h, w])], (n, c, h, w))

    def linear(self, x: str, features: int) -> str:
        """Flattening and a fully connected layer with bias."""
        shape = self.shape(x)
        width = math.prod(shape[1:])
        if len(shape) > 2:
            x = self._add("Flatten", [x], (shape[0], width))
        self._macs += shape[0] * width * features
        inputs = [x, self._weight("dense", (features, width)), self._weight("zero", (features,))]
        return self._add("Gemm", inputs, (shape[0], features), transB=1)

    def patches(self, x: str, width: int, size: int) -> str:
        """Patches of ``size`` by ``size`` pixels as tokens of ``width`` numbers."""
        x = self.conv(x, width, size, stride=size, pad=0)
        n, tokens = self.shape(x)[0], math.prod(self.shape(x)[2:])
        x = self._add("Reshape", [x, self._integers([n, width, tokens])], (n, width, tokens))
        return self._add("Transpose", [x], (n, tokens, width), perm=[0, 2, 1])

    def layer_norm(self, x: str) -> str:
        width = self.shape(x)[-1]
        scale = [self._weight(kind, (width,)) for kind in ("one", "zero")]
        return self._add("LayerNormalization", [x, *scale], self.shape(x), axis=-1)

    def dense(self, x: str, features: int) -> str:
        """A fully connected layer on the last axis, with bias."""
        shape = (*self.shape(x)[:-1], features)
        weight = self._weight("projection", (self.shape(x)[-1], features))
        x = self._matmul(x, weight, shape)
        return self._add("Add", [x, self._weight("zero", (features,))], shape)

    def attention(self, x: str, heads: int) -> str:
        """Self-attention of tokens with its four projections."""
        n, tokens, width = self.shape(x)
        split, size = (n, tokens, heads, width // heads), width // heads

        def head(perm: list[int]) -> str:
            y = self._add("Reshape", [self.dense(x, width), self._integers(list(split))], split)
            return self._add("Transpose", [y], tuple(split[i] for i in perm), perm=perm)

        query, key, value = head([0, 2, 1, 3]), head([0, 2, 3, 1]), head([0, 2, 1, 3])
        score = self._matmul(query, key, (n, heads, tokens, tokens))
        scale = self._weight(f"value {size**-0.5}", ())
        score = self._add("Mul", [score, scale], self.shape(score))
        score = self._add("Softmax", [score], self.shape(score), axis=-1)
        y = self._matmul(score, value, (n, heads, tokens, size))
        y = self._add("Transpose", [y], split, perm=[0, 2, 1, 3])
        y = self._add("Reshape", [y, self._integers([n, tokens, width])], (n, tokens, width))
        return self.dense(y, width)

    def mean_token(self, x: str) -> str:
        n, _, width = self.shape(x)
        return self._add("ReduceMean", [x], (n, width), axes=[1], keepdims=0)

    def _matmul(self, x: str, y: str, shape: tuple[int, ...]) -> str:
        self._macs += math.prod(shape) * self.shape(x)[-1]
        return self._add("MatMul", [x, y], shape)

    def conv_bn_relu(self, x: str, channels: int, kernel: int, *, stride: int = 1) -> str:
        return self.relu(self.bn(self.conv(x, channels, kernel, stride=stride)))

    def inverted_residual(
        self,
        x: str,
        channels: int,
        *,
        kernel: int,
        expansion: int,
        stride: int,
        groups: int = 1,
        squeeze: int = 0,
    ) -> str:
        """MobileNetV2's block, with FBNet's grouped and MnasNet's squeezed variants.

        ``kernel`` and ``stride`` are those of the depthwise convolution. An ``expansion`` of 1 leaves the
        first convolution out, unless it is grouped. Channels of grouped pointwise convolutions are
        shuffled. ``squeeze`` are the channels of the squeeze-and-excitation bottleneck; 0 for none.
        """
        entry, width = x, self.channels(x) * expansion
        if expansion > 1 or groups > 1:
            x = self.relu6(self.bn(self.conv(x, width, 1, groups=groups)))
            if groups > 1:
                x = self.shuffle(x, groups)
        x = self.relu6(self.bn(self.conv(x, width, kernel, stride=stride, groups=width)))
        if squeeze:
            gate = self.relu(self.conv(self.global_pool(x), squeeze, 1, bias=True))
            x = self.mul(x, self.unary("Sigmoid", self.conv(gate, width, 1, bias=True)))
        x = self.bn(self.conv(x, channels, 1, groups=groups))
        return self.add(x, entry) if self.shape(x) == self.shape(entry) else x

    def costs(self, output: str) -> dict[str, int]:
        """Parameters, MACs, bytes written and depth, as ``graph_facts`` would find them.

        Counted while building, so they are free; layers that ``output`` does not need count too.
        """
        return {
            "parameters": self._parameters,
            "macs": self._macs,
            "activation_bytes": 4 * self._written,
            "depth": self._level[output],
        }

    def graph(self, output: str) -> Graph:
        """The network as a canonical graph. Layers that ``output`` does not need are dropped."""
        nodes = {n.outputs[0]: n for n in self._nodes}
        order: list[Node] = []
        seen: set[str] = set()
        stack: list[tuple[str, bool]] = [(output, False)]
        while stack:
            name, ready = stack.pop()
            if name not in nodes or (name in seen and not ready):
                continue
            if ready:
                order.append(nodes[name])
                continue
            seen.add(name)
            stack.append((name, True))
            stack.extend((i, False) for i in reversed(nodes[name].inputs))
        return Graph(
            nodes=tuple(order),
            inputs=(self.input,),
            outputs=(output,),
            tensors=self._tensors,
            weights=frozenset(self._weights) | frozenset(self._constants),
            constants=self._constants,
            opset=OPSET,
        )

    def model(self, output: str, *, seed: int = 0) -> onnx.ModelProto:
        """The network as a model with random weights of the usual scale, ready to run."""
        from onnx import TensorProto, helper, numpy_helper

        graph = self.graph(output)
        rng = np.random.default_rng(seed)
        used = [i for node in graph.nodes for i in node.inputs if i in graph.weights]
        initialisers = []
        for name in dict.fromkeys(used):
            values = self._constants.get(name)
            if values is None:
                values = _values(self._weights[name], graph.tensor(name).shape or (), rng)
            initialisers.append(numpy_helper.from_array(values, name))
        nodes = [helper.make_node(n.op, n.inputs, n.outputs, **n.attributes) for n in graph.nodes]
        ends = [
            helper.make_tensor_value_info(v, TensorProto.FLOAT, self.shape(v))
            for v in (self.input, output)
        ]
        body = helper.make_graph(nodes, "network", ends[:1], ends[1:], initialisers)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(body, opset_imports=opsets, ir_version=_IR_VERSION)


@lru_cache(maxsize=4096)
def _f32(shape: tuple[int, ...]) -> Tensor:
    return Tensor("f32", shape)


def _values(kind: str, shape: tuple[Any, ...], rng: np.random.Generator) -> np.ndarray:
    if kind.startswith("value "):
        return np.array(float(kind.split()[1]), dtype=np.float32)
    if kind.endswith(("one", "zero")):
        return np.full(shape, float(kind.endswith("one")), dtype=np.float32)
    fan_in = shape[0] if kind == "projection" else math.prod(shape[1:])
    return (rng.standard_normal(shape) * np.sqrt(2.0 / fan_in)).astype(np.float32)
