"""A Triton kernel that trains M networks for many steps: a program for each, which needs nobody else and never leaves the GPU.

A batch's rows are a single block, so values stay in registers from the first product to its gradient; weights and moments stay in
the caches. `_kernel_parts` says how parameters and features lie.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from mncompress.training._kernel_parts import (
    adam,
    adam_behind,
    add_product,
    backpropagate,
    find_rows,
    finish_product,
    no_product,
    round_factor,
)


@triton.jit(do_not_specialize=["stride", "start", "steps", "rows", "networks", "floats"])
def train(x, pitch, shift, factor, y, order, stride, flat, first, second, gradients, total, schedule, rates, decays, place, spread,
          kind, start, steps, rows, batch, networks, features, floats, LAYER: tl.constexpr, R: tl.constexpr, K: tl.constexpr,
          FLOATS: tl.constexpr, CLASSIFY: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """Steps `start` to `start` + `steps` of an epoch of `rows` rows, K features and R >= batch rows at a time.

    `gradients` (M, floats) has what `partials` has elsewhere, and FLOATS of them are dealt with at a time;
    `_step_kernels` says what the others are.
    """
    network = tl.program_id(0)
    P: tl.constexpr = LAYER.padded
    n, b = tl.arange(0, P), tl.arange(0, R)
    is_neuron = n < LAYER.neurons
    weights = (network * LAYER.neurons + n)[:, None] * features
    rate, decay = tl.load(rates + network), tl.load(decays + network)
    own = gradients + network.to(tl.int64) * floats
    by_others = own - LAYER.bias
    losses = tl.load(total + network)
    for step in range(start, start + steps):
        size = tl.minimum(batch, rows - step * batch)
        inside = b < size
        row = find_rows(order, stride, network, step, b, size, batch)
        lines = x + row * pitch
        product, sums = no_product(P, R, PARTS), tl.zeros((P, K), tl.float32)
        for at in range(0, features, K):
            k = at + tl.arange(0, K)
            w = round_factor(tl.load(flat + weights + k[None, :], is_neuron[:, None] & (k < features)[None, :], 0.0), PARTS)
            values = tl.load(lines[None, :] + k[:, None], (k < features)[:, None] & inside[None, :], 0)
            product = add_product(product, w, values, PARTS, PRECISION)
            sums += w
        z = finish_product(product, tl.sum(sums, 1), shift, factor, PARTS)
        z += tl.load(flat + networks * LAYER.bias + network * LAYER.neurons + n, is_neuron, 0.0)[:, None]
        loss, by_u, _ = backpropagate(z, z, flat, by_others, networks, network, y, row, inside, size, LAYER, CLASSIFY, PRECISION)
        tl.store(by_others + LAYER.bias + n, tl.sum(by_u, 1), is_neuron)
        by_u = round_factor(by_u, PARTS)
        by_bias = tl.sum(by_u, 1)
        losses += loss
        tl.debug_barrier()      # all have read the weights, and see the gradients
        for at in tl.range(0, features, K, num_stages=1):
            k = at + tl.arange(0, K)
            values = tl.load(lines[:, None] + k[None, :], inside[:, None] & (k < features)[None, :], 0)
            by_weights = add_product(no_product(P, K, PARTS), by_u, values, PARTS, PRECISION)
            by_weights = finish_product(by_weights, by_bias, shift, factor, PARTS)
            valid = is_neuron[:, None] & (k < features)[None, :]
            adam(flat, first, second, weights + k[None, :], valid, by_weights, rate, decay, schedule, step)
        for at in range(0, floats, FLOATS):
            q = at + tl.arange(0, FLOATS)
            gradient = tl.load(own + q, q < floats, 0.0)
            adam_behind(flat, first, second, network, q, q < floats, gradient, rates, decays, place, spread, kind, networks,
                         schedule, step)
        tl.debug_barrier()      # all see the weights
    tl.store(total + network, losses)
