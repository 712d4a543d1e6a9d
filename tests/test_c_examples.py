"""The examples in C and Rust compile without a warning, and all learn (test_fuzz.py has the first under sanitizers)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import c_library
import numpy as np
import pytest

import eqkernel as eq

ROOT = Path(__file__).parent.parent / "bindings"
CC = shutil.which("cc")
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffp-contract=off", f"-I{ROOT / 'include'}"]
pytestmark = pytest.mark.skipif(CC is None, reason="needs a C compiler")


def run(*command, **options):
    """A command that must neither fail nor warn."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0 and not done.stderr, done.stderr


def check_learnt(*command, **options):
    """An example says that it has learnt XOR, and what it predicts is that."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    assert "4 of 4 right" in done.stdout
    assert [round(float(p)) for p in re.findall(r"xor \d: (\S+)", done.stdout)] == [0, 1, 1, 0]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The objects of the library, compiled strictly: those that others are tested with, but no emulated ones."""
    folder = tmp_path_factory.mktemp("library")
    emulated = [ROOT / f"src/{unit}.c" for unit in c_library.EMULATED]
    run(CC, *STRICT, "-O1", "-c", *emulated, cwd=folder)
    made = {path.stem: path for path in folder.glob("*.o")}
    return sorted((c_library.library(tmp_path_factory) | made).values())


def test_the_example_compiles_strictly_and_learns(library, tmp_path):
    program = tmp_path / "train"
    run(CC, *STRICT, "-O1", ROOT / "examples/train.c", *library, "-lm", "-o", program)
    check_learnt(program)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where `make install-c` has put the library, and the environment that finds it there."""
    if not shutil.which("make"):
        pytest.skip("needs make")
    prefix = tmp_path_factory.mktemp("installed")
    command = ["make", "install-c", f"PREFIX={prefix}", "CFLAGS=-O0", f"CC={CC}"]
    subprocess.run(command, cwd=ROOT.parent, check=True, capture_output=True)
    lib = prefix / "lib"
    return lib, {**os.environ, "PKG_CONFIG_PATH": str(lib / "pkgconfig"), "LD_LIBRARY_PATH": str(lib)}


@pytest.mark.skipif(shutil.which("rustc") is None, reason="needs rustc")
def test_the_example_in_rust_compiles_without_a_warning_and_learns(installed, tmp_path):
    lib, environment = installed
    command = ["rustc", "--edition", "2021", "-D", "warnings", "-L", lib, ROOT / "examples/train.rs", "-o"]
    built = subprocess.run([*command, tmp_path / "train"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    check_learnt(tmp_path / "train", env=environment)


@pytest.mark.skipif(shutil.which("julia") is None, reason="needs julia")
def test_the_example_in_julia_learns(installed):
    check_learnt("julia", "--startup-file=no", ROOT / "examples/train.jl", env=installed[1])


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="needs pkg-config")
def test_an_installed_library_is_found_by_pkg_config(installed, tmp_path):
    _, environment = installed
    config = ["pkg-config", "--cflags", "--libs", "eqkernel"]
    flags = subprocess.run(config, env=environment, capture_output=True, text=True)
    assert flags.returncode == 0, flags.stderr
    build = [CC, "-std=c99", ROOT / "examples/train.c", *flags.stdout.split(), "-o", tmp_path / "train"]
    subprocess.run(build, check=True, env=environment)
    check_learnt(tmp_path / "train", env=environment)


SETTLE = """#include <stdio.h>
#include "net.h"
static const float X[] = {%s};
int main(void) {
    static float state[%d];
    static double work[1 << 16];
    eqk_report report[2];
    eqk_job_f32 job = {0};
    job.version = EQK_ABI_VERSION;
    job.layers = NET_LAYERS;
    job.count = NET_COUNT;
    job.parameters = NET_PARAMETERS;
    job.parameter_count = NET_PARAMETER_COUNT;
    job.schedule = NET_SCHEDULE;
    job.batch = %d;
    job.x = X;
    job.state = state;
    job.report = report;
    job.work = work;
    job.work_size = sizeof work;
    if (eqk_free_phase_f32(&job, 0, eqk_tiles_f32(&job)) != EQK_OK)
        return 1;
    for (int i = 0; i < %d; i++)
        printf("%%.9g\\n", state[i]);
    return 0;
}
"""


def test_an_exported_network_settles_in_c_as_it_does_here(library, tmp_path):
    like = eq.Network.recurrent(7, 9, 5, 3)
    layers = [eq.Layer(7), eq.Layer(9, adaptation=0.3, tau=1.5), *like.layers[2:]]
    net = eq.Network(layers, like.connections, like.cost, "converged", seed=3)
    x = np.random.default_rng(0).random((4, 7)).astype(np.float32)
    net.export_c(tmp_path / "net.h")
    literals = ", ".join(f"{v:.9g}f" if "." in f"{v:.9g}" else f"{v:.9g}.0f" for v in x.ravel())
    (tmp_path / "settle.c").write_text(SETTLE % (literals, 4 * 17, 4, 4 * 17))
    program = tmp_path / "settle"
    run(CC, *STRICT, "-O1", f"-I{tmp_path}", tmp_path / "settle.c", *library, "-lm", "-o", program)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    found = np.array(done.stdout.split(), float)
    expected = np.concatenate([s.ravel() for s in eq.free_phase(net, x).state[1:]])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_numbers_and_names_of_a_schedule_are_c_whatever_they_were_in_python(tmp_path):
    numbers = {"gamma": np.float64(0.5), "step": np.float32(0.5), "tolerance": np.float64(0.1)}
    plan = eq.Schedule("a */ b", **numbers, early_stop=True)
    eq.Network.dense(5, 6, 3, schedule=plan).export_c(tmp_path / "net.h")
    (tmp_path / "main.c").write_text('#include "net.h"\nint main(void) { return NET_SCHEDULE.gamma != 0.5; }\n')
    run(CC, *STRICT, "-Wno-unused", f"-I{tmp_path}", tmp_path / "main.c", "-o", tmp_path / "main")
    run(tmp_path / "main")


def test_a_network_that_the_library_does_not_settle_is_not_exported(tmp_path):
    wires = [*(eq.Dense(l, l + 1) for l in range(3)), *map(eq.Bias, (1, 2, 3)), eq.Dense(0, 2)]
    net = eq.Network([eq.Layer(4), eq.Layer(5), eq.Layer(6), eq.Layer(3, "softmax")], wires)
    with pytest.raises(eq.EqkernelError, match="layers in a chain"):
        net.export_c(tmp_path / "net.h")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_network_that_is_not_finite_is_not_exported(bad, tmp_path):
    net = eq.Network.dense(4, 5, 3)
    net.parameters[0][1, 2] = bad
    with pytest.raises(eq.EqkernelError, match="cannot export the network: dense.0-1 holds a NaN or an infinity"):
        net.export_c(tmp_path / "net.h")
    assert not list(tmp_path.iterdir())


def test_an_unknown_variant_in_the_environment_names_the_variable():
    pytest.importorskip("eqkernel.bindings._eqkernel")
    command = [sys.executable, "-c", "import eqkernel.bindings.library"]
    done = subprocess.run(command, env={**os.environ, "EQKERNEL_C_VARIANT": "foo"}, capture_output=True, text=True)
    assert done.returncode and "EqkernelError: EQKERNEL_C_VARIANT=foo: unknown variant 'foo'" in done.stderr
