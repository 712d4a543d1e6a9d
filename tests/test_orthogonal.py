"""Muon and AdaGO: orthogonalisation against the SVD, and steps against formulas written out here."""

import numpy as np
import pytest

from eqkernel import AdaGO, Conv, Dense, EqkernelError, Layer, Muon, Network, Schedule, hebbian_update
from eqkernel.orthogonal import orthogonalise
from eqkernel.phases import free_phase, nudged_phase

RNG = np.random.default_rng(0)
X, Y = RNG.random((20, 20)), RNG.integers(0, 3, 20)
PLAN = Schedule("plain", gamma=0.5, free_steps=4, nudged_steps=4, order="even-odd", tolerance=None)
SHAPES = [(5, 5), (3, 40), (40, 3), (1, 9), (9, 1), (4, 3, 3, 2)]


def newton_schulz(s):
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


def by_svd(matrix):
    """The same by the singular value decomposition: U p(S / |M|) V^T."""
    U, s, Vt = np.linalg.svd(matrix.reshape(len(matrix), -1), full_matrices=False)
    return (U * newton_schulz(s / np.linalg.norm(s)) @ Vt).reshape(matrix.shape)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalising_acts_on_the_singular_values_alone(shape, scale):
    matrix = scale * RNG.standard_normal(shape)
    np.testing.assert_allclose(orthogonalise(matrix), by_svd(matrix), atol=1e-12)
    single = matrix.astype(np.float32)
    out = orthogonalise(single)
    assert out.dtype == np.float32 and np.isfinite(out).all()
    np.testing.assert_allclose(out, by_svd(single.astype(float)), atol=2e-4)


@pytest.mark.parametrize("scale", [1e-42, 1e-37, 1e-25, 1e-20, 1e20, 1e37])
def test_orthogonalising_knows_no_scale(scale):
    """Momentum lets a layer without a gradient fall through all of them; squares leave float32 long before."""
    matrix = RNG.standard_normal((8, 6)).astype(np.float32)
    scaled = matrix * np.float32(scale)
    np.testing.assert_allclose(orthogonalise(scaled), by_svd(scaled.astype(float)), atol=2e-4)


@pytest.mark.parametrize("condition", [1.0, 10.0, 90.0])
def test_singular_values_end_in_the_stated_band(condition):
    """All at least a hundredth of the norm: within [0.68, 1.14], in the directions of the matrix itself."""
    U, V = (np.linalg.qr(RNG.standard_normal((12, 12)))[0] for _ in range(2))
    s = np.geomspace(1 / condition, 1, 12)
    assert s[0] / np.linalg.norm(s) > 0.004
    found = U.T @ orthogonalise(U * s @ V.T) @ V
    kept = s / np.linalg.norm(s) >= 0.01
    assert (np.diag(found)[kept] > 0.68).all() and (np.diag(found) < 1.14).all()
    np.testing.assert_allclose(found, np.diag(np.diag(found)), atol=1e-12)


def test_zero_stays_zero_and_steps_are_counted():
    assert not orthogonalise(np.zeros((3, 4))).any()
    with pytest.raises(EqkernelError, match="whole number of at least 1, not 0"):
        orthogonalise(np.eye(2), 0)


def muon(w, g, past, t, lr, decay):
    past.append(g)
    if g.ndim == 1:
        mean = sum(0.9 ** (t - k) * p for k, p in enumerate(past, 1)) * 0.1 / (1 - 0.9**t)
        square = sum(0.99 ** (t - k) * p**2 for k, p in enumerate(past, 1)) * 0.01 / (1 - 0.99**t)
        return w - 0.1 * lr * mean / (np.sqrt(square) + 1e-8)
    velocity = sum(0.95 ** (t - k) * p for k, p in enumerate(past, 1))
    return w - lr * decay * w - lr * by_svd(g + 0.95 * velocity)


def adago(w, g, past, t, lr, decay):
    past.append(g)
    norms = np.array([np.linalg.norm(p) for p in past])
    if g.ndim == 1:
        return w - 0.1 * lr * g / np.sqrt(0.01 + (norms**2).sum())
    norms = np.minimum(norms, 0.02)
    mean = 0.05 * sum(0.95 ** (t - k) * p for k, p in enumerate(past, 1))
    return w - lr * decay * w - lr * max(0.005, norms[-1] / np.sqrt(0.01 + (norms**2).sum())) * by_svd(mean)


RULES = {"muon": (muon, Muon), "adago": (adago, lambda *a, **o: AdaGO(*a, clip=0.02, **o))}


def network(dtype, backend):
    layers = [Layer((5, 4, 1)), Layer((3, 2, 4), "tanh"), Layer(3, "softmax")]
    wires = [Conv(0, 1, 3), Dense(1, 2)] if backend == "conv" else [Dense(0, 1), Dense(1, 2)]
    net = Network(layers, wires, schedule=PLAN, dtype=dtype)
    return net if backend == "conv" else Network.dense(20, 8, 7, 3, neuron="tanh", schedule=PLAN, dtype=dtype)


@pytest.mark.parametrize("kind", ["fused", "conv"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", [0.0, 0.2])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_several_steps_follow_the_formula(rule, decay, dtype, kind):
    formula, make = RULES[rule]
    net = network(dtype, kind)
    optimiser = make(0.05, weight_decay=decay, schedule=lambda t: 0.5**t)
    memories = [[] for _ in net.parameters]
    expected = [p.astype(float) for p in net.parameters]
    for t in range(5):
        nudged = nudged_phase(net, free_phase(net, X), Y, beta=0.2)
        gradients = net.engine.gradient(nudged.mean, nudged.difference, PLAN)
        hebbian_update(net, nudged, optimiser)
        for i, g in enumerate(gradients):
            lr = 0.05 * 0.5**t
            expected[i] = formula(expected[i], g.astype(float), memories[i], t + 1, lr, decay)
    for ours, theirs in zip(net.parameters, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11 if dtype == "float64" else 3e-5)


def test_adago_on_a_constant_gradient_slows_as_one_over_the_root_of_time():
    """v = v0 + t c^2: the step is c / sqrt(v0 + t c^2), and never below `least`."""
    optimiser, w = AdaGO(1.0, least=0.1, start=1.0), np.zeros((2, 2))
    moments = [np.zeros((2, 2)), np.zeros((2, 2))]
    lengths = []
    for _ in range(200):
        before = w.copy()
        optimiser.learn(w, 5 * np.eye(2), moments, decay=False)
        lengths.append(-(w - before)[0, 0] / newton_schulz(np.sqrt(0.5)))
    t = np.arange(1, 201)
    np.testing.assert_allclose(lengths, np.maximum(0.1, 1 / np.sqrt(1 + t)), rtol=1e-12)


def test_muon_does_not_see_the_size_of_a_gradient():
    steps = []
    for size in (1e-6, 1.0):
        w, optimiser = np.zeros((3, 4)), Muon(0.1)
        moments = [np.zeros((3, 4)), np.zeros((3, 4))]
        optimiser.learn(w, size * np.arange(12.0).reshape(3, 4), moments, decay=False)
        steps.append(w)
    np.testing.assert_allclose(*steps, rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Muon(0.0), "lr must be a positive number"),
        (lambda: Muon(momentum=1.0), r"momentum must lie in \[0, 1\)"),
        (lambda: Muon(bias_rate=-1), "bias_rate must be a number of at least 0"),
        (lambda: AdaGO(bias_rate=-1), "bias_rate must be a number of at least 0"),
        (lambda: AdaGO(clip=0), "clip must be a positive number"),
        (lambda: AdaGO(start=float("nan")), "start must be a positive number"),
        (lambda: AdaGO(least=-1), "least must be a number of at least 0"),
        (lambda: AdaGO(momentum=-0.1), r"momentum must lie in \[0, 1\)"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(EqkernelError, match=message):
        make()
