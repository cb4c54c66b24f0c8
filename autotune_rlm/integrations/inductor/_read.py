"""What Inductor is about to tune, as a task with candidates."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from autotune_rlm.types import Candidate, Device, Task

_PAIR = re.compile(r"\b([A-Za-z_]\w*)=('[^']*'|\"[^\"]*\"|[^,\s]+)")
# What a template can be tuned by. Its other constants follow from the problem (EVEN_K, ALLOW_TF32) or
# are the same for all (GROUP_M is 8).
_TUNED = re.compile(
    r"^(BLOCK_\w+|SPLIT_\w+|num_stages|num_warps|matrix_instr_nonkdim|waves_per_eu|kpack)$"
)
_NO_PRODUCTS = ("convolution2d", "convolution3d", "flex_attention")
_PLAIN = ("mm", "bmm", *_NO_PRODUCTS)


def of_templates(
    templates: Sequence[Any], inputs: Any, device: Device
) -> tuple[Task, list[Candidate]]:
    """The task and the candidates of Triton templates (``KernelTemplateChoice``), their payloads."""
    nodes = zip(inputs.shapes_hinted(), inputs.strides_hinted(), inputs.dtypes(), strict=True)
    candidates = [
        Candidate(_config(t.template.name, t.params.to_kwargs()), payload=t) for t in templates
    ]
    return _task(list(nodes), [t.template.name for t in templates], device), candidates


def of_choices(choices: Sequence[Any], device: Device) -> tuple[Task, list[Candidate]]:
    """The task and the candidates of generated choices (``ChoiceCaller``), their payloads."""
    names = [_name(choice) for choice in choices]
    candidates = [
        Candidate(_config(name, parameters_of(choice)), payload=choice)
        for name, choice in zip(names, choices, strict=True)
    ]
    # the library's kernel has the operation's own inputs; a C++ template may have repacked them
    library = [c for c in choices if parameters_of(c) is None and not c.name.startswith("cpp_")]
    of = (library or choices)[0]
    return _task([_node(n) for n in of.input_nodes], [_name(of), *names], device), candidates


def parameters_of(choice: Any) -> dict[str, Any] | None:
    """The constants of a generated Triton template; None for any other choice."""
    made_from = choice.annotations.get("ktc")
    if made_from is not None and "num_warps" in (found := made_from.params.to_kwargs()):
        return dict(found)
    info = choice.info_dict()
    if "num_warps" not in info:
        return None
    found = {name: _value(text) for name, text in _PAIR.findall(choice.description or "")}
    return {**found, "num_warps": info["num_warps"], "num_stages": info["num_stages"]}


def _config(name: str, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """A candidate's parameters; the implementation's name where it is no plain Triton template."""
    if parameters is None:
        return {"implementation": name}
    config = {k: v for k, v in parameters.items() if _TUNED.match(k) and v not in (0, None)}
    return config if name in _PLAIN else {**config, "implementation": name}


def _name(choice: Any) -> str:
    """The implementation: Inductor numbers its choices, triton_mm_3 and triton_mm_7 are one."""
    return re.sub(r"_\d+$", "", choice.name).removeprefix("triton_")


def _task(
    nodes: Sequence[tuple[Sequence[int], Sequence[int], Any]], names: Sequence[str], device: Device
) -> Task:
    """The task; its name follows from the inputs, so that it does not depend on what is listed.

    A product is told in the words of Inductor's own recordings (m, k, n, mat1, mat2). The last two
    inputs are its factors, a bias before them is a tensor beside.
    """
    shapes, strides, dtypes = zip(*nodes, strict=True)
    kinds = [str(dtype).removeprefix("torch.") for dtype in dtypes]
    problem: dict[str, Any] = {}
    beside = list(range(len(kinds)))
    kernel = next((n for n in names if n in _PLAIN), names[0])
    if kernel not in _NO_PRODUCTS and len(kinds) >= 2 and _is_product(shapes[-2], shapes[-1]):
        *batch, m, k = (int(size) for size in shapes[-2])
        problem |= {"m": m, "k": k, "n": int(shapes[-1][-1])}
        for number, at in (1, -2), (2, -1):
            problem[f"mat{number}_dtype"] = kinds[at]
            for axis, stride in enumerate(strides[at][-2:]):
                problem[f"mat{number}_stride_{axis}"] = int(stride)
        beside = beside[:-2]
        kernel = "addmm" if beside else "mixed_mm" if kinds[-1] != kinds[-2] else "mm"
        if batch:
            problem["batch"] = batch[0]
            kernel = "bmm"
    for at in beside:
        shape = [int(size) for size in shapes[at]]
        problem[f"input_{at}"] = {"dtype": kinds[at], "shape": shape}
    return Task(kernel=f"inductor_{kernel}", language="triton", problem=problem, device=device)


def _is_product(left: Sequence[int], right: Sequence[int]) -> bool:
    return len(left) == len(right) in (2, 3) and left[-1] == right[-2]


def _node(node: Any) -> tuple[list[int], list[int], Any]:
    from torch._inductor.virtualized import V

    hints = V.graph.sizevars
    # torch 2.11 has the same function under the name size_hints
    read = getattr(hints, "optimization_hints", None) or getattr(hints, "size_hints")  # noqa: B009
    return list(read(node.get_size())), list(read(node.get_stride())), node.get_dtype()


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
