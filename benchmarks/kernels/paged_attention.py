"""Decoding attention: one query per sequence against keys and values kept in pages."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def paged_decode_attention(
    query,
    key_cache,
    value_cache,
    page_table,
    lengths,
    out,
    scale,
    pages_per_sequence,
    kv_heads,
    QUERIES_PER_KV: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    USE_DOT: tl.constexpr,
):
    # caches are (pages, PAGE, kv_heads, HEAD_DIM); query and out are (sequences, heads, HEAD_DIM)
    seq = tl.program_id(0)
    kv_head = tl.program_id(1)
    h = tl.arange(0, BLOCK_H)
    d = tl.arange(0, HEAD_DIM)
    rows = (seq * kv_heads + kv_head) * QUERIES_PER_KV + h
    q_mask = h[:, None] < QUERIES_PER_KV
    q = tl.load(query + rows[:, None] * HEAD_DIM + d[None, :], mask=q_mask, other=0.0)
    length = tl.load(lengths + seq)
    best = tl.full([BLOCK_H], -1.0e30, tl.float32)
    total = tl.zeros([BLOCK_H], tl.float32)
    acc = tl.zeros([BLOCK_H, HEAD_DIM], tl.float32)
    for start in range(0, length, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        inside = n < length
        page = tl.load(page_table + seq * pages_per_sequence + n // PAGE, mask=inside, other=0)
        slot = (page.to(tl.int64) * PAGE + n % PAGE) * kv_heads + kv_head
        offsets = slot[:, None] * HEAD_DIM + d[None, :]
        k = tl.load(key_cache + offsets, mask=inside[:, None], other=0.0)
        if USE_DOT:
            s = tl.dot(q, tl.trans(k)) * scale
        else:
            s = tl.sum(q[:, None, :].to(tl.float32) * k[None, :, :].to(tl.float32), 2) * scale
        s = tl.where(inside[None, :], s, -1.0e30)
        peak = tl.maximum(best, tl.max(s, 1))
        p = tl.exp(s - peak[:, None])
        fade = tl.exp(best - peak)
        total = total * fade + tl.sum(p, 1)
        v = tl.load(value_cache + offsets, mask=inside[:, None], other=0.0)
        if USE_DOT:
            acc = acc * fade[:, None] + tl.dot(p.to(v.dtype), v)
        else:
            acc = acc * fade[:, None] + tl.sum(p[:, :, None] * v[None, :, :].to(tl.float32), 1)
        best = peak
    acc = acc / total[:, None]
    o_ptrs = out + rows[:, None] * HEAD_DIM + d[None, :]
    tl.store(o_ptrs, acc.to(out.dtype.element_ty), mask=q_mask)


def make_args(problem, device, generator):
    seqs, heads, kv_heads, dim, longest = (problem[x] for x in ("B", "H", "KVH", "D", "length"))
    page = 16
    pages_each = -(-longest // page)
    pages = seqs * pages_each
    table = (torch.arange(pages) * 7919 % pages) if pages % 7919 else torch.arange(pages)
    lengths = [max(1, longest * (8 - i % 5) // 8) for i in range(seqs)]
    q = random_normal((seqs, heads, dim), problem["dtype"], device, generator)
    cache = (pages, page, kv_heads, dim)
    return {
        "query": q,
        "key_cache": random_normal(cache, problem["dtype"], device, generator),
        "value_cache": random_normal(cache, problem["dtype"], device, generator),
        "page_table": table.to(torch.int32).reshape(seqs, pages_each).to(device),
        "lengths": torch.tensor(lengths, dtype=torch.int32).to(device),
        "out": torch.empty_like(q),
        "scale": dim**-0.5,
        "pages_per_sequence": pages_each,
        "kv_heads": kv_heads,
        "QUERIES_PER_KV": heads // kv_heads,
        "HEAD_DIM": dim,
        "PAGE": page,
    }


def reference(args):
    out = torch.empty(args["out"].shape, device=args["out"].device)
    group = args["QUERIES_PER_KV"]
    for i, length in enumerate(args["lengths"].tolist()):
        pages = args["page_table"][i].long()
        k = args["key_cache"][pages].flatten(0, 1)[:length].float().repeat_interleave(group, 1)
        v = args["value_cache"][pages].flatten(0, 1)[:length].float().repeat_interleave(group, 1)
        s = torch.einsum("hd,nhd->hn", args["query"][i].float(), k) * args["scale"]
        out[i] = torch.einsum("hn,nhd->hd", torch.softmax(s, -1), v)
    return {"out": out}


def _problem(b, h, kvh, d, length, dtype="fp16"):
    return {"B": b, "H": h, "KVH": kvh, "D": d, "length": length, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=paged_decode_attention,
    space=ConfigSpace(
        BLOCK_N=[16, 32, 64, 128, 256],
        BLOCK_H=[16, 32],
        USE_DOT=[True, False],
        num_warps=[1, 2, 4, 8],
        num_stages=[1, 2, 3, 4],
        constraint=lambda c: c["USE_DOT"] or (c["BLOCK_N"] <= 32 and c["BLOCK_H"] == 16),
    ),
    problems=resized(
        (
            _problem(1, 32, 8, 128, 512),
            _problem(4, 32, 32, 64, 1024),
            _problem(16, 32, 8, 128, 1024, "bf16"),
            _problem(64, 16, 4, 64, 512),
            _problem(128, 32, 8, 128, 256, "bf16"),
            _problem(32, 40, 8, 128, 2048),
            _problem(8, 64, 8, 128, 4096, "bf16"),
            _problem(2, 32, 8, 128, 16384),
            _problem(256, 8, 8, 64, 384),
        ),
        "B",
        2,
    ),
    small=(_problem(2, 4, 2, 16, 40), _problem(1, 3, 3, 16, 20)),
    make_args=make_args,
    grid=lambda a: (a["query"].shape[0], a["kv_heads"]),
    reference=reference,
)
