"""Triton kernels of learned activations: inner networks, one per neuron, that map a number to a number.

With x = e(u) and y = e(z) for the ends e(t) = scale act(t) + skip t, each end with a scale and skip of its own:

    h1 = act(w1 x + b1),   hl = act(Wl h(l-1) + bl) + h(l-1) for l = 2..L,   z = v.hL + c

u, y and their gradients are (N, batch), for N neurons. Parameters have a row per neuron: w1, b1, v (N, H), c and the ends'
scale and skip (N,), W (N, L-1, H, H) as [to][from], b (N, L-1, H). All is contiguous float32. A program has BLOCK rows of one
neuron: program (i, j) has neuron i and block j.

Backward kernels compute everything again from u. They write the parameters' gradients, summed over the program's rows, to row
j of `partials` (blocks, floats of all parameters), where the gradients follow each other in the order w1, b1, v, c, then W, b
for L > 1, then scale and skip of the mixed ends. To sum over the blocks is left to the caller: then no result depends on the
order in which programs run.

An end is `linear` (e(t) = t), `act` (e(t) = act(t)) or `mixed`; its scale and skip are None where it is not mixed.

- `shallow_*`, L = 1: loops over h, with the numbers of a block in registers.
- `deep_*`, L > 1: h is (BLOCK, HP), HP the width rounded up to 16 or 32, and layers are matrix products.

Importing this needs triton. Its interpreter (TRITON_INTERPRET=1) runs all of it on the CPU.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from mncompress.nn.act_kernels import act


@triton.jit
def _load_end(scale, skip, neuron, END: tl.constexpr):
    """Scale and skip of an end."""
    if END == "mixed":
        return tl.load(scale + neuron), tl.load(skip + neuron)
    else:
        return 1.0, 0.0


@triton.jit
def _end(t, scale, skip, ACT: tl.constexpr, END: tl.constexpr):
    """e(t), its derivative, and act(t), which is the derivative by the scale."""
    value, slope = act(t, ACT)
    if END == "linear":
        return t, tl.full(t.shape, 1.0, tl.float32), value
    elif END == "act":
        return value, slope, value
    else:
        return scale * value + skip * t, scale * slope + skip, value


@triton.jit
def _block(batch, BLOCK: tl.constexpr):
    """A program's neuron, and where its rows are: offsets into u (BLOCK,) with mask."""
    neuron = tl.program_id(0)
    row = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    return neuron, neuron.to(tl.int64) * batch + row, row < batch


@triton.jit
def _store_end(ends, neurons, y_grad, t, value, END: tl.constexpr):
    """Gradients of scale and skip, from the end's input t and act(t); returns where the next ones go."""
    if END == "mixed":
        tl.store(ends, tl.sum(y_grad * value, 0))
        tl.store(ends + neurons, tl.sum(y_grad * t, 0))
        ends += 2 * neurons
    return ends


@triton.jit
def _shallow_output(x, first_weight, first_bias, out_weight, out_bias, neuron, H: tl.constexpr, ACT: tl.constexpr):
    """The inner network's z from x."""
    z = tl.zeros(x.shape, tl.float32) + tl.load(out_bias + neuron)
    for h in tl.static_range(H):
        i = neuron * H + h
        value, _ = act(x * tl.load(first_weight + i) + tl.load(first_bias + i), ACT)
        z += value * tl.load(out_weight + i)
    return z


@triton.jit
def shallow_forward(u, first_weight, first_bias, out_weight, out_bias, in_scale, in_skip, out_scale, out_skip, y, batch,
                    H: tl.constexpr, ACT: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, BLOCK: tl.constexpr):
    """Outputs y from u, one inner layer."""
    neuron, offsets, inside = _block(batch, BLOCK)
    scale, skip = _load_end(in_scale, in_skip, neuron, IN)
    x, _, _ = _end(tl.load(u + offsets, inside, 0.0), scale, skip, ACT, IN)
    z = _shallow_output(x, first_weight, first_bias, out_weight, out_bias, neuron, H, ACT)
    scale, skip = _load_end(out_scale, out_skip, neuron, OUT)
    result, _, _ = _end(z, scale, skip, ACT, OUT)
    tl.store(y + offsets, result, inside)


@triton.jit(do_not_specialize=["neurons", "floats"])
def shallow_backward(u, first_weight, first_bias, out_weight, out_bias, in_scale, in_skip, out_scale, out_skip,
                     y_grad, u_grad, partials, batch, neurons, floats,
                     H: tl.constexpr, ACT: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, BLOCK: tl.constexpr):
    """Gradients from u and the gradient by y, one inner layer."""
    neuron, offsets, inside = _block(batch, BLOCK)
    t = tl.load(u + offsets, inside, 0.0)
    dy = tl.load(y_grad + offsets, inside, 0.0)   # 0 outside, so that the sums over rows are right
    scale, skip = _load_end(in_scale, in_skip, neuron, IN)
    x, in_slope, in_value = _end(t, scale, skip, ACT, IN)
    z = _shallow_output(x, first_weight, first_bias, out_weight, out_bias, neuron, H, ACT)
    scale, skip = _load_end(out_scale, out_skip, neuron, OUT)
    _, out_slope, out_value = _end(z, scale, skip, ACT, OUT)
    dz = dy * out_slope

    partials += tl.program_id(1).to(tl.int64) * floats
    tl.store(partials + neurons * (3 * H) + neuron, tl.sum(dz, 0))
    dx = tl.zeros(t.shape, tl.float32)
    for h in tl.static_range(H):
        i = neuron * H + h
        weight = tl.load(first_weight + i)
        value, slope = act(x * weight + tl.load(first_bias + i), ACT)
        g = dz * tl.load(out_weight + i) * slope
        dx += g * weight
        tl.store(partials + i, tl.sum(g * x, 0))
        tl.store(partials + neurons * H + i, tl.sum(g, 0))
        tl.store(partials + neurons * (2 * H) + i, tl.sum(dz * value, 0))
    tl.store(u_grad + offsets, dx * in_slope, inside)
    ends = _store_end(partials + neurons * (3 * H + 1) + neuron, neurons, dx, t, in_value, IN)
    _store_end(ends, neurons, dy, z, out_value, OUT)


@triton.jit
def _product(a, b):
    """The matrix product with float32 arithmetic, not tensor cores' ten bits."""
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def _load_vector(vectors, row, H: tl.constexpr, HP: tl.constexpr):
    """A row of (rows, H) as (1, HP), padded with zeros."""
    index = tl.arange(0, HP)
    return tl.load(vectors + row * H + index, index < H, 0.0)[None, :]


@triton.jit
def _load_matrix(weights, layer, H: tl.constexpr, HP: tl.constexpr):
    """W of a layer as [to][from], (HP, HP), padded with zeros; layers are counted through all neurons."""
    index = tl.arange(0, HP)
    valid = (index < H)[:, None] & (index < H)[None, :]
    return tl.load(weights + layer * (H * H) + index[:, None] * H + index[None, :], valid, 0.0)


@triton.jit
def _hidden(x, first_weight, first_bias, weights, biases, neuron, LAYERS: tl.constexpr, STACK: tl.constexpr,
            H: tl.constexpr, HP: tl.constexpr, ACT: tl.constexpr):
    """The hidden layer after the first one and LAYERS further ones, (BLOCK, HP); padded columns hold anything finite."""
    h, _ = act(x[:, None] * _load_vector(first_weight, neuron, H, HP) + _load_vector(first_bias, neuron, H, HP), ACT)
    for k in tl.static_range(LAYERS):
        layer = neuron * STACK + k
        z = _product(h, tl.trans(_load_matrix(weights, layer, H, HP))) + _load_vector(biases, layer, H, HP)
        value, _ = act(z, ACT)
        h += value
    return h


@triton.jit
def deep_forward(u, first_weight, first_bias, out_weight, out_bias, weights, biases, in_scale, in_skip, out_scale, out_skip,
                 y, batch, STACK: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, ACT: tl.constexpr,
                 IN: tl.constexpr, OUT: tl.constexpr, BLOCK: tl.constexpr):
    """Outputs y from u, with STACK = L - 1 further layers."""
    neuron, offsets, inside = _block(batch, BLOCK)
    scale, skip = _load_end(in_scale, in_skip, neuron, IN)
    x, _, _ = _end(tl.load(u + offsets, inside, 0.0), scale, skip, ACT, IN)
    h = _hidden(x, first_weight, first_bias, weights, biases, neuron, STACK, STACK, H, HP, ACT)
    z = tl.sum(h * _load_vector(out_weight, neuron, H, HP), 1) + tl.load(out_bias + neuron)
    scale, skip = _load_end(out_scale, out_skip, neuron, OUT)
    result, _, _ = _end(z, scale, skip, ACT, OUT)
    tl.store(y + offsets, result, inside)


@triton.jit(do_not_specialize=["neurons", "floats"])
def deep_backward(u, first_weight, first_bias, out_weight, out_bias, weights, biases, in_scale, in_skip, out_scale, out_skip,
                  y_grad, u_grad, partials, batch, neurons, floats,
                  STACK: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, ACT: tl.constexpr,
                  IN: tl.constexpr, OUT: tl.constexpr, BLOCK: tl.constexpr):
    """Gradients from u and the gradient by y, with STACK = L - 1 further layers."""
    neuron, offsets, inside = _block(batch, BLOCK)
    t = tl.load(u + offsets, inside, 0.0)
    dy = tl.load(y_grad + offsets, inside, 0.0)   # 0 outside, so that the sums over rows are right
    scale, skip = _load_end(in_scale, in_skip, neuron, IN)
    x, in_slope, in_value = _end(t, scale, skip, ACT, IN)
    h = _hidden(x, first_weight, first_bias, weights, biases, neuron, STACK, STACK, H, HP, ACT)
    v = _load_vector(out_weight, neuron, H, HP)
    z = tl.sum(h * v, 1) + tl.load(out_bias + neuron)
    scale, skip = _load_end(out_scale, out_skip, neuron, OUT)
    _, out_slope, out_value = _end(z, scale, skip, ACT, OUT)
    dz = dy * out_slope

    index = tl.arange(0, HP)
    valid = index < H
    partials += tl.program_id(1).to(tl.int64) * floats
    own = partials + neuron * H + index
    matrices = partials + neurons * (3 * H + 1)
    vectors = matrices + neurons * (STACK * H * H)
    tl.store(own + neurons * (2 * H), tl.sum(dz[:, None] * h, 0), valid)
    tl.store(partials + neurons * (3 * H) + neuron, tl.sum(dz, 0))
    dh = dz[:, None] * v
    for back in tl.static_range(STACK):
        layer = neuron * STACK + STACK - 1 - back
        # Computed anew for each layer: to keep all of them takes more registers than there are.
        h = _hidden(x, first_weight, first_bias, weights, biases, neuron, STACK - 1 - back, STACK, H, HP, ACT)
        weight = _load_matrix(weights, layer, H, HP)
        _, slope = act(_product(h, tl.trans(weight)) + _load_vector(biases, layer, H, HP), ACT)
        g = dh * slope
        matrix = matrices + layer * (H * H) + index[:, None] * H + index[None, :]
        tl.store(matrix, _product(tl.trans(g), h), valid[:, None] & valid[None, :])
        tl.store(vectors + layer * H + index, tl.sum(g, 0), valid)
        dh += _product(g, weight)
    w = _load_vector(first_weight, neuron, H, HP)
    _, slope = act(x[:, None] * w + _load_vector(first_bias, neuron, H, HP), ACT)
    g = dh * slope
    tl.store(own, tl.sum(g * x[:, None], 0), valid)
    tl.store(own + neurons * H, tl.sum(g, 0), valid)
    dx = tl.sum(g * w, 1)
    tl.store(u_grad + offsets, dx * in_slope, inside)
    ends = _store_end(vectors + neurons * (STACK * H) + neuron, neurons, dx, t, in_value, IN)
    _store_end(ends, neurons, dy, z, out_value, OUT)
