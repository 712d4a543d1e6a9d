"""Optimisers against formulas written out here, in both backends; projections keep their bounds."""

import copy
import gc
import pickle

import numpy as np
import pytest
from compiled import BACKENDS
from scipy.integrate import solve_ivp

from eqkernel import (
    SGD,
    AdaGO,
    Adam,
    EqkernelError,
    Momentum,
    Muon,
    Network,
    Schedule,
    constant,
    cosine,
    hebbian_update,
    train_step,
)
from eqkernel.orthogonal import OPTIMISERS
from eqkernel.phases import free_phase, nudged_phase

PLAN = Schedule(
    "plain", gamma=0.5, free_steps=8, nudged_steps=6, order="even-odd", form="mean-difference", tolerance=None
)
RNG = np.random.default_rng(0)
X, Y = RNG.random((20, 6)), RNG.integers(0, 3, 20)
LR, DECAY = 0.05, 0.2
HALVING = lambda step: 0.5**step  # noqa: E731


def sgd(w, g, t, memory, lr, decay):
    return w - lr * decay * w - lr * g


def momentum(w, g, t, memory, lr, decay, mu=0.8):
    """The velocity as the sum it is: v_t = sum_k mu^(t-k) g_k."""
    memory.append(g)
    velocity = sum(mu ** (len(memory) - 1 - k) * past for k, past in enumerate(memory))
    return w - lr * decay * w - lr * velocity


def adam(w, g, t, memory, lr, decay, a=0.8, b=0.95, eps=1e-3):
    """The means as weighted averages over all past gradients, weights (1-a) a^(t-k) / (1 - a^t)."""
    memory.append(g)
    t = len(memory)
    mean = sum(a ** (t - 1 - k) * past for k, past in enumerate(memory)) * (1 - a) / (1 - a**t)
    square = sum(b ** (t - 1 - k) * past**2 for k, past in enumerate(memory)) * (1 - b) / (1 - b**t)
    return w - lr * decay * w - lr * mean / (np.sqrt(square) + eps)


RULES = {
    "sgd": (sgd, lambda **o: SGD(LR, **o)),
    "momentum": (momentum, lambda **o: Momentum(LR, momentum=0.8, **o)),
    "adam": (adam, lambda **o: Adam(LR, betas=(0.8, 0.95), eps=1e-3, **o)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.parametrize("schedule", [None, HALVING], ids=["constant", "halving"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_several_steps_follow_the_formula(backend, rule, decay, schedule, dtype):
    if backend == "reference" and dtype == "float32":
        pytest.skip("the reference computes in float64")
    formula, make = RULES[rule]
    net = Network.dense(6, 8, 7, 3, schedule=PLAN, backend=backend, dtype=dtype, neuron="tanh")
    net.buffer += net.dtype.type(0.1)
    optimiser = make(weight_decay=decay, schedule=schedule)
    memories = [[] for _ in net.parameters]
    expected = [p.astype(float) for p in net.parameters]
    for t in range(6):
        nudged = nudged_phase(net, free_phase(net, X), Y, beta=0.2)
        gradients = net.engine.gradient(nudged.mean, nudged.difference, PLAN)
        hebbian_update(net, nudged, optimiser)
        lr = LR * (schedule(t) if schedule else 1)
        for i, (connection, gradient) in enumerate(zip(net.connections, gradients, strict=True)):
            own = 0.0 if connection.stem == "bias" else decay  # biases do not decay
            expected[i] = formula(expected[i], gradient.astype(float), t, memories[i], lr, own)
    assert optimiser.steps == 6
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    for ours, theirs in zip(net.parameters, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", RULES)
def test_weight_decay_shrinks_weights_and_leaves_biases(backend, rule):
    """With no gradient at all, decay is all there is: w (1 - lr decay)^t."""
    net = Network.dense(6, 8, 3, schedule=PLAN, backend=backend, dtype="float64")
    net.parameters[1][...], net.parameters[3][...] = 0.3, -0.2
    before = [p.copy() for p in net.parameters]
    optimiser = RULES[rule][1](weight_decay=DECAY)
    nudged = nudged_phase(net, free_phase(net, X), Y, beta=0.2)
    for difference in nudged.difference[1:]:
        difference[...] = 0
    for _ in range(3):
        hebbian_update(net, nudged, optimiser)
    for connection, ours, old in zip(net.connections, net.parameters, before, strict=True):
        factor = 1.0 if connection.stem == "bias" else (1 - LR * DECAY) ** 3
        np.testing.assert_allclose(ours, factor * old, rtol=1e-14)


def test_the_first_step_of_adam_is_lr_times_the_sign():
    net = Network.dense(6, 8, 3, schedule=PLAN, dtype="float64", neuron="tanh")
    before = net.buffer.copy()
    nudged = nudged_phase(net, free_phase(net, X), Y, beta=0.2)
    gradient = net.engine.gradient(nudged.mean, nudged.difference, PLAN)
    hebbian_update(net, nudged, Adam(0.01, eps=1e-14))
    moved = net.buffer - before
    for at, g in zip(net.offsets, gradient, strict=True):
        np.testing.assert_allclose(moved[at : at + g.size], -0.01 * np.sign(g.ravel()), rtol=1e-6)


def test_momentum_rolls_as_the_heavy_ball_does():
    """Polyak's method is a damped oscillator: on w^2/2 with small steps it follows w'' = -(1-mu)/h w' - w."""
    rate, mu = 1e-4, 0.99  # time step h = sqrt(rate)
    h = np.sqrt(rate)
    optimiser, w, moments = Momentum(rate, momentum=mu), np.array([1.0]), [np.zeros(1), np.zeros(0)]
    for _ in range(500):
        optimiser.learn(w, w.copy(), moments, decay=True)
    path = solve_ivp(lambda t, s: [s[1], -(1 - mu) / h * s[1] - s[0]], (0, 500 * h), [1, 0], rtol=1e-9)
    np.testing.assert_allclose(w[0], path.y[0, -1], atol=2e-2)


def test_cosine_falls_from_one_to_zero_along_half_a_cosine():
    rate = cosine(10)
    assert rate(0) == 1 and rate(10) == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(
        [rate(5), rate(2), rate(8)], [0.5, (1 + 0.8090169943749475) / 2, (1 - 0.8090169943749475) / 2]
    )
    assert rate(1000) == pytest.approx(0, abs=1e-15), "it must not rise again"
    assert all(rate(t) > rate(t + 1) for t in range(10))
    assert [constant()(t) for t in (0, 7)] == [1.0, 1.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_rate_of_step_t_is_that_of_the_schedule_at_t(backend):
    net = Network.dense(6, 8, 3, schedule=PLAN, backend=backend, dtype="float64")
    asked = []
    optimiser = SGD(0.1, schedule=lambda t: asked.append(t) or 0.0)
    before = net.buffer.copy()
    for _ in range(3):
        train_step(net, X, Y, optimiser=optimiser)
    assert sorted(set(asked)) == [0, 1, 2] and asked == sorted(asked)
    np.testing.assert_array_equal(net.buffer, before)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), None, "1"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_schedule_that_gives_no_number_is_named_and_changes_nothing(backend, factor):
    net = Network.dense(6, 8, 3, schedule=PLAN, backend=backend, dtype="float64")
    before = net.buffer.copy()
    for optimiser in (SGD(0.1, schedule=lambda t: factor), Adam(schedule=lambda t: factor)):
        with pytest.raises(EqkernelError, match="schedule must give a number for every step, not .* for step 0"):
            train_step(net, X, Y, optimiser=optimiser)
        assert optimiser.steps == 0
    np.testing.assert_array_equal(net.buffer, before)


@pytest.mark.parametrize(
    "make", [lambda: Adam(0.01), lambda: Momentum(0.1), lambda: Muon()], ids=["adam", "momentum", "muon"]
)
def test_an_optimiser_whose_network_is_gone_begins_anew(make):
    optimiser, fresh = make(), make()
    gone = Network.dense(6, 8, 3, schedule=PLAN, dtype="float64", seed=5)
    for _ in range(3):
        train_step(gone, X, Y, optimiser=optimiser)
    del gone
    gc.collect()
    nets = [Network.dense(6, 8, 3, schedule=PLAN, dtype="float64") for _ in range(2)]
    for net, one in zip(nets, (optimiser, fresh), strict=True):
        train_step(net, X, Y, optimiser=one)
        assert one.steps == 1
    np.testing.assert_array_equal(nets[0].buffer, nets[1].buffer)


def test_without_moments_the_schedule_goes_on_with_the_next_network():
    optimiser = SGD(0.1)
    for count in (1, 2):
        train_step(Network.dense(6, 8, 3, schedule=PLAN), X, Y, optimiser=optimiser)
        gc.collect()
        assert optimiser.steps == count


@pytest.mark.parametrize("make", [SGD, Momentum, Adam, Muon, AdaGO])
@pytest.mark.parametrize("schedule", [None, constant(), cosine(20, 3)])
def test_optimisers_can_be_copied_and_pickled(make, schedule):
    optimiser = make(0.1, schedule=schedule)
    train_step(Network.dense(6, 8, 3, schedule=PLAN), X, Y, optimiser=optimiser)
    for twin in (copy.deepcopy(optimiser), pickle.loads(pickle.dumps(optimiser))):
        assert type(twin) is make and twin.steps == 1 and twin.rate() == optimiser.rate()
        for mine, other in zip(twin.state, optimiser.state, strict=True):
            np.testing.assert_array_equal(mine, other)


MISTAKES = {
    "one beta": (lambda: Adam(betas=0.9), "betas must lie in .* two of them, not 0.9"),
    "a tuple of one": (lambda: Adam(betas=(0.9,)), "betas must lie"),
    "three betas": (lambda: Adam(betas=(0.9, 0.99, 0.999)), "betas must lie"),
    "text betas": (lambda: Adam(betas=("0.9", 0.99)), "betas must lie"),
    "cosine of text": (lambda: cosine("a"), "cosine needs at least one step, not 'a'"),
    "cosine of NaN": (lambda: cosine(float("nan")), "cosine needs at least one step, not nan"),
    "warmup of text": (lambda: cosine(10, "a"), "warmup must be a number"),
    "warmup below 0": (lambda: cosine(10, -1), "warmup must be a number of at least 0, not -1"),
    "schedule by name": (
        lambda: SGD(0.1, schedule="cosine"),
        "schedule must be a function of the step, .* not 'cosine'",
    ),
    "schedule a number": (lambda: Momentum(0.1, schedule=0.5), "schedule must be a function of the step"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_natural_mistakes_give_one_clear_error(case):
    call, message = MISTAKES[case]
    with pytest.raises(EqkernelError, match=message):
        call()


def test_optimisers_by_name():
    assert {"sgd": SGD, "momentum": Momentum, "adam": Adam, "muon": Muon, "adago": AdaGO} == OPTIMISERS


# -- projection ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bound", [0.9, 0.3])
def test_lateral_weights_stay_symmetric_and_bounded_through_training(backend, dtype, bound):
    if backend == "reference" and dtype == "float32":
        pytest.skip("the reference computes in float64")
    net = Network.recurrent(6, 20, 17, 3, bound=bound, schedule=PLAN, backend=backend, dtype=dtype)
    laterals = [w for c, w in zip(net.connections, net.parameters, strict=True) if c.stem == "lateral"]
    optimiser, largest = Adam(0.01), 0.0
    for _ in range(60):
        train_step(net, X, Y, optimiser=optimiser)
        for weight in laterals:
            np.testing.assert_array_equal(weight, weight.T)
            norm = np.linalg.norm(weight.astype(float), 2)
            assert norm <= bound * (1 + 1e-3)
            largest = max(largest, norm)
    assert largest > 0.99 * bound, "the bound was never reached: this test saw nothing"


def test_projection_leaves_weights_within_the_bound_alone():
    net = Network.recurrent(6, 9, 3, bound=0.9, dtype="float64", schedule=PLAN)
    before = net.buffer.copy()
    net.project()
    np.testing.assert_array_equal(net.buffer, before)
    net.parameters[-1][...] *= 10
    net.project()
    np.testing.assert_allclose(net.parameters[-1], 0.9 / 0.45 * before[net.offsets[-1] :][:81].reshape(9, 9), rtol=1e-3)


def test_projection_sees_a_negative_leading_eigenvalue():
    net = Network.recurrent(6, 9, 3, bound=0.9, dtype="float64", schedule=PLAN)
    weight = net.parameters[-1]
    weight[...] = np.diag([-5.0, 4.9, 1, 0, 0, 0, 0, 0, 0])
    net.project()
    np.testing.assert_allclose(np.linalg.norm(weight, 2), 0.9, rtol=1e-3)
