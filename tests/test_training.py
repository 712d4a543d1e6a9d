"""The training loop is train_step over shuffled batches and nothing more; its records are true."""

from types import SimpleNamespace

import numpy as np
import pytest
from compiled import BACKENDS

from eqkernel import (
    SCHEDULES,
    SGD,
    Adjustment,
    EqkernelError,
    Network,
    Outcome,
    free_phase,
    models,
    nudged_phase,
    predict,
    train_step,
    training,
)
from eqkernel.data import batches, gaussian_clusters
from eqkernel.fields import FitzHughNagumo
from eqkernel.training import SEEDS_APART, accuracy, fit, residual_curves

FIXED = SCHEDULES["few-step"].but(tolerance=None)  # nothing is judged, so nothing warns


def network(schedule=FIXED, backend="reference", **options):
    return Network.dense(6, 8, 5, 3, schedule=schedule, dtype="float64", backend=backend, **options)


@pytest.fixture
def problem():
    return gaussian_clusters(50, 6, 3, seed=0)


@pytest.mark.parametrize(
    "asked",
    [{"variant": "centered"}, {"variant": "positive"}, {"reward": "surprise"}, {"adjustment": Adjustment()}],
    ids=str,
)
def test_fit_is_train_step_over_shuffled_batches(problem, asked):
    x, y = problem
    ours, theirs = network(), network()
    seen = []
    options = {"beta": 0.1, **asked}
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
    plan = net.schedule.but(tolerance=None)
    one = nudged_phase(net, free_phase(net, x, plan), y, 0.1, schedule=plan.but(nudged_steps=2))
    assert nudged[1] == one.residual


@pytest.mark.parametrize(
    ("schedule", "length"),
    [(FIXED, 10), (FIXED.but(nudged_steps=12), 12), (SCHEDULES["converged"].but(early_stop=True), 30)],
    ids=["at least ten", "of the longer phase", "without a stop"],
)
def test_residual_curves_are_as_long_as_training_settles(problem, schedule, length):
    assert [len(curve) for curve in residual_curves(network(schedule), *problem, beta=0.1)] == [length, length]


def test_the_speed_is_that_of_all_steps_of_the_epoch(problem, monkeypatch):
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=iter(range(100)).__next__))
    (epoch,) = fit(network(), *problem, epochs=1, batch=16, optimiser=SGD(0.1))
    assert epoch.samples_per_second == 50 / 4  # a tick for each of the four steps


def test_no_epochs_are_refused(problem):
    for epochs in (0, 1.5, None):
        with pytest.raises(EqkernelError, match=f"epochs is {epochs}: it must be a whole number"):
            fit(network(), *problem, epochs=epochs, optimiser=SGD(0.1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_has_no_labels_is_refused_before_anything_is_learned(problem, backend):
    x, y = problem
    net, optimiser = network(backend=backend), SGD(0.1)
    before = net.buffer.copy()
    for data, options in (
        ((x[:0], y[:0]), {}),
        ((x, np.eye(3)[y]), {}),
        ((x, y), {"held_out": (x, np.eye(3)[y])}),
        ((x, y), {"held_out": (x[:0], y[:0])}),
    ):
        with pytest.raises(EqkernelError, match=r"labels are \(n,\), at least one, not y of shape"):
            fit(net, *data, epochs=1, optimiser=optimiser, **options)
    spoilt = x.copy()
    spoilt[-1] = np.nan
    for held_out, message in (
        ((x, y[:1]), "they must be as many"),
        ((x[:, :-1], y), "x has shape"),
        ((spoilt, y), "x holds a NaN"),
        ((x, y + 100), "labels run from"),
        ((x, y.astype(str)), "labels have type"),
        ((x, y[:, None]), r"labels are \(n,\)"),
        (x, r"held_out must be a pair \(x, y\), not ndarray"),
        (5, r"held_out must be a pair \(x, y\), not int"),
    ):
        with pytest.raises(EqkernelError, match=message):
            fit(net, x, y, epochs=1, optimiser=optimiser, held_out=held_out)
    for data, message in (
        ((spoilt, y), "x holds a NaN"),
        ((x[:, :-1], y), "x has shape"),
        ((x, np.where(np.arange(len(y)) == len(y) - 1, 7, y)), "labels run from 0 to 7"),
    ):
        with pytest.raises(EqkernelError, match=message):
            fit(net, *data, epochs=1, batch=1, optimiser=optimiser)
    with pytest.raises(EqkernelError, match="callback must be a function of an Epoch, not 'x'"):
        fit(net, x, y, epochs=1, optimiser=optimiser, callback="x")
    with pytest.raises(EqkernelError, match="optimiser must be one of SGD, .* not None"):
        fit(net, x, y, epochs=1, optimiser=None)
    with pytest.raises(EqkernelError, match=r"adjustment must be an Adjustment\(rate, steps\), not 0.1"):
        fit(net, x, y, epochs=1, optimiser=optimiser, adjustment=0.1)
    np.testing.assert_array_equal(net.buffer, before)
    assert optimiser.steps == 0


class Tensor:
    """An array of another library, which compares as that library does and not as NumPy."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows):
        return Tensor(self.values[rows])

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)

    def __eq__(self, other):
        raise AssertionError("an array of NumPy was compared with a tensor")

    __hash__ = None
    __array_ufunc__ = None  # NumPy leaves == to it


def test_tensors_are_trained_and_judged_as_arrays_are(problem):
    tensors = tuple(map(Tensor, problem))
    found = [
        fit(network(), *data, epochs=1, optimiser=SGD(1.0), held_out=data)[0].held_out for data in (problem, tensors)
    ]
    assert found[0] == found[1] > 0
    net = network()
    assert accuracy(net, *tensors) == accuracy(net, *problem)


def test_any_whole_number_seeds_a_fit(problem):
    x, y = problem
    losses = [fit(network(), x, y, epochs=1, optimiser=SGD(0.1), seed=seed)[0].loss for seed in (3000, np.int32(3000))]
    assert losses[0] == losses[1]
    for seed in (-1, 1.5, None, "a"):
        with pytest.raises(EqkernelError, match=f"seed must be a whole number of at least 0, not {seed!r}"):
            fit(network(), x, y, epochs=1, optimiser=SGD(0.1), seed=seed)


def test_gains_that_are_no_numbers_are_refused():
    for options in ({"gain": float("nan")}, {"input_gain": "1"}, {"output_gain": float("inf")}):
        with pytest.raises(EqkernelError, match=f"{next(iter(options))} must be a finite number"):
            models.fhn(6, 8, 3, **options)


def test_a_field_of_no_numbers_is_refused():
    for shape, options, message in (
        (64.0, {}, "whole number: not 64.0"),
        (16, {"Du": "1"}, "Du must be a finite number, not '1'"),
        (16, {"noise": None}, "noise must be a finite number, not None"),
        (16, {"dt": "0.1"}, "dt must be positive and finite, not '0.1'"),
        (16, {"seed": -1}, "seed must be a whole number of at least 0, not -1"),
    ):
        with pytest.raises(EqkernelError, match=message):
            FitzHughNagumo(shape, **options)
    with pytest.raises(EqkernelError, match="a poke needs finite numbers"):
        FitzHughNagumo(16).poke("1", 0, 2, 1)


def test_tensors_that_numpy_cannot_read_give_one_clear_error():
    torch = pytest.importorskip("torch")
    for tensor in (torch.zeros(50, 6, requires_grad=True), torch.zeros(50, 6, dtype=torch.bfloat16)):
        with pytest.raises(EqkernelError, match="x cannot be read as an array"):
            predict(network(), tensor)
