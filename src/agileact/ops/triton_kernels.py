# mypy: ignore-errors
"""Triton kernels for agile activations: nothing but jit code. Not measured on a GPU.

The tensor is seen as the CPU kernels see it: element i has the parameter (i // inner) % params. Forward is one pass.
Backward is two: every program writes the gradient of its block of x and, for each parameter in it, a partial sum; a
second kernel adds the partial sums up in order. There are no atomics, so equal inputs give equal bits.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _logistic(z):
    # Of the two forms the one whose exponential cannot overflow.
    e = tl.exp(-tl.abs(z))
    return tl.where(z >= 0, 1.0 / (1.0 + e), e / (1.0 + e))


@triton.jit
def _log1p(e):
    # log(1 + e) = log(u) * e / (u - 1) with u = 1 + e as rounded: the rounding cancels.
    u = 1.0 + e
    return tl.where(u == 1.0, e, tl.log(u) * (e / tl.where(u == 1.0, 1.0, u - 1.0)))


@triton.jit
def _value_and_slope(z, p, q, BASE: tl.constexpr):
    """f(z) and f'(z)."""
    if BASE == 0:
        f = tl.where(z <= 0, 0.0, z)
        d = tl.where(z <= 0, 0.0, 1.0)
    elif BASE == 1:
        d = tl.where(z > 0, 1.0, p)
        f = z * d
    elif BASE == 2:
        low = tl.minimum(z, 0.0)
        e = tl.exp(low)
        # exp(z) - 1 for small z by its series.
        small = low * (1.0 + low * (0.5 + low * (1.0 / 6 + low * (1.0 / 24 + low / 120))))
        f = tl.where(z > 0, z, p * tl.where(low > -0.1, small, e - 1.0))
        d = tl.where(z > 0, 1.0, p * e)
    elif BASE == 3:
        f = _logistic(z)
        d = f * (1.0 - f)
    elif BASE == 4:
        e = tl.exp(-2.0 * tl.abs(z))
        square = z * z
        series = z * (1.0 - square * (1.0 / 3 - square * (2.0 / 15 - square * (17.0 / 315))))
        size = (1.0 - e) / (1.0 + e)
        f = tl.where(tl.abs(z) < 0.1, series, tl.where(z < 0, -size, size))
        d = 1.0 - f * f
    elif BASE == 5:
        t = z * p
        f = tl.where(t > q, z, (tl.maximum(t, 0.0) + _log1p(tl.exp(-tl.abs(t)))) / p)
        d = tl.where(t > q, 1.0, _logistic(t))
    elif BASE == 6:
        f = z
        d = tl.full(z.shape, 1.0, z.dtype)
    elif BASE == 7:
        s = _logistic(z)
        f = z * s
        d = s * (1.0 + z * (1.0 - s))
    elif BASE == 8:
        near = tl.minimum(tl.maximum(z, -100.0), 100.0)
        m = 0.5 * (1.0 + tl.erf(near * 0.7071067811865476))
        f = z * m
        d = m + near * (0.3989422804014327 * tl.exp(-0.5 * near * near))
    elif BASE == 9:
        near = tl.minimum(tl.maximum(z, -100.0), 100.0)
        square = near * near
        s = _logistic(1.5957691216057308 * near * (1.0 + 0.044715 * square))
        f = z * s
        d = s + near * s * (1.0 - s) * 1.5957691216057308 * (1.0 + 0.134145 * square)
    elif BASE == 10:
        e = tl.exp(tl.minimum(z, 20.0))
        n = e * (e + 2.0)
        t = n / (n + 2.0)
        f = z * t
        d = t + z * ((e / (1.0 + e)) * (1.0 - t * t))
    elif BASE == 11:
        f = z * tl.minimum(tl.maximum(z + 3.0, 0.0), 6.0) / 6.0
        d = tl.where(z <= -3.0, 0.0, tl.where(z >= 3.0, 1.0, z / 3.0 + 0.5))
    else:
        f = tl.minimum(tl.maximum(z + 3.0, 0.0), 6.0) / 6.0
        d = tl.where((z <= -3.0) | (z >= 3.0), 0.0, 1.0 / 6)
    return f, d


@triton.jit
def forward(x, y, scale, location, total, params, inner, p, q, BASE: tl.constexpr, BLOCK: tl.constexpr):
    """Write scale * f(x - location) to y."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = at < total
    which = (at // inner) % params
    a = tl.load(scale + which, mask=valid, other=0.0)
    b = tl.load(location + which, mask=valid, other=0.0)
    z = tl.load(x + at, mask=valid, other=0.0).to(tl.float32) - b
    f, _ = _value_and_slope(z, p, q, BASE)
    tl.store(y + at, (a * f).to(y.dtype.element_ty), mask=valid)


@triton.jit
def backward_rows(
    grad, x, grad_x, scale, location, partial, outer, params, inner, slices, p, q,
    BASE: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """A program takes one parameter and one slice of its elements, which are runs of ``inner``."""
    c = tl.program_id(0)
    s = tl.program_id(1)
    a = tl.load(scale + c)
    b = tl.load(location + c)
    count = outer * inner
    sum_f = tl.zeros((BLOCK,), tl.float32)
    sum_d = tl.zeros((BLOCK,), tl.float32)
    for step in range(STEPS):
        i = (s.to(tl.int64) * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        valid = i < count
        at = ((i // inner) * params + c) * inner + i % inner
        g = tl.load(grad + at, mask=valid, other=0.0).to(tl.float32)
        z = tl.load(x + at, mask=valid, other=0.0).to(tl.float32) - b
        f, d = _value_and_slope(z, p, q, BASE)
        gd = g * d
        tl.store(grad_x + at, (a * gd).to(grad_x.dtype.element_ty), mask=valid)
        sum_f += tl.where(valid, g * f, 0.0)
        sum_d += tl.where(valid, gd, 0.0)
    tl.store(partial + c * slices + s, tl.sum(sum_f))
    tl.store(partial + (params + c) * slices + s, tl.sum(sum_d))


@triton.jit
def backward_columns(
    grad, x, grad_x, scale, location, partial, outer, params, slices, p, q,
    BASE: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """For parameters that lie innermost: a program takes some columns and a slice of the rows."""
    c = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    s = tl.program_id(1)
    inside = c < params
    a = tl.load(scale + c, mask=inside, other=0.0)
    b = tl.load(location + c, mask=inside, other=0.0)
    sum_f = tl.zeros((COLUMNS,), tl.float32)
    sum_d = tl.zeros((COLUMNS,), tl.float32)
    for step in range(STEPS):
        r = (s.to(tl.int64) * STEPS + step) * ROWS + tl.arange(0, ROWS)
        valid = (r < outer)[:, None] & inside[None, :]
        at = r[:, None] * params + c[None, :]
        g = tl.load(grad + at, mask=valid, other=0.0).to(tl.float32)
        z = tl.load(x + at, mask=valid, other=0.0).to(tl.float32) - b[None, :]
        f, d = _value_and_slope(z, p, q, BASE)
        gd = g * d
        tl.store(grad_x + at, (a[None, :] * gd).to(grad_x.dtype.element_ty), mask=valid)
        sum_f += tl.sum(tl.where(valid, g * f, 0.0), 0)
        sum_d += tl.sum(tl.where(valid, gd, 0.0), 0)
    tl.store(partial + c * slices + s, sum_f, mask=inside)
    tl.store(partial + (params + c) * slices + s, sum_d, mask=inside)


@triton.jit
def add_slices(partial, scale, grad_scale, grad_location, params, slices, BLOCK: tl.constexpr):
    """Add the partial sums of one parameter up; the location's is minus scale times its sum."""
    c = tl.program_id(0)
    sum_f = tl.zeros((BLOCK,), tl.float32)
    sum_d = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, slices, BLOCK):
        i = start + tl.arange(0, BLOCK)
        sum_f += tl.load(partial + c * slices + i, mask=i < slices, other=0.0)
        sum_d += tl.load(partial + (params + c) * slices + i, mask=i < slices, other=0.0)
    tl.store(grad_scale + c, tl.sum(sum_f))
    tl.store(grad_location + c, -tl.load(scale + c) * tl.sum(sum_d))
