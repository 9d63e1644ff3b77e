"""`mncompress benchmark`: the latency of any ONNX files, side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mncompress.figures import FORMATS
from mncompress.files import write_json

from ._completion import PROVIDERS, offer
from ._options import Json, Quiet, check_choice, parse_count, parse_sizes, split_list, usage
from ._output import Output, TextTable, open_output

if TYPE_CHECKING:
    from mncompress.benchmark import Agreement, Benchmark, Row, Startup

Models = Annotated[list[Path], typer.Argument(
    metavar="MODEL.onnx", help="Any files with the same inputs.", show_default=False)]
Baseline = Annotated[str | None, typer.Option(
    metavar="NAME", help="The model that the others are compared with; the first unless given.")]
Providers = Annotated[str, typer.Option(
    metavar="NAME,NAME", help="cpu, cuda.", autocompletion=offer(PROVIDERS, many=True))]
BatchSizes = Annotated[str | None, typer.Option(
    metavar="N,N", help="Samples in a run; 1,32,1024 unless given, or what models with a fixed batch have.", show_default=False)]
Threads = Annotated[str, typer.Option(metavar="N,N", help="Threads inside an operator.")]
Inputs = Annotated[Path | None, typer.Option(
    metavar="FILE.npz", help="An array for each input, by its name; random numbers unless given.")]
Dims = Annotated[list[str] | None, typer.Option(
    "--dim", metavar="NAME=N", help="The size of a symbolic dimension that is not the batch, or INPUT:AXIS=N; repeatable.")]
Ranges = Annotated[list[str] | None, typer.Option(
    "--range", metavar="INPUT=LOW:HIGH", help="Between what the random values of an input lie; repeatable.")]
Seconds = Annotated[float, typer.Option(help="For each condition, all models together.")]
Sessions = Annotated[int, typer.Option(help="How often each model is opened anew for each condition, at least 6.")]
Seed = Annotated[int, typer.Option(help="Of random inputs and orders.")]
IoBinding = Annotated[bool, typer.Option(help="Keep inputs and outputs in buffers on the device, or copy them every run.")]
CudaGraph = Annotated[bool, typer.Option("--cuda-graph", help="Capture the runs on CUDA as a graph and replay it.")]
Tf32 = Annotated[bool, typer.Option("--tf32", help="Multiply matrices on CUDA in TF32, as ONNX Runtime does by default.")]
IdleGap = Annotated[float | None, typer.Option(
    metavar="SECONDS", help="Pause before each sample; 0 for one thread and 0.12 for more unless given.")]
Pin = Annotated[bool, typer.Option("--pin", help="Keep each measurement on as many cores as it has threads.")]
FirstRuns = Annotated[int, typer.Option(
    "--startup", metavar="N", help="Fresh processes for each model to measure loading, first run and memory in; 0 for none.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write everything there too.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE.png|svg", help="Draw the distributions of the times.")]
Samples = Annotated[bool, typer.Option("--samples", help="Put every sample into the JSON document.")]


def benchmark(
    models: Models, baseline: Baseline = None, providers: Providers = "cpu", batch_sizes: BatchSizes = None,
    threads: Threads = "1", inputs: Inputs = None, dims: Dims = None, ranges: Ranges = None, seconds: Seconds = 2.0,
    sessions: Sessions = 8, seed: Seed = 0, io_binding: IoBinding = True, cuda_graph: CudaGraph = False, tf32: Tf32 = False,
    idle_gap: IdleGap = None, pin: Pin = False, startup: FirstRuns = 3, out: Out = None, plot: Plot = None,
    samples: Samples = False, as_json: Json = False, quiet: Quiet = False,
) -> None:
    """Measure the latency of ONNX files, interleaved in one process."""
    names = tuple(check_choice(name, PROVIDERS, "--providers") for name in split_list(providers, "--providers"))
    sizes = None if batch_sizes is None else parse_sizes(batch_sizes, "--batch-sizes")
    counts = parse_sizes(threads, "--threads")
    given_dims, given_ranges = parse_dims(dims or []), parse_ranges(ranges or [])
    if out is not None and out.suffix != ".json":       # such as the model that is being measured
        raise typer.BadParameter(f"{out} does not end in .json", param_hint="--out")
    if plot is not None and plot.suffix.removeprefix(".") not in FORMATS:
        raise typer.BadParameter(f"{plot} does not end in .png or .svg", param_hint="--plot")

    from mncompress import benchmark as library

    with usage():
        settings = library.Settings(
            names, sizes, counts, seconds=seconds, sessions=sessions, seed=seed, baseline=baseline, dims=given_dims,
            ranges=given_ranges, io_binding=io_binding, cuda_graph=cuda_graph, tf32=tf32, idle_seconds=idle_gap, pin=pin,
            startup=startup)
    with open_output(as_json, quiet) as output:
        arrays = None if inputs is None else library.load_inputs(inputs)
        result = library.benchmark(name_models(models), settings, inputs=arrays, progress=output.status)
        document = library.to_document(result, samples=samples)
        show_benchmark(output, result, document)
        if out is not None:
            write_json(out, document)
        if plot is not None:
            library.save_plot(plot, result)


def show_benchmark(output: Output, result: "Benchmark", document: dict[str, object]) -> None:
    """Print a benchmark: for programs the document, for people tables, and what to conclude from them."""
    output.show(document, make_models_table(result), "", make_latency_table(result.latency), *describe_break_even(result),
                *(f"note: {note}" for note in result.notes), essential="\n".join(
        f"{row.model} {row.provider} {row.threads} {row.batch} {row.median_us:.1f}" for row in result.latency))


def make_models_table(result: "Benchmark") -> TextTable:
    """One line for each model, or for each provider and number of threads that its first run was measured with."""
    columns = ("model", "provider", "threads", "bytes", "nodes", "open ms", "first run ms", "memory MiB", "largest difference")
    lines = []
    for file in result.models:
        startups: list[Startup | None] = [each for each in result.startup if each.model == file.model]
        lines += [(file.model, *_where(startup), f"{file.file_bytes}", f"{file.nodes}", *_costs(startup),
                   "-" if file.model == result.baseline else _difference(file.model, startup, result.agreement))
                  for startup in startups or [None]]
    return TextTable(columns, lines, text_columns=frozenset({"provider"}))


def _where(startup: "Startup | None") -> tuple[str, str]:
    return ("-", "-") if startup is None else (startup.provider, f"{startup.threads}")


def _costs(startup: "Startup | None") -> tuple[str, str, str]:
    if startup is None:
        return "-", "-", "-"
    memory = "-" if startup.first_run_bytes is None else f"{startup.first_run_bytes / 2**20:.1f}"
    return f"{startup.session_ms:.1f}", f"{startup.first_run_ms:.2f}", memory


def _difference(model: str, startup: "Startup | None", agreement: "tuple[Agreement, ...]") -> str:
    """The largest difference to the baseline's outputs, under the line's provider if it has one."""
    found = [each.max_abs_difference for each in agreement
             if each.model == model and (startup is None or each.provider == startup.provider)]
    known = [each for each in found if each is not None]
    return f"{max(known):.3g}" if known and len(known) == len(found) else "-"


def make_latency_table(rows: "tuple[Row, ...]") -> TextTable:
    """One line for each model and condition; the ratio is its time over the baseline's."""
    columns = ("model", "provider", "threads", "batch", "min us", "median us", "p95 us", "p99 us", "samples", "time / baseline",
               "verdict")
    lines = [(row.model, f"{row.provider} TF32" if row.tf32 else row.provider, f"{row.threads}", f"{row.batch}",
              f"{row.min_us:.1f}", f"{row.median_us:.1f}", f"{row.p95_us:.1f}", f"{row.p99_us:.1f}", f"{row.runs}", _ratio(row),
              row.verdict) for row in rows]
    return TextTable(columns, lines, text_columns=frozenset({"provider", "verdict"}))


def _ratio(row: "Row") -> str:
    if row.ratio_to_baseline is None:
        return "-"
    if row.verdict == "baseline":
        return "1"
    return f"{row.ratio_to_baseline:.3f} ({row.baseline_low:.3f} to {row.baseline_high:.3f})"


def describe_break_even(result: "Benchmark") -> list[str]:
    """From which batch size on each model wins, a line each."""
    return [f"break-even of {each.model} ({each.provider}, threads {each.threads}): "
            + (f"shown faster than {result.baseline} from batch {each.batch} on" if each.batch else "none measured")
            for each in result.break_even]


def name_models(paths: list[Path]) -> dict[str, Path]:
    """Name each file by its stem, by its whole path where stems are the same, and with a number where it is given again."""
    stems = [path.stem for path in set(paths)]
    models: dict[str, Path] = {}
    for path in paths:
        name = path.stem if stems.count(path.stem) == 1 else str(path)
        count = sum(other == path for other in models.values())
        models[f"{name}#{count + 1}" if count else name] = path
    return models


def parse_dims(texts: list[str]) -> dict[str, int]:
    """Parse `NAME=N`.

    Raises:
        typer.BadParameter: it is something else.
    """
    found: dict[str, int] = {}
    for text in texts:
        name, _, size = text.rpartition("=")
        number = parse_count(size)
        if not name or number is None:
            raise typer.BadParameter(f"{text!r} is not NAME=N with a whole number N", param_hint="--dim")
        found[name] = number
    return found


def parse_ranges(texts: list[str]) -> dict[str, tuple[float, float]]:
    """Parse `INPUT=LOW:HIGH`.

    Raises:
        typer.BadParameter: it is something else.
    """
    found: dict[str, tuple[float, float]] = {}
    for text in texts:
        name, _, limits = text.rpartition("=")
        try:
            low, high = map(float, limits.split(":"))
        except ValueError:
            name = ""
        if not name:
            raise typer.BadParameter(f"{text!r} is not INPUT=LOW:HIGH with two numbers", param_hint="--range")
        found[name] = (low, high)
    return found
