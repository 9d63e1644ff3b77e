"""What models are given: drawn within stated ranges, or taken from arrays and fitted to the batch."""

import zipfile

import numpy as np
import pytest

from mncompress import benchmark
from mncompress.benchmark import _inputs
from mncompress.benchmark._inputs import TensorSpec
from mncompress.errors import ConfigError, DataError


def test_inputs_are_drawn_from_the_stated_ranges_and_do_not_depend_on_their_order():
    specs = (TensorSpec("f", "float32", (4000,)), TensorSpec("i", "int64", (4000,)), TensorSpec("u", "uint8", (4000,)),
             TensorSpec("b", "bool", (4000,)), TensorSpec("h", "float16", ()))
    shapes = {spec.name: spec.shape for spec in specs}

    def draw(order=specs, **ranges):
        return _inputs.make_inputs(order, shapes, {}, None, ranges, np.random.default_rng(0))

    default, ranged = draw(), draw(f=(-2.0, 3.0), u=(250.0, 255.0), i=(-7.0, 7.5))
    for spec in specs:
        assert (default[spec.name].dtype, default[spec.name].shape) == (np.dtype(spec.dtype), spec.shape)
        np.testing.assert_array_equal(draw(specs[::-1])[spec.name], default[spec.name])
    # Of 4000 standard normal numbers; 5 standard errors of mean and deviation.
    assert abs(default["f"].mean()) < 5 / 4000**0.5
    assert abs(default["f"].std() - 1) < 5 / 8000**0.5
    assert set(default["i"]) == set(default["u"]) == {0, 1}
    assert set(default["b"]) == {False, True}
    assert set(ranged["u"]) == set(range(250, 256))
    assert set(ranged["i"]) == set(range(-7, 8))
    assert -2 <= ranged["f"].min() < -1.9 < 2.9 < ranged["f"].max() <= 3


@pytest.mark.parametrize(("ranges", "message"), [
    ({"z": (0, 1)}, "no input is called 'z'; the models have f, i, l"),
    ({"f": (1, 0)}, "the range of input 'f' must rise and lie within float16"),
    ({"i": (-1, 5)}, "must rise and lie within uint8, got -1:5"), ({"f": (0, 1e6)}, "within float16, got 0:1e"),
    ({"f": (float("nan"), 1)}, "must rise"), ({"i": (0.2, 0.7)}, "holds no whole number"),
    ({"l": (0, float(2**63))}, "must rise and lie within int64"),
])
def test_ranges_that_cannot_be_drawn_from_are_refused(ranges, message):
    specs = (TensorSpec("f", "float16", (2,)), TensorSpec("i", "uint8", (2,)), TensorSpec("l", "int64", (2,)))
    with pytest.raises(ConfigError, match=message):
        _inputs.make_inputs(specs, dict.fromkeys("fil", (2,)), {}, None, ranges, np.random.default_rng(0))


def test_a_range_may_be_as_wide_as_the_type():
    largest = float(np.finfo(np.float64).max)
    specs = (TensorSpec("d", "float64", (500,)),)
    found = _inputs.make_inputs(specs, {"d": (500,)}, {}, None, {"d": (-largest, largest)}, np.random.default_rng(0))["d"]
    assert np.isfinite(found).all()
    assert found.min() < -0.9 * largest < 0.9 * largest < found.max()


def test_given_inputs_repeat_along_the_batch_wherever_it_is_and_give_sizes():
    specs = (TensorSpec("x", "float32", ("n", "s")), TensorSpec("y", "int32", ("s", "n")), TensorSpec("c", "float64", ()))
    arrays = {"x": np.arange(6.0).reshape(3, 2), "y": np.arange(6, dtype=np.int64).reshape(2, 3), "c": np.array(5)}
    assert _make(specs, arrays, {}, 5)["x"].shape == (5, 5)     # s leads y, so it means the batch too unless its size is given
    found = _make(specs, arrays, {"s": 2}, 5)
    np.testing.assert_array_equal(found["x"], arrays["x"][[0, 1, 2, 0, 1]])
    np.testing.assert_array_equal(found["y"], arrays["y"][:, [0, 1, 2, 0, 1]])
    assert [found[name].dtype for name in "xyc"] == [np.float32, np.int32, np.float64]
    assert found["c"] == 5.0
    assert [_inputs.fixed_batch(specs, dims) for dims in ({}, {"n": 8}, {"n": 8, "s": 2})] == [None, None, 8]
    wide = (TensorSpec("x", "float32", ("n", "s")),)
    assert _make(wide, {"x": np.zeros((2, 9))}, {}, 4)["x"].shape == (4, 9)


def _make(specs, arrays, dims, batch):
    completed = _inputs.complete_dims(specs, dims, arrays)
    shapes = _inputs.resolve(specs, batch, completed, name="m")
    return _inputs.make_inputs(specs, shapes, completed, arrays, {}, np.random.default_rng(0))


@pytest.mark.parametrize(("array", "message"), [
    (np.zeros((2, 4)), r"input 'x' is int8 \(n, 4\), the given array is float64 \(2, 4\); convert it to int8"),
    (np.full((2, 4), 300), "some values are too large for int8"), (np.zeros((2, 5), int), "give it that shape"),
    (np.zeros((0, 4), int), "give it that shape"), (np.array([["a"] * 4]), "convert it to int8"),
])
def test_given_inputs_that_do_not_fit_are_refused(array, message):
    with pytest.raises(DataError, match=message):
        _make((TensorSpec("x", "int8", ("n", 4)),), {"x": array}, {}, 2)


def test_missing_and_too_large_inputs_are_refused():
    with pytest.raises(DataError, match="the inputs have no array 'x'; they have a, b"):
        _make((TensorSpec("x", "int8", ("n",)),), {"a": np.zeros(1), "b": np.zeros(1)}, {}, 2)
    with pytest.raises(DataError, match="some values are too large for float16"):
        _make((TensorSpec("x", "float16", ("n",)),), {"x": np.array([1e9])}, {}, 2)
    assert np.isinf(_make((TensorSpec("x", "float16", ("n",)),), {"x": np.array([np.inf])}, {}, 2)["x"]).all()


def test_npz_files_are_read_without_unpickling(tmp_path):
    np.savez(tmp_path / "good.npz", x=np.arange(3), y=np.ones((2, 2), np.float16))
    found = benchmark.load_inputs(tmp_path / "good.npz")
    assert {name: array.tolist() for name, array in found.items()} == {"x": [0, 1, 2], "y": [[1, 1], [1, 1]]}
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    np.save(tmp_path / "single.npy", np.arange(3))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:150])
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("notes", "no array")
    for name in ("objects.npz", "single.npy", "cut.npz", "none.npz", "text.npz"):
        with pytest.raises(DataError, match=f"cannot read .*{name} as an npz file of plain arrays: .*; save it with numpy.savez"):
            benchmark.load_inputs(tmp_path / name)
