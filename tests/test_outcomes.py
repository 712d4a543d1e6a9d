"""Outcomes tell the truth: settled, out of steps, diverged, whatever the order, the form and the phase."""

import warnings

import numpy as np
import pytest
from compiled import BACKENDS
from test_phases import LONG, X, Y, dense

from eqkernel import (
    Bias,
    Dense,
    DivergenceError,
    Lateral,
    Layer,
    Network,
    Outcome,
    UnsettledWarning,
    ep_gradient,
    free_phase,
    nudged_phase,
    predict,
    train_step,
)
from eqkernel.outcomes import judge
from eqkernel.step import summary


@pytest.mark.parametrize("backend", BACKENDS)
def test_settled_residual_is_the_last_change_and_lies_below_the_tolerance(backend):
    plan = LONG.but(order="synchronous", free_steps=30, tolerance=1e-2)
    net = dense(backend, schedule=plan, neuron="tanh")
    free = free_phase(net, X)
    before = free_phase(net, X, plan.but(free_steps=29)).state
    change = max(abs(a - b).max() for a, b in zip(free.state[1:-1], before[1:-1], strict=True))
    assert free.outcome is Outcome.SETTLED and free.steps == 30
    assert change > 1e-12
    np.testing.assert_allclose(free.residual, change, rtol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unsettled_warns_once_for_each_network_and_says_so_in_every_result(backend):
    hasty = LONG.but(free_steps=2, nudged_steps=2)
    for net in (dense(backend, schedule=hasty), dense(backend, schedule=hasty)):
        with pytest.warns(UnsettledWarning, match="free phase: the steps ran out") as record:
            free = free_phase(net, X)
            again = free_phase(net, X)
            nudged = nudged_phase(net, free, Y, beta=0.1)
            step = train_step(net, X, Y, lr=1e-3)
        assert len(record) == 1
        assert record[0].filename == __file__, "the warning must point at the caller"
        assert [r.outcome for r in (free, again, nudged, step)] == 4 * [Outcome.OUT_OF_STEPS]
        assert free.residual > hasty.tolerance


@pytest.mark.parametrize("backend", BACKENDS)
def test_fixed_steps_are_not_judged(backend):
    net = dense(backend, schedule=LONG.but(free_steps=2, nudged_steps=2, tolerance=None))
    step = train_step(net, X, Y, lr=1e-3)
    assert step.outcome is Outcome.FIXED_STEPS and (step.free_steps, step.nudged_steps) == (2, 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("schedule", ["converged", "few-step", "single-sweep"])
def test_named_schedules_train_without_a_warning(backend, schedule):
    net = dense(backend, schedule=schedule, sizes=(6, 8, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            train_step(net, X, Y, lr=0.05)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("schedule", ["few-step", "single-sweep", "converged"])
@pytest.mark.parametrize("sizes", [(6, 8, 3), (6, 8, 7, 3), (6, 8, 8, 7, 3)])
@pytest.mark.parametrize("which", [0, -2, -1], ids=["hidden", "readout", "readout-bias"])
def test_a_nan_in_the_weights_never_passes_silently(backend, schedule, sizes, which):
    net = dense(backend, schedule=schedule, sizes=sizes)
    net.parameters[which].flat[0] = np.nan
    before = net.buffer.copy()
    x = np.ones((5, 6))
    for call in (
        lambda: free_phase(net, x),
        lambda: predict(net, x),
        lambda: ep_gradient(net, x, Y),
        lambda: train_step(net, x, Y, lr=0.1),
    ):
        with pytest.raises(DivergenceError):
            call()
    np.testing.assert_array_equal(net.buffer, before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", ["synchronous", "even-odd", "sweep"])
@pytest.mark.parametrize("strength", [1.2, 40.0])
def test_a_growing_residual_raises(backend, order, strength):
    """A linear layer whose lateral norm exceeds 1 has no stable state: slowly or at once, it must be said."""
    plan = LONG.but(gamma=1.0, free_steps=60 if strength < 2 else 300, order=order)
    net = Network(
        [Layer(6), Layer(5, "linear"), Layer(3, "linear")],
        [Dense(0, 1), Bias(1), Lateral(1), Dense(1, 2), Bias(2)],
        "squared-error", plan, "float64", backend,
    )  # fmt: skip
    net.parameters[2][...] = strength * np.eye(5)
    with pytest.raises(DivergenceError, match="diverged"):
        free_phase(net, X)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_diverging_nudged_phase_raises(backend):
    """A live nudge with beta > 2 on a linear output turns the negative phase into an unstable one."""
    net = dense(backend, cost="squared-error", neuron="tanh", sizes=(6, 5, 3))
    plan = LONG.but(form="plus-minus", nudge="live")
    free = free_phase(net, X)
    with pytest.raises(DivergenceError, match="nudged phase"):
        nudged_phase(net, free, Y, beta=3.0, schedule=plan)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["difference", "mean-difference", "plus-minus"])
@pytest.mark.parametrize("steps", [60, 300])  # growing, and beyond the largest number
def test_no_form_hides_a_nudged_phase_that_diverges(backend, form, steps):
    plan = LONG.but(gamma=1.0, free_steps=3, nudged_steps=steps, form=form, tolerance=None)
    net = Network.recurrent(
        6, 5, 3, neuron="linear", cost="squared-error", schedule=plan, dtype="float64", backend=backend
    )
    net.parameters[-1][...] = 40 * np.eye(5)
    free = free_phase(net, X)
    with pytest.raises(DivergenceError, match="nudged phase"):
        nudged_phase(net, free, Y, beta=0.1)


def test_a_residual_of_rounding_alone_that_grows_has_not_diverged():
    assert judge(1e-7, 1e-9, 50, None) is Outcome.FIXED_STEPS


@pytest.mark.parametrize(
    ("free", "nudged"),
    [
        ((1, 0.9, Outcome.FIXED_STEPS), (5, 1e-4, Outcome.SETTLED)),
        ((1, 0.01, Outcome.SETTLED), (5, 0.02, Outcome.SETTLED)),
        ((1, 0.09, Outcome.SETTLED), (5, 0.02, Outcome.OUT_OF_STEPS)),
    ],
)
def test_a_step_tells_of_the_phase_that_settled_worse_of_those_that_are_judged(free, nudged):
    step = summary(0.0, None, free, nudged)
    assert (step.residual, step.outcome) == nudged[1:]
