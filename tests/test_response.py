"""The effective response of a settled field is symmetric, its raw Jacobian is not, and pushing by hand agrees."""

import re

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_diffusion import laplacian_matrix

from eqkernel import DivergenceError, EqkernelError, cli_fields, field_figures
from eqkernel.fields import FitzHughNagumo
from eqkernel.reference.field import rates
from eqkernel.response import asymmetry, linearise, reciprocity, stationary


@pytest.fixture(scope="module", params=[(40,), (9, 12)], ids=["line", "sheet"])
def field(request):
    """A field at rest in a pattern; its walls pin it."""
    field = FitzHughNagumo(request.param, boundary="neumann", dtype="float64", noise=0.1, beta=0.05)
    field.step(30_000)
    field.u = stationary(field)
    field.v = field.slaved(field.u)
    assert np.ptp(field.u) > 0.5 and field.residual < 1e-12
    return field


def test_the_response_is_symmetric_and_the_jacobian_is_not(field):
    response = linearise(field)
    assert asymmetry(response.raw) > (0.05 if len(field.shape) == 1 else 0.03)
    assert asymmetry(np.linalg.inv(response.raw)) > 0.3
    assert asymmetry(response.effective) <= 1e-12
    assert asymmetry(response.metric @ response.raw) <= 1e-15


def test_the_raw_jacobian_is_the_derivative_of_the_rates(field):
    J, n = linearise(field).raw, field.u.size
    state = np.stack([field.u, field.v])
    columns = []
    for i in range(2 * n):
        shift = np.zeros(2 * n)
        shift[i] = 1e-5
        ends = np.empty((2, *state.shape))
        for out, sign in zip(ends, (1, -1), strict=True):
            rates(out, state + sign * shift.reshape(state.shape), field.constants, field.boundary)
        columns.append((ends[0] - ends[1]).ravel() / 2e-5)
    np.testing.assert_allclose(J, np.array(columns).T, atol=1e-7)
    assert np.linalg.eigvals(J).real.max() < 0, "the state is stable"


def test_the_response_is_the_activator_block_of_the_inverse_jacobian(field):
    """And an inhibitor's push answers with the opposite sign: J^-1_uv = -(J^-1_vu)^T / eps."""
    response, n = linearise(field), field.u.size
    inverse = np.linalg.inv(response.raw)
    np.testing.assert_allclose(-inverse[:n, :n], response.effective, atol=1e-11)
    np.testing.assert_allclose(inverse[:n, n:], -inverse[n:, :n].T / field.eps, atol=1e-11)


def test_pushing_the_nonlinear_field_is_reciprocal_to_eight_digits(field):
    i, j = 5, 22
    there, back = reciprocity(field, i, j)
    assert there == pytest.approx(back, rel=1e-9)
    assert there == pytest.approx(linearise(field).effective[i, j], rel=1e-9)
    elsewhere = FitzHughNagumo(field.shape, boundary="neumann", dtype="float64", noise=0, beta=0.05)
    assert reciprocity(elsewhere, i, j, u=field.u) == pytest.approx((there, back), rel=1e-9)


def test_stationary_solves_the_equations_of_a_sparse_construction(field):
    L, _ = laplacian_matrix(field.shape, field.boundary)
    current = 0.01 * np.random.default_rng(0).standard_normal(field.shape)
    u = stationary(field, current).ravel()
    v = field.slaved(u.reshape(field.shape)).ravel()
    residual = -field.Du / field.dx**2 * (L @ u) + u - u**3 - v + current.ravel()
    assert abs(residual).max() < 1e-12


def test_a_pattern_that_can_slide_has_no_response():
    field = FitzHughNagumo(116, dx=0.5, dtype="float64", noise=0)
    field.u = 0.5 * np.cos(2 * np.pi * 4 * np.arange(116) / 116)
    field.step(100_000)
    assert field.residual < 1e-12
    with pytest.raises(EqkernelError, match="choose boundary='neumann'"):
        _ = linearise(field).effective


def test_what_cannot_be_is_refused():
    with pytest.raises(EqkernelError, match="at most 4096"):
        linearise(FitzHughNagumo((100, 100)))
    field = FitzHughNagumo(20, dtype="float64", boundary="neumann")
    with pytest.raises(EqkernelError, match="u has 19 cells"):
        linearise(field, np.zeros(19))
    for cell in (20, -1):
        with pytest.raises(EqkernelError, match=f"cell {cell} is not one of"):
            reciprocity(field, 3, cell)
    with pytest.raises(DivergenceError, match="no stationary state nearby"):
        stationary(field, 0.0, np.linspace(-50, 50, 20), iterations=3)


@click.group()
def main():
    pass


for command in cli_fields.COMMANDS:
    main.add_command(command)


def test_the_command_draws_both_matrices(tmp_path):
    out = tmp_path / "response.png"
    result = CliRunner().invoke(main, ["response", "--size", "24", "--cells", "3,15", "--out", str(out)])
    assert result.exit_code == 0, result.output
    there, back = (float(number) for number in re.findall(r"-?\d\.\d{10}", result.output))
    assert there == pytest.approx(back, rel=1e-8) and there
    with Image.open(out) as picture:
        assert picture.width > 1000
    for arguments, message in ((["--out", "r.gif"], "must end in .png"), (["--size", "5000"], "at most 4096")):
        result = CliRunner().invoke(main, ["response", *arguments])
        assert isinstance(result.exception, EqkernelError) and message in str(result.exception)


def test_the_command_draws_the_settled_field_and_pushes_the_cells_at_an_eighth_and_three_quarters(
    tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(cli_fields, "draw_response", lambda path, found: drawn.append(found))
    result = CliRunner().invoke(main, ["response", "--size", "24", "--out", str(tmp_path / "response.png")])
    assert result.exit_code == 0 and "cell 3 answers cell 18" in result.output, result.output
    assert np.ptp(drawn[0].u) > 0.5


def test_the_picture_shows_the_jacobian_beside_the_response_with_their_own_asymmetries(monkeypatch):
    figures = []
    monkeypatch.setattr(field_figures, "_save", lambda figure, path: figures.append(figure))
    found = linearise(FitzHughNagumo(20, dtype="float64", boundary="neumann", noise=0.1))
    field_figures.draw_response("response.png", found)
    for axes, matrix in zip(figures[0].axes, (found.raw, found.effective), strict=True):
        assert axes.images[0].get_array().shape == matrix.shape
        assert f"asymmetry {asymmetry(matrix):.2g}" in axes.get_title()
