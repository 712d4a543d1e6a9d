"""Random calls of the whole C ABI under sanitizers and valgrind: the harness of `make fuzz` without its fuzzer."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from c_library import BINDINGS, CC, STRICT, compile_changed, compile_unit, library, units
from c_mutations import Mutation

HERE = Path(__file__).parent / "fuzz"
FEATURES = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
EXAMPLES = BINDINGS / "examples"
SANITIZERS = ["-O0", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
NEEDS = {"avx2": " avx2 ", "avx512": " avx512f ", "bf16": " avx512_bf16 "}  # of the processor, by the start of a name
pytestmark = pytest.mark.skipif(CC is None, reason="needs a C compiler")


def runs(unit):
    """Whether this processor runs what is in src/`unit`.c."""
    return not FEATURES or NEEDS.get(unit.partition("_")[0], "") in FEATURES


def compiled(folder, flags, source):
    """The object of a program, compiled strictly."""
    made = folder / f"{source.stem}.o"
    command = [CC, *STRICT, *flags, f"-I{BINDINGS / 'include'}", "-c", source, "-o", made]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return made


def linked(program, flags, objects):
    done = subprocess.run([CC, *flags, *objects, "-lm", "-o", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """The harness and the library: objects by name, those that run here with sanitizers, which take long to compile."""
    folder = tmp_path_factory.mktemp("sanitized")
    (folder / "probe.c").write_text("int main(void) { return 0; }\n")
    probe = [CC, *SANITIZERS, folder / "probe.c", "-o", folder / "probe"]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this compiler has no sanitizers")
    flags = [*STRICT, *SANITIZERS]
    watched = {unit: compile_unit(BINDINGS, unit, folder, flags) for unit in units() if runs(unit)}
    harness = {"abi": compiled(folder, [*SANITIZERS, "-DSTANDALONE"], HERE / "abi.c")}
    return library(tmp_path_factory) | watched | harness


def test_the_sanitizers_find_nothing_in_random_calls(sanitized, tmp_path):
    """Calls of every function, whole ones to the same bits in two variants, and broken ones that are refused."""
    program = linked(tmp_path / "abi", SANITIZERS, sanitized.values())
    done = subprocess.run([program, "3000"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_sanitizers_find_nothing_in_the_example(sanitized, tmp_path):
    objects = [path for name, path in sanitized.items() if name != "abi"]
    objects.append(compiled(tmp_path, SANITIZERS, EXAMPLES / "train.c"))
    done = subprocess.run([linked(tmp_path / "train", SANITIZERS, objects)], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "4 of 4 right" in done.stdout


PLANTED = (
    Mutation("NULL let through", "if (!(p)) \\", "if (0) \\", "", "abi_f32"),
    Mutation("misalignment let through", "REQUIRE((uintptr_t)(p) % ALIGNMENT(type) == 0,", "REQUIRE(1,", "", "abi_f32"),
    Mutation("a size let through", "#define DENSE_SIZES REQUIRE(", "#define DENSE_SIZES REQUIRE(1 || ", "", "abi_f64"),
    Mutation("a label let through", "job->labels[b] < classes", "job->labels[b] <= classes", "", "abi_f64"),
    Mutation("a neuron let through", "layer->neuron <= EQK_FHN,", "layer->neuron <= EQK_FHN + 99,", "", "abi_f32"),
    Mutation("rows beyond a matrix packed", "first + i < rows ? depth - k : 0", "depth - k", "", "bf16_f32"),
    Mutation("scratch of filters short of a vector", "2 * post_size(g) + chains;", "2 * post_size(g);", "", "abi_f32"),
    Mutation("no power of two for a rate beside a NaN", "x = v_min(v_set(0), x);", "", "", "avx2_f64"),
    Mutation("workspace a line short", "packed) * sizeof(EQK_REAL) + 64", "packed) * sizeof(EQK_REAL)", "", "abi_f32"),
)


@pytest.mark.parametrize("planted", PLANTED, ids=[p.bug for p in PLANTED])
def test_random_calls_find_a_planted_bug(planted, sanitized, tmp_path):
    if not runs(planted.unit):
        pytest.skip(f"this processor does not run {planted.unit}")
    changed = compile_changed(tmp_path / "changed", planted.unit, planted.old, planted.new, SANITIZERS)
    program = linked(tmp_path / "abi", SANITIZERS, {**sanitized, planted.unit: changed}.values())
    assert subprocess.run([program, "100000"], capture_output=True).returncode != 0


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind: make check-valgrind")
def test_valgrind_finds_nothing(tmp_path, tmp_path_factory):
    """Neither memory that was never set, nor leaks: the example, and random calls."""
    objects = library(tmp_path_factory).values()
    valgrind = ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full"]
    for source, arguments in ((EXAMPLES / "train.c", []), (HERE / "abi.c", ["500", "loose"])):
        main = compiled(tmp_path, ["-O1", "-DSTANDALONE"], source)
        program = linked(tmp_path / source.stem, [], [*objects, main])
        done = subprocess.run([*valgrind, program, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_fuzzer_says_what_it_lacks(tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path)}
    sh = shutil.which("sh")
    done = subprocess.run([sh, HERE / "fuzz.sh", "1", tmp_path], env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and "needs clang with libFuzzer" in done.stderr
