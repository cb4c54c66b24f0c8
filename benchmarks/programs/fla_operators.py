"""The operators of flash-linear-attention, forward and backward, over shapes of real models.

``autotune-rlm record --program benchmarks/programs/fla_operators.py`` records their kernels.
"""

import functools

import _cases
import torch
import torch.nn.functional as F

SHAPES = (  # batch, length, heads, width of a head
    (2, 2048, 8, 64),
    (4, 1024, 16, 128),
    (1, 8192, 4, 128),
    (8, 512, 12, 64),
    (1, 4096, 32, 64),
    (16, 2048, 4, 256),
)
SLOTS = 64

# Arguments by name; "=kind" where a name alone does not tell its shape.
OPERATORS = """
chunk_abc q k v s
chunk_comba q k v p g=head_decay beta
chunk_cyfa q k v g=head_decay delta=head_decay beta readout=vector @norms
chunk_delta_rule q k v beta
chunk_dplr_delta_rule q k v a b gk=decay
chunk_gated_delta_rule q k v g=head_decay beta
chunk_gla q k v g=decay
chunk_gsa q k v s g=slot_decay
chunk_iplr_delta_rule q k v a b
chunk_kda q k v g=decay beta
chunk_lightning_attn q k v layer_idx num_layers
chunk_linear_attn q k v
chunk_log_linear_attn q k v g=head_decay level_scales
chunk_mesa_net q k v g=head_decay beta lamb
chunk_momentum_delta_rule q k v log_alpha log_mu
chunk_precond_gated_delta_rule q k v g_atk=head_decay g=head_decay beta_atk=beta beta
chunk_precond_kda q k v g=decay g_atk=decay beta_atk=beta beta
chunk_retention q k v
chunk_rwkv6 r k v w=decay u
chunk_rwkv7 r w=decay k v a b
chunk_simple_gla q k v g=head_decay
fused_chunk_linear_attn q k v
fused_chunk_retention q k v
fused_chunk_simple_gla q k v g=head_decay
fused_recurrent_comba q k p v g=head_decay beta
fused_recurrent_cyfa q k v g=head_decay delta=head_decay beta readout=vector @norms
fused_recurrent_delta_rule q k v beta
fused_recurrent_dplr_delta_rule q k v a b gk=decay
fused_recurrent_gated_delta_rule q k v g=head_decay beta
fused_recurrent_gla q k v gk=decay
fused_recurrent_gsa q k v s g=slot_decay
fused_recurrent_hgrn x=channels g=channels
fused_recurrent_iplr_delta_rule q k v a b
fused_recurrent_kda q k v g=decay beta
fused_recurrent_linear_attn q k v
fused_recurrent_momentum_delta_rule q k v log_alpha log_mu
fused_recurrent_precond_gated_delta_rule q k v g=head_decay beta g_atk=head_decay beta_atk=beta
fused_recurrent_precond_kda q k v g=decay g_atk=decay beta_atk=beta beta
fused_recurrent_retention q k v
fused_recurrent_rwkv6 r k v w=decay u
fused_recurrent_rwkv7 r w=decay k v a b
fused_recurrent_simple_gla q k v g=head_decay
parallel_attn q k v
parallel_forgetting_attn q k v g=head_decay
parallel_nsa q=queries k v g_cmp=query_gate g_slc=query_gate g_swa=query_gate block_indices block_counts
parallel_parallax q r k v
parallel_path_attn q k v w=vector32 beta=gate32
parallel_retention q k v
parallel_simple_gla q k v g=head_decay
parallel_stickbreaking_attn q k v
parallel_wall_attn q k v g=decay
"""
KINDS = {name: "vector" for name in "qkvrpab"} | {
    "s": "slots",
    "beta": "gate",
    "u": "bonus",
    "lamb": "positive",
    "log_alpha": "head_decay",
    "log_mu": "head_decay",
    "q_norm_weight": "norm",
    "k_norm_weight": "norm",
}
NORMS = ("q_norm_weight", "k_norm_weight", "q_norm_eps", "k_norm_eps")
PLAIN = {
    "layer_idx": 3,
    "num_layers": 24,
    "q_norm_eps": 1e-6,
    "k_norm_eps": 1e-6,
    "block_counts": 16,
}


def make(kind, shape, device):
    """One argument of an operator."""
    b, t, h, d = shape
    sizes = {
        "vector": (b, t, h, d),
        "decay": (b, t, h, d),
        "head_decay": (b, t, h),
        "gate": (b, t, h),
        "slots": (b, t, h, SLOTS),
        "slot_decay": (b, t, h, SLOTS),
        "channels": (b, t, h * d),
        "bonus": (h, d),
        "positive": (h, d),
        "norm": (d,),
        "queries": (b, t, 16 * h, d),
        "query_gate": (b, t, 16 * h),
        "level_scales": (b, t, h, t.bit_length()),
    }
    if kind == "block_indices":
        blocks = torch.arange(16, device=device, dtype=torch.int32) % max(t // 64, 1)
        return blocks.expand(b, t, h, 16).contiguous()
    kind, exact = kind.removesuffix("32"), kind.endswith("32")
    dtype = torch.float32 if exact else torch.bfloat16
    x = torch.randn(sizes[kind], device=device, dtype=dtype)
    if kind.endswith("decay"):
        x = F.logsigmoid(x)
    elif kind in ("gate", "query_gate", "positive", "level_scales"):
        x = torch.sigmoid(x)
    elif kind == "vector":
        x = x * d**-0.5
    return x.detach().requires_grad_()


def operator(name, given, shape, device):
    """Call ``fla.ops.<name>``."""
    function = getattr(_cases.module("fla.ops"), name)
    names = [n for part in given for n in (NORMS if part == "@norms" else (part,))]
    kinds = dict(part.partition("=")[::2] for part in names)
    values = {}
    for argument, kind in kinds.items():
        kind = KINDS.get(kind or argument, kind or argument)
        values[argument] = PLAIN[argument] if argument in PLAIN else make(kind, shape, device)
    return function(**values)


def modules(shape, device):
    """Norms, activations, convolutions and other layers, as (name, call)."""
    b, t, h, d = shape
    width = h * d
    new = functools.partial(torch.randn, device=device, dtype=torch.bfloat16, requires_grad=True)
    fla = _cases.module
    norm, act = fla("fla.modules.layernorm"), fla("fla.modules.activations")
    gated = fla("fla.modules.fused_norm_gate")
    x, y = (lambda: new(b, t, width)), (lambda: new(b, t, width))
    yield "layer_norm", lambda: norm.layer_norm(x(), new(width), new(width))
    yield "rms_norm", lambda: norm.rms_norm(x(), new(width), None)
    yield "group_norm", lambda: norm.group_norm(x(), new(width), new(width), num_groups=h)
    yield "rms_norm_gated", lambda: gated.rms_norm_gated(x(), y(), new(width), None)
    yield "layer_norm_gated", lambda: gated.layer_norm_gated(x(), y(), new(width), new(width))
    yield "l2norm", lambda: fla("fla.modules.l2norm").l2norm(new(b, t, h, d))
    for name in ("swish", "sigmoid", "logsigmoid", "fast_gelu_impl", "sqrelu"):
        yield name, functools.partial(lambda n: getattr(act, n)(x()), name)
    yield "swiglu", lambda: act.swiglu(x(), y())
    yield "token_shift", lambda: fla("fla.modules.token_shift").token_shift(x())
    convolution = fla("fla.modules.convolution")
    yield "causal_conv1d", lambda: convolution.causal_conv1d(x(), new(width, 4), activation="swish")
    rotary = fla("fla.modules.rotary")
    angles = functools.partial(torch.randn, device=device, dtype=torch.bfloat16)
    yield (
        "rotary",
        lambda: rotary.rotary_embedding(new(b, t, h, d), angles(t, d // 2), angles(t, d // 2)),
    )


def cases(given):
    """Every operator at a shape before any at the next, so that stopping early leaves none out."""
    for shape in SHAPES[: given.shapes]:
        where = "x".join(map(str, shape))
        for line in OPERATORS.split("\n"):
            if line:
                name, *names = line.split()
                yield (
                    f"{name}/{where}",
                    functools.partial(operator, name, names, shape, given.device),
                )
        for name, call in modules(shape, given.device):
            yield f"{name}/{where}", call


if __name__ == "__main__":
    arguments = _cases.arguments("fla")
    _cases.run(cases(arguments), arguments)
