"""The committed vectors: unchanged, repeated by the model and by C99 under sanitizers, and deaf to no porting error.

And what a port meets before them: the header beside the other one, its largest sizes, and short longs.
"""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from integer_mutations import MUTATIONS

from eqkernel.integer import vectors
from eqkernel.integer.compiled import compiler, sources

INCLUDE = Path(__file__).parent.parent / "bindings" / "include"
FILES = sorted((sources() / "vectors").glob("*.txt"))
needs_cc = pytest.mark.skipif(compiler() is None, reason="needs a C compiler: install gcc or clang")


def run(path, source, folder, *flags):
    """The finished test bench, compiled for the config of `path` with `source` for eqk_int.c."""
    options = path.read_text().split(" cases", 1)[0].split()
    bench, here = str(folder / "bench"), sources()
    files = [str(here / "check_vectors.c"), str(source)]
    command = [compiler(), "-std=c99", *flags, *options, f"-I{here}", *files, "-o", bench]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        assert "sanitize" in built.stderr + str(flags), built.stderr
        pytest.skip(f"{compiler()} cannot link the sanitizers")
    return subprocess.run([bench, str(path)], capture_output=True, text=True, timeout=60)


def test_the_files_are_those_that_were_hashed():
    sums = dict(reversed(line.split()) for line in (sources() / "vectors" / "SHA256SUMS").read_text().splitlines())
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FILES} == sums
    assert {path.stem for path in FILES} == set(vectors.CONFIGS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_model_repeats_them(path):
    config, cases = vectors.read(path)
    assert config == vectors.CONFIGS[path.stem]
    assert {case.kind for case in cases} == set(vectors.KINDS)
    assert vectors.text(config, cases) == path.read_text()


@needs_cc
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_c_repeats_them_without_undefined_behaviour(path, tmp_path):
    flags = "-Wall -Wextra -Werror -pedantic -O1 -fsanitize=address,undefined -fno-sanitize-recover=all"
    done = run(path, sources() / "eqk_int.c", tmp_path, *flags.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30 cases equal" in done.stdout


@needs_cc
@pytest.mark.parametrize("error", MUTATIONS)
def test_they_catch_a_porting_error(error, tmp_path):
    old, new = MUTATIONS[error]
    code = (sources() / "eqk_int.c").read_text()
    assert code.count(old) == 1, f"`{old}` occurs {code.count(old)} times"
    wrong = tmp_path / "wrong.c"
    wrong.write_text(code.replace(old, new))
    outcomes = (run(path, wrong, tmp_path, "-w", "-O0").returncode for path in FILES)
    assert any(status == 1 for status in outcomes), "no file notices"


@needs_cc
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cases 30", "cases 0", "how many, at least 1"),
        ("cases 30", "cases 29", "the file should say nothing more here"),
        ("cases 30", "cases 31", "case 30, sample -1: the file should say case here"),
        (" -DEQK_INT_DIFFERENCE=1", "", "the first line should be 14 options"),
        (" 3\nw1 ", " 256\nw1 ", "case 0, sample -1: the file should say 1 to 255 samples here"),
        ("\nh ", "\nh x", "case 0, sample 0: the file should say another number here"),
    ],
)
def test_a_spoilt_file_is_refused(old, new, message, tmp_path):
    text = FILES[0].read_text()
    assert old in text
    path = tmp_path / "spoilt.txt"
    path.write_text(text.replace(old, new, 1))
    done = run(path, sources() / "eqk_int.c", tmp_path)
    assert done.returncode in (1, 2) and message in done.stdout


def test_no_c_source_needs_a_long_of_more_than_32_bits():
    """A batch has 32 bits without a sign; what reads it must hold that where a long does not."""
    for path in sources().glob("*.[ch]"):
        code = re.sub(r"/\*.*?\*/|long long|\"long\"", "", path.read_text(), flags=re.DOTALL)
        assert not re.search(r"\blong\b|%ld", code), path.name


def compiles(folder, text, *options):
    """What the compiler says about a strict C99 file, nothing if it is content."""
    path = folder / "some.c"
    path.write_text(text)
    command = [compiler(), "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", *options]
    command += [f"-I{sources()}", f"-I{INCLUDE}", "-c", str(path), "-o", str(folder / "some.o")]
    return subprocess.run(command, capture_output=True, text=True).stderr


@needs_cc
@pytest.mark.parametrize("names", [("eqkernel.h", "eqk_int.h"), ("eqk_int.h", "eqkernel.h")], ids="-".join)
def test_both_headers_can_be_included(names, tmp_path):
    use = "extern eqk_status a; extern eqk_int_status b; int c[] = {EQK_OK, EQK_DIFFERENCE, EQK_INT_OK};\n"
    assert compiles(tmp_path, "".join(f'#include "{name}"\n' for name in names) + use) == ""
    assert "EQK_INT_DIFFERENCE" in compiles(tmp_path, '#include "eqk_int.h"\n', "-DEQK_DIFFERENCE=1")


@needs_cc
def test_the_largest_sizes_overflow_no_int(tmp_path):
    sizes = "-DEQK_NX=65536", "-DEQK_NH=60000", "-DEQK_NO=5536", "-DEQK_SHIFT1=7", "-DEQK_SHIFT2=7"
    assert compiles(tmp_path, '#include "eqk_int.c"\n', *sizes) == ""


@needs_cc
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind: make check-valgrind")
def test_valgrind_finds_nothing(tmp_path):
    assert run(FILES[0], sources() / "eqk_int.c", tmp_path, "-g", "-O1").returncode == 0
    command = ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full", str(tmp_path / "bench"), str(FILES[0])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
