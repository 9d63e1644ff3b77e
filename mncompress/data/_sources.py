"""Data sets known by name. The libraries that hold them are imported only when one is asked for."""

import contextlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mncompress.data._check import check_arrays
from mncompress.data._dataset import Arrays, Split
from mncompress.errors import DataError

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load_digits() -> Arrays:
    """scikit-learn's 1797 digits of 8 x 8 pixels with values 0 to 16; they have no test set of their own."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return Arrays(Split(x.astype(np.uint8), y.astype(np.int64)))


def load_torchvision(name: str, class_name: str, data_dir: Path) -> Arrays:
    """One of torchvision's data sets in MNIST's format, 28 x 28 pixels in 784 columns.

    It is read from `data_dir/CLASS_NAME/raw` and downloaded to there only where it is not.

    Raises:
        DataError: the files are damaged, or they are not there and cannot be downloaded.
    """
    import torchvision

    make = getattr(torchvision.datasets, class_name)
    folder = data_dir / class_name / "raw"
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            train, test = (make(data_dir, train=part, download=True) for part in (True, False))
    except Exception as error:  # whatever urllib, gzip, torch and torchvision's own assertions raise
        reason = next(iter(str(error).splitlines()[-1:]), type(error).__name__)
        with contextlib.suppress(OSError):      # of a folder's name that was mistyped nothing stays
            for path in new:
                path.rmdir()
        if all((folder / file).is_file() for file in IDX_FILES):
            raise DataError(f"{name}: the files in {folder} are damaged ({reason}); remove them to download them "
                            "again, or pass another --data-dir") from error
        raise DataError(f"{name}: {', '.join(IDX_FILES)} are not all in {folder}, and the download failed ({reason}); "
                        f"put them there, or pass the folder that holds {class_name}/raw as --data-dir") from error
    return check_arrays(str(folder), {
        "x_train": train.data.numpy(), "y_train": train.targets.numpy(),
        "x_test": test.data.numpy(), "y_test": test.targets.numpy()})


def make_mnist1d(seed: int) -> Arrays:
    """MNIST-1D: 4000 training and 1000 test signals of length 40 in ten classes, generated from the seed.

    The generator (Greydanus and Kobak, "Scaling Down Deep Learning with MNIST-1D", arXiv:2011.14439) draws from the
    global states of `random` and `numpy.random`, which are put back. Its download is a pickle and is never used.

    Raises:
        DataError: the package is not installed.
    """
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError as error:
        raise DataError("mnist1d: its package is not installed; run pip install mnist1d") from error
    args = get_dataset_args()
    args.seed = seed % 2**32  # all that numpy's global generator takes
    with _global_random_state_kept():
        data = make_dataset(args)
    return Arrays(*(Split(data[x].astype(np.float32), data[y].astype(np.int64))
                    for x, y in (("x", "y"), ("x_test", "y_test"))))


@contextlib.contextmanager
def _global_random_state_kept() -> Iterator[None]:
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
