"""What is written for hardware: HLS top, packed ternary weights, fixed-point types, and RTL where its tools are."""

import ctypes
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from eqkernel.integer import Compiled, Config, Report, initial, predict, train_step, vectors
from eqkernel.integer.compiled import compiler, flat, pointer, sources, unflat

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C compiler: install gcc or clang")
TYPES = Path(__file__).parent.parent / ".venv" / "hls4ml" / "hls4ml" / "templates"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")


@pytest.mark.parametrize("name", vectors.CONFIGS)
def test_the_hls_top_is_a_training_step_on_one_sample(name):
    config, rng = vectors.CONFIGS[name], np.random.default_rng(0)
    top = Compiled(config, sources() / "eqk_hls_top.c", (*STRICT, "-O2")).library.eqk_top
    counts, report, label = np.zeros(4, np.uint32), Report(), np.zeros(1, np.int32)
    for step in range(60):
        case = vectors.draw(config, vectors.KINDS[step % 3], rng, samples=1)
        masters, train = flat(case.masters), step % 4 > 0
        top(
            pointer(masters), pointer(case.x), pointer(case.t), train, *case.rates, ctypes.c_uint32(case.batch),
            pointer(label), pointer(counts),
        )  # fmt: skip
        assert label[0] == predict(config, case.masters, case.x)[0]
        if train:
            train_step(config, case.masters, case.x, case.t, case.rates, case.batch, report)
        assert np.array_equal(masters, flat(case.masters)) and unflat(masters, config).first.shape[1] == config.inputs
    assert Report(*map(int, counts)) == report and report.samples == 45


def test_an_hls_tool_sees_the_pragmas_and_no_other_compiler_does():
    command = [compiler(), "-E", str(sources() / "eqk_hls_top.c")]
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    hls = subprocess.run([*command, "-D__SYNTHESIS__"], capture_output=True, text=True, check=True).stdout
    assert "#pragma" not in plain and "EQK_HLS" not in plain
    assert "#pragma HLS PIPELINE II = 1" in hls and "#pragma HLS INTERFACE mode = bram port = masters" in hls
    assert "inputs: for" in hls and "lanes: for" in hls


def test_the_hls_top_takes_each_byte_of_its_streams_once_and_in_order():
    code = (sources() / "eqk_hls_top.c").read_text()
    body = re.sub(r"/\*.*?\*/|EQK_HLS\(.*?\)\n", "", code[code.rindex("void eqk_top(") :], flags=re.DOTALL)
    body = body[body.index("{") :]
    copies = "for (j = 0; j < EQK_NX; j++) input[j] = x[j];", "for (j = 0; j < EQK_NO; j++) target[j] = t[j];"
    assert all(copy in body for copy in copies) and len(re.findall(r"\b[xt]\b", body)) == 2
    assert body.index("return") > max(map(body.index, copies))


@pytest.fixture(scope="module")
def ternary(tmp_path_factory):
    library = tmp_path_factory.mktemp("ternary") / "ternary.so"
    command = [compiler(), *STRICT, "-O2", "-shared", "-fPIC", str(sources() / "eqk_ternary.c"), "-o", str(library)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("columns", [1, 31, 32, 33, 65, 784])
@pytest.mark.parametrize("rows", [1, 17])
def test_packed_ternary_weights_equal_bytes(ternary, rows, columns):
    rng, words = np.random.default_rng(columns), -(-columns // 32)
    for extreme in (False, True):
        weight = rng.integers(-1, 2, (rows, columns)).astype(np.int8)
        x = (rng.choice([-128, 127], columns) if extreme else rng.integers(-128, 128, columns)).astype(np.int8)
        packed, planes = np.full((rows, 2 * words), 7, np.uint32), np.full(8 * words, 7, np.uint32)
        drives = np.zeros((2, rows), np.int32)
        ternary.eqk_ternary_pack(pointer(packed), pointer(weight), rows, columns)
        arguments = pointer(x), rows, columns
        ternary.eqk_ternary_drive(pointer(drives[0]), pointer(packed), *arguments, pointer(planes))
        ternary.eqk_ternary_drive_bytes(pointer(drives[1]), pointer(weight), *arguments)
        assert (drives == weight.astype(int) @ x.astype(int)).all()


def test_packed_ternary_weights_are_a_fifteenth_of_float32(ternary):
    """Bytes that packing writes: those that are the same whatever was there before."""
    weight = np.random.default_rng(0).integers(-1, 2, (256, 784)).astype(np.int8)
    room = np.stack([np.zeros(weight.size, np.uint8), np.full(weight.size, 255, np.uint8)])
    for packed in room:
        ternary.eqk_ternary_pack(pointer(packed), pointer(weight), *weight.shape)
    written = room[0] == room[1]
    assert written[: written.sum()].all() and 15 < 4 * weight.size / written.sum() < 16


def test_the_packed_drive_is_that_of_the_network(ternary):
    config = Config(784, 32, 10, threshold=8, shift1=3, shift2=2)
    masters, x = initial(config, 0), np.random.default_rng(0).integers(0, 128, 784).astype(np.int8)
    weight = vectors.quantise(masters, config).first.astype(np.int8)
    packed, planes, drive = np.zeros((32, 50), np.uint32), np.zeros(200, np.uint32), np.zeros(32, np.int32)
    ternary.eqk_ternary_pack(pointer(packed), pointer(weight), 32, 784)
    ternary.eqk_ternary_drive(pointer(drive), pointer(packed), pointer(x), 32, 784, pointer(planes))
    expected = np.zeros(32, np.int32)
    Compiled(config).library.eqk_input_drive(
        pointer(np.concatenate([weight.reshape(-1), np.zeros(320, np.int8)])), pointer(x), pointer(expected)
    )
    assert (drive * 2 ** (config.fraction - config.shift1) == expected).all()


@pytest.mark.skipif(not TYPES.is_dir(), reason="needs ap_fixed.h and ac_fixed.h: make check-fixed")
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_fixed_point_types_equal_c99():
    command = ["sh", str(sources() / "check_fixed.sh"), str(TYPES), "300", "int8-difference"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("300 cases") == 2


@pytest.mark.skipif(shutil.which("verilator") is None, reason="needs Verilator: make check-rtl")
def test_the_rtl_equals_c99(tmp_path):
    command = ["sh", str(sources() / "rtl" / "check_rtl.sh"), str(tmp_path), "odd"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7-5-3 int8: 3000 cases" in done.stdout


def test_the_page_of_the_synthesis_has_its_cycles_and_the_median_clock(monkeypatch):
    script = runpy.run_path(str(sources() / "rtl" / "synthesise.py"))
    monkeypatch.setitem(script["page"].__globals__, "version", lambda package: "0")
    page, text = script["page"]([], 1.0), (Path(__file__).parent.parent / "docs" / "ecp5.md").read_text()
    cycles = [re.search(r"(\d+) cycles a prediction and (\d+) a training step", it).groups() for it in (page, text)]
    assert cycles[0] == cycles[1]
    reports = [{"fmax": {"clk": {"achieved": clock}}, "utilization": {}} for clock in (90.0, 100.0, 140.0)]
    assert "| 100.0 | 90.0 100.0 140.0 |" in script["row"]("a", reports)
