"""The commands that lead to a report once more."""

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from mncompress.data import IN_MEMORY
from mncompress.types import Budget, Report, TrainConfig

_ALWAYS = ("data", "activation", "hidden", "epochs", "seed")
"""Training options that are written even where they are the default."""
_PACKAGES = ("mncompress", "torch", "onnx", "onnxruntime", "numpy")


def make_commands(report: Report) -> list[list[str]]:
    """What to type, as the words of each command: the versions to install, training, compression.

    Words are quoted for a shell. A recipe that is not known leaves its command out; no command has data that was given as arrays.
    """
    commands = [_install(report.environment)]
    if report.config.get("data") != IN_MEMORY:
        commands += [_train(report.config)] if report.config else []
        commands.append(_compress(report.budget, report.options))
    return [[shlex.quote(word) for word in command] for command in commands if command]


def _install(environment: Mapping[str, Any]) -> list[str]:
    pinned = [f"{name}=={environment[name]}" for name in _PACKAGES if name in environment]
    return ["pip", "install", *pinned] if pinned else []


def _train(config: Mapping[str, Any]) -> list[str]:
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    words = ["mncompress", "train"]
    for name, value in config.items():
        value = tuple(value) if isinstance(value, list) else value
        if name in defaults and (name in _ALWAYS or value != defaults[name]):
            words += _option(name, value)
    return [*words, "--out", "run"]


def _compress(budget: Budget, options: Mapping[str, Any]) -> list[str]:
    words = ["mncompress", "compress", "run"]
    for name in ("preset", "max_drop", "max_logit_error", "max_error_bound", "target", "target_macs", "target_latency"):
        value = getattr(budget, name)
        if value is not None and value != getattr(Budget(), name):
            words += _option(name, value)
    for name in ("include", "exclude"):
        words += [word for pattern in getattr(budget, name) for word in _option(name, pattern)]
    if options.get("plan"):         # it has the budget, and forbids targets and patterns beside it
        words = ["mncompress", "compress", "run", "--plan", "plan.json"]
    for name, default in (("replicate", None), ("data", None), ("data_dir", None), ("opset", 18), ("finetune", 0)):
        if options.get(name) not in (None, default):
            words += _option(name, options[name])
    return [*words, "--out", "compressed"]


def _option(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, tuple):
        return [flag, ",".join(map(str, value)) or "none"]
    return [flag, str(value)]
