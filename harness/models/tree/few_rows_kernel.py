"""A matrix product for few rows, in C: compiled once by the machine's own compiler, where there is one.

Libraries copy the weights into another order before they multiply, which pays with hundreds of rows. With few rows it takes
longer than the product. Here each weight is read once, as it lies, and multiplied with all rows while it is in the cache.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING

import torch

from harness.models.tree.compiled import function, randn

if TYPE_CHECKING:
    from collections.abc import Callable

# Rows and columns whose sums stand in registers: 12 sums, 3 vectors of rows and one of weights fill 16 registers.
ROWS, COLUMNS = 3, 4

HEAD = """
/* Keeps a vector in its register: read again for each product it would take twice as long. */
#define HOLD(v) __asm__("" : "+x"(v))

INLINE void finish(v8 s, const float *x, const float *w, long k, long width, const float *bias, float *out) {
    float sum = total(s);
    for (; k < width; k++) sum += x[k] * w[k];
    *out = bias ? sum + *bias : sum;
}
"""
TILE = """
INLINE void tile_%(rows)s_%(columns)s(const float *x, const float *w, long width, const float *bias, float *out, long stride,
                                    const float *fetch) {
    v8 v, %(sums)s;
    long k = 0;
    for (; k + 8 <= width; k += 8) {
        if (fetch) __builtin_prefetch(fetch + 2 * k, 0, 2);
        %(load)s
        %(multiply)s
    }
    %(finish)s
}
"""
# While a block of columns is multiplied the next one is fetched: with few rows a line at each step, half of it beside the first
# rows and half beside the second; with more rows some lines before each three of them.
BLOCK = """
INLINE void rows_%(columns)s(long rows, const float *x, const float *w, long width, const float *bias, float *out, long stride,
                             const float *fetch) {
    if (rows >= 3) tile_3_%(columns)s(x, w, width, bias, out, stride, fetch);
    else if (rows == 2) tile_2_%(columns)s(x, w, width, bias, out, stride, fetch);
    else tile_1_%(columns)s(x, w, width, bias, out, stride, fetch);
}
INLINE void block_%(columns)s(long rows, const float *x, const float *w, long width, const float *bias, float *out,
                              long stride, long lines) {
    const float *next = w + %(columns)s * width;
    long r = 0, at = 0, each = lines / ((rows + 2) / 3) + 1;
    if (lines && rows <= 9) {
        rows_%(columns)s(rows, x, w, width, bias, out, stride, next);
        if (rows > 3) rows_%(columns)s(rows - 3, x + 3 * width, w, width, bias, out + 3 * stride, stride, next + 2 * width);
        r = 6;
        lines = 0;
    }
    for (; r < rows; r += 3) {
        for (long end = at + each; at < end && at < lines; at++) __builtin_prefetch(next + 16 * at, 0, 2);
        rows_%(columns)s(rows - r, x + r * width, w, width, bias, out + r * stride, stride, 0);
    }
}
"""
PRODUCT = """
/* out (rows, columns) = x (rows, width) times w (columns, width) transposed, plus bias (columns) or NULL */
void few_rows(long rows, long columns, long width, long threads, const float *x, const float *w, const float *bias,
              float *out) {
    long whole = columns / 4;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && columns * width > 65536)
    for (long b = 0; b < whole; b++)
        block_4(rows, x, w + 4 * b * width, width, bias ? bias + 4 * b : 0, out + 4 * b, columns,
                b + 1 < whole ? width / 4 : 0);
    for (long c = 4 * whole; c < columns; c++)
        block_1(rows, x, w + c * width, width, bias ? bias + c : 0, out + c, columns, 0);
}
"""


def source() -> str:
    """Return the program in C."""
    tiles = [_tile(rows, columns) for columns in (1, COLUMNS) for rows in range(1, ROWS + 1)]
    blocks = [BLOCK % {"columns": columns} for columns in (1, COLUMNS)]
    return "".join([HEAD, *tiles, *blocks, PRODUCT])


@functools.cache
def kernel() -> Callable[..., None] | None:
    """Return the compiled product, which takes rows, columns, width, threads and four addresses; None where there is none.

    It is made at the first call on a machine and kept in the cache. A machine without a compiler, of another kind, or whose
    compiler makes something that multiplies wrong, has none; nothing is said of it.
    """
    return function("few_rows", source(), [ctypes.c_long] * 4 + [ctypes.c_void_p] * 4, is_right)


def is_right(found: Callable[..., None]) -> bool:
    """Return whether a compiled product is that of torch, for shapes with and without rests."""
    generator = torch.Generator().manual_seed(0)
    for rows, columns, width in [(1, 4, 8), (2, 9, 7), (5, 130, 67), (24, 259, 520)]:
        x, w, bias = (randn(shape, generator) for shape in ((rows, width), (columns, width), (columns,)))
        for added in (bias, None):
            out = torch.full((rows, columns), torch.nan, dtype=torch.float32)
            address = added.data_ptr() if added is not None else None
            found(rows, columns, width, 1 + columns % 2, x.data_ptr(), w.data_ptr(), address, out.data_ptr())
            right = torch.nn.functional.linear(x.double(), w.double(), None if added is None else added.double())
            if not bool(((out - right).abs() <= 1e-5 * (1 + width**0.5)).all()):
                return False
    return True


def _tile(rows: int, columns: int) -> str:
    """Return the product of so many rows and columns, with all sums in registers."""
    places = [(r, c) for c in range(columns) for r in range(rows)]
    return TILE % {
        "rows": rows,
        "columns": columns,
        "sums": ", ".join(f"s{r}{c} = {{0}}" for r, c in places),
        "load": " ".join(f"v8 x{r} = *(const v8 *)(x + {r} * width + k); HOLD(x{r});" for r in range(rows)),
        "multiply": "\n        ".join(
            f"v = *(const v8 *)(w + {c} * width + k); HOLD(v); "
            + " ".join(f"s{r}{c} += x{r} * v;" for r in range(rows))
            for c in range(columns)
        ),
        "finish": "\n    ".join(
            f"finish(s{r}{c}, x + {r} * width, w + {c} * width, k, width, bias ? bias + {c} : 0, out + {r} * stride + {c});"
            for r, c in places
        ),
    }
