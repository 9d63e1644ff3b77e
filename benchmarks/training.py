"""Microseconds per optimizer step of a population, against a Python module per neuron and against JAX.

    python benchmarks/training.py [--neurons 7,64,256] [--replicates 1,32,128] [--device auto] [--seconds 2] [--floats]
        [--out FILE.json]

784-N-10, meta relu, inner width 5, batch 128, Adam, on random data of MNIST's size; all of it lies on the device. Contestants:

- `mncompress`: `mncompress.training`, every step with its data gathering, on pixels of 8 bits as MNIST has them; with `--floats` on
  float32, which on a GPU takes other kernels.
- `modules`: what one writes from the paper, an `nn.Module` per neuron, eager, one network only.
- `jax`: vmap over networks, value_and_grad, Adam by tree map, jit of a lax.scan over the steps with donated state; left out,
  and said so, where JAX is not installed. Its features are standardized float32 from the start.

On a GPU products of matrices have two precisions: float32 (`highest` in torch and in JAX; mncompress's default) and TensorFloat-32
(`high` in torch, JAX's default). Both contestants are measured with both, and ratios are of equals.

One run: the contestants take turns, each turn lasts about `--seconds`, three turns; the table has medians of the turns, the
ratio jax / mncompress (above 1 mncompress is faster), how many times a stack is faster than its networks one after another, and
the share of the memory-bandwidth bound: bytes that a step must move (weights and Adam moments in and out, the batch once)
over a bandwidth measured here by copying; on a GPU a stack that stays in the cache can exceed it.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import mncompress as mn
from mncompress.data import Dataset, Split, standardization_of
from mncompress.training._trainer import Trainer

ROWS, FEATURES, CLASSES, BATCH, WIDTH, RATE = 54_400, 784, 10, 128, 5, 1e-3
TURNS, SCAN = 3, 64
JAX_NAMES = {"highest": "highest", "high": "default"}
Steps = Callable[[int], None]
"""Runs so many steps and waits for them."""


def make_dataset(*, floats: bool) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, FEATURES)).astype(np.float32) if floats else rng.integers(0, 256, (ROWS, FEATURES), np.uint8)
    split = Split(x, rng.integers(0, CLASSES, ROWS))
    few = Split(split.x[:256], split.y[:256])
    return Dataset("random", "classification", split, few, few, few, CLASSES, "sha256:" + "0" * 64)


def make_mncompress(dataset: Dataset, neurons: int, replicates: int, device: torch.device, precision: str) -> Steps:
    config = mn.TrainConfig(activation="meta", inner="relu", inner_width=WIDTH, hidden=(neurons,), batch_size=BATCH, lr=RATE,
                            replicates=replicates, device=device.type)
    torch.set_float32_matmul_precision(precision)
    stepper = Trainer((config,), dataset).stepper

    def run(steps: int) -> None:
        torch.set_float32_matmul_precision(precision)
        done = 0
        while done < steps:
            stepper.start_epoch(torch.randperm(ROWS), 0)
            for step in stepper.run_epoch():
                if done + step >= steps:
                    break
            done += step
        synchronize(device)
    return run


def standardize(dataset: Dataset) -> np.ndarray:
    features, _ = standardization_of(dataset.train)
    return ((dataset.train.x - features.shift) / features.scale).astype(np.float32)


class ModulePerNeuron(nn.Module):
    """784-N-10 with a small module for every meta-neuron."""

    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(FEATURES, neurons), nn.Linear(neurons, CLASSES)
        self.meta = nn.ModuleList(nn.Sequential(nn.ReLU(), nn.Linear(1, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1), nn.ReLU())
                                  for _ in range(neurons))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features (batch, 784) to logits."""
        u = self.first(x)
        return self.last(torch.cat([module(u[:, k:k + 1]) for k, module in enumerate(self.meta)], 1))


def make_modules(dataset: Dataset, neurons: int, device: torch.device) -> Steps:
    network = ModulePerNeuron(neurons).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    x, y = torch.as_tensor(standardize(dataset)).to(device), torch.as_tensor(dataset.train.y).to(device)

    def run(steps: int) -> None:
        for _ in range(steps):
            rows = torch.randint(ROWS, (BATCH,), device=device)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
        synchronize(device)
    return run


def make_jax(dataset: Dataset, neurons: int, replicates: int, precision: str) -> Steps:
    import jax
    import jax.numpy as jnp

    def initial(key: jax.Array) -> dict[str, jax.Array]:
        shapes = {"w": (neurons, FEATURES), "b": (neurons,), "w1": (neurons, WIDTH), "b1": (neurons, WIDTH), "v": (neurons, WIDTH),
                  "c": (neurons,), "out": (CLASSES, neurons), "bias": (CLASSES,)}
        keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
        return {name: 0.05 * jax.random.normal(keys[name], shape) for name, shape in shapes.items()}

    def loss(p: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        a = jax.nn.relu(x @ p["w"].T + p["b"])
        h = jax.nn.relu(a[:, :, None] * p["w1"] + p["b1"])
        z = jax.nn.relu((h * p["v"]).sum(-1) + p["c"])
        logits = z @ p["out"].T + p["bias"]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()

    gradients = jax.vmap(jax.value_and_grad(loss), (0, None, None))

    def train(state: tuple, rows: jax.Array, x: jax.Array, y: jax.Array) -> tuple:
        def step(state: tuple, index: jax.Array) -> tuple:
            p, m, v, t = state
            value, g = gradients(p, x[index], y[index])
            t = t + 1
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
            v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
            scale = RATE * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            p = jax.tree.map(lambda p, m, v: p - scale * m / (jnp.sqrt(v) + 1e-8), p, m, v)
            return (p, m, v, t), value.sum()
        return jax.lax.scan(step, state, rows)

    compiled = jax.jit(train, donate_argnums=0)
    parameters = jax.vmap(initial)(jax.random.split(jax.random.key(0), replicates))
    state = parameters, jax.tree.map(jnp.zeros_like, parameters), jax.tree.map(jnp.zeros_like, parameters), jnp.zeros(())
    x, y = jnp.asarray(standardize(dataset)), jnp.asarray(dataset.train.y)
    rng = np.random.default_rng(1)

    def run(steps: int) -> None:
        nonlocal state
        with jax.default_matmul_precision(precision):
            for _ in range(steps // SCAN):
                state, losses = compiled(state, jnp.asarray(rng.integers(0, ROWS, (SCAN, BATCH))), x, y)
            jax.block_until_ready(losses)
    return run


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(contestants: dict[str, Steps], seconds: float) -> dict[str, float]:
    """Median microseconds per step over the turns, of so many multiples of `SCAN` steps as fill the time."""
    steps = {}
    for name, run in contestants.items():
        run(SCAN)
        started = time.perf_counter()
        run(SCAN)
        steps[name] = max(1, int(seconds / (time.perf_counter() - started))) * SCAN
        run(steps[name])
    turns: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(TURNS):
        for name, run in contestants.items():
            started = time.perf_counter()
            run(steps[name])
            turns[name].append((time.perf_counter() - started) / steps[name] * 1e6)
    return {name: statistics.median(values) for name, values in turns.items()}


def bandwidth(device: torch.device) -> float:
    """Bytes per second of a large copy, reads and writes counted."""
    source = torch.zeros(2**26, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(8):
        synchronize(device)
        started = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        times.append(time.perf_counter() - started)
    return 2 * source.numel() * 4 / min(times)


def bytes_per_step(neurons: int, replicates: int) -> int:
    """What has to move: weights and two moments in and out, the batch in."""
    parameters = neurons * (FEATURES + 1) + neurons * (3 * WIDTH + 1) + CLASSES * (neurons + 1)
    return 4 * (6 * parameters * replicates + BATCH * FEATURES)


def show(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--neurons", default="7,64,256")
    parser.add_argument("--replicates", default="1,32,128")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--floats", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = mn.training.choose_device(options.device)
    try:
        import jax
        version = f"jax {jax.__version__} on {jax.devices()[0].device_kind}"
    except ImportError:
        jax, version = None, "jax not installed, not measured"
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.processor()}, {torch.get_num_threads()} thread(s)"
    print(f"torch {torch.__version__} on {device.type} ({name}); {version}\n")
    dataset, speed, rows, alone = make_dataset(floats=options.floats), bandwidth(device), [], {}
    precisions = ("highest", "high") if device.type == "cuda" else ("highest",)
    print("| N | M | precision | mncompress, us | modules, us | jax, us | jax / mncompress | M single / stack | "
          "share of bandwidth bound |", "|---" * 9 + "|", sep="\n")
    for neurons in map(int, options.neurons.split(",")):
        for replicates in map(int, options.replicates.split(",")):
            contestants = {}
            for precision in precisions:
                contestants[f"mncompress {precision}"] = make_mncompress(dataset, neurons, replicates, device, precision)
                if jax is not None:
                    contestants[f"jax {precision}"] = make_jax(dataset, neurons, replicates, JAX_NAMES[precision])
            if replicates == 1:
                contestants["modules"] = make_modules(dataset, neurons, device)
            times = measure(contestants, options.seconds)
            bound = bytes_per_step(neurons, replicates) / speed * 1e6
            rows.append({"neurons": neurons, "replicates": replicates, **times, "bound": bound})
            for precision in precisions:
                own, peer = times[f"mncompress {precision}"], times.get(f"jax {precision}")
                if replicates == 1:
                    alone[neurons, precision] = own
                single = alone.get((neurons, precision))
                numbers = (show(times.get("modules")), show(peer), show(peer and peer / own, 2),
                           show(single and replicates * single / own), f"{bound / own:.1%}")
                print(f"| {neurons} | {replicates} | {precision} | {own:.1f} | {' | '.join(numbers)} |", flush=True)
    if options.out is not None:
        mn.files.write_json(options.out, {"device": name, "torch": torch.__version__, "jax": version, "rows": rows})


if __name__ == "__main__":
    main()
