"""The committed vectors: unchanged, repeated by the model and by C99 under sanitizers, and deaf to no porting error."""

import hashlib
import shutil
import subprocess

import pytest
from integer_mutations import MUTATIONS

from eqkernel.integer import vectors
from eqkernel.integer.compiled import compiler, sources

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
    assert "18 cases equal" in done.stdout


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
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind: make check-valgrind")
def test_valgrind_finds_nothing(tmp_path):
    assert run(FILES[0], sources() / "eqk_int.c", tmp_path, "-g", "-O1").returncode == 0
    command = ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full", str(tmp_path / "bench"), str(FILES[0])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
