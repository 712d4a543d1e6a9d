"""Products that skip zeros give the bits of those that do not, and hide nothing that is not finite."""

import numpy as np
import pytest
from test_backends import DTYPES

import eqkernel as eq
from eqkernel import cpu
from eqkernel.cpu import threads, zeros

PLAN = eq.Schedule("drawn", gamma=0.5, free_steps=3, nudged_steps=2, order="even-odd", tolerance=None)
SIZES = (150, 97, 70, 10)  # no multiple of a vector
SPARE = {"no zeros": (0, 0), "states": (0, 0.7), "input": (0.7, 0), "all": (0.7, 0.7), "rest": (1, 1)}
WAYS = {"no zeros": zeros.DENSE, "states": zeros.BY_POST, "input": zeros.BY_PRE, "all": zeros.BY_POST}


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    before = eq.get_threads()
    monkeypatch.setattr(threads, "WORTH_A_THREAD", 0)
    yield
    eq.set_threads(before)


def drawn(batch, dtype, share, seed=0):
    """Mean and difference of every layer, of which some numbers are zero, of either sign, as in images in runs."""
    rng = np.random.default_rng(seed)

    def states(n, zero):
        gone = np.repeat(rng.random((batch, n)) < zero, 4, axis=1)[:, :n]
        return np.where(gone, rng.choice([0.0, -0.0], (batch, n)), rng.standard_normal((batch, n))).astype(dtype)

    of_input, of_states = SPARE[share]
    zero = [of_input, *[of_states] * (len(SIZES) - 1)]
    mean, difference = ([states(n, s) for n, s in zip(SIZES, zero, strict=True)] for _ in range(2))
    return mean, difference


def by_verbs(net, mean, difference):
    """The gradient as the verbs make it, none of which skips anything."""
    gradient = []
    for c, w in zip(net.connections, net.parameters, strict=True):
        g = np.zeros_like(w)
        if c.pre is not None:
            scale = net.dtype.type(net.scale(c, PLAN) / len(mean[0]))
            cpu.dense.hebbian(g, mean[c.pre], difference[c.post], scale)
            if c.pre > 0 and c.post <= net.top:
                cpu.dense.hebbian(g, difference[c.pre], mean[c.post], scale)
        gradient.append(g)
    return gradient


def check_gradient(net, mean, difference):
    found = net.engine.gradient(mean, difference, PLAN)
    for c, ours, exact in zip(net.connections, found, by_verbs(net, mean, difference), strict=True):
        if c.pre is not None:
            np.testing.assert_array_equal(ours, exact, f"{c.pre} to {c.post}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", SPARE)
def test_the_gradient_is_that_of_the_verbs_to_the_bit(share, dtype):
    net = eq.Network.dense(*SIZES, dtype=dtype, backend="cpu")
    for batch in (1, 3, 64, 130):
        for count in (1, 3):
            eq.set_threads(count)
            check_gradient(net, *drawn(batch, dtype, share))


@pytest.mark.parametrize("dtype", DTYPES)
def test_ways_are_chosen_by_what_is_zero(dtype):
    for share, way in WAYS.items():
        mean, difference = drawn(64, dtype, share)
        x, d = mean[0].reshape(-1), difference[1].reshape(-1)
        assert zeros.way_of(d, 0, SIZES[1], x, 0, SIZES[0], SIZES[1], 64, 1) == way
        x[7] = d[7] = np.inf
        assert zeros.way_of(d, 0, SIZES[1], x, 0, SIZES[0], SIZES[1], 64, 1) == zeros.DENSE


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_hidden(bad, dtype):
    """Where it meets zeros the gradient is NaN, whichever side has them."""
    net = eq.Network.dense(*SIZES, dtype=dtype, backend="cpu")
    for share in ("states", "input", "all"):
        for which, layer in ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2)):
            states = drawn(64, dtype, share)
            states[which][layer].flat[5] = bad
            states[which][layer][-1, -1] = bad
            check_gradient(net, *states)


def resting(dtype, backend="cpu"):
    """A network and 130 samples in which some pixels are zero, and some hidden units at rest, alone or all together."""
    net = eq.Network.dense(150, 97, 310, 5, schedule=PLAN, dtype=dtype, backend=backend)
    rng = np.random.default_rng(2)
    for bias in net.parameters[1:4:2]:
        bias[::3] = -5
        bias[1::3] = 0.3
    x = rng.random((130, 150)) * (rng.random((130, 150)) < 0.3)
    x[:, 40:90] = 0
    x[:16, 90:100] = x[16:32, 100:110] = 0  # of half a tile
    x[:, 20:130:9] = 0
    x[[5, 20], 20:130:9] = [[0.5], [-0.5]]  # of all samples but two
    return net, x.astype(dtype), rng.integers(0, 5, 130)


def scattered(dtype, backend="cpu"):
    """A recurrent network whose hidden units are at rest in some samples, hardly one in all, and 130 samples."""
    net = eq.Network.recurrent(150, 97, 310, 5, neuron="hard-sigmoid", schedule=PLAN, dtype=dtype, backend=backend)
    rng = np.random.default_rng(3)
    for weight, bias in (net.parameters[:2], net.parameters[2:4]):
        weight *= 4
        bias[...] = rng.uniform(-1.2, 0.2, bias.shape)
    return net, rng.random((130, 150)).astype(dtype), rng.integers(0, 5, 130)


def settled(net, x, y):
    free = eq.free_phase(net, x)
    nudged = eq.nudged_phase(net, free, y, beta=0.2)
    assert not (free.state[1] != 0).any(axis=0).all() and (free.state[1] != 0).any()
    return np.hstack([*free.state[1:], *nudged.mean[1:], *nudged.difference[1:]])


def check_tiles(dtype, backend, make=resting, batches=(3, 16, 17, 64, 130), counts=(1, 3)):
    """A tile settles to the bits of its samples alone: a single sample skips nothing."""
    net, x, y = make(dtype, backend)
    alone = {i: settled(net, x[i : i + 1], y[i : i + 1])[0] for i in (0, 5, 15, 20, 31, 32, 63, 129)}
    for batch in batches:
        for count in counts:
            eq.set_threads(count)
            together = settled(net, x[:batch], y[:batch])
            for i, state in alone.items():
                if i < batch:
                    np.testing.assert_array_equal(together[i], state, f"sample {i} of {batch}")


@pytest.mark.parametrize("make", [resting, scattered])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tile_settles_to_the_bits_of_its_samples_alone(dtype, make):
    check_tiles(dtype, "cpu", make)


def unless_diverged(phase, *arguments, **options):
    try:
        return phase(*arguments, **options)
    except eq.DivergenceError:
        return None


def check_bad_weight(bad, dtype, backend):
    """0 inf = NaN: a tile of equal samples, whose zeros are skipped, fares as one of them alone, and each as all."""
    for layer, place in ((0, (4, 60)), (2, (3, 0))):
        net, x, y = resting(dtype, backend)
        outcomes = []
        for batch in (1, 32):
            xs, ys = np.repeat(x[:1], batch, axis=0), np.repeat(y[:1], batch)
            free = eq.free_phase(net, xs)
            assert (free.state[layer // 2][:, place[1]] == 0).all()
            before, net.parameters[layer][place] = net.parameters[layer][place], bad
            assert unless_diverged(eq.free_phase, net, xs) is None
            assert np.isnan(net.engine.free(xs, net.schedule)[1][layer // 2 + 1][:, place[0]]).all()
            nudged = unless_diverged(eq.nudged_phase, net, free, ys, beta=0.2)
            outcomes.append(nudged.difference[1][0] if nudged else np.nan)
            net.parameters[layer][place] = before
        np.testing.assert_array_equal(*outcomes)
        if layer > 0 and np.isnan(bad):
            assert np.isnan(outcomes).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_meets_zeros_alone_is_not_hidden(bad, dtype):
    check_bad_weight(bad, dtype, "cpu")


def check_weight_that_keeps_at_rest(dtype, backend):
    """-inf from a unit that is not at rest keeps another there: on its way back it meets this one's zero, a NaN."""
    for make, samples in ((resting, [0]), (resting, [0] * 32), (scattered, range(32))):
        net, x, _ = make(dtype, backend)
        x = x[list(samples)]
        _, below, above, _ = eq.free_phase(net, x).state
        rest, (live, other) = np.flatnonzero((above == 0).all(0)), (np.flatnonzero(s.all(0)) for s in (below, above))
        places = [(2, (rest[0], live[0])), (2, (rest[-1], live[-1])), (-1, (rest[0], other[0]))]
        for parameter, place in places[: 2 + (make is scattered)]:  # the weight of W_2, or of A_2
            weight = net.parameters[parameter]
            before, weight[place] = weight[place], -np.inf
            assert unless_diverged(eq.free_phase, net, x) is None
            assert np.isnan(net.engine.free(x, net.schedule)[1][1]).any(axis=1).all()  # no sample is spared
            weight[place] = before


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weight_that_keeps_its_unit_at_rest_is_not_hidden(dtype):
    check_weight_that_keeps_at_rest(dtype, "cpu")
