"""Networks: parameters in one buffer, topologies."""

import numpy as np
import pytest
from compiled import BACKENDS

from eqkernel import (
    Bias,
    Dense,
    Lateral,
    Layer,
    Network,
    Schedule,
    free_phase,
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
