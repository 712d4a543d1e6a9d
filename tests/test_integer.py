"""The integer network: NumPy model and C99 source are equal to the last bit, and both refuse and report alike."""

import re
import shutil
import subprocess
import tempfile

import numpy as np
import pytest

from eqkernel import EqkernelError
from eqkernel.data import gaussian_clusters
from eqkernel.integer import Compiled, Config, Report, arithmetic, initial, predict, train_step, vectors
from eqkernel.integer.compiled import compile_library, compiler, flat, sources, unflat
from eqkernel.integer.model import quantise
from eqkernel.integer.quantise import integer_images, integer_targets

needs_cc = pytest.mark.skipif(compiler() is None, reason="needs a C compiler: install gcc or clang")
SHORT = {"free_steps": 6, "nudged_steps": 3}
CONFIGS = {
    "8-bit weights": Config(65, 64, 10, **SHORT),
    "8-bit weights, difference": Config(65, 64, 10, form="difference", beta=4, **SHORT),
    "ternary": Config(33, 37, 4, threshold=8, shift1=3, shift2=2, **SHORT),
    "ternary, difference": Config(31, 18, 7, threshold=5, shift1=3, shift2=2, form="difference", **SHORT),
    "weak feedback": Config(17, 33, 5, gamma=5, beta=8, form="difference", leak=0, free_steps=3, nudged_steps=3),
    "no sub-bits, nearest": Config(7, 5, 3, fraction=0, leak=2, stochastic=0, **SHORT),
    "few sub-bits, small step": Config(13, 65, 2, fraction=4, leak=4, beta=0, gamma=1, free_steps=9, nudged_steps=5),
    "one of each": Config(1, 1, 1, leak=0, free_steps=1, nudged_steps=1, shift1=9, shift2=0),
}
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")


@needs_cc
@pytest.mark.parametrize("name", CONFIGS)
def test_the_model_and_the_c_source_are_equal(name):
    """10,000 samples over the 8 configs, in training steps of 5: masters, labels, counts and status."""
    config = CONFIGS[name]
    compiled, rng, report = Compiled(config), np.random.default_rng(len(name)), Report()
    for step in range(250):
        case = vectors.draw(config, vectors.KINDS[step % 3], rng, samples=5)
        masters = flat(case.masters)
        assert (predict(config, case.masters, case.x) == compiled.predict(masters, case.x)).all(), step
        expected = train_step(config, case.masters, case.x, case.t, case.rates, case.batch, report)
        assert compiled.train_step(masters, case.x, case.t, case.rates, case.batch) == expected, step
        for ours, theirs in zip(case.masters, unflat(masters, config), strict=True):
            assert np.array_equal(ours, theirs), step
    assert report == compiled.report and report.samples == 1250
    assert report.clipped > 0, "no case clips a weight"
    assert "8-bit" not in name or 0 < report.stuck < 1250, "the cases show one side of this count"


@needs_cc
@pytest.mark.parametrize("name", CONFIGS)
def test_the_c_sources_compile_without_a_warning(name, tmp_path):
    for source in ("eqk_int.c", "check_vectors.c"):
        command = [compiler(), *STRICT, *CONFIGS[name].defines(), "-c", str(sources() / source)]
        subprocess.run([*command, "-o", str(tmp_path / "out.o")], check=True)


@needs_cc
@pytest.mark.parametrize(
    "option", ["-DEQK_NX=0", "-DEQK_FRAC=8", "-DEQK_NX=4096 -DEQK_SHIFT1=0", "-DEQK_THRESHOLD=127"]
)
def test_the_header_refuses_what_the_config_refuses(option, tmp_path):
    command = [compiler(), *STRICT, *option.split(), "-c", str(sources() / "eqk_int.c"), "-o", str(tmp_path / "out.o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "#error" in done.stderr
    names = {"EQK_NX": "inputs", "EQK_FRAC": "fraction", "EQK_SHIFT1": "shift1", "EQK_THRESHOLD": "threshold"}
    fields = {names[key]: int(value) for key, value in re.findall(r"-D(\w+)=(\d+)", option)}
    with pytest.raises(EqkernelError):
        Config(**fields)


def test_the_c_sources_hold_no_float_no_division_and_no_heap():
    for path in (*sources().glob("eqk_*.[ch]"),):
        code = re.sub(r"/\*.*?\*/|#include.*|\"[^\"]*\"", "", path.read_text(), flags=re.DOTALL)
        found = re.findall(r"\b(?:float|double|malloc|calloc|realloc|free|alloca)\b|[/%]|\d\.\d", code)
        assert not found, f"{path.name}: {found}"


def test_the_compiler_is_the_one_named_and_must_be_there(monkeypatch):
    monkeypatch.setenv("CC", "sh")
    assert compiler() == shutil.which("sh")
    monkeypatch.setattr("eqkernel.integer.compiled.compiler", lambda: None)
    with pytest.raises(EqkernelError, match="no C compiler was found"):
        compile_library(Config())


@needs_cc
def test_a_library_is_compiled_anew_from_a_changed_source_and_not_from_a_wrong_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source, libraries = tmp_path / "own.c", []
    for more in ("", "int other;\n"):
        source.write_text(f'#include "eqk_int.h"\n{more}')
        libraries.append(compile_library(Config(), source))
    assert libraries[0] != libraries[1]
    source.write_text("no C")
    with pytest.raises(EqkernelError, match="could not compile own.c"):
        compile_library(Config(), source)


@needs_cc
def test_c_refuses_bad_arguments_and_changes_nothing():
    config = Config(3, 4, 2)
    compiled, masters = Compiled(config), flat(initial(config, 0))
    x, t = np.ones((256, 3), np.int8), np.ones((256, 2), np.int8)
    before = masters.copy()
    for samples, rates in (0, (1, 1)), (256, (1, 1)), (4, (-1, 1)), (4, (1, 25)):
        with pytest.raises(EqkernelError, match="refused"):
            compiled.train_step(masters, x[:samples], t[:samples], rates, 0)
    assert compiled.library.eqk_train(None, None, None, 1, 1, 1, 0, None) == -1
    assert compiled.library.eqk_predict(None, None, 1, None, None) == -1
    assert (masters == before).all() and compiled.report == Report()


def test_bad_input_gives_one_clear_error():
    config = Config(3, 4, 2)
    masters, x, t = initial(config, 0), np.ones((5, 3), np.int8), np.ones((5, 2), np.int8)
    for arguments, message in (
        ((x.astype(float), t, (1, 1), 0), r"x must be int8 of shape \(B, 3\), not float64"),
        ((x, t[:, :1], (1, 1), 0), r"t must be int8 of shape \(B, 2\)"),
        ((x, t[:4], (1, 1), 0), "x has 5 rows and t 4"),
        ((x, t, (1, 30), 0), r"rates must be two whole numbers in 0..24, not \(1, 30\)"),
        ((x, t, (1,), 0), "rates must be two whole numbers"),
        ((x, t, (1, 1, 1), 0), "rates must be two whole numbers"),
        ((np.ones((256, 3), np.int8), np.ones((256, 2), np.int8), (1, 1), 0), "from 1 to 255"),
    ):
        with pytest.raises(EqkernelError, match=message):
            train_step(config, masters, *arguments)
    for wrong in {"leak": 8}, {"inputs": 0}, {"form": "sideways"}, {"inputs": 3000, "shift1": 0}:
        with pytest.raises(EqkernelError):
            config.but(**wrong)
    with pytest.raises(EqkernelError, match="hidden and outputs overflow"):
        Config(hidden=30_000, outputs=10_000)
    Config(inputs=40_000, fraction=6, shift1=6)  # as wide as sums of 32 bits allow at that shift


def test_first_weights_are_as_wide_as_their_layer_asks_and_follow_the_seed():
    config, ternary = Config(64, 64, 10), Config(65, 64, 10, threshold=8, shift1=3, shift2=2)
    weights = quantise(initial(config, 0), config).first
    assert weights.std() / 2**config.shift1 == pytest.approx(1 / np.sqrt(3 * 64), rel=0.1)
    assert (initial(config, 0).first != initial(config, 1).first).any()
    assert (quantise(initial(ternary, 0), ternary).first == 0).mean() == pytest.approx(0.5, abs=0.05)
    wide = initial(Config(1, 40, 2, shift1=15), 0).first.astype(int)
    assert (abs(wide) == 32767).mean() > 0.9  # clipped, not wrapped


def test_images_and_labels_that_mean_nothing_are_refused():
    for labels in ([0, -1], [0, 5], [0, 3]):
        with pytest.raises(EqkernelError, match=r"labels run from .* they must lie in 0..2"):
            integer_targets(labels, 3)
    for labels, message in (
        ([0.0, 1.0], "labels have type float64"),
        ([[0, 1]], r"y must be labels \(B,\)"),
        ([], "y must"),
    ):
        with pytest.raises(EqkernelError, match=message):
            integer_targets(labels, 3)
    assert integer_targets([2, 0], 3).tolist() == [[0, 0, 127], [127, 0, 0]]
    for images in ([[0.5, np.nan]], [0.5], [["a"]], [[1j]]):
        with pytest.raises(EqkernelError, match=r"x must be real numbers \(B, n\) without a NaN"):
            integer_images(images)
    assert integer_images([[0, 1], [-1, np.inf]]).tolist() == [[0, 127, 127], [0, 127, 127]]
    assert integer_images([[0.006, 0.5]]).tolist() == [[1, 64, 127]]  # to the nearest


def test_the_rules_say_what_they_do():
    config = Config(fraction=4, beta=2)
    v = np.array([-9, -8, -1, 0, 1, 7, 8])
    assert arithmetic.asr(v, 3).tolist() == [-2, -1, -1, 0, 0, 0, 1]
    assert arithmetic.round_shift(np.array([-12, -5, -4, -3, 3, 4, 12]), 3).tolist() == [-1, -1, 0, 0, 0, 1, 2]
    u = np.array([-100, 0, 5, 1000, 127 << 4, 9999])
    for drive, response in zip(u.tolist(), (40, -40, 2032, -9, 64, 640), strict=True):
        half = np.clip(response, -2032, 2032) / 4  # beta v
        exact = (np.clip(drive + half, 0, 2032) - np.clip(drive - half, 0, 2032)) * 2
        assert arithmetic.secant(np.array(drive), np.array(response), config) == np.floor(exact)


def test_noise_is_uniform_and_differs_between_neurons():
    r = arithmetic.rounding(2**32 - 5, 20000, 32, 4, Config())
    counts = np.stack([np.bincount(r[:, i], minlength=16) for i in range(32)])
    assert abs(counts - 1250).max() < 6 * np.sqrt(1250)
    assert len({r[:, i].tobytes() for i in range(32)}) == 32


@pytest.mark.parametrize("config", [Config(21, 16, 4), Config(21, 16, 4, form="difference")], ids=lambda c: c.form)
def test_it_learns(config):
    x, y = gaussian_clusters(200, 20, 4, seed=1)
    images, targets, masters = integer_images(x), integer_targets(y, 4), initial(config, 0)
    for batch in range(300):
        some = slice(8 * batch % 200, 8 * batch % 200 + 8)
        status = train_step(config, masters, images[some], targets[some], (11, 11), batch)
    assert status == "ok"
    assert (predict(config, masters, images) == y).mean() > 0.9


@needs_cc
def test_too_large_a_step_is_reported():
    config = Config(21, 16, 4)
    x, y = gaussian_clusters(200, 20, 4, seed=1)
    images, targets, masters = integer_images(x), integer_targets(y, 4), flat(initial(config, 0))
    compiled = Compiled(config)
    statuses = [compiled.train_step(masters, images, targets, (0, 0), batch) for batch in range(5)]
    assert statuses[0] == "diverged" and compiled.report.clipped > 0
