"""Attention of the texts under way, in C: each new token to the keys of its own text, which are read once, as they lie."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import torch

from harness.models.tree.compiled import function, randn
from harness.models.tree.elementwise_kernel import EXPONENTIAL

Tensor = torch.Tensor
Pair = tuple[Tensor, Tensor]
# Scores of one token and key-value head that stand on a thread's stack.
MOST_SCORES = 1 << 16

SOURCE = """
#include <math.h>
/* scores (count) of one query with keys that follow each other */
INLINE void scored(long count, long width, float scale, const float *query, const float *keys, float *scores) {
    long j = 0;
    for (; j + 4 <= count; j += 4) {
        v8 a = {0}, b = {0}, c = {0}, d = {0};
        const float *k = keys + j * width;
        for (long w = 0; w < width; w += 8) {
            v8 q = *(const v8 *)(query + w);
            a += q * *(const v8 *)(k + w);
            b += q * *(const v8 *)(k + width + w);
            c += q * *(const v8 *)(k + 2 * width + w);
            d += q * *(const v8 *)(k + 3 * width + w);
        }
        scores[j] = total(a) * scale; scores[j + 1] = total(b) * scale;
        scores[j + 2] = total(c) * scale; scores[j + 3] = total(d) * scale;
    }
    for (; j < count; j++) {
        v8 a = {0};
        for (long w = 0; w < width; w += 8) a += *(const v8 *)(query + w) * *(const v8 *)(keys + j * width + w);
        scores[j] = total(a) * scale;
    }
}
/* turns scores into e to them, less the largest; returns that, and their sum */
INLINE float exponentials(long count, float *scores, float *sum) {
    float most = scores[0];
    for (long j = 1; j < count; j++) most = scores[j] > most ? scores[j] : most;
    v8 all = {0};
    for (long j = 0; j < count; j += 8) {
        v8 e = exponential(loaded(scores + j, count - j) - most);
        stored(scores + j, e, count - j);
        if (count - j >= 8) all += e;
        else for (long i = 0; i < count - j; i++) all[i] += e[i];
    }
    *sum = total(all);
    return most;
}
INLINE void mixed(long count, long width, float part, const float *weights, const float *values, float *out) {
    long w = 0;
    for (; w + 32 <= width; w += 32) {
        v8 a = {0}, b = {0}, c = {0}, d = {0};
        for (long j = 0; j < count; j++) {
            const float *v = values + j * width + w;
            float p = weights[j];
            a += p * *(const v8 *)v;
            b += p * *(const v8 *)(v + 8);
            c += p * *(const v8 *)(v + 16);
            d += p * *(const v8 *)(v + 24);
        }
        *(v8 *)(out + w) = a * part; *(v8 *)(out + w + 8) = b * part;
        *(v8 *)(out + w + 16) = c * part; *(v8 *)(out + w + 24) = d * part;
    }
    for (; w < width; w += 8) {
        v8 a = {0};
        for (long j = 0; j < count; j++) a += weights[j] * *(const v8 *)(values + j * width + w);
        *(v8 *)(out + w) = a * part;
    }
}
/* Each new token writes its key and value to its place, own, of its row in the cache (rows, key_heads, places, width), and sees
   that row's up to there. query, key and value are (heads, tokens, width), so many numbers from a head, and a token, to the next;
   out (tokens, heads, width); sums (heads, tokens) are told the log-sum-exp of the scores. */
void row_attention(long tokens, long heads, long key_heads, long width, long threads, float scale, const long *row_of,
                   const long *own, const long *strides, const float *query, const float *key, const float *value,
                   float *keys, float *values, float *out, float *sums) {
    long groups = heads / key_heads;
    for (long t = 0; t < tokens; t++)
        for (long g = 0; g < key_heads; g++) {
            long at = row_of[t] * strides[6] + g * strides[7] + own[t] * width;
            __builtin_memcpy(keys + at, key + g * strides[2] + t * strides[3], width * sizeof(float));
            __builtin_memcpy(values + at, value + g * strides[4] + t * strides[5], width * sizeof(float));
        }
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && tokens * heads > 64)
    for (long pair = 0; pair < tokens * key_heads; pair++) {
        long t = pair / key_heads, g = pair % key_heads, count = own[t] + 1;
        long at = row_of[t] * strides[6] + g * strides[7];
        float scores[count];
        for (long h = g * groups; h < (g + 1) * groups; h++) {
            float sum, most;
            scored(count, width, scale, query + h * strides[0] + t * strides[1], keys + at, scores);
            most = exponentials(count, scores, &sum);
            mixed(count, width, 1.0f / sum, scores, values + at, out + (t * heads + h) * width);
            sums[h * tokens + t] = most + logf(sum);
        }
    }
}
"""


def can_attend(query: Tensor, key: Tensor, value: Tensor, cached: Pair) -> bool:
    """Return whether ``row_attention`` takes these, and the compiled function is there."""
    several = (query, key, value, *cached)
    width = query.shape[-1]
    return (
        all(type(x) is Tensor and x.dtype == torch.float32 and x.device.type == "cpu" for x in several)
        and all(x.shape[-1] == width and x.stride(-1) == 1 for x in several)
        and all(x.is_contiguous() for x in cached)
        and cached[0].shape == cached[1].shape
        and cached[0].shape[2] <= MOST_SCORES
        and width % 8 == 0
        and not torch.is_grad_enabled()
        and _kernel() is not None
    )


def row_attention(
    query: Tensor, key: Tensor, value: Tensor, cached: Pair, row_of: Tensor, own: Tensor, scale: float
) -> Pair:
    """Put new keys and values into the cache and attend to it.

    Args:
        query: (heads, T, width).
        key: (key-value heads, T, width), as ``value``.
        cached: keys and values (rows, key-value heads, places, width); places after a token's own are not read.
        row_of: (T,) int64, the row of each token.
        own: (T,) int64, its place there.

    Returns:
        Attention (T, heads, width) and the log-sum-exp of the scores (heads, T).
    """
    kernel = _kernel()
    assert kernel is not None  # can_attend said so
    return _run(kernel, query, key, value, cached, row_of, own, scale)


def _run(
    kernel: Callable[..., None],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cached: Pair,
    row_of: Tensor,
    own: Tensor,
    scale: float,
) -> Pair:
    heads, count, width = query.shape
    strides = (ctypes.c_long * 8)(*query.stride()[:2], *key.stride()[:2], *value.stride()[:2], *cached[0].stride()[:2])
    out, sums = query.new_empty((count, heads, width)), query.new_empty((heads, count))
    addresses = (of.data_ptr() for of in (query, key, value, *cached, out, sums))
    kernel(
        count,
        heads,
        len(key),
        width,
        torch.get_num_threads(),
        scale,
        row_of.data_ptr(),
        own.data_ptr(),
        strides,
        *addresses,
    )
    return out, sums


@functools.cache
def _kernel() -> Callable[..., None] | None:
    """Return the compiled function, None where this machine has none or it computes something else."""
    return function(
        "row_attention", EXPONENTIAL + SOURCE, [ctypes.c_long] * 5 + [ctypes.c_float] + [ctypes.c_void_p] * 10, is_right
    )


def is_right(found: Callable[..., None]) -> bool:
    """Return whether a compiled function attends as the definition says, for rows of several lengths, widths and groups."""
    draw = torch.Generator().manual_seed(0)
    for heads, key_heads, width in ((4, 2, 8), (3, 3, 40), (9, 3, 64)):
        row_of, own = torch.tensor([0, 0, 1, 3, 3, 3]), torch.tensor([0, 1, 16, 36, 37, 38])
        query = randn((6, heads, width), draw).transpose(0, 1)
        key, value = randn((2, 6, key_heads, width), draw).mul_(2).transpose(1, 2)
        cached = randn((2, 4, key_heads, 40, width), draw)
        mine = cached.clone()
        out, sums = _run(found, query, key, value, (mine[0], mine[1]), row_of, own, 0.3)
        cached[0, row_of, :, own], cached[1, row_of, :, own] = key.transpose(0, 1), value.transpose(0, 1)
        if not torch.equal(mine, cached):
            return False
        for token in range(6):
            keys, values = (
                side[row_of[token], :, : own[token] + 1].double().repeat_interleave(heads // key_heads, 0)
                for side in cached
            )
            scores = torch.einsum("hw,hpw->hp", query[:, token].double(), keys) * 0.3
            right = torch.einsum("hp,hpw->hw", scores.softmax(-1), values)
            if not bool(
                ((out[token] - right).abs() <= 1e-4).all()
                and ((sums[:, token] - scores.logsumexp(-1)).abs() <= 1e-4).all()
            ):
                return False
    return True
