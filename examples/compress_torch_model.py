"""For the engineer: a trained torch model with learned activations becomes an ONNX file without them.

    python examples/compress_torch_model.py [--out digits.onnx]

The model is an ordinary `nn.Sequential` whose activations are mncompress's; nothing else of the training is ours.
`examples/run_from_cpp` runs the file in C++.
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import mncompress as mn
from mncompress.modules import export_module
from mncompress.nn import Vaf, initialize_activation_
from mncompress.types import ActivationSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="digits.onnx")
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split((x / 16).astype(np.float32), y, test_size=0.3, random_state=0)
    activation = Vaf(ActivationSpec("vaf", "tanh", width=5, depth=1), 32)
    initialize_activation_(activation)      # it begins as a tanh
    model = nn.Sequential(nn.Linear(64, 32), activation, nn.Linear(32, 10))
    fit_(model, torch.from_numpy(x_train), torch.from_numpy(y_train), options.steps)

    result = mn.compress(model, x_train, (x_test, y_test), mn.Budget(max_drop=1.0))
    for name, channels in result.decisions.items():
        kinds = [decision.kind for decision in channels]
        print(name, {kind: kinds.count(kind) for kind in sorted(set(kinds))})
    print(result.verdict["verdict"])
    export_module(result, torch.from_numpy(x_test), options.out)

    session = mn.runtime.make_session(options.out, providers=("cpu",))
    [logits] = session.run(None, {session.get_inputs()[0].name: x_test})
    print(f"{options.out}: accuracy {np.mean(logits.argmax(1) == y_test):.4f} on {len(y_test)} samples")


def fit_(model: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> None:
    """A plain training loop."""
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()


if __name__ == "__main__":
    main()
