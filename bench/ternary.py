"""Ternary weights in 2 bits against bytes and float32: bytes held and time of one drive, one thread.

    python -m bench.ternary
"""

import argparse
import ctypes
import os
import subprocess
import tempfile

import numpy as np
from threadpoolctl import threadpool_limits

from eqkernel.integer.compiled import compiler, pointer, sources

from .timing import interleave, pinned

SHAPES = [(256, 785), (512, 785), (1024, 4096), (4096, 4096)]


def build(folder: str) -> ctypes.CDLL:
    """eqk_ternary.c, compiled for this processor."""
    library = os.path.join(folder, "ternary.so")
    flags = ["-std=c99", "-O3", "-march=native", "-shared", "-fPIC"]
    subprocess.run([str(compiler()), *flags, str(sources() / "eqk_ternary.c"), "-o", library], check=True)
    return ctypes.CDLL(library)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    rng = np.random.default_rng(0)
    print("| weights | float32 bytes / packed | packed, µs | bytes, µs | float32 (BLAS), µs | float32 / packed |")
    print("|:--|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder, pinned(1), threadpool_limits(1):
        library = build(folder)
        for rows, columns in SHAPES:
            weight = rng.integers(-1, 2, (rows, columns)).astype(np.int8)
            x, words = rng.integers(0, 128, columns).astype(np.int8), -(-columns // 32)
            packed, planes = np.zeros((rows, 2 * words), np.uint32), np.zeros(8 * words, np.uint32)
            drives = np.zeros((2, rows), np.int32)
            real, real_x, real_drive = weight.astype(np.float32), x.astype(np.float32), np.zeros(rows, np.float32)
            library.eqk_ternary_pack(pointer(packed), pointer(weight), rows, columns)
            by_bits = pointer(drives[0]), pointer(packed), pointer(x), rows, columns, pointer(planes)
            by_bytes = pointer(drives[1]), pointer(weight), pointer(x), rows, columns
            times = interleave(
                {
                    "packed": lambda a=by_bits: library.eqk_ternary_drive(*a),
                    "bytes": lambda a=by_bytes: library.eqk_ternary_drive_bytes(*a),
                    "float32": lambda w=real, v=real_x, out=real_drive: np.dot(w, v, out=out),
                }
            )
            assert (drives[0] == drives[1]).all() and (drives[0] == real_drive).all(), "the kernels disagree"
            micro = " | ".join(f"{1e6 * np.median(times[name]):.1f}" for name in times)
            ratio = np.median(times["float32"] / times["packed"])
            print(f"| {rows} × {columns} | {real.nbytes / packed.nbytes:.2f} | {micro} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
