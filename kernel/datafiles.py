"""Files of data sets: where they lie and how to read them. A bad file is one EqkernelError that names it."""

import gzip
import hashlib
import io
import itertools
import os
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
from numpy.typing import ArrayLike, NDArray
from PIL import Image, UnidentifiedImageError

from .errors import EqkernelError

Arrays = tuple[NDArray, NDArray, NDArray, NDArray]  # images, labels, test images, test labels, as bytes


@dataclass(frozen=True)
class Source:
    """A data set's files: the layouts they may lie in, the first of which can be downloaded."""

    title: str
    folders: tuple[str, ...]
    layouts: tuple[tuple[str, ...], ...]
    url: str
    md5: tuple[str, ...]  # of the files of the first layout, as published


IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IDX_GZ = tuple(f"{name}.gz" for name in IDX)

MNIST = Source(
    "MNIST",
    ("mnist", "MNIST/raw", "."),
    (IDX_GZ, IDX),
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)
MNIST_CONTENT = (  # MD5 of the same files, uncompressed
    "6bbc9ace898e44ae57da46a324031adb",
    "a25bea736e30d166cdddb491f175f624",
    "2646ac647ad5339dbf082846283269ea",
    "27ae3e4e09519cfbb04c329615203637",
)
FASHION_MNIST = Source(
    "Fashion-MNIST",
    ("fashion-mnist", "FashionMNIST/raw", "."),
    (IDX_GZ, IDX),
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
)
CIFAR10 = Source(
    "CIFAR-10",
    ("cifar10", "cifar-10-batches-py", "."),
    (
        ("cifar-10-python.tar.gz",),
        (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
        ("train_jpeg.npz", "test_jpeg.npz"),
    ),
    "https://www.cs.toronto.edu/~kriz/",
    ("c58f30108f718f92721af3b95e74349a",),
)


def find(source: Source, folder: str | os.PathLike | None) -> list[Path]:
    """The files of one layout: in `folder`, else in $EQKERNEL_DATA, else downloaded into the user's cache."""
    root = os.environ.get("EQKERNEL_DATA") if folder is None else folder
    if root and not Path(root).is_dir():
        name = "EQKERNEL_DATA" if folder is None else "the data folder"
        raise EqkernelError(f"{name} {str(root)!r} is not a folder: name one that holds {source.title}")
    places = [Path(root, name) for name in source.folders] if root else []
    for place, layout in itertools.product(places, source.layouts):
        if all((place / name).is_file() for name in layout):
            return [place / name for name in layout]
    wanted = ", or ".join(" ".join(layout) for layout in source.layouts)
    subfolders = ", ".join(source.folders[:-1])
    searched = f"{source.title} is not in {root} (looked for {wanted} there and in {subfolders})"
    if folder is not None:
        raise EqkernelError(f"{searched}; put them there, or name no folder to have them downloaded")
    try:
        return _download(source)
    except (OSError, ValueError) as error:  # no network, no space, or another checksum
        reason = str(error).splitlines()[0]
        raise EqkernelError(
            f"{searched if root else source.title} and could not be downloaded from {source.url} ({reason}); "
            "put its files into a folder and name it: --data DIR or EQKERNEL_DATA=DIR"
        ) from error


def _download(source: Source) -> list[Path]:
    """The files of the first layout, from the cache or from the network; their MD5 is checked each time."""
    cache = Path(pooch.os_cache("eqkernel"), source.folders[0])
    fetch = pooch.HTTPDownloader(timeout=30)
    return [
        Path(pooch.retrieve(source.url + name, f"md5:{md5}", fname=name, path=cache, downloader=fetch))
        for name, md5 in zip(source.layouts[0], source.md5, strict=True)
    ]


def read_idx_set(source: Source, folder: str | os.PathLike | None, verify: bool = False) -> Arrays:
    """The four IDX files of MNIST or Fashion-MNIST; `verify` insists that the content is MNIST's original."""
    paths = find(source, folder)
    content = [_uncompressed(path) for path in paths]
    for path, raw, md5 in zip(paths, content, MNIST_CONTENT, strict=True):
        found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
        if verify and found != md5:
            raise EqkernelError(
                f"{path} is not MNIST's original: its content has MD5 {found}, not {md5}; "
                "fetch it again, or pass verify=False if the difference is meant"
            )
        if source is FASHION_MNIST and found == md5:  # the names of the files are the same
            raise EqkernelError(f"{path} is MNIST's: put Fashion-MNIST's files into a folder fashion-mnist/")
    x, y, x_test, y_test = (parse_idx(*part) for part in zip(content, (3, 1, 3, 1), paths, strict=True))
    for images, labels, path in ((x, y, paths[1]), (x_test, y_test, paths[3])):
        if not len(images) == len(labels) > 0:
            raise EqkernelError(f"{path} holds {len(labels)} labels for {len(images)} images")
        if labels.max() > 9:
            raise EqkernelError(f"{path} holds the label {labels.max()}: labels are 0..9")
    if x.shape[1:] != x_test.shape[1:]:
        raise EqkernelError(f"{paths[2]} holds images of {x_test.shape[1:]}, {paths[0]} of {x.shape[1:]}")
    return x, y, x_test, y_test


def parse_idx(raw: bytes, rank: int, path: Path) -> NDArray[np.uint8]:
    """The array of an IDX file: 0, 0, 8 (for bytes), its rank; its shape as big-endian int32; its bytes."""
    start = 4 + 4 * rank
    if raw[:4] != bytes((0, 0, 8, rank)):
        begins = raw[:4].hex() or "nothing"
        raise EqkernelError(f"{path} is no IDX file of rank {rank}: it begins {begins}, not 0000080{rank}")
    shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)]
    size = start + int(np.prod(shape, dtype=object))
    if len(raw) < start or len(raw) != size:
        raise EqkernelError(f"{path} is {len(raw)} bytes long, its header asks for {size}: fetch it again")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_cifar10(folder: str | os.PathLike | None) -> Arrays:
    """CIFAR-10's images (n, 3 * 32 * 32) and labels (n,), from whichever layout is there."""
    paths = find(CIFAR10, folder)
    if paths[0].suffix == ".npz":
        return *_jpegs(paths[0]), *_jpegs(paths[1])
    *parts, test = (_cifar_batch(raw, path) for raw, path in _cifar_files(paths))
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels), *test


def _cifar_files(paths: list[Path]) -> Iterator[tuple[bytes, Path]]:
    """The content of the six batches and the path to name in errors, from the files or their archive."""
    if len(paths) > 1:
        yield from ((_bytes(path), path) for path in paths)
        return
    try:
        with tarfile.open(paths[0]) as archive:
            for name in CIFAR10.layouts[1]:
                member = archive.extractfile(f"cifar-10-batches-py/{name}")
                yield (member.read() if member else b""), paths[0] / name
    except (tarfile.TarError, KeyError, EOFError, zlib.error, OSError) as error:
        raise EqkernelError(f"{paths[0]} is truncated or not CIFAR-10's ({error}): fetch it again") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays, and refuses every other class: nothing that a file says is run."""

    def find_class(self, module: str, name: str) -> object:
        allowed = {("numpy", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        if (module.split(".")[0], name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module, name)


def _cifar_batch(raw: bytes, path: Path) -> tuple[NDArray, NDArray]:
    try:
        batch = _ArrayUnpickler(io.BytesIO(raw), encoding="bytes").load()
        return _cifar_arrays(batch[b"data"], batch[b"labels"])
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise EqkernelError(f"{path} is truncated or no CIFAR-10 batch ({error}): fetch it again") from error


def _jpegs(path: Path) -> tuple[NDArray, NDArray]:
    """Images and labels of an npz file of JPEG images, as load_cifar10 describes it."""
    raw = _bytes(path)
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            jpeg, offset, labels = file["jpeg"], file["offset"], file["label"]
        pictures = (Image.open(io.BytesIO(jpeg[start:stop])) for start, stop in itertools.pairwise(offset))
        images = [np.asarray(picture.convert("RGB")).transpose(2, 0, 1).ravel() for picture in pictures]
        return _cifar_arrays(images, labels)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, LookupError, TypeError, ValueError) as error:
        raise EqkernelError(f"{path} is truncated or no set of JPEGs ({error}): fetch it again") from error


def _cifar_arrays(images: ArrayLike, labels: ArrayLike) -> tuple[NDArray, NDArray]:
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3 * 32 * 32:
        raise ValueError(f"images are {images.dtype} {images.shape}, not uint8 (n, 3072)")
    if labels.shape != images.shape[:1] or not np.isin(labels, range(10)).all():
        raise ValueError(f"labels are not {len(images)} integers in 0..9")
    return images, labels


def read_image(path: Path, features: int, invert: bool = False) -> NDArray[np.float32]:
    """One image as (features,) float32 in [0, 1]: a .npy array, bytes over 255, or a picture in grey.

    A picture is scaled to a square of `features` pixels; `invert` turns dark on bright into bright on dark.
    """
    raw = _bytes(path)
    try:
        if path.suffix == ".npy":
            pixels = np.load(io.BytesIO(raw), allow_pickle=False)
        else:
            side = round(features**0.5)
            picture = Image.open(io.BytesIO(raw))
            if picture.mode[0] in "IF":  # 16 bits and more, which a conversion to bytes would clip
                raise ValueError(f"pixels of mode {picture.mode}, not bytes")
            pixels = np.asarray(picture.convert("L").resize((side, side)))
    except (OSError, EOFError, ValueError) as error:
        why = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"  # which names no file
        raise EqkernelError(f"{path} is truncated or no image{why}: give .npy or a picture of bytes") from error
    values = np.ravel(pixels / 255 if pixels.dtype == np.uint8 else pixels)
    if values.size != features or values.dtype.kind not in "fiub":
        found = f"{pixels.dtype} {pixels.shape}"
        raise EqkernelError(f"{path} holds {found}: the network takes {features} numbers")
    if not ((values >= 0) & (values <= 1)).all():
        span = f"{values.min()} to {values.max()}"
        raise EqkernelError(f"{path} holds numbers from {span}: give bytes, or numbers in [0, 1]")
    return np.asarray(1 - values if invert else values, np.float32)


def _uncompressed(path: Path) -> bytes:
    raw = _bytes(path)
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise EqkernelError(f"{path} is truncated or not a gzip file ({error}): fetch it again") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EqkernelError(f"cannot read {path}: {error.strerror}") from error
