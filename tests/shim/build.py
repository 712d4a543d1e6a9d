"""Builds the text of a kernel for the CPU: g++, the shim, and a cache of shared objects by the hash of all of it."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eqkernel" / "shim"
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\s*\((?P<bound>\w+)[^)]*\)\s*)?(?P<name>\w+)\s*\(")
DYNAMIC = re.compile(r"extern\s+__shared__\s+([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;")
COMMON = ["-std=c++17", "-fPIC", "-w", "-fno-strict-aliasing", "-ffp-contract=off"]
KERNELS = [
    *COMMON, "-O1", "-fno-threadsafe-statics", "-fno-gnu-unique", "-fdata-sections", "-fno-zero-initialized-in-bss",
    "-include", "shim.h",
]  # fmt: skip
EXTRA = os.environ.get("EQKERNEL_SHIM_FLAGS", "").split()  # -DSHIM_UCONTEXT: fibers of any processor
MODES = {
    "fast": [],
    # Our own hooks are called before every access; the sanitizer's library is not linked.
    "check": ["-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0", "-fno-tree-vectorize"],
}


class KernelError(RuntimeError):
    """What a GPU would not have said: a kernel does not compile, or breaks a rule of CUDA."""


def missing() -> str | None:
    """Why kernels cannot be built here, or None."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return "the CPU shim for CUDA kernels needs Linux on x86-64 or aarch64"
    if shutil.which("g++") is None:
        return "the CPU shim for CUDA kernels needs g++: on Debian and Ubuntu, apt install g++"
    return None


def kernels(text: str) -> dict[str, int | None]:
    """The kernels of a text, with the most threads a block that each declares."""
    bounds = {}
    for match in KERNEL.finditer(text):
        bound = match["bound"]
        if bound and not bound.isdigit():
            bound = re.search(rf"#define\s+{bound}\s+(\d+)", text)[1]  # type: ignore[index]
        bounds[match["name"]] = int(bound) if bound else None
    return bounds


def build(text: str, options: tuple[str, ...], mode: str) -> Path:
    """The shared object of a kernel text; mode is "fast" or "check"."""
    names = kernels(text)
    text = DYNAMIC.sub(r"\1* \2 = (\1*)shim_dynamic;", text)
    text = f'#line 1 "kernel.cu"\n{text}\n' + "".join(f"SHIM_EXPORT({name})\n" for name in names)
    defines = [option for option in options if option.startswith("-D")]
    flags = [*KERNELS, *MODES[mode], *defines]
    shim = [(HERE / name).read_text() for name in ("shim.h", "shared.ld", "runtime.h", "runtime.cpp", "checker.cpp")]
    found = CACHE / f"{hashed(text, *flags, *shim, *EXTRA)}.so"
    if not found.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            kernel, whole = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
            kernel.write_text(text)
            _run(["g++", *flags, "-c", str(kernel), "-o", f"{folder}/kernel.o"])
            objects = [f"{folder}/kernel.o", str(_object("runtime.cpp")), str(_object("checker.cpp"))]
            _run(["g++", "-shared", *objects, "-o", str(whole), "-Wl,-Bsymbolic", "-Wl,-T,shared.ld"])
            os.replace(whole, found)
    return found


def _object(name: str) -> Path:
    """The runtime or the checker, compiled once."""
    sources = (HERE / name).read_text(), (HERE / "runtime.h").read_text()
    found = CACHE / f"{hashed(*sources, *EXTRA)}.o"
    if not found.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            _run(["g++", *COMMON, "-O2", *EXTRA, "-c", name, "-o", f"{folder}/o"])
            os.replace(f"{folder}/o", found)
    return found


def hashed(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    if done.returncode:
        raise KernelError(done.stderr[:4000])
