"""The oracle that the gradient tests lean on: equilibria are fixed points, and its two gradients agree."""

from itertools import pairwise

import numpy as np
import pytest
from oracle import Connection, Oracle, cosine, relative_error

SIZES = (5, 7, 6, 3)
STRENGTH = {"tanh": 0.5, "sigmoid": 1.5, "hard-sigmoid": 0.5, "linear": 0.3}


def network(neuron="tanh", cost="squared-error", gamma=1.0, lateral=False, sizes=SIZES, seed=0):
    """A random chain whose couplings are strong enough for feedback to matter, yet contract."""
    rng = np.random.default_rng(seed)
    scale = STRENGTH[neuron]
    weights = [scale * rng.standard_normal((n, m)) / np.sqrt(m) for m, n in pairwise(sizes)]
    biases = [0.2 * rng.standard_normal(n) + (0.3 if neuron == "hard-sigmoid" else 0) for n in sizes[1:]]
    laterals = []
    if lateral:
        square = [rng.standard_normal((n, n)) for n in sizes[1:-1]]
        laterals = [0.4 * (w + w.T) / np.linalg.norm(w + w.T, 2) for w in square]
    x, y = rng.uniform(0, 1, (4, sizes[0])), rng.integers(0, sizes[-1], 4)
    return Oracle.layered(weights, biases, laterals, neuron, cost, gamma), x, y


CASES = [
    (neuron, cost, gamma, lateral)
    for neuron in ("tanh", "sigmoid", "hard-sigmoid", "linear")
    for cost in ("squared-error", "cross-entropy")
    for gamma, lateral in ((1.0, False), (0.1, False), (0.5, True))
]


@pytest.mark.parametrize(("neuron", "cost", "gamma", "lateral"), CASES)
def test_implicit_gradient_is_the_slope_of_the_loss(neuron, cost, gamma, lateral):
    net, x, y = network(neuron, cost, gamma, lateral)
    exact, slopes = net.implicit_gradient(x, y), net.finite_difference_gradient(x, y)
    for connection, g, fd in zip(net.connections, exact, slopes, strict=True):
        assert relative_error(g, fd) < 1e-7, connection[:3]


def test_a_connection_that_skips_a_layer():
    net, x, y = network("sigmoid", gamma=0.5)
    net.connections.append(Connection("dense", 1, 3, np.random.default_rng(1).standard_normal((3, 7)) / 3))
    assert relative_error(net.implicit_gradient(x, y), net.finite_difference_gradient(x, y)) < 1e-7


@pytest.mark.parametrize(("neuron", "cost", "gamma", "lateral"), CASES)
def test_equilibrium_is_a_fixed_point_wherever_it_starts(neuron, cost, gamma, lateral):
    net, x, _ = network(neuron, cost, gamma, lateral)
    state = net.equilibrium(x)
    elsewhere = [np.random.default_rng(1).uniform(-1, 1, s.shape) for s in state]
    for s, other in zip(state, net.equilibrium(x, start=elsewhere), strict=True):
        np.testing.assert_allclose(other, s, atol=2e-14)
    if cost == "cross-entropy":
        np.testing.assert_allclose(state[-1].sum(axis=1), 1, rtol=1e-15)


def test_a_linear_chain_solves_in_closed_form():
    """s1 = W1 x + b1 + gamma W2^T s2 and s2 = W2 s1 + b2."""
    net, x, _ = network("linear", gamma=0.3, sizes=(4, 6, 3))
    w1, w2, b1, b2 = (c.weight for c in net.connections)
    s1 = np.linalg.solve(np.eye(6) - 0.3 * w2.T @ w2, (x @ w1.T + b1 + 0.3 * b2 @ w2).T).T
    state = net.equilibrium(x)
    np.testing.assert_allclose(state[1], s1, rtol=1e-13)
    np.testing.assert_allclose(state[2], s1 @ w2.T + b2, rtol=1e-13)


def test_feedback_shows_in_the_gradient():
    """If it did not, comparing gradients at gamma = 1 and 0.1 would test nothing."""
    net, x, y = network()
    strong = net.implicit_gradient(x, y)
    net.gamma = 0.1
    assert relative_error(net.implicit_gradient(x, y), strong) > 0.1


def test_unsettled_networks_are_refused():
    net, x, _ = network("linear")
    net.connections[1].weight[:] *= 20
    with pytest.raises(RuntimeError, match="no equilibrium"), np.errstate(all="ignore"):
        net.equilibrium(x, sweeps=50)


def test_cosine_and_relative_error():
    a, b = [np.array([[3.0, 0.0]]), np.array([0.0])], [np.array([[3.0, 0.0]]), np.array([4.0])]
    assert cosine(a, b) == pytest.approx(0.6)
    assert relative_error(a, b) == pytest.approx(0.8)
