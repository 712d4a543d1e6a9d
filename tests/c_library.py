"""The C library compiled for tests, as it is or with one place changed, and a process that runs checks on it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

import eqkernel

BINDINGS = Path(eqkernel.__file__).parent.parent / "bindings"
CC = shutil.which("cc")
FLAGS = ["-std=c99", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
STRICT = [*FLAGS, "-Wall", "-Wextra", "-Werror", "-pedantic", "-g"]
AMX = ["-include", Path(__file__).parent / "shim" / "amx.h"]  # its instructions, in C
EMULATED = {"amx_f32": AMX, "precision": AMX}


def units() -> list[str]:
    """The names of the sources that are compiled, one object each."""
    return sorted(path.stem for path in (BINDINGS / "src").glob("*.c"))


def compile_unit(bindings: Path, unit: str, folder: Path, flags: Sequence[str]) -> Path:
    """The object of src/`unit`.c in these bindings."""
    source, made = bindings / "src" / f"{unit}.c", folder / f"{unit}.o"
    command = [CC, *flags, *EMULATED.get(unit, []), f"-I{bindings / 'include'}", "-c", source, "-o", made]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return made


def library(temporary: pytest.TempPathFactory) -> dict[str, Path]:
    """The objects of the library as it is, by name: compiled strictly, and once for all processes of this run."""
    import fcntl  # which not every system has that collects these tests

    folder = temporary.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    objects, making = folder / "library", folder / "library-in-the-making"
    with open(folder / "library.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not objects.exists():
            making.mkdir(exist_ok=True)
            for unit in units():
                compile_unit(BINDINGS, unit, making, [*STRICT, "-O1"])  # some warnings need an optimiser
            making.rename(objects)
    return {unit: objects / f"{unit}.o" for unit in units()}


def compile_changed(folder: Path, unit: str, old: str, new: str, flags: Sequence[str] = (*FLAGS, "-O0", "-w")) -> Path:
    """The object of src/`unit`.c in a copy in `folder`, where the one place that reads `old` reads `new`."""
    for name in ("src", "include"):
        shutil.copytree(BINDINGS / name, folder / name)
    places = [path for path in (folder / "src").glob("*.[ch]") for _ in range(path.read_text().count(old))]
    assert len(places) == 1, f"`{old}` occurs {len(places)} times"
    places[0].write_text(places[0].read_text().replace(old, new))
    return compile_unit(folder, unit, folder, flags)


def link(library: Path, objects: dict[str, Path]) -> Path:
    """A shared library of objects."""
    done = subprocess.run([CC, "-shared", *objects.values(), "-lm", "-o", library], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


class Checker:
    """A process that has imported what is slow to import, and runs every check in a child of its own."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import c_library; c_library.serve()"],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def outcome(self, library: Path, check: str, variant: str, dtype: str) -> str:
        """What checks, joined by "+", say of a library: "survived", "caught", or "crashed" if it took them down."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(library, check, variant, dtype, sep="\t", file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve() -> None:
    """Answer each line of the standard input, the arguments of `Checker.outcome`, by a line."""
    import hypothesis.strategies  # noqa: F401
    import pytest  # noqa: F401

    import eqkernel.cli_fields  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            os._exit(run(*line.strip("\n").split("\t")))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print("crashed" if code < 0 else ("survived", "caught", "failed to run")[code], flush=True)


def run(library: str, check: str, variant: str, dtype: str) -> int:
    """0 if no check finds anything in the library, 1 if one fails, 2 if one cannot run."""
    os.environ["EQKERNEL_C_VARIANT"] = variant
    try:
        use_library(library)
        import c_checks

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                for name in check.split("+"):
                    getattr(c_checks, name)(dtype)
            except c_checks.CAUGHT:
                return 1
        return 0
    except Exception:
        traceback.print_exc()
        return 2


def use_library(path: str) -> None:
    """Backend `c`, not imported so far, calls the functions of the library at `path`."""
    from eqkernel.bindings import _eqkernel

    assert "eqkernel.bindings.library" not in sys.modules, "the installed library is in use already"
    ffi, installed, changed = _eqkernel.ffi, _eqkernel.lib, ctypes.CDLL(path)
    names = {name: getattr(installed, name) for name in dir(installed)}
    for name in names:
        if name.startswith("eqk_"):
            address = ctypes.cast(getattr(changed, name), ctypes.c_void_p).value
            names[name] = ffi.cast(ffi.typeof(names[name]), address)
    sys.modules[_eqkernel.__name__] = SimpleNamespace(ffi=ffi, lib=SimpleNamespace(**names))  # type: ignore[assignment]
