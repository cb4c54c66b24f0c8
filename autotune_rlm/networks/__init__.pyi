from ._facts import GraphFacts, graph_facts
from ._fields import network_fields
from ._graph import Graph, read_graph
from ._text import onnx_text, printable_text
from .spaces import ArchitectureSpace, space

__all__ = [
    "ArchitectureSpace",
    "Graph",
    "GraphFacts",
    "graph_facts",
    "network_fields",
    "onnx_text",
    "printable_text",
    "read_graph",
    "space",
]
