"""One stack in training: its networks, optimizer and data on the device, and what is known of each network so far."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mncompress.checkpoint import Run, format_metrics, make_network, select_replicate
from mncompress.data import Dataset, Split, standardization_of
from mncompress.training._device import choose_device
from mncompress.training._memory import check_memory
from mncompress.training._metrics import Followed, follow, is_finite, loss_per_replicate, metric_per_replicate
from mncompress.training._optimizer import Adam
from mncompress.training._population import Population, make_population
from mncompress.training._steppers import make_stepper
from mncompress.training._steps import DeviceSplit
from mncompress.types import Device, EpochMetrics, Task, TrainConfig

EVALUATION_ROWS = 65_536
"""Rows times replicates of one evaluation batch."""


class Trainer:
    """Networks of one shape on one data set.

    Args:
        configs: what to train, alike but for `VARYING`; each stands for its `replicates` networks, in order.
        dataset: the data of all.
    """

    def __init__(self, configs: Sequence[TrainConfig], dataset: Dataset) -> None:
        self.config, self.dataset = configs[0], dataset
        self.device = choose_device(self.config.device)
        self.spec = self.config.make_spec(dataset.in_features, dataset.out_features, dataset.task)
        networks = sum(config.replicates for config in configs)
        check_memory(self.config, self.spec, networks, len(dataset.train), self.device)
        features, targets = standardization_of(dataset.train)
        inits = [(config.init, replicate) for config in configs for replicate in range(config.replicates)]
        self.numbers = [replicate for _, replicate in inits]
        """Of each network, among those of its configuration."""
        self.population, self.initial_errors = make_population(
            self.spec, inits, self.config.seed, features, targets, self.device, self.config.batch_norm)
        self.optimizer = Adam(self.population, configs)
        train_split = to_device(self.population, dataset.train)
        self.stepper = make_stepper(self.population, self.optimizer, train_split, configs, self.spec.task)
        self.validation_split = to_device(self.population, dataset.validation)
        self.rows: list[EpochMetrics] = []
        self.lines = ""
        """The rows as `metrics.csv` has them."""
        self.followed: list[Followed] = [(None, False)] * networks
        self.epoch = 0
        self.best_networks: dict[str, Tensor] = {}
        """Each network's parameters after its best epoch, if that is what is kept."""

    @property
    def replicates(self) -> int:
        """Networks in the stack."""
        return self.population.replicates

    def run_epoch(self) -> Iterator[tuple[int, int]]:
        """Train for one epoch, yielding (step, steps) after every step or few."""
        self.stepper.start_epoch(self._make_order(), self.epoch)
        for step in self.stepper.run_epoch():
            yield step, len(self.stepper.sizes)
        self.epoch += 1

    def losses(self, step: int) -> Tensor:
        """Each network's mean training loss over the first `step` steps of the epoch, (M,)."""
        return self.stepper.total / sum(self.stepper.sizes[:step])

    def _make_order(self) -> Tensor:
        rows, seed = len(self.dataset.train), self.config.seed
        if self.config.order == "shared":
            return torch.randperm(rows, generator=order_generator(seed, self.epoch))
        return torch.stack([torch.randperm(rows, generator=order_generator(seed, self.epoch, k)) for k in self.numbers])

    def validate(self) -> tuple[Tensor, Tensor]:
        """Loss and metric of each network on the validation split, each (M,); the loss of one with infinite weights is nan."""
        loss, metric = evaluate_population(self.population, self.validation_split, self.spec.task)
        finite = finite_networks(self.population.networks())
        return torch.where(finite.cpu(), loss, torch.nan), metric

    def note_rows(self, rows: Sequence[EpochMetrics]) -> None:
        """Note the results of an epoch, or of several, each network's in turn."""
        self.rows += rows
        self.lines += format_metrics(rows)
        self.followed = [follow(rows[k::self.replicates], self.config.patience, self.spec.task, so_far)
                         for k, so_far in enumerate(self.followed)]

    def add_rows(self, rows: Sequence[EpochMetrics]) -> None:
        """Note an epoch's results, and keep the parameters of the networks that it improved."""
        self.note_rows(rows)
        if not self.config.keeps_best_epoch:
            return
        networks = self.population.networks()
        if not self.best_networks:
            self.best_networks = networks
        improved = torch.tensor([row is not None and row.epoch == self.epoch for row, _ in self.followed], device=self.device)
        for name, value in networks.items():
            mask = improved.view(-1, *[1] * (value.ndim - 1))
            self.best_networks[name] = torch.where(mask, value, self.best_networks[name])

    def all_stopped(self) -> bool:
        """Whether every network has run out of patience."""
        return self.config.patience > 0 and all(stopped for _, stopped in self.followed)

    def results(self) -> list[EpochMetrics | None]:
        """The row of the epoch whose weights each network keeps; None for a network that diverged."""
        if self.config.keeps_best_epoch:
            return [row for row, _ in self.followed]
        return [row if is_finite(row) else None for row in self.rows[-self.replicates:]]

    def networks(self) -> dict[str, Tensor]:
        """The parameters that each network keeps."""
        return self.best_networks if self.config.keeps_best_epoch else self.population.networks()

    def state(self) -> dict[str, Tensor]:
        """Everything that an epoch changes, by name."""
        state = {f"parameters.{name}": value for name, value in self.population.parameters.items()}
        state |= {f"statistics.{name}": value for name, value in self.population.statistics.items()}
        state |= {f"best.{name}": value for name, value in self.best_networks.items()}
        return state | {f"optimizer.{name}": value for name, value in self.optimizer.state().items()}

    def load_state_(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned.

        Raises:
            KeyError, ValueError: a tensor is missing, or has another shape or type.
        """
        networks = self.population.networks() if self.config.keeps_best_epoch else {}
        expected = {f"parameters.{name}": value for name, value in self.population.parameters.items()}
        expected |= {f"statistics.{name}": value for name, value in self.population.statistics.items()}
        expected |= {f"best.{name}": value for name, value in networks.items()}
        expected |= {f"optimizer.{name}": value for name, value in self.optimizer.state().items()}
        for name, like in expected.items():
            _check(name, state[name], like.shape)
        with torch.no_grad():
            for name, like in expected.items():
                if not name.startswith("best."):
                    like.copy_(state[name])
        self.best_networks = {name: state[f"best.{name}"].to(self.device) for name in networks}
        if not finite_networks(self.networks()).any():
            raise ValueError("no network has finite weights")


def finite_networks(parameters: Mapping[str, Tensor]) -> Tensor:
    """Which networks have finite parameters, (M,), given all parameters (M, ...)."""
    return torch.stack([value.detach().isfinite().flatten(1).all(1) for value in parameters.values()]).all(0)


def _check(name: str, found: Tensor, shape: torch.Size) -> None:
    if found.shape != shape or found.dtype != torch.float32:
        raise ValueError(f"{name} is {found.dtype} {tuple(found.shape)}, expected torch.float32 {tuple(shape)}")


def to_device(population: Population, split: Split) -> DeviceSplit:
    """A split as a population on its device reads it."""
    template, device = population.template, population.flat.device
    x, y = (torch.as_tensor(part).to(device) for part in (split.x, split.y))
    return DeviceSplit(x, template.features, y if template.targets is None else template.targets(y))


@torch.no_grad()
def evaluate_population(population: Population, split: DeviceSplit, task: Task) -> tuple[Tensor, Tensor]:
    """Loss and metric of each network, each (M,), on the CPU."""
    parts = split.x.split(max(EVALUATION_ROWS // population.replicates, 256))
    outputs = torch.cat([population.forward(part.mT) for part in parts], -1)
    targets = population.template.targets
    metric = metric_per_replicate(outputs, split.y, task, None if targets is None else targets.scale)
    return loss_per_replicate(outputs, split.y, task).cpu(), metric.cpu()


def evaluate_run(run: Run, split: Split, device: Device = "auto") -> tuple[Tensor, Tensor]:
    """Loss and metric of a run's kept networks on raw rows.

    Args:
        run: M networks.
        split: features and labels or targets.
        device: where to compute.

    Returns:
        Mean cross-entropy and accuracy, or standardized mean squared error and RMSE in the target's units: each (M,).

    Raises:
        RuntimeProviderError: the device asked for is not there.
    """
    parameters = {name.removeprefix("body."): value for name, value in run.replicates.items() if name.startswith("body.")}
    template = make_network(run.record.network, select_replicate(run.replicates, 0))
    population = Population(template, parameters, choose_device(device))
    return evaluate_population(population, to_device(population, split), run.record.network.task)


def order_generator(seed: int, epoch: int, replicate: int = -1) -> torch.Generator:
    """The stream of an epoch's shuffling: one for all networks, or one for each."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch + 0x5EED + (replicate + 1) * 0x9E3779B97F4A7C15) % 2**63)
