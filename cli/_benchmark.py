"""`mncompress benchmark`: the latency of ONNX files, side by side."""

from pathlib import Path
from typing import Annotated

import typer

from mncompress.files import write_json
from mncompress.types import to_json

from ._options import Json, Quiet, parse_sizes, split_list
from ._output import open_output
from ._summary import make_latency_table


def benchmark(
    models: Annotated[list[Path], typer.Argument(
        metavar="MODEL.onnx...", help="Files with the same input and output.", show_default=False)],
    providers: Annotated[str, typer.Option(metavar="NAME,NAME", help="cpu, cuda.")] = "cpu",
    batch_sizes: Annotated[str, typer.Option(metavar="N,N", help="Samples in a run.")] = "1,32,1024",
    threads: Annotated[str, typer.Option(metavar="N,N", help="Threads inside an operator.")] = "1",
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the rows there too.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the latency of ONNX files, interleaved in one process."""
    names = split_list(providers, "--providers")
    sizes, counts = parse_sizes(batch_sizes, "--batch-sizes"), parse_sizes(threads, "--threads")

    if out is not None and out.suffix != ".json":       # such as the model that is being measured
        raise typer.BadParameter(f"{out} does not end in .json", param_hint="--out")

    from mncompress.benchmark import benchmark as measure

    with open_output(as_json, quiet) as output:
        rows = measure(name_models(models), providers=names, batch_sizes=sizes, threads=counts, progress=output.status)
        document = {"latency": [to_json(row) for row in rows]}
        output.show(document, make_latency_table(rows), essential="\n".join(
            f"{row.model} {row.provider} {row.threads} {row.batch} {row.median_us:.1f}" for row in rows))
        if out is not None:
            write_json(out, document)


def name_models(paths: list[Path]) -> dict[str, Path]:
    """Name each file by its stem, or by its whole path where two stems are the same."""
    stems = [path.stem for path in paths]
    return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in paths}
