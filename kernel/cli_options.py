"""What several commands share: options, the names of classes, a folder for results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile

import click

from .backends import BACKENDS
from .errors import EqkernelError

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


def choice(names: Iterable[str]) -> click.Choice:
    """One of `names`."""
    return click.Choice(list(names))


FOLDER = click.Path(path_type=Path)
BACKEND = click.option("--backend", type=choice(["auto", *BACKENDS]), default="auto", show_default=True)
DATA = click.option(
    "--data", "place", type=FOLDER, help="Folder of the data set; else $EQKERNEL_DATA, else it is downloaded."
)
THREADS = click.option("--threads", type=click.IntRange(1), help="Threads of the kernels.")
SEED = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights and shuffles."
)
SEEDS = click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Runs, from --seed on.")
VALIDATION = click.option(
    "--validation", type=float, metavar="FRACTION", help="Judge on this part of the training set."
)


def prepare(out: Path) -> None:
    """Makes the folder, and finds out before the training whether it can be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=out).close()
    except OSError as error:
        raise EqkernelError(f"cannot write into {out}: {error.strerror}; name another --out") from error
