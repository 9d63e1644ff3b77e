"""ONNX Runtime sessions: opening a file on an execution provider, what its interface is, and running it on rows.

Providers go by short names: `cpu` and `cuda`. A session runs on the providers it was asked for or is an error: ONNX
Runtime's own habit of falling back to the CPU without a word would make every later figure wrong. Its messages on
stderr are kept quiet, since each failure here is one line of its own.

A model is a file with one float32 input (batch, features) of raw features and one float32 output (batch, n), `logits`
for classification or `output` for regression; the batch is dynamic.

Threads are those of the session's own pool. Spinning is left as ONNX Runtime has it (on for more than one thread): that
is what a caller in a tight loop wants, and what a benchmark must therefore measure.
"""

import contextlib
import ctypes
import functools
import importlib.metadata
import io
import os
import platform
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mncompress.errors import ConfigError, DataError, RuntimeProviderError
from mncompress.native import check_library, instruction_set
from mncompress.native import library_path as library_path
from mncompress.onnx_file import check_onnx
from mncompress.types import PathLike

PROVIDERS: Mapping[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""ONNX Runtime's name of each provider."""

ELEMENTWISE_ONLY = ("ai.mncompress.elementwise_only", "1")
"""A session's configuration entry with which the kernel library leaves the fused operators to their function bodies."""

_DRIVER_NAMES = {"win32": "nvcuda.dll"}


@dataclass(frozen=True)
class ModelInfo:
    """The interface of a model, read from its session."""

    in_features: int
    out_features: int
    output: str
    """The output's name: `logits`, `output`, or any other in a file from elsewhere."""
    metadata: Mapping[str, str]

    @property
    def is_regression(self) -> bool:
        """Whether the output is in the units of a target, told by its name."""
        return self.output == "output"


def available_providers() -> tuple[str, ...]:
    """Short names of the providers usable here.

    `cuda` is listed where this onnxruntime was built with it and the NVIDIA driver reports a device. Whether the CUDA
    and cuDNN libraries fit this onnxruntime shows only when a session is made.
    """
    built = onnxruntime.get_available_providers()
    return tuple(name for name, full in PROVIDERS.items() if full in built and (name != "cuda" or cuda_device_name()))


def check_providers(providers: Sequence[str]) -> str | None:
    """The reason why one of the providers cannot be used here, in one line with what to do, or None."""
    unknown = [name for name in providers if name not in PROVIDERS]
    if unknown or not providers:
        what = f"unknown provider {unknown[0]!r}" if unknown else "no provider given"
        return f"{what}; available here: {', '.join(available_providers())}"
    if "cuda" not in providers or "cuda" in available_providers():  # the driver is asked only where it matters
        return None
    built = PROVIDERS["cuda"] in onnxruntime.get_available_providers()
    why, remedy = (("the NVIDIA driver reports no device", "a machine with one") if built
                   else ("this onnxruntime was built without it", "install the package onnxruntime-gpu"))
    return f"provider 'cuda' is not available here: {why}; use {', '.join(available_providers())}, or {remedy}"


@functools.cache
def cuda_device_name() -> str | None:
    """The name of the first CUDA device, asked of the driver; None without a driver or a device.

    The driver library is called directly: neither torch nor a session is needed, and no context is created.
    """
    try:
        driver = ctypes.CDLL(_DRIVER_NAMES.get(sys.platform, "libcuda.so.1"))
    except OSError:
        return None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    found = driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), 0) == 0
    if not found or driver.cuDeviceGetName(name, len(name), device) != 0:
        return None
    return name.value.decode(errors="replace")


def make_session(path: PathLike | bytes, *, providers: Sequence[str] = ("cpu",), threads: int = 1, optimize: bool = True,
                 kernels: bool = True, cuda_graph: bool = False, tf32: bool = False,
                 examine: bool = True) -> onnxruntime.InferenceSession:
    """Open an ONNX file, or a serialized model, for inference.

    The kernel library is registered where there is one. A library that onnxruntime cannot load is a warning: the session then
    runs the function bodies. Plain onnxruntime has the kernels with two lines:

        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library(str(mncompress.runtime.library_path()))

    A registered operator hides its function body from every provider, so for CUDA, where the fused operators have no kernel,
    there is a line in between: `options.add_session_config_entry(*mncompress.runtime.ELEMENTWISE_ONLY)`. Products of
    matrices on CUDA are in full float32 unless `tf32` says otherwise; ONNX Runtime's own default is TF32.

    Args:
        path: the file, or the bytes of a model without external data.
        providers: short names in order of preference; ONNX Runtime gives the CPU what the others cannot run.
        threads: size of the pool within an operator; operators run one after another.
        optimize: whether ONNX Runtime may rewrite the graph. Without it is a second opinion on what a file computes.
        kernels: whether to use the kernel library, or else the function bodies in the file.
        cuda_graph: whether CUDA captures the first runs as a graph and replays it; every run must then use the same buffers.
        tf32: whether CUDA multiplies matrices in TF32: faster, with factors rounded to 10 bits behind the point.
        examine: whether to look first for what must not be run, see `onnx_file`; for a file that passed before it may be left out.

    Raises:
        ConfigError: `threads` is below 1, or a CUDA graph or TF32 is asked for without CUDA.
        RuntimeProviderError: a provider is unknown or not usable here, or the file is missing, truncated, not ONNX,
            refers to weights in a missing file, uses an operator that this onnxruntime lacks, or must not be run: see `onnx_file`.
    """
    if reason := check_providers(providers):
        raise RuntimeProviderError(reason)
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}")
    if cuda_graph and "cuda" not in providers:
        raise ConfigError(f"CUDA graphs exist on the provider cuda only, got {', '.join(providers)}")
    if tf32 and "cuda" not in providers:
        raise ConfigError(f"TF32 exists on the provider cuda only, got {', '.join(providers)}")
    name = "the given bytes" if isinstance(path, bytes) else str(path)
    _check_file(path, name, examine=examine)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4      # errors become exceptions
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    full_names = [(PROVIDERS[provider], _provider_options(provider, cuda_graph, tf32)) for provider in providers]
    if kernels:
        _register_kernels_(options, providers)
    try:
        with _cuda_libraries() if "cuda" in providers else contextlib.nullcontext():
            session = onnxruntime.InferenceSession(path, options, providers=full_names, enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        raise RuntimeProviderError(f"cannot open {name} as an ONNX model: {describe_error(error)}; "
                                   "export it again, or update onnxruntime") from error
    missing = [provider for provider in providers if PROVIDERS[provider] not in session.get_providers()]
    if missing:
        raise RuntimeProviderError(
            f"provider {missing[0]!r} has a device here but onnxruntime {onnxruntime.__version__} could not start it; "
            "use cpu, or install the CUDA and cuDNN it was built for (pip install 'onnxruntime-gpu[cuda,cudnn]')")
    return session


def _provider_options(provider: str, cuda_graph: bool, tf32: bool) -> dict[str, str]:
    """What a session sets for a provider; TF32 is named either way, since it is ONNX Runtime's default."""
    if provider != "cuda":
        return {}
    return {"use_tf32": "1" if tf32 else "0"} | ({"enable_cuda_graph": "1"} if cuda_graph else {})


def _check_file(path: PathLike | bytes, name: str, *, examine: bool) -> None:
    if not isinstance(path, bytes) and not Path(path).is_file():
        raise RuntimeProviderError(f"there is no file {name}; give the path of an ONNX file")
    try:
        reason = check_onnx(path) if examine else None
    except OSError as error:
        reason = f"it cannot be read, {error.strerror or error}"
    if reason:
        raise RuntimeProviderError(f"cannot open {name}: {reason}; give another ONNX file")


def _register_kernels_(options: onnxruntime.SessionOptions, providers: Sequence[str]) -> None:
    """Add the kernel library to a session's options, where there is one that loads."""
    library = library_path()
    if library is None:
        return
    if "cuda" in providers:
        options.add_session_config_entry(*ELEMENTWISE_ONLY)
    if reason := check_library():
        _warn_once(f"the kernels cannot be loaded, so the function bodies run instead, slower: {reason}; install mncompress again")
        return
    try:
        options.register_custom_ops_library(str(library))
    except Exception as error:  # as above
        _warn_once(f"the kernels in {library} cannot be loaded, so the function bodies run instead, slower: "
                   f"{describe_error(error)}; install mncompress again on this machine")


@functools.cache
def _warn_once(message: str) -> None:
    """A RuntimeWarning, once in a process however many sessions it concerns."""
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def model_info(session: onnxruntime.InferenceSession, *, name: str = "the model") -> ModelInfo:
    """Read a session's interface; `name` is what an error calls the model.

    Raises:
        RuntimeProviderError: the model has not one float32 input (batch, features) with a dynamic batch and one float32
            output (batch, n), or its metadata are no text.
    """
    ends = (*session.get_inputs(), *session.get_outputs())
    if len(session.get_inputs()) != 1 or len(ends) != 2 or not all(_is_rows(end) for end in ends):
        found = ", ".join(f"{end.name} {end.type}{end.shape}" for end in ends)
        raise RuntimeProviderError(f"{name} needs one float32 input and one float32 output of shape (dynamic batch, "
                                   f"fixed width), found {found}; export it in that form")
    try:
        metadata = dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise RuntimeProviderError(f"{name} has metadata that are not UTF-8; write the file again") from error
    return ModelInfo(ends[0].shape[1], ends[1].shape[1], ends[1].name, metadata)


def run(session: onnxruntime.InferenceSession, x: NDArray[Any], batch_size: int = 4096) -> NDArray[np.float32]:
    """The model's outputs (n, out_features) for raw features `x` (n, in_features) of any real dtype, batch by batch.

    Raises:
        DataError: `x` is no numeric table, or has another number of features than the model.
        RuntimeProviderError: the model fails on these rows.
    """
    info = model_info(session)
    if x.ndim != 2 or x.dtype.kind not in "fiub":
        raise DataError(f"features must be a numeric table (samples, features), got {x.shape = }, {x.dtype = }")
    if x.shape[1] != info.in_features:
        raise DataError(f"the data has {x.shape[1]} features, the model takes {info.in_features}; "
                        "use the data set the model was trained on")
    outputs = np.empty((len(x), info.out_features), np.float32)
    feature_name = session.get_inputs()[0].name
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        try:
            found = session.run([info.output], {feature_name: np.ascontiguousarray(x[rows], np.float32)})[0]
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            raise RuntimeProviderError(f"the model cannot be run on this data: {describe_error(error)}; export it again") from error
        if found.shape != outputs[rows].shape:
            raise RuntimeProviderError(f"the model gives {found.shape} for {outputs[rows].shape[0]} rows, not the "
                                       f"{outputs[rows].shape} that it declares; export it again")
        outputs[rows] = found
    return outputs


def describe_environment(providers: Sequence[str] = ("cpu",)) -> dict[str, Any]:
    """What a timing or a last digit depends on: processor, system, versions, and the GPU where `providers` names it."""
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "torch", "onnx")}
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "gpu": cuda_device_name() if "cuda" in providers else None,
        "os": platform.platform(),
        "python": platform.python_version(),
        **versions,
        "onnxruntime": onnxruntime.__version__,  # the distribution is onnxruntime or onnxruntime-gpu
        "kernels": instruction_set(),  # None without the library
    }


@contextlib.contextmanager
def _cuda_libraries() -> Iterator[None]:
    """Load the CUDA libraries that pip installed, and keep onnxruntime's complaints off stdout and stderr meanwhile."""
    onnxruntime.set_default_logger_severity(4)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # preload_dlls prints, and stdout may be a JSON document
            if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
                onnxruntime.preload_dlls()
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # its default; there is no getter


def _is_rows(end: Any) -> bool:
    """Whether an input or output is float32 of shape (dynamic, fixed)."""
    return (end.type == "tensor(float)" and len(end.shape) == 2
            and not isinstance(end.shape[0], int) and isinstance(end.shape[1], int))


def describe_error(error: Exception) -> str:
    """One line of an onnxruntime message, without its codes and the C++ signature that it begins with."""
    noise = r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .* failed:|/onnxruntime_src/\S+ .*\) (?=[A-Z]|\S+ [=!<>]+ )"
    return textwrap.shorten(re.sub(noise, "", str(error)).rstrip("."), 400, placeholder=" ...")


def _cpu_name() -> str:
    """The processor's model name where the system tells, else its architecture."""
    with contextlib.suppress(OSError):
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine()
