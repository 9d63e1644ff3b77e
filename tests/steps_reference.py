"""What tests of compiled optimizer steps share: networks, and their training in float64, by autograd and Adam's formulas."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mncompress.checkpoint import make_network, select_replicate
from mncompress.data import Dataset, Split
from mncompress.training import _trainer
from mncompress.training._optimizer import rate_and_decay
from mncompress.training._steps import Stepper
from mncompress.training._trainer import Trainer, order_generator

CASES: list[dict[str, Any]] = [
    {"activation": "meta", "hidden": (7,), "replicates": 3, "epochs": 2},
    {"activation": "meta", "inner": "tanh", "ends": "gated", "hidden": (5, 5, 5), "residual": True, "order": "own",
     "schedule": "cosine"},
    {"activation": "meta,warp:tanh", "shared": True, "ends": "skip", "hidden": (17, 3), "weight_decay": 0.1, "activation_lr": 3.0},
    {"activation": "meta", "inner": "elu", "ends": "leaky", "hidden": (3,), "inner_width": 11},
    {"activation": "vaf", "inner": "softplus", "hidden": (), "output_activation": True, "schedule": "linear", "warmup": 1,
     "epochs": 2},
    {"activation": "agsig", "hidden": (2,)}, {"activation": "frelu", "hidden": (6,), "shared": True},
    {"activation": "warp:gelu", "hidden": (3,)}, {"activation": "fixed:relu", "hidden": (3,)},
]
"""Every family, and every part that an activation can have; test_fused.py has every act."""


def make_dataset(features: int, rows: int, outputs: int, task: str, seed: int = 0, *, pixels: bool = False) -> Dataset:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, outputs, rows) if task == "classification" else rng.standard_normal((rows, outputs)).astype(np.float32)
    x = rng.standard_normal((rows, features)).astype(np.float32)
    if pixels:
        x = (60 + 60 * x).clip(0, 255).astype(np.uint8)
    split = Split(x, y)
    return Dataset("random", task, split, split, split, split, outputs, "sha256:" + "0" * 64)


def train_reference(trainer: Trainer, k: int) -> tuple[dict[str, Tensor], list[float]]:
    """Network k of an untrained population trained in float64: its parameters, and the loss of each epoch."""
    config, dataset = trainer.config, trainer.dataset
    state = trainer.population.state(trainer.population.networks())
    network = make_network(trainer.spec, select_replicate(state, k)).double().requires_grad_()
    parameters = dict(network.body.named_parameters())
    moments = {name: [torch.zeros_like(value), torch.zeros_like(value)] for name, value in parameters.items()}
    x, y = torch.as_tensor(dataset.train.x).double(), torch.as_tensor(dataset.train.y)
    steps, done, losses = len(trainer.stepper.sizes), 0, []
    for epoch in range(config.epochs):
        generator = order_generator(config.seed, epoch, *([k] if config.order == "own" else []))
        losses.append(0.0)
        for rows in torch.randperm(len(x), generator=generator).split(config.batch_size):
            outputs = network.body(network.features(x[rows]))
            loss = (torch.nn.functional.cross_entropy(outputs, y[rows]) if network.targets is None else
                    (outputs - network.targets(y[rows].double())).square().mean())
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            losses[-1] += loss.item() * len(rows) / len(x)
            share = (done - config.warmup * steps) / ((config.epochs - config.warmup) * steps)
            factor = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}[config.schedule]
            if share < 0:
                factor = (done + 1) / (config.warmup * steps + 1)
            done += 1
            for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
                rate, decay = rate_and_decay(name, config)
                first, second = moments[name]
                first.mul_(0.9).add_(gradient, alpha=0.1)
                second.mul_(0.999).add_(gradient.square(), alpha=0.001)
                step = first / (1 - 0.9**done) / ((second / (1 - 0.999**done)).sqrt() + 1e-8)
                value.data.mul_(1 - rate * factor * decay).sub_(rate * factor * step)
    return {name: value.detach() for name, value in parameters.items()}, losses


def check_training(trainer: Trainer, *, any_shape: bool = False) -> None:
    """Train compiled, and every network in float64.

    A parameter whose gradient is all rounding, which some of `any_shape` have, is moved by Adam as far as any other, anywhere: of
    those every tensor as a whole must have gone the same way.
    """
    config, device = trainer.config, trainer.population.flat.device
    references = [train_reference(trainer, k) for k in range(config.replicates)]
    for epoch in range(config.epochs):
        assert [step for step, _ in trainer.run_epoch()][-1] == len(trainer.stepper.sizes)
        losses = trainer.losses(len(trainer.stepper.sizes))
        expected = torch.tensor([loss[epoch] for _, loss in references], dtype=torch.float64, device=device)
        torch.testing.assert_close(losses.double(), expected, rtol=1e-4, atol=1e-5)
    way = config.lr * config.activation_lr * config.epochs * len(trainer.stepper.sizes)
    for k, (reference, _) in enumerate(references):
        for name, value in reference.items():
            found = trainer.population.parameters[name][k].detach().double().cpu()
            if any_shape:
                assert (found - value).square().mean().sqrt() < 0.05 * way, name
                continue
            # a few float32 steps of 1e-3, each with a relative error of some 1e-6 where gradients are not tiny
            torch.testing.assert_close(found, value, rtol=1e-4, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


def take_plain_steps(patch: pytest.MonkeyPatch) -> None:
    """Let trainers take torch's operations."""
    patch.setattr(_trainer, "make_stepper", lambda population, optimizer, split, configs, task:
                  Stepper(population, optimizer, split, configs[0], task))


def check_divergence(whole: Trainer, broken: Trainer) -> None:
    """Break the first of two networks of one of two like trainers, and train both: the other network must not feel it."""
    with torch.no_grad():
        broken.population.parameters["0.linear.weight"][0] = torch.nan
    for trainer in (whole, broken):
        list(trainer.run_epoch())
    assert broken.losses(2).isnan().tolist() == [True, False]
    for name, value in whole.population.parameters.items():
        assert torch.equal(broken.population.parameters[name][1], value[1])
