"""What several commands share: options, the names of classes, reading weights, and keeping them in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import click

from .backends import BACKENDS
from .cpu.threads import MOST_THREADS
from .errors import EqkernelError
from .interop import to_host
from .network import Network
from .weightfile import check_writable

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
RESULTS = "weights.safetensors", "interrupted.safetensors", "training.png"
LARGEST = 10**8  # neurons of a layer, cells of a side: numbers beyond it overflow in NumPy before memory ends


def choice(names: Iterable[str]) -> click.Choice:
    """One of `names`."""
    return click.Choice(list(names))


FOLDER = click.Path(path_type=Path)
BACKEND = click.option("--backend", type=choice(["auto", *BACKENDS]), default="auto", show_default=True)
DATA = click.option(
    "--data", "place", type=FOLDER, help="Folder of the data set; else $EQKERNEL_DATA, else it is downloaded."
)
THREADS = click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="Threads of the kernels.")
SEED = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights and shuffles."
)
SEEDS = click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Runs, from --seed on.")
VALIDATION = click.option(
    "--validation", type=float, metavar="FRACTION", help="Judge on this part of the training set."
)


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EqkernelError(f"cannot write into {out}: {error.strerror}; name another --out") from error


@contextmanager
def writing_into(out: Path, *names: str) -> Iterator[None]:
    """The folder is made, and seen to take files of these names, before the work; if nothing comes of it, it goes."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        _make(out)
        for name in names:
            check_writable(out / name)
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):  # it holds something
                folder.rmdir()
        raise


def read(weights: Path, backend: str) -> Network:
    """The network of a weight file, or the shipped one if that is "pretrained"; float64 where the backend needs it."""
    dtype = "float64" if backend == "reference" else None
    if str(weights) != "pretrained" or weights.exists():
        return Network.load(weights, backend, dtype)
    with as_file(files(__package__) / "weights" / "cortex_conv_mnist.safetensors") as shipped:
        return Network.load(shipped, backend, dtype)


def draw_into(out: Path, draw: Callable[..., None], story: Any) -> None:
    """The picture of a training, whose weights are there if it cannot be drawn."""
    try:
        draw(story, out / "training.png")
    except EqkernelError as error:
        raise EqkernelError(f"{error}; the weights are in {out / 'weights.safetensors'}") from error


class Interrupted(Exception):
    """A training was interrupted; the message says where its weights are."""


@contextmanager
def kept(net: Network, run: int, out: Path) -> Iterator[None]:
    """Around the training of run 0, 1, ...: whatever comes later, the weights of run 0 are in the folder `out`.

    Those of an interrupted one get a file of their own: what an earlier training left stays as it is.
    """
    start = to_host(net.buffer).copy()
    try:
        yield
    except KeyboardInterrupt:
        if run:
            weights = out / "weights.safetensors"
            raise Interrupted(f"interrupted; the first seed's weights, fully trained, are in {weights}") from None
        if (to_host(net.buffer) == start).all():
            raise
        weights = out / "interrupted.safetensors"
        net.save(weights)
        raise Interrupted(f"interrupted; the weights as they were at this moment are in {weights}") from None
    if not run:
        net.save(out / "weights.safetensors")
