"""The C99 source of bindings/integer, compiled for one config and called through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import EqkernelError
from .config import Config
from .model import DIVERGED, OK, Pair, Report

FLAGS = ("-std=c99", "-O3", "-march=native")


def sources() -> Path:
    """The folder of eqk_int.h: beside the package as it installs, or as it lies in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "bindings" / "integer", package.parent / "bindings" / "integer"):
        if (folder / "eqk_int.h").is_file():
            return folder
    raise EqkernelError(f"the C sources of the integer network are not beside {package}: install eqkernel again")


def compiler() -> str | None:
    """The C compiler: $CC, else cc, gcc or clang, whichever is there."""
    names = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def compile_library(config: Config, source: Path | None = None, flags: Sequence[str] = FLAGS) -> Path:
    """The shared library of a config, compiled unless it already was; `source` stands in for eqk_int.c."""
    cc, folder = compiler(), sources()
    if cc is None:
        raise EqkernelError("no C compiler was found: install gcc or clang, or name one in $CC")
    source = folder / "eqk_int.c" if source is None else source
    command = [cc, *flags, "-shared", "-fPIC", f"-I{folder}", *config.defines(), str(source)]
    texts = [path.read_bytes() for path in (source, folder / "eqk_int.h", folder / "eqk_hls.h")]
    key = hashlib.sha256(repr(command).encode() + b"".join(texts)).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"eqkernel-integer-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    library = place / f"{key}.so"
    if not library.exists():
        partial = place / f"{key}.{os.getpid()}.so"
        done = subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True)
        if done.returncode:
            raise EqkernelError(f"{cc} could not compile {source.name}:\n{done.stderr}")
        os.replace(partial, library)
    return library


class Compiled:
    """eqk_train and eqk_predict of one config; `report` counts what happened since it was cleared."""

    def __init__(self, config: Config, source: Path | None = None, flags: Sequence[str] = FLAGS) -> None:
        self.config = config
        self.library = ctypes.CDLL(str(compile_library(config, source, flags)))
        weights = config.hidden * (config.inputs + config.outputs)
        # struct eqk_workspace: int8 weights, then, aligned to 4 bytes, int32 traces and the four counts
        self._report = (weights + 3) // 4 + weights
        self._workspace = np.zeros(self._report + 4, np.uint32)

    @property
    def report(self) -> Report:
        return Report(*(int(count) for count in self._workspace[self._report :]))

    def train_step(
        self, masters: NDArray[np.int16], x: NDArray[np.int8], t: NDArray[np.int8], rates: tuple[int, int], batch: int
    ) -> str:
        """As model.train_step; masters are (weights,) int16, w1 before w2: see `flat`."""
        status = self.library.eqk_train(
            pointer(masters), pointer(x), pointer(t), len(x), *rates, ctypes.c_uint32(batch), pointer(self._workspace)
        )
        if status < 0:
            raise EqkernelError("eqk_train refused its arguments: 1 to 255 samples, rates in 0..24")
        return DIVERGED if status else OK

    def predict(self, masters: NDArray[np.int16], x: NDArray[np.int8]) -> NDArray[np.int32]:
        """Labels (B,) of x (B, inputs)."""
        labels = np.empty(len(x), np.int32)
        self.library.eqk_predict(pointer(masters), pointer(x), len(x), pointer(labels), pointer(self._workspace))
        return labels


def flat(masters: Pair) -> NDArray[np.int16]:
    """Masters as the C struct holds them."""
    return np.concatenate([m.reshape(-1) for m in masters]).astype(np.int16)


def unflat(masters: NDArray[np.int16], config: Config) -> Pair:
    """The two layers of `flat`'s array, as views."""
    first, second = np.split(masters, [config.hidden * config.inputs])
    return Pair(first.reshape(config.hidden, config.inputs), second.reshape(config.outputs, config.hidden))


def pointer(array: NDArray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)
