"""Networks: parameters in one buffer, topologies, copies."""

import copy
import pickle

import numpy as np
import pytest
from compiled import BACKENDS

from eqkernel import (
    SCHEDULES,
    SGD,
    Adam,
    Bias,
    Dense,
    EqkernelError,
    Lateral,
    Layer,
    Momentum,
    Network,
    Schedule,
    cosine,
    free_phase,
    predict,
    train_step,
)

RNG = np.random.default_rng(0)
X, Y = RNG.random((7, 6)), RNG.integers(0, 3, 7)
PLAN = Schedule("mine", gamma=0.25, free_steps=7, nudged_steps=3, order="even-odd", form="plus-minus", tolerance=None)


def skipping(dtype):
    layers = [Layer(6), Layer(8, "tanh"), Layer(7, "sigmoid"), Layer(3, "linear")]
    connections = [Dense(0, 1), Bias(1), Dense(1, 2), Dense(0, 2), Lateral(2, 0.7), Dense(2, 3), Dense(1, 3), Bias(3)]
    return Network(layers, connections, "squared-error", PLAN, dtype, seed=4)


TOPOLOGIES = {
    "dense": lambda dtype: Network.dense(6, 8, 7, 3, schedule=PLAN, dtype=dtype, seed=2),
    "recurrent": lambda dtype: Network.recurrent(6, 8, 7, 3, schedule=PLAN, dtype=dtype, bound=0.8, seed=3),
    "squared-error": lambda dtype: Network.dense(
        6, 8, 3, cost="squared-error", output="sigmoid", neuron="tanh", schedule=PLAN, dtype=dtype
    ),
    "skip": skipping,
}


# -- construction ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_are_views_of_one_buffer(topology, dtype):
    net = TOPOLOGIES[topology](dtype)
    assert net.buffer.dtype == dtype and net.buffer.ndim == 1
    marks = np.zeros(net.buffer.size, int)
    for at, connection, parameter in zip(net.offsets, net.connections, net.parameters, strict=True):
        assert parameter.shape == connection.shape(net.shapes) and parameter.flags.c_contiguous
        assert np.shares_memory(parameter, net.buffer)
        assert (parameter.ctypes.data - net.buffer.ctypes.data) == at * net.buffer.itemsize
        marks[at : at + parameter.size] += 1
    assert marks.max() == 1, "parameters overlap"
    assert not net.buffer[marks == 0].any()
    net.buffer[...] = 0.25
    assert all((parameter == 0.25).all() for parameter in net.parameters)


def test_dense_is_layers_joined_by_weights_and_biases():
    net = Network.dense(6, 8, 7, 3)
    assert [c.name for c in net.connections] == ["dense.0-1", "bias.1", "dense.1-2", "bias.2", "dense.2-3", "bias.3"]
    assert [layer.neuron for layer in net.layers[1:]] == ["hard-sigmoid", "hard-sigmoid", "softmax"]
    assert [p.shape for p in net.parameters] == [(8, 6), (8,), (7, 8), (7,), (3, 7), (3,)]
    assert net.sizes == [6, 8, 7, 3] and net.top == 2 and net.has_readout
    assert net.schedule.name == "few-step" and net.dtype == "float32" and net.gamma == net.schedule.gamma


def test_squared_error_keeps_the_last_layer_in_the_dynamics():
    net = Network.dense(6, 8, 3, cost="squared-error")
    assert net.top == 2 and not net.has_readout and net.layers[-1].neuron == "linear"
    assert Network.dense(6, 3, cost="squared-error").top == 1


def test_recurrent_gives_every_hidden_layer_a_bounded_lateral_connection():
    net = Network.recurrent(6, 8, 7, 3, bound=0.6)
    laterals = [c for c in net.connections if c.stem == "lateral"]
    assert [c.post for c in laterals] == [1, 2] and {c.bound for c in laterals} == {0.6}
    assert net.schedule.name == "converged" and net.layers[1].neuron == "tanh"
    for connection, weight in zip(net.connections, net.parameters, strict=True):
        if connection.stem == "lateral":
            np.testing.assert_array_equal(weight, weight.T)
            assert 0 < np.linalg.norm(weight, 2) <= 0.6


def test_initial_weights_are_glorot_uniform_and_follow_the_seed():
    net = Network.dense(300, 200, 10)
    limit = np.sqrt(6 / 500)
    weight = net.parameters[0]
    assert abs(weight).max() <= limit and abs(weight).max() > 0.99 * limit
    np.testing.assert_allclose(weight.std(), limit / np.sqrt(3), rtol=0.02)
    assert not net.parameters[1].any()
    np.testing.assert_array_equal(net.buffer, Network.dense(300, 200, 10, seed=0).buffer)
    assert (net.buffer != Network.dense(300, 200, 10, seed=1).buffer).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_skip_and_lateral_connections_drive_as_their_energy_says(backend):
    """A topology beyond layers: the settled state solves its equations, and it learns."""
    plan = PLAN.but(free_steps=300, tolerance=1e-10, gamma=0.25)
    net = Network(
        [Layer(6), Layer(8, "tanh"), Layer(7, "sigmoid"), Layer(3, "linear")],
        [Dense(0, 1), Dense(1, 2), Dense(0, 2), Lateral(2, 0.7), Dense(2, 3), Dense(1, 3)],
        "squared-error", plan, "float64", backend,
    )  # fmt: skip
    w01, w12, w02, lateral, w23, w13 = net.parameters
    s0, s1, s2, s3 = free_phase(net, X).state
    g = 0.25
    np.testing.assert_allclose(s1, np.tanh(s0 @ w01.T + g * s2 @ w12 + g**2 * s3 @ w13), atol=1e-9)
    drive = s1 @ w12.T + s0 @ w02.T + s2 @ lateral.T + g * s3 @ w23
    np.testing.assert_allclose(s2, 1 / (1 + np.exp(-drive)), atol=1e-9)
    np.testing.assert_allclose(s3, s2 @ w23.T + s1 @ w13.T, atol=1e-9)


def test_repr_says_what_the_network_is():
    assert repr(Network.dense(6, 8, 3, backend="cpu")) == "Network(6-8-3, 83 parameters, cross-entropy, few-step, cpu)"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_parameter_begins_a_line_of_the_cache(dtype):
    for net in (Network.dense(5, 7, 3, dtype=dtype), Network.recurrent(9, 5, 2, dtype=dtype)):
        assert [w.ctypes.data % 64 for w in net.parameters] == [0] * len(net.parameters)


# -- what may be set -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_to_set_a_parameter_is_to_write_its_numbers(backend):
    net = Network.dense(6, 8, 3, schedule=PLAN, dtype="float64", backend=backend)
    other = Network.dense(6, 8, 3, schedule=PLAN, dtype="float64", backend=backend, seed=1)
    weight, bias = RNG.standard_normal((8, 6)), net.parameters[1]
    net.parameters[0], net.parameters[1], net.parameters[2] = weight, 0.5, other.parameters[2]
    net.parameters[1] *= 2
    assert net.parameters[1] is bias and (bias == 1).all()
    np.testing.assert_array_equal(net.buffer[: weight.size], weight.ravel())
    other.parameters[0][...], other.parameters[1][...] = weight, 1
    np.testing.assert_array_equal(predict(net, X, output=True), predict(other, X, output=True))
    for wrong, kind in (("a", "<U1"), (weight + 0j, "complex128")):
        with pytest.raises(EqkernelError, match=f"parameter 0 must be real numbers, not of type {kind}"):
            net.parameters[0] = wrong
    for wrong in (weight.T, weight[0], [1, 2]):
        with pytest.raises(EqkernelError, match=r"parameter 0 has shape \(8, 6\), not"):
            net.parameters[0] = wrong
    np.testing.assert_array_equal(net.parameters[0], weight)


def test_the_schedule_may_be_set_by_its_name_and_what_is_built_on_may_not():
    net = Network.dense(6, 8, 3)
    net.schedule = "converged"
    assert net.schedule is SCHEDULES["converged"] and free_phase(net, X).schedule is SCHEDULES["converged"]
    with pytest.raises(EqkernelError, match="did you mean 'converged'"):
        net.schedule = "converge"
    assert net.schedule is SCHEDULES["converged"]
    other = Network.dense(6, 8, 3, cost="squared-error", dtype="float64", backend="reference")
    for name in ("layers", "connections", "cost", "dtype", "backend", "buffer", "parameters"):
        before = getattr(net, name)
        with pytest.raises(AttributeError, match=f"the {name} of a network cannot be set: make another"):
            setattr(net, name, getattr(other, name))
        assert getattr(net, name) is before
    before = net.buffer.copy()
    net.buffer *= 2
    np.testing.assert_array_equal(net.parameters[0].ravel(), 2 * before[:48])


# -- copies ----------------------------------------------------------------------------------------------------------

COPIES = {"deepcopy": copy.deepcopy, "copy": copy.copy, "pickle": lambda it: pickle.loads(pickle.dumps(it))}


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_predicts_the_same_bits_and_trains_on(topology, how):
    net = TOPOLOGIES[topology]("float32")
    train_step(net, X, Y, lr=0.05)
    net.schedule = net.schedule.but(free_steps=9)
    net.warned = True
    twin, before = COPIES[how](net), net.buffer.copy()
    assert twin.layers == net.layers and twin.connections == net.connections and twin.schedule == net.schedule
    assert (twin.backend, twin.dtype, twin.seed, twin.warned) == (net.backend, net.dtype, net.seed, True)
    assert not np.shares_memory(twin.buffer, net.buffer) and np.shares_memory(twin.parameters[0], twin.buffer)
    np.testing.assert_array_equal(predict(twin, X, output=True), predict(net, X, output=True))
    for _ in range(3):
        train_step(twin, X, Y, lr=0.05)
    np.testing.assert_array_equal(net.buffer, before)
    for _ in range(3):
        train_step(net, X, Y, lr=0.05)
    np.testing.assert_array_equal(twin.buffer, net.buffer)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "make", [lambda: SGD(0.1, schedule=cosine(20, 3)), lambda: Momentum(0.1), lambda: Adam(0.01)],
    ids=["sgd", "momentum", "adam"],
)  # fmt: skip
def test_a_network_and_its_optimiser_go_on_together(how, backend, make):
    pair = Network.dense(6, 8, 3, schedule=PLAN, dtype="float64", backend=backend), make()
    for _ in range(2):
        train_step(pair[0], X, Y, optimiser=pair[1])
    twins = COPIES[how](pair)
    if twins[1].moments:
        other = Network.dense(6, 80, 3, schedule=PLAN, dtype="float64", backend=backend)
        with pytest.raises(EqkernelError, match="holds the moments of another network"):
            train_step(other, X, Y, optimiser=twins[1])
    for net, optimiser in (pair, twins):
        for _ in range(2):
            train_step(net, X, Y, optimiser=optimiser)
        assert optimiser.steps == 4
    np.testing.assert_array_equal(pair[0].buffer, twins[0].buffer)
    for mine, other in zip(pair[1].state, twins[1].state, strict=True):
        assert not np.shares_memory(mine, other)
    if twins[1].moments:
        with pytest.raises(EqkernelError, match="holds the moments of another network"):
            train_step(pair[0], X, Y, optimiser=twins[1])


# -- natural mistakes ------------------------------------------------------------------------------------------------

OF = [Layer(6), Layer(8), Layer(3, "linear")]
MISTAKES = {
    "sizes for layers": (lambda: Network([6, 8, 3], [Dense(0, 1), Dense(1, 2)]), "layers must be a list of Layers"),
    "one size": (lambda: Network(6, 8), "layers must be a list of Layers, not of 6: Network.dense takes sizes"),
    "a class": (lambda: Network(OF, [Dense, Bias(1)]), "connections must be a list of Connections, not of <class"),
    "one connection": (lambda: Network(OF, Dense(0, 1), "squared-error"), "layer 2 has no connection"),
    "text": (lambda: Network(OF, [Dense("0", "1")], "squared-error"), r"Dense\(pre='0', post='1'\) must name layers"),
    "None": (lambda: Network(OF, [Bias(None)], "squared-error"), r"Bias\(post=None\) must name layers"),
    "half": (lambda: Network(OF, [Dense(0, 0.5)], "squared-error"), "must name layers by their numbers, 0..2"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_natural_mistakes_give_one_clear_error(case):
    call, message = MISTAKES[case]
    with pytest.raises(EqkernelError, match=message):
        call()
