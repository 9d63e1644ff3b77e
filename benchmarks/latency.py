"""The price of ReLU: whole networks and single operators in ONNX Runtime, as ratios from interleaved runs.

    python benchmarks/latency.py [--only TEXT] [--provider cpu|cuda] [--seconds 2] [--json FILE] [--models DIR [--prepare]]

Networks are drawn with `matched` initialization, their inner weights spread around it, and compressed by the planner for
standard normal features and labels that are the network's own classes, at most 0.2 points of them lost; for regression its outputs
with 10 % of noise, at most 1 % of RMSE. Each condition measures side by side: the network as trained in the natural form
(Unsqueeze, Mul, Add, act, Mul, ReduceSum) and in every form that `original.onnx` may have, the compressed network, and the same
network with ReLU. The ratio to the original is to the fastest of its forms. For what a time is, see `mncompress.benchmark`; every
ratio is the median over rounds, with its 95 % interval.

Rows of a CUDA device are measured where there is one, and say so where there is none. Planning takes minutes: with `--models` the
files of each network stay in a folder and are taken from there when they exist, and `--prepare` makes them and measures nothing,
so that a machine with a device has only to measure.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from mncompress import benchmark, runtime
from mncompress.analysis import InnerNetworks
from mncompress.compression import compress_network
from mncompress.data import Dataset, Split
from mncompress.export import _inner, _network, write_onnx
from mncompress.export._activations import emit_act
from mncompress.export._functions import make_functions
from mncompress.export._graph import DOMAIN, Array, GraphBuilder, Value
from mncompress.nn import Network, Standardize, initialize_, make_body, make_relu_twin
from mncompress.types import ActivationSpec, Budget, NetworkSpec

LARGEST_BLOCK_GEMM = 4096
"""Units of a layer up to which the block-diagonal form is tried at all."""
OPSET = 18
MAX_DROP = {"classification": 0.2, "regression": 1.0}
SPREAD = 0.3
"""Of the inner weights around those that match tanh or relu: training leaves no activation as it was."""


@dataclass(frozen=True)
class Case:
    """A network, the conditions it is measured under, and what is to be reached.

    Attributes:
        name: for the table.
        sizes: features, hidden layers, outputs.
        activation: of every hidden layer.
        batches: rows per run.
        original: how many times the compressed network's time the best original is to take, by batch; 0 for no aim.
        natural: the same of the natural form.
        relu: how many times the ReLU network's time the compressed one may take, by batch.
        threads: of the session.
        target: what the planner plans for; `portable` measures the file in standard operators.
        provider: short name.
        tf32: whether CUDA multiplies matrices in TF32, ONNX Runtime's default, and not in float32.
    """

    name: str
    sizes: tuple[int, ...]
    activation: ActivationSpec
    batches: tuple[int, ...]
    original: Mapping[int, float]
    relu: Mapping[int, float]
    natural: Mapping[int, float] | None = None
    threads: int = 1
    target: str = "native"
    provider: str = "cpu"
    tf32: bool = False


def make_cases() -> Iterator[Case]:
    tanh, deep = ActivationSpec("meta", "tanh", 16, 1), ActivationSpec("meta", "tanh", 16, 2)
    narrow, relu = ActivationSpec("meta", "tanh", 5, 1), ActivationSpec("meta", "relu", 5, 1)
    vaf = ActivationSpec("vaf", "tanh", 5, 1)
    for n in (64, 128, 1024):
        sizes = (784, n, n, 10)
        yield Case("tanh, 16", sizes, tanh, (1, 32, 1024), {1: 1.4, 32: 1.8, 1024: 1.8}, {1: 1.12, 32: 1.05, 1024: 1.05},
                   {32: 2.7, 1024: 2.7})
        yield Case("tanh, 16, two inner layers", sizes, deep, (32, 1024), {32: 3.3, 1024: 3.3}, {32: 1.05, 1024: 1.05},
                   {32: 12, 1024: 12})
        yield Case("tanh, 5", sizes, narrow, (1, 32, 1024), {1: 1.0, 32: 1.0, 1024: 1.2}, {1: 1.15, 32: 1.15, 1024: 1.05})
        yield Case("relu, 5", sizes, relu, (32, 1024), {32: 1.2, 1024: 1.2}, {32: 1.06, 1024: 1.06})
    yield Case("tanh, 16", (64, 64, 10), tanh, (1024,), {1024: 5}, {1024: 1.2})
    yield Case("vaf tanh", (2, 8, 8, 1), vaf, (1, 1024), {1: 1.3, 1024: 3}, {1: 1.15, 1024: 2})
    yield Case("vaf tanh", (4, 16, 16, 1), vaf, (1, 1024), {1: 1.3, 1024: 3}, {1: 1.15, 1024: 2})
    for n in (64, 128, 1024):
        yield Case("tanh, 16, two threads", (784, n, n, 10), tanh, (1024,), {1024: 1.8}, {1024: 1.10}, threads=2)
    for n in (64, 128, 1024):
        yield Case("tanh, 16, portable", (784, n, n, 10), tanh, (32, 1024), {32: 1.5, 1024: 1.5}, {32: 1.25, 1024: 1.25},
                   target="portable")
    for tf32, name in {False: "tanh, 16", True: "tanh, 16, TF32"}.items():
        yield Case(name, (784, 128, 128, 10), tanh, (1, 1024, 16384), {}, dict.fromkeys((1, 1024, 16384), 1.03),
                   {1: 1.7, 1024: 2.2, 16384: 14}, provider="cuda", tf32=tf32)
        yield Case(name, (784, 1024, 1024, 10), tanh, (1024, 16384), {}, {16384: 1.10}, {16384: 17}, provider="cuda", tf32=tf32)
    for n, batches in {128: (1, 1024), 1024: (16384,)}.items():
        yield Case("tanh, 16, portable", (784, n, n, 10), tanh, batches, {}, {}, target="portable", provider="cuda")


def make_network(case: Case) -> Network:
    """The case's network with weights drawn at random and `matched` activations."""
    spec = NetworkSpec(case.sizes[0], case.sizes[1:-1], case.sizes[-1], (case.activation,) * (len(case.sizes) - 2),
                       "regression" if case.sizes[-1] == 1 else "classification")
    layers, generator = make_body(spec), torch.Generator().manual_seed(0)
    initialize_(layers, "matched", generator)
    for layer in layers[:-1]:
        for parameter in layer.activation.parameters():
            parameter.data += SPREAD * torch.randn(parameter.shape, generator=generator)
    features = Standardize(np.zeros(case.sizes[0]), np.ones(case.sizes[0]))
    targets = Standardize(np.zeros(1), np.ones(1)) if spec.task == "regression" else None
    return Network(spec, layers, features, targets).eval().requires_grad_(False)


def make_dataset(network: Network) -> Dataset:
    """Standard normal features with what the network says of them; a regression's targets have 10 % of noise."""
    rng = np.random.default_rng(0)

    def split(rows: int) -> Split:
        x = rng.standard_normal((rows, network.spec.in_features), np.float32)
        y = network(torch.as_tensor(x)).numpy()
        if network.spec.task == "classification":
            return Split(x, y.argmax(1))
        return Split(x, (y + 0.1 * y.std() * rng.standard_normal(y.shape)).astype(np.float32))

    return Dataset("normal", network.spec.task, split(500), split(1000), split(4000), split(512), network.spec.out_features, "")


def natural(builder: GraphBuilder, x: str, inner: InnerNetworks, name: str) -> str:
    """The inner networks as one writes them down: (batch, n, H), summed over H."""
    last, before_last = builder.constant([-1], np.int64), builder.constant([-2], np.int64)

    def parameter(label: str, array: Array) -> str:
        return builder.initializer(f"{name}/{label}", array)

    h = builder.node("Mul", [builder.node("Unsqueeze", [x, last]), parameter("w0", inner.first_weight)])
    h = emit_act(builder, Value(builder.node("Add", [h, parameter("b0", inner.biases[0])])), inner.act).name
    for level, (weight, bias) in enumerate(zip(inner.weights, inner.biases[1:], strict=True), 1):
        rows = builder.node("Unsqueeze", [h, before_last])
        product = builder.node("MatMul", [rows, parameter(f"w{level}", weight.transpose(0, 2, 1))])
        z = builder.node("Add", [builder.node("Squeeze", [product, before_last]), parameter(f"b{level}", bias)])
        h = builder.node("Add", [emit_act(builder, Value(z), inner.act).name, h])
    terms = builder.node("Mul", [h, parameter("w", inner.out_weight)])
    total = builder.node("ReduceSum", [terms, last], keepdims=0)
    return builder.node("Add", [total, parameter("b", inner.out_bias)])


def original_forms(case: Case) -> list[str]:
    """The natural form, and every one that the exporter knows for the network."""
    units = max(case.sizes[1:-1]) * case.activation.width
    forms = ["natural", "grouped_conv", *(["elementwise"] if case.activation.depth == 1 else [])]
    return forms + (["block_gemm"] if units <= LARGEST_BLOCK_GEMM else [])


def write_original(network: Network, form: str, path: Path) -> None:
    """The network as trained, in one form."""
    with (mock.patch.dict(_inner._FORMS, {"natural": natural}),
          mock.patch.object(_network, "choose_form", return_value=form)):
        write_onnx(network, path, opset_version=OPSET, inline=False, metadata={})


def make_files(case: Case, folder: Path) -> dict[str, Path]:
    """The files of a case by model, and what the activations became in `plan.json`; nothing is made that is there."""
    forms, summary = original_forms(case), folder / "plan.json"
    paths = {name: folder / f"{name}.onnx" for name in (*forms, "compressed", "relu_twin")}
    if not summary.exists():
        folder.mkdir(parents=True, exist_ok=True)
        network = make_network(case)
        budget = Budget(max_drop=MAX_DROP[network.spec.task], target=case.target)
        compressed = compress_network(network, make_dataset(network), budget)
        for form in forms:
            write_original(network, form, paths[form])
        write_onnx(compressed.network, paths["compressed"], opset_version=OPSET, inline=case.target == "portable", metadata={})
        write_onnx(make_relu_twin(network), paths["relu_twin"], opset_version=OPSET, inline=False, metadata={})
        decisions = compressed.plan.decisions
        sizes = {decision.settings.get("intervals", decision.settings.get("knots")) for decision in decisions}
        summary.write_text(json.dumps({
            "kinds": {kind: sum(d.kind == kind for d in decisions) for kind in {d.kind for d in decisions}},
            "pieces": sorted(size for size in sizes if isinstance(size, int))}))
    return paths


def measure_case(case: Case, models: Path, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Rows of the table: one for each batch."""
    folder = models / folder_name(case)
    paths = make_files(case, folder)
    originals = [form for form in original_forms(case) if form in ("natural", *(options.originals or original_forms(case)))]
    paths = {name: paths[name] for name in (*originals, "compressed", "relu_twin")}
    for batch in [each for each in case.batches if each in (options.batches or case.batches)]:
        found = benchmark.measure(paths, provider=case.provider, threads=case.threads, batch=batch, seconds=options.seconds,
                                  sessions=options.sessions, tf32=case.tf32)
        ratios = {form: benchmark.ratio(found, form, "compressed") for form in originals}
        best = min((form for form in ratios if form != "natural"), key=lambda form: ratios[form].median, default="natural")
        relu = benchmark.ratio(found, "compressed", "relu_twin")
        medians = dict(zip(found.models, map(float, np.median(found.samples_us, axis=1)), strict=True))
        yield {"name": case.name, "sizes": "-".join(map(str, case.sizes)), "batch": batch, "threads": case.threads,
               "provider": case.provider, "tf32": case.tf32, "compressed_us": medians["compressed"], "median_us": medians,
               **json.loads((folder / "plan.json").read_text()),
               "original": _triple(ratios[best]), "best_form": best,
               "natural": _triple(ratios["natural"]), "relu": _triple(relu),
               "aims": {"original": case.original.get(batch), "natural": (case.natural or {}).get(batch),
                        "relu": case.relu.get(batch)}}


def folder_name(case: Case) -> str:
    """Of the case's files, which neither provider nor threads nor precision change."""
    act = case.activation
    return re.sub(r"\W+", "-", f"{'-'.join(map(str, case.sizes))} {act.family} {act.act} {act.width} {act.depth} {case.target}")


def measure_operators(seconds: float) -> Iterator[dict[str, object]]:
    """The operators alone, one thread: nanoseconds per element above those of a ReLU, and beside the body's time."""
    rng = np.random.default_rng(0)
    for n, batch in ((64, 1024), (128, 1024), (1024, 1024)):
        for pieces in (12, 28, 64):
            splines = {"start": np.zeros(n), "inverse_step": np.ones(n), "coefficients": rng.standard_normal((n, pieces, 4))}
            kinks = {"knots": np.sort(rng.uniform(0, pieces, (n, pieces)), 1), "slope_changes": rng.standard_normal((n, pieces)),
                     "slope": rng.standard_normal(n), "intercept": rng.standard_normal(n)}
            x = rng.uniform(-0.5, pieces + 0.5, (batch, n)).astype(np.float32)
            for op_type, arrays in (("CubicSpline", splines), ("PiecewiseLinear", kinks)):
                yield {"op": op_type, "n": n, "batch": batch, "pieces": pieces, **_measure_operator(op_type, arrays, x, seconds)}


def _measure_operator(op_type: str, arrays: Mapping[str, Array], x: Array, seconds: float) -> dict[str, float]:
    model = _operator_model(op_type, arrays, x.shape[1]).SerializeToString()
    sessions = {"kernel": runtime.make_session(model), "body": runtime.make_session(model, kernels=False),
                "relu": runtime.make_session(_operator_model("Relu", {}, x.shape[1]).SerializeToString())}
    runs = [benchmark.bind(session, {"input": x}) for session in sessions.values()]
    samples = benchmark.sample_rounds(runs, seconds=seconds, rng=np.random.default_rng(0)).samples_us
    kernel, body, relu = samples * 1e3 / x.size
    return {"ns": float(np.median(kernel)), "above_relu_ns": float(np.median(kernel - relu)),
            "body_ratio": float(np.median(body / kernel))}


def _operator_model(op_type: str, arrays: Mapping[str, Array], n: int) -> onnx.ModelProto:
    rows = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", n])
    result = helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["batch", n])
    node = helper.make_node(op_type, ["input", *arrays], ["output"], domain=DOMAIN if arrays else "")
    weights = [numpy_helper.from_array(np.asarray(array, np.float32), key) for key, array in arrays.items()]
    return helper.make_model(
        helper.make_graph([node], "op", [rows], [result], weights), ir_version=8,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        functions=make_functions(OPSET, {op_type: n}) if arrays else [])


def _triple(ratio: benchmark.Ratio) -> tuple[float, float, float]:
    return ratio.median, ratio.low, ratio.high


def _cell(values: Sequence[float], aim: float | None, *, at_most: bool = False) -> str:
    median, low, high = values
    text = f"{median:.2f} ({low:.2f} to {high:.2f})"
    if aim is None:
        return text
    return f"{text} {'≤' if at_most else '≥'} {aim:g}{'' if (median <= aim if at_most else median >= aim) else ' **missed**'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name or sizes contain this; `op` for the operators alone")
    parser.add_argument("--provider", choices=runtime.PROVIDERS, help="cases on this one alone")
    parser.add_argument("--seconds", type=float, default=2.0, help="of measuring each condition")
    parser.add_argument("--sessions", type=int, default=8, help="in which each condition is measured, at least 6")
    parser.add_argument("--originals", nargs="+", metavar="FORM", help="forms beside the natural one; all by default")
    parser.add_argument("--batches", nargs="+", type=int, metavar="N", help="of each case's own; all by default")
    parser.add_argument("--json", type=Path, help="write the rows here too, one after another")
    parser.add_argument("--models", type=Path, help="keep the networks' files in this folder, and take those that are there")
    parser.add_argument("--prepare", action="store_true", help="with --models: make the files and measure nothing")
    options = parser.parse_args()
    if options.prepare and not options.models:
        parser.error("--prepare needs --models, the folder to prepare")
    torch.set_num_threads(1)
    chosen = [case for case in make_cases() if options.only in f"{case.name} {'-'.join(map(str, case.sizes))}"
              and options.provider in (None, case.provider)]
    if options.prepare:
        for case in chosen:
            print(folder_name(case), flush=True)
            make_files(case, options.models / folder_name(case))
        return
    with tempfile.TemporaryDirectory() as name:
        measure_all(chosen, options, options.models or Path(name))


def measure_all(cases: Sequence[Case], options: argparse.Namespace, models: Path) -> None:
    """Print the tables."""
    print(f"{runtime.describe_environment([options.provider or 'cpu'])}\n", flush=True)
    rows: list[dict[str, object]] = []
    if options.only in ("", "op") and options.provider != "cuda":
        print("| op | N | batch | pieces | ns an element | above ReLU | body / kernel |\n|---|---|---|---|---|---|---|")
        for row in measure_operators(options.seconds):
            rows.append(row)
            print(f"| {row['op']} | {row['n']} | {row['batch']} | {row['pieces']} | {row['ns']:.2f} | {row['above_relu_ns']:.2f} | "
                  f"{row['body_ratio']:.1f} |", flush=True)
    print("\n| network | inner | threads | batch | compressed, µs | original / compressed | natural / compressed | "
          "compressed / ReLU | became |\n|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        if case.provider not in runtime.available_providers():
            print(f"| {'-'.join(map(str, case.sizes))} | {case.name} ({case.provider}) | | {', '.join(map(str, case.batches))} | "
                  "not measured: no device | | | | |", flush=True)
            continue
        for row in measure_case(case, models, options):
            rows.append(row)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n")
            aims = row["aims"]
            print(f"| {row['sizes']} | {row['name']} | {row['threads']} | {row['batch']} | {row['compressed_us']:.1f} | "
                  f"{_cell(row['original'], aims['original'])} {row['best_form']} | {_cell(row['natural'], aims['natural'])} | "
                  f"{_cell(row['relu'], aims['relu'], at_most=True)} | {row['kinds']} {row['pieces']} |", flush=True)


if __name__ == "__main__":
    main()
