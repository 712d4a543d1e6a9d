"""The training loop is train_step over shuffled batches and nothing more; its records are true."""

import numpy as np
import pytest

from eqkernel import SCHEDULES, SGD, EqkernelError, Network, Outcome, free_phase, predict, train_step
from eqkernel.data import batches, gaussian_clusters
from eqkernel.training import SEEDS_APART, fit, residual_curves

FIXED = SCHEDULES["few-step"].but(tolerance=None)  # nothing is judged, so nothing warns


def network(schedule=FIXED, **options):
    return Network.dense(6, 8, 5, 3, schedule=schedule, dtype="float64", backend="reference", **options)


@pytest.fixture
def problem():
    return gaussian_clusters(50, 6, 3, seed=0)


@pytest.mark.parametrize("variant", ["centered", "positive"])
def test_fit_is_train_step_over_shuffled_batches(problem, variant):
    x, y = problem
    ours, theirs = network(), network()
    seen = []
    options = {"beta": 0.1, "variant": variant}
    history = fit(ours, x, y, epochs=2, batch=16, optimiser=SGD(0.3), seed=7, callback=seen.append, **options)
    optimiser = SGD(0.3)
    for number, epoch in enumerate(history, 1):
        steps = []
        for xb, yb in batches(x, y, 16, 7 * SEEDS_APART + number):
            steps.append((len(xb), train_step(theirs, xb, yb, optimiser=optimiser, **options)))
        sizes = [size for size, _ in steps]
        assert sizes == [16, 16, 16, 2]
        assert epoch.number == number and epoch.batches == 4
        assert epoch.loss == pytest.approx(np.average([step.loss for _, step in steps], weights=sizes))
        right = sum(size * step.accuracy for size, step in steps)
        assert epoch.accuracy == pytest.approx(right / 50)
        assert epoch.residual == max(step.residual for _, step in steps)
        assert (epoch.free_steps, epoch.nudged_steps) == (FIXED.free_steps, FIXED.nudged_steps)
        assert epoch.samples_per_second > 0 and epoch.held_out is None
    np.testing.assert_array_equal(ours.buffer, theirs.buffer)
    assert [epoch.batches for epoch in seen] == [1, 2, 3, 4, 1, 2, 3, 4]


def test_held_out_accuracy_is_that_of_the_weights_after_the_epoch(problem):
    x, y = problem
    net, seen = network(), []
    held = x[40:], y[40:]
    history = fit(net, x[:40], y[:40], epochs=3, optimiser=SGD(1.0), held_out=held, callback=seen.append)
    assert history[-1].held_out == (predict(net, x[40:]) == y[40:]).mean()
    assert [epoch.held_out is not None for epoch in seen] == [False, True] * 3


def test_unsettled_batches_are_counted(problem):
    x, y = problem
    for tolerance, unsettled in ((1e-300, 4), (1e300, 0)):
        net = network()
        net.schedule = net.schedule.but(tolerance=tolerance)
        net.warned = True
        (epoch,) = fit(net, x, y, epochs=1, batch=16, optimiser=SGD(0.1))
        assert epoch.unsettled == unsettled


def test_residual_curves_are_the_residuals_of_settles_of_each_length(problem):
    x, y = problem
    net = network(schedule="converged", neuron="tanh")
    free, nudged = residual_curves(net, x, y, beta=0.1)
    assert len(free) == len(nudged) == 30
    for steps in (1, 5):
        settled = free_phase(net, x, net.schedule.but(free_steps=steps, tolerance=None))
        assert settled.outcome is Outcome.FIXED_STEPS
        assert free[steps - 1] == settled.residual
    assert free[-1] < 1e-3 * free[0] and nudged[-1] < 1e-3 * nudged[0]


def test_no_epochs_are_refused(problem):
    with pytest.raises(EqkernelError, match="epochs is 0"):
        fit(network(), *problem, epochs=0, optimiser=SGD(0.1))
