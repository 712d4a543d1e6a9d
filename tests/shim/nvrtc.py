"""NVRTC without a GPU or a driver: compiles kernels for real and says what each needs on the chip."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .build import CACHE, hashed

# Per multiprocessor: warps, blocks, registers, bytes of shared memory, of which a block's reserve (CUDA C guide).
LIMITS = {
    "75": (32, 16, 65536, 64 * 1024, 0),
    "80": (64, 32, 65536, 164 * 1024, 1024),
    "90": (64, 32, 65536, 228 * 1024, 1024),
    "100": (64, 32, 65536, 228 * 1024, 1024),
}
OPTIONS = ("--std=c++17", "--ptxas-options=-v", "-default-device", "-ftz=true")  # the last is CuPy's own


@dataclass(frozen=True)
class Needs:
    """Of one kernel: registers a thread, bytes of stack and of spilled registers, bytes of fixed shared memory."""

    registers: int
    stack: int
    spills: int
    shared: int

    def occupancy(self, arch: str, threads: int, dynamic: int = 0) -> float:
        """Share of a multiprocessor's warps that can be resident at once."""
        warps, blocks, registers, memory, reserve = LIMITS[arch]
        a_block = -(-threads // 32)
        a_warp = -(-self.registers * 32 // 256) * 256
        shared = self.shared + dynamic + reserve
        fits = min(warps // a_block, blocks, registers // a_warp // 4 * 4 // a_block)
        if shared:
            fits = min(fits, memory // (-(-shared // 128) * 128))
        return fits * a_block / warps


@cache
def library() -> ctypes.CDLL | None:
    """libnvrtc of the wheel nvidia-cuda-nvrtc, or None."""
    for name in ("nvidia.cu13", "nvidia.cuda_nvrtc"):
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            continue
        for folder in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(folder, "lib").glob("libnvrtc.so.*")):
                return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return None


def compile(text: str, arch: str) -> dict[str, Needs]:
    """What each kernel of the text needs on sm_<arch>; RuntimeError with the compiler's log if it does not compile.

    The log is kept beside the shim's builds, by the hash of all it depends on.
    """
    nvrtc = library()
    assert nvrtc is not None
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    kept = CACHE / f"{hashed(text, arch, *OPTIONS, nvrtc._name, str(major), str(minor))}.log"
    if not kept.exists():
        log = _log(nvrtc, text, arch)
        CACHE.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}")
        temporary.write_text(log)
        temporary.replace(kept)
    return _needs(kept.read_text())


def _log(nvrtc: ctypes.CDLL, text: str, arch: str) -> str:
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
    options = [option.encode() for option in (*OPTIONS, f"-arch=sm_{arch}")]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise RuntimeError(f"sm_{arch}: {log.value.decode()}")
    return log.value.decode()


def _needs(log: str) -> dict[str, Needs]:
    found: dict[str, Needs] = {}
    for part in log.split("Compiling entry function '")[1:]:
        name = part.split("'")[0]
        stack, stores, loads = map(int, re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part
        ).groups())  # type: ignore[union-attr]  # fmt: skip
        registers = int(re.search(r"Used (\d+) registers", part)[1])  # type: ignore[index]
        shared = re.search(r"(\d+) bytes smem", part)
        found[name] = Needs(registers, stack, stores + loads, int(shared[1]) if shared else 0)
    return found
