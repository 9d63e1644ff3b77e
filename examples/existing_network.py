"""For someone with a network that exists: its own activation class is registered, its file is written, and both are timed.

    python examples/existing_network.py [--folder existing]

The network stands for one from elsewhere, with weights that are loaded and a class that mncompress has never seen.
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import make_regression
from torch import Tensor, nn

import mncompress as mn
from mncompress.benchmark import Settings, benchmark
from mncompress.modules import export_module


@mn.register_activation()
class Snake(nn.Module):
    """u + sin²(a u) / a with a frequency for each neuron (Ziyin et al. 2020, arXiv:2006.08195)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.linspace(0.5, 2.0, n))

    def forward(self, u: Tensor) -> Tensor:
        return u + torch.sin(self.a * u) ** 2 / self.a


class TheirNetwork(nn.Module):
    """Two layers with a residual connection around the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act1 = nn.Linear(6, 24), Snake(24)
        self.second, self.act2 = nn.Linear(24, 24), Snake(24)
        self.last = nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act1(self.first(x))
        return self.last(h + self.act2(self.second(h)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("existing"))
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    network = TheirNetwork().eval()
    x = torch.tensor(make_regression(4000, 6, random_state=0)[0], dtype=torch.float32)
    with torch.no_grad():
        y = network(x)

    result = mn.compress(network, x[:3000], (x[3000:], y[3000:] + 0.1 * torch.randn(1000, 1)), mn.Budget(max_drop=1.0),
                         task="regression")
    for name, channels in result.decisions.items():
        print(name, sorted({decision.kind for decision in channels}))
    for name, reason in result.left_alone.items():
        print(f"{name} stays: {reason}")
    with torch.no_grad():
        print(f"largest change of an output: {(result.network(x) - y).abs().max():.2g} of {y.abs().max():.2g}")

    paths = {"compressed": options.folder / "compressed.onnx", "original": options.folder / "original.onnx"}
    export_module(result, x[:16], paths["compressed"])
    torch.onnx.export(network, (x[:1],), paths["original"], dynamo=False, input_names=["input"],
                      dynamic_axes={"input": {0: "batch"}})
    found = benchmark(paths, Settings(baseline="original", batch_sizes=(1, 256), seconds=options.seconds, startup=0))
    for row in found.latency:
        print(f"{row.model:10} batch {row.batch:4}: {row.median_us:8.1f} us")


if __name__ == "__main__":
    main()
