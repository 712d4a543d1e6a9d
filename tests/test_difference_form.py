"""The few-step schedule rests on carrying the difference of the nudged states: float32 then keeps the gradient.

With weak feedback the two nudged states differ in layer l by beta gamma^(top - l), which float32 cannot see in
their values. Networks are first trained for one epoch, on MNIST where $EQKERNEL_DATA holds it and else on
Gaussian clusters; the float32 estimate is held against the float64 implicit gradient of the same weights and
gamma.
"""

import functools
import os

import numpy as np
import pytest
from oracle import Oracle, flat

import eqkernel as eq
from eqkernel.data import batches, gaussian_clusters, load_mnist

NETS = [(784, 512, 10), (784, 512, 512, 10), (784, 256, 256, 256, 256, 10)]
COSTS = ("cross-entropy", "squared-error")
TRAINED, PROBED = 19_200, 256  # samples
FEW_STEP = eq.SCHEDULES["few-step"].but(tolerance=None)


@functools.cache
def data():
    try:
        x, y, _, _ = load_mnist(os.environ["EQKERNEL_DATA"])
    except (KeyError, eq.EqkernelError):
        return gaussian_clusters(TRAINED + PROBED, 784, 10, seed=0, noise=1.0)
    return x, y


@functools.cache
def trained(sizes, cost):
    """A float32 network after one epoch of the default schedule, and samples it has not seen."""
    x, y = data()
    net = eq.Network.dense(*sizes, cost=cost, schedule=FEW_STEP)
    adam = eq.Adam(1e-3)
    right = []
    for x_batch, y_batch in batches(x[:TRAINED], y[:TRAINED], 64, seed=0):
        right.append(eq.train_step(net, x_batch, y_batch, beta=0.1, optimiser=adam).accuracy)
    assert np.mean(right[-50:]) > 0.8, "the network did not learn"
    return net, x[-PROBED:], y[-PROBED:]


@functools.cache
def exact(sizes, cost, gamma):
    net, x, y = trained(sizes, cost)
    return Oracle.of(net, gamma=gamma).implicit_gradient(x, y, tolerance=1e-12)


def cosines(sizes, cost, beta, **changes):
    """Cosine of the whole gradient, and the lowest of any parameter block (0 for a block that vanished)."""
    net, x, y = trained(sizes, cost)
    schedule = FEW_STEP.but(**changes)
    estimate = eq.ep_gradient(net, x, y, beta, schedule=schedule)
    gradient = exact(sizes, cost, schedule.gamma)
    blocks = [cosine(g, e) for g, e in zip(estimate, gradient, strict=True)]
    return cosine(estimate, gradient), min(blocks)


def cosine(a, b):
    a, b = flat(a), flat(b)
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm else 0.0


def check_cosines(*arguments, **changes):
    overall, lowest = cosines(*arguments, **changes)
    assert overall > 0.999, f"overall {overall:.5f}, lowest block {lowest:.5f}"
    assert lowest > 0.99, f"overall {overall:.5f}, lowest block {lowest:.5f}"


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("sizes", NETS, ids=["1 hidden", "2 hidden", "4 hidden"])
def test_the_default_schedule_is_exact(sizes, cost):
    """What is left at beta = 0.1 is the bias of beta: units whose nudge crosses a corner of the hard sigmoid."""
    check_cosines(sizes, cost, 0.1)
    whole, _ = cosines(sizes, cost, 0.01)
    assert whole > 0.9995


@pytest.mark.parametrize(("cost", "beta"), [("squared-error", 1e-2), ("cross-entropy", 1e-5)])
@pytest.mark.parametrize("form", ["difference", "mean-difference"])
def test_float32_keeps_the_gradient_at_weak_feedback(form, cost, beta):
    """gamma = 1e-3, two hidden layers. A readout nudges one layer further down: 1/gamma more signal."""
    check_cosines(NETS[1], cost, beta, gamma=1e-3, form=form)
    check_cosines(NETS[1], cost, 0.1, gamma=1e-3, form=form)


@pytest.mark.parametrize(("cost", "beta"), [("squared-error", 1e-2), ("cross-entropy", 1e-5)])
def test_the_two_states_lose_it(cost, beta):
    overall, lowest = cosines(NETS[1], cost, beta, gamma=1e-3, form="plus-minus")
    assert overall < 0.9 and lowest < 0.5, f"overall {overall:.5f}, lowest block {lowest:.5f}"


@pytest.mark.parametrize("cost", COSTS)
def test_the_single_sweep_is_exact_too(cost):
    overall, _ = cosines(NETS[1], cost, 0.01, gamma=1e-3, free_steps=1, nudged_steps=1)
    assert overall > 0.999
