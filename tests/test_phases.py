"""The two phases: one fixed point whatever the order, energies that descend, results that stay what they were."""

import numpy as np
import pytest
from compiled import BACKENDS, COMPILED
from hypothesis import given, settings
from hypothesis import strategies as st

from eqkernel import (
    SCHEDULES,
    DivergenceError,
    Network,
    Outcome,
    Schedule,
    both_phases,
    ep_gradient,
    free_phase,
    get_threads,
    nudged_phase,
    predict,
    reference,
    set_threads,
    settle,
    train_step,
)
from eqkernel.cpu import threads

LONG = Schedule("long", gamma=0.5, free_steps=400, nudged_steps=400, form="mean-difference", tolerance=1e-10)
RNG = np.random.default_rng(0)
X, Y = RNG.random((5, 6)), np.array([0, 1, 2, 1, 0])
BOUNDED = ["hard-sigmoid", "sigmoid", "tanh"]


def dense(backend="reference", schedule=LONG, sizes=(6, 9, 8, 7, 3), seed=1, **options):
    """A network with biases that matter."""
    net = Network.dense(*sizes, schedule=schedule, backend=backend, dtype="float64", seed=seed, **options)
    for connection, parameter in zip(net.connections, net.parameters, strict=True):
        if connection.stem == "bias":
            parameter[...] = np.random.default_rng(seed).uniform(-0.3, 0.3, parameter.shape)
    return net


# -- the input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["difference", "mean-difference", "plus-minus"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_nudge_leaves_the_input_as_it_is(backend, form):
    net = dense(backend, LONG.but(form=form))
    nudged = nudged_phase(net, free_phase(net, X), Y, beta=0.1)
    np.testing.assert_array_equal(nudged.mean[0], X)
    np.testing.assert_array_equal(nudged.difference[0], np.zeros_like(X))
    assert not np.shares_memory(nudged.mean[0], nudged.difference[0])
    for beta in (0.5, -0.5):
        np.testing.assert_array_equal(settle(net, X, Y, beta).state[0], X)


# -- fixed points ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("neuron", BOUNDED)
@pytest.mark.parametrize("cost", ["cross-entropy", "squared-error"])
def test_every_order_and_step_reaches_the_same_fixed_point(backend, neuron, cost):
    net = dense(backend, neuron=neuron, cost=cost)
    plans = [LONG.but(order=order) for order in ("synchronous", "even-odd", "sweep")]
    plans += [LONG.but(step=0.5), LONG.but(order="even-odd", step=1.3)]
    free = [free_phase(net, X, plan) for plan in plans]
    nudged = [nudged_phase(net, f, Y, beta=0.1) for f in free]
    assert {f.outcome for f in free + nudged} == {Outcome.SETTLED}
    for f, n in zip(free[1:], nudged[1:], strict=True):
        np.testing.assert_allclose(np.hstack(f.state), np.hstack(free[0].state), rtol=0, atol=1e-9)
        np.testing.assert_allclose(np.hstack(n.mean), np.hstack(nudged[0].mean), rtol=0, atol=1e-9)
        for d, d0 in zip(n.difference[1:], nudged[0].difference[1:], strict=True):
            np.testing.assert_allclose(d, d0, rtol=0, atol=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_free_state_solves_the_equations_of_the_network(backend):
    net = dense(backend, neuron="tanh")
    (w1, b1, w2, b2, w3, b3, w4, b4), g = net.parameters, 0.5
    s = free_phase(net, X).state
    np.testing.assert_allclose(s[1], np.tanh(X @ w1.T + b1 + g * s[2] @ w2), atol=1e-9)
    np.testing.assert_allclose(s[2], np.tanh(s[1] @ w2.T + b2 + g * s[3] @ w3), atol=1e-9)
    np.testing.assert_allclose(s[3], np.tanh(s[2] @ w3.T + b3), atol=1e-9)  # the readout sends nothing back
    logits = s[3] @ w4.T + b4
    np.testing.assert_allclose(s[4], np.exp(logits) / np.exp(logits).sum(1, keepdims=True), atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_settle_reaches_the_nudged_equilibrium(backend, sign):
    net, beta = dense(backend, cost="squared-error", neuron="tanh", sizes=(6, 9, 3)), sign * 0.3
    plan = LONG.but(form="plus-minus", nudge="live")
    s = settle(net, X, Y, beta, plan).state
    w1, b1, w2, b2 = net.parameters
    np.testing.assert_allclose(s[1], np.tanh(X @ w1.T + b1 + 0.5 * s[2] @ w2), atol=1e-9)
    np.testing.assert_allclose(s[2], s[1] @ w2.T + b2 + beta * (np.eye(3)[Y] - s[2]), atol=1e-9)
    np.testing.assert_array_equal(settle(net, X).state[2], free_phase(net, X).state[2])


def test_settle_tells_how_its_nudged_phase_ended():
    net = dense(schedule=LONG.but(nudged_steps=1))
    settled, nudged = settle(net, X, Y, 0.1), nudged_phase(net, free_phase(net, X), Y, 0.1, "positive")
    told = settled.steps, settled.residual, settled.outcome
    assert told == (nudged.steps, nudged.residual, nudged.outcome) and told[::2] == (1, Outcome.FIXED_STEPS)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["mean-difference", "plus-minus"])
def test_forms_agree_on_mean_and_difference(backend, form):
    net = dense(backend, neuron="tanh")
    free = free_phase(net, X)
    ours = nudged_phase(net, free, Y, beta=0.5, schedule=LONG.but(form=form))
    plus, minus = (settle(net, X, Y, sign * 0.5).state for sign in (1, -1))
    for layer in (1, 2, 3):
        np.testing.assert_allclose(ours.mean[layer], (plus[layer] + minus[layer]) / 2, atol=1e-9)
        np.testing.assert_allclose(ours.difference[layer], plus[layer] - minus[layer], atol=1e-9)  # 2 beta = 1
    np.testing.assert_allclose(ours.difference[4], np.eye(3)[Y] - free.output, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_difference_form_freezes_the_mean_at_the_free_state(backend):
    net = dense(backend)
    free = free_phase(net, X)
    nudged = nudged_phase(net, free, Y, beta=0.5, schedule=LONG.but(form="difference"))
    for mean, state in zip(nudged.mean, free.state, strict=True):
        np.testing.assert_array_equal(mean, state)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_residual_is_in_units_of_beta_in_every_form(backend):
    """A linear output that the nudge moves by beta, once each way: its residual is 1."""
    net = Network.dense(1, 1, cost="squared-error", dtype="float64", backend=backend)
    net.parameters[0] = 0
    plan = Schedule(gamma=1.0, free_steps=2, nudged_steps=1, order="synchronous", tolerance=None)
    for form in ("difference", "mean-difference", "plus-minus"):
        for variant in ("centered", "positive", "negative"):
            free = free_phase(net, [[0.5]], plan.but(form=form))
            nudged = nudged_phase(net, free, [[1.0]], 0.125, variant)
            assert (nudged.residual, nudged.difference[1].item()) == (1.0, 1.0), (form, variant)


@pytest.mark.parametrize("backend", BACKENDS)
def test_even_odd_takes_half_the_steps_of_synchronous(backend):
    net = dense(backend, neuron="tanh", sizes=(6, 12, 12, 12, 12, 3), cost="squared-error")
    plan = LONG.but(gamma=1.0, early_stop=True, tolerance=1e-9, free_steps=3000)
    slow = free_phase(net, X[:1], plan.but(order="synchronous"))
    fast = free_phase(net, X[:1], plan.but(order="even-odd"))
    assert slow.outcome is fast.outcome is Outcome.SETTLED and slow.steps > 30
    assert 0.4 < fast.steps / slow.steps < 0.6, (fast.steps, slow.steps)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_over_relaxed_step_of_the_best_size_takes_far_fewer_steps(backend):
    net = dense(backend, neuron="tanh", sizes=(6, 12, 12, 12, 12, 3), cost="squared-error")

    def steps(tolerance: float, size: float) -> int:
        plan = LONG.but(gamma=1.0, order="even-odd", early_stop=True, tolerance=tolerance, free_steps=3000, step=size)
        free = free_phase(net, X[:1], plan)
        assert free.outcome is Outcome.SETTLED
        return free.steps

    more = steps(1e-10, 1.0) - steps(1e-6, 1.0)
    share = 1e-4 ** (1 / more)  # of the residual that a step leaves; then 2 / (1 + sqrt(1 - r)) is the best size
    best = 2 / (1 + (1 - share) ** 0.5)
    assert 1.05 < best < 1.9
    assert steps(1e-10, best) < 0.65 * steps(1e-10, 1.0)
    assert steps(1e-10, best) < steps(1e-10, (1 + best) / 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sweep_step_is_one_half_sweep(backend):
    net = dense(backend, neuron="tanh", sizes=(6, 9, 8, 3))
    (w1, b1, w2, b2, *_), g = net.parameters, 0.5
    run = lambda steps: free_phase(net, X, LONG.but(order="sweep", free_steps=steps, tolerance=None)).state  # noqa: E731
    s1 = np.tanh(X @ w1.T + b1)
    s2 = np.tanh(s1 @ w2.T + b2)
    np.testing.assert_allclose(run(1)[1], s1, atol=1e-14)
    np.testing.assert_allclose(run(1)[2], s2, atol=1e-14)
    back = np.tanh(X @ w1.T + b1 + g * s2 @ w2)  # layer 2 rests
    np.testing.assert_allclose(run(2)[1], back, atol=1e-14)
    np.testing.assert_allclose(run(2)[2], s2, atol=1e-14)
    np.testing.assert_allclose(run(3)[1], back, atol=1e-14)
    np.testing.assert_allclose(run(3)[2], np.tanh(back @ w2.T + b2), atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_update_counts_is_what_the_free_state_has_felt(backend):
    """A nudged phase with a schedule of its own, after a free phase with another."""
    one = SCHEDULES["single-sweep"].but(gamma=0.5)
    three, at_once = one.but(free_steps=3), one.but(order="synchronous")
    net = dense(backend, schedule=one, neuron="tanh", sizes=(6, 9, 8, 3))
    for free_plan, plan, counts in (
        (one, one, False), (three, one, True), (one, three, False), (at_once, one, True),
    ):  # fmt: skip
        free = free_phase(net, X, free_plan)
        nudged = nudged_phase(net, free, Y, 0.1, schedule=plan)
        assert nudged.schedule.feed_forward is not counts
        as_asked = net.engine.gradient(nudged.mean, nudged.difference, nudged.schedule)
        whole = net.engine.gradient(nudged.mean, nudged.difference, three)
        assert np.array_equal(as_asked[2], whole[2]) is counts  # W of layer 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_single_sweep_is_one_forward_and_one_backward_pass(backend):
    net = dense(backend, schedule="single-sweep", neuron="tanh", sizes=(6, 9, 8, 3))
    w1, b1, w2, b2, w3, _ = net.parameters
    free = free_phase(net, X)
    nudged = nudged_phase(net, free, Y, beta=1e-4)
    assert (free.steps, nudged.steps) == (1, 1)
    assert free.outcome is nudged.outcome is Outcome.FIXED_STEPS
    s1 = np.tanh(X @ w1.T + b1)
    s2 = np.tanh(s1 @ w2.T + b2)
    np.testing.assert_allclose(free.state[1], s1, atol=1e-14)
    np.testing.assert_allclose(free.state[2], s2, atol=1e-14)
    # At small beta the difference is that of backpropagation, times gamma per layer.
    d2 = (1 - s2**2) * ((np.eye(3)[Y] - free.output) @ w3)
    np.testing.assert_allclose(nudged.difference[2], d2, rtol=1e-5)
    np.testing.assert_allclose(nudged.difference[1], 1e-3 * (1 - s1**2) * (d2 @ w2), rtol=1e-5)


# -- energy ----------------------------------------------------------------------------------------------------------


def energy(net, state):
    """E = sum_l gamma^l Psi(s_l) - sum_c gamma^(post_c) Phi_c over the dynamics, (B,), from verbs and potential."""
    total = np.zeros(len(state[0]))
    for layer in range(1, net.top + 1):
        part = np.zeros_like(total)
        reference.neurons.potential(part, state[layer], net.layers[layer].neuron)
        total += net.gamma**layer * part
    for connection, weight in zip(net.connections, net.parameters, strict=True):
        if connection.post <= net.top:
            part = np.zeros_like(total)
            pre = None if connection.pre is None else state[connection.pre]
            getattr(reference, connection.stem).energy(part, pre, state[connection.post], weight)
            total += net.gamma**connection.post * part
    return total


def step_bound(net):
    """Steps up to 2 m / |D^-1/2 A D^-1/2| descend: A couples the states, D = gamma^l, and Psi'' >= m.

    Along s + h (rho - s) the separable part falls by at least h (1 - h/2) m |rho - s|^2 and the coupling costs at most
    h^2/2 of its norm; at half that bound both hold with room to spare.
    """
    starts = np.cumsum([0, 0, *net.sizes[1 : net.top + 1]])
    coupling = np.zeros((starts[-1], starts[-1]))
    for connection, weight in zip(net.connections, net.parameters, strict=True):
        if connection.pre and connection.post <= net.top:
            i, j = starts[connection.post], starts[connection.pre]
            scaled = net.gamma ** ((connection.post - connection.pre) / 2) * weight
            if connection.pre == connection.post:
                scaled = scaled / 2
            coupling[i : i + weight.shape[0], j : j + weight.shape[1]] += scaled
    norm = np.linalg.norm(coupling + coupling.T, 2)
    return min(1.0, 1.0 / max(norm, 1e-9))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=2, max_size=4),
    neuron=st.sampled_from([*BOUNDED, "linear"]),
    gamma=st.sampled_from([0.1, 0.5, 1.0]),
    lateral=st.booleans(),
    order=st.sampled_from(["synchronous", "even-odd", "sweep"]),
    seed=st.integers(0, 1000),
)
def test_energy_descends_in_the_free_phase(sizes, neuron, gamma, lateral, order, seed):
    make = Network.recurrent if lateral else Network.dense
    net = make(
        4, *sizes, 3, neuron=neuron, seed=seed, backend="reference", dtype="float64",
        schedule=Schedule("descent", gamma=gamma, order=order, tolerance=None),
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    net.buffer *= 2.5  # far from a contraction: small steps must descend all the same
    x = rng.random((3, 4))
    plan = net.schedule.but(step=step_bound(net))
    path = [free_phase(net, x, plan.but(free_steps=steps)).state for steps in range(1, 16)]
    energies = np.array([energy(net, state) for state in path])
    assert (np.diff(energies, axis=0) <= 1e-12 * (1 + abs(energies[:-1]))).all()
    moved = max(abs(a - b).max() for a, b in zip(path[0][1:-1], path[-1][1:-1], strict=True))
    assert moved < 1e-9 or (energies[-1] < energies[0]).any()


@pytest.mark.parametrize("neuron", BOUNDED)
def test_energy_plus_beta_cost_descends_in_the_nudged_phase(neuron):
    net = dense(neuron=neuron, cost="squared-error", sizes=(6, 9, 8, 3))
    target, beta, top = np.eye(3)[Y], 0.8, 3
    plan = LONG.but(form="plus-minus", nudge="live", order="synchronous", step=0.2, tolerance=None)
    totals = []
    for steps in range(1, 30):
        free = free_phase(net, X)
        nudged = nudged_phase(net, free, Y, beta, "positive", plan.but(nudged_steps=steps))
        state = [m + beta / 2 * d for m, d in zip(nudged.mean, nudged.difference, strict=True)]
        cost = np.square(target - state[-1]).sum(1) / 2
        totals.append(energy(net, state) + net.gamma**top * beta * cost)
    assert (np.diff(totals, axis=0) <= 1e-12).all() and (totals[-1] < totals[0] - 1e-3).all()


# -- early stop ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_early_stop_saves_steps_and_keeps_the_state_within_the_tolerance(backend):
    plan = LONG.but(free_steps=200, tolerance=1e-6)
    net = dense(backend, schedule=plan, neuron="tanh")
    whole, early = free_phase(net, X), free_phase(net, X, plan.but(early_stop=True))
    assert early.steps < 100 and whole.steps == 200
    assert early.outcome is Outcome.SETTLED and early.residual < 1e-6
    np.testing.assert_allclose(np.hstack(early.state), np.hstack(whole.state), rtol=0, atol=1e-5)
    exact = free_phase(net, X, plan.but(free_steps=early.steps))  # it is the same path, only cut short
    np.testing.assert_array_equal(np.hstack(early.state), np.hstack(exact.state))
    nudged = nudged_phase(net, early, Y, beta=0.1, schedule=plan.but(early_stop=True))
    assert nudged.steps < 400 and nudged.outcome is Outcome.SETTLED


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tolerance_alone_changes_no_state(backend):
    net = dense(backend, neuron="tanh")
    states = [
        free_phase(net, X, LONG.but(free_steps=50, tolerance=tolerance)).state for tolerance in (None, 1e-1, 1e-3)
    ]
    for other in states[1:]:
        np.testing.assert_array_equal(np.hstack(other), np.hstack(states[0]))


# -- both at once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["difference", "mean-difference", "plus-minus"])
@pytest.mark.parametrize("count", [1, 2])
def test_both_phases_are_the_free_and_the_nudged_one(monkeypatch, backend, form, count):
    monkeypatch.setattr(threads, "WORTH_A_THREAD", 0)
    before = get_threads()
    set_threads(count)
    try:
        for variant, cost in (("centered", "cross-entropy"), ("negative", "squared-error")):
            net = dense(backend, LONG.but(free_steps=13, nudged_steps=4, form=form, tolerance=None), cost=cost)
            for size in (41, 5, 1):
                x, y = RNG.random((size, 6)), RNG.integers(0, 3, size)
                free = free_phase(net, x)
                apart = free, nudged_phase(net, free, y, 0.1, variant)
                for reuse in (True, False):
                    check_same(both_phases(net, x, y, 0.1, variant, reuse=reuse), apart)
    finally:
        set_threads(before)


def check_same(both, apart):
    (free, nudged), (free0, nudged0) = both, apart
    for states, wanted in (
        (free.state, free0.state), (nudged.mean, nudged0.mean), (nudged.difference, nudged0.difference),
    ):  # fmt: skip
        for a, b in zip(states, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    for now, then in zip(both, apart, strict=True):
        assert (now.steps, now.residual, now.outcome) == (then.steps, then.residual, then.outcome)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("phase", "steps"), [("free", 40), ("nudged", 1)])
def test_both_phases_say_which_of_them_diverged(backend, phase, steps):
    plan = SCHEDULES["converged"].but(free_steps=steps, nudged_steps=40)
    net = dense(backend, plan, neuron="linear", cost="squared-error")
    net.buffer[...] *= 100  # feedback that grows
    for reuse in (True, False):
        with pytest.raises(DivergenceError, match=f"the {phase} phase diverged"):
            both_phases(net, X, Y, 0.1, reuse=reuse)


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_phases_keep_nothing_of_the_networks_own_memory_unless_asked(backend):
    net = dense(backend)
    free, nudged = both_phases(net, X, Y, 0.1)
    kept = [a.copy() for a in (*free.state, *nudged.mean, *nudged.difference)]
    both_phases(net, X[::-1].copy(), Y, 0.3, reuse=True)
    both_phases(net, X[::-1].copy(), Y, 0.3)
    for now, then in zip((*free.state, *nudged.mean, *nudged.difference), kept, strict=True):
        np.testing.assert_array_equal(now, then)


# -- who owns the result ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_are_never_overwritten_by_later_calls(backend):
    net = dense(backend)
    free = free_phase(net, X)
    nudged = nudged_phase(net, free, Y, beta=0.1)
    kept = [a.copy() for a in (*free.state, *nudged.mean, *nudged.difference)]
    other = X[::-1].copy()
    later = free_phase(net, other)
    nudged_phase(net, free, Y[::-1], beta=0.5)
    nudged_phase(net, later, Y[::-1], beta=0.5)
    predict(net, other)
    ep_gradient(net, other, Y)
    train_step(net, other, Y, lr=0.1)
    for now, then in zip((*free.state, *nudged.mean, *nudged.difference), kept, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_free_phase_serves_many_nudged_phases(backend):
    net = dense(backend)
    free = free_phase(net, X)
    first = nudged_phase(net, free, Y, beta=0.1)
    nudged_phase(net, free, (Y + 1) % 3, beta=0.4, variant="positive")
    again = nudged_phase(net, free, Y, beta=0.1)
    for a, b in zip(again.difference[1:], first.difference[1:], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("backend", COMPILED)
def test_reuse_returns_the_networks_own_memory(backend):
    """What reuse=True saves, and what it costs: the next such phase overwrites the last."""
    net = dense(backend)
    first = free_phase(net, X, reuse=True)
    before = first.state[1].copy()
    second = free_phase(net, X[::-1].copy(), reuse=True)
    assert np.shares_memory(first.state[1], second.state[1])
    np.testing.assert_array_equal(first.state[1], before[::-1])
    assert not np.shares_memory(second.state[1], free_phase(net, X).state[1])
    fresh, reused = nudged_phase(net, second, Y, 0.1), nudged_phase(net, second, Y, 0.1, reuse=True)
    assert not np.shares_memory(fresh.mean[1], reused.mean[1])
    assert "overwrites" in free_phase.__doc__


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_result_does_not_follow_a_batch_that_the_caller_refills(backend):
    net = dense(backend)
    x = X.copy()
    free = free_phase(net, x)
    x[...] = 0
    np.testing.assert_array_equal(free.state[0], X)
