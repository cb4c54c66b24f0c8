"""The autotuned quantisation and matrix product operators of torchao, over shapes of real models.

``autotune-rlm record --program benchmarks/programs/torchao_operators.py`` records their kernels.
"""

import functools

import _cases
import torch

SHAPES = ((2048, 2048, 2048), (4096, 4096, 1024), (8192, 1024, 4096), (512, 7168, 2048))
"""M, N, K: rows, columns, width."""
ATTENTION = ((2, 16, 2048, 128), (1, 32, 4096, 64), (4, 8, 1024, 128))
"""Batch, heads, length, width of a head."""


def blockwise_training(given, m, n, k):
    ops = _cases.module("torchao.prototype.blockwise_fp8_training.kernels")
    new = functools.partial(torch.randn, device=given.device, dtype=torch.bfloat16)
    yield "act_quant_lhs", lambda: ops.triton_fp8_blockwise_act_quant_lhs(new(m, k))
    yield "act_quant_rhs", lambda: ops.triton_fp8_blockwise_act_quant_rhs(new(m, k))
    yield (
        "act_quant_transposed_lhs",
        lambda: ops.triton_fp8_blockwise_act_quant_transposed_lhs(new(m, k)),
    )
    yield "weight_quant_rhs", lambda: ops.triton_fp8_blockwise_weight_quant_rhs(new(k, n))
    yield (
        "weight_quant_transposed_rhs",
        lambda: ops.triton_fp8_blockwise_weight_quant_transposed_rhs(new(n, k)),
    )

    def product():
        a, a_scale = ops.triton_fp8_blockwise_act_quant_lhs(new(m, k))
        b, b_scale = ops.triton_fp8_blockwise_weight_quant_rhs(new(k, n))
        return ops.triton_fp8_gemm_1x128_128x128(a, b, a_scale, b_scale)

    def product_of_columns():
        a, a_scale = ops.triton_fp8_blockwise_act_quant_lhs(new(m, k))
        b, b_scale = ops.triton_fp8_blockwise_act_quant_rhs(new(k, n))
        return ops.triton_fp8_gemm_1x128_128x1(a, b, a_scale, b_scale)

    yield "gemm_1x128_128x128", product
    yield "gemm_1x128_128x1", product_of_columns


def grouped(given, m, n, k):
    ops = _cases.module("torchao.prototype.blockwise_fp8_training.deepgemm_quant")
    rows = _cases.module("torchao.prototype.moe_training.kernels.float8_rowwise")
    jagged = _cases.module("torchao.prototype.moe_training.kernels.jagged_float8_scales")
    new = functools.partial(torch.randn, device=given.device, dtype=torch.bfloat16)
    ends = torch.arange(1, 9, device=given.device, dtype=torch.int32) * (m // 8)

    def columns(*size):
        return new(*size).transpose(-1, -2)

    transposed = ops.triton_fp8_blockwise_weight_quant_grouped_transposed_rhs_deepgemm
    yield "grouped_transposed_rhs", lambda: transposed(columns(8, n, k))
    yield (
        "grouped_rhs",
        lambda: ops.triton_fp8_blockwise_weight_quant_grouped_rhs_deepgemm(columns(8, n, k)),
    )
    yield (
        "k_grouped",
        lambda: ops.triton_fp8_blockwise_act_quant_k_grouped_deepgemm(new(m, k), ends),
    )
    for name in (
        "triton_fp8_rowwise_3d_transpose_rhs",
        "triton_fp8_rowwise_3d_transpose_rhs_fused_reduction",
        "triton_fp8_colwise_3d_scale_and_cast",
    ):
        yield name, functools.partial(lambda f: getattr(rows, f)(new(8, k, n)), name)
    yield "rowwise_2d", lambda: rows.triton_fp8_rowwise_2d_scale_and_cast(new(m, k))
    yield "per_group_rowwise", lambda: jagged.triton_fp8_per_group_rowwise_scales(new(k, m), ends)
    yield "per_group_colwise", lambda: jagged.triton_fp8_per_group_colwise_scales(new(m, k), ends)
    yield (
        "per_group_colwise_dual",
        lambda: jagged.triton_fp8_per_group_colwise_scales_dual(new(m, k), new(m, n), ends),
    )


def inference(given, m, n, k):
    ops = _cases.module("torchao.kernel.blockwise_quantization")
    int8 = _cases.module("torchao.prototype.quantized_training.int8_mm")
    mx = _cases.module("torchao.prototype.mx_formats.kernels")
    new = functools.partial(torch.randn, device=given.device, dtype=torch.bfloat16)
    ints = functools.partial(torch.randint, -127, 128, device=given.device, dtype=torch.int8)

    def blockwise():
        a, a_scale = ops.fp8_blockwise_act_quant(new(m, k))
        b, b_scale = ops.fp8_blockwise_weight_quant(new(n, k))
        return ops.blockwise_fp8_gemm(a, a_scale, b, b_scale)

    yield "blockwise_fp8_gemm", blockwise
    yield (
        "scaled_int8_mm",
        lambda: int8.scaled_int8_mm_cuda(ints((m, k)), ints((k, n)), new(m), new(n)),
    )
    yield "mxfp8_dim0", lambda: mx.triton_to_mxfp8_dim0(new(m, k))
    yield "mxfp8_dim1", lambda: mx.triton_to_mxfp8_dim1(new(m, k))


def tensorwise(given, m, n, k):
    ops = _cases.module("torchao.prototype.float8nocompile.kernels.fp8_dynamic_tensorwise")
    recipes = _cases.module("torchao.float8.float8_training_tensor")
    new = functools.partial(torch.randn, device=given.device, dtype=torch.bfloat16)
    for layout in ("row_major", "row_major_t", "col_major", "col_major_t", "row_and_col_major"):
        for algorithm in ("ATOMIC_MAX", "REDUCTION"):

            def call(layout=layout, algorithm=algorithm):
                function = getattr(ops, f"hp_to_fp8_{layout}")
                how = getattr(ops.KernelAlgorithm, algorithm)
                return function(new(m, k), torch.float8_e4m3fn, recipes.LinearMMConfig(), algo=how)

            yield f"{layout}/{algorithm}", call


def attention(given, b, h, s, d):
    plain = _cases.module("torchao.prototype.fp8_sdpa_inference.fp8_sdpa_quantization")
    folder = "torchao.prototype.attention.quantization"
    new = functools.partial(torch.randn, device=given.device, dtype=torch.bfloat16)

    def qkv():
        return (new(b, h, s, d), new(b, h, s, d), new(b, h, s, d))

    def rows():
        return (new(b, s, h, d), new(b, s, h, d), new(b, s, h, d))

    def angles():
        return (new(s, d), new(s, d))

    fetch = _cases.module
    yield "sdpa_quantize", lambda: plain.fp8_sdpa_quantize_func(*qkv())
    for name, arguments in (
        ("qkv", lambda: qkv()),
        ("hadamard_qkv", lambda: qkv()),
        ("rope_qkv", lambda: (*rows(), *angles())),
        ("hadamard_rope_qkv", lambda: (*rows(), *angles())),
    ):

        def call(name=name, arguments=arguments):
            module = fetch(f"{folder}.triton_{name}_quantization")
            short = name.removesuffix("qkv").rstrip("_")
            function = getattr(module, f"triton_fp8_{short + '_' if short else ''}sdpa_quantize")
            return function(*arguments())

        yield name, call


def cases(given):
    """Every operator at a shape before any at the next."""
    for number, shape in enumerate(SHAPES[: given.shapes]):
        where = "x".join(map(str, shape))
        for family in (blockwise_training, grouped, inference, tensorwise):
            for name, call in family(given, *shape):
                yield f"{name}/{where}", call
        if number < len(ATTENTION):
            where = "x".join(map(str, ATTENTION[number]))
            for name, call in attention(given, *ATTENTION[number]):
                yield f"attention/{name}/{where}", call


if __name__ == "__main__":
    arguments = _cases.arguments("torchao")
    _cases.run(cases(arguments), arguments)
