"""Small inputs of the scenarios, made from a seed: data sets, run folders, compressed folders."""

from pathlib import Path

import numpy as np

from scenarios.server import Server

FEATURES, CLASSES = 3, 2
TRAIN = ("train", "--data", "../data.npz", "--hidden", "3", "--epochs", "4", "--replicates", "2", "--batch-size", "16",
         "--device", "cpu", "--quiet")
"""Relative to the folder of a case, beside which the inputs lie."""


def write_data(path: Path, seed: int = 0, rows: int = 80) -> Path:
    """An npz file of two separable classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    y = (x.sum(1) > 0).astype(np.int64)
    part = rows * 3 // 4
    np.savez(path, x_train=x[:part], y_train=y[:part], x_test=x[part:], y_test=y[part:])
    return path


def make_inputs(server: Server, folder: Path) -> Path:
    """A folder with `data.npz`, the finished `run`, `compressed`, and `case`, an empty folder in which commands are run."""
    case = folder / "case"
    case.mkdir(parents=True)
    write_data(folder / "data.npz")
    for args in ((*TRAIN, "--out", "../run"), ("compress", "../run", "--max-drop", "50", "--out", "../compressed", "--quiet")):
        outcome = server.run(args, case)
        assert outcome.code == 0, outcome
    return folder
