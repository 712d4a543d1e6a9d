"""Bad input: one clear error each, and a network that is as it was."""

import pickle
import warnings
from copy import deepcopy

import numpy as np
import pytest
from compiled import BACKENDS, HERE

from eqkernel import (
    SCHEDULES,
    SGD,
    Adam,
    DivergenceError,
    EqkernelError,
    Lateral,
    Momentum,
    Network,
    Schedule,
    both_phases,
    ep_gradient,
    free_phase,
    hebbian_update,
    nudged_phase,
    predict,
    settle,
    train_step,
)

RNG = np.random.default_rng(0)
X, Y = RNG.random((5, 6)), np.array([0, 1, 2, 1, 0])
TARGETS = np.eye(3)[Y]
NAN, INF = float("nan"), float("inf")
FIXED = Schedule("fixed", gamma=0.5, free_steps=4, nudged_steps=4, order="even-odd", tolerance=None)


def network(backend="cpu", cost="cross-entropy"):
    return Network.dense(6, 8, 3, cost=cost, backend=backend, dtype="float64", schedule=FIXED)


def spoilt(array, value):
    array = np.array(array, float)
    array[2, 1] = value
    return array


BAD_X = {
    "a vector": (X[0], r"shape \(6,\): this network takes \(B, 6\)"),
    "three axes": (X[None], r"takes \(B, 6\)"),
    "too wide": (np.ones((5, 7)), r"shape \(5, 7\).*\(B, 6\)"),
    "transposed": (X.T, r"shape \(6, 5\)"),
    "a number": (3.0, "shape"),
    "None": (None, "shape"),
    "ragged": ([[1, 2, 3, 4, 5, 6], [1, 2]], "x"),
    "empty": (X[:0], "x is empty"),
    "complex": (X.astype(complex), "type complex128"),
    "object": (X.astype(object), "type object"),
    "text": (X.astype(str), "type <U"),
    "dates": (np.zeros((5, 6), "datetime64[s]"), "type datetime64"),
    "NaN": (spoilt(X, NAN), "x holds a NaN or an infinity"),
    "infinity": (spoilt(X, INF), "x holds a NaN or an infinity"),
    "minus infinity": (spoilt(X, -INF), "x holds a NaN or an infinity"),
    "both infinities": (np.array([[INF, -INF, 0, 0, 0, 0]] * 5), "x holds a NaN or an infinity"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", BAD_X)
def test_bad_x(backend, case):
    x, message = BAD_X[case]
    net = network(backend)
    before, optimiser = net.buffer.copy(), Adam()
    for call in (
        lambda: free_phase(net, x),
        lambda: both_phases(net, x, Y, 0.1, reuse=True),
        lambda: settle(net, x, Y, 0.1),
        lambda: ep_gradient(net, x, Y),
        lambda: predict(net, x),
        lambda: train_step(net, x, Y, optimiser=optimiser),
    ):
        with pytest.raises(EqkernelError, match=message):
            call()
    np.testing.assert_array_equal(net.buffer, before)
    assert optimiser.steps == 0


def test_x_beyond_float32_is_refused_and_large_finite_x_is_not():
    net = Network.dense(6, 8, 3, schedule=FIXED)
    with pytest.raises(EqkernelError, match="infinity"):
        free_phase(net, spoilt(X, 1e300))
    free_phase(net, np.full((5, 6), 3e37, np.float32) * [1, -1, 1, -1, 1, -1])
    free_phase(net, np.full((200, 6), 3e38, np.float32) * np.float32([1, -1, 1, -1, 1, -1]))


class Tensor:
    """Refuses NumPy, as PyTorch's do that require a gradient."""

    def __array__(self, *given, **options):
        raise RuntimeError("call detach first")


BAD_Y = {
    "too short": (Y[:4], "x has 5 samples and y has 4"),
    "too long": (np.append(Y, 1), "x has 5 samples and y has 6"),
    "empty": (Y[:0], "y is empty"),
    "too large": (Y + 1, r"labels run from 1 to 3: they must lie in 0..2"),
    "negative": (Y - 1, "labels run from -1"),
    "float labels": (Y.astype(float), "labels have type float64"),
    "text labels": (Y.astype(str), "labels have type <U"),
    "bool labels": (Y > 0, "labels have type bool"),
    "object labels": (Y.astype(object), "labels have type object"),
    "a number": (1, "shape"),
    "None": (None, "shape|needs y"),
    "ragged": ([[1, 0, 0], [0]], "y cannot be read as an array"),
    "a tensor with a gradient": (Tensor(), "y cannot be read as an array: call detach first"),
    "too wide": (np.eye(4)[Y], r"shape \(5, 4\)"),
    "fewer targets": (TARGETS[:4], "x has 5 samples and y has 4"),
    "complex": (TARGETS.astype(complex), "type complex128"),
    "NaN": (spoilt(TARGETS, NAN), "y holds a NaN"),
    "infinity": (spoilt(TARGETS, INF), "y holds a NaN, an infinity"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cost", ["cross-entropy", "squared-error"])
@pytest.mark.parametrize("case", BAD_Y)
def test_bad_y(backend, cost, case):
    y, message = BAD_Y[case]
    net = network(backend, cost)
    free = free_phase(net, X)
    before, optimiser = net.buffer.copy(), Momentum(0.1)
    for call in (
        lambda: nudged_phase(net, free, y, 0.1),
        lambda: both_phases(net, X, y, 0.1, reuse=True),
        lambda: settle(net, X, y, 0.1),
        lambda: ep_gradient(net, X, y),
        lambda: train_step(net, X, y, optimiser=optimiser),
    ):
        with pytest.raises(EqkernelError, match=message):
            call()
    np.testing.assert_array_equal(net.buffer, before)
    assert optimiser.steps == 0


def test_settle_needs_a_target_for_its_nudge():
    with pytest.raises(EqkernelError, match="needs y"):
        settle(network(), X, beta=0.1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_layout_and_real_type_means_the_same(dtype, backend):
    if backend == "reference" and dtype == "float32":
        pytest.skip("the reference computes in float64")
    rng = np.random.default_rng(1)
    x = rng.integers(0, 4, (37, 6)).astype(dtype)
    y, soft = rng.integers(0, 3, 37), rng.dirichlet(np.ones(3), 37)
    net = Network.dense(6, 8, 3, schedule=FIXED, dtype=dtype, backend=backend)

    wide = np.full((74, 12), 7.0, dtype)
    wide[::2, ::2] = x
    backwards = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    layouts = [np.asfortranarray(x), wide[::2, ::2], backwards, x.astype(int), x.astype(np.uint8)]
    layouts += [x.astype(np.float16), x.astype(">f8"), x.tolist(), np.broadcast_to(x, (1, 37, 6))[0]]
    assert not any(a.flags.c_contiguous for a in layouts[:3])
    state, gradient = free_phase(net, x).state, ep_gradient(net, x, y)
    for layout in layouts:
        for a, b in zip(free_phase(net, layout).state, state, strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(ep_gradient(net, layout, y), gradient, strict=True):
            np.testing.assert_array_equal(a, b)

    gradient = ep_gradient(net, x, soft)
    for layout in (np.asfortranarray(soft), np.repeat(soft, 2, axis=0)[::2], soft.tolist()):
        for a, b in zip(ep_gradient(net, x, layout), gradient, strict=True):
            np.testing.assert_array_equal(a, b)
    hard = ep_gradient(net, x, y)
    for labels in (y.astype(np.int8), y.astype(np.uint64), y.tolist(), np.repeat(y, 2)[::2]):
        for a, b in zip(ep_gradient(net, x, labels), hard, strict=True):
            np.testing.assert_array_equal(a, b)


def unaligned(array):
    """The same array, one byte off."""
    room = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    room[...] = array
    assert room.flags.c_contiguous and not room.flags.aligned
    return room


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_that_are_not_aligned_mean_the_same(backend):
    one, other = network(backend, "squared-error"), network(backend, "squared-error")
    for x, y in ((X, TARGETS), (X, Y)):
        train_step(one, x, y, lr=0.1)
        train_step(other, unaligned(x), unaligned(y), lr=0.1)
        both_phases(other, unaligned(x), unaligned(y), 0.1, reuse=True)
    np.testing.assert_array_equal(other.buffer, one.buffer)
    np.testing.assert_array_equal(*(predict(one, x, output=True) for x in (X, unaligned(X))))


# -- states of the phases --------------------------------------------------------------------------------------------

STATES = {
    "fewer layers": (lambda s: s[:-1], r"has 2 states: this network has 3 layers"),
    "fewer samples": (lambda s: [s[0], s[1][:4], s[2]], r"\[1\] has shape \(4, 8\): this network takes \(5, 8\)"),
    "narrower": (lambda s: [s[0], s[1][:, :7], s[2]], r"\[1\] has shape \(5, 7\)"),
    "wider": (lambda s: [s[0], np.ones((5, 80)), s[2]], r"\[1\] has shape \(5, 80\)"),
    "no samples": (lambda s: [a[:0] for a in s], r"\[0\] has shape \(0, 6\)"),
    "flat": (lambda s: [a.ravel() for a in s], r"\[0\] has shape"),
    "numbers": (lambda s: [1.0, 2.0, 3.0], r"\[0\] has shape \(\)"),
    "nothing": (lambda s: [], "has 0 states"),
    "text": (lambda s: [a.astype(str) for a in s], "must hold real numbers"),
    "complex": (lambda s: [a.astype(complex) for a in s], r"\[0\] has type complex128"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("which", ["mean", "difference"])
@pytest.mark.parametrize("case", STATES)
def test_an_update_refuses_states_that_are_not_the_networks(backend, which, case):
    change, message = STATES[case]
    net, optimiser = network(backend), Adam()
    before = net.buffer.copy()
    nudged = nudged_phase(net, free_phase(net, X), Y, 0.1)
    with pytest.raises(EqkernelError, match=message) as caught:
        hebbian_update(net, nudged._replace(**{which: change(getattr(nudged, which))}), optimiser)
    assert which in str(caught.value)
    np.testing.assert_array_equal(net.buffer, before)
    assert optimiser.steps == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_update_refuses_what_is_no_nudged_state_and_no_optimiser(backend):
    net = network(backend)
    free, before = free_phase(net, X), net.buffer.copy()
    for wrong in (free, X, None):
        with pytest.raises(EqkernelError, match="nudged must be what nudged_phase returned"):
            hebbian_update(net, wrong, SGD(0.1))
    for wrong in (0.1, "adam", Adam):
        with pytest.raises(EqkernelError, match="optimiser must be one of"):
            hebbian_update(net, nudged_phase(net, free, Y, 0.1), wrong)
    np.testing.assert_array_equal(net.buffer, before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_nudged_phase_starts_from_a_free_state_of_its_own_network(backend):
    net = network(backend)
    free = free_phase(net, X)
    others = [
        Network.dense(*sizes, backend=backend, dtype="float64", schedule=FIXED) for sizes in ((6, 8, 3), (6, 80, 3))
    ]
    strangers = [free_phase(other, X) for other in others]
    strangers += [both_phases(other, X, Y, 0.1, reuse=True)[0] for other in others]
    for wrong in (*strangers, deepcopy(free), pickle.loads(pickle.dumps(free)), X, tuple(free), None):
        with pytest.raises(EqkernelError, match="free is not an equilibrium of this network"):
            nudged_phase(net, wrong, Y, 0.1)
    nudged_phase(net, free, Y, 0.1)
    nudged_phase(net, settle(net, X, Y, -0.1), Y, 0.1)
    for there, here in zip(pickle.loads(pickle.dumps(free)).state, free.state, strict=True):
        np.testing.assert_array_equal(there, here)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nudged_states_that_are_not_finite_are_not_learnt_from(backend):
    net = network(backend)
    before = net.buffer.copy()
    nudged = nudged_phase(net, free_phase(net, X), Y, 0.1)
    for name in ("mean", "difference"):
        states = [state.copy() for state in getattr(nudged, name)]
        states[1][2, 3] = NAN
        with pytest.raises(EqkernelError, match=rf"{name}\[1\] holds a NaN"):
            hebbian_update(net, nudged._replace(**{name: states}), SGD(0.1))
    np.testing.assert_array_equal(net.buffer, before)


# -- numbers that leave the network's type ---------------------------------------------------------------------------


def calls(net, **options):
    """All that settles or learns, with these options."""
    yield lambda: train_step(net, X, Y, lr=0.1, **options)
    yield lambda: ep_gradient(net, X, Y, **options)
    yield lambda: both_phases(net, X, Y, **{"beta": 0.1, **options}, reuse=True)
    yield lambda: both_phases(net, X, Y, **{"beta": 0.1, **options})
    yield lambda: settle(net, X, Y, **{"beta": 0.1, **options})


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("beta", [1e39, 1e38, 1e-39, 1e-46, np.float64(1e-310)])
def test_a_nudge_that_leaves_float32_is_refused(backend, beta):
    net = Network.dense(6, 8, 3, backend=backend)
    before = net.buffer.copy()
    for call in calls(net, beta=beta):
        with pytest.raises(EqkernelError, match=r"beta=.* leaves float32: choose one from 1\.18e-38 to 8\.51e\+37"):
            call()
    np.testing.assert_array_equal(net.buffer, before)
    train_step(Network.dense(6, 8, 3, backend=backend, dtype="float64"), X, Y, beta=min(beta, 1e38) + 1e-300, lr=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("beta", ["0.1", None, NAN, INF, [0.1]])
def test_settle_refuses_a_beta_that_is_no_number(backend, beta):
    with pytest.raises(EqkernelError, match="beta must be a number, of either sign, not"):
        settle(network(backend), X, Y, beta)


@pytest.mark.filterwarnings("ignore::eqkernel.UnsettledWarning")
@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("lr", [1e39, 1e-46])
def test_a_learning_rate_that_leaves_float32_is_refused(backend, lr):
    for net in (Network.dense(6, 8, 3, backend=backend), Network.recurrent(6, 8, 8, 3, backend=backend)):
        before, nudged = net.buffer.copy(), nudged_phase(net, free_phase(net, X), Y, 0.1)
        for call in (
            lambda net=net: train_step(net, X, Y, lr=lr),
            lambda net=net, nudged=nudged: hebbian_update(net, nudged, Momentum(lr)),
        ):
            with pytest.raises(EqkernelError, match=f"lr={lr!r} leaves float32".replace("+", r"\+")):
                call()
        np.testing.assert_array_equal(net.buffer, before)


@pytest.mark.filterwarnings("ignore::eqkernel.UnsettledWarning")
@pytest.mark.parametrize("backend", HERE)
def test_lateral_weights_that_overflow_have_diverged(backend):
    net = Network.recurrent(6, 8, 8, 3, cost="squared-error", backend=backend)
    with pytest.raises(DivergenceError, match="weights of connection lateral.[12] are no longer finite: lower the"):
        train_step(net, X, 1e15 * TARGETS, beta=1e-3, lr=8e37)
    for wrong in (INF, NAN, 3e38):
        with pytest.raises(DivergenceError, match="weights of connection lateral.1 are no longer finite"):
            Lateral(1).project(np.full((8, 8), wrong, np.float32), None)


@pytest.mark.filterwarnings("ignore::eqkernel.UnsettledWarning")
@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize(("layers", "gamma"), [(17, 0.003), (2, 1e-45), (2, 1e-60), (200, 0.01)])
def test_feedback_that_leaves_float32_is_refused(backend, layers, gamma):
    schedule = SCHEDULES["few-step"].but(gamma=gamma)
    net = Network.dense(6, *[4] * layers, 3, neuron="tanh", backend=backend, schedule=schedule)
    before = net.buffer.copy()
    message = f"gamma={gamma!r} over {layers - 1} layers leaves float32: raise gamma, or use dtype='float64'"
    for call in (*calls(net), *calls(net, schedule=schedule), lambda: predict(net, X), lambda: free_phase(net, X)):
        with pytest.raises(EqkernelError, match=message):
            call()
    np.testing.assert_array_equal(net.buffer, before)
    free = free_phase(net, X, "converged")
    with pytest.raises(EqkernelError, match=message):
        nudged_phase(net, free, Y, 0.1, schedule=schedule)
    nudged = nudged_phase(net, free, Y, 0.1)._replace(schedule=schedule)
    with pytest.raises(EqkernelError, match=message):
        hebbian_update(net, nudged, SGD(0.1))


def test_the_widest_feedback_that_float32_holds_trains():
    net = Network.dense(6, *[4] * 16, 3, neuron="tanh", seed=3)
    train_step(net, X, Y, lr=0.1)
    assert np.isfinite(net.buffer).all()
    deep = Network.dense(6, *[4] * 150, 3, neuron="tanh", dtype="float64")
    with pytest.raises(EqkernelError, match="over 149 layers leaves float64: raise gamma$"):
        train_step(deep, X, Y, lr=0.1)
    train_step(Network.dense(6, *[4] * 17, 3, neuron="tanh", dtype="float64"), X, Y, lr=0.1)
    train_step(Network.dense(6, 8, 3, schedule=Schedule(gamma=1e-45)), X, Y, lr=0.1)  # one layer: no feedback


# -- an optimiser belongs to one network -----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [lambda: Adam(), lambda: Momentum(0.1)], ids=["adam", "momentum"])
@pytest.mark.parametrize("other", ["wider", "equal"])
def test_an_optimiser_with_moments_refuses_another_network(backend, make, other):
    optimiser, net = make(), network(backend)
    sizes = (6, 80, 3) if other == "wider" else (6, 8, 3)
    stranger = Network.dense(*sizes, backend=backend, dtype="float64", schedule=FIXED, seed=9)
    train_step(net, X, Y, optimiser=optimiser)
    moments, before = [m.copy() for m in optimiser.state], stranger.buffer.copy()
    with pytest.raises(EqkernelError, match="give every network its own"):
        train_step(stranger, X, Y, optimiser=optimiser)
    np.testing.assert_array_equal(stranger.buffer, before)
    for a, b in zip(optimiser.state, moments, strict=True):
        np.testing.assert_array_equal(a, b)
    assert optimiser.steps == 1


def test_sound_input_gives_no_warning():
    """What the errors above guard: the same calls with good input are silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for backend in (*HERE, "reference"):
            net = network(backend)
            train_step(net, X, Y, lr=0.1)
            train_step(net, X.tolist(), TARGETS, optimiser=Adam())
            assert predict(net, X).shape == (5,) and predict(net, X, output=True).shape == (5, 3)
