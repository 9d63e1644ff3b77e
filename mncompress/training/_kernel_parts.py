"""What the Triton kernels of optimizer steps are put together from: products with features, networks forward and back, AdamW.

All parameters lie in one vector, for each a block of shape (M, ...), the first layer's weights (M, n, d) in front. A parameter's
`offset` is where its block would begin if M were 1: network m's part begins at M offset + m size. Values are feature first.
`partials` is where a network's gradients of all parameters but the first weights go, in the order of the vector.

LAYER is a `_fused_steps.FusedLayer`, which has the one behind it; P is its number of neurons padded to a power of two, R the rows
of a block.

Features x lie in rows of `pitch` elements. They are float32 (PARTS = 0), or pixels as they are stored, whole numbers of 8 bits,
with `shift` and `factor` in common: x = (pixel - shift) factor. A pixel is exact in TensorFloat-32, so two products with it, of a
weight's upper bits and of its lower ones, are nearly as good as one of float32 (PARTS = 2); where TensorFloat-32 is good enough,
one is (PARTS = 1).

`schedule[step]` has the factor of the learning rate and Adam's two corrections, 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t).

Importing this needs triton. Its interpreter (TRITON_INTERPRET=1) runs all of it on the CPU.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from mncompress.nn.act_kernels import act

BETA1 = tl.constexpr(0.9)
BETA2 = tl.constexpr(0.999)
EPS = tl.constexpr(1e-8)


@triton.jit
def find_rows(order, stride, group, step, b, size, batch):
    """Which rows of the data are at the places b of the batch."""
    return tl.load(order + group.to(tl.int64) * stride + step * batch + b, b < size, 0)


@triton.jit
def _as_tf32(w):
    """The nearest numbers of 11 bits."""
    return ((w.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def round_factor(w, PARTS: tl.constexpr):
    """Weights or gradients as their product with pixels takes them, so that what is subtracted for the shift is of the same."""
    return _as_tf32(w) if PARTS == 1 else w


@triton.jit
def no_product(C: tl.constexpr, R: tl.constexpr, PARTS: tl.constexpr):
    """What `add_product` adds to: of pixels the product's transpose, with the parts of the C side by side."""
    if PARTS == 0:
        return tl.zeros((C, R), tl.float32)
    else:
        return tl.zeros((R, PARTS * C), tl.float32)


@triton.jit
def add_product(total, w, x, PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """Add the product of w (C, K), which `round_factor` gave, with x (K, R)."""
    if PARTS == 0:
        return tl.dot(w, x, total, input_precision=PRECISION)
    else:
        if PARTS == 2:
            upper = _as_tf32(w)
            w = tl.reshape(tl.permute(tl.join(upper, w - upper), (2, 0, 1)), (2 * w.shape[0], w.shape[1]))
        return tl.dot(tl.trans(x).to(tl.float32), tl.trans(w), total, input_precision="tf32")


@triton.jit
def finish_product(total, sums, shift, factor, PARTS: tl.constexpr):
    """The product (C, R) of w with the features, given the sums (C,) of w over what was multiplied."""
    if PARTS == 0:
        return total
    else:
        if PARTS == 2:
            total = tl.sum(tl.reshape(total, (total.shape[0], 2, total.shape[1] // 2)), 1)
        return (tl.trans(total) - shift * sums[:, None]) * factor


@triton.jit
def _index(neurons, h, LAYER: tl.constexpr, UNITS: tl.constexpr):
    """Where a network's parameter (neurons, UNITS), or (1, UNITS) where it is shared, has unit h of each neuron."""
    if LAYER.shared:
        return neurons * 0 + h
    else:
        return neurons * UNITS + h


@triton.jit
def _load(flat, networks, network, h, LAYER: tl.constexpr, OFFSET: tl.constexpr, UNITS: tl.constexpr, ABSENT: tl.constexpr):
    """Unit h of an activation's parameter for each neuron, (P, 1); `ABSENT` where the family has none."""
    P: tl.constexpr = LAYER.padded
    neurons = tl.arange(0, P)
    if OFFSET < 0:
        return tl.full((P, 1), ABSENT, tl.float32)
    else:
        rows: tl.constexpr = 1 if LAYER.shared else LAYER.neurons
        own = flat + networks * OFFSET + network * (rows * UNITS)
        return tl.load(own + _index(neurons, h, LAYER, UNITS), neurons < LAYER.neurons, 0.0)[:, None]


@triton.jit
def _store(partials, gradient, h, LAYER: tl.constexpr, OFFSET: tl.constexpr, UNITS: tl.constexpr):
    """Write the gradient of what `_load` gave, summed over the rows of (P, R)."""
    neurons = tl.arange(0, LAYER.padded)
    if OFFSET >= 0:
        total = tl.sum(gradient, 1)
        if LAYER.shared:
            tl.store(partials + OFFSET + h, tl.sum(total, 0))
        else:
            tl.store(partials + OFFSET + _index(neurons, h, LAYER, UNITS), total, neurons < LAYER.neurons)


@triton.jit
def _end(t, p, LAYER: tl.constexpr, INPUT: tl.constexpr):
    """e(t) of the input or the output neurons, its derivative by t, and by the end's parameter p."""
    END: tl.constexpr = LAYER.in_end if INPUT else LAYER.out_end
    NAME: tl.constexpr = LAYER.act
    if END.kind == "linear":
        return t, tl.full(t.shape, 1.0, tl.float32), t
    else:
        value, slope = act(t, NAME)
        if END.kind == "gated":
            return value + p * (t - value), slope + p * (1.0 - slope), t - value
        elif END.kind == "skip":
            return value + p * t, slope + p, t
        elif END.share == 0:
            return value, slope, t
        else:
            return value + END.share * t, slope + END.share, t


@triton.jit
def _inner(flat, networks, network, h, LAYER: tl.constexpr):
    """w1, b1 and v of inner unit h, (P, 1)."""
    return (_load(flat, networks, network, h, LAYER, LAYER.first_weight, LAYER.width, 1.0),
            _load(flat, networks, network, h, LAYER, LAYER.first_bias, LAYER.width, 0.0),
            _load(flat, networks, network, h, LAYER, LAYER.out_weight, LAYER.width, 1.0))


@triton.jit
def _forward(u, flat, networks, network, LAYER: tl.constexpr):
    """From pre-activations u (P, R): x, dx/du, dx/dp of the input neurons, and y, dy/dz, dy/dq of the output neurons."""
    NAME: tl.constexpr = LAYER.act
    p = _load(flat, networks, network, 0, LAYER, LAYER.in_end.offset, 1, 0.0)
    x, x_slope, by_p = _end(u, p, LAYER, True)
    z = _load(flat, networks, network, 0, LAYER, LAYER.out_bias, 1, 0.0) + tl.zeros(x.shape, tl.float32)
    for h in tl.range(LAYER.width, loop_unroll_factor=1):
        w, b, v = _inner(flat, networks, network, h, LAYER)
        value, _ = act(x * w + b, NAME)
        z += value * v
    y, y_slope, by_q = _end(z, _load(flat, networks, network, 0, LAYER, LAYER.out_end.offset, 1, 0.0), LAYER, False)
    return x, x_slope, by_p, y, y_slope, by_q


@triton.jit
def _activate_backward(x, x_slope, by_p, y_slope, by_q, dy, flat, partials, networks, network, LAYER: tl.constexpr):
    """The gradient by u from that by y, given what `_forward` found; writes those of the activations' parameters."""
    NAME: tl.constexpr = LAYER.act
    dz = dy * y_slope
    dx = tl.zeros(dy.shape, tl.float32)
    for h in tl.range(LAYER.width, loop_unroll_factor=1):
        w, b, v = _inner(flat, networks, network, h, LAYER)
        value, slope = act(x * w + b, NAME)
        g = dz * v * slope
        dx += g * w
        _store(partials, g * x, h, LAYER, LAYER.first_weight, LAYER.width)
        _store(partials, g, h, LAYER, LAYER.first_bias, LAYER.width)
        _store(partials, dz * value, h, LAYER, LAYER.out_weight, LAYER.width)
    _store(partials, dz, 0, LAYER, LAYER.out_bias, 1)
    _store(partials, dx * by_p, 0, LAYER, LAYER.in_end.offset, 1)
    _store(partials, dy * by_q, 0, LAYER, LAYER.out_end.offset, 1)
    return dx * x_slope


@triton.jit
def _loss(outputs, y, row, inside, size, LAYER: tl.constexpr, CLASSIFY: tl.constexpr):
    """The sum of the losses of a block's rows, and the gradient of the mean loss of `size` rows by the outputs (P, R)."""
    k = tl.arange(0, LAYER.padded)[:, None]
    valid = (k < LAYER.neurons) & inside[None, :]
    if CLASSIFY:
        shown = tl.where(k < LAYER.neurons, outputs, -float("inf"))
        shifted = shown - tl.max(shown, 0)[None, :]
        exponentials = tl.exp(shifted)
        total = tl.sum(exponentials, 0)
        hit = k == tl.load(y + row, inside, 0)[None, :]
        losses = tl.log(total) - tl.sum(tl.where(hit, shifted, 0.0), 0)
        gradient = exponentials / total[None, :] - tl.where(hit, 1.0, 0.0)
    else:
        target = tl.load(y + row[None, :] * LAYER.neurons + k, valid, 0.0)
        difference = outputs - target
        losses = tl.sum(tl.where(k < LAYER.neurons, difference * difference, 0.0), 0) / LAYER.neurons
        gradient = difference * (2.0 / LAYER.neurons)
    return tl.sum(tl.where(inside, losses, 0.0), 0), tl.where(valid, gradient, 0.0) / size


@triton.jit
def backpropagate(u, h, flat, partials, networks, network, y, row, inside, size, LAYER: tl.constexpr,
                   CLASSIFY: tl.constexpr, PRECISION: tl.constexpr):
    """Forward from the pre-activations u (P, R) and the inputs h of a LAYER, and back again.

    Returns the loss, its gradient by u, and by what the layer passes on. Writes the gradients of the layer's activations and of all
    behind it.
    """
    out = u
    if LAYER.act != "":
        x, x_slope, by_p, out, y_slope, by_q = _forward(u, flat, networks, network, LAYER)
    if LAYER.residual:
        out += h
    if LAYER.behind is None:
        loss, gradient = _loss(out, y, row, inside, size, LAYER, CLASSIFY)
    else:
        behind: tl.constexpr = LAYER.behind
        n, i = tl.arange(0, behind.padded), tl.arange(0, LAYER.padded)
        valid = (n < behind.neurons)[:, None] & (i < LAYER.neurons)[None, :]
        place = n[:, None] * LAYER.neurons + i[None, :]
        own = flat + networks * behind.weight + network * (behind.neurons * LAYER.neurons)
        weight = tl.load(own + place, valid, 0.0)
        bias = tl.load(flat + networks * behind.bias + network * behind.neurons + n, n < behind.neurons, 0.0)
        next_u = tl.dot(weight, out, input_precision=PRECISION) + bias[:, None]
        loss, by_u, by_out = backpropagate(next_u, out, flat, partials, networks, network, y, row, inside, size, behind,
                                            CLASSIFY, PRECISION)
        tl.store(partials + behind.weight + place, tl.dot(by_u, tl.trans(out), input_precision=PRECISION), valid)
        tl.store(partials + behind.bias + n, tl.sum(by_u, 1), n < behind.neurons)
        gradient = tl.dot(tl.trans(weight), by_u, input_precision=PRECISION)
        if behind.residual:
            gradient += by_out
    by_u = gradient
    if LAYER.act != "":
        by_u = _activate_backward(x, x_slope, by_p, y_slope, by_q, gradient, flat, partials, networks, network, LAYER)
    return loss, by_u, gradient


@triton.jit
def adam(flat, first, second, place, valid, gradient, rate, decay, schedule, step):
    """AdamW on the parameters at `place`; `rate` and `decay` are theirs before the schedule."""
    rate *= tl.load(schedule + step * 3)
    mean = tl.load(first + place, valid, 0.0)
    mean += (1.0 - BETA1) * (gradient - mean)
    square = tl.load(second + place, valid, 0.0) * BETA2 + (1.0 - BETA2) * gradient * gradient
    value = tl.load(flat + place, valid, 0.0) * (1.0 - rate * decay)
    value -= rate * tl.load(schedule + step * 3 + 1) * mean / (tl.sqrt(square) * tl.load(schedule + step * 3 + 2) + EPS)
    tl.store(first + place, mean, valid)
    tl.store(second + place, square, valid)
    tl.store(flat + place, value, valid)


@triton.jit
def adam_behind(flat, first, second, network, q, valid, gradient, rates, decays, place, spread, kind, networks, schedule, step):
    """AdamW on the parameters number q of networks, counted behind the first weights."""
    row = tl.load(kind + q, valid, 0) * networks + network
    rate, decay = tl.load(rates + row, valid, 0.0), tl.load(decays + row, valid, 0.0)
    own = tl.load(place + q, valid, 0) + network * tl.load(spread + q, valid, 0)
    adam(flat, first, second, own, valid, gradient, rate, decay, schedule, step)
