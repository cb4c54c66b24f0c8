"""Kernels whose work is known in closed form."""

import triton
import triton.language as tl


@triton.jit
def matmul(
    a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):
    """A matrix product in grouped order; a is M x K, b is K x N."""
    pid = tl.program_id(0)
    rows, columns = tl.cdiv(M, BM), tl.cdiv(N, BN)
    first = pid // (GROUP * columns) * GROUP
    height = min(rows - first, GROUP)
    row = first + pid % (GROUP * columns) % height
    column = pid % (GROUP * columns) // height
    m = (row * BM + tl.arange(0, BM)) % M
    n = (column * BN + tl.arange(0, BN)) % N
    k = tl.arange(0, BK)
    left, right = a + m[:, None] * K + k[None, :], b + k[:, None] * N + n[None, :]
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for i in range(tl.cdiv(K, BK)):
        x = tl.load(left, mask=k[None, :] < K - i * BK, other=0.0)
        y = tl.load(right, mask=k[:, None] < K - i * BK, other=0.0)
        total = tl.dot(x, y, total)
        left += BK
        right += BK * N
    m, n = row * BM + tl.arange(0, BM), column * BN + tl.arange(0, BN)
    out = c + m[:, None] * N + n[None, :]
    tl.store(out, total.to(tl.float16), mask=(m[:, None] < M) & (n[None, :] < N))


@triton.jit
def causal(q, k, out, S, B: tl.constexpr, D: tl.constexpr):
    """Each program reads the blocks up to its own."""
    pid = tl.program_id(0)
    rows, dims = pid * B + tl.arange(0, B), tl.arange(0, D)
    mine = tl.load(q + rows[:, None] * D + dims[None, :])
    total = tl.zeros((B,), dtype=tl.float32)
    for start in range(0, (pid + 1) * B, B):
        columns = start + tl.arange(0, B)
        other = tl.load(k + columns[None, :] * D + dims[:, None])
        total += tl.sum(tl.exp(tl.dot(mine, other)), 1)
    tl.store(out + rows, total)


@triton.jit
def persistent(x, out, n, B: tl.constexpr):
    """Programs share all blocks between them."""
    for block in range(tl.program_id(0), tl.cdiv(n, B), tl.num_programs(0)):
        at = block * B + tl.arange(0, B)
        tl.store(out + at, tl.load(x + at, mask=at < n) * 2.0, mask=at < n)


@triton.jit
def halving(x, out, n, B: tl.constexpr):
    """A while loop whose iterations follow from an argument."""
    i = 0
    total = tl.zeros((B,), dtype=tl.float32)
    while i < n:
        total += tl.load(x + i + tl.arange(0, B))
        i += B
    tl.store(out + tl.arange(0, B), total)


@triton.jit
def ragged(x, lengths, out, B: tl.constexpr):
    """A loop whose bound is loaded from memory."""
    total = tl.zeros((B,), dtype=tl.float32)
    for i in range(tl.load(lengths + tl.program_id(0))):
        total += tl.load(x + i * B + tl.arange(0, B))
    tl.store(out + tl.program_id(0) * B + tl.arange(0, B), total)


@triton.jit
def packed(x, starts, out, B: tl.constexpr):
    """Sequences one after the other; where each starts lies in memory."""
    first = tl.load(starts + tl.program_id(0))
    last = tl.load(starts + tl.program_id(0) + 1)
    total = tl.zeros((B,), dtype=tl.float32)
    for i in range(first, last, B):
        total += tl.load(x + i + tl.arange(0, B), mask=i + tl.arange(0, B) < last, other=0.0)
    tl.store(out + tl.program_id(0) * B + tl.arange(0, B), total)


@triton.jit
def early(x, out, limit, B: tl.constexpr):
    """Programs beyond a limit return at once; the others work twice where they are few."""
    pid = tl.program_id(0)
    if pid >= limit:
        return
    at = pid * B + tl.arange(0, B)
    value = tl.load(x + at)
    if pid < 4:
        value += tl.load(x + at + B)
    tl.store(out + at, value)


@triton.jit(noinline=True)
def called(x, out, start, B: tl.constexpr):
    """Stays a call."""
    at = start + tl.arange(0, B)
    tl.store(out + at, tl.load(x + at) + 1.0)


@triton.jit
def calling(x, out, B: tl.constexpr):
    """Calls a function that is not inlined."""
    called(x, out, tl.program_id(0) * B, B)


@triton.jit
def by_descriptor(a, out, M, N, BM: tl.constexpr, BN: tl.constexpr):
    """Copies a block through tensor descriptors."""
    source = tl.make_tensor_descriptor(a, [M, N], [N, 1], [BM, BN])
    target = tl.make_tensor_descriptor(out, [M, N], [N, 1], [BM, BN])
    row, column = tl.program_id(0) * BM, tl.program_id(1) * BN
    target.store([row, column], source.load([row, column]))


@triton.jit
def many(x, out, counts, n, B: tl.constexpr):
    """Atomics, a scan, a histogram, a transposition."""
    at = tl.program_id(0) * B + tl.arange(0, B)
    value = tl.load(x + at, mask=at < n, other=0.0)
    tl.atomic_add(out + tl.program_id(0), tl.sum(value, 0))
    tl.store(out + at, tl.cumsum(value, 0))
    tl.store(counts + tl.arange(0, 16), tl.histogram(value.to(tl.int32), 16))
    square = tl.reshape(value, (B // 16, 16))
    tl.store(x + tl.arange(0, B), tl.reshape(tl.trans(square), (B,)))


@triton.jit
def refused(x, B: tl.constexpr):
    """Does not compile."""
    tl.static_assert(B < 0, "no block is small enough")


@triton.jit
def pairs(values, out, B: tl.constexpr):
    """Takes a tuple of arguments."""
    at = tl.arange(0, B)
    tl.store(out + at, tl.load(values[0] + at) * values[1])


@triton.jit
def matmul_blocks(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """A matrix product by block pointers."""
    row, column = tl.program_id(0) * BM, tl.program_id(1) * BN
    left = tl.make_block_ptr(a, (M, K), (K, 1), (row, 0), (BM, BK), (1, 0))
    right = tl.make_block_ptr(b, (K, N), (N, 1), (0, column), (BK, BN), (1, 0))
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for _ in range(0, K, BK):
        x = tl.load(left, boundary_check=(0, 1))
        y = tl.load(right, boundary_check=(0, 1))
        total = tl.dot(x, y, total)
        left = tl.advance(left, (0, BK))
        right = tl.advance(right, (BK, 0))
    out = tl.make_block_ptr(c, (M, N), (N, 1), (row, column), (BM, BN), (1, 0))
    tl.store(out, total.to(tl.float16), boundary_check=(0, 1))


@triton.jit
def matmul_descriptors(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """A matrix product by tensor descriptors that the kernel makes."""
    row, column = tl.program_id(0) * BM, tl.program_id(1) * BN
    left = tl.make_tensor_descriptor(a, [M, K], [K, 1], [BM, BK])
    right = tl.make_tensor_descriptor(b, [N, K], [K, 1], [BN, BK])
    out = tl.make_tensor_descriptor(c, [M, N], [N, 1], [BM, BN])
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(0, K, BK):
        total = tl.dot(left.load([row, k]), right.load([column, k]).T, total)
    out.store([row, column], total.to(tl.float16))


@triton.jit
def matmul_host(a, b, c, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """A matrix product by tensor descriptors that the host makes."""
    row, column = tl.program_id(0) * BM, tl.program_id(1) * BN
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for k in tl.range(0, K, BK, num_stages=5):
        total = tl.dot(a.load([row, k]), b.load([k, column]), total)
    c.store([row, column], total.to(tl.float16))


@triton.jit
def halves(x, out, B: tl.constexpr):
    """Splits pairs, which is an operation with two results."""
    pair = tl.reshape(tl.load(x + tl.arange(0, 2 * B)), (B, 2))
    left, right = tl.split(pair)
    tl.store(out + tl.arange(0, B), left * right)


@triton.jit
def attention(q, k, v, out, n, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Chained products with a softmax between them."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    base = tl.program_id(1).to(tl.int64) * n * D
    d = tl.arange(0, D)
    left = tl.load(q + base + rows[:, None] * D + d[None, :])
    most = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    for start in range(0, n, BN):
        columns = start + tl.arange(0, BN)
        s = tl.dot(left, tl.load(k + base + columns[None, :] * D + d[:, None]))
        now = tl.maximum(most, tl.max(s, 1))
        p = tl.exp2(s - now[:, None])
        less = tl.exp2(most - now)
        total = total * less + tl.sum(p, 1)
        right = tl.load(v + base + columns[:, None] * D + d[None, :])
        acc = tl.dot(p.to(tl.float16), right, acc * less[:, None])
        most = now
    tl.store(out + base + rows[:, None] * D + d[None, :], (acc / total[:, None]).to(tl.float16))


@triton.jit
def product_of_tiles(
    a, b, c, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, P: tl.constexpr
):
    """Tiles of a matrix product with the precision that is asked for."""
    m, n, k = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, BK)
    total = tl.zeros((BM, BN), tl.float32)
    for i in range(0, K, BK):
        x = tl.load(a + (tl.program_id(0) * BM + m)[:, None] * K + (i + k)[None, :])
        y = tl.load(b + (i + k)[:, None] * BN + n[None, :])
        total = tl.dot(x, y, total, input_precision=P)
    tl.store(c + (tl.program_id(0) * BM + m)[:, None] * BN + n[None, :], total)


@triton.jit
def grouped(a, b, c, sizes, E, N, K, PROGRAMS: tl.constexpr, B: tl.constexpr):
    """Products of several sizes, which lie in memory; programs take tiles in turn."""
    tile, before, first = tl.program_id(0), 0, 0
    for e in range(E):
        height = tl.load(sizes + e)
        across = tl.cdiv(N, B)
        count = tl.cdiv(height, B) * across
        while tile >= before and tile < before + count:
            m = first + (tile - before) // across * B + tl.arange(0, B)
            n = (tile - before) % across * B + tl.arange(0, B)
            k = tl.arange(0, B)
            total = tl.zeros((B, B), tl.float32)
            for i in range(0, K, B):
                x = tl.load(a + m[:, None] * K + (i + k)[None, :])
                total = tl.dot(x, tl.load(b + e * K * N + (i + k)[:, None] * N + n[None, :]), total)
            tl.store(c + m[:, None] * N + n[None, :], total)
            tile += PROGRAMS
        before += count
        first += height


@triton.jit
def stream_k(a, b, c, N, K, EACH, B: tl.constexpr):
    """Programs share the iterations of all tiles evenly: their first and last tiles are parts."""
    at = tl.program_id(0) * EACH
    end = at + EACH
    steps = tl.cdiv(K, B)
    while at < end:
        until = tl.minimum(at + steps - at % steps, end)
        m = at // steps // tl.cdiv(N, B) * B + tl.arange(0, B)
        n = at // steps % tl.cdiv(N, B) * B + tl.arange(0, B)
        k = tl.arange(0, B)
        total = tl.zeros((B, B), tl.float32)
        for i in range(at, until):
            x = tl.load(a + m[:, None] * K + (i % steps * B + k)[None, :])
            total = tl.dot(x, tl.load(b + (i % steps * B + k)[:, None] * N + n[None, :]), total)
        tl.atomic_add(c + m[:, None] * N + n[None, :], total)
        at = until


@triton.jit
def labelled(x, labels, out, n, ignored, B: tl.constexpr):
    """Rows whose label is one that is to be ignored are left out."""
    row = tl.program_id(0)
    if tl.load(labels + row) == ignored:
        return
    total = 0.0
    for i in range(0, n, B):
        at = i + tl.arange(0, B)
        total += tl.sum(tl.exp(tl.load(x + row * n + at, mask=at < n, other=0.0)))
    tl.store(out + row, total)


@triton.jit
def packed_int4(x, w, out, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """A product with eight weights in each word: eight rows of the tile read one row of memory."""
    m, n, k = tl.arange(0, BM), tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, BK)
    total = tl.zeros((BM, BN), tl.float32)
    for i in range(0, K, BK):
        words = tl.load(w + ((i + k) // 8)[:, None] * N + n[None, :])
        y = ((words >> ((k % 8) * 4)[:, None]) & 15).to(tl.float16)
        total = tl.dot(tl.load(x + m[:, None] * K + (i + k)[None, :]), y, total)
    tl.store(out + m[:, None] * N + n[None, :], total)


@triton.jit
def attention_keys(
    q, k, v, do, dk, dv, lse, n, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr
):
    """Causal attention backwards, for the keys and values: later queries only."""
    base = tl.program_id(1).to(tl.int64) * n * D
    cols, d = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, D)
    key = tl.load(k + base + cols[:, None] * D + d[None, :])
    value = tl.load(v + base + cols[:, None] * D + d[None, :])
    to_key, to_value = tl.zeros([BN, D], tl.float32), tl.zeros([BN, D], tl.float32)
    for start in range(tl.program_id(0) * BN // BM * BM, n, BM):
        rows = start + tl.arange(0, BM)
        query = tl.load(q + base + rows[:, None] * D + d[None, :])
        above = tl.load(lse + tl.program_id(1) * n + rows)
        p = tl.exp2(tl.dot(query, tl.trans(key)) - above[:, None])
        p = tl.where(rows[:, None] >= cols[None, :], p, 0.0)
        given = tl.load(do + base + rows[:, None] * D + d[None, :])
        to_value += tl.dot(tl.trans(p.to(tl.float16)), given)
        back = (p * tl.dot(given, tl.trans(value))).to(tl.float16)
        to_key += tl.dot(tl.trans(back), query)
    tl.store(dk + base + cols[:, None] * D + d[None, :], to_key.to(tl.float16))
    tl.store(dv + base + cols[:, None] * D + d[None, :], to_value.to(tl.float16))


@triton.jit
def turned(x, out, BM: tl.constexpr, BN: tl.constexpr):
    """A tile that is stored along another axis than it was loaded."""
    m, n = tl.arange(0, BM), tl.arange(0, BN)
    tile = tl.load(x + m[:, None] * BN + n[None, :])
    tl.store(out + m[:, None] + n[None, :] * BM, tile)


@triton.jit
def sums(x, out, BM: tl.constexpr, BN: tl.constexpr, AXIS: tl.constexpr):
    """Sums along an axis."""
    m, n = tl.arange(0, BM), tl.arange(0, BN)
    tile = tl.load(x + m[:, None] * BN + n[None, :])
    tl.store(out + tl.arange(0, BN if AXIS == 0 else BM), tl.sum(tile, AXIS))


@triton.jit
def running(x, out, BM: tl.constexpr, BN: tl.constexpr):
    """Running sums of columns."""
    at = tl.arange(0, BM)[:, None] * BN + tl.arange(0, BN)[None, :]
    tl.store(out + at, tl.cumsum(tl.load(x + at), 0))


@triton.jit
def grouped_by_ends(a, b, c, ends, E, N, K, PROGRAMS: tl.constexpr, B: tl.constexpr):
    """Products of several heights, of which memory has where each ends."""
    tile, before, first = tl.program_id(0), 0, 0
    for e in range(E):
        last = tl.load(ends + e)
        across = tl.cdiv(N, B)
        count = tl.cdiv(last - first, B) * across
        while tile >= before and tile < before + count:
            m = first + (tile - before) // across * B + tl.arange(0, B)
            n = (tile - before) % across * B + tl.arange(0, B)
            k = tl.arange(0, B)
            total = tl.zeros((B, B), tl.float32)
            for i in range(0, K, B):
                x = tl.load(a + m[:, None] * K + (i + k)[None, :])
                total = tl.dot(x, tl.load(b + e * K * N + (i + k)[:, None] * N + n[None, :]), total)
            tl.store(c + m[:, None] * N + n[None, :], total, mask=m[:, None] < last)
            tile += PROGRAMS
        before += count
        first = last


@triton.jit
def sparse_rows(values, columns, starts, x, out, R, PROGRAMS: tl.constexpr, B: tl.constexpr):
    """A sparse matrix times a vector; programs take rows in turn."""
    for r in range(tl.program_id(0), R, PROGRAMS):
        total = tl.zeros((B,), tl.float32)
        last = tl.load(starts + r + 1)
        for i in range(tl.load(starts + r), last, B):
            at = i + tl.arange(0, B)
            column = tl.load(columns + at, mask=at < last, other=0)
            total += tl.load(values + at, mask=at < last, other=0.0) * tl.load(x + column)
        tl.store(out + r, tl.sum(total))


@triton.jit
def packed_chunks(x, cu_seqlens, chunks, out, B: tl.constexpr):
    """A chunk of one of several sequences; which one lies in memory, and where that begins and ends."""
    i, at = tl.load(chunks + 2 * tl.program_id(0)), tl.load(chunks + 2 * tl.program_id(0) + 1)
    first, last = tl.load(cu_seqlens + i).to(tl.int64), tl.load(cu_seqlens + i + 1).to(tl.int64)
    length = (last - first).to(tl.int32)
    total = tl.zeros((B,), tl.float32)
    for j in range(0, tl.cdiv(length, B)):
        rows = j * B + tl.arange(0, B)
        total += tl.load(x + first + rows, mask=rows < length, other=0.0)
    tl.store(out + (first + at * B) + tl.arange(0, B), total)


@triton.jit
def between(x, begins, ends, out, B: tl.constexpr):
    """Pieces whose beginnings and ends lie in two arrays."""
    total = tl.zeros((B,), tl.float32)
    p = tl.program_id(0)
    for i in range(tl.load(begins + p), tl.load(ends + p), B):
        total += tl.load(x + i + tl.arange(0, B))
    tl.store(out + p * B + tl.arange(0, B), total)


@triton.jit
def sized(x, sizes, out, B: tl.constexpr):
    """Matrices whose heights and widths lie in one array."""
    m, n = tl.load(sizes + 2 * tl.program_id(0)), tl.load(sizes + 2 * tl.program_id(0) + 1)
    total = tl.zeros((B,), tl.float32)
    for i in range(tl.cdiv(m, B) * tl.cdiv(n, B)):
        total += tl.load(x + i * B + tl.arange(0, B))
    tl.store(out + tl.program_id(0) * B + tl.arange(0, B), total)


@triton.jit
def guarded(x, out, n, B: tl.constexpr):
    """A copy of what lies below a bound."""
    at = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(out + at, tl.load(x + at, mask=at < n), mask=at < n)


@triton.jit
def by_rows(x, out, rows, STAGES: tl.constexpr, B: tl.constexpr):
    """Rows one after the other, with as many stages as the kernel asks for."""
    at = tl.program_id(0) * B + tl.arange(0, B)
    for row in tl.range(0, rows, num_stages=STAGES):
        tl.store(out + row * 4096 + at, tl.load(x + row * 4096 + at) * 2)
