"""The FitzHugh-Nagumo field: exact linear growth, limits of the step, a falling energy, steady states, the command."""

import resource
import subprocess
import sys

import click
import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
from click.testing import CliRunner
from compiled import BACKENDS, COMPILED
from PIL import Image
from scipy import sparse
from test_diffusion import laplacian_matrix

from eqkernel import DivergenceError, EqkernelError, cli_fields, get_threads, set_threads
from eqkernel.backends import verbs
from eqkernel.cpu import field as cpu
from eqkernel.cpu.compile import _OPTIONS
from eqkernel.field_figures import check_format, image_of, save_frames
from eqkernel.fields import PRESETS, FitzHughNagumo
from eqkernel.reference import field as reference

CONSTANTS = reference.Constants(Du=1.1, Dv=13.0, eps=1.4, alpha=0.7, beta=0.1, dt=0.011, dt_v=0.009)


def mode(n, m):
    return np.cos(2 * np.pi * m * np.arange(n) / n)


def multiplier(field, q):
    """What a step makes of the two amplitudes of a wave with -lap = q."""
    J, c = field.jacobian(q), field.constants
    if field.semi_implicit:
        M = np.eye(2) + c.dt * J
        M[1] = np.array([c.dt * c.eps, 1 - c.dt * field.Dv * q]) / (1 + c.dt * c.eps * c.alpha)
        return M
    return np.eye(2) + c.dt * J


@pytest.mark.parametrize("scheme", ["explicit", "semi-implicit"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_small_mode_grows_as_theory_says(backend, scheme):
    n, steps, start = (24, 40), 2000, np.array([1e-9, 3e-10])
    if backend == "reference":
        steps = 500
    field = FitzHughNagumo(n, dx=0.5, dt=0.0015, dtype="float64", scheme=scheme, backend=backend)
    shape = mode(n[0], 1)[:, None] * mode(n[1], 2)
    field.u, field.v = start[0] * shape, start[1] * shape
    field.step(steps)
    q = 4 / 0.5**2 * (np.sin(np.pi / n[0]) ** 2 + np.sin(2 * np.pi / n[1]) ** 2)
    expected = np.linalg.matrix_power(multiplier(field, q), steps) @ start
    found = np.array([(s * shape).sum() for s in (field.u, field.v)]) / (shape**2).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(field.u, found[0] * shape, atol=1e-9 * abs(found[0]))  # and stays that mode


def test_the_fastest_wave_out_of_noise_is_the_one_of_theory():
    n, dx = 128, 0.5
    field = FitzHughNagumo((n, n), dx=dx, dtype="float64", noise=1e-9)
    field.step(int(22 / field.dt))
    wave = np.fft.fftfreq(n, dx) * 2 * np.pi
    power = abs(np.fft.fft2(field.u)) ** 2
    i, j = np.unravel_index(power.argmax(), power.shape)
    k = np.linspace(0.1, 1, 2000)
    growth = [np.linalg.eigvals(field.jacobian(x * x)).real.max() for x in k]
    assert k[np.argmax(growth)] == pytest.approx(0.4323, abs=1e-3)
    assert abs(np.hypot(wave[i], wave[j]) - k[np.argmax(growth)]) <= wave[1]


def checkerboard_growth(field, steps=400):
    """Of the fastest mode's v, from step 20 to the end."""
    n = field.shape[0]
    board = (-1.0) ** np.add.outer(np.arange(n), np.arange(n))
    field.step(20)
    before = abs((board * field.v).mean())
    field.step(steps - 20)
    return abs((board * field.v).mean()) / before


@pytest.mark.parametrize("scheme", ["explicit", "semi-implicit"])
def test_the_diffusion_limit_is_where_the_checkerboard_grows(scheme, monkeypatch):
    options = {"dx": 0.5, "noise": 1e-8, "dtype": "float64", "scheme": scheme}
    if scheme == "semi-implicit":
        options["eps"] = 60.0  # where taking the decay late makes a difference
    limit = FitzHughNagumo((16, 16), **options).dt_limit
    if scheme == "explicit":
        assert limit == pytest.approx(0.0031192, abs=1e-7)
    stable = FitzHughNagumo((16, 16), dt=0.98 * limit, **options)
    assert checkerboard_growth(stable) < 1e-3
    with pytest.raises(EqkernelError, match="diffusion limit"):
        FitzHughNagumo((16, 16), dt=1.02 * limit, **options)
    monkeypatch.setattr(FitzHughNagumo, "_limits", lambda self: {"none": (np.inf, "")})
    unstable = FitzHughNagumo((16, 16), dt=1.02 * limit, **options)
    assert checkerboard_growth(unstable) > 1e3


@pytest.mark.parametrize("scheme", ["explicit", "semi-implicit"])
def test_the_rotation_limit_is_where_a_decaying_spiral_grows(scheme, monkeypatch):
    options = {"Du": 0.0, "Dv": 0.0, "alpha": 0.15, "eps": 8.0, "dtype": "float64", "noise": 0.0, "scheme": scheme}
    field = FitzHughNagumo(3, **options)
    assert field.limits["rotation"][0] == field.dt_limit
    if scheme == "explicit":
        assert field.dt_limit == pytest.approx(0.2 / 6.8)  # -trace / det of the uniform state
    with pytest.raises(EqkernelError, match="rotation limit"):
        FitzHughNagumo(3, dt=1.02 * field.dt_limit, **options)
    monkeypatch.setattr(FitzHughNagumo, "_limits", lambda self: {"none": (np.inf, "")})
    for factor, grows in ((0.98, False), (1.02, True)):
        spiral = FitzHughNagumo(3, dt=factor * field.dt_limit, **options)
        spiral.u = 1e-9
        radius = []
        for _ in range(40):
            spiral.step(1000)
            radius.append(np.hypot(spiral.u[0], spiral.v[0]))
        assert (max(radius[-10:]) > max(radius[:10])) == grows


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_energy_falls(preset, boundary):
    field = FitzHughNagumo((40, 48), dtype="float64", boundary=boundary, **PRESETS[preset])
    energies = [field.energy]
    for _ in range(150):
        field.step(100)
        energies.append(field.energy)
    falls = np.diff(energies)
    assert falls.max() <= 1e-9 * abs(energies[-1])
    assert energies[-1] < energies[0] - 1


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
@pytest.mark.parametrize("shape", [(30,), (9, 11), (8, 10)])
def test_the_energy_is_that_of_the_slaved_field(shape, boundary):
    """dE/du = -du/dt where v is slaved, and v solves B v = u - beta against a sparse B."""
    field = FitzHughNagumo(shape, dx=0.7, beta=0.1, boundary=boundary, dtype="float64", noise=0.3)
    L, _ = laplacian_matrix(shape, boundary)
    n = int(np.prod(shape))
    B = field.alpha * sparse.eye_array(n) + field.Dv / field.eps / field.dx**2 * L
    u = field.u.copy()
    v = sparse.linalg.spsolve(B.tocsc(), u.ravel() - field.beta)
    np.testing.assert_allclose(field.slaved(u).ravel(), v, atol=1e-13)
    rate = -field.Du / field.dx**2 * (L @ u.ravel()) + u.ravel() - u.ravel() ** 3 - v
    for cell in (0, n // 2, n - 1):
        shift = np.zeros(n)
        shift[cell] = 1e-5
        ends = []
        for sign in (1, -1):
            field.u = u + sign * shift.reshape(shape)
            ends.append(field.energy)
        slope = (ends[0] - ends[1]) / 2e-5 / field.dx ** len(shape)
        assert slope == pytest.approx(-rate[cell], abs=1e-8)


@pytest.mark.parametrize("scheme", ["explicit", "semi-implicit"])
def test_a_line_comes_to_rest(scheme):
    field = FitzHughNagumo(40, boundary="neumann", dtype="float64", scheme=scheme)
    field.step(120_000)
    assert field.residual <= 1e-12
    assert np.ptp(field.u) > 1  # in a pattern
    assert abs(field.v - field.slaved(field.u)).max() < 1e-11


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
@pytest.mark.parametrize("shape", [(3,), (40,), (1100,), (3, 3), (37, 41), (130, 30), (70, 520)], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_agree_with_a_sparse_matrix(backend, shape, boundary):
    """Tiles, line buffers and mirrored edges are only a way to compute this."""
    L, _ = laplacian_matrix(shape, boundary)
    c = CONSTANTS
    start = np.random.default_rng(0).standard_normal((2, *shape))
    steps = [1, 2, 7, 64]
    expected = start.reshape(2, -1).copy()
    for k in range(1, steps[-1] + 1):
        u, v = expected
        expected = np.stack([
            u + c.dt * (-c.Du * (L @ u) + u - u**3 - v),
            v + c.dt_v * (-c.Dv * (L @ v) + c.eps * (u - c.alpha * v - c.beta)),
        ])  # fmt: skip
        if k in steps:
            state = start.copy()
            largest = verbs(backend, "field").advance(state, np.full_like(state, np.nan), k, c, boundary)
            np.testing.assert_allclose(state.reshape(2, -1), expected, atol=1e-12)
            assert largest == abs(state).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
@pytest.mark.parametrize("backend", COMPILED)
def test_results_are_the_same_bits_for_any_threads_and_any_division_of_the_steps(backend, boundary, dtype, monkeypatch):
    shape = 2, 1030, 1100  # rows enough for the longest pass of either backend, two tiles of float32
    start = np.random.default_rng(1).standard_normal(shape).astype(dtype)

    def run(*steps):
        state = start.copy()
        for n in steps:
            verbs(backend, "field").advance(state, np.empty_like(state), n, CONSTANTS, boundary)
        return state

    before = get_threads()
    try:
        set_threads(1)
        whole = run(50)
        assert np.array_equal(run(1, 17, 32), whole)
        monkeypatch.setattr(cpu, "TILE", 512)
        assert np.array_equal(run(50), whole)
        set_threads(4)
        assert np.array_equal(run(50), whole)
    finally:
        set_threads(before)


def test_float32_follows_float64():
    fields = [FitzHughNagumo((64, 64), dtype=dtype, seed=3) for dtype in ("float32", "float64")]
    for field in fields:
        field.step(200)
    assert abs(fields[0].u - fields[1].u).max() < 2e-6


def test_the_kernel_uses_the_widest_registers_there_are():
    def rows(buffer, c):
        cpu._two_rows(buffer, 64, 64, 256, 384, 640, 768, 896, 1024, buffer, 0, c)

    fresh = numba.njit(**_OPTIONS)(rows)  # what comes out of the cache cannot be inspected
    fresh(np.zeros(1280, "float32"), np.ones(7, "float32"))
    (code,) = fresh.inspect_asm().values()
    assert any(register in code for register in ("zmm", "ymm", ".4s"))
    if llvm.get_host_cpu_features().get("avx512f"):
        assert "zmm" in code


def test_it_is_periodic_or_it_is_not():
    for boundary, moved in (("periodic", True), ("neumann", False)):
        one, other = (FitzHughNagumo((20, 24), dtype="float64", boundary=boundary, noise=0) for _ in range(2))
        one.poke(4, 3, 2, 1.0)
        other.u = np.roll(one.u, (9, -5), (0, 1))
        one.step(100)
        other.step(100)
        assert np.allclose(np.roll(one.u, (9, -5), (0, 1)), other.u, atol=1e-12) is moved


def test_the_step_is_by_default_nine_tenths_of_its_limit_and_adds_up_to_the_time():
    field = FitzHughNagumo(16)
    assert field.dt == pytest.approx(0.9 * field.dt_limit)
    field.step(5)
    field.step(2)
    assert field.time == pytest.approx(7 * field.dt)


def test_the_limits_are_those_of_either_sign_of_beta_and_of_every_u_up_to_the_top():
    options = {"Dv": 0.0, "eps": 0.1}
    up, down = (FitzHughNagumo(16, beta=beta, **options).limits["diffusion"][0] for beta in (0.3, -0.3))
    assert up == pytest.approx(down)
    assert FitzHughNagumo(16, Du=0, **options).limits["diffusion"][0] < 1  # the slope 1 - 3 u^2 far from u = 0
    assert FitzHughNagumo(16, eps=0.5).dt_limit > 0  # a spiral that grows by itself sets no limit


def test_of_three_uniform_states_the_middle_one_is_taken():
    assert FitzHughNagumo(16, alpha=2.0).uniform == pytest.approx((0, 0))


def test_the_residual_is_of_both_species():
    field = FitzHughNagumo(16, noise=0, dtype="float64")
    field.v = field.v + 1e-3
    assert field.residual == pytest.approx(field.eps * field.alpha * 1e-3) and field.residual > 1e-3


def test_noise_follows_the_seed():
    a, b, other = (FitzHughNagumo(20, seed=seed).u for seed in (1, 1, 2))
    assert (a == b).all() and (a != other).any()


def test_poke_sets_a_disc():
    field = FitzHughNagumo((20, 30), noise=0)
    field.poke(29, 10, 2, 0.5)
    rows, columns = np.nonzero(field.u)
    assert len(rows) == 13 and set(columns) == {27, 28, 29, 0, 1} and set(rows) == {8, 9, 10, 11, 12}
    assert (field.u[rows, columns] == 0.5).all() and not field.v.any()
    over_the_top = FitzHughNagumo((20, 30), noise=0)
    over_the_top.poke(10, 0, 2, 0.5)
    assert set(np.nonzero(over_the_top.u)[0]) == {18, 19, 0, 1, 2}
    line = FitzHughNagumo(30, noise=0, boundary="neumann")
    line.poke(29, 0, 2, 0.5)
    assert list(np.nonzero(line.u)[0]) == [27, 28, 29]
    with pytest.raises(EqkernelError, match="no cell of the 30 x 20 grid"):
        field.poke(3.5, 3.5, 0.2, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Du": -1}, "Du must not be negative: diffusion of -1"),
        ({"Dv": -0.1}, "Dv must not be negative"),
        ({"Dv": np.nan}, "Dv must be a finite number"),
        ({"eps": 0}, "eps must be positive"),
        ({"alpha": -1}, "alpha must be positive"),
        ({"dx": 0}, "dx must be positive"),
        ({"dx": 1e-200}, "dx=1e-200: 1 / dx.2"),
        ({"dx": 1e-160}, "dx=1e-160: 1 / dx.2"),
        ({"dx": 1e200}, "dx=1e.200: 1 / dx.2"),
        ({"dt": 0.02}, "dt = 0.02 is beyond the diffusion limit of 0.0124"),
        ({"dt": -1}, "dt must be positive"),
        ({"dt": np.nan}, "dt must be positive and finite"),
        ({"shape": (2, 40)}, "at least 3 cells"),
        ({"shape": 2}, "at least 3 cells"),
        ({"shape": (4, 4, 4)}, "a line .* or a sheet"),
        ({"shape": (4.0, 4)}, "whole number"),
        ({"boundary": "dirichlet"}, "unknown boundary 'dirichlet'"),
        ({"scheme": "implicit"}, "unknown scheme 'implicit': did you mean"),
        ({"dtype": "float16"}, "float32 or float64, not float16"),
        ({"backend": "gpu"}, "unknown backend 'gpu'"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    options = {"shape": (16, 16), **changes}
    with pytest.raises(EqkernelError, match=message):
        FitzHughNagumo(**options)


def test_what_is_not_finite_is_refused_or_found():
    field = FitzHughNagumo((16, 16))
    with pytest.raises(EqkernelError, match="u holds a NaN or an infinity"):
        field.u = np.full((16, 16), np.nan)
    with pytest.raises(EqkernelError, match=r"v has shape \(16, 16\), not \(3,\)"):
        field.v = np.zeros(3)
    for given, message in (("rest", "u has type <U4: it must hold real numbers"), ([[1], [2, 3]], "u cannot be read")):
        with pytest.raises(EqkernelError, match=message):
            field.u = given
    with pytest.raises(EqkernelError, match="finite numbers"):
        field.poke(3, 3, 2, np.inf)
    with pytest.raises(EqkernelError, match="whole number"):
        field.step(-1)
    field.u[3, 4] = np.nan
    with pytest.raises(DivergenceError, match="left the finite numbers within 1 steps"):
        field.step()
    far = FitzHughNagumo((16, 16), backend="reference")
    far.poke(3, 3, 2, 1e4)
    with np.errstate(all="ignore"), pytest.raises(DivergenceError, match="smaller dt"):
        far.step(50)


# The command


@click.group()
def main():
    pass


for command in cli_fields.COMMANDS:
    main.add_command(command)


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_the_command_draws_a_pattern_with_its_wavelength(tmp_path):
    result = run("field", "--size", "96", "--steps", "6000", "--out", tmp_path / "turing.png")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "turing.png") as picture:
        assert picture.size == (96, 96)
        light = np.asarray(picture.convert("L"), float)
    power = abs(np.fft.fft2(light - light.mean())) ** 2
    wave = np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))
    mean_wavelength = power.sum() / (power * wave).sum()
    assert 10 < mean_wavelength < 17  # 14.5 cells by theory where growth is fastest
    assert light.std() > 60


def test_the_command_writes_a_film_and_arrays(tmp_path):
    poke = ["--poke", "20,12,3,1", "--noise", "0", "--size", "24x40"]
    result = run("field", *poke, "--steps", "600", "--frames", "5", "--out", tmp_path / "turing.gif")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "turing.gif") as film:
        assert film.n_frames == 5 and film.size == (40, 24)
        assert film.info["loop"] == 0  # it never ends, and rests on its last picture
        film.seek(4)
        assert film.info["duration"] == 2000
    spots = ["--preset", "spots", "--dx", "0.5"]
    result = run("field", *poke, "--steps", "600", *spots, "--out", tmp_path / "turing.npz")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "turing.npz") as saved:
        field = FitzHughNagumo((24, 40), noise=0, **PRESETS["spots"] | {"dx": 0.5})
        field.poke(20, 12, 3, 1)
        for _ in range(100):
            field.step(6)
        assert np.array_equal(saved["u"], field.u) and np.array_equal(saved["v"], field.v)
        assert saved["beta"] == PRESETS["spots"]["beta"]
        assert (saved["Du"], saved["Dv"], saved["dx"]) == (1, 20, 0.5)  # as asked, not in cells


def test_a_picture_is_dark_where_u_is_low_and_the_last_of_its_frames(tmp_path):
    light = np.asarray(image_of(np.array([[-0.9, 0.9]])).convert("L"))
    assert light[0, 0] < 20 and light[0, 1] > 230
    out = tmp_path / "FRAMES.PNG"
    assert check_format(out) == ".png"
    save_frames([Image.fromarray(np.full((4, 4), level, np.uint8)) for level in (0, 100, 200)], out)
    with Image.open(out) as picture:
        assert (np.asarray(picture) == 200).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "turing.jpg"], "must end in .png or .gif or .npz"),
        (["--out", "nowhere/turing.png"], "there is no folder nowhere"),
        (["--dt", "1"], "beyond the diffusion limit"),
        (["--Du", "-1"], "must not be negative"),
        (["--size", "2"], "at least 3 cells"),
        (["--size", "many"], "--size 'many' is not a whole number"),
        (["--poke", "1,2,3"], "give 4 finite numbers"),
        (["--poke", "500,2,1,1"], "no cell of the"),
    ],
)
def test_the_command_refuses_before_it_runs(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    size = [] if "--size" in arguments else ["--size", "32"]
    result = run("field", *size, "--steps", "10", "--boundary", "neumann", *arguments)
    assert isinstance(result.exception, EqkernelError) and message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    """The child may write 4 kB: the disk is as good as full in the middle of the new picture."""
    out = tmp_path / "turing.png"
    out.write_bytes(b"the old picture")
    code = f"from eqkernel.cli_fields import field; field(['--size', '200', '--steps', '500', '--out', {str(out)!r}])"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # noqa: E731
    child = subprocess.run(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); " + code],
        preexec_fn=limit, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert child.returncode != 0 and "nothing was changed" in child.stderr, child.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["turing.png"]
    assert out.read_bytes() == b"the old picture"
