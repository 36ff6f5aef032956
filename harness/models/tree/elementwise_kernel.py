"""What lies between a model's products, in C: norms, gates and rotary angles, each in one pass over its numbers.

Torch makes them of several steps, each of which reads and writes everything once.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.models.tree.compiled import library, randn, usual

if TYPE_CHECKING:
    from collections.abc import Callable

Tensor = torch.Tensor

# e^x is 2^n e^r with |r| <= ln 2 / 2, of which the series up to r^7 is exact in float32. Adding 1.5 * 2^23 rounds to a whole
# number, and leaves it in the lowest bits. What is no number stays none.
EXPONENTIAL = """
typedef int i8 __attribute__((vector_size(32), aligned(4)));
/* x, but where another is asked for */
INLINE v8 chosen(i8 other, float value, v8 x) { return (v8)((other & (i8)((v8){0} + value)) | (~other & (i8)x)); }

INLINE v8 exponential(v8 x) {
    x = chosen(x < -87.0f, -87.0f, x);
    x = chosen(x > 88.0f, 88.0f, x);
    v8 shifted = x * 1.44269504f + 12582912.0f, whole = shifted - 12582912.0f;
    v8 r = x - whole * 0.693145752f;
    r = r - whole * 1.42860677e-6f;
    v8 sum = r * (1.0f / 5040) + 1.0f / 720;
    sum = sum * r + 1.0f / 120;
    sum = sum * r + 1.0f / 24;
    sum = sum * r + 1.0f / 6;
    sum = sum * r + 0.5f;
    sum = sum * r + 1.0f;
    sum = sum * r + 1.0f;
    i8 scale = ((i8)shifted + 127) << 23;
    return sum * (v8)scale;
}
INLINE v8 loaded(const float *from, long count) {
    v8 v = {0};
    if (count >= 8) return *(const v8 *)from;
    for (long i = 0; i < count; i++) v[i] = from[i];
    return v;
}
INLINE void stored(float *to, v8 v, long count) {
    if (count >= 8) *(v8 *)to = v;
    else for (long i = 0; i < count; i++) to[i] = v[i];
}
"""
NORM = """
#include <math.h>
/* out (rows, width) = weight * x / sqrt(mean(x^2) + eps); scales (rows), or NULL, are told what x was divided by */
void norm(long rows, long width, long threads, float eps, const float *x, const float *weight, float *out, float *scales) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * width > 32768)
    for (long r = 0; r < rows; r++) {
        const float *from = x + r * width;
        v8 a = {0}, b = {0}, c = {0}, d = {0};
        long k = 0;
        for (; k + 32 <= width; k += 32) {
            v8 p = *(const v8 *)(from + k), q = *(const v8 *)(from + k + 8);
            v8 s = *(const v8 *)(from + k + 16), t = *(const v8 *)(from + k + 24);
            a += p * p; b += q * q; c += s * s; d += t * t;
        }
        for (; k < width; k += 8) { v8 v = loaded(from + k, width - k); a += v * v; }
        float scale = 1.0f / sqrtf(total((a + b) + (c + d)) / width + eps);
        if (scales) scales[r] = scale;
        for (k = 0; k < width; k += 8)
            stored(out + r * width + k, loaded(weight + k, width - k) * (loaded(from + k, width - k) * scale), width - k);
    }
}
/* into (rows, width): the gradient of x, from that of the norm's result */
void norm_back(long rows, long width, long threads, const float *x, const float *weight, const float *scales,
               const float *upstream, float *into) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * width > 32768)
    for (long r = 0; r < rows; r++) {
        const float *from = x + r * width, *up = upstream + r * width;
        v8 a = {0};
        for (long k = 0; k < width; k += 8)
            a += loaded(from + k, width - k) * loaded(weight + k, width - k) * loaded(up + k, width - k);
        float scale = scales[r], part = total(a) * scale * scale / width;
        for (long k = 0; k < width; k += 8)
            stored(into + r * width + k,
                   (loaded(weight + k, width - k) * loaded(up + k, width - k) - loaded(from + k, width - k) * part) * scale,
                   width - k);
    }
}
"""
GATE = """
/* out (count) = gate / (1 + e^-gate) * up */
void gated(long count, long threads, const float *gate, const float *up, float *out) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && count > 32768)
    for (long k = 0; k < count; k += 8) {
        v8 g = loaded(gate + k, count - k);
        stored(out + k, g / (1.0f + exponential(-g)) * loaded(up + k, count - k), count - k);
    }
}
/* the gradients of gate and up, from that of the result, which they may overwrite */
void gated_back(long count, long threads, const float *gate, const float *up, const float *upstream, float *of_gate,
                float *of_up) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && count > 32768)
    for (long k = 0; k < count; k += 8) {
        v8 g = loaded(gate + k, count - k), u = loaded(up + k, count - k), d = loaded(upstream + k, count - k);
        v8 s = 1.0f / (1.0f + exponential(-g)), active = g * s;
        stored(of_up + k, d * active, count - k);
        stored(of_gate + k, d * u * (s + active * (1.0f - s)), count - k);
    }
}
"""
ROTATION = """
/* out (tokens, heads, width): each head's halves (a, b) become a cos - b sin and b cos + a sin; with sign -1 the way back.
   x has so many numbers from a token, and from a head, to the next; cos and sin are (tokens, width), as out is. */
void rotated(long tokens, long heads, long width, long of_token, long of_head, long threads, float sign, const float *x,
             const float *cosine, const float *sine, float *out) {
    long half = width / 2;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && tokens * heads * width > 32768)
    for (long t = 0; t < tokens; t++) {
        const float *c = cosine + t * width, *s = sine + t * width;
        for (long h = 0; h < heads; h++) {
            const float *a = x + t * of_token + h * of_head, *b = a + half;
            float *to = out + (t * heads + h) * width;
            for (long k = 0; k < half; k += 8) {
                v8 p = loaded(a + k, half - k), q = loaded(b + k, half - k);
                v8 cp = loaded(c + k, half - k), cq = loaded(c + half + k, half - k);
                v8 sp = loaded(s + k, half - k) * sign, sq = loaded(s + half + k, half - k) * sign;
                if (sign > 0) {
                    stored(to + k, p * cp - q * sp, half - k);
                    stored(to + half + k, q * cq + p * sq, half - k);
                } else {
                    stored(to + k, p * cp - q * sq, half - k);
                    stored(to + half + k, q * cq + p * sp, half - k);
                }
            }
        }
    }
}
"""
LONG, FLOAT, ADDRESS = ctypes.c_long, ctypes.c_float, ctypes.c_void_p
ARGUMENTS = {
    "norm": [LONG, LONG, LONG, FLOAT, ADDRESS, ADDRESS, ADDRESS, ADDRESS],
    "norm_back": [LONG, LONG, LONG, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS],
    "gated": [LONG, LONG, ADDRESS, ADDRESS, ADDRESS],
    "gated_back": [LONG, LONG, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS],
    "rotated": [LONG, LONG, LONG, LONG, LONG, LONG, FLOAT, ADDRESS, ADDRESS, ADDRESS, ADDRESS],
}


@dataclass(frozen=True)
class Kernels:
    """The compiled functions; their arguments are numbers and addresses (see above)."""

    norm: Callable[..., None]
    norm_back: Callable[..., None]
    gated: Callable[..., None]
    gated_back: Callable[..., None]
    rotated: Callable[..., None]


@functools.cache
def kernels() -> Kernels | None:
    """Return the compiled functions, None where this machine has none or they compute something else."""
    made = library("elementwise", EXPONENTIAL + NORM + GATE + ROTATION)
    if made is None or not all(hasattr(made, name) for name in ARGUMENTS):
        return None
    functions: dict[str, Any] = {name: getattr(made, name) for name in ARGUMENTS}
    for name, function in functions.items():
        function.argtypes, function.restype = ARGUMENTS[name], None
    found = Kernels(**functions)
    with usual():
        return found if is_right(found) else None


def is_right(found: Kernels) -> bool:
    """Return whether compiled functions compute what torch does, with and without rests."""
    draw = torch.Generator().manual_seed(0)
    return all(
        _is_same(found, randn((3, rows, width), draw).mul_(4), randn((width,), draw))
        for rows, width in ((1, 6), (2, 16), (5, 70), (300, 128))
    )


def _is_same(found: Kernels, numbers: Tensor, weight: Tensor) -> bool:
    x, up, upstream = numbers
    ours = _ours(found, x, up, upstream, weight)
    wide, wide_up = (of.double().requires_grad_(True) for of in (x, up))
    angles = upstream.double()
    cosine, sine = (of.float().double() for of in (angles.cos(), angles.sin()))
    with torch.enable_grad():
        normed = weight.double() * wide * (wide.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        product = torch.nn.functional.silu(wide) * wide_up
        first, second = wide.chunk(2, -1)
        turned = wide * cosine + torch.cat([-second, first], -1) * sine
        slopes = [
            torch.autograd.grad(normed, wide, angles)[0], *torch.autograd.grad(product, [wide, wide_up], angles),
            torch.autograd.grad(turned, wide, angles)[0],
        ]  # fmt: skip
    right = [normed.detach(), product.detach(), turned.detach(), *slopes]
    return all(bool(((a - b).abs() <= 1e-5 * (1 + b.abs())).all()) for a, b in zip(ours, right, strict=True))


def _ours(found: Kernels, x: Tensor, up: Tensor, upstream: Tensor, weight: Tensor) -> list[Tensor]:
    """Return norm, gate and rotation, and the gradients of norm, gate, the gate's other side and rotation."""
    rows, width = x.shape
    out = torch.full((7, rows, width), torch.nan, dtype=torch.float32)
    scales, cosine, sine = (
        torch.empty(rows, dtype=torch.float32),
        upstream.double().cos().float(),
        upstream.double().sin().float(),
    )
    threads = 1 + rows % 2
    at = [part.data_ptr() for part in out]
    given = x.data_ptr(), up.data_ptr(), upstream.data_ptr()
    found.norm(rows, width, threads, 1e-5, given[0], weight.data_ptr(), at[0], scales.data_ptr())
    found.gated(x.numel(), threads, given[0], given[1], at[1])
    turn = rows, 1, width, width, width, threads
    angles = cosine.data_ptr(), sine.data_ptr()
    found.rotated(*turn, 1.0, given[0], *angles, at[2])
    found.norm_back(rows, width, threads, given[0], weight.data_ptr(), scales.data_ptr(), given[2], at[3])
    found.gated_back(x.numel(), threads, *given, at[4], at[5])
    found.rotated(*turn, -1.0, given[2], *angles, at[6])
    return list(out)
