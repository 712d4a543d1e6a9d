"""Equilibrium propagation computes, step by step, what backpropagation through time does (Ernoult et al. 2019).

From a settled state the network is a recurrent one whose loss is read at the end of its steps. Backpropagation
through the last t of them gives a gradient; t steps of the nudged phase give an update; for small beta the two
agree for every t.
"""

import numpy as np
import pytest
from compiled import BACKENDS

import eqkernel as eq

SCHEDULE = eq.SCHEDULES["converged"].but(
    free_steps=2000, tolerance=1e-14, early_stop=True, order="synchronous", form="plus-minus", nudge="live"
)
STEPS = 10


def problem(backend="reference", sizes=(784, 512, 10)):
    net = eq.Network.dense(
        *sizes, neuron="tanh", output="tanh", cost="squared-error", schedule=SCHEDULE, dtype="float64",
        backend=backend,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    return net, rng.uniform(0, 1, (8, sizes[0])), rng.integers(0, sizes[-1], 8)


def backpropagation_through_time(net, state, target, steps):
    """Gradients of the mean loss at the settled `state` with respect to the weights used in the last 1..steps
    steps.

    A step sets every s_l = tanh(W_l s_{l-1} + b_l + W_{l+1}^T s_{l+1}) at once, all layers tanh and gamma 1.
    `state` is a fixed point, so every step has the same slopes.
    """
    weights, last = net.parameters[0::2], len(state) - 1
    signal = [np.zeros_like(s) for s in state]  # dL/dstate after the step that is being undone
    signal[last] = (state[last] - target) / len(target)
    total, history = [np.zeros_like(p) for p in net.parameters], []
    for _ in range(steps):
        on_drive = [g * (1 - s**2) for g, s in zip(signal, state, strict=True)]
        signal = [np.zeros_like(s) for s in state]
        for l, w in enumerate(weights, 1):
            total[2 * l - 2] = total[2 * l - 2] + on_drive[l].T @ state[l - 1]
            total[2 * l - 1] = total[2 * l - 1] + on_drive[l].sum(axis=0)
            if l > 1:
                total[2 * l - 2] += state[l].T @ on_drive[l - 1]
                signal[l - 1] += on_drive[l] @ w
                signal[l] += on_drive[l - 1] @ w.T
        history.append(total.copy())
    return history


def check_against_bptt(net, x, y):
    """sum_t |EP_t - BPTT_t| / sum_t |BPTT_t| over ten nudged steps, and its fall with beta^2."""
    free = eq.free_phase(net, x)
    target = np.eye(net.sizes[-1])[y]
    exact = backpropagation_through_time(net, free.state, target, STEPS)
    for beta, bound in ((1e-2, 2e-4), (1e-3, 2e-6)):
        error = size = 0.0
        for steps in range(1, STEPS + 1):
            schedule = SCHEDULE.but(nudged_steps=steps, tolerance=None, early_stop=False)
            nudged = eq.nudged_phase(net, free, y, beta, schedule=schedule)
            update = net.engine.gradient(nudged.mean, nudged.difference, schedule)
            error += np.sqrt(sum(((u - g) ** 2).sum() for u, g in zip(update, exact[steps - 1], strict=True)))
            size += np.sqrt(sum((g**2).sum() for g in exact[steps - 1]))
        assert error / size <= bound, f"beta {beta}: {error / size:.2e}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_nudged_step_is_a_step_of_backpropagation_through_time(backend):
    check_against_bptt(*problem(backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_two_hidden_layers(backend):
    check_against_bptt(*problem(backend, (40, 30, 20, 10)))


def test_the_gradient_grows_with_every_step():
    """If one step gave it all, the comparison would not see time."""
    net, x, y = problem()
    free = eq.free_phase(net, x)
    history = backpropagation_through_time(net, free.state, np.eye(10)[y], STEPS)
    first = [sum((g**2).sum() for g in h) for h in history]
    assert first[1] > 1.5 * first[0] and first[-1] > 1.02 * first[2]
