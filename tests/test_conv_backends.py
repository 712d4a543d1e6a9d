"""Convolutions in the fused kernels: verbs, phases and updates within derived bounds, as those of `test_backends`.

Where the largest of a window wins, rounding may choose between equals: states are random reals here, of which no two
sums are equal, and neurons are smooth where the net pools a maximum.
"""

from contextlib import contextmanager

import numpy as np
import pytest
from bounds import verb_bound
from compiled import COMPILED, HERE, MODULES
from hypothesis import given, settings
from hypothesis import strategies as st
from test_backends import OPTIMISERS, OUTPUT, check_phases, check_training, check_updates, contract, schedules
from test_verbs import DTYPES, LAYOUTS, PROPERTY, RATES, float64, seeds, within

import eqkernel as eq
from eqkernel import cpu, reference
from eqkernel.geometry import MAX, conv_geometry

VERBS = ("energy", "drive_post", "drive_pre", "hebbian")
FEWER = settings(PROPERTY, max_examples=20)
batches = st.sampled_from([1, 2, 7, 15, 16, 17])


def side(before, kernel, stride, padding, window):
    return ((before + 2 * padding - kernel) // stride + 1) // window


@st.composite
def convolutions(draw, pre):
    """(kernel, stride, padding, pool, window) of a convolution that fits a map of shape `pre`, and the map after it."""
    pool = draw(st.sampled_from(["none", "none", "max", "average"]))
    window = draw(st.sampled_from([2, 3])) if pool != "none" else 1
    kernel, stride = draw(st.sampled_from([1, 2, 3, 5])), draw(st.sampled_from([1, 2, 3]))
    padding = draw(st.integers(0, kernel - 1))
    sides = [side(n, kernel, stride, padding, window) for n in pre[:2]]
    if min(sides) < 1:
        kernel, stride, padding, pool, window = 1, 1, 0, "none", 1
        sides = list(pre[:2])
    channels = draw(st.sampled_from([1, 3, 4, 16, 17, 21]))
    return (kernel, stride, padding, pool, max(window, 2)), (*sides, channels)


@st.composite
def geometries(draw):
    pre = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 5, 16, 19]))
    how, post = draw(convolutions(pre))
    return conv_geometry("here", pre, post, *how)


# -- verbs ---------------------------------------------------------------------------------------------------------


def verb_arguments(verb, dtype, batch, geometry, seed):
    """(out, arguments): what the verb adds into, random already, and what it reads."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    pre, post, weight = draw(batch, geometry.n_pre), draw(batch, geometry.n_post), draw(*geometry.weight_shape)
    winners = rng.integers(0, geometry.window**2, post.shape, np.int32) if geometry.pool == MAX else None
    return {
        "energy": (draw(batch), (pre, post, weight, geometry, winners)),
        "drive_post": (draw(*post.shape), (pre, weight, geometry, winners)),
        "drive_pre": (draw(*pre.shape), (post, weight, geometry, winners)),
        "hebbian": (draw(*weight.shape), (pre, post, -0.3, geometry, winners)),
    }[verb]


def roundings(verb, batch, g):
    """The longest chain of roundings: products summed, then the share of an average, scale, the sum into `out`."""
    taps = g.kernel**2
    return 5 + {
        "energy": taps * g.pre_channels + g.window**2 + g.n_post,
        "drive_post": taps * g.pre_channels + g.window**2,
        "drive_pre": taps * g.post_channels,
        "hebbian": batch * g.map_height * g.map_width,
    }[verb]  # fmt: skip


def check_verb(verb, dtype, batch, geometry, seed, backend=cpu):
    out, arguments = verb_arguments(verb, dtype, batch, geometry, seed)
    found, exact = out.copy(), out.astype(float)
    assert getattr(backend.conv, verb)(found, *arguments) is None
    getattr(reference.conv, verb)(exact, *float64(arguments))
    slack = roundings(verb, batch, geometry)
    within(found, exact, verb_bound("conv", verb, out.astype(float), float64(arguments), dtype, slack), verb)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("backend", COMPILED)
@FEWER
@given(geometry=geometries(), batch=batches, seed=seeds)
def test_verbs(backend, verb, dtype, geometry, batch, seed):
    check_verb(verb, dtype, batch, geometry, seed, MODULES[backend])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", COMPILED)
@FEWER
@given(geometry=geometries(), batch=batches, seed=seeds)
def test_what_is_chosen_is_the_largest(backend, dtype, geometry, batch, seed):
    check_choice(dtype, batch, geometry, seed, MODULES[backend])


def check_choice(dtype, batch, geometry, seed, backend=cpu):
    """Exactly the reference's winners for whole numbers, whose sums are exact and often equal: then the first wins."""
    geometry = geometry._replace(pool=MAX)
    rng = np.random.default_rng(seed)
    pre = rng.integers(-2, 3, (batch, geometry.n_pre)).astype(dtype)
    weight = rng.integers(-2, 3, geometry.weight_shape).astype(dtype)
    found, exact = (np.full((batch, geometry.n_post), -1, np.int32) for _ in range(2))
    backend.conv.choose(found, pre, weight, geometry)
    reference.conv.choose(exact, pre, weight, geometry)
    np.testing.assert_array_equal(found, exact)


GEOMETRY = conv_geometry("here", (6, 7, 3), (3, 3, 5), kernel=3, stride=1, padding=1, pool="max", window=2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("backend", COMPILED)
def test_an_array_of_any_layout_is_read_right_or_refused(backend, verb, layout):
    plain, arguments = verb_arguments(verb, "float64", 5, GEOMETRY, 0)
    exact = plain.copy()
    getattr(reference.conv, verb)(exact, *arguments)
    for place in range(-1, len(arguments)):
        out, given_ = plain.copy(), list(arguments)
        if place < 0:
            out = LAYOUTS[layout](out)
        elif isinstance(given_[place], np.ndarray):
            given_[place] = LAYOUTS[layout](given_[place])
        before = out.copy()
        try:
            getattr(MODULES[backend].conv, verb)(out, *given_)
        except eq.EqkernelError:
            np.testing.assert_array_equal(out, before)
        else:
            np.testing.assert_allclose(out, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("backend", COMPILED)
def test_a_shape_that_does_not_fit_is_refused(backend, verb):
    """A kernel that trusts its shapes would read or write memory that is not its own."""
    out, arguments = verb_arguments(verb, "float32", 5, GEOMETRY, 0)
    wrongs = [(np.ones([n + 3 for n in out.shape], "float32"), arguments)] if verb != "energy" else []
    for place, argument in enumerate(arguments):
        if isinstance(argument, np.ndarray):
            wrong = list(arguments)
            wrong[place] = np.ones([n + 3 for n in argument.shape], "float32")
            wrongs.append((out, wrong))
    for target, wrong in wrongs:
        before = target.copy()
        with pytest.raises(eq.EqkernelError):
            getattr(MODULES[backend].conv, verb)(target, *wrong)
        np.testing.assert_array_equal(target, before)
    with pytest.raises(eq.EqkernelError, match="winners"):
        getattr(MODULES[backend].conv, verb)(out, *arguments[:-1], None)


# -- networks ------------------------------------------------------------------------------------------------------


@st.composite
def networks(draw, dtypes=DTYPES):
    """One or two convolutions, perhaps a lateral connection, and a dense layer, whose couplings contract."""
    shapes = [(draw(st.integers(3, 9)), draw(st.integers(3, 9)), draw(st.sampled_from([1, 2, 3])))]
    wires = []
    for layer in range(draw(st.integers(1, 2))):
        how, post = draw(convolutions(shapes[-1]))
        wires += [eq.Conv(layer, layer + 1, *how), eq.Bias(layer + 1)]
        shapes.append(post)
    last = len(shapes)
    pools = any(c.stem == "conv" and c.pool == "max" for c in wires)
    neuron = draw(st.sampled_from(["sigmoid", "tanh"] if pools else RATES))
    cost = draw(st.sampled_from(["squared-error", "cross-entropy", "binary-cross-entropy"]))
    backend = draw(st.sampled_from(HERE))
    adaptation = draw(st.sampled_from([0.0, 0.0, 0.1]))
    layers = [eq.Layer(shape, neuron, adaptation, 1.5) for shape in shapes]
    layers.append(eq.Layer(draw(st.sampled_from([2, 10])), OUTPUT.get(cost, neuron)))
    wires += [eq.Dense(last - 1, last), eq.Bias(last)]
    if draw(st.integers(0, 3)) == 0:
        wires.append(eq.Lateral(last - 1))
    schedule = draw(schedules())
    net = eq.Network(layers, wires, cost, schedule, draw(st.sampled_from(dtypes)), backend, draw(seeds))
    contract(net)
    return net


def check_fused(net):
    assert type(net.engine).__name__ == "Layered", "the fused kernels must cover this network"


@settings(PROPERTY, max_examples=100)
@given(net=networks(), batch=batches, seed=seeds, variant=st.sampled_from(["centered", "positive", "negative"]))
def test_phases(net, batch, seed, variant):
    check_fused(net)
    check_phases(net, batch, seed, variant)


STOPPED = eq.SCHEDULES["converged"].but(free_steps=1, nudged_steps=5, order="synchronous", tolerance=None)


def moving_winners(backend, dtype="float64", schedule=STOPPED):
    """A pooled network whose free phase stops so early that winners still change in the nudged phase."""
    layers = [eq.Layer((7, 9, 2)), eq.Layer((4, 5, 17), "tanh"), eq.Layer((2, 2, 5), "tanh"), eq.Layer(3)]
    wires = [eq.Conv(0, 1, 3, 2, 1), eq.Conv(1, 2, 3, 1, 1, "max", 2), eq.Dense(2, 3), *map(eq.Bias, (1, 2, 3))]
    net = eq.Network(layers, wires, "squared-error", schedule, dtype, backend)
    contract(net)
    net.parameters[0][...] *= 0.01  # the first map hangs on what comes back to it, after the free phase has stopped
    net.parameters[3][...] = 0
    return net


def check_moving_winners(net):
    """The phases of a network whose winners move in the nudged phase; a difference has its mean's, a state its own."""
    x = np.random.default_rng(0).uniform(-1, 1, (9, net.sizes[0])).astype(net.dtype)
    free = eq.free_phase(net, x)
    nudged = eq.nudged_phase(net, free, np.zeros(9, int), 0.25)
    pooled, wire = net.connections[1], eq.reference.conv
    before, after = (np.empty((9, net.sizes[2]), np.int32) for _ in range(2))
    for winners, state in ((before, free.state[1]), (after, nudged.mean[1])):
        wire.choose(winners, state, net.parameters[1], pooled.geometry(net.shapes))
    assert (before != after).mean() > 0.05
    check_phases(net, 9, 0)


@pytest.mark.parametrize("form", ["mean-difference", "plus-minus"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", COMPILED)
def test_a_difference_has_the_winners_of_its_mean_and_a_state_its_own(backend, dtype, form):
    check_moving_winners(moving_winners(backend, dtype, STOPPED.but(form=form)))


NOTING = {  # the last kinds do not note their winners: another state than the mean has chosen them
    "1 + 1": {"order": "sweep", "free_steps": 1, "form": "difference"},
    "3 + 2": {"order": "sweep", "free_steps": 3, "nudged_steps": 2, "form": "difference"},
    "downwards last": {"order": "sweep", "free_steps": 2, "form": "difference"},
    "all at once": {"order": "synchronous", "free_steps": 3, "nudged_steps": 3, "form": "difference"},
    "the mean moves": {"order": "sweep", "free_steps": 1, "nudged_steps": 3, "form": "mean-difference"},
    "stops after a step back": {
        "order": "sweep", "free_steps": 5, "form": "difference", "tolerance": 0.1, "early_stop": True,
    },
}  # fmt: skip


@contextmanager
def shared(threads):
    """Work of any size is shared by so many threads."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("cpu.threads", "bindings.layered")[: 1 + ("c" in HERE)]:
            patch.setattr(f"eqkernel.{module}.WORTH_A_THREAD", 0)
        patch.setattr("eqkernel.cpu.threads._threads", threads)
        yield


def check_noted(kind, dtype, threads, backend):
    """A step in one call learns what phases do and an update that looks for the winners itself, to the bit."""
    plan = eq.Schedule(**{"gamma": 1.0, "nudged_steps": 1, "tolerance": None} | NOTING[kind])
    one, two = nets = [moving_winners(backend, dtype, plan) for _ in range(2)]
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (19, one.sizes[0])).astype(dtype), np.arange(19) % 3
    optimisers = [eq.SGD(0.1) for _ in nets]
    for _ in range(2):
        with shared(threads):
            eq.train_step(one, x, y, beta=0.25, optimiser=optimisers[0])
        eq.hebbian_update(two, eq.nudged_phase(two, eq.free_phase(two, x), y, 0.25), optimisers[1])
        np.testing.assert_array_equal(one.buffer, two.buffer)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", NOTING)
def test_noted_winners_are_those_of_the_mean(kind, dtype, threads, backend):
    check_noted(kind, dtype, threads, backend)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("window", [4, 8, 28])
def test_a_trace_of_averages_is_added_up_before_it_is_added(backend, window):
    """The shares of the windows' places, one by one, are lost beside a trace as large as this."""
    geometry = conv_geometry("here", (window, window, 1), (1, 1, 1), 1, 1, 0, "average", window)
    trace, pre = np.full((1, 1, 1, 1), 1e6, np.float32), np.ones((1, window**2), np.float32)
    MODULES[backend].conv.hebbian(trace, pre, np.full((1, 1), 0.32, np.float32), 1.0, geometry, None)
    assert trace.item() == np.float32(1e6) + np.float32(0.32)


@pytest.mark.parametrize("backend", COMPILED)
def test_a_stride_as_long_as_a_narrow_map_has_no_more_phases_than_the_map_pixels(backend):
    """Its square is as many as would take half an hour."""
    n = 300_000
    geometry = conv_geometry("here", (1, n, 1), (1, 1, 1), 1, n, 0, "none", 1)
    drive = np.zeros((1, n), np.float32)
    MODULES[backend].conv.drive_pre(drive, np.ones((1, 1)), np.full((1, 1, 1, 1), 2.0), geometry, None)
    np.testing.assert_array_equal(drive, 2.0 * np.eye(1, n))


def test_noted_winners_are_not_sought_again(monkeypatch):
    net = moving_winners("cpu", schedule=eq.Schedule(free_steps=1, tolerance=None))
    monkeypatch.delattr(cpu.conv, "choose")
    eq.train_step(net, np.full((3, net.sizes[0]), 0.5), np.arange(3), beta=0.25, optimiser=eq.SGD(0.1))


def unbounded(net):
    """The same network without lateral connections, whose projection comes after the optimiser's step."""
    wires = [c for c in net.connections if c.stem != "lateral"]
    return eq.Network(net.layers, wires, net.cost, net.schedule, str(net.dtype), net.backend, net.seed)


@pytest.mark.parametrize("kind", OPTIMISERS)
@FEWER
@given(net=networks(), batch=batches, seed=seeds)
def test_updates(kind, net, batch, seed):
    check_updates(unbounded(net), kind, batch, seed, steps=2)


@FEWER
@given(net=networks(dtypes=["float64"]), batch=batches, seed=seeds)
def test_ten_training_steps(net, batch, seed):
    check_training(net, batch, seed)
