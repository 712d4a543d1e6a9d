"""Learning: the loss falls, the README's ten lines work, and a Step says what happened."""

import inspect

import numpy as np
import pytest
from compiled import BACKENDS

from eqkernel import (
    SCHEDULES,
    SGD,
    Adam,
    DivergenceError,
    Network,
    Outcome,
    Schedule,
    Step,
    ep_gradient,
    free_phase,
    hebbian_update,
    learning,
    nudged_phase,
    predict,
    train_step,
)
from eqkernel.data import batches, gaussian_clusters, load_digits

X, Y = gaussian_clusters(240, 12, 4, seed=0)
PLAN = Schedule(
    "plain", gamma=0.5, free_steps=20, nudged_steps=10, order="even-odd", form="mean-difference", tolerance=None
)


def network(backend="cpu", make=Network.dense, dtype="float64", **options):
    return make(12, 24, 4, backend=backend, dtype=dtype, **{"schedule": PLAN, **options})


def train(net, epochs=6, **options):
    if "optimiser" not in options and "lr" not in options:
        options["optimiser"] = Adam(0.01)
    return [train_step(net, x, y, **options) for e in range(epochs) for x, y in batches(X, Y, 40, seed=e)]


# -- it learns -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::eqkernel.UnsettledWarning")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cost", ["cross-entropy", "squared-error"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("neuron", ["hard-sigmoid", "sigmoid", "tanh"])
def test_the_loss_falls_and_the_clusters_are_told_apart(backend, cost, schedule, neuron):
    output = "sigmoid" if cost == "squared-error" else None
    net = network(backend, cost=cost, schedule=schedule, neuron=neuron, output=output)
    steps = train(net, epochs=12)
    first, last = (np.mean([s.loss for s in part]) for part in (steps[:6], steps[-6:]))
    assert last < 0.6 * first
    assert steps[0].accuracy < 0.6 and np.mean(predict(net, X) == Y) > 0.95


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", ["positive", "negative", "centered"])
def test_every_variant_learns_in_a_recurrent_network(dtype, variant):
    net = network(make=Network.recurrent, dtype=dtype)
    steps = train(net, variant=variant, beta=0.1)
    assert steps[-1].loss < 0.6 * steps[0].loss and np.mean(predict(net, X) == Y) > 0.95


def test_plain_descent_takes_a_step_along_the_gradient():
    net, twin = network(), network()
    for parameter, gradient in zip(twin.parameters, ep_gradient(twin, X, Y, beta=0.3, variant="positive"), strict=True):
        parameter -= 0.05 * gradient
    train_step(net, X, Y, beta=0.3, lr=0.05, variant="positive")
    np.testing.assert_allclose(net.buffer, twin.buffer, rtol=0, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_train_step_is_its_three_parts(backend):
    net, twin = network(backend), network(backend)
    train_step(net, X, Y, beta=0.3, lr=0.1)
    free = free_phase(twin, X)
    nudged = nudged_phase(twin, free, Y, beta=0.3)
    hebbian_update(twin, nudged, SGD(0.1))
    np.testing.assert_array_equal(net.buffer, twin.buffer)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_is_of_the_mean_loss(backend):
    """Twice the same batch: the same gradient."""
    net = network(backend)
    once, twice = ep_gradient(net, X, Y), ep_gradient(net, np.tile(X, (2, 1)), np.tile(Y, 2))
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_and_their_one_hot_rows_teach_the_same(backend):
    net = network(backend)
    for a, b in zip(ep_gradient(net, X, Y), ep_gradient(net, X, np.eye(4)[Y]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_schedule_given_to_one_step_is_used_in_it():
    net = network(cost="squared-error")
    plan = PLAN.but(free_steps=3, nudged_steps=2)
    step = train_step(net, X, Y, lr=0.1, schedule=plan)
    assert (step.free_steps, step.nudged_steps) == (3, 2)
    assert train_step(net, X, Y, lr=0.1).free_steps == 20
    scaled = ep_gradient(net, X, Y, schedule=PLAN.but(gamma=0.1))
    assert not np.allclose(scaled[0], ep_gradient(net, X, Y)[0])


@pytest.mark.filterwarnings("ignore::eqkernel.UnsettledWarning")
def test_the_readmes_ten_lines_read_digits():
    x, y, x_test, y_test = load_digits()
    net = Network.dense(64, 128, 10, seed=0)
    for epoch in range(20):
        for xb, yb in batches(x, y, size=64, seed=epoch):
            step = train_step(net, xb, yb, beta=0.2, lr=0.1)
    assert step.loss < 0.3
    assert (predict(net, x_test) == y_test).mean() >= 0.95


# -- what is reported ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_reports_loss_and_accuracy_before_it(backend):
    net = network(backend, cost="cross-entropy", neuron="tanh")
    p = free_phase(net, X).output
    step = train_step(net, X, Y, lr=0.1)
    assert isinstance(step, Step)
    np.testing.assert_allclose(step.loss, -np.log(p[np.arange(240), Y]).mean(), rtol=1e-12)
    assert step.accuracy == (p.argmax(1) == Y).mean()
    assert (step.free_steps, step.nudged_steps) == (20, 10)
    assert 0 <= step.residual < 1 and step.outcome is Outcome.FIXED_STEPS


@pytest.mark.parametrize("backend", BACKENDS)
def test_squared_error_of_targets_has_no_accuracy(backend):
    net, target = network(backend, cost="squared-error"), np.random.default_rng(0).random((240, 4))
    output = free_phase(net, X).output
    step = train_step(net, X, target, lr=0.1)
    assert step.accuracy is None
    np.testing.assert_allclose(step.loss, np.square(target - output).sum(1).mean() / 2, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::eqkernel.UnsettledWarning")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("late", ["free", "nudged"])
def test_a_step_reports_the_phase_that_settled_worse(backend, late):
    steps = {"free": (2, 100), "nudged": (100, 2)}[late]
    net = network(backend, cost="squared-error", neuron="tanh", output="sigmoid")
    plan = PLAN.but(free_steps=steps[0], nudged_steps=steps[1], tolerance=1e-4)
    free = free_phase(net, X, plan)
    nudged = nudged_phase(net, free, Y, beta=0.2)
    step = train_step(net, X, Y, beta=0.2, lr=0.1, schedule=plan)
    worse = {"free": free, "nudged": nudged}[late]
    assert step.outcome is Outcome.OUT_OF_STEPS and step.residual == worse.residual > 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_predict_gives_labels_or_outputs_in_any_piece_size(backend):
    net = network(backend)
    outputs = predict(net, X, output=True)
    assert outputs.shape == (240, 4) and outputs.dtype == net.dtype
    np.testing.assert_allclose(outputs.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(predict(net, X), outputs.argmax(1))
    np.testing.assert_allclose(outputs, free_phase(net, X).output, rtol=0, atol=1e-12)
    for size in (1, 7, 240, 1000):
        np.testing.assert_allclose(predict(net, X, output=True, size=size), outputs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_phases_gradients_and_predictions_change_no_parameter(backend):
    net = network(backend, make=Network.recurrent)
    before = net.buffer.copy()
    ep_gradient(net, X, Y)
    predict(net, X)
    nudged_phase(net, free_phase(net, X), Y, 0.1)
    np.testing.assert_array_equal(net.buffer, before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_the_callers_own(backend):
    net = network(backend)
    gradient = ep_gradient(net, X, Y)
    kept = [g.copy() for g in gradient]
    assert [g.shape for g in gradient] == [p.shape for p in net.parameters]
    ep_gradient(net, X[::-1], Y)
    train_step(net, X, Y, lr=0.1)
    for a, b in zip(gradient, kept, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_seed_fixes_the_whole_run():
    runs = []
    for seed in (0, 0, 1):
        net = network(dtype="float32", seed=seed)
        runs.append((train(net)[-1], net.buffer))
    assert runs[0][0] == runs[1][0]
    np.testing.assert_array_equal(runs[0][1], runs[1][1])
    assert (runs[0][1] != runs[2][1]).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_that_blows_up_raises_and_does_not_go_on(backend):
    net = network(backend, cost="squared-error", neuron="linear")
    with pytest.raises(DivergenceError), np.errstate(all="ignore"):
        train(net, epochs=100, lr=1e3)


LAYOUTS = {
    "float64": lambda states: [s.astype(float) for s in states],
    "big-endian": lambda states: [s.astype(">f4") for s in states],
    "half a batch": lambda states: [s[:2] for s in states],
    "backwards": lambda states: [s[::-1] for s in states],
    "columns": lambda states: [np.asfortranarray(s) for s in states],
    "unaligned": lambda states: [unaligned(s) for s in states],
    "one array": lambda states: list(np.stack(states)),
    "parts in another order": lambda states: parts(states, [1, 0, 2, 3]),
    "parts with gaps": lambda states: parts(states, [0, 0, 1, 1, 2, 2, 3, 3]),
    "lists": lambda states: [s.tolist() for s in states],
}


def unaligned(array):
    """The same array, one byte off."""
    room = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    room[...] = array
    return room


def parts(states, order):
    """The states as views of one flat array, in which they lie in this order."""
    flat, size = np.concatenate([states[layer].ravel() for layer in order]), states[0].size
    places = [order.index(layer) * size for layer in range(len(states))]
    return [flat[at : at + size].reshape(s.shape) for at, s in zip(places, states, strict=True)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_update_reads_states_of_any_layout_and_real_type(backend, layout):
    net = Network.dense(
        4, 4, 4, 4, schedule=PLAN, backend=backend, dtype="float64" if backend == "reference" else "float32"
    )
    start = net.buffer.copy()
    nudged = nudged_phase(net, free_phase(net, X[:5, :4]), np.arange(5) % 4, 0.2)
    given = [LAYOUTS[layout](states) for states in (nudged.mean, nudged.difference)]
    copies = [[np.array(s, net.dtype, order="C") for s in states] for states in given]
    found = []
    for mean, difference in (given, copies):
        net.buffer[...] = start
        hebbian_update(net, nudged._replace(mean=mean, difference=difference), SGD(0.5))
        found.append(net.buffer.copy())
    assert (found[0] != start).any()
    np.testing.assert_array_equal(*found)


def test_the_update_of_a_step_goes_by_the_schedule_that_it_was_given():
    """Phase by phase, as the reference takes it."""
    net, twin = (
        Network.dense(12, 9, 8, 4, schedule=PLAN.but(gamma=gamma), dtype="float64", backend="reference")
        for gamma in (0.5, 0.1)
    )
    train_step(net, X[:40], Y[:40], lr=0.1, schedule=twin.schedule)
    train_step(twin, X[:40], Y[:40], lr=0.1)
    np.testing.assert_array_equal(net.buffer, twin.buffer)


def test_the_algorithm_reads_as_the_algorithm():
    body = inspect.getsource(learning.train_step)
    calls = [body.index(f"{name}(network") for name in ("free_phase", "nudged_phase", "hebbian_update")]
    assert calls == sorted(calls)
    assert len(inspect.getsource(learning).splitlines()) <= 130
