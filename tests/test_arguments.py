"""Arguments that cannot be: numbers, names and topologies, one clear error each, and a network that is as it was."""

import numpy as np
import pytest
from compiled import BACKENDS
from test_errors import INF, NAN, X, Y, network

import eqkernel
from eqkernel import (
    SGD,
    Adam,
    BackendError,
    Bias,
    Dense,
    EqkernelError,
    Lateral,
    Layer,
    Momentum,
    Network,
    Reward,
    Schedule,
    cosine,
    predict,
    train_step,
)

# -- numbers and names -----------------------------------------------------------------------------------------------

TRAIN = {
    "beta 0": ({"beta": 0, "lr": 0.1}, "beta must be a positive number, not 0"),
    "beta negative": ({"beta": -0.1, "lr": 0.1}, "beta must be a positive number"),
    "beta NaN": ({"beta": NAN, "lr": 0.1}, "beta must be a positive number"),
    "beta infinite": ({"beta": INF, "lr": 0.1}, "beta must be a positive number"),
    "beta text": ({"beta": "0.1", "lr": 0.1}, "beta must be a positive number"),
    "beta None": ({"beta": None, "lr": 0.1}, "beta must be a positive number"),
    "no lr": ({}, "either lr .* or an optimiser"),
    "lr and optimiser": ({"lr": 0.1, "optimiser": SGD(0.1)}, "either lr .* or an optimiser"),
    "lr 0": ({"lr": 0}, "lr must be a positive number, not 0"),
    "lr negative": ({"lr": -0.1}, "lr must be a positive number"),
    "lr NaN": ({"lr": NAN}, "lr must be a positive number"),
    "lr infinite": ({"lr": INF}, "lr must be a positive number"),
    "lr text": ({"lr": "0.1"}, "lr must be a positive number"),
    "optimiser by name": ({"optimiser": "adam"}, "optimiser"),
    "optimiser class": ({"optimiser": Adam}, "optimiser"),
    "variant": ({"lr": 0.1, "variant": "centred"}, "unknown variant 'centred': did you mean 'centered'"),
    "variant None": ({"lr": 0.1, "variant": None}, "unknown variant None: choose one of 'centered'"),
    "schedule": ({"lr": 0.1, "schedule": "few-steps"}, "unknown schedule 'few-steps': did you mean 'few-step'"),
    "schedule number": ({"lr": 0.1, "schedule": 3}, "unknown schedule 3"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", TRAIN)
def test_bad_training_options(backend, case):
    options, message = TRAIN[case]
    net = network(backend)
    before = net.buffer.copy()
    with pytest.raises(EqkernelError, match=message):
        train_step(net, X, Y, **options)
    np.testing.assert_array_equal(net.buffer, before)
    train_step(net, X, Y, lr=0.1)  # and the network still learns
    assert (net.buffer != before).any()


ELSEWHERE = {
    "free_steps 0": (lambda: Schedule(free_steps=0), "free_steps must be a whole number of at least 1, not 0"),
    "free_steps negative": (lambda: Schedule(free_steps=-3), "free_steps"),
    "nudged_steps negative": (lambda: Schedule(nudged_steps=-1), "nudged_steps"),
    "steps without end": (lambda: Schedule(free_steps=10**20), "free_steps is 10{20}: give at most 1,000,000"),
    "gamma without end": (lambda: Schedule(gamma=10**310), r"gamma must lie in \(0, 1\]"),
    "early stop text": (lambda: Schedule(early_stop="no"), "early_stop must be True or False, not 'no'"),
    "name": (lambda: Schedule(name=3), "the name of a schedule must be a string, not 3"),
    "steps fractional": (lambda: Schedule(free_steps=2.5), "free_steps must be a whole number"),
    "steps bool": (lambda: Schedule(free_steps=True), "free_steps must be a whole number"),
    "gamma 0": (lambda: Schedule(gamma=0), r"gamma must lie in \(0, 1\]"),
    "gamma above 1": (lambda: Schedule(gamma=1.1), "gamma"),
    "gamma NaN": (lambda: Schedule(gamma=NAN), "gamma"),
    "gamma text": (lambda: Schedule(gamma="1"), "gamma"),
    "step 0": (lambda: Schedule(step=0), "step must lie in"),
    "step above 1": (lambda: Schedule(step=1.5), r"step must lie in \(0, 1\], in even-odd order in \(0, 2\), not 1.5"),
    "step 2": (lambda: Schedule(step=2.0, order="even-odd"), "step must lie in"),
    "step NaN": (lambda: Schedule(step=NAN, order="even-odd"), "step must lie in"),
    "tolerance 0": (lambda: Schedule(tolerance=0), "tolerance must be positive or None"),
    "tolerance NaN": (lambda: Schedule(tolerance=NAN), "tolerance"),
    "early stop of what": (lambda: Schedule(tolerance=None, early_stop=True), "early_stop needs a tolerance"),
    "live difference": (lambda: Schedule(nudge="live"), 'needs form="plus-minus"'),
    "order": (lambda: Schedule(order="evenodd"), "unknown order 'evenodd': did you mean 'even-odd'"),
    "form": (lambda: Schedule(form="differences"), "unknown form 'differences': did you mean 'difference'"),
    "nudge": (lambda: Schedule(nudge="frosen"), "unknown nudge 'frosen': did you mean 'frozen'"),
    "field": (lambda: Schedule().but(free_step=3), "a schedule has no free_step; it has name, gamma, free_steps"),
    "neuron": (lambda: Network.dense(2, 3, 2, neuron="tan"), "unknown neuron 'tan': did you mean 'tanh'"),
    "output": (lambda: Network.dense(2, 3, 2, output="soft-max"), "did you mean 'softmax'"),
    "cost": (lambda: Network.dense(2, 3, 2, cost="cross_entropy"), "unknown cost .* did you mean 'cross-entropy'"),
    "network schedule": (lambda: Network.dense(2, 3, 2, schedule="converge"), "did you mean 'converged'"),
    "dtype": (lambda: Network.dense(2, 3, 2, dtype="float16"), "dtype must be 'float32' or 'float64'"),
    "backend": (lambda: Network.dense(2, 3, 2, backend="cpus"), "unknown backend 'cpus': did you mean 'cpu'"),
    "reference in float32": (
        lambda: Network.dense(2, 3, 2, backend="reference"),
        "'reference' has no float32, only float64: choose dtype='float64'",
    ),
    "threads 0": (lambda: eqkernel.set_threads(0), "threads must be a whole number from 1 to 1024, not 0"),
    "too many threads": (lambda: eqkernel.set_threads(1025), "threads must be a whole number from 1 to 1024, not 1025"),
    "threads negative": (lambda: eqkernel.set_threads(-2), "threads"),
    "threads fractional": (lambda: eqkernel.set_threads(1.5), "threads"),
    "threads bool": (lambda: eqkernel.set_threads(True), "threads"),
    "no layers": (lambda: Network.dense(), "an input and an output layer"),
    "one layer": (lambda: Network.dense(4, cost="squared-error"), "an input and an output layer"),
    "no hidden layer": (lambda: Network.dense(4, 3), "at least one hidden layer"),
    "size 0": (lambda: Network.dense(4, 0, 3), "a layer needs a whole number of neurons"),
    "size negative": (lambda: Layer(-3), "at least 1, not -3"),
    "size fractional": (lambda: Layer(2.5), "whole number of neurons"),
    "size bool": (lambda: Layer(True), "whole number of neurons"),
    "seed": (lambda: Network.dense(4, 5, 3, seed=-1), "seed"),
    "seed text": (lambda: Network.dense(4, 5, 3, seed="a"), "seed"),
    "bound 0": (lambda: Lateral(1, 0), "spectral bound .* must be positive"),
    "bound NaN": (lambda: Lateral(1, NAN), "spectral bound"),
    "bound infinite": (lambda: Lateral(1, INF), "spectral bound"),
    "momentum 1": (lambda: Momentum(0.1, momentum=1.0), r"momentum must lie in \[0, 1\)"),
    "momentum negative": (lambda: Momentum(0.1, momentum=-0.1), "momentum"),
    "betas": (lambda: Adam(betas=(0.9, 1.0)), r"betas must lie in \[0, 1\)"),
    "eps": (lambda: Adam(eps=0), "eps must be positive"),
    "weight decay": (lambda: SGD(0.1, weight_decay=-1), "weight_decay must be a number of at least 0"),
    "weight decay NaN": (lambda: SGD(0.1, weight_decay=NAN), "weight_decay"),
    "cosine 0": (lambda: cosine(0), "cosine needs at least one step"),
    "lr without end": (lambda: SGD(10**310), "lr must be a positive number"),
    "weight decay too large": (lambda: SGD(0.1, weight_decay=1e60), "weight_decay must be a number of at least 0"),
    "eps that is 0 in float32": (
        lambda: train_step(Network.dense(6, 8, 3), X, Y, optimiser=Adam(eps=1e-50)),
        "eps=1e-50 leaves float32: choose a usual one, as lr=0.01, eps=1e-8",
    ),
    "a schedule that explodes": (
        lambda: train_step(network(), X, Y, optimiser=SGD(0.1, schedule=lambda step: 1e60)),
        "schedule gives 1e\\+60 for step 0: a learning rate of 1e\\+59",
    ),
    "size without end": (lambda: Network.dense(3, 10**310, 2), "a layer has at most 2,147,483,647 neurons"),
    "parameters at once": (lambda: network().parameters.__setitem__(slice(0, 2), 0), "parameters are set one by one"),
    "a parameter too large": (
        lambda: Network.dense(6, 8, 3).parameters.__setitem__(0, 1e300),
        "parameter 0: a number is too large for float32",
    ),
    "masked x": (lambda: predict(network(), np.ma.array(X)), "x is a masked array, whose mask would be lost"),
    "masked labels": (lambda: train_step(network(), X, np.ma.array(Y), lr=0.1), "y is a masked array"),
    "reward that is no function": (lambda: Reward("r", 3, abs), "factor and loss of reward 'r' must be functions"),
    "reward of the batch": (
        lambda: train_step(network(), X, Y, lr=0.1, reward=Reward("r", np.mean, abs)),
        r"reward 'r' must give \(5,\) numbers .*, not float64 of shape \(\)",
    ),
    "reward NaN": (
        lambda: train_step(network(), X, Y, lr=0.1, reward=Reward("r", lambda C: C * NAN, abs)),
        "what reward 'r' gives holds a NaN",
    ),
    "predict size 0": (lambda: predict(network(), X, size=0), "size"),
    "predict size negative": (lambda: predict(network(), X, size=-1), "size"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_one_clear_error(case):
    call, message = ELSEWHERE[case]
    with pytest.raises(EqkernelError, match=message) as caught:
        call()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble])
def test_numbers_of_numpy_are_stored_as_pythons_own(kind):
    """They would be computed with in their own precision, and written into files by their names."""
    plan = Schedule(gamma=kind(0.5), step=kind(0.25), tolerance=kind(0.5), free_steps=np.int8(3), early_stop=np.True_)
    adam, momentum = Adam(kind(0.5), (kind(0.5), kind(0.75)), kind(0.25), kind(0.125)), Momentum(0.1, kind(0.5))
    numbers = [
        plan.gamma, plan.step, plan.tolerance, adam.lr, *adam.betas, adam.eps, adam.weight_decay, momentum.momentum,
        Layer(3, adaptation=kind(0.5)).adaptation, Layer(3, tau=kind(2)).tau, Lateral(1, kind(0.5)).bound,
    ]  # fmt: skip
    assert {type(number) for number in numbers} == {float}
    assert (type(plan.free_steps), type(plan.early_stop)) == (int, bool)
    assert repr(plan) == repr(Schedule(gamma=0.5, step=0.25, tolerance=0.5, early_stop=True))


def test_errors_are_value_errors():
    assert issubclass(EqkernelError, ValueError)
    assert issubclass(BackendError, EqkernelError) and issubclass(eqkernel.DivergenceError, EqkernelError)


# -- topology --------------------------------------------------------------------------------------------------------

IN, HIDDEN, OUT, SOFTMAX = Layer(6), Layer(8), Layer(3, "linear"), Layer(3, "softmax")
CHAIN = [Dense(0, 1), Dense(1, 2)]
TOPOLOGY = {
    "layer left undriven": ([IN, HIDDEN, HIDDEN, OUT], [Dense(0, 1), Dense(1, 3)], "layer 2 has no connection"),
    "bias is no drive": ([IN, HIDDEN, OUT], [Dense(0, 1), Bias(2)], "layer 2 has no connection from a layer below"),
    "from no layer": ([IN, HIDDEN, OUT], [*CHAIN, Dense(None, 1)], "must name layers by their numbers, 0..2"),
    "a layer's number true": ([IN, HIDDEN, OUT], [*CHAIN, Bias(True)], "must name layers by their numbers, 0..2"),
    "downwards": ([IN, HIDDEN, OUT], [*CHAIN, Dense(2, 1)], "dense.2-1 must run from a layer in 0..2 to one above"),
    "out of range": ([IN, HIDDEN, OUT], [*CHAIN, Dense(1, 3)], "dense.1-3 must run"),
    "negative": ([IN, HIDDEN, OUT], [*CHAIN, Dense(-1, 1)], "must run from a layer in 0..2"),
    "into the input": ([IN, HIDDEN, OUT], [*CHAIN, Bias(0)], "bias.0 must run"),
    "within the input": ([IN, HIDDEN, OUT], [*CHAIN, Lateral(0)], "lateral.0 must run"),
    "dense within a layer": ([IN, HIDDEN, OUT], [*CHAIN, Dense(1, 1)], r"use Lateral\(1\)"),
    "twice": ([IN, HIDDEN, OUT], [*CHAIN, Dense(0, 1)], "dense.0-1 is given twice"),
    "softmax inside": ([IN, SOFTMAX, OUT], CHAIN, "layer 1 has neuron 'softmax'"),
    "softmax with squared error": ([IN, HIDDEN, SOFTMAX], CHAIN, "layer 2 has neuron 'softmax'"),
}
READOUT = {
    "not softmax": ([IN, HIDDEN, OUT], CHAIN, "layer 2 has neuron 'linear'"),
    "lateral readout": ([IN, HIDDEN, SOFTMAX], [*CHAIN, Lateral(2)], "lateral.2: a softmax readout reads the layer"),
    "skip into the readout": (
        [IN, HIDDEN, HIDDEN, SOFTMAX],
        [*CHAIN, Dense(2, 3), Dense(1, 3)],
        "dense.1-3: a softmax readout reads the layer below it only",
    ),
    "input into the readout": (
        [IN, HIDDEN, SOFTMAX],
        [*CHAIN, Dense(0, 2)],
        "dense.0-2: a softmax readout reads the layer below it only",
    ),
}


@pytest.mark.parametrize("case", [*TOPOLOGY, *READOUT])
def test_topologies_without_equilibrium_propagation_are_refused(case):
    layers, connections, message = TOPOLOGY.get(case) or READOUT[case]
    cost = "squared-error" if case in TOPOLOGY else "cross-entropy"
    with pytest.raises(EqkernelError, match=message):
        Network(layers, connections, cost, dtype="float64")
