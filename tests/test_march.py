"""Layers as time: a march is exact until its wall, the wall is where theory has it, and Newton's method has none."""

import re
from decimal import Decimal, localcontext
from fractions import Fraction

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.linalg import solve_banded

from eqkernel import DivergenceError, EqkernelError, cli_fields
from eqkernel.march import (
    CubicChain,
    FitzHughNagumoChain,
    block_thomas,
    growth,
    hamiltonian_march,
    layers_per_digit,
    predicted_wall,
    stationary_newton,
    thomas,
    wall,
)

FIRST, LAST = 0.6, 0.7
# kappa: layers in which float16, float32 and float64 lose a profile from 0.6, found by an independent program.
WALLS = {0.2: (16, 40, 86), 0.803: (8, 20, 42), 2.0: (6, 15, 28)}
FLOATS = ("float16", "float32", "float64")


@pytest.fixture(scope="module", params=WALLS, ids="kappa={}".format)
def profile(request):
    """kappa, the chain, and its states at rest in 120 digits, longer than any march here lasts."""
    chain = CubicChain.of(request.param)
    layers = int(45 * layers_per_digit(request.param)) + 30
    return request.param, chain, stationary_newton(chain, FIRST, LAST, layers, 120)


def residual(chain, states):
    """|D (u_{l+1} - 2 u_l + u_{l-1}) + f(u_l)|, at most."""
    D, u = chain.diffusion, states[1:-1]
    return abs(D * (states[2:] - 2 * u + states[:-2]) + chain.force(u)).max()


def test_each_digit_buys_as_many_layers_as_theory_says(profile):
    kappa, chain, settled = profile
    digits = np.arange(4, 42, 2)
    walls = [wall(hamiltonian_march(chain, *settled[:2], len(settled) - 1, int(d)), settled) for d in digits]
    slope = np.polyfit(digits, walls, 1)[0]
    assert slope == pytest.approx(layers_per_digit(kappa), rel=0.02)
    assert layers_per_digit(kappa) == pytest.approx(1 / np.log10(1 + kappa / 2 + np.sqrt(kappa + kappa**2 / 4)))


def test_the_walls_of_hardware_floats(profile):
    kappa, chain, settled = profile
    for name, expected in zip(FLOATS, WALLS[kappa], strict=True):
        march = hamiltonian_march(chain, *settled[:2], len(settled) - 1, name)
        assert march.dtype == name
        assert abs(wall(march, settled) - expected) <= 2


def test_walls_are_predicted(profile):
    """The rounding errors are those of one draw: a wall may be off by what two or three digits' bits buy."""
    kappa, chain, settled = profile
    for arithmetic in (*FLOATS, 10, 20, 40):
        march = hamiltonian_march(chain, *settled[:2], len(settled) - 1, arithmetic)
        off = predicted_wall(chain, settled, arithmetic) - wall(march, settled)
        assert abs(off) <= 1 + 1.2 * layers_per_digit(kappa)
    assert predicted_wall(chain, settled[:6], "float64") is None
    assert predicted_wall(chain, settled, "float16", tolerance=1e-9) == 2  # the first that is not given
    assert abs(predicted_wall(chain, settled, 16) - predicted_wall(chain, settled, "float64")) <= 1


def test_a_march_that_is_no_number_is_off():
    assert wall(np.array([0.0, np.nan]), np.zeros(2)) == 1


def test_an_error_of_the_input_grows_by_lambda_a_layer(profile):
    kappa, chain, settled = profile
    with localcontext(prec=120):
        pushed = hamiltonian_march(chain, settled[0], settled[1] + Decimal("1e-60"), 70, 120)
        errors = np.array([float(a - b) for a, b in zip(pushed[40:], settled[40:], strict=False)])
    assert np.all(errors[1:] / errors[:-1] == pytest.approx(growth(kappa), rel=1e-3))


def test_newton_has_no_wall():
    chain = CubicChain.of(0.803)
    exact = stationary_newton(chain, FIRST, LAST, 260, 60)
    found = stationary_newton(chain, FIRST, LAST, 260)
    assert found.dtype == np.float64 and len(found) == 261
    assert max(abs(float(a) - float(b)) for a, b in zip(found, exact, strict=True)) <= 1e-13
    assert residual(CubicChain(Decimal(chain.D)), exact) < Decimal("1e-26")  # in the default 28 digits
    assert (found[0], found[-1]) == (FIRST, LAST)
    assert wall(hamiltonian_march(chain, *exact[:2], 260), exact) < 60


def test_states_that_are_no_minima_have_no_wall():
    """kappa = -1 at u = 0: errors rotate instead of growing."""
    chain = CubicChain(1.0)
    assert growth(-1.0) == pytest.approx(1) and layers_per_digit(-1.0) == np.inf
    exact = hamiltonian_march(chain, 0.1, 0.101, 300)
    assert abs(hamiltonian_march(chain, 0.1, 0.101, 300, "float32") - exact).max() < 1e-5


def test_a_march_runs_backwards():
    chain = CubicChain.of(2.0)
    forth = hamiltonian_march(chain, FIRST, 0.8, 8, 60)
    back = hamiltonian_march(chain, forth[-1], forth[-2], 8, 60)
    assert max(abs(a - b) for a, b in zip(back, forth[::-1], strict=True)) < Decimal("1e-50")


def test_a_march_takes_any_numbers():
    """Exact fractions obey the equations exactly."""
    chain = CubicChain(Fraction(5, 2))
    states = hamiltonian_march(chain, Fraction(3, 5), Fraction(4, 5), 5, "object")
    assert isinstance(states[5], Fraction) and residual(chain, states) == 0


def test_a_march_in_mpmath():
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(50):
        chain = CubicChain(mpmath.mpf(2) / mpmath.mpf("0.803"))
        states = hamiltonian_march(chain, mpmath.mpf("0.6"), mpmath.mpf("0.7"), 20, "object")
        assert isinstance(states[20], mpmath.mpf) and residual(chain, states) < mpmath.mpf(10) ** -45


def test_two_species_march_and_rest_on_the_same_equations():
    """A Turing-stable chain of (u, v): a block-tridiagonal solve, and the march of what it found."""
    chain = FitzHughNagumoChain(Du=1.0, Dv=1.0, eps=1.0, alpha=0.8, beta=0.3)
    settled = stationary_newton(chain, (0.5, 0.1), (0.2, 0.4), 40, start=np.full((41, 2), 0.3))
    assert settled.shape == (41, 2) and residual(chain, settled) < 1e-13
    assert tuple(settled[0]) == (0.5, 0.1) and tuple(settled[-1]) == (0.2, 0.4)
    starts = None, np.zeros((41, 2))  # the default to the last bit
    np.testing.assert_array_equal(*(stationary_newton(chain, settled[0], settled[-1], 40, start=s) for s in starts))
    march = hamiltonian_march(chain, settled[0], settled[1], 12)
    np.testing.assert_allclose(march, settled[:13], atol=1e-8)
    step = 1e-6
    slope = [(chain.force(settled[3] + d) - chain.force(settled[3] - d)) / (2 * step) for d in step * np.eye(2)]
    np.testing.assert_allclose(chain.slope(settled)[3], np.array(slope).T, atol=1e-8)


def test_the_tridiagonal_solvers_agree_with_lapack():
    rng = np.random.default_rng(0)
    diagonal, right = 3 + rng.random(30), rng.standard_normal(30)
    bands = np.stack([np.full(30, 0.9), diagonal, np.full(30, -0.4)])
    np.testing.assert_allclose(thomas(-0.4, diagonal, 0.9, right), solve_banded((1, 1), bands, right), rtol=1e-12)
    blocks, coupling, right = rng.standard_normal((6, 3, 3)), rng.standard_normal((3, 3)), rng.standard_normal((6, 3))
    blocks += 9 * np.eye(3)
    whole = np.kron(np.eye(6, k=1) + np.eye(6, k=-1), coupling)
    for l, block in enumerate(blocks):
        whole[3 * l : 3 * l + 3, 3 * l : 3 * l + 3] = block
    expected = np.linalg.solve(whole, right.ravel()).reshape(6, 3)
    np.testing.assert_allclose(block_thomas(coupling, blocks, right), expected, rtol=1e-11)


def test_past_the_wall_a_march_may_overflow_and_says_so_in_its_states():
    for arithmetic in ("float16", "float64", 12):
        states = hamiltonian_march(CubicChain.of(2.0), 0.6, 3.0, 60, arithmetic)
        assert not np.isfinite(float(states[-1]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CubicChain.of(0), "kappa must be positive"),
        (lambda: CubicChain.of(np.nan), "kappa must be positive"),
        (lambda: CubicChain.of(np.inf), "kappa must be positive and finite"),
        (lambda: hamiltonian_march(CubicChain(1.0), 0, 0, True), "layers must be a whole number"),
        (lambda: stationary_newton(FitzHughNagumoChain(), (0, 0), (0, 0), 4, 30), "in NumPy floats only"),
        (lambda: hamiltonian_march(CubicChain(1.0), 0, 0, 0), "layers must be a whole number of at least 1"),
        (lambda: hamiltonian_march(CubicChain(1.0), 0, 0, 3, "int32"), "unknown arithmetic 'int32'"),
        (lambda: hamiltonian_march(CubicChain(1.0), 0, 0, 3, "float31"), "unknown arithmetic 'float31'"),
        (lambda: hamiltonian_march(CubicChain(1.0), 0, 0, 3, 1), "choose at least 2"),
        (lambda: stationary_newton(CubicChain(1.0), 0, 0, 1), "at least 2"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(EqkernelError, match=message):
        call()


def test_newton_says_when_it_does_not_arrive():
    with pytest.raises(DivergenceError, match="no stationary state"):
        stationary_newton(CubicChain(1.0), 0.6, 0.7, 30, iterations=2)


# The command


@click.group()
def main():
    pass


for command in cli_fields.COMMANDS:
    main.add_command(command)


def test_the_command_draws_and_tells_the_walls(tmp_path):
    out = tmp_path / "march.png"
    arguments = ["march", "--kappa", "0.803", "--digits", "float32,8,float64", "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "float32: wall at layer 20," in result.output and "2.651 layers per digit" in result.output
    with Image.open(out) as picture:
        assert picture.width > 1000 and len(np.unique(np.asarray(picture.convert("L")))) > 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kappa", "-1"], "kappa must be positive"),
        (["--digits", "few"], "--digits 'few'"),
        (["--digits", "1"], "at least 2"),
        (["--ends", "1"], "give 2 finite numbers"),
        (["--out", "march.gif"], "must end in .png"),
    ],
)
def test_the_command_refuses(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["march", *arguments])
    assert isinstance(result.exception, EqkernelError) and message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_the_command_marches_in_every_precision_past_its_wall_predicts_each_and_draws_them(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(cli_fields, "draw_march", lambda *arguments: drawn.append(arguments))
    result = CliRunner().invoke(main, ["march", "--digits", "float16,24", "--out", str(tmp_path / "march.png")])
    assert result.exit_code == 0, result.output
    walls = re.findall(r"(\w[\w ]*): wall at layer (\d+), predicted (\d+)", result.output)
    assert [name for name, _, _ in walls] == list(drawn[0][4]) == ["float16", "24 digits"]
    assert all(abs(int(met) - int(expected)) <= 4 for _, met, expected in walls)
