"""`reproduce`: plan the cells of the experiments asked for, compute those that are missing, write what they say."""

import dataclasses
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mncompress.data import load_dataset
from mncompress.errors import CheckpointError, ConfigError, DataError, OutputError
from mncompress.experiments._cells import CellResult, load_cell, probe_speed, run_cell, save_cell
from mncompress.experiments._claims import Results, Verdict, judge
from mncompress.experiments._families import DATA_SETS, FamiliesPlan, plan_families, run_families
from mncompress.experiments._figures import EXPERIMENTS, Experiment
from mncompress.experiments._plots import draw_experiment
from mncompress.experiments._tables import activation_rows, cell_rows, epoch_rows, render_readme, render_verdicts, write_csv
from mncompress.experiments._workers import run_in_workers
from mncompress.figures import FORMATS, save_figure
from mncompress.files import check_output_folder, hold_folder, write_json, write_text
from mncompress.training import TrainProgress
from mncompress.types import TrainConfig, null_not_finite, to_json

ALL, FAMILIES = "all", "families"
PROBE_SECONDS = 1.5
SCHEMA = "mncompress.verdicts/1"

Tell = Callable[[str], None]
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Plan:
    """What there is to compute."""

    experiments: Mapping[str, int]
    """Cells of each experiment, some of them shared, and points of `families`."""
    cells: int
    """Different ones."""
    finished: int
    """Cells whose results are in the folder already."""
    networks: int
    """To be trained."""
    epochs: int
    """Of each network; `families` trains for more on small data sets."""
    seconds: float
    """Estimated for what is not finished."""


@dataclass(frozen=True)
class Reproduction:
    """What `reproduce` found and wrote."""

    folder: Path
    plan: Plan
    verdicts: tuple[Verdict, ...]
    files: tuple[Path, ...]


def choose_experiments(name: str) -> dict[str, Experiment]:
    """The figure of that name, all of them, or none for `families`.

    Raises:
        ConfigError: there is none.
    """
    if name == ALL:
        return EXPERIMENTS
    if name == FAMILIES:
        return {}
    if name not in EXPERIMENTS:
        raise ConfigError(f"unknown experiment {name!r}; choose from {', '.join(EXPERIMENTS)}, {FAMILIES}, {ALL}")
    return {name: EXPERIMENTS[name]}


def reproduce(name: str, settings: TrainConfig, out: Path, *, data_sets: Sequence[str] | None = None, resume: bool = False,
              workers: int = 1, tell: Tell | None = None, progress: Progress | None = None,
              planned: Callable[[Plan], None] | None = None) -> Reproduction:
    """Compute an experiment or all of them, and write figures, tables and verdicts.

    Args:
        name: of a figure, `families`, or `all`.
        settings: the data of the figures, and the `replicates`, `epochs`, seed and device of everything.
        out: the folder; `out/cells` gets a file for each finished cell, so an interruption loses only the one at work.
        data_sets: of `families`, `DATA_SETS` where None; those that are not there are left out and told, unless it is the only one.
        resume: continue in a folder that is not empty; cells that are there are not computed again.
        workers: processes that compute cells side by side, on the same device.
        tell: called with a line of text for each cell.
        progress: called several times a second with the share of the cells done and a text.
        planned: called with the plan before the first cell.

    Raises:
        ConfigError, DataError: an unknown experiment; data without classes.
        OutputError: `out` is not empty (and not `resume`), cannot be written, or is in use by another process.
    """
    experiments = choose_experiments(name)
    with hold_folder(out):
        _check_folder(out, resume=resume)
        return _reproduce(name, experiments, settings, out, data_sets, workers, tell or (lambda line: None), progress, planned)


def _reproduce(name: str, experiments: Mapping[str, Experiment], settings: TrainConfig, out: Path, data_sets: Sequence[str] | None,
               workers: int, tell: Tell, progress: Progress | None, planned: Callable[[Plan], None] | None) -> Reproduction:
    """`reproduce`, with the folder in hand."""
    data_hash = _check_data(settings) if experiments else ""
    configs = _complete_cells(experiments.values(), settings)
    results = _load_finished(configs, out / "cells", data_hash, tell)
    missing = {recipe: config for recipe, config in configs.items() if recipe not in results}
    families = None
    if name in (FAMILIES, ALL):
        families = plan_families(settings, DATA_SETS if data_sets is None else data_sets, out, tell=tell)
    plan = _make_plan(experiments, configs, missing, families, settings)
    if planned is not None:
        planned(plan)
    results |= _run_cells(missing, out / "cells", workers, tell, progress)
    verdicts = _judge(experiments, results)
    files = [path for figure, experiment in experiments.items() for path in _write_experiment(out, figure, experiment, results)]
    chosen = data_sets[0] if data_sets else settings.data
    data = "" if data_sets is None and chosen == "mnist" else f" --data {shlex.quote(chosen)}"
    options = f"{data} --replicates {settings.replicates} --epochs {settings.epochs}"
    if experiments:
        finished, cells = _add_finished(experiments, results, settings, out / "cells", data_hash)
        names = [name] if finished.keys() == experiments.keys() else list(finished)
        files += _write_summary(out, [f"mncompress reproduce {figure}{options}" for figure in names], finished, cells)
    if families is not None:
        command = f"mncompress reproduce {name}{options}"
        files += run_families(settings, families.data_sets, out, command, workers=workers, tell=tell, progress=progress)
    return Reproduction(out, plan, verdicts, tuple(files))


def _check_data(settings: TrainConfig) -> str:
    """The hash of the content of the figures' data, which must have classes."""
    dataset = load_dataset(settings.data, data_dir=settings.data_dir, seed=settings.seed)
    if dataset.task != "classification":
        raise DataError(f"{settings.data} is a regression; the figures compare accuracies: choose data with classes, such as mnist")
    return dataset.content_hash


def _check_folder(out: Path, *, resume: bool) -> None:
    try:
        check_output_folder(out, overwrite=resume)
    except OutputError as error:
        raise OutputError(str(error).replace("pass --overwrite", "continue in it with --resume")) from error


def _complete_cells(experiments: Iterable[Experiment], settings: TrainConfig) -> dict[TrainConfig, TrainConfig]:
    """The recipes of the tables, each once, with what they become on the data and with the numbers asked for."""
    shared = {name: getattr(settings, name) for name in ("data", "data_dir", "replicates", "epochs", "seed", "device")}
    recipes = dict.fromkeys(cell for experiment in experiments for cell in experiment.cells)
    return {recipe: dataclasses.replace(recipe, **shared) for recipe in recipes}


def _load_finished(configs: Mapping[TrainConfig, TrainConfig], folder: Path, data_hash: str,
                   tell: Tell) -> dict[TrainConfig, CellResult]:
    """The results that are there; a file that cannot be used is told, and its cell computed again."""
    results = {}
    for recipe, config in configs.items():
        try:
            found = load_cell(folder, config, data_hash)
        except CheckpointError as error:
            tell(f"cells/{error}; computing it again")
        else:
            if found is not None:
                results[recipe] = found
    return results


def _judge(experiments: Mapping[str, Experiment], results: Results) -> tuple[Verdict, ...]:
    return tuple(judge(figure, claim, results) for figure, experiment in experiments.items() for claim in experiment.claims)


def _add_finished(experiments: Mapping[str, Experiment], results: Results, settings: TrainConfig, folder: Path,
                  data_hash: str) -> tuple[dict[str, Experiment], dict[TrainConfig, CellResult]]:
    """The figures with those whose cells are all there from before, with the same settings; and the cells of all of these."""
    found = _load_finished(_complete_cells(EXPERIMENTS.values(), settings), folder, data_hash, lambda line: None) | dict(results)
    finished = {figure: experiment for figure, experiment in EXPERIMENTS.items() if found.keys() >= set(experiment.cells)}
    cells = {cell for experiment in finished.values() for cell in experiment.cells}
    return finished, {recipe: result for recipe, result in found.items() if recipe in cells}


def _make_plan(experiments: Mapping[str, Experiment], configs: Mapping[TrainConfig, TrainConfig],
               missing: Mapping[TrainConfig, TrainConfig], families: FamiliesPlan | None, settings: TrainConfig) -> Plan:
    cells = {figure: len(experiment.cells) for figure, experiment in experiments.items()}
    total, finished, networks = len(configs), len(configs) - len(missing), len(missing) * settings.replicates
    seconds = _estimate_seconds(missing.values())
    if families is not None:
        cells[FAMILIES] = families.points
        total, finished, networks = total + families.points, finished + families.finished, networks + families.networks
        seconds += families.seconds
    return Plan(cells, total, finished, networks, settings.epochs, seconds)


def _estimate_seconds(configs: Iterable[TrainConfig]) -> float:
    """Time for all from a short probe of the smallest, a middling and the largest: linear between them in the inner work."""
    ordered = sorted(configs, key=_work)
    if not ordered:
        return 0.0
    probed = {_work(config): config for config in (ordered[0], ordered[len(ordered) // 2], ordered[-1])}
    speeds = {work: probe_speed(config, PROBE_SECONDS) for work, config in sorted(probed.items())}
    epochs = [float(np.interp(_work(config), list(speeds), list(speeds.values()))) for config in ordered]
    return sum(seconds * config.epochs for seconds, config in zip(epochs, ordered, strict=True))


def _work(config: TrainConfig) -> int:
    """What the time of a cell grows with: neurons, and the units inside them with their connections."""
    inner = [0 if spec.width == 0 else 2 * spec.width + (spec.depth - 1) * spec.width**2 for spec in config.make_activations()]
    return sum(n * (1 + units) for n, units in zip(config.hidden or (10,), inner, strict=True))


def _run_cells(configs: Mapping[TrainConfig, TrainConfig], folder: Path, workers: int, tell: Tell,
               progress: Progress | None) -> dict[TrainConfig, CellResult]:
    """Compute the cells, each into its file."""
    results: dict[TrainConfig, CellResult] = {}
    for recipe, result in _compute_cells(configs, workers, progress):
        save_cell(folder, result)
        results[recipe] = result
        config, done = result.config, f"cell {len(results)} of {len(configs)}: {describe(recipe)}"
        speed = config.replicates * config.epochs / max(result.seconds, 1e-9)
        tell(f"{done}: test accuracy {result.test.mean():.4f}, {result.seconds:.1f} s, {speed:.1f} networks x epochs per second")
        if progress is not None:
            progress(len(results) / len(configs), done)
    return results


def _compute_cells(configs: Mapping[TrainConfig, TrainConfig], workers: int,
                   progress: Progress | None) -> Iterator[tuple[TrainConfig, CellResult]]:
    """Each recipe with the result of its cell, as they are finished."""
    if workers > 1:
        recipes = list(configs)
        for number, result in run_in_workers(run_cell, [(config,) for config in configs.values()], workers):
            yield recipes[number], result
        return
    for number, (recipe, config) in enumerate(configs.items()):
        label = f"cell {number + 1} of {len(configs)}: {describe(recipe)}"

        def watch(at: TrainProgress, number: int = number, label: str = label) -> None:
            if progress is not None:
                share = (at.epoch - 1 + at.step / at.steps) / at.epochs
                progress((number + share) / len(configs), f"{label}, epoch {at.epoch} of {at.epochs}")

        yield recipe, run_cell(config, watch)


def describe(config: TrainConfig) -> str:
    """A cell in a few words, such as `7-7 meta tanh 5x1 residual`."""
    words = ["-".join(map(str, config.hidden)) or "no hidden layer", config.activation]
    if config.activation == "meta":
        words += [config.inner, f"{config.inner_width}x{config.inner_layers}"]
    return " ".join([*words, *(["residual"] if config.residual else []), *([config.init] if config.init != "matched" else [])])


def _write_experiment(out: Path, figure: str, experiment: Experiment, results: Results) -> list[Path]:
    config = results[experiment.cells[0]].config
    title = f"{experiment.title}  ·  {config.data}, {config.replicates} networks each"
    picture = draw_experiment(experiment, results, title)
    tables = {f"{figure}.csv": epoch_rows, f"{figure}-cells.csv": cell_rows}
    if experiment.draws_activations:
        tables[f"{figure}-activations.csv"] = activation_rows
    for file, rows in tables.items():
        write_text(out / file, write_csv(rows(experiment, results)))
    pictures = [out / f"{figure}.{kind}" for kind in FORMATS]
    for path in pictures:
        save_figure(path, picture)
    return [*pictures, *(out / file for file in tables)]


def _write_summary(out: Path, commands: Sequence[str], experiments: Mapping[str, Experiment], results: Results) -> list[Path]:
    verdicts = _judge(experiments, results)
    told = [null_not_finite(to_json(verdict)) for verdict in verdicts]
    document = {"schema": SCHEMA, "command": " && ".join(commands), "verdicts": told}
    write_json(out / "verdicts.json", document)
    write_text(out / "verdicts.md", render_verdicts(verdicts))
    titles = {figure: experiment.title for figure, experiment in experiments.items()}
    write_text(out / "README.md", render_readme(commands, list(experiments), results, verdicts, titles))
    return [out / file for file in ("verdicts.json", "verdicts.md", "README.md")]
