from ._dims import input_sizes
from ._facts import GraphFacts, graph_facts
from ._graph import Graph, read_graph
from ._load import ModelLike
from ._text import onnx_text, printable_text
from .fields import network_fields
from .spaces import ArchitectureSpace, space

__all__ = [
    "ArchitectureSpace",
    "Graph",
    "GraphFacts",
    "ModelLike",
    "graph_facts",
    "input_sizes",
    "network_fields",
    "onnx_text",
    "printable_text",
    "read_graph",
    "space",
]
