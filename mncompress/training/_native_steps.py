"""Optimizer steps on a processor in the kernel library, many of them in one call; `native/steps.h` says how.

A `NativeStepper` computes what a `Stepper` does, up to rounding, for populations without batch normalization. Each thread has
networks of its own, and their results do not depend on how many threads there are.
"""

import ctypes
import functools
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mncompress.errors import DataError
from mncompress.native import load_library
from mncompress.nn import LearnedActivation
from mncompress.training._layout import inner_offsets, make_ends, make_rates, make_schedule, own_offsets, parameter_offsets
from mncompress.training._optimizer import Adam
from mncompress.training._population import Population
from mncompress.training._steps import DeviceSplit, batch_sizes
from mncompress.types import ACTS, Task, TrainConfig

CALL_SECONDS = 0.2
"""What a call should take at least, and at most twice: many steps, which is what groups of networks gain by, and still it can be
stopped."""
ENDS = ("linear", "fixed", "gated", "skip")


class _Layer(ctypes.Structure):
    """`mnc::TrainingLayer`."""

    _fields_ = [*((name, ctypes.c_int64) for name in (
        "inputs", "neurons", "residual", "weight", "bias", "activated", "act", "width", "depth", "shared", "first_weight",
        "first_bias", "out_weight", "out_bias", "weights", "biases", "in_end", "out_end", "in_parameter", "out_parameter")),
        ("share", ctypes.c_double)]


class _Training(ctypes.Structure):
    """`mnc::Training`."""

    _fields_ = [
        ("x", ctypes.c_void_p), ("is_pixels", ctypes.c_int64), ("shift", ctypes.c_float), ("factor", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("y", "order")),
        *((name, ctypes.c_int64) for name in ("order_stride", "rows", "batch", "classify", "networks")),
        *((name, ctypes.c_void_p) for name in ("flat", "first", "second", "total")),
        ("parameters", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("offsets", "rates", "decays", "schedule")),
        ("layers", ctypes.c_int64), ("layer", ctypes.POINTER(_Layer)), ("start", ctypes.c_int64), ("stop", ctypes.c_int64)]


class NativeStepper:
    """Trains a population on a split, step by step: see `Stepper`."""

    def __init__(self, population: Population, optimizer: Adam, split: DeviceSplit, configs: Sequence[TrainConfig],
                 task: Task) -> None:
        self.optimizer, self.config = optimizer, configs[0]
        self.steps = 1
        self.sizes = batch_sizes(len(split.y), self.config.batch_size)
        networks, rows = population.replicates, len(split.y)
        shared = self.config.order == "shared"
        self.order = torch.zeros(1 if shared else networks, rows, dtype=torch.long)
        self.total = torch.zeros(networks, dtype=torch.float32)
        self.schedule = torch.zeros(len(self.sizes), 3, dtype=torch.float32)
        offsets = [*parameter_offsets(population).values(), population.flat.numel() // networks]
        self.kept = (population.flat, optimizer.first, optimizer.second, *_check(split, population, task), torch.tensor(offsets),
                     *make_rates(population, configs))
        flat, first, second, x, y, places, rates, decays = (tensor.data_ptr() for tensor in self.kept)
        layers = make_layers(population)
        as_floats = (False, 0.0, 1.0) if split.pixels is None else (True, split.pixels.shift, split.pixels.factor)
        self.training = _Training(
            x, *as_floats, y, self.order.data_ptr(), 0 if shared else rows, rows, self.sizes[0], task == "classification", networks,
            flat, first, second, self.total.data_ptr(), len(offsets) - 1, places, rates, decays, self.schedule.data_ptr(),
            len(layers), layers)

    def start_epoch(self, order: Tensor, epoch: int) -> None:
        """See `Stepper`."""
        self.order.copy_(order)
        self.total.zero_()
        self.schedule.copy_(make_schedule(self.config, epoch, len(self.sizes)))
        self.optimizer.count_steps((epoch + 1) * len(self.sizes))

    def run_epoch(self) -> Iterator[int]:
        """See `Stepper`; yields once a call of the library."""
        done = 0
        while done < len(self.sizes):
            self.training.start, self.training.stop = done, min(done + self.steps, len(self.sizes))
            started = time.perf_counter()
            if _train()(ctypes.byref(self.training), torch.get_num_threads()):
                raise MemoryError("there is not enough memory for the values of a batch")
            seconds, whole, done = time.perf_counter() - started, done + self.steps == self.training.stop, self.training.stop
            if whole and seconds < CALL_SECONDS:
                self.steps *= 2
            elif seconds > 2 * CALL_SECONDS:
                self.steps = max(1, self.steps // 2)
            yield done


def can_train_natively(population: Population, config: TrainConfig) -> bool:
    """Whether a `NativeStepper` can train these networks."""
    return population.flat.device.type == "cpu" and not config.batch_norm and load_library() is not None


@functools.cache
def _train() -> Callable[..., int]:
    library = load_library()
    assert library is not None
    library.mncompress_train.argtypes, library.mncompress_train.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_int
    return library.mncompress_train


def _check(split: DeviceSplit, population: Population, task: Task) -> tuple[Tensor, Tensor]:
    """Features and labels or targets as the library reads them, which must not read or write elsewhere.

    Raises:
        DataError: they do not fit one another or the networks.
    """
    layers = population.template.layers
    features, outputs = layers[0].linear.in_features, layers[-1].linear.out_features
    x = split.x.to(torch.float32).contiguous() if split.pixels is None else split.pixels.values
    y = split.y.to(torch.int64 if task == "classification" else torch.float32).contiguous()
    expected = (len(x),) if task == "classification" else (len(x), outputs)
    if x.ndim != 2 or x.shape[1] != features or y.shape != expected:
        raise DataError(f"networks of {features} features and {outputs} outputs do not fit training data of shapes "
                        f"{tuple(x.shape)} and {tuple(y.shape)}; expected {(len(x), features)} and {expected}")
    if task == "classification" and len(y) and not 0 <= int(y.min()) <= int(y.max()) < outputs:
        raise DataError(f"labels must be from 0 to {outputs - 1}, got {int(y.min())} to {int(y.max())}")
    return x, y


def make_layers(population: Population) -> "ctypes.Array[_Layer]":
    """All layers, as the library reads them."""
    offsets, found = parameter_offsets(population), []
    assert list(offsets)[:2] == ["0.linear.weight", "0.linear.bias"]
    for k, layer in enumerate(population.template.layers):
        assert not (k == 0 and layer.residual)
        linear = (layer.linear.in_features, layer.linear.out_features, layer.residual, offsets[f"{k}.linear.weight"],
                  offsets[f"{k}.linear.bias"])
        if layer.activation is None:
            found.append(_Layer(*linear))
            continue
        assert isinstance(layer.activation, LearnedActivation)
        spec, own = layer.activation.spec, own_offsets(offsets, k)
        (in_end, out_end), deep = make_ends(layer, own), spec.depth > 1
        found.append(_Layer(
            *linear, True, ACTS.index(spec.act), max(spec.width, 1), max(spec.depth, 1),
            spec.shared, *inner_offsets(layer, own), own["weights.0"] if deep else -1, own["biases.0"] if deep else -1,
            ENDS.index(in_end.kind), ENDS.index(out_end.kind), in_end.offset, out_end.offset, in_end.share))
    return (_Layer * len(found))(*found)
