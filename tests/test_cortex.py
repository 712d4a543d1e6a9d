"""The cortical parts: adaptation, reward and adjustment, against closed forms; with them the gradient stays exact."""

from dataclasses import replace

import numpy as np
import pytest
from compiled import COMPILED
from oracle import Oracle, cosine
from test_backends import FORMS, check_phases, contract
from test_conv_backends import check_fused
from test_gradient import check_cosines, check_order_of_error, check_settled, problem
from test_verbs import DTYPES

import eqkernel as eq
from eqkernel.channel import Channel
from eqkernel.cortex import adjusted, rewarded

PLAN = eq.Schedule("plain", gamma=0.5, free_steps=40, nudged_steps=30, order="even-odd", tolerance=None)
X = np.random.default_rng(0).random((6, 5))
Y = np.array([0, 1, 2, 0, 1, 2])
ORDERS = "synchronous", "even-odd", "sweep"


# -- the gradient ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reward", [None, "error", "surprise"])
@pytest.mark.parametrize("adaptation", [0.0, 0.4])
@pytest.mark.parametrize("gamma", [1.0, 0.4])
@pytest.mark.parametrize("kind", ["3 hidden", "conv"])
def test_the_gradient_stays_exact(kind, gamma, adaptation, reward):
    cost = "squared-error" if reward == "error" else "cross-entropy"
    net, x, y = problem(kind, cost, gamma, adaptation=adaptation)
    reward = eq.REWARDS.get(reward)
    check_settled(net, x, y)
    check_cosines(net, x, y, reward)
    check_order_of_error(net, x, y, ["centered"], reward)


@pytest.mark.parametrize("order", ["synchronous", "sweep"])
def test_a_network_that_adapts_settles_to_the_same_equilibrium_in_every_order(order):
    net, x, y = problem("recurrent", "binary-cross-entropy", 0.5, order=order, adaptation=0.4)
    check_settled(net, x, y)
    check_cosines(net, x, y)


# -- adaptation ------------------------------------------------------------------------------------------------------


def neuron(g, tau, step, steps):
    """One linear neuron with the drive 1, after `steps` steps: its state and its current."""
    layers = [eq.Layer(1), eq.Layer(1, "linear", g, tau)]
    schedule = eq.Schedule("plain", free_steps=steps, order="synchronous", tolerance=None, step=step)
    net = eq.Network(layers, [eq.Dense(0, 1)], "squared-error", schedule, "float64", "reference")
    net.parameters[0][...] = 1
    free = eq.free_phase(net, [[1.0]])
    return free.state[1].item(), free.memory.current[1].item()


@pytest.mark.parametrize(("g", "tau", "step"), [(0.5, 2.0, 1.0), (3.0, 5.0, 0.3), (0.5, 1.0, 0.5)])
def test_a_linear_neuron_tires_as_the_matrix_power_says(g, tau, step):
    """(s, a, 1) goes to s + h (1 - g a - s), then a + h / tau (s - a), with the new s."""
    h = step
    move = np.array([[1 - h, -h * g, h], [0, 1, 0], [0, 0, 1]])
    tire = np.array([[1, 0, 0], [h / tau, 1 - h / tau, 0], [0, 0, 1]])
    for steps in (1, 2, 7, 400):
        s, a, _ = np.linalg.matrix_power(tire @ move, steps) @ [0, 0, 1]
        np.testing.assert_allclose(neuron(g, tau, step, steps), (s, a), atol=1e-13)
    np.testing.assert_allclose(neuron(g, tau, step, 4000), 1 / (1 + g), atol=1e-13)  # at rest a = s = 1 / (1 + g)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("backend", COMPILED)
def test_fused_phases_of_a_network_that_adapts(backend, order, dtype):
    """Two layers that adapt around one that does not, in every form; single samples, and more than a tile."""
    layers = [eq.Layer(5), eq.Layer(7, "tanh", 0.4, 1.5), eq.Layer(3, "tanh"), eq.Layer(4, "tanh", 0.2, 3.0)]
    wires = [*map(eq.Bias, (1, 2, 3)), *(eq.Dense(l, l + 1) for l in range(3)), eq.Lateral(1)]
    for form, nudge in FORMS:
        schedule = eq.Schedule("drawn", 0.5, 4, 4, order, form, nudge, None, step=0.5)
        net = eq.Network(layers, wires, "squared-error", schedule, dtype, backend)
        contract(net)
        check_fused(net)
        for batch, variant in ((1, "centered"), (2 * 17, "centered"), (3, "negative")):
            check_phases(net, batch, 0, variant)


def test_at_rest_adaptation_is_half_g_s_squared_in_the_energy():
    """rho^-1(s) + g s is then the drive, the slope of the potential plus g s^2 / 2."""
    net, x, _ = problem("3 hidden", adaptation=0.7)
    state = eq.free_phase(net, x).state
    bare = Oracle.of(net)
    bare.adaptation = ()
    for l in range(1, net.top + 1):
        potential = np.arctanh if net.layers[l].neuron == "tanh" else lambda s: s
        np.testing.assert_allclose(potential(state[l]) + 0.7 * state[l], bare.drive(l, state), atol=1e-10)


def test_a_weight_file_keeps_adaptation(tmp_path):
    layers = [eq.Layer(5), eq.Layer(4, "tanh", 0.3, 4.0), eq.Layer(3, "softmax")]
    net = eq.Network(layers, [eq.Dense(0, 1), eq.Dense(1, 2)])
    net.save(tmp_path / "net.safetensors")
    assert eq.Network.load(tmp_path / "net.safetensors").layers == tuple(layers)


def test_a_channel_and_its_copy_share_no_current():
    layers = [eq.Layer(5), eq.Layer(4, "tanh", 0.3), eq.Layer(3, "softmax")]
    net = eq.Network(layers, [eq.Dense(0, 1), eq.Dense(1, 2)], dtype="float64")
    channel = Channel(net, 2)
    channel.current[1][...] = 7
    other = channel.copy(net)
    np.testing.assert_array_equal(other.current[1], 7)
    other.current[1][...] = 0
    assert channel.current[1].all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: eq.Layer(3, "tanh", -0.1), "adaptation must be a number of at least 0"),
        (lambda: eq.Layer(3, "tanh", 0.1, 0.5), "tau must be a number of at least 1"),
        (lambda: eq.Layer(3, "softmax", 0.1), "takes no part in the dynamics"),
        (lambda: eq.Adjustment(1.0), r"must lie in \[0, 1\)"),
        (lambda: eq.Adjustment(0.1, -1), "whole number of at least 0"),
        (lambda: eq.train_step(small(), X, Y, lr=0.1, reward="praise"), "unknown reward 'praise'"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(eq.EqkernelError, match=message):
        make()


# -- reward and adjustment -------------------------------------------------------------------------------------------


def small(cost="cross-entropy"):
    net = eq.Network.dense(5, 8, 6, 3, neuron="tanh", cost=cost, schedule=PLAN, dtype="float64")
    net.warned = True
    return net


@pytest.mark.parametrize("reward", eq.REWARDS.values(), ids=lambda reward: reward.name)
def test_a_reward_is_the_slope_of_its_loss(reward):
    C = np.concatenate([np.linspace(0.01, 3, 300), [0.4999, 0.5001]])
    slope = (reward.loss(C + 1e-6) - reward.loss(C - 1e-6)) / 2e-6
    np.testing.assert_allclose(reward.factor(C), slope, atol=1e-5)
    assert (reward.factor(C) >= 0).all() and (reward.factor(C) <= 1).all()


def test_the_named_rewards_are_the_words_they_stand_for():
    """clip(|t - s|^2, 0, 1) with squared error; 1 - p of the right class with cross-entropy."""
    t, s = np.eye(3)[[0, 1]], np.array([[0.9, 0.2, 0.1], [0.9, 0.2, 0.9]])
    C = eq.SquaredError().loss(s, t)
    np.testing.assert_allclose(eq.REWARDS["error"].factor(C), np.clip(((t - s) ** 2).sum(axis=1), 0, 1))
    p = s / s.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(eq.REWARDS["surprise"].factor(eq.CrossEntropy().loss(p, t)), 1 - (p * t).sum(axis=1))


@pytest.mark.parametrize("cost", ["cross-entropy", "squared-error"])
def test_a_reward_weighs_each_sample_by_its_own_cost(cost):
    net = small(cost)
    each = [eq.ep_gradient(net, X[i : i + 1], Y[i : i + 1], 0.1) for i in range(6)]
    costs = net.cost.loss(eq.free_phase(net, X).output, net.cost.targets(Y, 3))
    r = eq.REWARDS["error"].factor(costs)
    for k, found in enumerate(eq.ep_gradient(net, X, Y, 0.1, reward="error")):
        np.testing.assert_allclose(found, sum(w * g[k] for w, g in zip(r, each, strict=True)) / 6, atol=1e-14)


@pytest.mark.parametrize("variant", ["centered", "positive", "negative"])
def test_an_adjustment_is_what_its_steps_do_one_by_one(variant):
    net = small("squared-error")
    free = eq.free_phase(net, X)
    nudged = eq.nudged_phase(net, free, Y, 0.3, variant)
    found = adjusted(net, free, nudged, eq.Adjustment(0.05, 20))
    half = 0.3 / (1 if variant == "centered" else 2)
    for l in range(1, 4):
        for sign in (1, -1):  # the two states, one of them the free one if one-sided
            state = nudged.mean[l] + sign * half * nudged.difference[l]
            for _ in range(20):
                state = 0.95 * state + 0.05 * free.state[l]
            np.testing.assert_allclose(found.mean[l] + sign * half * found.difference[l], state, atol=1e-14)


def test_an_adjustment_turns_no_gradient():
    """Uniform in all neurons, it rescales the update: its direction changes by O(beta^2) at most."""
    net = small("squared-error")
    plain, other = (eq.ep_gradient(net, X, Y, 0.01, adjustment=a) for a in (None, eq.Adjustment()))
    assert cosine(plain, other) > 1 - 1e-9
    np.testing.assert_allclose(other[0], 0.95**20 * plain[0], rtol=0, atol=1e-4 * abs(plain[0]).max())


def test_what_is_asked_for_reaches_the_update():
    for ask in ({"reward": "error"}, {"adjustment": eq.Adjustment()}):
        plain, other = small(), small()
        eq.train_step(plain, X, Y, lr=0.1)
        eq.train_step(other, X, Y, lr=0.1, **ask)
        assert abs(plain.buffer - other.buffer).max() > 1e-4


def test_a_reward_and_an_adjustment_act_together():
    net = small("squared-error")
    both, one = (eq.ep_gradient(net, X, Y, 0.01, reward="error", adjustment=a) for a in (eq.Adjustment(), None))
    np.testing.assert_allclose(both[0], 0.95**20 * one[0], rtol=0, atol=1e-3 * abs(one[0]).max())


def test_the_readouts_error_is_rewarded_and_not_adjusted():
    net = small()
    free = eq.free_phase(net, X)
    nudged = eq.nudged_phase(net, free, Y, 0.1)
    np.testing.assert_array_equal(adjusted(net, free, nudged, eq.Adjustment()).difference[-1], nudged.difference[-1])
    always = replace(eq.REWARDS["error"], factor=lambda C: np.full_like(C, 0.5))
    np.testing.assert_array_equal(rewarded(net, free, Y, nudged, always).difference[-1], 0.5 * nudged.difference[-1])
