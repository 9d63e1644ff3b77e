"""Runs the kernel library in other releases of ONNX Runtime and prints a table.

    python tests/native/releases.py 1.19.2 1.23.2 newest installed

In a virtual environment for each release, every file of `models` runs with the library and without it, where it is the
function bodies that run, with and without graph optimization. A cell is the largest difference between the library and the
bodies, in units of float32's rounding of the largest output; above `TOLERANCE` it is an error. `installed` is the release of
the environment that this runs in. The library's path may be given in MNCOMPRESS_LIBRARY.
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

TOLERANCE = 16
"""In units of float32's rounding: the bodies round after every operation and add kinks and products in another order."""

# What runs inside a release: it has numpy and onnxruntime and nothing else.
CHECK = """
import json, sys, pathlib
import numpy as np, onnxruntime as ort

def run(path, x, library, optimize):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if library:
        options.register_custom_ops_library(library)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]

def compare(path, library):
    worst = 0
    for x in np.load(path.with_suffix(".npz")).values():
        expected = run(path, x, None, True)
        for optimize in (True, False):
            y = run(path, x, library, optimize)
            finite = np.isfinite(expected)
            if y.dtype != expected.dtype or not np.array_equal(y[~finite], expected[~finite], equal_nan=True):
                return "NaN or infinity elsewhere"
            scale = np.abs(expected[finite]).max(initial=1) * np.finfo(np.float32).eps
            worst = max(worst, float(np.abs(y[finite] - expected[finite]).max(initial=0) / scale))
    return worst

results = {"onnxruntime": ort.__version__}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.onnx")):
    try:
        results[path.stem] = compare(path, sys.argv[2])
    except Exception as error:
        results[path.stem] = " ".join(str(error).split())[:200]
print(json.dumps(results))
"""


def write_models(folder: Path) -> None:
    """Files of each op, and networks of several, with inputs beside them."""
    import numpy as np
    import onnx
    from onnx import numpy_helper, parser

    from mncompress.export._functions import make_functions

    rng = np.random.default_rng(0)
    neurons = 20
    spline = "start, inverse_step, coefficients"
    kinks = "knots, changes, slope, intercept"
    nodes = {
        "CubicSpline": f"Y = ai.mncompress.CubicSpline (X, {spline})",
        "PiecewiseLinear": f"Y = ai.mncompress.PiecewiseLinear (X, {kinks})",
        "GemmCubicSpline": f"Y = ai.mncompress.GemmCubicSpline (X, weight, bias, {spline})",
        "GemmPiecewiseLinear": f"Y = ai.mncompress.GemmPiecewiseLinear (X, weight, bias, {kinks})",
        "FeedForward": f"""Y = ai.mncompress.FeedForward (X, weight, bias, {spline}, weight, bias, weight, bias, {kinks})""",
        "residual": f"""Y = ai.mncompress.FeedForward <residual = [1, 2]>
            (X, weight, bias, {spline}, weight, bias, {kinks}, weight, bias)""",
        "network": f"""h = ai.mncompress.GemmPiecewiseLinear (X, weight, bias, {kinks})
            u = Add (h, X)
            v = ai.mncompress.PiecewiseLinear (u, {kinks})
            w = Relu (v)
            Y = Gemm <transB = 1> (w, weight, bias)""",
    }
    draws = {"start": (neurons,), "knots": (neurons, 7), "changes": (neurons, 7), "slope": (neurons,), "intercept": (neurons,),
             "weight": (neurons, neurons), "bias": (neurons,)}
    arrays = {name: rng.standard_normal(shape) for name, shape in draws.items()}
    arrays["inverse_step"] = rng.uniform(1, 2, neurons)
    # Continuous across its intervals, since rounding may move an input from one to the next.
    values, slopes = rng.standard_normal((2, neurons, 10))
    rise = np.diff(values)
    arrays["coefficients"] = np.stack([values[:, :-1], slopes[:, :-1], 3 * rise - 2 * slopes[:, :-1] - slopes[:, 1:],
                                       slopes[:, :-1] + slopes[:, 1:] - 2 * rise], -1)
    for name, text in nodes.items():
        model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 18, "ai.mncompress": 1]>\n'
                                   f"{name} (float[batch, {neurons}] X) => (float[batch, {neurons}] Y) {{ {text} }}")
        model.graph.initializer.extend(
            numpy_helper.from_array(array.astype(np.float32), key) for key, array in arrays.items() if key in text)
        chains = {"FeedForward": ("CubicSpline", None, "PiecewiseLinear"), "residual": ("CubicSpline", "PiecewiseLinear", None)}
        chain = chains.get(name, ())
        ops = {op: neurons for op in ("CubicSpline", "PiecewiseLinear") if op in text or op in chain}
        model.functions.extend(make_functions(18, ops, fused=[op for op in ops if op in chain or f"Gemm{op}" in text], chain=chain,
                                               residual=[1, 2] if name == "residual" else ()))
        onnx.save(model, folder / f"{name}.onnx")
        x = (4 * rng.standard_normal((300, neurons))).astype(np.float32)
        strange = x[:6].copy()
        strange[np.arange(6), np.arange(6)] = [np.nan, np.inf, -np.inf, 1e30, -1e30, 0]
        np.savez(folder / f"{name}.npz", x, x[:1], x[:0], strange)


def make_python(folder: Path, release: str) -> str:
    """The interpreter of an environment with a release of onnxruntime."""
    if release == "installed":
        return sys.executable
    venv.create(folder, with_pip=True)
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    package = "onnxruntime" if release == "newest" else f"onnxruntime=={release}"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", package, "numpy"], check=True,
                   capture_output=True, text=True)
    return python


def check_release(folder: Path, models: Path, library: str, release: str) -> dict[str, float | str]:
    """The results of one release; a single entry `error` where it cannot be had."""
    try:
        python = make_python(folder / release, release)
        done = subprocess.run([python, "-c", CHECK, str(models), library], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as failure:
        lines = [line for line in failure.stderr.splitlines() if line.strip() and not line.startswith(("WARNING", "[notice]"))]
        return {"error": lines[-1] if lines else f"exit status {failure.returncode}"}
    return json.loads(done.stdout)


def main() -> int:
    """Print the table; the exit status is 1 if anything in it is an error."""
    from mncompress.native import library_path

    library = os.environ.get("MNCOMPRESS_LIBRARY") or str(library_path())
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder, "models")
        models.mkdir()
        write_models(models)
        for release in sys.argv[1:]:
            results = check_release(Path(folder), models, library, release)
            cells = [f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in results.items()]
            failed |= any(value > TOLERANCE if isinstance(value, float) else key != "onnxruntime" for key, value in results.items())
            print(f"{release:10}", *cells, sep="  ", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
