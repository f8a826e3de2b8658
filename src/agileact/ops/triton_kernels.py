# mypy: ignore-errors
"""Triton kernels for agile activations: nothing but jit code. Not measured on a GPU.

A dense tensor is seen as rows: of ``params`` runs of ``inner`` elements each, or, with COLUMNS, of one element for each
parameter. A program takes the lanes of one parameter (or WIDTH parameters) in STEPS times ROWS rows, so that no element
needs a division to find its parameter. K is the number of terms, rounded up to a power of two. Every byte is touched
once. Backward writes, beside the gradient of x, one partial sum for each program and parameter; a second kernel adds
these up in order. There are no atomics, so equal inputs give equal bits.
"""

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
def _curve(z, p, q, BASE: tl.constexpr):
    """f(z), f'(z) and f''(z); what nobody uses the compiler leaves out."""
    zero = tl.zeros_like(z)
    e = zero
    if BASE == 0:
        f = tl.where(z <= 0, 0.0, z)
        d = tl.where(z <= 0, 0.0, 1.0)
    elif BASE == 1:
        d = tl.where(z > 0, 1.0, p)
        f = z * d
    elif BASE == 2:
        low = tl.minimum(z, 0.0)
        g = tl.exp(low)
        # exp(z) - 1 for small z by its series.
        small = low * (1.0 + low * (0.5 + low * (1.0 / 6 + low * (1.0 / 24 + low / 120))))
        f = tl.where(z > 0, z, p * tl.where(low > -0.1, small, g - 1.0))
        d = tl.where(z > 0, 1.0, p * g)
        e = tl.where(z > 0, 0.0, d)
    elif BASE == 3:
        f = _logistic(z)
        d = f * (1.0 - f)
        e = d * (1.0 - 2.0 * f)
    elif BASE == 4:
        g = tl.exp(-2.0 * tl.abs(z))
        square = z * z
        series = z * (1.0 - square * (1.0 / 3 - square * (2.0 / 15 - square * (17.0 / 315))))
        size = (1.0 - g) / (1.0 + g)
        f = tl.where(tl.abs(z) < 0.1, series, tl.where(z < 0, -size, size))
        d = 1.0 - f * f
        e = -2.0 * f * d
    elif BASE == 5:
        t = z * p
        f = tl.where(t > q, z, (tl.maximum(t, 0.0) + _log1p(tl.exp(-tl.abs(t)))) / p)
        d = tl.where(t > q, 1.0, _logistic(t))
        e = tl.where(t > q, 0.0, p * d * (1.0 - d))
    elif BASE == 6:
        f = z
        d = zero + 1.0
    elif BASE == 7:
        s = _logistic(z)
        f = z * s
        d = s * (1.0 + z * (1.0 - s))
        e = s * (1.0 - s) * (2.0 + z * (1.0 - 2.0 * s))
    elif BASE == 8:
        near = tl.minimum(tl.maximum(z, -100.0), 100.0)
        m = 0.5 * (1.0 + tl.erf(near * 0.7071067811865476))
        phi = 0.3989422804014327 * tl.exp(-0.5 * near * near)
        f = z * m
        d = m + near * phi
        e = phi * (2.0 - near * near)
    elif BASE == 9:
        near = tl.minimum(tl.maximum(z, -100.0), 100.0)
        square = near * near
        s = _logistic(1.5957691216057308 * near * (1.0 + 0.044715 * square))
        slope = s * (1.0 - s)
        w = 1.5957691216057308 * (1.0 + 0.134145 * square)
        f = z * s
        d = s + near * slope * w
        e = slope * (2.0 * w + near * ((1.0 - 2.0 * s) * w * w + 0.4281288926 * near))
    elif BASE == 10:
        g = tl.exp(tl.minimum(z, 20.0))
        n = g * (g + 2.0)
        t = n / (n + 2.0)
        s = g / (1.0 + g)
        slope = s * (1.0 - t * t)
        f = z * t
        d = t + z * slope
        e = 2.0 * slope + z * slope * (1.0 - s - 2.0 * t * s)
    elif BASE == 11:
        f = z * tl.minimum(tl.maximum(z + 3.0, 0.0), 6.0) / 6.0
        d = tl.where(z <= -3.0, 0.0, tl.where(z >= 3.0, 1.0, z / 3.0 + 0.5))
        e = tl.where((z <= -3.0) | (z >= 3.0), 0.0, 1.0 / 3)
    else:
        f = tl.minimum(tl.maximum(z + 3.0, 0.0), 6.0) / 6.0
        d = tl.where((z <= -3.0) | (z >= 3.0), 0.0, 1.0 / 6)
    return f, d, e


@triton.jit
def _from_value(f, p, q, BASE: tl.constexpr):
    """f, f' and f'' from f, for the base functions that can be undone far enough."""
    zero = tl.zeros_like(f)
    e = zero
    if BASE == 0:
        d = tl.where(f <= 0, 0.0, 1.0)
    elif BASE == 1:
        d = tl.where(f > 0, 1.0, p)
    elif BASE == 2:
        d = tl.where(f > 0, 1.0, f + p)
        e = tl.where(f > 0, 0.0, d)
    elif BASE == 3:
        d = f * (1.0 - f)
        e = d * (1.0 - 2.0 * f)
    elif BASE == 4:
        d = 1.0 - f * f
        e = -2.0 * f * d
    elif BASE == 5:
        t = f * p
        # 1 - exp(-t) for small t by its series.
        small = t * (1.0 - t * (0.5 - t * (1.0 / 6 - t * (1.0 / 24 - t / 120))))
        d = tl.where(t > q, 1.0, tl.where(t < 0.1, small, 1.0 - tl.exp(-t)))
        e = tl.where(t > q, 0.0, p * d * (1.0 - d))
    else:
        d = zero + 1.0
    return f, d, e


@triton.jit
def _lanes(params, inner, blocks, COLUMNS: tl.constexpr, WIDTH: tl.constexpr):
    """The parameter of each lane, where in its row it is, and whether there is an element."""
    program = tl.program_id(0)
    lane = tl.arange(0, WIDTH)
    if COLUMNS:
        which = program * WIDTH + lane
        return which, which.to(tl.int64), which < params
    parameter = program // blocks
    within = (program % blocks) * WIDTH + lane
    return parameter + lane * 0, parameter.to(tl.int64) * inner + within, within < inner


@triton.jit
def _table(numbers, which, inside, params, TERMS: tl.constexpr, K: tl.constexpr):
    """The numbers of each term and lane, of shape (K, 1, WIDTH)."""
    k = tl.arange(0, K)[:, None]
    found = tl.load(numbers + k * params + which[None, :], mask=(k < TERMS) & inside[None, :], other=0.0)
    return found[:, None, :]


@triton.jit
def _rows(step, outer, params, inner, total, first, inside, ROWS: tl.constexpr, STEPS: tl.constexpr):
    """Where the elements of a step are, and which of them exist."""
    row = (tl.program_id(1).to(tl.int64) * STEPS + step) * ROWS + tl.arange(0, ROWS)
    at = row[:, None] * params * inner + first[None, :]
    return at, (row < outer)[:, None] & inside[None, :] & (at < total)


@triton.jit
def _total(terms, TERMS: tl.constexpr, K: tl.constexpr):
    """The sum over the terms; those that fill up K may hold NaN and do not count."""
    if TERMS != K:
        terms = tl.where(tl.arange(0, K)[:, None, None] < TERMS, terms, 0.0)
    return tl.sum(terms, 0)


@triton.jit
def _put_sums(
    partial, sums, which, inside, params, blocks, slices, KIND: tl.constexpr, TERMS: tl.constexpr, K: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    k = tl.arange(0, K)
    columns = tl.sum(sums, 1)
    if COLUMNS:
        row = (KIND * TERMS + k)[:, None] * params + which[None, :]
        mask = (k < TERMS)[:, None] & inside[None, :]
        tl.store(partial + row.to(tl.int64) * slices + tl.program_id(1), columns, mask=mask)
    else:
        parameter = tl.program_id(0) // blocks
        place = tl.program_id(1) * blocks + tl.program_id(0) % blocks
        row = (KIND * TERMS + k) * params + parameter
        tl.store(partial + row.to(tl.int64) * slices + place, tl.sum(columns, 1), mask=k < TERMS)


@triton.jit
def forward(
    x, y, scale, location, outer, params, inner, blocks, total, p, q, BASE: tl.constexpr, TERMS: tl.constexpr,
    K: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Write the sum of scale * f(x - location) to y."""
    which, first, inside = _lanes(params, inner, blocks, COLUMNS, WIDTH)
    a = _table(scale, which, inside, params, TERMS, K)
    b = _table(location, which, inside, params, TERMS, K)
    for step in range(STEPS):
        at, valid = _rows(step, outer, params, inner, total, first, inside, ROWS, STEPS)
        v = tl.load(x + at, mask=valid, other=0.0).to(tl.float32)
        f, _, _ = _curve(v[None, :, :] - b, p, q, BASE)
        tl.store(y + at, _total(a * f, TERMS, K).to(y.dtype.element_ty), mask=valid)


@triton.jit
def backward(
    grad, saved, grad_x, scale, location, partial, outer, params, inner, blocks, total, slices, p, q,
    FROM_OUTPUT: tl.constexpr, BASE: tl.constexpr, TERMS: tl.constexpr, K: tl.constexpr, COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Write the gradient of x, and the partial sums of grad * f and grad * f'."""
    which, first, inside = _lanes(params, inner, blocks, COLUMNS, WIDTH)
    a = _table(scale, which, inside, params, TERMS, K)
    b = _table(location, which, inside, params, TERMS, K)
    sum_f = tl.zeros((K, ROWS, WIDTH), tl.float32)
    sum_d = tl.zeros((K, ROWS, WIDTH), tl.float32)
    for step in range(STEPS):
        at, valid = _rows(step, outer, params, inner, total, first, inside, ROWS, STEPS)
        g = tl.load(grad + at, mask=valid, other=0.0).to(tl.float32)[None, :, :]
        v = tl.load(saved + at, mask=valid, other=0.0).to(tl.float32)[None, :, :]
        if FROM_OUTPUT:
            f, d, _ = _from_value(v / a, p, q, BASE)
        else:
            f, d, _ = _curve(v - b, p, q, BASE)
        gd = g * d
        tl.store(grad_x + at, _total(a * gd, TERMS, K).to(grad_x.dtype.element_ty), mask=valid)
        sum_f += tl.where(valid[None, :, :], g * f, 0.0)
        sum_d += tl.where(valid[None, :, :], gd, 0.0)
    _put_sums(partial, sum_f, which, inside, params, blocks, slices, 0, TERMS, K, COLUMNS)
    _put_sums(partial, sum_d, which, inside, params, blocks, slices, 1, TERMS, K, COLUMNS)


@triton.jit
def double_backward(
    tangent_x, grad, saved, grad_grad, grad_x, scale, location, tangent_scale, tangent_location, partial,
    outer, params, inner, blocks, total, slices, p, q,
    FROM_OUTPUT: tl.constexpr, BASE: tl.constexpr, TERMS: tl.constexpr, K: tl.constexpr, COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """The derivatives of ``backward``, as in csrc/elementwise.cpp."""
    which, first, inside = _lanes(params, inner, blocks, COLUMNS, WIDTH)
    a = _table(scale, which, inside, params, TERMS, K)
    b = _table(location, which, inside, params, TERMS, K)
    va = _table(tangent_scale, which, inside, params, TERMS, K)
    vb = _table(tangent_location, which, inside, params, TERMS, K)
    sum_a = tl.zeros((K, ROWS, WIDTH), tl.float32)
    sum_x = tl.zeros((K, ROWS, WIDTH), tl.float32)
    for step in range(STEPS):
        at, valid = _rows(step, outer, params, inner, total, first, inside, ROWS, STEPS)
        u = tl.load(tangent_x + at, mask=valid, other=0.0).to(tl.float32)[None, :, :]
        g = tl.load(grad + at, mask=valid, other=0.0).to(tl.float32)[None, :, :]
        v = tl.load(saved + at, mask=valid, other=0.0).to(tl.float32)[None, :, :]
        if FROM_OUTPUT:
            f, d, e = _from_value(v / a, p, q, BASE)
        else:
            f, d, e = _curve(v - b, p, q, BASE)
        t = u - vb
        to_x = g * (t * a * e + va * d)
        tl.store(grad_grad + at, _total(t * a * d + va * f, TERMS, K).to(grad_grad.dtype.element_ty), mask=valid)
        tl.store(grad_x + at, _total(to_x, TERMS, K).to(grad_x.dtype.element_ty), mask=valid)
        sum_a += tl.where(valid[None, :, :], g * t * d, 0.0)
        sum_x += tl.where(valid[None, :, :], to_x, 0.0)
    _put_sums(partial, sum_a, which, inside, params, blocks, slices, 0, TERMS, K, COLUMNS)
    _put_sums(partial, sum_x, which, inside, params, blocks, slices, 1, TERMS, K, COLUMNS)


@triton.jit
def add_slices(
    partial, scale, grad_scale, grad_location, numbers, slices, SCALED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Add the partial sums of one number up; the location's is minus its sum, times the scale in a first derivative."""
    c = tl.program_id(0)
    own = c.to(tl.int64) * slices
    other = (numbers + c).to(tl.int64) * slices
    sum_f = tl.zeros((BLOCK,), tl.float32)
    sum_d = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, slices, BLOCK):
        i = start + tl.arange(0, BLOCK)
        sum_f += tl.load(partial + own + i, mask=i < slices, other=0.0)
        sum_d += tl.load(partial + other + i, mask=i < slices, other=0.0)
    factor = tl.load(scale + c) if SCALED else 1.0
    tl.store(grad_scale + c, tl.sum(sum_f))
    tl.store(grad_location + c, -factor * tl.sum(sum_d))


@triton.jit
def pool(
    x, y, picked, places, scale, location, channels, height, width, out_height, out_width,
    xn, xc, xh, xw, yn, yc, yh, yw, p, q, BASE: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr,
    SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """A program takes WIDTH windows of one row of an image, in CHANNELS channels; strides say where everything is."""
    n = (tl.program_id(0) // out_height).to(tl.int64)
    oh = tl.program_id(0) % out_height
    ow = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (ow < out_width)[:, None] & (c < channels)[None, :]
    a = tl.load(scale + c, mask=c < channels, other=0.0)[None, :]
    b = tl.load(location + c, mask=c < channels, other=0.0)[None, :]
    best = tl.full((WIDTH, CHANNELS), float("-inf"), tl.float32)
    chosen = tl.zeros((WIDTH, CHANNELS), tl.float32)
    place = tl.full((WIDTH, CHANNELS), -1, tl.int32)
    for kh in tl.static_range(KH):
        for kw in tl.static_range(KW):
            ih = oh * SH - PH + kh * DH + ow * 0
            iw = ow * SW - PW + kw * DW
            there = inside & ((ih >= 0) & (ih < height) & (iw >= 0) & (iw < width))[:, None]
            at = n * xn + (ih * xh + iw * xw)[:, None] + (c * xc)[None, :]
            v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
            f, _, _ = _curve(v - b, p, q, BASE)
            value = a * f
            # As PyTorch: the first of equals, and NaN before all.
            better = there & ((value > best) | (value != value) | (place < 0))
            best = tl.where(better, value, best)
            chosen = tl.where(better, v, chosen)
            place = tl.where(better, kh * KW + kw, place)
    to = n * yn + oh * yh + (ow * yw)[:, None] + (c * yc)[None, :]
    tl.store(y + to, best.to(y.dtype.element_ty), mask=inside)
    tl.store(picked + to, chosen.to(picked.dtype.element_ty), mask=inside)
    tl.store(places + to, place.to(tl.uint8), mask=inside)


@triton.jit
def pool_scatter(
    values, places, grad_x, channels, height, width, out_height, out_width, xn, xc, xh, xw, yn, yc, yh, yw,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Every pixel adds up the windows that picked it, in one order."""
    n = (tl.program_id(0) // height).to(tl.int64)
    ih = tl.program_id(0) % height
    iw = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (iw < width)[:, None] & (c < channels)[None, :]
    total = tl.zeros((WIDTH, CHANNELS), tl.float32)
    for kh in tl.static_range(KH):
        for kw in tl.static_range(KW):
            top = ih + PH - kh * DH + iw * 0
            left = iw + PW - kw * DW
            oh = top // SH
            ow = left // SW
            row = (top >= 0) & (top % SH == 0) & (oh < out_height)
            there = inside & (row & (left >= 0) & (left % SW == 0) & (ow < out_width))[:, None]
            at = n * yn + (oh * yh + ow * yw)[:, None] + (c * yc)[None, :]
            v = tl.load(values + at, mask=there, other=0.0).to(tl.float32)
            place = tl.load(places + at, mask=there, other=255).to(tl.int32)
            total += tl.where(there & (place == kh * KW + kw), v, 0.0)
    to = n * xn + ih * xh + (iw * xw)[:, None] + (c * xc)[None, :]
    tl.store(grad_x + to, total.to(grad_x.dtype.element_ty), mask=inside)
