"""Triton kernels of a whole optimizer step of M networks on one batch: three launches, whatever the networks.

`project` multiplies the batch's features with the first layer's weights; `descend` does everything from the first
pre-activations to the loss and back to their gradient; `update` has the first layer's weight gradient and AdamW. For many
networks, or wide ones, a library's matrix products take the place of `project` and of the product in `update`. Nothing depends on
the order in which programs run, so the same step always gives the same bits. How parameters and features lie says `_kernel_parts`.

Buffers between the kernels, contiguous float32:

- `u` (splits, M n, batch): the first pre-activations without bias, in as many summands as the features have splits.
- `u_grad` (M n, batch): the loss by them.
- `partials` (M, blocks, floats): gradients of all parameters but the first weights, one for each block of the batch's rows,
  in the order of the vector; `losses` (M, blocks): sums over the rows.

The step of the epoch is `counter` + `ahead`. Its rows are `order[g, step * batch:]`, g being a network or, where `stride` is 0 and
there is one group, all of them.
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


@triton.jit(do_not_specialize=["stride", "ahead", "size", "groups", "columns", "split"])
def project(x, pitch, shift, factor, order, stride, counter, ahead, weights, u, size, batch, groups, columns, features, split,
            C: tl.constexpr, R: tl.constexpr, K: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """u[s, c, b] = sum of weights[c, k] x[row of b, k] over the features k of split s.

    A program has C of a group's `columns` neurons, a split of `split` features, R rows of the batch.
    """
    tiles = tl.cdiv(columns, C)
    group = tl.program_id(0) // tiles
    c = tl.program_id(0) % tiles * C + tl.arange(0, C)
    b = tl.program_id(2) * R + tl.arange(0, R)
    row = find_rows(order, stride, group, tl.load(counter) + ahead, b, size, batch)
    own = (group * columns + c).to(tl.int64)
    total, sums = no_product(C, R, PARTS), tl.zeros((C, K), tl.float32)
    for start in range(0, split, K):
        k = tl.program_id(1) * split + start + tl.arange(0, K)
        valid = (c < columns)[:, None] & (k < features)[None, :]
        w = round_factor(tl.load(weights + own[:, None] * features + k[None, :], valid, 0.0), PARTS)
        rows = tl.load(x + row[None, :] * pitch + k[:, None], (k < features)[:, None] & (b < size)[None, :], 0)
        total = add_product(total, w, rows, PARTS, PRECISION)
        sums += w
    summand = tl.program_id(1) * groups * columns + own
    tl.store(u + summand[:, None] * batch + b[None, :], finish_product(total, tl.sum(sums, 1), shift, factor, PARTS),
             (c < columns)[:, None] & (b < size)[None, :])


@triton.jit(do_not_specialize=["stride", "ahead", "size", "networks", "splits", "floats"])
def descend(y, order, stride, counter, ahead, flat, u, u_grad, partials, losses, size, batch, networks, splits, floats,
            LAYER: tl.constexpr, R: tl.constexpr, CLASSIFY: tl.constexpr, PRECISION: tl.constexpr):
    """From the first pre-activations to the loss and all gradients but those of the first weights.

    Program (m, j) has block j of R rows of network m's batch.
    """
    network = tl.program_id(0)
    b = tl.program_id(1) * R + tl.arange(0, R)
    inside = b < size
    row = find_rows(order, stride, network, tl.load(counter) + ahead, b, size, batch)
    n = tl.arange(0, LAYER.padded)
    valid = (n < LAYER.neurons)[:, None] & inside[None, :]
    own = ((network * LAYER.neurons + n).to(tl.int64) * batch)[:, None] + b[None, :]
    bias = tl.load(flat + networks * LAYER.bias + network * LAYER.neurons + n, n < LAYER.neurons, 0.0)
    z = tl.load(u + own, valid, 0.0) + bias[:, None]
    for _ in range(1, splits):
        u += networks * LAYER.neurons * batch
        z += tl.load(u + own, valid, 0.0)
    block = network * tl.num_programs(1) + tl.program_id(1)
    mine = partials + block.to(tl.int64) * floats - LAYER.bias
    loss, by_u, _ = backpropagate(z, z, flat, mine, networks, network, y, row, inside, size, LAYER, CLASSIFY, PRECISION)
    tl.store(mine + LAYER.bias + n, tl.sum(by_u, 1), n < LAYER.neurons)
    tl.store(u_grad + own, by_u, valid)
    tl.store(losses + block, loss)


@triton.jit
def _update_first(program, x, pitch, shift, factor, order, stride, step, flat, first, second, u_grad, gradients, schedule, rates,
                  decays, size, batch, networks, groups, columns, features, GIVEN: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
                  K: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """C neurons by K features of the first layer's weights."""
    depth = tl.cdiv(features, K)
    tiles = tl.cdiv(columns, C) * depth
    group, tile = program // tiles, program % tiles
    c = tile // depth * C + tl.arange(0, C)
    k = tile % depth * K + tl.arange(0, K)
    own = (group * columns + c).to(tl.int64)
    valid = (c < columns)[:, None] & (k < features)[None, :]
    if GIVEN:
        gradient = tl.load(gradients + own[:, None] * features + k[None, :], valid, 0.0)
    else:
        total, sums = no_product(C, K, PARTS), tl.zeros((C, R), tl.float32)
        for start in range(0, size, R):
            b = start + tl.arange(0, R)
            row = find_rows(order, stride, group, step, b, size, batch)
            inside = (c < columns)[:, None] & (b < size)[None, :]
            by_u = round_factor(tl.load(u_grad + own[:, None] * batch + b[None, :], inside, 0.0), PARTS)
            rows = tl.load(x + row[:, None] * pitch + k[None, :], (b < size)[:, None] & (k < features)[None, :], 0)
            total = add_product(total, by_u, rows, PARTS, PRECISION)
            sums += by_u
        gradient = finish_product(total, tl.sum(sums, 1), shift, factor, PARTS)
    network = own // (groups * columns // networks)
    rate, decay = tl.load(rates + network, c < columns, 0.0), tl.load(decays + network, c < columns, 0.0)
    adam(flat, first, second, own[:, None] * features + k[None, :], valid, gradient, rate[:, None], decay[:, None], schedule, step)


@triton.jit
def _update_rest(program, step, flat, first, second, partials, losses, total, schedule, rates, decays, place, spread, kind,
                 networks, blocks, floats, FLOATS: tl.constexpr):
    """FLOATS of the parameters behind the first weights, network after network."""
    i = program * FLOATS + tl.arange(0, FLOATS)
    network, q = i // floats, i % floats
    valid = network < networks
    gradient = tl.zeros((FLOATS,), tl.float32)
    loss = tl.zeros((FLOATS,), tl.float32)
    for j in range(blocks):
        block = (network * blocks + j).to(tl.int64)
        gradient += tl.load(partials + block * floats + q, valid, 0.0)
        loss += tl.load(losses + block, valid & (q == 0), 0.0)
    adam_behind(flat, first, second, network, q, valid, gradient, rates, decays, place, spread, kind, networks, schedule, step)
    tl.store(total + network, tl.load(total + network, valid & (q == 0), 0.0) + loss, valid & (q == 0))


@triton.jit(do_not_specialize=["stride", "ahead", "size", "networks", "groups", "columns", "blocks", "floats"])
def update(x, pitch, shift, factor, order, stride, counter, ahead, flat, first, second, u_grad, gradients, partials, losses, total,
           schedule, rates, decays, place, spread, kind, size, batch, networks, groups, columns, features, blocks, floats,
           GIVEN: tl.constexpr, C: tl.constexpr, R: tl.constexpr, K: tl.constexpr, FLOATS: tl.constexpr, PARTS: tl.constexpr,
           PRECISION: tl.constexpr):
    """The first layer's weight gradient, AdamW on everything, and the sum of the losses.

    Where it is `GIVEN`, that gradient lies in `gradients` (M, n, d), and x, order and u_grad are not read.
    The first programs have C neurons by K features of the first weights each, the others FLOATS of the other parameters: number q
    of network m is at place[q] + m spread[q] of the vector, and its rate is rates[kind[q], m].
    """
    step = tl.load(counter) + ahead
    tiles = groups * tl.cdiv(columns, C) * tl.cdiv(features, K)
    if tl.program_id(0) < tiles:
        _update_first(tl.program_id(0), x, pitch, shift, factor, order, stride, step, flat, first, second, u_grad, gradients,
                      schedule, rates, decays, size, batch, networks, groups, columns, features, GIVEN, C, R, K, PARTS, PRECISION)
    else:
        _update_rest(tl.program_id(0) - tiles, step, flat, first, second, partials, losses, total, schedule, rates, decays, place,
                     spread, kind, networks, blocks, floats, FLOATS)
