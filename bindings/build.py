"""How the extension `eqkernel.bindings._eqkernel` is built: cffi's declarations are read out of the public header."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
# setuptools wants sources relative to setup.py, from where it runs.
SOURCES = sorted(path.relative_to(HERE.parent).as_posix() for path in (HERE / "src").glob("*.c"))
HEADERS = [*HERE.glob("include/*.h"), *HERE.glob("src/*.h")]
TYPES = {"f32": "float", "f64": "double"}
# Only the contractions that are written are wanted: every variant must give the same bits.
FLAGS = ["-std=c99", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno"]
# Last, so these count: CFLAGS, where conda has -O2, stands before ours and must lose.
FLAGS += shlex.split(os.environ.get("EQKERNEL_CFLAGS", ""))


def declarations(header: str) -> str:
    """What cffi must know of the header's text: constants, types, and the functions of both types of real numbers."""
    text = header.split("<cdef>")[1].split("*/", 1)[1].split("/* </real>")[0]
    text = re.sub(r"/\*.*?\*/", "", text.replace("/* <real>", "@/* "), flags=re.DOTALL)
    common, template = text.split("#define EQK_REAL float")[0], text.split("@")[1]
    typed = (
        re.sub(r"EQK\((\w+)\)", rf"eqk_\1_{suffix}", template).replace("EQK_REAL", name)
        for suffix, name in TYPES.items()
    )
    return "".join([common, *typed]).replace("EQK_API ", "")


ffi = FFI()
ffi.cdef(declarations((HERE / "include" / "eqkernel.h").read_text()))
ffi.set_source(
    "eqkernel.bindings._eqkernel",
    '#include "eqkernel.h"',
    sources=SOURCES,
    depends=[path.relative_to(HERE.parent).as_posix() for path in HEADERS],
    include_dirs=["bindings/include"],
    extra_compile_args=FLAGS,
    libraries=["m"],
    optional=True,  # without a C compiler the install succeeds and lacks only this backend
)
