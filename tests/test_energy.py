"""The reference: verbs are derivatives of energies, rates invert potentials, differences lose no digits."""

from decimal import Decimal, localcontext

import numpy as np
import pytest

from eqkernel import reference
from eqkernel.errors import EqkernelError
from eqkernel.geometry import conv_geometry
from eqkernel.neurons import NEURONS, find_neuron, tanh_coefficients, tanh_limit

BATCH, N_PRE, N_POST = 3, 5, 7
MAPS = conv_geometry("here", (5, 4, 2), (2, 2, 3), kernel=3, stride=1, padding=1, pool="max", window=2)
WINNERS = np.random.default_rng(7).integers(0, 4, (BATCH, 12))
CONNECTIONS = {  # stem: (module, width of pre or None, width of post, shape of weight, what its verbs take besides)
    "dense": (reference.dense, N_PRE, N_POST, (N_POST, N_PRE)),
    "bias": (reference.bias, None, N_POST, (N_POST,)),
    "bias of a map": (reference.bias, None, 12, (4,)),
    "lateral": (reference.lateral, N_POST, N_POST, (N_POST, N_POST)),
    "conv": (reference.conv, 40, 12, (3, 3, 3, 2), MAPS, WINNERS),
}
RATES = ["hard-sigmoid", "sigmoid", "tanh", "linear", "fhn"]
SLOPES = {  # rho' in terms of the rate s = rho(d)
    "hard-sigmoid": lambda s: np.where((s > 0) & (s < 1), 1.0, 0.0),
    "sigmoid": lambda s: s * (1 - s),
    "tanh": lambda s: 1 - s**2,
    "linear": np.ones_like,
    "fhn": lambda s: 1 / (1 + 3 * s**2),
}
EPS = np.finfo(float).eps


def rate(drive, neuron):
    out = np.empty_like(drive)
    reference.neurons.rate(out, drive, neuron)
    return out


def difference(mean, drive_difference, neuron):
    out = np.empty_like(mean)
    reference.neurons.difference(out, mean, drive_difference, neuron)
    return out


def potential(state, neuron):
    energy = np.zeros(len(state))
    reference.neurons.potential(energy, state, neuron)
    return energy


def energy(module, pre, post, weight, *extra):
    out = np.zeros(BATCH)
    module.energy(out, pre, post, weight, *extra)
    return out


def slope(function, at, step=1e-4):
    """Central differences of function(array) -> (B,) in each entry of `at`: shape (B, *at.shape)."""
    columns = []
    for i in np.ndindex(at.shape):
        shift = np.zeros_like(at)
        shift[i] = step
        columns.append((function(at + shift) - function(at - shift)) / (2 * step))
    return np.stack(columns, axis=-1).reshape(-1, *at.shape)


@pytest.fixture(params=CONNECTIONS)
def synapse(request):
    module, n_pre, n_post, shape, *extra = CONNECTIONS[request.param]
    rng = np.random.default_rng(1)
    pre = None if n_pre is None else rng.standard_normal((BATCH, n_pre))
    return module, pre, rng.standard_normal((BATCH, n_post)), rng.standard_normal(shape), extra


def check_added(verb, expected, *arguments):
    """verb(out, *arguments) must add `expected` to what `out` holds."""
    out = before = np.random.default_rng(2).standard_normal(expected.shape)
    out = out.copy()
    assert verb(out, *arguments) is None
    np.testing.assert_allclose(out - before, expected, rtol=1e-6, atol=1e-9)


def test_drives_are_minus_the_slopes_of_the_energy(synapse):
    module, pre, post, weight, extra = synapse
    own = np.arange(BATCH)
    on_post = -slope(lambda s: energy(module, pre, s, weight, *extra), post)
    check_added(module.drive_post, on_post[own, own], pre, weight, *extra)
    if pre is not None:
        on_pre = -slope(lambda s: energy(module, s, post, weight, *extra), pre)
        check_added(module.drive_pre, on_pre[own, own], post, weight, *extra)
        on_pre[own, own] = 0
        assert not on_pre.any(), "a sample feels another"
    on_post[own, own] = 0
    assert not on_post.any(), "a sample feels another"


def test_hebbian_trace_is_minus_the_slope_of_the_batch_energy(synapse):
    module, pre, post, weight, extra = synapse
    on_weight = -slope(lambda w: energy(module, pre, post, w, *extra), weight).sum(axis=0)
    check_added(module.hebbian, 0.3 * on_weight, pre, post, 0.3, *extra)


def test_energy_adds(synapse):
    module, pre, post, weight, extra = synapse
    check_added(module.energy, energy(module, pre, post, weight, *extra), pre, post, weight, *extra)


def test_phi_is_as_written():
    """The one place where signs, factors and index order do not follow from each other."""
    pre, post, w = np.array([[2.0, 3.0]]), np.array([[5.0, 7.0]]), np.array([[1.0, 10.0], [100.0, 1000.0]])
    phi = 5 * (1 * 2 + 10 * 3) + 7 * (100 * 2 + 1000 * 3)
    for module, expected in ((reference.dense, phi), (reference.lateral, phi / 2)):
        out = np.zeros(1)
        module.energy(out, pre, post, w)
        assert out == -expected
    out = np.zeros(1)
    reference.bias.energy(out, None, post, np.array([10.0, 100.0]))
    assert out == -(5 * 10 + 7 * 100)


def test_both_drives_of_a_lateral_connection_make_one_whole():
    rng = np.random.default_rng(3)
    s, w = rng.standard_normal((BATCH, N_POST)), rng.standard_normal((N_POST, N_POST))
    drive = np.zeros_like(s)
    reference.lateral.drive_post(drive, s, w + w.T)
    reference.lateral.drive_pre(drive, s, w + w.T)
    np.testing.assert_allclose(drive, s @ (w + w.T), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("neuron", RATES)
def test_the_slope_of_the_potential_inverts_the_rate(neuron):
    low, high = (0.05, 0.95) if neuron == "hard-sigmoid" else (-3, 3)
    drive = np.linspace(low, high, 41)[:, None]
    step = 1e-5
    s = rate(drive, neuron)
    inverse = (potential(s + step, neuron) - potential(s - step, neuron)) / (2 * step)
    np.testing.assert_allclose(inverse, drive[:, 0], rtol=1e-6, atol=1e-9)


def test_the_softmax_makes_its_potential_stationary_among_probabilities():
    drive = np.random.default_rng(4).standard_normal((BATCH, 6))
    p = rate(drive, "softmax")
    on_p = slope(lambda s: potential(s, "softmax"), p, 1e-6)[np.arange(BATCH), np.arange(BATCH)]
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-15)
    assert np.ptp(on_p - drive, axis=1).max() < 1e-7
    np.testing.assert_allclose(rate(drive + 1e4, "softmax"), p, rtol=1e-11)


def test_potentials_add_and_are_finite_at_the_ends_of_the_range():
    out = np.ones(2)
    reference.neurons.potential(out, np.array([[0.5, 0.5], [1.0, 0.0]]), "hard-sigmoid")
    np.testing.assert_array_equal(out, [1.25, 1.5])
    np.testing.assert_allclose(potential(np.array([[0.0, 1.0]]), "sigmoid"), 0)
    np.testing.assert_allclose(potential(np.array([[-1.0, 1.0]]), "tanh"), 2 * np.log(2))


def test_hard_sigmoid_and_linear_rates():
    drive = np.array([[-2.0, 0.0, 0.25, 1.0, 3.0]])
    np.testing.assert_array_equal(rate(drive, "hard-sigmoid"), [[0, 0, 0.25, 1, 1]])
    np.testing.assert_array_equal(rate(drive, "linear"), drive)


@pytest.mark.parametrize("neuron", RATES)
def test_relax_steps_towards_the_rate_and_down_the_energy(neuron):
    rng = np.random.default_rng(5)
    drive, start = 2 * rng.standard_normal((BATCH, 4)), rng.uniform(0.1, 0.9, (BATCH, 4))
    state = start.copy()
    for n in range(1, 30):
        before = potential(state, neuron) - (drive * state).sum(axis=1)
        reference.neurons.relax(state, drive, 0.25, neuron)
        after = potential(state, neuron) - (drive * state).sum(axis=1)
        assert (after <= before + 1e-13).all()
        target = rate(drive, neuron)
        np.testing.assert_allclose(state, target + 0.75**n * (start - target), atol=1e-14)
    reference.neurons.relax(state, drive, 1.0, neuron)
    np.testing.assert_allclose(state, rate(drive, neuron), rtol=1e-14)


def tanh(x):
    e = (2 * x).exp()
    return (e - 1) / (e + 1)


def clip(x):
    return min(max(x, Decimal(0)), Decimal(1))


def cubic_root(x):
    s = min(abs(x), Decimal(float(abs(x)) ** (1 / 3)))
    for _ in range(12):
        s -= (s + s**3 - abs(x)) / (1 + 3 * s * s)
    return s.copy_sign(x)


EXACT = {
    "hard-sigmoid": clip,
    "sigmoid": lambda x: (1 + tanh(x / 2)) / 2,
    "tanh": tanh,
    "linear": lambda x: x,
    "fhn": cubic_root,
}


@pytest.mark.parametrize("neuron", RATES)
def test_difference_loses_no_digits(neuron):
    """Against 100 digits, for c from 1e-30 to 30; the bound is the error from rounding m and c themselves."""
    rng = np.random.default_rng(6)
    c = 10 ** rng.uniform(-30, 1.5, 1500) * rng.choice([-1, 1], 1500)
    m = rng.uniform(-3, 3, 1500)
    edge = slice(500, 1000)  # within |c| of the corners 0 and 1
    m[edge] = rng.integers(0, 2, 500) + c[edge] * rng.uniform(-1, 1, 500)
    m[-2:], c[-2:] = (0.0, 2000.0), (1000.0, 1.0)  # where exponentials could overflow
    found = difference(m, c, neuron)
    with localcontext() as context:
        context.prec = 100
        rho = EXACT[neuron]
        pairs = [(Decimal(a), Decimal(b) / 2) for a, b in zip(m.tolist(), c.tolist(), strict=True)]
        exact = np.array([float(rho(a + b) - rho(a - b)) for a, b in pairs])
    assert (abs(found - exact) <= 4 * EPS * (1 + abs(m) + abs(c)) * abs(exact) + 1e-300).all()
    assert not difference(m, np.zeros_like(m), neuron).any()


@pytest.mark.parametrize("neuron", RATES)
def test_difference_is_that_of_the_rates_and_its_limit_their_slope(neuron):
    m = np.linspace(-2.02, 3.01, 302)
    for c in (0.01, -1.5, 9.0):
        secant = rate(m + c / 2, neuron) - rate(m - c / 2, neuron)
        np.testing.assert_allclose(difference(m, np.full_like(m, c), neuron), secant, atol=2e-15)
    tiny = np.full_like(m, 1e-30)
    exact = SLOPES[neuron](rate(m, neuron))
    np.testing.assert_allclose(difference(m, tiny, neuron) / tiny, exact, rtol=1e-13)


@pytest.mark.parametrize(("dtype", "ulps"), [("float32", 7), ("float64", 10)])
def test_tanh_table(dtype, ulps):
    """The shared approximant, in the arithmetic of its own type, against 40 digits over its whole range."""
    dtype = np.dtype(dtype)
    limit = tanh_limit(dtype)
    grid = np.concatenate([np.linspace(0, limit, 4001)[1:], np.geomspace(1e-8, limit, 1000)])
    x = np.minimum(grid.astype(dtype), dtype.type(limit))
    odd, even = tanh_coefficients(dtype)
    assert odd.dtype == even.dtype == dtype
    assert (odd > 0).all() and (even > 0).all()
    y = x * x
    found = x * np.polynomial.polynomial.polyval(y, odd) / np.polynomial.polynomial.polyval(y, even)
    assert found.dtype == dtype
    with localcontext() as context:
        context.prec = 40
        exact = [tanh(Decimal(v)) for v in x.tolist()]
        error = np.array([float(Decimal(f) - e) for f, e in zip(found.tolist(), exact, strict=True)])
    exact = np.array(exact, float)
    assert (abs(error) <= ulps * np.spacing(exact.astype(dtype))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tanh_limit_is_where_tanh_rounds_to_one(dtype):
    just_below_one = np.finfo(dtype).epsneg
    with localcontext() as context:
        context.prec = 40
        gap = 1 - tanh(Decimal(tanh_limit(dtype)))
    assert float(gap) == pytest.approx(just_below_one / 2, rel=1e-6)


def test_neuron_table():
    assert {name: n.code for name, n in NEURONS.items()} == {
        "hard-sigmoid": 0,
        "sigmoid": 1,
        "tanh": 2,
        "linear": 3,
        "softmax": 4,
        "fhn": 5,
    }
    assert find_neuron("tanh") is NEURONS["tanh"]
    with pytest.raises(EqkernelError, match=r"unknown neuron 'hard_sigmoid': did you mean 'hard-sigmoid'\?"):
        find_neuron("hard_sigmoid")
    with pytest.raises(EqkernelError, match="float32 or float64, not float16"):
        tanh_coefficients("float16")
