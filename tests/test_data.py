"""Data sets: what is loaded, how it is split, and every line that a user may read when it cannot be."""

import builtins
import io
import os
import random
import struct
import urllib.error
import zipfile
from pathlib import Path

import mnist1d.data
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import integrate, special

from mncompress.data import Dataset, Split, load_dataset, standardization_of
from mncompress.data import _standardization as standardization_module
from mncompress.data._check import KEYS, MOST_CLASSES
from mncompress.data._dataset import Arrays
from mncompress.data._functions import TARGETS
from mncompress.data._load import draw
from mncompress.errors import ConfigError, DataError

PARTS = ("train", "calibration", "validation", "test")
FUNCTIONS_OF_THE_CONTRACT = ("bessel", "exp_sin", "product", "relativistic_sum", "gaussian", "exp_sin_4d")


def make_arrays(rows: int = 40, *, classes: int = 4, features: int = 3) -> dict[str, np.ndarray]:
    """A classification whose every row is different, so that rows can be told apart after splitting."""
    values = np.arange(2 * rows * features, dtype=np.float32).reshape(2 * rows, features)
    labels = np.arange(2 * rows) % classes
    return {"x_train": values[:rows], "y_train": labels[:rows], "x_test": values[rows:], "y_test": labels[rows:]}


def write_npz(path: Path, **changes: np.ndarray) -> str:
    np.savez(path, **{**make_arrays(), **changes})
    return str(path)


def write_idx(folder: Path, *, train: int = 60, test: int = 20, labels: int | None = None) -> np.ndarray:
    """Write random images in the layout and format of MNIST's files; returns the training images."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    images = {"train": rng.integers(0, 256, (train, 28, 28), dtype=np.uint8),
              "t10k": rng.integers(0, 256, (test, 28, 28), dtype=np.uint8)}
    for part, pixels in images.items():
        count = len(pixels) if labels is None else labels
        classes = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, *pixels.shape) + pixels.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + classes.tobytes())
    return images["train"]


def rows_of(data: Dataset, *parts: str) -> list[bytes]:
    return [row.tobytes() for part in parts for row in getattr(data, part).x]


def check_refused(name: str, *fragments: str, **options: object) -> None:
    """`load_dataset` raises one plain line that holds every fragment."""
    with pytest.raises(DataError) as caught:
        load_dataset(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def assert_same(a: Dataset, b: Dataset) -> None:
    for part in PARTS:
        np.testing.assert_array_equal(getattr(a, part).x, getattr(b, part).x)
        np.testing.assert_array_equal(getattr(a, part).y, getattr(b, part).y)


# Splits


def test_npz_splits_are_disjoint_cover_everything_and_never_touch_the_test_rows(tmp_path: Path) -> None:
    data = load_dataset(write_npz(tmp_path / "own.npz"))
    source = make_arrays()
    development = rows_of(data, "train", "calibration", "validation")
    assert sorted(development) == sorted(row.tobytes() for row in source["x_train"])
    assert len(set(development)) == 40
    assert [len(getattr(data, part)) for part in PARTS] == [30, 4, 6, 40]
    np.testing.assert_array_equal(data.test.x, source["x_test"])  # in the file's order
    np.testing.assert_array_equal(data.test.y, source["y_test"])


def test_rows_keep_their_labels(tmp_path: Path) -> None:
    data = load_dataset(write_npz(tmp_path / "own.npz"))
    for part in PARTS:
        split = getattr(data, part)
        np.testing.assert_array_equal(split.y, split.x[:, 0] / 3 % 4)  # how make_arrays labels its rows


def test_digits_are_uint8_and_split_without_overlap() -> None:
    from sklearn.datasets import load_digits

    data = load_dataset("digits")
    assert (data.task, data.in_features, data.out_features) == ("classification", 64, 10)
    assert [len(getattr(data, part)) for part in PARTS] == [1080, 143, 215, 359]
    for part in PARTS:
        assert getattr(data, part).x.dtype == np.uint8
        assert getattr(data, part).y.dtype == np.int64
    source = load_digits().data.astype(np.uint8)
    assert sorted(rows_of(data, *PARTS)) == sorted(row.tobytes() for row in source)


def test_digits_splits_are_stratified() -> None:
    data = load_dataset("digits")
    whole = sum(np.bincount(getattr(data, part).y) for part in PARTS)
    for part in PARTS:
        counts = np.bincount(getattr(data, part).y, minlength=10)
        # each of up to three draws in a row rounds a class up or down by less than one row
        assert np.abs(counts - whole * counts.sum() / whole.sum()).max() < 3


@pytest.mark.parametrize("name", ["digits", "own.npz"])
def test_the_seed_determines_the_split_and_not_the_hash(name: str, tmp_path: Path) -> None:
    if name == "own.npz":
        name = write_npz(tmp_path / name)
    first, again, other = (load_dataset(name, seed=seed) for seed in (1, 1, 2))
    assert_same(first, again)
    assert first.content_hash == again.content_hash == other.content_hash
    assert set(rows_of(first, "calibration")) != set(rows_of(other, "calibration"))


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed must not be negative, got -1"):
        load_dataset("digits", seed=-1)


def test_rare_classes_do_not_stop_a_split(tmp_path: Path) -> None:
    labels = np.zeros(40, np.int64)
    labels[7] = 3
    data = load_dataset(write_npz(tmp_path / "rare.npz", y_train=labels, y_test=labels))
    assert data.out_features == 4
    assert sum(int((getattr(data, part).y == 3).sum()) for part in PARTS[:3]) == 1


@given(labels=hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 5)), share=st.floats(0, 1),
       seed=st.integers(0, 1000))
def test_a_draw_is_stratified_to_one_row_and_loses_none(labels: np.ndarray, share: float, seed: int) -> None:
    rows, count = np.arange(len(labels)) * 7, int(share * len(labels))
    y = np.zeros(7 * len(labels), np.int64)
    y[rows] = labels
    taken, rest = draw(rows, y, count, np.random.default_rng(seed))
    assert len(taken) == count
    np.testing.assert_array_equal(np.sort(np.concatenate([taken, rest])), rows)
    for label in range(6):
        expected = (labels == label).sum() * count / len(labels)
        assert abs((y[taken] == label).sum() - expected) < 1 + 1e-9  # the slack is for the division


@pytest.mark.parametrize("y", [np.zeros((20, 1), np.float32), np.arange(20), np.arange(20) // 15],
                         ids=["targets", "all labels different", "two classes"])
def test_every_row_is_drawn_equally_often(y: np.ndarray) -> None:
    counts = np.zeros(20)
    for seed in range(2000):
        taken, _ = draw(np.arange(20), y, 5, np.random.default_rng(seed))
        counts[taken] += 1
    assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)  # five binomial standard deviations


# Content hash


def test_the_hash_follows_the_content_and_not_the_file(tmp_path: Path) -> None:
    own = load_dataset(write_npz(tmp_path / "a.npz")).content_hash
    arrays = make_arrays()
    assert own.startswith("sha256:")
    assert len(own) == len("sha256:") + 64
    assert load_dataset(write_npz(tmp_path / "b.npz", x_train=arrays["x_train"].astype(">f8"))).content_hash == own
    for key in KEYS:
        changed = arrays[key].copy()
        changed[0] = changed[1]
        assert load_dataset(write_npz(tmp_path / "c.npz", **{key: changed})).content_hash != own


def test_the_hash_tells_equal_bytes_of_other_dtypes_and_shapes_apart() -> None:
    y = np.zeros(2, np.int64)
    variants = [np.zeros((4, 6), np.uint8), np.zeros((8, 3), np.uint8), np.zeros((4, 6), np.int8),
                np.zeros((2, 3), np.float32), np.zeros((1, 6), np.float32)]
    assert {x.nbytes for x in variants} == {24}
    hashes = {Arrays(Split(x, y)).content_hash for x in variants}
    assert len(hashes) == len(variants)


# MNIST and its relatives


@pytest.mark.parametrize(("name", "folder"),
                         [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")])
def test_idx_files_are_read_as_flat_uint8(name: str, folder: str, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    images = write_idx(tmp_path / folder / "raw")
    data = load_dataset(name, data_dir=tmp_path)
    assert (data.name, data.task, data.in_features, data.out_features) == (name, "classification", 784, 10)
    assert [len(getattr(data, part)) for part in PARTS] == [45, 6, 9, 20]
    assert data.train.x.dtype == np.uint8
    assert data.train.y.dtype == np.int64
    assert sorted(rows_of(data, "train", "calibration", "validation")) == sorted(image.tobytes() for image in images)
    np.testing.assert_array_equal(data.test.y, np.arange(20) % 10)
    assert capsys.readouterr().out == ""


def test_a_missing_mnist_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        print("progress")
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    check_refused("mnist", "mnist: ", "train-images-idx3-ubyte", str(tmp_path / "MNIST" / "raw"), "no network",
                  "--data-dir", data_dir=tmp_path)
    check_refused("mnist", "no network", data_dir=tmp_path / "mistyped" / "folder")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_an_mnist_with_three_of_four_files_is_not_called_damaged(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    write_idx(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    check_refused("mnist", "are not all in", "no network", data_dir=tmp_path)


def test_a_truncated_mnist_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_idx(folder)
    file = folder / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    check_refused("mnist", str(folder), "damaged", data_dir=tmp_path)


def test_an_mnist_with_too_few_labels_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_idx(folder, labels=20)
    check_refused("mnist", str(folder), "x_train has 60 rows but y_train has 20", data_dir=tmp_path)


def test_the_default_data_folder_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "data" / "MNIST" / "raw")
    monkeypatch.chdir(tmp_path)
    assert len(load_dataset("mnist").test) == 20


@pytest.mark.skipif("MNCOMPRESS_DATA_DIR" not in os.environ,
                    reason="MNCOMPRESS_DATA_DIR is not set; it names the folder that holds MNIST/raw")
def test_the_real_mnist() -> None:
    data = load_dataset("mnist", data_dir=os.environ["MNCOMPRESS_DATA_DIR"])
    assert [len(getattr(data, part)) for part in PARTS] == [50_000, 5000, 5000, 10_000]
    np.testing.assert_array_equal(data.test.y[:5], [7, 2, 1, 0, 4])  # as published
    features, _ = standardization_of(data.train)
    np.testing.assert_allclose(features.shift[0] / 255, 0.1307, rtol=0, atol=1e-3)  # the well-known figures are those
    np.testing.assert_allclose(features.scale[0] / 255, 0.3081, rtol=0, atol=1e-3)  # of all 60 000 training images


# MNIST-1D


def test_mnist1d_has_its_default_size() -> None:
    data = load_dataset("mnist1d")
    assert (data.task, data.in_features, data.out_features) == ("classification", 40, 10)
    assert data.train.x.dtype == np.float32
    assert data.train.y.dtype == np.int64
    assert [len(getattr(data, part)) for part in PARTS] == [3000, 400, 600, 1000]
    assert len(set(rows_of(data, *PARTS))) == 5000


def test_mnist1d_follows_from_the_seed_and_leaves_the_global_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {**mnist1d.data.get_dataset_args(as_dict=True), "num_samples": 200}  # for speed
    monkeypatch.setattr("mnist1d.data.get_dataset_args", lambda: mnist1d.data.ObjectView(dict(small)))
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    first, again, other, large = (load_dataset("mnist1d", seed=seed) for seed in (3, 3, 4, 3 + 2**32))
    after = random.getstate(), np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    np.testing.assert_equal(after[1], before[1])
    assert_same(first, again)
    assert other.content_hash != first.content_hash
    assert large.content_hash == first.content_hash  # modulo 2**32: numpy's global generator has no more seeds


def test_a_missing_mnist1d_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("mnist1d"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    check_refused("mnist1d", "mnist1d", "pip install mnist1d")


# Functions


def reference(name: str, *inputs: float) -> float:
    """An independent formula at one point: elementary functions as they are, special ones as integrals or series."""
    x, y = inputs[0], inputs[1] if len(inputs) > 1 else 0.0
    unit_x, unit_y = (x + 1) / 2, (y + 1) / 2

    def integral(f: object, low: float, high: float) -> float:
        return integrate.quad(f, low, high, epsabs=1e-11, epsrel=1e-11, limit=400)[0]

    match name:
        case "bessel":
            return integral(lambda t: np.cos(20 * x * np.sin(t)), 0, np.pi) / np.pi
        case "exp_sin":
            return np.exp(np.sin(np.pi * x) + y * y)
        case "product":
            return x * y
        case "relativistic_sum":
            u, v = 0.9 * x, 0.9 * y
            return (u + v) / (1 + u * v)
        case "gaussian":
            s = 0.3 + 0.7 * unit_y
            return np.exp(-x * x / (2 * s * s)) / np.sqrt(2 * np.pi * s * s)
        case "exp_sin_4d":
            a, b, c, d = inputs
            return np.exp(0.5 * (np.sin(np.pi * (a * a + b * b)) + np.sin(np.pi * (c * c + d * d))))
        case "jacobi_sn":  # the inverse of the elliptic integral of the first kind
            phi = special.ellipj(8 * x, 0.99 * unit_y)[3]
            assert integral(lambda t: 1 / np.sqrt(1 - 0.99 * unit_y * np.sin(t)**2), 0, phi) == pytest.approx(8 * x)
            return np.sin(phi)
        case "elliptic_k":
            return integral(lambda t: 1 / np.sqrt(1 - (-1 + 1.99 * unit_x) * np.sin(t)**2), 0, np.pi / 2)
        case "elliptic_f":
            return integral(lambda t: 1 / np.sqrt(1 - 0.99 * unit_y * np.sin(t)**2), 0, np.pi * x)
        case "elliptic_e":
            return integral(lambda t: np.sqrt(1 - 0.99 * unit_y * np.sin(t)**2), 0, np.pi * x)
        case "bessel_j":  # Schläfli's integral, DLMF 10.9.6
            nu, z = 3 * unit_x, 0.5 + 14.5 * unit_y
            return (integral(lambda t: np.cos(z * np.sin(t) - nu * t), 0, np.pi) / np.pi
                    - np.sin(nu * np.pi) / np.pi * integral(lambda t: np.exp(-z * np.sinh(t) - nu * t), 0, 12))
        case "bessel_y":  # DLMF 10.9.7
            nu, z = 2 * unit_x, 1 + 14 * unit_y
            turn = np.cos(nu * np.pi)
            return (integral(lambda t: np.sin(z * np.sin(t) - nu * t), 0, np.pi) - integral(
                lambda t: (np.exp(nu * t) + np.exp(-nu * t) * turn) * np.exp(-z * np.sinh(t)), 0, 12)) / np.pi
        case "bessel_i":  # DLMF 10.32.4
            nu, z = 2 * unit_x, 0.1 + 3.9 * unit_y
            return (integral(lambda t: np.exp(z * np.cos(t)) * np.cos(nu * t), 0, np.pi) / np.pi
                    - np.sin(nu * np.pi) / np.pi * integral(lambda t: np.exp(-z * np.cosh(t) - nu * t), 0, 12))
        case "bessel_k":  # DLMF 10.32.9
            nu, z = 2 * unit_x, 0.5 + 3.5 * unit_y
            return integral(lambda t: np.exp(-z * np.cosh(t)) * np.cosh(nu * t), 0, 12)
        case "legendre":
            return special.hyp2f1(-4 * unit_y, 4 * unit_y + 1, 1, (1 - 0.9 * x) / 2)
        case "legendre_1":  # DLMF 14.6.1, with the Condon-Shortley sign
            nu, z = 4 * unit_y, 0.9 * x
            return -np.sqrt(1 - z * z) * nu * (nu + 1) / 2 * special.hyp2f1(1 - nu, nu + 2, 2, (1 - z) / 2)
        case "spherical_harmonic":  # the table form of Y_3^2
            theta = np.pi * unit_x
            return np.sqrt(105 / (2 * np.pi)) / 4 * np.sin(theta)**2 * np.cos(theta) * np.cos(2 * np.pi * y)
        case "airy":  # Bessel functions of order one third, DLMF 9.6
            z = -10 + 12 * unit_x
            w, root = 2 / 3 * abs(z)**1.5, np.sqrt(abs(z) / 3)
            return (root / np.pi * special.kv(1 / 3, w) if z > 0
                    else root / np.sqrt(3) * (special.jv(1 / 3, w) + special.jv(-1 / 3, w)))
        case "fresnel":
            return integral(lambda t: np.sin(np.pi * t * t / 2), 0, 4 * x)
        case "erf":
            return integral(lambda t: 2 / np.sqrt(np.pi) * np.exp(-t * t), 0, 3 * x)
        case "reciprocal_gamma":
            return 1 / special.gamma(4 * x)
        case "lambert_w":  # w exp(w) = z, w > -1, by Newton's method
            z, w = -0.36 + 4.36 * unit_x, 1.0
            for _ in range(60):
                w -= (w * np.exp(w) - z) / (np.exp(w) * (w + 1))
            return w
        case "expint":
            z = 0.05 + 2.95 * unit_x
            return integral(lambda t: np.exp(-t) / t, z, z + 40)
        case "gamma_inc":
            a, z = 0.5 + 4.5 * unit_x, 10 * unit_y
            return integral(lambda t: 2 * t**(2 * a - 1) * np.exp(-t * t), 0, np.sqrt(z)) / special.gamma(a)
        case "hurwitz_zeta":  # DLMF 25.11.25, without the singularity at 0
            s, q = 1.5 + 3.5 * unit_x, 1 + 2 * unit_y
            return integral(lambda t: 2 * t**(2 * s - 1) * np.exp(-q * t * t) / -np.expm1(-t * t), 0, 9) / \
                special.gamma(s)
    raise AssertionError(f"no reference for {name}")


@pytest.mark.parametrize("name", TARGETS)
def test_functions_agree_with_an_independent_formula(name: str) -> None:
    data = load_dataset(f"function:{name}")
    assert data.train.y.shape == (1500, 1)
    for row, value in zip(data.train.x[:20].astype(np.float64), data.train.y[:20, 0], strict=True):
        # float32 rounding is 6e-8; the quadratures are good to about 1e-10
        assert value == pytest.approx(reference(name, *row), rel=2e-7, abs=1e-8)


@pytest.mark.parametrize("name", TARGETS)
def test_functions_are_finite_on_the_closed_cube(name: str) -> None:
    target = TARGETS[name]
    axis = np.linspace(-1, 1, 101 if target.in_features < 3 else 11)
    values = target.evaluate(*np.meshgrid(*[axis] * target.in_features))
    assert np.isfinite(values).all()
    assert np.abs(values).max() < 20
    assert values.std() > 0.1  # there is something to learn


def test_functions_of_the_contract_exist() -> None:
    assert set(FUNCTIONS_OF_THE_CONTRACT) < set(TARGETS)
    assert [TARGETS[name].in_features for name in FUNCTIONS_OF_THE_CONTRACT] == [1, 2, 2, 2, 2, 4]


def test_function_data_is_seeded_float32_and_test_points_are_others() -> None:
    data = load_dataset("function:exp_sin", seed=1)
    assert (data.task, data.in_features, data.out_features) == ("regression", 2, 1)
    assert [len(getattr(data, part)) for part in PARTS] == [1500, 200, 300, 2000]
    assert data.train.x.dtype == data.train.y.dtype == np.float32
    assert len(set(rows_of(data, *PARTS))) == 4000
    for part in PARTS:
        assert np.abs(getattr(data, part).x).max() <= 1
    # uniform on [-1, 1]: mean 0 and variance 1/3, within five standard errors of 2000 samples
    np.testing.assert_allclose(data.test.x.mean(axis=0), 0, rtol=0, atol=5 * np.sqrt(1 / 3 / 2000))
    np.testing.assert_allclose(data.test.x.var(axis=0), 1 / 3, rtol=0, atol=5 * np.sqrt(4 / 45 / 2000))
    assert_same(data, load_dataset("function:exp_sin", seed=1))
    assert load_dataset("function:exp_sin", seed=2).content_hash != data.content_hash
    assert load_dataset("function:product", seed=1).content_hash != data.content_hash


# npz files


def test_npz_dtypes_and_shapes(tmp_path: Path) -> None:
    images = np.arange(80 * 4, dtype=np.uint8).reshape(80, 2, 2)
    data = load_dataset(write_npz(tmp_path / "i.npz", x_train=images[:40], x_test=images[40:]))
    assert data.train.x.dtype == np.uint8
    assert data.in_features == 4
    np.testing.assert_array_equal(data.test.x, images[40:].reshape(40, 4))
    for dtype in (np.int32, np.uint16, np.float16, np.float64, ">f4"):
        x = make_arrays()["x_train"].astype(dtype)
        assert load_dataset(write_npz(tmp_path / "f.npz", x_train=x)).train.x.dtype == np.float32
    for dtype in (np.uint8, np.int16, np.uint64):
        y = make_arrays()["y_train"].astype(dtype)
        data = load_dataset(write_npz(tmp_path / "l.npz", y_train=y))
        assert data.train.y.dtype == np.int64
        assert (data.task, data.out_features) == ("classification", 4)


@pytest.mark.parametrize(("shape", "targets"), [((40,), 1), ((40, 1), 1), ((40, 3), 3)])
def test_float_targets_make_a_regression(shape: tuple[int, ...], targets: int, tmp_path: Path) -> None:
    y = np.random.default_rng(0).normal(size=shape)
    data = load_dataset(write_npz(tmp_path / "r.npz", y_train=y, y_test=y))
    assert (data.task, data.out_features) == ("regression", targets)
    assert data.test.y.dtype == np.float32
    np.testing.assert_array_equal(data.test.y, y.reshape(40, targets).astype(np.float32))


def changed(key: str, place: tuple[int, ...] | int, value: float, dtype: object = None) -> dict[str, np.ndarray]:
    array = make_arrays()[key].astype(dtype) if dtype else make_arrays()[key].copy()
    array[place] = value
    return {key: array}


BAD_ARRAYS: dict[str, tuple[dict[str, np.ndarray], tuple[str, ...]]] = {
    "object features": ({"x_train": np.array([["a", None]] * 40, object)}, ("x_train cannot be read", "numeric array")),
    "text features": ({"x_test": np.array([["a", "b"]] * 40)}, ("x_test has dtype <U1", "uint8")),
    "bool labels": ({"y_train": np.zeros(40, bool)}, ("y_train has dtype bool", "integer labels")),
    "complex targets": ({"y_test": np.zeros(40, complex)}, ("y_test has dtype complex128",)),
    "1-d features": ({"x_train": np.zeros(40)}, ("x_train has shape (40,)", "(n, d)")),
    "0-d features": ({"x_train": np.float32(3)}, ("x_train has shape ()",)),
    "0-d labels": ({"y_train": np.int64(3)}, ("y_train holds integers of shape ()",)),
    "2-d labels": ({"y_train": np.zeros((40, 2), int)}, ("y_train holds integers of shape (40, 2)", "labels (n,)")),
    "0-d targets": ({"y_train": np.float32(3)}, ("y_train has shape ()",)),
    "3-d targets": ({"y_train": np.zeros((40, 2, 2))}, ("y_train has shape (40, 2, 2)", "(n,) or (n, t)")),
    "no rows": ({"x_train": np.zeros((0, 3))}, ("x_train is empty", "(0, 3)")),
    "no columns": ({"x_test": np.zeros((40, 0))}, ("x_test is empty", "(40, 0)")),
    "no labels": ({"y_test": np.zeros(0, int)}, ("y_test is empty",)),
    "rows differ, train": ({"y_train": np.zeros(39, int)}, ("x_train has 40 rows but y_train has 39",)),
    "rows differ, test": ({"x_test": np.zeros((41, 3))}, ("x_test has 41 rows but y_test has 40",)),
    "columns differ": ({"x_test": np.zeros((40, 4))}, ("x_test has 4 features but x_train has 3",)),
    "uint8 and float": ({"x_test": np.zeros((40, 3), np.uint8)}, ("x_test is uint8 but x_train is float32",)),
    "labels and targets": ({"y_test": np.zeros(40)}, ("y_test is float64 but y_train is int64",)),
    "targets differ": ({"y_train": np.zeros((40, 2)), "y_test": np.zeros((40, 3))},
                       ("y_test has 3 targets but y_train has 2",)),
    "NaN feature": (changed("x_train", (7, 2), np.nan), ("x_train row 7 column 2 is nan", "finite")),
    "infinite feature": (changed("x_test", (39, 0), -np.inf), ("x_test row 39 column 0 is -inf", "finite")),
    "NaN target": (changed("y_train", 5, np.nan, float) | {"y_test": np.zeros(40)}, ("y_train row 5 column 0 is nan",)),
    "float32 overflow": (changed("x_train", (3, 1), -1e39, float), ("x_train row 3 column 1 is -1e+39", "float32")),
    "target overflow": ({"y_train": np.full((40, 2), 1e300), "y_test": np.zeros((40, 2))},
                        ("y_train row 0 column 0 is 1e+300", "float32")),
    "seconds since 1970": ({"x_train": np.ones((40, 3)) + np.outer(np.linspace(0, 600, 40) + 1.7e9, [0, 1, 0])},
                           ("x_train column 1 varies by 178 around 1700000301, which", "subtract an offset")),
    "too small for float32": ({"y_train": np.linspace(0, 1e-60, 40), "y_test": np.zeros(40)},
                              ("y_train column 0 varies by 2.96e-61 around 5e-61", "scale it")),
    "negative label": (changed("y_train", 9, -1), ("y_train row 9 holds the label -1", "from 0")),
    "negative test label": (changed("y_test", 9, -2), ("y_test row 9 holds the label -2",)),
    "huge label": (changed("y_train", 4, MOST_CLASSES), ("y_train row 4 holds the label 65536", "from 0")),
    "unknown test label": (changed("y_test", 8, 4), ("y_test row 8 holds the label 4", "only goes to 3")),
    "one class": ({"y_train": np.zeros(40, int), "y_test": np.zeros(40, int)}, ("y_train holds the label 0 only",)),
    "too few rows": ({"x_train": np.zeros((9, 3)), "y_train": np.arange(9) % 4},
                     ("x_train has 9 rows", "at least 10")),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_one_line(case: str, tmp_path: Path) -> None:
    changes, fragments = BAD_ARRAYS[case]
    path = write_npz(tmp_path / "bad.npz", **changes)
    check_refused(path, path, *fragments)


def test_a_column_that_varies_by_rounding_is_a_constant(tmp_path: Path) -> None:
    x = make_arrays()["x_train"].astype(np.float64)
    x[:, 1] = np.where(np.arange(40) % 2, 0.1 + 0.2, 0.3)
    assert np.ptp(load_dataset(write_npz(tmp_path / "r.npz", x_train=x)).train.x[:, 1]) == 0


def test_ten_rows_are_enough(tmp_path: Path) -> None:
    data = load_dataset(write_npz(tmp_path / "ten.npz", x_train=np.zeros((10, 3)), y_train=np.arange(10) % 4))
    assert [len(getattr(data, part)) for part in PARTS] == [8, 1, 1, 40]


def test_missing_and_unknown_keys_are_one_line(tmp_path: Path) -> None:
    arrays = make_arrays()
    path = write_npz(tmp_path / "more.npz", x_valid=np.zeros(3), w=np.zeros(3))
    check_refused(path, path, "unknown arrays x_valid, w", "x_train, y_train, x_test, y_test")
    del arrays["x_test"], arrays["y_test"]
    np.savez(tmp_path / "less.npz", **arrays)
    check_refused(str(tmp_path / "less.npz"), "less.npz", "misses x_test, y_test")


def test_files_that_are_no_npz_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    check_refused(str(path), str(path), "no such file", "x_train, y_train, x_test, y_test")
    check_refused(str(tmp_path / "folder.NPZ"), "no such file")
    for content in (b"", b"plain text", b"PK\x03\x04 no zip", Path(write_npz(path)).read_bytes()[:200]):
        path.write_bytes(content)
        check_refused(str(path), str(path), "not a readable npz file", "numpy.savez")
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    path.write_bytes(buffer.getvalue())
    check_refused(str(path), str(path), "a single array (npy)")


def test_damaged_members_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    content = bytearray(Path(write_npz(path)).read_bytes())
    content[content.index(b"NUMPY") + 200] ^= 0xFF  # a byte of x_train's values: the checksum fails
    path.write_bytes(content)
    check_refused(str(path), str(path), "x_train cannot be read", "CRC")
    with zipfile.ZipFile(path, "w") as archive:
        for key in KEYS:
            archive.writestr(f"{key}.npy", b"no npy")
    check_refused(str(path), str(path), "x_train is not an array")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9" + b"(" * 20 + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        for key in KEYS:
            archive.writestr(f"{key}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    check_refused(str(path), str(path), "x_train cannot be read")


# Names


def test_unknown_names_list_the_known_ones() -> None:
    known = "digits, mnist, fashion-mnist, kmnist, mnist1d, function:NAME, FILE.npz"
    check_refused("minst", "'minst'", known, *TARGETS)
    check_refused("function:besel", "'besel'", *TARGETS)


# Standardization


def test_uint8_features_share_one_shift_and_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standardization_module, "PIECE", 50)  # many pieces, the last one short
    x = np.random.default_rng(0).integers(0, 256, (101, 7), dtype=np.uint8)
    features, targets = standardization_of(Split(x, np.zeros(101, np.int64)))
    assert targets is None
    assert features.shift.dtype == features.scale.dtype == np.float64
    # float64 sums of 707 values: a few hundred roundings of 1e-16
    np.testing.assert_allclose(features.shift, np.full(7, x.mean(dtype=np.float64)), rtol=1e-13, atol=0)
    np.testing.assert_allclose(features.scale, np.full(7, x.std(dtype=np.float64)), rtol=1e-13, atol=0)


def test_float_features_and_targets_are_standardized_by_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standardization_module, "PIECE", 50)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(101, 3)) * [1, 1e-6, 1e6] + [1e4, 0, 1]).astype(np.float32)
    y = (rng.normal(size=(101, 2)) * [3, 1e-3] + [0, 7]).astype(np.float32)
    for values, map_ in zip((x, y), standardization_of(Split(x, y)), strict=True):
        assert map_ is not None
        wide = values.astype(np.float64)
        # float64 sums of 101 values at offsets up to 1e4 deviations
        np.testing.assert_allclose(map_.shift, wide.mean(axis=0), rtol=1e-12, atol=1e-18)
        np.testing.assert_allclose(map_.scale, wide.std(axis=0), rtol=1e-9, atol=0)


@pytest.mark.parametrize("value", [0, 0.1, -3.3e38, 1e-45])
def test_constant_columns_get_scale_one(value: float) -> None:
    x = np.full((1000, 2), value, np.float32)
    x[:, 1] = np.arange(1000)
    features, _ = standardization_of(Split(x, np.zeros(1000, np.int64)))
    assert features.shift[0] == x[0, 0]
    assert features.scale[0] == 1
    assert features.scale[1] == pytest.approx(np.arange(1000).std())


def test_constant_images_get_scale_one() -> None:
    features, _ = standardization_of(Split(np.full((1000, 784), 7, np.uint8), np.zeros(1000, np.int64)))
    assert set(features.shift) == {7.0}
    assert set(features.scale) == {1.0}
