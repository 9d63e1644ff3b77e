"""What a benchmark is asked to do."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mncompress.benchmark._inputs import Range
from mncompress.benchmark._statistics import MIN_GROUPS
from mncompress.errors import ConfigError

BATCH_SIZES = (1, 32, 1024)
SESSIONS = 8
MOST_THREADS = 1024
"""More take a session minutes to open."""
MOST_SESSIONS = 1000
"""The probabilities behind an interval of more sessions are no float64."""
MOST_ROWS = 2**31
"""Of a batch; with more, the bytes of an input may be no 64-bit number."""
SPIN_SECONDS = 0.12
"""Longer than the workers of a session wait actively for more work after a run: a tenth of a second."""


@dataclass(frozen=True)
class Settings:
    """The conditions to measure under, and how."""

    providers: tuple[str, ...] = ("cpu",)
    """Execution providers, each measured by itself."""
    batch_sizes: tuple[int, ...] | None = None
    """Rows per run; where None, `BATCH_SIZES`, or those that models with a fixed batch have."""
    threads: tuple[int, ...] = (1,)
    """Sizes of a session's pool."""
    seconds: float = 2.0
    """For the rounds of one condition, all models together; warming up comes on top."""
    rounds: int | None = None
    """Samples of each model under one condition, rounded up to a multiple of `sessions`; None: what fits into `seconds`."""
    sessions: int = SESSIONS
    """How often each model is opened anew under one condition, at least 6: an interval is that of the sessions."""
    seed: int = 0
    """Determines drawn inputs and all orders."""
    baseline: str | None = None
    """The model that the others are compared with; the first where None."""
    dims: Mapping[str, int] = field(default_factory=dict)
    """Sizes of symbolic dimensions other than the batch."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Between what the values of an input are drawn."""
    io_binding: bool = True
    """Whether inputs and outputs stay in buffers on the device; otherwise each run takes and gives NumPy arrays."""
    cuda_graph: bool = False
    """Whether runs on CUDA are captured once as a graph and replayed."""
    tf32: bool = False
    """Whether CUDA multiplies matrices in TF32, as ONNX Runtime does by default, and not in float32."""
    idle_seconds: float | None = None
    """Pause before each sample; where None, none for one thread, and `SPIN_SECONDS` for more."""
    pin: bool = False
    """Whether to keep each measurement on as many cores as it has threads."""
    startup: int = 3
    """Fresh processes for each model to measure its first run in; 0 leaves that out."""

    def __post_init__(self) -> None:
        for name in ("providers", "threads", "batch_sizes"):
            if getattr(self, name) == ():
                raise ConfigError(f"{name} must not be empty")
        for what, sizes in (("a batch size", self.batch_sizes or ()), ("threads", self.threads)):
            if any(size < 1 for size in sizes):
                raise ConfigError(f"{what} must be at least 1, got {min(sizes)}")
        for name, sizes, most in (("threads", self.threads, MOST_THREADS), ("batch sizes", self.batch_sizes or (), MOST_ROWS),
                                  ("sessions", (self.sessions,), MOST_SESSIONS)):
            if max(sizes, default=1) > most:
                raise ConfigError(f"{name} must be at most {most}, got {max(sizes)}")
        if self.rounds is not None and self.rounds < 1:
            raise ConfigError(f"rounds must be at least 1, got {self.rounds}")
        if self.sessions < MIN_GROUPS:
            raise ConfigError(f"sessions must be at least {MIN_GROUPS} for a 95 % interval, got {self.sessions}")
        if not 0 < self.seconds < math.inf:
            raise ConfigError(f"seconds must be positive and finite, got {self.seconds}")
        if self.idle_seconds is not None and not 0 <= self.idle_seconds < math.inf:
            raise ConfigError(f"the idle gap must be finite and not negative, got {self.idle_seconds}")
        if self.startup < 0 or self.seed < 0:
            raise ConfigError(f"startup and seed must not be negative, got {self.startup} and {self.seed}")
        if self.cuda_graph and set(self.providers) != {"cuda"}:
            raise ConfigError(f"CUDA graphs exist on the provider cuda only, got {', '.join(self.providers)}; "
                              "pass --providers cuda or leave out --cuda-graph")
        if self.tf32 and set(self.providers) != {"cuda"}:
            raise ConfigError(f"TF32 exists on the provider cuda only, got {', '.join(self.providers)}; "
                              "pass --providers cuda or leave out --tf32")
        if self.cuda_graph and not self.io_binding:
            raise ConfigError("a CUDA graph needs fixed buffers on the device; leave out --no-io-binding or --cuda-graph")

    def idle_for(self, threads: int) -> float:
        """The pause before each sample, in seconds."""
        if self.idle_seconds is not None:
            return self.idle_seconds
        return 0.0 if threads == 1 else SPIN_SECONDS
