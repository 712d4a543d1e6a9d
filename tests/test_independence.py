"""A sample settles the same whatever it settles with; threads and the naming of hidden units change nothing."""

import numpy as np
import pytest
from compiled import COMPILED, HERE
from hypothesis import given, settings
from hypothesis import strategies as st

import eqkernel
from eqkernel import (
    Adam,
    Bias,
    Conv,
    Dense,
    Lateral,
    Layer,
    Network,
    Schedule,
    ep_gradient,
    free_phase,
    nudged_phase,
    train_step,
)
from eqkernel.cpu import threads

FULL = Schedule("full", gamma=1.0, free_steps=30, nudged_steps=10, order="even-odd", tolerance=None)
PLANS = {
    "difference": FULL.but(form="difference"),
    "mean-difference": FULL.but(form="mean-difference"),
    "plus-minus": FULL.but(form="plus-minus", order="synchronous"),
    "sweep": FULL.but(order="sweep", free_steps=3, nudged_steps=2),
}
SIZES = (132, 97, 61, 10)  # no multiple of a vector
BATCHES = [1, 2, 31, 32, 33, 64, 65]
RNG = np.random.default_rng(0)
X, Y = RNG.random((65, SIZES[0])), RNG.integers(0, 10, 65)


@pytest.fixture(autouse=True)
def restore_threads():
    before = eqkernel.get_threads()
    yield
    eqkernel.set_threads(before)


def skipping(dtype, plan, backend):
    """A topology that the fused kernels do not cover: a skip connection, and a lateral one."""
    layers = [Layer(132), Layer(97, "tanh"), Layer(61, "tanh"), Layer(10, "linear")]
    connections = [Dense(0, 1), Bias(1), Dense(1, 2), Dense(0, 2), Lateral(2), Dense(2, 3), Dense(1, 3), Bias(3)]
    net = Network(layers, connections, "squared-error", plan, dtype, backend)
    net.buffer *= net.dtype.type(0.25)  # a contraction in every order
    return net


def convolving(dtype, plan, backend):
    """A convolution with a stride, and one of which the maximum is pooled."""
    layers = [Layer((11, 12, 1)), Layer((6, 6, 5), "tanh"), Layer((3, 3, 17), "tanh"), Layer(10, "softmax")]
    connections = [Conv(0, 1, 3, 2, 1), Bias(1), Conv(1, 2, 3, 1, 1, "max", 2), Bias(2), Dense(2, 3), Bias(3)]
    return Network(layers, connections, "cross-entropy", plan, dtype, backend)


TOPOLOGIES = {
    "dense": lambda dtype, plan, backend: Network.dense(*SIZES, schedule=plan, dtype=dtype, backend=backend),
    "squared-error": lambda dtype, plan, backend: Network.dense(
        *SIZES, schedule=plan, dtype=dtype, backend=backend, cost="squared-error", neuron="sigmoid"
    ),
    "recurrent": lambda dtype, plan, backend: Network.recurrent(*SIZES, schedule=plan, dtype=dtype, backend=backend),
    "skip": skipping,
    "conv": convolving,
}


def phases(net, x, y):
    """Everything that the two phases say of each sample, (B, all features)."""
    free = free_phase(net, x)
    nudged = nudged_phase(net, free, y, beta=0.2)
    return np.hstack([*free.state[1:], *nudged.mean[1:], *nudged.difference[1:]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("backend", COMPILED)
def test_a_sample_settles_to_the_same_bits_whatever_its_batch_and_place(backend, dtype, topology, plan):
    net = TOPOLOGIES[topology](dtype, PLANS[plan], backend)
    whole = phases(net, X, Y)
    for size in BATCHES:
        np.testing.assert_array_equal(phases(net, X[:size], Y[:size]), whole[:size], f"first {size}")
        np.testing.assert_array_equal(phases(net, X[-size:], Y[-size:]), whole[-size:], f"last {size}")
    order = np.random.default_rng(1).permutation(65)
    np.testing.assert_array_equal(phases(net, X[order], Y[order]), whole[order], "shuffled")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", COMPILED)
def test_batchmates_do_not_leak(backend, dtype):
    """Sample 3 among others: wild, dead and different batchmates leave its bits alone."""
    net = TOPOLOGIES["dense"](dtype, PLANS["mean-difference"], backend)
    alone = phases(net, X[3:4], Y[3:4])
    for others in (np.zeros_like(X), 1e4 * X, X[::-1].copy()):
        others[3] = X[3]
        labels = (Y + 1) % 10
        labels[3] = Y[3]
        np.testing.assert_array_equal(phases(net, others, labels)[3:4], alone)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("topology", ["dense", "recurrent", "conv"])
@pytest.mark.parametrize("backend", COMPILED)
def test_reused_memory_leaves_no_trace_of_an_earlier_batch(backend, dtype, topology):
    net = TOPOLOGIES[topology](dtype, PLANS["mean-difference"], backend)
    fresh = phases(net, X[:7], Y[:7])
    nudged_phase(net, free_phase(net, 9 * X, reuse=True), Y, beta=0.9, reuse=True)
    free = free_phase(net, X[:7], reuse=True)
    states = [state.copy() for state in free.state[1:]]
    nudged = nudged_phase(net, free, Y[:7], beta=0.2, reuse=True)
    np.testing.assert_array_equal(np.hstack([*states, *nudged.mean[1:], *nudged.difference[1:]]), fresh)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize("neuron", ["tanh", "sigmoid"])
@pytest.mark.parametrize("backend", COMPILED)
def test_residual_and_steps_are_those_of_the_slowest_sample(backend, neuron, dtype, early_stop):
    """The spare lanes of a half-filled tile, and what an earlier batch left there, have no say.

    Spare samples of zeros would be the slowest by far, and so would spare neurons be where rho(0) is not 0.
    """
    steps = 40 if early_stop else 10  # few enough that a residual is left to compare
    plan = FULL.but(order="synchronous", free_steps=steps, gamma=0.5, tolerance=1e-3, early_stop=early_stop)
    net = Network.dense(*SIZES, schedule=plan, dtype=dtype, backend=backend, neuron=neuron, cost="squared-error")
    net.buffer *= net.dtype.type(0.25)  # a contraction: every sample settles, each in its time
    samples = 1 + 0.1 * X[:7]
    net.parameters[1] -= (net.parameters[0] @ samples.mean(axis=0)).astype(dtype)
    free_phase(net, 5 * X, reuse=True)
    several = free_phase(net, samples, reuse=True)
    alone = [free_phase(net, samples[i : i + 1]) for i in range(7)]
    assert several.steps == max(one.steps for one in alone)
    if not early_stop:
        assert several.residual == max(one.residual for one in alone) > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("topology", ["dense", "recurrent", "conv"])
@pytest.mark.parametrize("backend", COMPILED)
def test_states_and_updates_do_not_depend_on_the_number_of_threads(backend, dtype, topology, monkeypatch):
    x, y = np.tile(X, (6, 1)) * np.linspace(0.5, 1, 390)[:, None], np.tile(Y, 6)
    found = []
    for count in (1, 2, 3):
        eqkernel.set_threads(count)
        monkeypatch.setattr(threads, "_team", threads.Team())
        net = TOPOLOGIES[topology](dtype, PLANS["mean-difference"], backend)
        optimiser = Adam(1e-3, weight_decay=0.1)
        for _ in range(2):
            train_step(net, x, y, beta=0.2, optimiser=optimiser)
        gradient = np.concatenate([g.ravel() for g in ep_gradient(net, x, y)])
        found.append((phases(net, x, y), net.buffer.copy(), gradient))
        assert len(threads._team.workers) == count - 1, "the work must be large enough to be spread"
    for other in found[1:]:
        for ours, one_thread in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(ours, one_thread)


@pytest.mark.parametrize("backend", COMPILED)
def test_early_stop_is_what_makes_a_sample_depend_on_its_batchmates(backend):
    """The one documented exception: a tile stops when all its samples have settled, so the last bits may differ."""
    plan = FULL.but(free_steps=200, tolerance=1e-5, early_stop=True)
    net = Network.dense(*SIZES, schedule=plan, dtype="float64", backend=backend, neuron="tanh", cost="squared-error")
    easy, mixed = np.zeros((2, SIZES[0])), np.vstack([np.zeros((1, SIZES[0])), 3 * X[:1]])
    alone, together = free_phase(net, easy), free_phase(net, mixed)
    assert alone.steps < together.steps
    for a, b in zip(alone.state[1:], together.state[1:], strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=0, atol=1e-4)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(2, 9), min_size=1, max_size=3),
    neuron=st.sampled_from(["hard-sigmoid", "sigmoid", "tanh"]),
    recurrent=st.booleans(),
    backend=st.sampled_from([*HERE, "reference"]),
    seed=st.integers(0, 100),
)
def test_renaming_hidden_units_renames_states_and_gradients(sizes, neuron, recurrent, backend, seed):
    make = Network.recurrent if recurrent else Network.dense
    options = {"neuron": neuron, "schedule": FULL, "dtype": "float64", "backend": backend, "seed": seed}
    net, twin = make(5, *sizes, 3, **options), make(5, *sizes, 3, **options)
    rng = np.random.default_rng(seed)
    names = [np.arange(5), *(rng.permutation(size) for size in sizes), np.arange(3)]
    for parameter in net.parameters:
        parameter += 0.1 * rng.standard_normal() * (parameter.ndim == 1)  # biases
    renamed = lambda arrays: [  # noqa: E731
        a[names[c.post]] if c.pre is None else a[np.ix_(names[c.post], names[c.pre])]
        for c, a in zip(net.connections, arrays, strict=True)
    ]
    for ours, theirs in zip(twin.parameters, renamed(net.parameters), strict=True):
        ours[...] = theirs
    x, y = rng.random((4, 5)), rng.integers(0, 3, 4)
    for layer, (a, b) in enumerate(zip(free_phase(net, x).state, free_phase(twin, x).state, strict=True)):
        np.testing.assert_allclose(b, a[:, names[layer]], rtol=0, atol=1e-12)
    for a, b in zip(renamed(ep_gradient(net, x, y)), ep_gradient(twin, x, y), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-11)
