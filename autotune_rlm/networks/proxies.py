"""Zero-cost proxies: what one pass through an untrained PyTorch module says of its accuracy."""

from __future__ import annotations

import copy
from typing import Any

_INPUTS = 16  # of which NASWOT compares the patterns


def zero_cost(module: Any, input_shape: tuple[int, ...], *, seed: int = 0) -> dict[str, float]:
    """Three proxies of an untrained module; empty for anything that is no ``torch.nn.Module``.

    The module is left as it was. Input is random: no data are needed.

    Args:
        module: The network.
        input_shape: Shape of one input with its batch, which is set to 16.
        seed: Of the inputs.

    Returns:
        ``log_synflow``: logarithm of the sum of weight times gradient with all weights positive
        (arXiv 2006.05467). ``naswot``: log-determinant of the kernel of the inputs' patterns of
        active rectifiers (arXiv 2006.04647), 0 for a network without any. ``log_gradient``:
        logarithm of the norm of the gradient of the mean output (arXiv 2101.08134).
    """
    import numpy as np
    import torch

    if not isinstance(module, torch.nn.Module):
        return {}
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn((_INPUTS, *input_shape[1:]), generator=generator).to(device)
    network = copy.deepcopy(module).eval()
    patterns: list[Any] = []
    hooks = [
        part.register_forward_hook(lambda _, __, out: patterns.append((out > 0).flatten(1)))
        for part in network.modules()
        if isinstance(part, (torch.nn.ReLU, torch.nn.ReLU6, torch.nn.GELU, torch.nn.SiLU))
    ]
    with torch.enable_grad():
        _first(network(inputs)).mean().backward()
        slopes = [p.grad for p in network.parameters() if p.grad is not None]
        gradient = float(sum(slope.square().sum() for slope in slopes)) ** 0.5
        for hook in hooks:
            hook.remove()
        for p in network.parameters():
            p.grad = None
            p.data.abs_()
        _first(network.double()(torch.ones_like(inputs[:1], dtype=torch.float64))).sum().backward()
        flow = sum(
            float((p * p.grad).detach().sum()) for p in network.parameters() if p.grad is not None
        )
    naswot = 0.0
    if patterns:
        active = torch.cat(patterns, 1).double()
        kernel = active @ active.T + (1 - active) @ (1 - active).T
        naswot = float(np.linalg.slogdet(kernel.cpu().numpy() + 1e-6 * np.eye(_INPUTS))[1])
    return {
        "log_synflow": float(np.log1p(max(flow, 0.0))),
        "naswot": naswot,
        "log_gradient": float(np.log1p(gradient)),
    }


def _first(output: Any) -> Any:
    """The first tensor of a module's output."""
    if isinstance(output, (tuple, list)):
        return _first(output[0])
    if isinstance(output, dict):
        return _first(next(iter(output.values())))
    return output
