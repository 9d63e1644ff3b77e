"""Compressing networks that are not mncompress's own: registration, probing, folding, the forms in place, ONNX."""


import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn

from mncompress import compression, export_onnx, runtime, spline
from mncompress.analysis import LayerOptions, choose, keep_all
from mncompress.checkpoint import make_template
from mncompress.data import Standardization
from mncompress.errors import ConfigError, DataError, ExportError
from mncompress.modules import AlongAxis, ModuleResult, _compress, compress_module, export_module, register_activation
from mncompress.modules._functions import make_functions
from mncompress.modules._pieces import add_pieces
from mncompress.modules._probe import probe
from mncompress.modules._registry import STANDARD, find_activations
from mncompress.modules._rewrite import rewrite
from mncompress.modules._topology import Topology, fold_norms
from mncompress.nn import CubicSpline, Scale, Vaf, initialize_
from mncompress.types import ActivationSpec, Budget, NetworkSpec

pytestmark = pytest.mark.usefixtures("one_thread")

VAF = ActivationSpec("vaf", "tanh", 4, 1)


def make_vaf(n: int, spec: ActivationSpec = VAF) -> Vaf:
    vaf = Vaf(spec, n)
    for parameter in vaf.parameters():
        nn.init.normal_(parameter, std=0.7)
    return vaf


@register_activation(channel_axis=1)
class ChannelVaf(nn.Module):
    """One function a channel of an image, which mncompress knows nothing of."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.vaf = make_vaf(n)

    def forward(self, u):
        return self.vaf(u.movedim(1, -1)).movedim(-1, 1)


class Gate(nn.Module):
    """u sigmoid(a u) + b: learned, elementwise, with the protocol instead of a registration."""

    mncompress_channel_axis = -1

    def __init__(self, n: int) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.linspace(0.5, 2, n)), nn.Parameter(torch.linspace(-1, 1, n))

    def forward(self, u):
        return u * torch.sigmoid(self.a * u) + self.b


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.act1 = ChannelVaf(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.act2 = ChannelVaf(channels)

    def forward(self, x):
        return self.act2(x + self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x))))))


class Cnn(nn.Module):
    """Stem, a residual block, a head; with activations of every sort."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), ChannelVaf(8))
        self.block = Block(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8, 16), make_vaf(16), nn.Dropout(0.1), nn.Linear(16, 16),
                                  nn.PReLU(16), nn.Linear(16, 10))

    def forward(self, x):
        return self.head(self.pool(self.block(self.stem(x))))


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    x = (found.images / 16).astype(np.float32)[order, None]
    return (x[:1200], found.target[order[:1200]]), (x[1200:], found.target[order[1200:]])


@pytest.fixture(scope="module")
def cnn(digits, one_thread):
    torch.manual_seed(0)
    network, (x, y) = Cnn(), map(torch.as_tensor, digits[0])
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(12):
        for start in range(0, len(x), 64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[start:start + 64]), y[start:start + 64]).backward()
            optimizer.step()
    return network


@pytest.fixture(scope="module")
def compressed(cnn, digits) -> ModuleResult:
    return compress_module(cnn, digits[0][0], digits[1], Budget(max_drop=3.0))


def run(module: nn.Module, x) -> np.ndarray:
    with torch.no_grad():
        return module(torch.as_tensor(x)).numpy()


def randomize_norms_(network: nn.Module) -> None:
    """As if they had been trained."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for value, low, high in ((module.weight, 0.5, 2), (module.bias, -1, 1), (module.running_mean, -1, 1),
                                     (module.running_var, 0.3, 3)):
                nn.init.uniform_(value, low, high)


def test_a_cnn_is_compressed_within_its_budget(cnn, digits, compressed):
    x, y = digits[1]
    cnn.eval()
    before, after = run(cnn, x), run(compressed.network, x)
    assert (before.argmax(1) == y).mean() > 0.8     # it learned something
    assert 100 * ((before.argmax(1) == y).mean() - (after.argmax(1) == y).mean()) <= 3
    assert compressed.verdict["ok"]
    assert np.abs(after - before).max() == pytest.approx(compressed.verdict["max_abs_logit_error"], rel=1e-5)
    assert set(compressed.decisions) == {"stem.2", "block.act1", "block.act2", "head.2"}
    assert {len(channels) for channels in compressed.decisions.values()} == {8, 16}
    assert all(one.kind != "kept" for channels in compressed.decisions.values() for one in channels)
    assert compressed.left_alone == {"head.5": "PReLU is native: every runtime computes it as it stands"}


def test_normalizations_are_folded_and_the_original_is_not_touched(cnn, compressed):
    assert not any(isinstance(module, nn.BatchNorm2d | ChannelVaf | Vaf) for module in compressed.network.modules())
    assert isinstance(cnn.block.act1, ChannelVaf)
    assert isinstance(cnn.block.norm1, nn.BatchNorm2d)
    assert cnn.block.conv1.bias is None
    assert type(compressed.network) is Cnn


def test_the_file_computes_what_the_module_computes(compressed, digits, tmp_path):
    x = digits[1][0]
    for name, inline in (("a.onnx", False), ("b.onnx", True)):
        path = export_module(compressed, x[:20], tmp_path / name, inline=inline)
        session = runtime.make_session(path)
        found = session.run(["logits"], {"input": x})[0]
        # float32 on both sides: rounding of a few layers
        np.testing.assert_allclose(found, run(compressed.network, x), rtol=1e-4, atol=1e-4)
        domains = {node.domain for node in onnx.load(path).graph.node}
        assert domains == ({""} if inline else {"", "ai.mncompress"})
    assert not list(tmp_path.glob(".*"))


def test_the_head_of_a_torchvision_model(tmp_path):
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None)
    network.fc = nn.Sequential(nn.Linear(512, 12), Gate(12), nn.Linear(12, 4))
    randomize_norms_(network.eval())
    x = torch.rand(96, 3, 32, 32)
    y = run(network, x).argmax(1)
    result = compress_module(network, x[:48], (x[48:], y[48:]), Budget(max_logit_error=0.05 * float(np.abs(run(network, x)).max())))
    assert list(result.decisions) == ["fc.1"]
    assert {one.kind for one in result.decisions["fc.1"]} != {"kept"}
    assert result.left_alone["layer1.0.relu"].startswith("ReLU is native")
    kinds = {type(module) for module in result.network.modules()}
    assert nn.BatchNorm2d not in kinds
    assert Gate not in kinds
    shapes = {name: module.weight.shape for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    assert shapes == {name: module.weight.shape for name, module in result.network.named_modules() if isinstance(module, nn.Conv2d)}
    folded, stays = fold_norms(network, [], x)
    assert stays == {}
    # folding alone: the same outputs but for float32 rounding in 20 layers
    np.testing.assert_allclose(run(folded, x), run(network, x), rtol=1e-3, atol=1e-3 * np.abs(run(network, x)).max())
    for name, shape in shapes.items():
        np.testing.assert_array_equal(result.network.get_submodule(name).weight, folded.get_submodule(name).weight)
        assert shape == folded.get_submodule(name).weight.shape
    export_module(result, x[:2], tmp_path / "resnet.onnx")


class Site(nn.Module):
    """An activation between two modules, read once more where `skip`."""

    def __init__(self, before: nn.Module, act: nn.Module, behind: nn.Module, skip: bool = False) -> None:
        super().__init__()
        self.before, self.act, self.behind, self.skip = before, act, behind, skip

    def forward(self, x):
        y = self.act(self.before(x))
        return (self.behind(y) + y if self.skip else self.behind(y)).flatten(1)


CONV = {"padded": {"padding": 1}, "valid": {}, "reflecting": {"padding": 1, "padding_mode": "reflect"}}
PLACES = {
    "linear": lambda act: (Site(nn.Linear(3, 6), act(-1), nn.Linear(6, 4)), (3,)),
    "residual": lambda act: (Site(nn.Linear(3, 6), act(-1), nn.Linear(6, 6), skip=True), (3,)),
    "unfoldable": lambda act: (Site(nn.LayerNorm(6), act(-1), nn.LayerNorm(6)), (6,)),
    "grouped": lambda act: (Site(nn.Conv2d(3, 6, 3, groups=3), act(1), nn.Conv2d(6, 4, 3, groups=2)), (3, 6, 6)),
    "depthwise": lambda act: (Site(nn.Conv2d(6, 6, 3, groups=6), act(1), nn.Conv2d(6, 4, 3)), (6, 6, 6)),
    "tokens": lambda act: (Site(nn.Linear(3, 6), act(-1), nn.Linear(6, 4)), (5, 3)),
    **{name: lambda act, more=more: (Site(nn.Conv2d(3, 6, 3, **more), act(1), nn.Conv2d(6, 4, 3, **more)), (3, 6, 6))
       for name, more in CONV.items()},
}


def replaced_by(network: nn.Module, sites, groups) -> nn.Module:
    """The network with forms evaluated as `mncompress.spline` says, in place of the activations: an independent rewriting."""

    class Evaluate(nn.Module):
        def __init__(self, site, parts) -> None:
            super().__init__()
            self.site, self.parts = site, parts

        def forward(self, u):
            flat = u.movedim(self.site.axis, -1).detach().numpy()
            y = np.empty(flat.shape)
            for group in self.parts:
                y[..., group.indices] = (self.site.options.inner(flat.reshape(-1, flat.shape[-1]))[:, group.indices].reshape(
                    flat[..., group.indices].shape) if group.form is None else group.form.evaluate(flat[..., group.indices]))
            return torch.from_numpy(y).movedim(-1, self.site.axis)

    for site, parts in zip(sites, groups, strict=True):
        network.set_submodule(site.name, Evaluate(site, parts))
    return network


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("opaque", [False, True])
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_rewriting_computes_what_the_forms_say(place, opaque, data):
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    width = 3 if opaque else 2

    def make(axis):
        vaf = make_vaf(6, ActivationSpec("vaf", "tanh" if opaque else "relu", width, 1))
        return ChannelVaf(6) if opaque and axis == 1 else Gate(6) if opaque else AlongAxis(vaf, axis) if axis == 1 else vaf

    network, shape = PLACES[place](make)
    x = torch.randn(40, *shape)
    base, sites, left = _compress.prepare(network.eval().requires_grad_(False), x, Budget(target=data.draw(
        st.sampled_from(["native", "portable"]))))
    assert left == {}
    (site,) = sites
    assert (site.producer, site.consumer) == {
        "linear": ("before", "behind"), "tokens": ("before", "behind"), "residual": ("before", None), "unfoldable": (None, None),
        "grouped": ("before", None)}.get(place, ("before", "behind"))
    groups, rest = [], np.random.default_rng(data.draw(st.integers(0, 1000))).permutation(6)
    keys = sorted(key for key, error in site.options.errors.items() if np.isfinite(error).all())
    keys += [] if opaque else ["kept"]
    chosen = data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3, unique=True))
    for key, indices in zip(chosen, np.array_split(rest, len(chosen)), strict=True):
        indices = np.sort(indices)
        form = None if key == "kept" else site.options.build(key, np.full(6, np.inf), indices)
        groups.append(_compress.Group(key, indices, form, np.ones(len(indices), bool)))
    found = rewrite(base, sites, [groups]).double()
    expected = replaced_by(base.double(), sites, [groups])
    scale = 1 + np.abs(run(expected, x.double())).max()
    # float64 throughout, but for parameters that were rounded to float32: 2**-24 each, times the sizes of alpha, beta and weights
    sizes = [np.abs(value).max() for group in groups if group.form is not None for value in vars(group.form).values()
             if isinstance(value, np.ndarray)]
    np.testing.assert_allclose(run(found, x.double()), run(expected, x.double()), rtol=1e-5,
                               atol=1e-5 * scale * max([1.0, *sizes]))


def test_constants_leave_the_network():
    torch.manual_seed(0)
    network, x = Site(nn.Linear(3, 6), make_vaf(6), nn.Linear(6, 4)).eval().requires_grad_(False), torch.randn(40, 3)
    network.act.out_weight[[1, 4]] = 0
    base, sites, _ = _compress.prepare(network, x, Budget(target="native"))
    tolerance = np.full(6, 1e-5)
    choice = choose(sites[0].options, tolerance)
    assert (choice.keys == "constant").tolist() == [False, True, False, False, True, False]
    options = sites[0].options
    found = rewrite(base, sites, [compression.make_groups(options, compression.assign(options, choice, tolerance))])
    assert (found.before.out_features, found.before.weight.shape, found.behind.weight.shape) == (4, (4, 3), (4, 4))
    # 6 errors of 1e-5 and weights below 1; the fits' domains contain x
    np.testing.assert_allclose(run(found, x), run(network, x), rtol=0, atol=6e-5)


def test_keeping_everything_changes_nothing(cnn, digits):
    network = cnn.eval().requires_grad_(False)
    base, sites, _ = _compress.prepare(network, torch.as_tensor(digits[0][0]), Budget(target="native"))
    choices = [keep_all(site.options, np.full(site.options.n, -1.0)) for site in sites]
    groups = [compression.make_groups(site.options, compression.assign(site.options, choice, np.full(site.options.n, -1.0)))
              for site, choice in zip(sites, choices, strict=True)]
    x = digits[1][0]
    np.testing.assert_array_equal(run(rewrite(base, sites, groups), x), run(base, x))


class Bent(nn.Module):
    """A relu; bounded as well in the last channel, which has a second knot."""

    mncompress_channel_axis = -1

    def forward(self, u):
        return torch.cat([u[..., :-1].relu(), u[..., -1:].clamp(0, 0.3)], -1)


def test_settings_are_those_of_plans(digits):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), Bent(), nn.Linear(16, 16),
                            make_vaf(16, ActivationSpec("vaf", "relu", 8, 1)), nn.Linear(16, 10))
    result = compress_module(network, digits[0][0], digits[1], Budget(max_logit_error=0.03, target="native"))
    assert [one.settings for one in result.decisions["2"]] == [{"knots": 1}] * 15 + [{"knots": 2}]
    assert {one.settings["form"] for one in result.decisions["4"] if one.kind == "piecewise_linear"} == {"reduced"}


class Broken(nn.Module):
    """Not elementwise, in a way of one's choice."""

    mncompress_channel_axis = 1

    def __init__(self, how) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, u):
        return self.how(self, u)


def count_(self, u):
    self.calls += 1
    return u


RAMP = torch.linspace(0, 1, 5)
REFUSED = {
    "other channels": lambda self, u: u.softmax(1),
    "next channel": lambda self, u: u + 0.01 * u.roll(1, 1),
    "other positions": lambda self, u: u - u.mean(-1, keepdim=True),
    "other samples": lambda self, u: u - u.mean(0),
    "every position": lambda self, u: u * RAMP.to(u.dtype),
    "in place": lambda self, u: u.relu_(),
    "keep the shape": lambda self, u: u[..., :2],
    "different outputs": lambda self, u: u + torch.rand_like(u),
    "its own state": count_,
    "not finite": lambda self, u: u.log(),
    "number of positions": lambda self, u: u * u.shape[-1],
    "ValueError: no such thing": lambda self, u: (_ for _ in ()).throw(ValueError("no such thing")),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_elementwise_is_refused(reason):
    domain = np.stack([-np.ones(4), np.ones(4)], 1)
    found = probe(make_functions(Broken(REFUSED[reason]), 1, 3, 4), (9, 4, 5), domain)
    assert found is not None
    assert {"next channel": "other channels"}.get(reason, reason) in found
    assert "\n" not in found


def test_a_refused_module_stays_and_is_reported(digits):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Broken(lambda self, u: u.softmax(1)), nn.Linear(8, 8), Gate(8),
                            nn.Linear(8, 10))
    result = compress_module(network, digits[0][0], digits[1], Budget(max_logit_error=1.0))
    assert result.left_alone == {"2": "its outputs depend on other channels than their own"}
    assert isinstance(result.network[2], Broken)
    assert list(result.decisions) == ["4"]


class Awkward(nn.Module):
    """Tied weights, a functional call, a norm with two readers, a submodule with a branch on values, a module used twice."""

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.act = nn.Linear(6, 6), Gate(6)

        def forward(self, x):
            return self.act(self.linear(x)) if x.sum() > -1e9 else x

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.act = nn.Linear(6, 6), nn.BatchNorm1d(6), Gate(6)
        self.second, self.shared, self.third = nn.Linear(6, 6), Gate(6), nn.Linear(6, 6)
        self.third.weight = self.second.weight
        self.branching, self.unused = self.Branching(), Gate(6)

    def forward(self, x):
        h = self.first(x)
        h = torch.relu(self.norm(h)) + h
        h = self.shared(self.third(self.shared(self.second(self.act(h)))))
        return self.branching(h)


def test_what_cannot_be_rewritten_safely_stays():
    torch.manual_seed(0)
    network = Awkward()
    randomize_norms_(network)
    x = torch.randn(200, 6)
    _, sites, left = _compress.prepare(network.eval().requires_grad_(False), x, Budget(target="native"))
    assert [(site.name, site.producer, site.consumer) for site in sites] == [
        ("act", None, None), ("shared", None, None), ("branching.act", None, None)]
    assert left["norm"] == "the normalization stays, since no linear layer or convolution is read by it alone"
    assert left["relu"].startswith("a call of the function relu stays")
    assert left["branching"].startswith("nothing is folded in it, since torch.fx cannot trace it: ")
    assert left["unused"] == "it is never called on the calibration data"
    result = compress_module(network, x, (x, run(network, x)), Budget(max_logit_error=0.1), task="regression")
    assert {one.kind for name in ("act", "shared") for one in result.decisions[name]}.isdisjoint({"kept"})
    assert np.abs(run(result.network, x) - run(network, x)).max() <= 0.1
    with pytest.raises(ExportError, match=r"^branching cannot be written as ONNX: torch.fx cannot trace it: .*torch.onnx$"):
        export_module(result, x[:2], "never.onnx")


def test_hooked_and_parametrized_modules_are_no_neighbors():
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    assert Topology(network, []).producer(network[1]) == "0"
    assert Topology(network, []).consumer(network[1]) is None
    network[0].register_forward_hook(lambda module, args, y: 2 * y)
    assert Topology(network, []).producer(network[1]) is None


def test_activations_are_found_by_type_protocol_and_family():
    derived = type("Derived", (ChannelVaf,), {})
    network = nn.ModuleDict({"a": nn.ReLU(), "b": derived(2), "c": Gate(2), "d": make_vaf(2), "e": AlongAxis(make_vaf(2), 1),
                             "f": nn.Linear(2, 2), "g": AlongAxis(nn.Linear(2, 2), 1)})
    assert [(name, axis) for name, _, axis in find_activations(network)] == [
        ("a", None), ("b", 1), ("c", -1), ("d", -1), ("e", 1)]


def test_registration_returns_the_class_and_refuses_others():
    class Mine(nn.Module):
        pass

    assert register_activation(Mine, channel_axis=2) is Mine
    assert register_activation(Mine) is Mine
    with pytest.raises(ConfigError, match=r"channel_axis is 0, which is the batch"):
        register_activation(Mine, channel_axis=0)
    with pytest.raises(ConfigError, match=r"only a class derived from torch.nn.Module"):
        register_activation(Mine())


def test_wrong_data_is_one_plain_line(digits):
    x, y = digits[1]
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Gate(10))
    with pytest.raises(ConfigError, match="the module is itself an activation"):
        compress_module(Gate(3), x, (x, y))
    for name, value in (("max_error_bound", 1.0), ("target_macs", "50%"), ("target_latency", 3.0), ("include", ("0",)),
                        ("exclude", ("0",))):
        with pytest.raises(ConfigError, match=f"{name} is for mncompress's own networks"):
            compress_module(network, x, (x, y), Budget(**{name: value}))
    with pytest.raises(DataError, match=r"labels have the shape \(3,\), for classification .* must be \(597,\)"):
        compress_module(network, x, (x, y[:3]))
    with pytest.raises(DataError, match=r"inputs of shape \(0, 1, 8, 8\) are no samples"):
        compress_module(network, x[:0], (x, y))
    with pytest.raises(DataError, match=r"the network fails on data of shape \(256, 1, 4, 8\)"):
        compress_module(network, x, (x[:, :, :4], y))
    with pytest.raises(DataError, match=r"the network fails on data of shape \(2, 1, 4, 8\)"):
        compress_module(network, x[:, :, :4], (x, y))
    with pytest.raises(DataError, match=r"one row of outputs a sample"):
        compress_module(nn.Sequential(nn.Conv2d(1, 2, 3)), x, (x, y))


def test_the_exact_preset_keeps_opaque_functions(digits):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Gate(8), nn.Linear(8, 8),
                            make_vaf(8, ActivationSpec("vaf", "relu", 2, 1)), nn.Linear(8, 10))
    result = compress_module(network, digits[0][0], digits[1], Budget(preset="exact"))
    assert {one.kind for one in result.decisions["2"]} == {"kept"}
    assert "kept" not in {one.kind for one in result.decisions["4"]}
    x = digits[1][0]
    np.testing.assert_allclose(run(result.network, x), run(network, x), rtol=1e-4, atol=1e-5)   # float32 rounding


class Everything(nn.Module):
    """What the emitter knows, in one forward."""

    def __init__(self) -> None:
        super().__init__()
        acts = (nn.ReLU(), nn.PReLU(4), nn.GELU(), nn.GELU(approximate="tanh"), nn.SiLU(), nn.Tanh(), nn.Sigmoid(), nn.Softplus(),
                nn.Mish(), nn.LeakyReLU(0.2), nn.ELU(0.5), nn.Hardswish(), nn.Hardsigmoid(), nn.ReLU6(), nn.Softsign(), nn.SELU())
        assert {type(act) for act in acts} < set(STANDARD)
        self.acts = nn.Sequential(*acts)
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding="same", stride=1), nn.BatchNorm2d(4)
        self.even = nn.Conv2d(4, 4, (2, 3), padding="same", dilation=(1, 2), groups=2)
        self.max, self.avg = nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, 2, (1, 0), count_include_pad=False)
        self.token, self.layer, self.last = nn.Linear(2, 5), nn.LayerNorm(5), nn.Linear(10, 3)
        self.offset = nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, x):
        h = self.acts(self.norm(self.conv(x)) - self.offset)                                # (rows, 4, 8, 8)
        h = torch.cat([self.even(h), h * h.mean(1, keepdim=True)], dim=1)
        h = nn.functional.adaptive_avg_pool2d(self.avg(self.max(h)), (1, 2)) / 2            # (rows, 8, 1, 2)
        tokens = h.mean((2,)).permute(0, 2, 1).transpose(1, 2).reshape(h.size(0), -1, 2)    # (rows, 8, 2)
        tokens = self.layer(self.token(tokens)).mean(-2).contiguous().view(x.shape[0], -1)
        return self.last(torch.cat([nn.functional.dropout(tokens, 0.5, self.training), torch.flatten(tokens, 1).relu()], 1))


@pytest.mark.parametrize("act", [
    *(kind() for kind in STANDARD if kind is not nn.Threshold), nn.Threshold(0.1, -2.0), nn.Softplus(3.0), nn.Hardtanh(-0.3, 0.4),
    nn.CELU(0.5), nn.Hardshrink(0.2), nn.Softshrink(0.1), nn.RReLU(0.2, 0.3)], ids=str)
def test_every_standard_activation_can_be_written(act, tmp_path):
    """Those of which the reasons say that every runtime has them."""
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(3, 8), act, nn.Linear(8, 2)).eval().requires_grad_(False), 4 * torch.randn(50, 3)
    path = export_module(network, x, tmp_path / "a.onnx")
    found = runtime.make_session(path).run(["output"], {"input": x.numpy()})[0]
    np.testing.assert_allclose(found, run(network, x), rtol=1e-4, atol=1e-5)    # float32 on both sides


class Recurrent(nn.Module):
    """A cell over time steps, with what such code does to tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.Linear(3 + 4, 4), nn.Linear(4, 2)

    def forward(self, x):
        state = x[:, 0, :1] * torch.ones(4)
        for step in range(5):
            gate = torch.softmax(self.cell(torch.cat([x[:, step], state], -1)), dim=-1)
            state = (1 - gate) * state.clone() + gate * torch.clamp(-state, min=-1.0).exp().detach()
        wide = state.unsqueeze(1) @ state[..., None]
        return self.last(state) + wide.squeeze(-1).clamp(-2, 2) + (x[..., 1:-1].sum((1, 2)) ** 2)[:, None]


def test_time_steps_can_be_written(tmp_path):
    torch.manual_seed(0)
    network, x = Recurrent().eval().requires_grad_(False), torch.randn(9, 5, 3)
    path = export_module(network, x[:4], tmp_path / "a.onnx")
    found = runtime.make_session(path).run(["output"], {"input": x.numpy()})[0]
    np.testing.assert_allclose(found, run(network, x), rtol=1e-4, atol=1e-5)    # float32 on both sides


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_every_operator_of_the_emitter(tmp_path):
    torch.manual_seed(0)
    network = Everything().eval().requires_grad_(False)
    randomize_norms_(network)
    x = torch.randn(5, 2, 8, 8)
    for opset_version in (18, 21):
        path = export_module(network, x[:3], tmp_path / "all.onnx", opset_version=opset_version)
        operators = [node.op_type for node in onnx.load(path).graph.node]
        assert operators.count("Gelu") == (1 if opset_version >= 20 else 0)     # that of tanh is written out
        found = runtime.make_session(path).run(["output"], {"input": x.numpy()})[0]
        np.testing.assert_allclose(found, run(network, x), rtol=1e-4, atol=1e-5)    # float32 on both sides


@pytest.mark.parametrize(("network", "reason"), [
    (nn.Sequential(nn.Linear(4, 4), nn.Bilinear(2, 2, 2)), "the network fails"),
    (nn.Sequential(nn.Linear(4, 4), nn.GLU()), "1 cannot be written as ONNX: there is no form of GLU here"),
    (nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular"), nn.Flatten()),
     "padding mode is 'circular'"),
    (nn.Sequential(nn.Unflatten(1, (1, 4)), nn.AdaptiveAvgPool1d(3), nn.Flatten()), "equal windows"),
])
def test_what_has_no_onnx_form_is_refused(network, reason, tmp_path):
    with pytest.raises((ExportError, DataError), match=reason) as caught:
        export_module(network, torch.randn(3, 4), tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_shape_that_depends_on_the_example_is_noticed(tmp_path):
    class Counts(nn.Module):
        def forward(self, x):
            return x * x.shape[0]

    with pytest.raises(ExportError, match=r"a.onnx does not compute what the network computes: for 1 rows"):
        export_module(Counts(), torch.randn(3, 4), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_scales_that_nothing_takes_in_are_written(tmp_path):
    network = nn.Sequential(nn.Linear(3, 4), Scale(np.arange(1.0, 5), np.ones(4)), nn.Identity())
    export_module(network, torch.randn(2, 3), tmp_path / "a.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node] == ["Gemm", "Mul", "Add"]


def test_a_linear_layer_and_the_form_behind_it_are_one_node(tmp_path):
    torch.manual_seed(0)
    form = CubicSpline(spline.CubicSpline(np.zeros(4), np.ones(4), np.random.default_rng(0).normal(size=(4, 3, 4))))
    network, x = nn.Sequential(nn.Linear(3, 4, bias=False), form, nn.Linear(4, 4), nn.Identity(), form), torch.randn(9, 3)
    nodes = onnx.load(export_module(network, x, tmp_path / "a.onnx")).graph.node
    assert [node.op_type for node in nodes] == ["GemmCubicSpline", "Gemm", "CubicSpline"]
    export_module(network, x, tmp_path / "b.onnx", inline=True)


def test_channels_are_moved_only_for_what_needs_them_last(tmp_path):
    scale = Scale(np.arange(1.0, 5), np.ones(4))
    for form, expected in ((nn.Sequential(scale, nn.Tanh()), ["Mul", "Add", "Tanh"]),
                           (make_vaf(4), None), (nn.Softmax(-1), None), (nn.Sequential(scale, nn.LogSoftmax(-1)), None)):
        network = nn.Sequential(nn.Conv2d(2, 4, 3), AlongAxis(form, 1), nn.Flatten())
        path = export_module(network, torch.randn(2, 2, 5, 5), tmp_path / "a.onnx")
        nodes = [node.op_type for node in onnx.load(path).graph.node]
        assert nodes.count("Transpose") >= 2 if expected is None else nodes == ["Conv", *expected, "Reshape"]


class ByKeyword(nn.Module):
    """Modules and functions get their tensors by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop, self.act = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.1), AlongAxis(make_vaf(6), 1)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        h = self.act(u=self.drop(input=self.norm(input=self.first(input=x))))
        return torch.cat(tensors=[self.last(input=torch.relu(input=h)), torch.flatten(input=h, start_dim=1)], dim=1)


def test_tensors_may_come_by_keyword(tmp_path):
    torch.manual_seed(0)
    network, x = ByKeyword().eval(), torch.randn(9, 4)
    path = export_module(network, x[:4], tmp_path / "a.onnx")
    found = runtime.make_session(path).run(["output"], {"input": x.numpy()})[0]
    np.testing.assert_allclose(found, run(network, x), rtol=1e-5, atol=1e-5)    # float32 on both sides
    result = compress_module(network, x, (x, run(network, x)), Budget(max_logit_error=1e-4), task="regression")
    assert result.left_alone["act"] == "it is not called with one tensor that has a batch and its channel axis"


class CalledTwice(nn.Module):
    """An activation that is called by keyword, and as usual; in which order is the question."""

    def __init__(self, keyword_first: bool) -> None:
        super().__init__()
        self.linear, self.act, self.keyword_first = nn.Linear(4, 6), AlongAxis(make_vaf(6), 1), keyword_first

    def forward(self, x):
        h = self.linear(x)
        if self.keyword_first:
            return self.act(u=h) + self.act(2 * h)
        return self.act(2 * h) + self.act(u=h)


@pytest.mark.parametrize("keyword_first", [True, False])
def test_an_activation_is_left_alone_if_any_call_is_unusual(keyword_first):
    torch.manual_seed(0)
    network, x = CalledTwice(keyword_first).eval(), torch.randn(40, 4)
    result = compress_module(network, x, (x, run(network, x)), Budget(max_logit_error=1e-4), task="regression")
    assert result.left_alone["act"] == "it is not called with one tensor that has a batch and its channel axis"


@pytest.mark.parametrize("passing", [nn.Identity, nn.Dropout])
def test_nothing_is_folded_through_a_hook(passing, tmp_path):
    """Which may change what passes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), passing(), nn.BatchNorm1d(8), Gate(8), passing(), nn.Linear(8, 3)).eval()
    randomize_norms_(network)
    for place in (1, 4):
        network[place].register_forward_hook(lambda module, args, output: output + 0.3)
    x = torch.randn(400, 6)
    y = run(network, x)
    result = compress_module(network, x, (x, y + 0.1), Budget(max_logit_error=1e-3), task="regression")
    assert "2" in result.left_alone
    assert {one.kind for one in result.decisions["3"]} != {"kept"}
    assert np.abs(run(result.network, x) - y).max() <= 1e-3
    with pytest.raises(ExportError, match=r"^1 has a forward hook, which is not written"):
        export_module(network, x, tmp_path / "a.onnx")


@pytest.mark.parametrize(("compile_it", "name"), [
    (torch.compile, "OptimizedModule"), (torch.jit.script, "RecursiveScriptModule")])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_compiled_modules_are_refused(compile_it, name):
    network, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), torch.randn(9, 4)
    for module, where in ((compile_it(network), "the module"), (nn.Sequential(compile_it(network), nn.Linear(4, 4)), "0")):
        with pytest.raises(ConfigError, match=rf"^{where} is compiled by torch \({name}\), and cannot be looked into; give"):
            compress_module(module, x, (x, x), task="regression")


def test_other_tasks_and_budgets_are_refused():
    network, x = nn.Sequential(nn.Linear(4, 4), Gate(4)), torch.randn(9, 4)
    with pytest.raises(ConfigError, match=r"^the task must be classification or regression, got 'regress'$"):
        compress_module(network, x, (x, x), task="regress")
    with pytest.raises(ConfigError, match=r"^the budget must be a Budget, such as Budget\(max_drop=0.1\), got 1.0$"):
        compress_module(network, x, (x, x), 1.0)


def test_examples_that_cannot_be_checked_are_refused(tmp_path):
    network, x = nn.Sequential(nn.Linear(4, 4)), torch.full((2, 4), torch.nan)
    with pytest.raises(DataError, match="values that are not finite"):
        export_module(network, x, tmp_path / "a.onnx")


class Says(nn.Module):
    """A function of the module and its inputs, with layers."""

    def __init__(self, function, **layers) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.function(self, x)


class OwnLinear(nn.Linear):
    """Traced into, since torch does not know it."""


@pytest.mark.parametrize("module", [
    Says(lambda self, x: F.softmax(x, -1)), Says(lambda self, x: F.log_softmax(x, dim=-1)),
    Says(lambda self, x: self.layer(x), layer=OwnLinear(8, 3)),
    Says(lambda self, x: self.layer(x), layer=OwnLinear(8, 3, bias=False)),
    Says(lambda self, x: self.layer(x.unsqueeze(1)).squeeze(1), layer=OwnLinear(8, 3)),
    Says(lambda self, x: self.layer(x.unsqueeze(1)).squeeze(1), layer=OwnLinear(8, 3, bias=False))], ids=range(6))
def test_functions_that_layers_are_made_of_can_be_written(module, tmp_path):
    x = torch.randn(9, 8)
    path = export_module(module.eval(), x, tmp_path / "a.onnx")
    found = runtime.make_session(path).run(None, {"input": x.numpy()})[0]
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("module", "what"), [
    (Says(lambda self, x: x.chunk(2, 1)[0] * 2), "chunk"), (Says(lambda self, x: torch.cat(x.chunk(2, 1), 1)), "chunk"),
    (Says(lambda self, x: x.max(1, keepdim=True)[0]), "max"),
    (Says(lambda self, x: self.cell(x[:, None])[0][:, 0], cell=nn.LSTM(8, 3, batch_first=True)), "LSTM")], ids=str)
def test_operations_that_give_several_tensors_are_refused(module, what, tmp_path):
    with pytest.raises(ExportError, match=f"cannot be written as ONNX: there is no form of {what} here"):
        export_module(module.eval(), torch.randn(9, 8), tmp_path / "a.onnx")
    with pytest.raises(DataError, match="the example of type str cannot be read"):
        export_module(module.eval(), "x", tmp_path / "a.onnx")


@pytest.mark.parametrize("forward", [
    lambda self, x: torch.no_grad()(self.layers)(x), lambda self, x: self.layers(x).detach(),
    lambda self, x: self.layers(x).argmax(1)[:, None].float()], ids=range(3))
def test_outputs_without_a_gradient_are_refused(forward):
    network, x = Says(forward, layers=nn.Sequential(nn.Linear(8, 4), Gate(4), nn.Linear(4, 2))), torch.randn(40, 8)
    with pytest.raises(DataError, match="the network's outputs have no gradient"):
        compress_module(network, x, (x, run(network, x)), task="regression")


def test_outputs_that_do_not_vary_allow_what_others_do():
    """What they vary by is rounding, and no scale."""
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(4, 6), Gate(6), nn.Linear(6, 2)).requires_grad_(False), torch.randn(200, 4)
    network[0].weight.mul_(1e-9)
    y = run(network, x)
    result = compress_module(network, x, (x, y + 1), Budget(max_drop=1.0), task="regression")
    assert {one.kind for one in result.decisions["1"]} == {"constant"}


def test_a_normalization_by_the_batch_is_refused(digits, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10, track_running_stats=False))
    reason = "^2 is a BatchNorm1d without running statistics, so what a sample gives depends on its batch"
    with pytest.raises(ConfigError, match=reason):
        compress_module(network, digits[0][0], digits[1])
    with pytest.raises(ConfigError, match=reason):
        export_module(network, digits[1][0], tmp_path / "a.onnx")


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("parametrize", [nn.utils.weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm])
def test_weights_that_are_computed_anew_at_each_call(parametrize, tmp_path):
    torch.manual_seed(0)
    network, x = nn.Sequential(parametrize(nn.Linear(3, 6)), Gate(6), parametrize(nn.Linear(6, 4))), torch.randn(200, 3)
    y = run(network.eval(), x)
    network(x).sum().backward()
    result = compress_module(network, x, (x, y), Budget(max_logit_error=0.05), task="regression")
    assert {one.kind for one in result.decisions["1"]}.isdisjoint({"kept"})
    assert 0 < np.abs(run(result.network, x) - y).max() <= 0.05
    assert type(result.network[0]) is type(network[0])
    assert network[1].a.grad is not None
    export_module(result, x[:5], tmp_path / "a.onnx")


def test_what_a_module_remembers_of_a_call_does_not_matter():
    class Remembers(nn.Sequential):
        def forward(self, x):
            self.last = super().forward(x)
            return self.last

    torch.manual_seed(0)
    network, x = Remembers(nn.Linear(3, 6), Remembers(Gate(6)), nn.Linear(6, 6), Gate(6), nn.Linear(6, 4)), torch.randn(200, 3)
    network(x)
    result = compress_module(network, x, (x, network(x).detach()), Budget(max_logit_error=0.05), task="regression")
    assert list(result.decisions) == ["1.0", "3"]
    network.also = [network.last]
    with pytest.raises(ConfigError, match=r"^the module cannot be copied: Only Tensors .* plain values$"):
        compress_module(network, x, (x, network(x).detach()), task="regression")


def test_units_of_targets_decide_nothing():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Sequential(nn.Linear(3, 6), Gate(6), nn.Linear(6, 1)) for _ in range(3))

        def forward(self, x):
            return torch.cat([self.a(x), self.b(x), 0 * self.c(x) + 0.1], 1)

    torch.manual_seed(0)
    network, x, unit = Branches(), torch.randn(600, 3), np.array([2.0**-70, 2.0**60, 1])
    y = run(network, x)
    y[:, :2] += 0.1 * y[:, :2].std(0) * np.random.default_rng(0).normal(size=(600, 2))
    y[:, 2] = 0.1       # a constant
    plain = compress_module(network, x, (x, y), Budget(max_drop=5), task="regression")
    assert 0 < plain.verdict["drop_upper_bound"] <= 5
    with torch.no_grad():
        for branch, factor in zip((network.a, network.b), unit, strict=False):
            branch[2].weight *= factor
            branch[2].bias *= factor
    scaled = compress_module(network, x, (x, y * unit), Budget(max_drop=5), task="regression")
    assert scaled.verdict["drop_upper_bound"] == pytest.approx(plain.verdict["drop_upper_bound"], rel=1e-6)
    assert scaled.decisions.keys() == plain.decisions.keys()
    for name, decisions in plain.decisions.items():
        assert [(one.kind, one.settings) for one in scaled.decisions[name]] == [(one.kind, one.settings) for one in decisions]
    assert {one.kind for name in ("a.1", "b.1") for one in plain.decisions[name]} == {"cubic_spline"}


def test_onnx_of_a_module_has_its_own_function(compressed, tmp_path):
    for source in (compressed, compressed.network):
        with pytest.raises(ExportError, match=r"^export_onnx writes mncompress's own networks, got a Cnn; .*export_module$"):
            export_onnx(source, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_of_our_own_that_was_compressed_as_a_module_can_be_exported(tmp_path):
    torch.manual_seed(0)
    spec = NetworkSpec(4, (6,), 2, (ActivationSpec("vaf", "tanh", 3, 1),), "regression")
    network = make_template(spec, Standardization(np.zeros(4), np.ones(4)), Standardization(np.zeros(2), np.ones(2)))
    initialize_(network.layers, "matched", torch.Generator().manual_seed(0))
    x = torch.randn(300, 4)
    result = compress_module(network, x, (x, run(network, x)), Budget(max_drop=5), task="regression")
    path = export_onnx(result, tmp_path / "a.onnx")
    found = runtime.make_session(path).run(None, {"input": x.numpy()})[0]
    np.testing.assert_allclose(found, result.network(x).detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("change", "reason"), [
    (lambda y: y + 100, r"^validation row 0 has the label 10\d; this network's 10 outputs are the classes 0 to 9$"),
    (lambda y: np.where(np.arange(597) == 7, -1, y), r"^validation row 7 has the label -1; "),
    (lambda y: y.astype(float), r"^the validation labels have the type torch.float64; classification takes integers$"),
    (lambda y: y > 4, r"^the validation labels have the type torch.bool; "),
    (lambda y: y.astype(str), r"^validation labels of type ndarray cannot be read: can't convert np.ndarray of type numpy.str_"),
    (lambda y: np.eye(10)[y], r"^the validation labels have the shape \(597, 10\), .*; for targets pass task='regression'$"),
    (lambda y: y[:, None], r"^the validation labels have the shape \(597, 1\), for classification .* must be \(597,\)$"),
])
def test_labels_that_the_network_cannot_give_are_refused(digits, change, reason):
    x, y = digits[1]
    with pytest.raises(DataError, match=reason) as caught:
        compress_module(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits[0][0], (x, change(y)))
    assert "\n" not in str(caught.value)


def test_targets_that_are_no_numbers_are_refused(digits):
    x, y = digits[1]
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    targets = y[:, None].astype(np.float32)
    with pytest.raises(DataError, match=r"^the network gives 1 output, which tells no classes apart; .*task='regression'$"):
        compress_module(network, digits[0][0], (x, 0 * y))
    for value, reason in ((np.nan, "^the validation targets of row 3 are not finite; "), (np.inf, "row 3 are not finite")):
        with pytest.raises(DataError, match=reason):
            compress_module(network, x, (x, np.where(np.arange(597)[:, None] == 3, value, targets)), task="regression")
    with pytest.raises(DataError, match=r"labels have the type torch.complex64; regression takes floats or integers$"):
        compress_module(network, x, (x, targets.astype(np.complex64)), task="regression")
    for numbers in (y[:, None], torch.as_tensor(targets).bfloat16()):
        assert compress_module(network, x, (x, numbers), task="regression").verdict["ok"]
    with pytest.raises(DataError, match=r"^inputs of type list cannot be read: "):
        compress_module(network, [["a"]], (x, targets), task="regression")


def test_a_verdict_on_few_rows_says_that_they_show_nothing(digits):
    torch.manual_seed(0)
    network, (x, y) = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Gate(8), nn.Linear(8, 10)), digits[1]
    result = compress_module(network, x[:1], (x[:1], y[:1]))
    assert "1 validation samples are too few to show a drop below 0.1 points with 95% confidence" in result.verdict["verdict"]
    assert result.verdict["drop_upper_bound"] > 99


class Leaky(nn.Module):
    """u, or a u below zero, with a learned a: one kink, of which nobody is told."""

    mncompress_channel_axis = -1

    def __init__(self, n: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.linspace(-0.5, 0.8, n))

    def forward(self, u):
        return torch.where(u > 0, u, self.a * u)


def test_a_kink_that_nobody_told_of_is_found(digits, tmp_path):
    torch.manual_seed(0)
    network, (x, y) = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), Leaky(16), nn.Linear(16, 10)), digits[1]
    result = compress_module(network, digits[0][0], (x, y), Budget(max_logit_error=1e-3, target="native"))
    assert {(one.kind, one.settings["knots"]) for one in result.decisions["2"]} == {("piecewise_linear", 1)}
    assert max(one.max_abs_error for one in result.decisions["2"]) < 1e-12      # float64 rounding of values around 1
    np.testing.assert_allclose(run(result.network, 10 * x), run(network, 10 * x), rtol=1e-4, atol=1e-4)     # lines, everywhere
    export_module(result, x[:9], tmp_path / "a.onnx")
    exact = compress_module(network, digits[0][0], (x, y), Budget(preset="exact"))
    assert {one.kind for one in exact.decisions["2"]} == {"kept"}


class Function(nn.Module):
    """A function that all channels have, in float64."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, u):
        return torch.from_numpy(np.asarray(self.function(u.detach().numpy())))


def options_of(function, domain):
    functions = make_functions(Function(function), 1, 2, len(domain))
    return LayerOptions(functions, np.asarray(domain, float), {}, {}, {}, {}, np.zeros(len(domain), int))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 1), min_size=1, max_size=8), st.integers(0, 1000), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_lines_are_found_wherever_they_meet(gaps, seed, offset, width):
    generator = np.random.default_rng(seed)
    ends = np.cumsum([0.0, *gaps, 0.1])
    ends = offset + width * ends / ends[-1]
    changes = generator.choice([-1.0, 1.0], len(gaps)) * generator.uniform(0.1, 2, len(gaps))
    form = spline.PiecewiseLinear(ends[None, 1:-1], changes[None], generator.normal(size=1), generator.normal(size=1))
    options = options_of(form.evaluate, [ends[[0, -1]]])
    size = np.abs(form.evaluate(ends[:, None])).max() + np.abs(ends).max()
    found = add_pieces(options)
    assert found.knots.tolist() == [len(gaps)]
    # intercepts are values at u = 0, extrapolated from lines of at least 2/512 of the domain: their rounding grows by as much
    assert found.errors["piecewise_linear"][0] <= 1e-11 * size * (1 + abs(offset) / width)
    u = generator.uniform(ends[0], ends[-1], (1000, 1))
    built = found.build("piecewise_linear", np.full(1, np.inf), np.arange(1))
    np.testing.assert_allclose(built.evaluate(u), form.evaluate(u), rtol=0, atol=1e-11 * size * (1 + abs(offset) / width))


@pytest.mark.parametrize("function", [np.tanh, lambda u: u > 0.1, lambda u: np.where(u > 0.1, u, u / 2 - 1), lambda u: u % 0.1,
                                      lambda u: np.abs(u % 0.3 - 0.15), lambda u: np.where(u > 0, u, np.nan),
                                      lambda u: np.maximum(u, u**2)])
def test_what_does_not_consist_of_few_lines_stays_what_it_was(function):
    options = options_of(function, [[-1, 2], [-3, 1]])
    assert add_pieces(options) is options


def test_channels_without_knots_are_no_pieces():
    options = add_pieces(options_of(lambda u: np.stack([np.abs(u[:, 0]), np.tanh(u[:, 1]), u[:, 2]], 1), [[-1, 2]] * 3))
    assert np.isfinite(options.errors["piecewise_linear"]).tolist() == [True, False, True]
    assert options.knots.tolist() == [1, 0, 0]


def test_a_late_row_on_which_the_network_fails_is_one_plain_line():
    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.act, self.last = nn.Embedding(5, 6), Gate(6), nn.Linear(6, 3)

        def forward(self, x):
            if int(x.max()) > 4:
                raise IndexError("no such word\n  in the table")
            return self.last(self.act(self.table(x).sum(1)))

    x = torch.zeros(300, 2, dtype=torch.long)
    x[299] = 5
    with pytest.raises(DataError, match=r"^the network fails on data of shape \(44, 2\), torch.int64: no such word; give x as "):
        compress_module(Lookup(), x, (x[:9], np.arange(9) % 3))
