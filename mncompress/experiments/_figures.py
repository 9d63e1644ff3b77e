"""The paper's figures as data: which networks each compares, and which claims it is to bear out.

"Exploring Generalized Trainable Activation Functions in Neural Networks" (A. Davis) compares networks of meta-neurons with
fixed ones on MNIST over 100 epochs, one network each. Where it says no more, its networks are taken to have one hidden layer
of 7 meta-neurons with relu, and one inner layer of 5; learned activations are those of the hidden layers, except in figure
4's network without one, whose outputs are activated. The paper does not tell its initialization. Cells are `matched`, which
starts every meta-neuron as the fixed activation; `Glorot` cells show what the usual initialization does to the claims.

`MINIMAL` was fixed before anything was computed: effects of less than half a point over a whole figure count as none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mncompress.experiments._claims import Claim, Difference, Level, Trend, constant_share, early, final, linear_share, wobble
from mncompress.types import ACTS, Act, TrainConfig

MINIMAL = 0.5
"""Percentage points."""
WIDTH = 7
SHAPES: dict[str, tuple[int, ...]] = {
    "no hidden layer": (), "hidden 3": (3,), "hidden 7": (7,), "hidden 3-3": (3, 3), "hidden 7-7": (7, 7)}
"""The hidden layers of figure 4."""
FIGURE_4_ACTS: tuple[Act, ...] = ("relu", "sigmoid", "tanh")
GLOROT = "Glorot"


@dataclass(frozen=True)
class Curve:
    """A cell in a figure: curves of one label have one color, and those of a variant are dashed."""

    label: str
    config: TrainConfig
    variant: str = ""

    @property
    def name(self) -> str:
        """As in a legend."""
        return f"{self.label}, {self.variant}" if self.variant else self.label


@dataclass(frozen=True)
class Panel:
    """Curves that are drawn into one plot."""

    title: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Experiment:
    """What `mncompress reproduce NAME` computes.

    The data, `replicates`, `epochs` and the device of the cells are replaced by those asked for.
    """

    title: str
    panels: tuple[Panel, ...]
    claims: tuple[Claim, ...]
    columns: int = 3
    """Panels in a row."""
    axis: str = ""
    """What the labels of the curves count or name; where given, the accuracy at the end is drawn over them too."""
    ordered: bool = True
    """Whether the labels are in an order, which the colors then follow."""
    draws_activations: bool = False
    """Draw the learned activations of the cells instead of their accuracy."""

    @property
    def cells(self) -> tuple[TrainConfig, ...]:
        """The cells that are drawn or compared, each once."""
        drawn = [curve.config for panel in self.panels for curve in panel.curves]
        return tuple(dict.fromkeys(drawn))


def meta(*hidden: int, inner: Act = "relu", **more: Any) -> TrainConfig:
    """Meta-neurons in each layer: trainable activations as the paper has them."""
    return TrainConfig(activation="meta", inner=inner, hidden=hidden, output_activation=not hidden, **more)


def fixed(*hidden: int, inner: Act = "relu", **more: Any) -> TrainConfig:
    """The traditional network of the same shape."""
    return TrainConfig(activation=f"fixed:{inner}", hidden=hidden, output_activation=not hidden, **more)


def _figure_4() -> Experiment:
    panels, matched, glorot, starts = [], [], [], []
    for shape, hidden in SHAPES.items():
        for act in FIGURE_4_ACTS:
            name = f"{shape}, {act}"
            curves = [Curve("trainable", meta(*hidden, inner=act)), Curve("fixed", fixed(*hidden, inner=act))]
            matched.append(Difference(name, curves[0].config, curves[1].config))
            if len(hidden) == 1:
                usual = [Curve("trainable", meta(*hidden, inner=act, init="glorot"), GLOROT),
                         Curve("fixed", fixed(*hidden, inner=act, init="glorot"), GLOROT)]
                glorot.append(Difference(name, usual[0].config, usual[1].config))
                starts.append(Difference(name, curves[0].config, usual[0].config))
                curves += usual
            panels.append(Panel(name, tuple(curves)))
    higher = "Trainable activations end at a higher accuracy than fixed ones, whatever the architecture and the activation"
    faster = "Trainable activations converge faster than fixed ones, whatever the architecture and the activation"
    usual_start = "; one hidden layer, everything with Glorot initialization"
    return Experiment(
        "Fixed and trainable activations", tuple(panels), (
            Claim(higher, final, tuple(matched), above=0),
            Claim(faster, early, tuple(matched), above=0),
            Claim(higher + usual_start, final, tuple(glorot), above=0),
            Claim(faster + usual_start, early, tuple(glorot), above=0),
            Claim("Not in the paper: trainable activations end higher with matched than with Glorot initialization", final,
                  tuple(starts), above=0)),
        ordered=False)


def _series(cells: Mapping[int, TrainConfig], title: str) -> tuple[Panel, Trend]:
    """A panel with a curve for each number, and the trend over the numbers."""
    panel = Panel(title, tuple(Curve(str(count), config) for count, config in cells.items()))
    return panel, Trend(f"{min(cells)} to {max(cells)}", tuple(cells), tuple(cells.values()))


def _figure_5() -> Experiment:
    cells = {n: meta(n) for n in range(1, 11)}
    panel, rise = _series(cells, "one hidden layer, relu")
    beyond = Difference(f"10 against {WIDTH}", cells[10], cells[WIDTH])
    return Experiment("Meta-neurons per layer", (panel,), (
        Claim("More meta-neurons per layer raise the accuracy", final, (rise,), above=0),
        Claim("More meta-neurons per layer converge faster", early, (rise,), above=0),
        Claim("More meta-neurons per layer train more stably", wobble, (rise,), below=0),
        Claim("Beyond about 7 meta-neurons per layer the benefit is minimal", final, (beyond,), below=MINIMAL)),
        axis="meta-neurons per layer")


def _figure_6() -> Experiment:
    panel, rise = _series({n: meta(WIDTH, inner_layers=n) for n in range(1, 6)}, f"{WIDTH} meta-neurons, relu")
    return Experiment("Inner hidden layers", (panel,), (
        Claim("More hidden layers inside a meta-neuron have no effect on the accuracy, or a negative one", final, (rise,),
              below=MINIMAL),
        Claim("More hidden layers inside a meta-neuron have no effect on the speed of convergence, or a negative one", early,
              (rise,), below=MINIMAL)),
        axis="inner hidden layers")


def _figure_7() -> Experiment:
    panel, rise = _series({n: meta(WIDTH, inner_width=n) for n in range(1, 16)}, f"{WIDTH} meta-neurons, relu")
    return Experiment("Inner width", (panel,), (
        Claim("The inner width has no clear effect on the accuracy", final, (rise,), above=-MINIMAL, below=MINIMAL),
        Claim("The inner width has no clear effect on the speed of convergence", early, (rise,), above=-MINIMAL, below=MINIMAL)),
        axis="inner width")


def _figure_8() -> Experiment:
    plain = {n: meta(*[WIDTH] * n) for n in range(1, 6)}
    residual = {n: meta(*[WIDTH] * n, residual=n > 1) for n in range(1, 6)}
    panel, rise = _series(plain, "no residual connections")
    other_panel, other_rise = _series(residual, "residual connections across layers")
    deepest = Difference("5 layers, with against without", residual[5], plain[5])
    return Experiment("Layers of meta-neurons", (panel, other_panel), (
        Claim("More layers of meta-neurons without residual connections lower the accuracy", final, (rise,), below=0),
        Claim("More layers of meta-neurons without residual connections converge more slowly", early, (rise,), below=0),
        Claim("Implied: with residual connections across layers, more layers do not lower the accuracy", final, (other_rise,),
              above=-MINIMAL),
        Claim("Implied: residual connections across layers raise the accuracy of deep networks", final, (deepest,), above=0),
        Claim("Implied: deep networks converge faster with residual connections across layers", early, (deepest,), above=0)),
        axis="layers of meta-neurons")


def _figure_9() -> Experiment:
    panels, claims = [], []
    for init, title in (("matched", "matched initialization"), ("glorot", "Glorot initialization")):
        cells = {act: meta(WIDTH, inner=act, init=init) for act in ACTS}
        panels.append(Panel(title, tuple(Curve(act, config) for act, config in cells.items())))
        against = tuple(Difference(f"relu against {act}", cells["relu"], cells[act]) for act in ACTS if act != "relu")
        claims += [Claim(f"relu inside meta-neurons converges more slowly than every other activation; {title}", early, against,
                         below=0),
                   Claim(f"relu inside meta-neurons ends at a lower accuracy than every other activation; {title}", final,
                         against, below=0)]
    return Experiment("The activation inside meta-neurons", tuple(panels), tuple(claims), axis="inner activation",
                      ordered=False)


def _figure_10() -> Experiment:
    cells = {"matched": meta(3), GLOROT: meta(3, init="glorot")}
    panels = tuple(Panel(f"{init} initialization", (Curve("trainable", config),)) for init, config in cells.items())
    claims = []
    for init, config in cells.items():
        level = (Level("3 meta-neurons, relu", config),)
        claims += [Claim(f"Some of the learned activations are linear; {init} initialization", linear_share, level, above=0),
                   Claim(f"Not in the paper: some are constant; {init} initialization", constant_share, level, above=0)]
    return Experiment("Learned activations", panels, tuple(claims), draws_activations=True)


EXPERIMENTS: dict[str, Experiment] = {
    "fig4": _figure_4(),
    "fig5": _figure_5(),
    "fig6": _figure_6(),
    "fig7": _figure_7(),
    "fig8": _figure_8(),
    "fig9": _figure_9(),
    "fig10": _figure_10(),
}
"""What can be reproduced, by name."""
