"""Data sets as (x, y, x_test, y_test), mini-batches, and small synthetic problems.

Every x is (n, features) float32 in [0, 1], one flattened image a row; every y is (n,) int64 class labels.

The digits travel with scikit-learn. The other sets are looked for in the folder passed, else in
$EQKERNEL_DATA, else in the user's cache, into which they are downloaded, checked by MD5, the first time. The
files may lie in that folder itself or in a subfolder named after the set (mnist/, fashion-mnist/, cifar10/,
or torchvision's). A folder that is passed is final: a set that is not there is an error, never a download.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets

from . import datafiles
from .errors import EqkernelError, as_array, check_seed, is_finite, is_whole

Split = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


def load_digits() -> Split:
    """scikit-learn's 8x8 digits, 64 features: 1,442 to learn from and 355 to test on.

    The split is fixed and stratified: of each class, in the order of the file, every fifth image is a test
    image. As in any split by image, the same writers are on both sides.
    """
    digits = datasets.load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target.astype(np.int64)
    rank = np.zeros(len(y), int)  # of each image among those of its class
    for label in range(10):
        rank[y == label] = np.arange((y == label).sum())
    test = rank % 5 == 4
    return x[~test], y[~test], x[test], y[test]


def load_mnist(folder: str | os.PathLike | None = None, *, verify: bool = True) -> Split:
    """MNIST: 28x28 = 784 features, 60,000 + 10,000 images.

    `verify` insists that the content is the original's, by MD5. Raises EqkernelError for files that are
    missing, truncated or foreign.
    """
    return _split(*datafiles.read_idx_set(datafiles.MNIST, folder, verify))


def load_fashion_mnist(folder: str | os.PathLike | None = None) -> Split:
    """Fashion-MNIST (Xiao et al. 2017): clothes in MNIST's format and sizes; errors as load_mnist.

    MNIST's own files, which bear the same names, are refused.
    """
    return _split(*datafiles.read_idx_set(datafiles.FASHION_MNIST, folder))


def load_cifar10(folder: str | os.PathLike | None = None) -> Split:
    """CIFAR-10 (Krizhevsky 2009): 3,072 features, 50,000 + 10,000 images; errors as load_mnist.

    x.reshape(-1, 3, 32, 32) is (image, colour, row, column). Reads the Python batches, their archive, or
    train_jpeg.npz and test_jpeg.npz with arrays `jpeg` (all files end to end), `offset` (n + 1) and `label`;
    JPEG is slightly lossy: say so beside any figure such files lead to.
    """
    return _split(*datafiles.read_cifar10(folder))


def batches(x: Any, y: Any, size: int, seed: int | None, drop_last: bool = False) -> Iterator[tuple[NDArray, NDArray]]:
    """Pairs (x, y) of `size` rows that hold every row once, shuffled by `seed`; in order if it is None.

    The last pair may be smaller; `drop_last` leaves it out.
    """
    x, y = as_pair(x, y)
    if not is_whole(size, 1):
        raise EqkernelError(f"batch size is {size!r}: it must be a whole number of at least 1")
    if seed is not None:
        check_seed(seed)
    rows = np.arange(len(x)) if seed is None else np.random.default_rng(seed).permutation(len(x))
    stop = len(rows) - len(rows) % size if drop_last else len(rows)
    parts = (rows[i : i + size] for i in range(0, stop, size))
    return ((x[part], y[part]) for part in parts)


def validation_split(x: Any, y: Any, fraction: float = 0.1, seed: int = 0) -> Split:
    """(x, y, x_held, y_held): a `fraction` of each class, drawn by `seed`, is held out; y is labels (n,)."""
    if not (is_finite(fraction) and 0 < fraction < 1):
        raise EqkernelError(f"validation fraction is {fraction!r}: it must lie between 0 and 1")
    x, y = as_pair(x, y)
    if y.ndim != 1:
        raise EqkernelError(f"a validation split takes labels (n,), not y of shape {y.shape}")
    check_seed(seed)
    rng = np.random.default_rng(seed)
    held = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        held[members[: round(fraction * len(members))]] = True
    if held.all() or not held.any():
        raise EqkernelError(f"{len(y)} samples are too few to hold out a fraction of {fraction}")
    return x[~held], y[~held], x[held], y[held]


def gaussian_clusters(
    n: int, features: int, classes: int, seed: int, noise: float = 0.1
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A Gaussian cloud of width `noise` for each class: x (n, features) in [0, 1], y (n,) evenly shared."""
    _check_drawn(seed, noise, n=n, features=features, classes=classes)
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    centres = rng.uniform(0.2, 0.8, (classes, features))
    x = centres[y] + noise * rng.standard_normal((n, features))
    return np.clip(x, 0, 1).astype(np.float32), y


def rings(n: int, classes: int, seed: int, noise: float = 0.01) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Concentric rings, which no linear readout separates: x (n, 2) in [0, 1], y (n,) from the inside."""
    _check_drawn(seed, noise, n=n, classes=classes)
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    radius = 0.45 * (y + 1) / classes + noise * rng.standard_normal(n)
    angle = rng.uniform(0, 2 * np.pi, n)
    x = 0.5 + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return np.clip(x, 0, 1).astype(np.float32), y


def _check_drawn(seed: int, noise: float, **counts: int) -> None:
    """EqkernelError for numbers of which no problem can be drawn."""
    check_seed(seed)
    if not (is_finite(noise) and noise >= 0):
        raise EqkernelError(f"noise must be a number of at least 0, not {noise!r}")
    for name, count in counts.items():
        if not is_whole(count, 1):
            raise EqkernelError(f"{name} must be a whole number of at least 1, not {count!r}")


def as_pair(x: Any, y: Any) -> tuple[Any, Any]:
    """x and y as arrays, whosever these are; EqkernelError unless they have as many rows."""
    x, y = (a if hasattr(a, "shape") else as_array(name, a) for name, a in (("x", x), ("y", y)))
    if not (len(x.shape) and len(y.shape)):
        raise EqkernelError(f"x and y must have rows, not the shapes {tuple(x.shape)} and {tuple(y.shape)}")
    if len(x) != len(y):
        raise EqkernelError(f"x has {len(x)} rows and y has {len(y)}: they must be as many")
    return x, y


def _split(x: NDArray, y: NDArray, x_test: NDArray, y_test: NDArray) -> Split:
    """Images of bytes, (n, ...), as flattened float32 in [0, 1]; labels as int64."""
    scaled = [np.divide(images.reshape(len(images), -1), 255, dtype=np.float32) for images in (x, x_test)]
    return scaled[0], y.astype(np.int64), scaled[1], y_test.astype(np.int64)
