"""A compression report as a few tables and lines of text."""

from typing import TYPE_CHECKING

from mncompress.types import ModelSummary, Report, to_json

from ._output import Output, TextTable

if TYPE_CHECKING:
    from mncompress.pipeline import Result

MODELS = ("original", "compressed", "portable", "relu_twin")


def show_result(output: Output, result: "Result") -> None:
    """Print a compression: for programs `report.json` and its folder, for people the summary."""
    folder = str(result.folder)
    document = {**to_json(result.report), "folder": folder}
    output.show(document, *make_summary(result.report), f"files: {folder}", essential=folder)


def make_summary(report: Report) -> list[str | TextTable]:
    """The models side by side, what became of the neurons, what that cost and gained, and what to know first."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items() if count)
    left = [f"{report.left} left the network"] if report.left else []
    left += [f"layer {each.layer} at rank {each.factored}" for each in report.layers if each.factored]
    structure = f" ({'; '.join(left)})" if left else ""
    notes = [f"note: {note}" for note in report.notes]
    return [make_models_table(report), "", f"activations: {kinds or 'none'}{structure}", describe_cost(report),
            *describe_speed(report), *notes]


def make_models_table(report: Report) -> TextTable:
    """The models in columns, their sizes, test results and latencies in rows.

    The ReLU twin was never trained with its activations, so only its size and its latency mean something.
    """
    summaries: list[ModelSummary] = [getattr(report, name) for name in MODELS]
    trained = summaries[:-1]
    rows = [("parameters", *(f"{s.parameters}" for s in summaries)),
            ("multiply-adds", *(f"{s.macs}" for s in summaries)),
            ("nodes", *(f"{s.nodes}" for s in summaries)),
            ("bytes", *(f"{s.file_bytes}" for s in summaries)),
            ("test loss", *(f"{s.loss:.6g}" for s in trained), "-")]
    if report.original.accuracy is not None:
        rows.append(("test accuracy", *(f"{s.accuracy:.4f}" for s in trained), "-"))
    conditions = dict.fromkeys((row.provider, row.threads, row.batch) for row in report.latency)
    medians = {(row.model, row.provider, row.threads, row.batch): f"{row.median_us:.1f}" for row in report.latency}
    rows += [(f"us, {condition[0]}, batch {condition[2]}", *(medians.get((name, *condition), "-") for name in MODELS))
             for condition in conditions]
    return TextTable(("", *(name.replace("_", " ") for name in MODELS)), rows)


def describe_cost(report: Report) -> str:
    """What compression changed on the test split, in one line."""
    from mncompress.report import at_most, share_at_least

    parts = []
    if report.accuracy_drop is not None:
        parts.append(f"accuracy drop {report.accuracy_drop:.3f} points")
        parts.append(f"{report.argmax_flips} of {report.samples} samples changed class")
    if report.rmse_increase_percent is not None:
        parts.append(f"RMSE {report.rmse_increase_percent:+.3f} %")
    bound = "no bound" if report.logit_error_bound is None else f"proven at most {at_most(report.logit_error_bound)}"
    parts.append(f"largest output change {report.max_abs_logit_error:.3g} ({bound})")
    if report.certified_unchanged is not None:
        parts.append(f"{share_at_least(report.certified_unchanged)} of the samples provably keep theirs")
    return "cost: " + "; ".join(parts)


def describe_speed(report: Report) -> list[str]:
    """How many times as fast as the original the compressed network is, in one line for each provider."""
    ratios: dict[str, list[str]] = {}
    for row in report.speedups:
        ratios.setdefault(f"{row.provider}, threads {row.threads}", []).append(f"{row.ratio:.2f} at batch {row.batch}")
    return [f"speed-up over the original ({where}): {', '.join(parts)}" for where, parts in ratios.items()]
