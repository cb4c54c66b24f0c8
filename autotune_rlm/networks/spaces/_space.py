"""What an architecture space is: named choices, and how they become a network."""

from __future__ import annotations

import abc
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autotune_rlm.networks._builder import NetworkBuilder
from autotune_rlm.networks._dims import assumed_dims
from autotune_rlm.networks._facts import GraphFacts, graph_facts
from autotune_rlm.networks._graph import Graph, read_graph
from autotune_rlm.networks._load import load_skeleton
from autotune_rlm.networks._text import onnx_text
from autotune_rlm.networks.fields import network_fields

if TYPE_CHECKING:
    import onnx

Config = Mapping[str, Any]

_REMEMBERED = 4096


class ArchitectureSpace(abc.ABC):
    """A set of networks, each given by one value per parameter.

    A space of your own gives ``name``, ``parameters`` and ``build``; the rest follows.

    Example:
        ```python
        class Mlp(ArchitectureSpace):
            name = "mlp"
            parameters = {"width": (64, 128, 256), "depth": (1, 2, 3)}
            input_shape = (1, 32)

            def build(self, config):
                layers = [torch.nn.Linear(32, config["width"]), torch.nn.ReLU()]
                for _ in range(config["depth"] - 1):
                    layers += [torch.nn.Linear(config["width"], config["width"]), torch.nn.ReLU()]
                return torch.nn.Sequential(*layers, torch.nn.Linear(config["width"], 10))
        ```

    Attributes:
        name: Name of the space.
        parameters: The values of each parameter, at least one each.
        input_shape: Shape of the input with its batch; needed where ``build`` gives a module.
        conditions: When a parameter matters, by its name: a function of the configuration, such as
            ``{"kernel3": lambda config: config["depth"] > 3}``. Configurations that differ only in
            what does not matter are one network, and are tried once.
        zero_cost: Whether a search reads zero-cost proxies (``networks.proxies``) of the modules
            that ``build`` gives: a forward and a backward pass for each network that is looked at.
    """

    name: str
    parameters: Mapping[str, tuple[Any, ...]]
    input_shape: tuple[int, ...] = (1, 3, 32, 32)
    conditions: Mapping[str, Callable[[Config], bool]] = {}
    zero_cost: bool = False

    @abc.abstractmethod
    def build(self, config: Config) -> Any:
        """The network of a configuration: an ``onnx.ModelProto`` or a ``torch.nn.Module``."""

    def valid(self, config: Config) -> bool:
        """Whether the choices go together. All do, unless overridden."""
        return True

    def canonical(self, config: Config) -> dict[str, Any]:
        """The representative of all configurations that give the same network.

        What does not matter (``conditions``) has its first value.
        """
        return {
            name: self.parameters[name][0]
            if name in self.conditions and not self.conditions[name](config)
            else value
            for name, value in config.items()
        }

    def check(self, config: Config) -> dict[str, Any]:
        """The configuration as a dictionary in the order of ``parameters``.

        Raises:
            ValueError: A parameter is missing, unknown or has another value, or the choices do not
                go together.
        """
        if missing := set(self.parameters) - set(config):
            raise ValueError(f"config: {self.name} needs {sorted(missing)}")
        if unknown := set(config) - set(self.parameters):
            raise ValueError(
                f"config: {self.name} has no parameters {sorted(unknown)}; it has "
                f"{list(self.parameters)}"
            )
        for name, values in self.parameters.items():
            if config[name] not in values:
                raise ValueError(f"config: {name} must be one of {values}, got {config[name]!r}")
        if not self.valid(config):
            raise ValueError(f"config: these choices give no network of {self.name}: {config}")
        return {name: config[name] for name in self.parameters}

    @property
    def size(self) -> int:
        """Number of combinations, valid or not."""
        return int(np.prod([len(v) for v in self.parameters.values()], dtype=object))

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """A random valid configuration."""
        for _ in range(10_000):
            config = {n: v[rng.integers(len(v))] for n, v in self.parameters.items()}
            if self.valid(config):
                return config
        raise ValueError(f"{self.name}: 10,000 random configurations were all invalid")

    def mutate(
        self, config: Config, rng: np.random.Generator, *, changes: int = 1
    ) -> dict[str, Any]:
        """A valid configuration that differs in up to ``changes`` parameters."""
        movable = [name for name, values in self.parameters.items() if len(values) > 1]
        for _ in range(1_000):
            mutant = dict(config)
            for name in rng.choice(movable, size=min(changes, len(movable)), replace=False):
                others = [v for v in self.parameters[name] if v != config[name]]
                mutant[str(name)] = others[rng.integers(len(others))]
            if self.valid(mutant):
                return mutant
        return self.sample(rng)

    def cross(self, a: Config, b: Config, rng: np.random.Generator) -> dict[str, Any]:
        """A valid configuration with each parameter from one of two parents."""
        for _ in range(100):
            child = {n: (a if rng.random() < 0.5 else b)[n] for n in self.parameters}
            if self.valid(child):
                return child
        return dict(a)

    def model(self, config: Config) -> onnx.ModelProto:
        """The network as ONNX; a module is exported with ``torch.onnx``."""
        import onnx

        built = self.build(self.check(config))
        if isinstance(built, onnx.ModelProto):
            return built
        return _export(built, self.input_shape)

    def graph(self, config: Config) -> Graph:
        """The network's canonical graph; the last few thousand are remembered."""
        known = self.__dict__.setdefault("_graphs", OrderedDict())
        key = repr(sorted(config.items()))
        if key not in known:
            model = self.model(config)
            known[key] = read_graph(model, dims=assumed_dims(load_skeleton(model)))
            if len(known) > _REMEMBERED:
                known.popitem(last=False)
        return known[key]

    def text(self, config: Config) -> str:
        """The network as the surrogate reads it."""
        return onnx_text(self.graph(config))

    def facts(self, config: Config) -> GraphFacts:
        """Parameters, operations, memory and depth of the network."""
        return graph_facts(self.graph(config))

    def fields(self, config: Config) -> dict[str, float]:
        """The network in the numbers that every network has; see ``networks.network_fields``."""
        return network_fields(self.graph(self.canonical(config)))

    def counts(self, config: Config) -> Mapping[str, int]:
        """What is in the network how often, beyond its choices: none, unless overridden.

        Cells count their paths. Regression on few measured networks reads these as features.
        """
        return {}

    def hints(self, config: Config) -> Mapping[str, float]:
        """More numbers that a search reads of a network, by name: proxies where it has them."""
        if not self.zero_cost:
            return {}
        from autotune_rlm.networks.proxies import zero_cost

        return zero_cost(self.build(self.check(config)), self.input_shape)

    def costs(self, config: Config) -> dict[str, int]:
        """Parameters, MACs, bytes of activations and depth; the fastest way to them."""
        facts = self.facts(config)
        return {
            "parameters": facts.parameters,
            "macs": facts.macs,
            "activation_bytes": facts.activation_bytes,
            "depth": facts.depth,
        }

    def parse(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of a row of a published table: one column per parameter here."""
        return self.check({name: row[name] for name in self.parameters})


class BuilderSpace(ArchitectureSpace):
    """A space whose networks are made by ``NetworkBuilder``: graphs need no ONNX file at all."""

    @abc.abstractmethod
    def network(self, config: Config) -> tuple[NetworkBuilder, str]:
        """The builder and the name of its output."""

    def build(self, config: Config) -> onnx.ModelProto:
        """The network with random weights."""
        builder, output = self.network(config)
        return builder.model(output)

    def graph(self, config: Config) -> Graph:
        """The network's canonical graph."""
        builder, output = self.network(self.check(config))
        return builder.graph(output)

    def costs(self, config: Config) -> dict[str, int]:
        """Parameters, MACs, bytes of activations and depth; the fastest way to them."""
        builder, output = self.network(self.canonical(config))
        return builder.costs(output)


def _export(module: Any, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The module as ONNX, by tracing; by torch's default exporter where that fails or is no more.

    A search exports each network that it looks at. On one core a small residual network takes 0.04 s by
    tracing and 1.4 s by torch 2.13's default exporter.
    """
    import warnings

    import onnx
    import torch

    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            "build must return an onnx.ModelProto or a torch.nn.Module, got "
            f"{type(module).__name__}"
        )
    given = module.eval(), (torch.zeros(shape),)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "network.onnx")
        try:
            torch.onnx.export(*given, path, dynamo=False)
        except Exception:  # each exporter raises its own errors
            torch.onnx.export(*given, path)
        return onnx.load(path)
