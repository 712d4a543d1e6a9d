"""The Hebbian contrast is the gradient of the loss: against implicit differentiation at the free equilibrium.

With both phases settled the centred estimate errs by O(beta^2) and a one-sided one by O(beta): a tenth of beta
divides the error by 100 or by 10. A wrong constant on any layer, however small, stops that fall, so the rates
check more than a cosine can.
"""

from dataclasses import replace

import numpy as np
import pytest
from compiled import BACKENDS
from oracle import Oracle, cosine, relative_error

import eqkernel as eq

SIZES = {"1 hidden": (5, 8, 3), "3 hidden": (5, 6, 6, 6, 6), "recurrent": (5, 8, 7, 3)}
MAPS = (7, 6, 1), (4, 3, 3), (2, 1, 4), 3
OUTPUT = {"squared-error": "linear", "cross-entropy": "softmax", "binary-cross-entropy": "sigmoid"}
CONVS = {
    "conv": [eq.Conv(0, 1, kernel=3, stride=2, padding=1), eq.Conv(1, 2, kernel=2, stride=2, padding=0)],
    "conv, average": [
        eq.Conv(0, 1, kernel=5, stride=2, padding=2),
        eq.Conv(1, 2, kernel=3, padding=1, pool="average"),
    ],
    "conv, max": [eq.Conv(0, 1, kernel=5, stride=2, padding=2), eq.Conv(1, 2, kernel=3, padding=1, pool="max")],
}
COSTS = ("squared-error", "cross-entropy", "binary-cross-entropy")
FORMS = [("difference", "frozen"), ("mean-difference", "frozen"), ("plus-minus", "frozen"), ("plus-minus", "live")]
SETTLED = eq.SCHEDULES["converged"].but(free_steps=5000, nudged_steps=5000, tolerance=1e-12, early_stop=True)

WEAKER = dict.fromkeys(SIZES, 0.35) | {"conv": 0.2, "conv, average": 0.2, "conv, max": 1.0}


def problem(
    kind, cost="squared-error", gamma=1.0, backend="reference", neuron="tanh", order="even-odd", adaptation=0.0
):
    """A float64 network with biases, whose couplings contract, and a batch (x, y) of 4."""
    options = {"cost": cost, "schedule": SETTLED.but(gamma=gamma, order=order), "dtype": "float64", "backend": backend}
    if kind in CONVS:
        # A rate below 0 would weaken the very winner that it reads, and winners take turns for ever.
        neuron = "sigmoid" if kind == "conv, max" else neuron
        layers = [eq.Layer(size, neuron) for size in MAPS[:-1]]
        layers.append(eq.Layer(MAPS[-1], OUTPUT[cost]))
        net = eq.Network(layers, [*CONVS[kind], eq.Dense(2, 3), *map(eq.Bias, (1, 2, 3))], seed=1, **options)
    else:
        build = eq.Network.recurrent if kind == "recurrent" else eq.Network.dense
        net = build(*SIZES[kind], neuron=neuron, seed=1, **options)
    if adaptation:
        layers = [replace(layer, adaptation=adaptation) for layer in net.layers[1 : net.top + 1]]
        layers = [net.layers[0], *layers, *net.layers[net.top + 1 :]]
        net = eq.Network(layers, net.connections, seed=1, **options)
    rng = np.random.default_rng(1)
    for parameter, connection in zip(net.parameters, net.connections, strict=True):
        if connection.stem == "bias":
            parameter[...] = 0.2 * rng.standard_normal(parameter.shape) + 0.3 * (neuron == "hard-sigmoid")
        else:
            parameter *= WEAKER[kind]  # contract: one equilibrium, far from any bifurcation
    return net, rng.uniform(0, 1, (4, net.sizes[0])), rng.integers(0, net.sizes[-1], 4)


def check_settled(net, x, y):
    """Early stop ends both phases before their steps run out, and at the equilibrium."""
    free = eq.free_phase(net, x)
    nudged = eq.nudged_phase(net, free, y, 0.1)
    for phase in (free, nudged):
        assert phase.outcome is eq.Outcome.SETTLED
        assert phase.steps < 1000 and phase.residual < net.schedule.tolerance
    for state, exact in zip(free.state, Oracle.of(net).equilibrium(x), strict=True):
        np.testing.assert_allclose(state, exact, rtol=0, atol=1e-11)


def exact_gradient(net, x, y, reward=None):
    oracle = Oracle.of(net)
    oracle.reward = reward
    return oracle.implicit_gradient(x, y)


def check_cosines(net, x, y, reward=None):
    """Every parameter block points along the gradient at beta = 1e-2, in every form."""
    exact = exact_gradient(net, x, y, reward)
    for form, nudge in FORMS:
        schedule = net.schedule.but(form=form, nudge=nudge)
        estimate = eq.ep_gradient(net, x, y, 1e-2, schedule=schedule, reward=reward)
        for connection, g, block in zip(net.connections, estimate, exact, strict=True):
            assert cosine(g, block) > 0.999, f"{connection.name}, {form}, {nudge} nudge"
        assert relative_error(estimate, exact) < 1e-2, f"{form}, {nudge} nudge"


def check_order_of_error(net, x, y, variants=("centered", "positive", "negative"), reward=None):
    """The error falls by 100 per decade of beta for the centred estimate, by 10 for the one-sided ones."""
    exact = exact_gradient(net, x, y, reward)
    for form, nudge in FORMS:
        schedule = net.schedule.but(form=form, nudge=nudge)
        for variant in variants:
            errors = [
                relative_error(eq.ep_gradient(net, x, y, beta, variant, schedule, reward), exact)
                for beta in (1e-1, 1e-2, 1e-3)
            ]
            low, high = (50, 200) if variant == "centered" else (5, 20)
            for ratio in (errors[0] / errors[1], errors[1] / errors[2]):
                assert low < ratio < high, f"{form}, {nudge} nudge, {variant}: {errors}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gamma", [1.0, 0.1])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("kind", [*SIZES, *CONVS])
def test_gradient(kind, cost, gamma, backend):
    net, x, y = problem(kind, cost, gamma, backend)
    check_settled(net, x, y)
    check_cosines(net, x, y)
    check_order_of_error(net, x, y)


@pytest.mark.parametrize("order", ["synchronous", "sweep"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_order_settles_to_the_same_gradient(order, backend):
    net, x, y = problem("recurrent", "cross-entropy", 0.5, backend, order=order)
    check_settled(net, x, y)
    check_cosines(net, x, y)
    check_order_of_error(net, x, y, ["centered"])


def slopes(net, x, y, schedule):
    """dL/dparameter by central differences of the loss after the free phase."""

    def loss():
        target = np.eye(net.sizes[-1])[y]
        return net.cost.loss(eq.free_phase(net, x, schedule).output, target).mean()

    found = [np.empty_like(parameter) for parameter in net.parameters]
    for parameter, slope in zip(net.parameters, found, strict=True):
        for i in np.ndindex(parameter.shape):
            kept = parameter[i]
            parameter[i] = kept + 1e-5
            above = loss()
            parameter[i] = kept - 1e-5
            slope[i] = (above - loss()) / 2e-5
            parameter[i] = kept
    return found


def check_one_pass(net, x, y, gamma):
    """One half-sweep each way: the gradient of the loss of the pass up but for O(beta^2), at any gamma."""
    single = eq.SCHEDULES["single-sweep"].but(gamma=gamma)
    exact = slopes(net, x, y, single)
    errors = [relative_error(eq.ep_gradient(net, x, y, beta, schedule=single), exact) for beta in (0.3, 0.03)]
    rounding = 1e-9  # of the slopes
    assert errors[1] < 1e-4 and errors[1] < errors[0] / 50 + rounding, str(errors)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gamma", [1.0, 1e-3])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("kind", ["1 hidden", "3 hidden", "conv, average", "conv, max"])
def test_one_half_sweep_each_way_gives_the_gradient_of_its_own_pass(kind, cost, gamma, backend):
    """No weight has acted backwards on the free state, so none may learn from having done so."""
    check_one_pass(*problem(kind, cost, gamma, backend), gamma)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_lateral_learns_from_both_ends_in_any_schedule(backend):
    net, x, y = problem("recurrent", backend=backend)
    estimate = eq.ep_gradient(net, x, y, schedule="single-sweep")
    laterals = [g for connection, g in zip(net.connections, estimate, strict=True) if connection.stem == "lateral"]
    assert laterals and all(g.any() for g in laterals)
    for g in laterals:
        np.testing.assert_allclose(g, g.T, rtol=1e-12, atol=1e-12 * abs(g).max())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("neuron", ["sigmoid", "hard-sigmoid"])
@pytest.mark.parametrize("cost", COSTS)
def test_neurons(neuron, cost, backend):
    """tanh is tested above. The hard sigmoid is smooth only between its corners, so there beta is held to one value."""
    net, x, y = problem("3 hidden", cost, 0.5, backend, neuron)
    check_cosines(net, x, y)
    if neuron == "sigmoid":
        check_order_of_error(net, x, y)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("beta", [0.01, 0.3])
def test_a_linear_network_with_a_frozen_nudge_has_no_bias_at_any_beta(beta, backend):
    """Its states are linear in beta and the contrast is m d, in which beta^2 cancels: what is left is rounding."""
    net, x, y = problem("3 hidden", "cross-entropy", 0.5, backend, "linear")
    estimate = eq.ep_gradient(net, x, y, beta, schedule=net.schedule.but(form="difference"))
    assert relative_error(estimate, Oracle.of(net).implicit_gradient(x, y)) < 1e-9


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("skip", [(1, 3), (0, 2), (0, 3)])
def test_skip_connections(skip, cost, backend):
    """Feedback over k layers has gain gamma^k; a skip may also reach the layer that the cost reads."""
    sizes = (5, 6, 7, 4, 3)
    layers = [eq.Layer(n, "tanh") for n in sizes[:-1]]
    layers.append(eq.Layer(sizes[-1], OUTPUT[cost]))
    chain = [eq.Dense(l, l + 1) for l in range(4)] + [eq.Bias(l) for l in range(1, 5)]
    net = eq.Network(layers, [*chain, eq.Dense(*skip)], cost, SETTLED.but(gamma=0.5), "float64", backend, seed=3)
    for parameter in net.parameters:
        parameter *= 0.5
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0, 1, (4, 5)), rng.integers(0, 3, 4)
    check_cosines(net, x, y)
    check_order_of_error(net, x, y, ["centered"])


def test_a_readout_reads_only_the_layer_that_its_cost_nudges():
    layers = [eq.Layer(5), eq.Layer(6, "tanh"), eq.Layer(3, "softmax")]
    wires = [eq.Dense(0, 1), eq.Dense(1, 2), eq.Dense(0, 2), eq.Bias(1), eq.Bias(2)]
    with pytest.raises(eq.EqkernelError, match="reads the layer below it only"):
        eq.Network(layers, wires, "cross-entropy")
