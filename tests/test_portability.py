"""portable.onnx computes the same everywhere: in ONNX Runtime, the onnx reference evaluator, OpenVINO, Node and a browser.

A case is a network with one set of replacements, written as `portable.onnx`. What a runtime makes of it is held against the
torch network in float64, in batches of 1 and 33 rows, of which a third lie ten to a million standard deviations outside every
domain, and for NaN and infinities. What is not here is skipped with a reason: CONTRIBUTING.md says how to get it.
"""

import base64
import copy
import functools
import http.server
import json
import os
import platform
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from mncompress import runtime, spline
from mncompress.analysis._inner import from_native
from mncompress.compression import Group, rewrite
from mncompress.errors import RuntimeProviderError
from mncompress.export import make_model, run_reference, write_onnx
from mncompress.nn import CubicSpline, Network, Polynomial, Standardize, make_body
from mncompress.spline import Affine
from mncompress.types import ACTS, ActivationSpec, NetworkSpec

pytestmark = pytest.mark.portability

HELPERS = Path(__file__).parent / "portability"
WEB_VARIABLE = "MNCOMPRESS_ORT_WEB"
WEB_SECONDS = 120
EPS = float(np.finfo(np.float32).eps)
TOLERANCE = 32 * EPS
"""Of the largest output of a row, or of 1: up to four Gemms, each a sum of up to 40 rounded terms some times as large as it,
and a boundary slope, a float32 sum of larger coefficients. A tolerance per entry would ask a runtime for the order of sums."""
IN, OUT = 3, 2
SIZES = {"few": 5, "many": 40}
"""Neurons per layer: the operator bodies change above 16, polynomials above 32."""
TANH, META = ActivationSpec("fixed", "tanh"), ActivationSpec("meta", "tanh", 3, 2)


# Cases


@dataclass(frozen=True)
class Recipe:
    """A network whose neurons are dealt out in turn to the forms `keys`; without any they keep the activation."""

    keys: tuple[str, ...] = ()
    activation: ActivationSpec = TANH
    layers: int = 1
    task: str = "classification"
    residual: bool = False
    module: Callable[[Any], torch.nn.Module] | None = None
    """Takes the form as it is, with nothing folded into the layer before."""
    large_batch: bool = False


@dataclass(frozen=True)
class Case:
    model: bytes
    batches: tuple[Any, ...]
    """1 row; 33 rows; and four rows of ordinary numbers, of which the first three have one NaN, infinity and -infinity."""
    expected: tuple[Any, ...]


SEVERAL = ("cubic_spline:8", "piecewise_linear", "polynomial", "native:gelu", "affine", "constant", "kept")
RECIPES = {
    **{key: Recipe((key,)) for key in ("piecewise_linear", "polynomial")},
    **{f"cubic_spline:{k}": Recipe((f"cubic_spline:{k}",)) for k in (1, 8, 32, 200, "linear")},
    **{f"native:{act}": Recipe((f"native:{act}",)) for act in ACTS},
    "cubic_spline, nothing folded": Recipe(("cubic_spline:8",), module=CubicSpline),
    "polynomial, nothing folded": Recipe(("polynomial",), module=Polynomial),
    "several": Recipe(SEVERAL),
    "several, residual": Recipe(SEVERAL, META, layers=3, residual=True),
    "several, regression": Recipe(SEVERAL, layers=2, task="regression"),
    "inner networks": Recipe(activation=META),
    "inner networks, large batch": Recipe(activation=META, large_batch=True),
    "wide inner networks": Recipe(activation=ActivationSpec("vaf", "silu", 16, 1)),
    "shared inner network": Recipe(activation=replace(META, shared=True)),
}


def make_network(recipe: Recipe, n: int) -> Network:
    """A network with random weights of a size that keeps its values near 1."""
    spec = NetworkSpec(IN, (n,) * recipe.layers, OUT, (recipe.activation,) * recipe.layers, recipe.task, False, recipe.residual)
    rng = np.random.default_rng(n)
    targets = Standardize(rng.normal(5, 1, OUT), rng.uniform(2, 3, OUT)) if recipe.task == "regression" else None
    network = Network(spec, make_body(spec), Standardize(np.full(IN, 0.3), np.full(IN, 1.7)), targets).requires_grad_(False)
    for parameter in network.body.parameters():
        fan_in = parameter.shape[-1] if parameter.ndim > 1 else 1
        parameter.copy_(torch.as_tensor(rng.uniform(-1.5, 1.5, parameter.shape) / np.sqrt(fan_in)))
    if recipe.module is not None:
        network.layers[0].activation = recipe.module(make_form(recipe.keys[0], n)).requires_grad_(False)
        return network
    return rewrite(network, [make_groups(recipe.keys, n)] * recipe.layers) if recipe.keys else network


def make_groups(keys: Sequence[str], n: int) -> list[Group]:
    parts = [(key, np.arange(start, n, len(keys))) for start, key in enumerate(keys[:n])]
    return [Group(key, part, make_form(key, len(part)), np.ones(len(part), bool)) for key, part in parts]


def make_form(key: str, n: int) -> Any:
    """Some replacement of n neurons; `kind:detail` has the act, the number of intervals, or `linear` for lines."""
    rng = np.random.default_rng(n)
    kind, _, detail = key.partition(":")
    alpha, beta, delta, eta = rng.uniform(0.5, 1, n), rng.uniform(0.3, 1, n), *rng.uniform(-1, 1, (2, n))
    if kind == "kept":
        return None
    if kind in ("constant", "affine"):
        return Affine(beta * (kind == "affine"), eta)
    if kind == "native":
        return spline.Native(detail, alpha, beta, delta, eta)
    if kind == "piecewise_linear":
        return spline.PiecewiseLinear(np.sort(rng.uniform(-2, 2, (n, 3)), 1), rng.uniform(-1, 1, (n, 3)), alpha, eta)
    target = spline.make_target(from_native(spline.Native("tanh", alpha, beta, delta, eta)), -2 - beta, 2 + beta)
    if kind == "polynomial":
        return spline.fit_polynomial(target, int(detail or 5))
    intervals, degree = (64, 1) if detail == "linear" else (int(detail or 5), 3)
    return spline.fit_spline(target, spline.span_knots(target.lo, target.hi, intervals), degree)


@functools.cache
def newest_opset() -> int:
    """The newest opset that the installed ONNX Runtime opens."""
    network = make_network(RECIPES["native:tanh"], 1)
    for opset in range(onnx.defs.onnx_opset_version(), 18, -1):
        try:
            runtime.make_session(make_model(network, opset_version=opset, metadata={}).SerializeToString())
        except RuntimeProviderError:
            continue
        return opset
    return 18


CASES = [f"{recipe}/{size}/opset {opset}" for recipe in RECIPES for size in SIZES for opset in (18, newest_opset())]


@functools.cache
def make_case(name: str) -> Case:
    recipe, size, opset = name.split("/")
    network = make_network(RECIPES[recipe], SIZES[size])
    rng = np.random.default_rng(1)
    z = rng.normal(size=(33, IN))
    z[22:] *= 10.0 ** (np.arange(11) % 6 + 1)[:, None]
    special = rng.normal(size=(4, IN))
    special[:3, 0] = np.nan, np.inf, -np.inf
    batches = tuple((rows * 1.7 + 0.3).astype(np.float32) for rows in (z[:1], z, special))
    exact = copy.deepcopy(network).double()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "portable.onnx"
        write_onnx(network, path, opset_version=int(opset.removeprefix("opset ")), inline=True, metadata={},
                   large_batch=RECIPES[recipe].large_batch)
        return Case(path.read_bytes(), batches, tuple(exact(torch.as_tensor(x).double()).numpy() for x in batches))


# Runtimes: each function opens one and returns what runs a case in it, batch by batch

Run = Callable[[str], list[Any]]


def open_onnxruntime(*, optimize: bool = True) -> Run:
    def run(name: str) -> list[Any]:
        session = runtime.make_session(make_case(name).model, optimize=optimize)
        return [session.run(None, {"input": x})[0] for x in make_case(name).batches]

    return run


def open_cuda() -> Run:
    """Without TF32, as `make_session` has it: ONNX Runtime otherwise uses it for products of float32 matrices, with 10 bits."""
    if reason := runtime.check_providers(["cuda"]):
        pytest.skip(reason)

    def run(name: str) -> list[Any]:
        session = runtime.make_session(make_case(name).model, providers=["cuda"])
        return [session.run(None, {"input": x})[0] for x in make_case(name).batches]

    return run


def open_reference() -> Run:
    def run(name: str) -> list[Any]:
        model = onnx.load_from_string(make_case(name).model)
        with np.errstate(all="ignore"):  # it warns where it casts NaN or overflows on the way to the right answer
            return [run_reference(model, x) for x in make_case(name).batches]

    return run


def open_openvino() -> Run:
    """In float32, which has to be said: see `test_openvino_says_in_which_precision_it_computes`."""
    def run(name: str) -> list[Any]:
        compiled = compile_openvino(name, {"INFERENCE_PRECISION_HINT": "f32"})
        return [compiled([x])[0].copy() for x in make_case(name).batches]

    import_openvino()
    return run


def compile_openvino(name: str, config: dict[str, str]) -> Any:
    core = import_openvino().Core()
    return core.compile_model(core.read_model(make_case(name).model), "CPU", {"INFERENCE_NUM_THREADS": 1, **config})


def import_openvino() -> Any:
    return pytest.importorskip("openvino", reason="openvino is not installed; see CONTRIBUTING.md")


def open_web(host: str, level: str) -> Run:
    results = run_in_web(host)

    def run(name: str) -> list[Any]:
        found = results[CASES.index(name)][level]
        assert isinstance(found, list), found  # else it is an error's message
        values = [np.frombuffer(base64.b64decode(data), np.float32) for data in found]
        return [each.reshape(-1, OUT) for each in values]

    return run


@functools.cache
def run_in_web(host: str) -> Any:
    """Results of all cases, optimized and not; see `tests/portability/run.mjs`."""
    packages = Path(os.environ.get(WEB_VARIABLE, "")) / "node_modules"
    program = shutil.which("node" if host == "Node" else "chromium")
    if WEB_VARIABLE not in os.environ:
        pytest.skip(f"{WEB_VARIABLE} names no folder with onnxruntime-web; see CONTRIBUTING.md")
    if not (packages / "onnxruntime-web").is_dir():
        pytest.skip(f"there is no {packages / 'onnxruntime-web'}; see CONTRIBUTING.md")
    if program is None:
        pytest.skip(f"{host} is not installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "node_modules").symlink_to(packages.resolve())
        for helper in HELPERS.iterdir():
            shutil.copy(helper, folder)
        for position, case in enumerate(CASES):
            (folder / f"{position}.onnx").write_bytes(make_case(case).model)
        inputs = [[{"dims": x.shape, "data": base64.b64encode(x.tobytes()).decode()} for x in make_case(case).batches]
                  for case in CASES]
        (folder / "cases.json").write_text(json.dumps(inputs))
        results = json.loads((run_node if host == "Node" else run_chromium)(program, folder))
    assert isinstance(results, list), results
    return results


def run_node(program: str, folder: Path) -> str:
    command = [program, folder / "node.mjs"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WEB_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_chromium(program: str, folder: Path) -> str:
    with serve(folder) as (port, posted):
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                   f"--user-data-dir={folder / 'profile'}", f"http://127.0.0.1:{port}/index.html"]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return posted.get(timeout=WEB_SECONDS)
        except queue.Empty:
            pytest.fail(f"{program} posted no results within {WEB_SECONDS} s")
        finally:
            browser.terminate()
            browser.wait()


@contextmanager
def serve(folder: Path) -> Any:
    """A local server of a folder: its port, and a queue of what is posted to it."""
    posted: queue.Queue[str] = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield server.server_port, posted
        finally:
            server.shutdown()


RUNTIMES: dict[str, Callable[[], Run]] = {
    "ONNX Runtime": open_onnxruntime,
    "ONNX Runtime, not optimized": lambda: open_onnxruntime(optimize=False),
    "ONNX Runtime on CUDA": open_cuda,
    "onnx reference evaluator": open_reference,
    "OpenVINO": open_openvino,
    "Node": lambda: open_web("Node", "all"),
    "Node, not optimized": lambda: open_web("Node", "disabled"),
    "Chromium": lambda: open_web("Chromium", "all"),
    "Chromium, not optimized": lambda: open_web("Chromium", "disabled"),
}


@pytest.fixture(scope="module", params=RUNTIMES)
def where(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def run(where: str) -> Run:
    return functools.cache(RUNTIMES[where]())


# Tests

def assert_same(y: Any, expected: Any) -> None:
    """NaN and infinities in the same places, and every row within TOLERANCE."""
    assert (y.dtype, y.shape) == (np.float32, expected.shape)
    sizes = np.where(np.isfinite(expected), np.abs(expected), 1).max(1, initial=1)
    for row, wanted, size in zip(y, expected, sizes, strict=True):
        np.testing.assert_allclose(row, wanted, rtol=0, atol=TOLERANCE * size)


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_the_network(run: Run, name: str) -> None:
    for y, expected in zip(run(name)[:2], make_case(name).expected[:2], strict=True):
        assert np.isfinite(expected).all()
        assert_same(y, expected)


@pytest.mark.parametrize("name", CASES)
def test_nan_and_infinity_give_what_they_give_in_torch_and_stay_in_their_row(where: str, run: Run, name: str) -> None:
    expected = make_case(name).expected[2]
    assert np.isnan(expected[0]).all()
    assert np.isfinite(expected[3]).all()
    defined = slice(1, None) if where == "OpenVINO" and name.startswith("native:relu") else slice(None)  # see the next test
    assert_same(run(name)[2][defined], expected[defined])


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="seen on x86-64 alone")
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("native:relu")])
def test_openvino_takes_relu_of_nan_for_zero(name: str) -> None:
    """As the processor's instruction max(x, 0), which gives its second operand where one is NaN; ONNX does not say."""
    y = open_openvino()(name)[2]
    initializers = {each.name: each for each in onnx.load_from_string(make_case(name).model).graph.initializer}
    np.testing.assert_array_equal(y[0], numpy_helper.to_array(initializers["layer1/linear/bias"]))


@pytest.mark.parametrize("name", ["polynomial/many/opset 18", "cubic_spline:32/few/opset 18"])
def test_openvino_says_in_which_precision_it_computes(name: str) -> None:
    """Its default is bfloat16 where the processor has that, with errors of percents; who wants float32 must ask for it."""
    compiled, case = compile_openvino(name, {}), make_case(name)
    error = np.abs(compiled([case.batches[1]])[0] - case.expected[1]).max(1) / np.abs(case.expected[1]).max(1, initial=1)
    in_float32 = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert (error.max() <= TOLERANCE) == in_float32


@pytest.mark.parametrize("level", ["all", "disabled"])
def test_browser_gives_the_bits_of_node(level: str) -> None:
    """Both run one WebAssembly module, whose arithmetic is exact to the bit but for a NaN's sign and payload."""
    node, browser = open_web("Node", level), open_web("Chromium", level)
    for name in CASES:
        for expected, y in zip(node(name), browser(name), strict=True):
            np.testing.assert_array_equal(y, expected)
