"""Every backend settles and learns as the reference specifies: phases and updates, each within a derived bound.

No tolerance here is chosen by hand. A settled state may differ from the reference by the fixed point of its rounding
errors under the network's contraction; an update by what the error of its gradient and its own roundings move the
weight (`bounds` has the derivations). Where an update is not smooth, as Adam's first step at a gradient near 0, the
bound is the update itself at both ends of the gradient's interval.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from bounds import (
    UNIT,
    Contraction,
    gamma,
)
from compiled import HERE
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verbs import DTYPES, PROPERTY, RATES, float64, seeds, widths, within

import eqkernel as eq
import eqkernel.cpu.layered
import eqkernel.cuda.layered
from eqkernel import backends
from eqkernel.interop import to_host

FORMS = [("difference", "frozen"), ("mean-difference", "frozen"), ("plus-minus", "frozen"), ("plus-minus", "live")]


# -- phases --------------------------------------------------------------------------------------------------------


def twins(net):
    """The same network on the reference backend, parameters and all."""
    twin = eq.Network(
        net.layers, net.connections, net.cost, net.schedule, dtype="float64", backend="reference", seed=net.seed
    )
    for theirs, mine in zip(twin.parameters, net.parameters, strict=True):
        theirs[...] = to_host(mine)
    return twin


def contract(net, kappa=0.55):
    """Scale the weights so that no drive amplifies an error by more than `kappa`, nor a live nudge by 1."""
    bound = Contraction(net, net.schedule.but(gamma=1.0), [np.ones(1)])
    for parameter, connection in zip(net.parameters, net.connections, strict=True):
        if net.has_readout and connection.pre == net.top:
            parameter /= parameter.dtype.type(max(1, bound.fan_in, bound.fan_out))
        elif connection.pre:
            parameter *= parameter.dtype.type(kappa / max(kappa, bound.kappa))
        elif connection.pre is None:
            parameter += np.random.default_rng(5).uniform(-0.2, 0.4, parameter.shape).astype(parameter.dtype)


# Steps of both phases, and their order; one in three is feed-forward, and learns otherwise.
PACE = st.tuples(st.integers(1, 7), st.integers(1, 5), st.sampled_from(["synchronous", "even-odd", "sweep"]))
PACES = st.one_of(PACE, PACE, st.just((1, 1, "sweep")))


@st.composite
def schedules(draw):
    form, nudge = draw(st.sampled_from(FORMS))
    gain, step = draw(st.sampled_from([1.0, 0.5, 0.01])), draw(st.sampled_from([1.0, 0.5]))
    return eq.Schedule("drawn", gain, *draw(PACES), form, nudge, tolerance=None, step=step)


OUTPUT = {"cross-entropy": "softmax", "binary-cross-entropy": "sigmoid"}  # other costs take any neuron


@st.composite
def networks(draw, backend=None, dtypes=DTYPES, skips=True):
    """A network of 1 to 3 hidden layers, with or without lateral and skip connections, whose couplings contract."""
    sizes = draw(st.lists(widths, min_size=3, max_size=5))
    cost = draw(st.sampled_from(["squared-error", "cross-entropy", "binary-cross-entropy"]))
    neuron = draw(st.sampled_from(RATES))
    last = len(sizes) - 1
    adaptation = draw(st.sampled_from([0.0, 0.0, 0.1]))
    layers = [eq.Layer(n, neuron, adaptation, 1.5) for n in sizes[:-1]]
    layers.append(eq.Layer(sizes[-1], OUTPUT.get(cost, neuron)))
    wires = [eq.Dense(l, l + 1) for l in range(last)] + [eq.Bias(l) for l in range(1, last + 1)]
    wires += [eq.Lateral(l) for l in range(1, last) if draw(st.booleans())]
    if skips and draw(st.integers(0, 3)) == 0:
        wires.append(eq.Dense(draw(st.integers(0, last - 3 if last > 2 else 0)), last - 1))
        wires = list(dict.fromkeys(wires))
    schedule = draw(schedules())
    dtype, seed = draw(st.sampled_from(dtypes)), draw(seeds)
    net = eq.Network(layers, wires, cost, schedule, dtype, backend or HERE[seed % len(HERE)], seed)
    contract(net)
    return net


def check_phases(net, batch, seed, variant="centered", beta=0.25, split=False):
    """Free and nudged phase of `net` within the bound of those of its reference twin; twice in the same memory."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (batch, net.sizes[0])).astype(net.dtype)
    y = rng.integers(0, net.sizes[-1], batch)
    twin = twins(net)
    free, exact = eq.free_phase(net, x), eq.free_phase(twin, x)
    nudged, twin_nudged = (eq.nudged_phase(n, f, y, beta, variant) for n, f in ((net, free), (twin, exact)))
    states = [*exact.state, *twin_nudged.mean]
    bound = Contraction(net, net.schedule, states, beta, split)
    settled = bound.free()
    largest = 2 * beta * max(abs(d).max() for d in twin_nudged.difference)
    pull = max(1.0, bound.fan_out) * (1 + bound.size + largest)  # bounds the nudge at beta = 1, live ones too
    mean, difference = bound.nudged(net.schedule.form, beta, variant, pull, max(largest, 2 * beta * pull))
    assert (nudged.mean[0] == x).all() and not nudged.difference[0].any()
    for l in range(1, len(net.sizes)):
        readout = net.has_readout and l == len(net.sizes) - 1
        out = bound.readout(settled) if readout else settled
        within(free.state[l], exact.state[l], out, f"free state of layer {l}")
        within(nudged.mean[l], twin_nudged.mean[l], out if readout else mean, f"mean of layer {l}")
        slack = out + gamma(2, net.dtype) * 2 if readout else difference
        within(nudged.difference[l], twin_nudged.difference[l], slack, f"difference of layer {l}")
    assert (free.steps, nudged.steps) == (exact.steps, twin_nudged.steps)
    span = 2 * beta if variant == "centered" else beta
    assert abs(free.residual - exact.residual) <= 2 * settled + gamma(2, net.dtype) * bound.size
    assert abs(nudged.residual - twin_nudged.residual) <= 2 * (
        difference + mean / span + gamma(4, net.dtype) * bound.size
    )

    eq.free_phase(net, x[::-1], reuse=True)  # memory that another batch has used must not show
    again = eq.free_phase(net, x, reuse=True)
    for first, second in zip(free.state, again.state, strict=True):
        np.testing.assert_array_equal(first, second)


def check_wide(backend, dtype):
    """Layers so wide that a kernel takes W^T and a lateral matrix in several chunks."""
    schedule = eq.Schedule("wide", 0.5, 3, 2, "even-odd", "plus-minus", "live", None)
    net = eq.Network.recurrent(30, 70, 300, 5, schedule=schedule, dtype=dtype, backend=backend)
    contract(net)
    check_phases(net, 17, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", HERE)
def test_phases_of_wide_layers(backend, dtype):
    check_wide(backend, dtype)


@settings(PROPERTY, max_examples=150)
@given(net=networks(), batch=widths, seed=seeds, variant=st.sampled_from(["centered", "positive", "negative"]))
def test_phases(net, batch, seed, variant):
    check_phases(net, batch, seed, variant)


def test_the_bound_of_the_phases_is_worth_having():
    """A float32 network of ordinary size is held to a few 1e-5, a float64 one to 1e-13."""
    for dtype, worth in (("float32", 1e-4), ("float64", 1e-12)):
        net = eq.Network.dense(33, 31, 13, dtype=dtype, schedule="converged")
        contract(net)
        bound = Contraction(net, net.schedule, [np.ones(1)], 0.25)
        assert UNIT[dtype] < bound.free() < worth
        assert bound.nudged("difference", 0.25, "centered", 2.0, 1.0)[1] < 10 * worth


class OnDevice(np.ndarray):
    """An array that tells of its memory as CuPy's do."""

    data = property(lambda self: SimpleNamespace(ptr=self.ctypes.data))


@pytest.mark.parametrize("flat_of", [eq.cpu.layered._flat, eq.cuda.layered._flat], ids=["host", "device"])
def test_states_are_taken_for_one_array_only_where_they_are(flat_of):
    whole = np.arange(24.0).view(OnDevice)
    a, b, c = (whole[at : at + 8].reshape(2, 4) for at in (0, 8, 16))
    assert np.shares_memory(flat_of([None, a, b, c]), whole)
    assert flat_of([None, a, b, c]).tolist() == whole.tolist()
    square, row = np.arange(24.0).reshape(3, 2, 4).view(OnDevice), np.float32(whole).view(OnDevice)
    views = [c, b, a], [a, a, c], [a[:1], b[:1]], [a[::-1], b[::-1]], [square[1], square[2]], [row[8:], row[:8]]
    for blocks in views:
        assert flat_of([None, *blocks]).tolist() == np.concatenate([np.ravel(block) for block in blocks]).tolist()


# -- updates -------------------------------------------------------------------------------------------------------

DECAY, RATE = 0.1, 0.05
OPTIMISERS = {
    "SGD": lambda: eq.SGD(RATE, DECAY, schedule=lambda step: 0.5),
    "Momentum": lambda: eq.Momentum(RATE, 0.8, DECAY, schedule=lambda step: 0.5),
    "Adam": lambda: eq.Adam(RATE, (0.8, 0.95), 1e-8, DECAY, schedule=lambda step: 0.5),
}


def nudged_states(net, batch, seed, cancel=False):
    """Random mean and difference, as a nudged phase would return them; with `cancel` the gradient is rounding alone."""
    rng = np.random.default_rng(seed)
    mean = [rng.uniform(0, 1, (batch, n)).astype(net.dtype) for n in net.sizes]
    difference = [rng.standard_normal((batch, n)).astype(net.dtype) for n in net.sizes]
    difference[0][...] = 0
    if cancel:
        for m, d in zip(mean, difference, strict=True):
            m[...] = m[0]
            d[...] = d[0] * (-1.0) ** np.arange(batch)[:, None]
            d[-1] *= batch % 2 == 0
    return eq.Nudged(mean, difference, 1, 0.0, eq.Outcome.FIXED_STEPS, net.schedule)


def exact_gradient(net, nudged):
    """The gradient in float64, and the bound on the error of one computed in the net's dtype."""
    engine = twins(net).engine
    mean, difference = float64(nudged.mean), float64(nudged.difference)
    gradient = engine.gradient(mean, difference, net.schedule)
    size = engine.gradient([abs(m) for m in mean], [abs(d) for d in difference], net.schedule)
    slack = []
    for c in net.connections:
        places = net.sizes[c.post] // net.shapes[c.post][-1]
        if c.stem == "conv":
            g = c.geometry(net.shapes)
            places = g.map_height * g.map_width
        # Two sums over the batch and the places of a map; scale and its own rounding, the share of an average.
        slack.append(gamma(2 * len(mean[0]) * places + 12, net.dtype))
    return gradient, [n * abs(s) for n, s in zip(slack, size, strict=True)]


def papers_step(kind, w, g, m, v, t, decay):
    """(w, m, v) after step t = 1, 2, ... of the optimiser as published; w, g, m, v float64."""
    rate = 0.5 * RATE
    kept = w * (1 - rate * decay)
    if kind == "SGD":
        return kept - rate * g, m, v
    if kind == "Momentum":
        m = 0.8 * m + g
        return kept - rate * m, m, v
    m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
    return kept - rate * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8), m, v


def check_updates(net, kind, batch, seed, cancel=False, steps=3):
    """Steps of an optimiser from its start: weights and moments within the bound of the published equations.

    Each step is compared from the state that the network itself has reached. All steps of SGD and Momentum and
    the first of Adam are monotone in the gradient g, so their result lies between the exact steps at both ends
    of the interval of g. Later steps of Adam rise with g at most by a / D + |N| sqrt(b) / D^2 (N / D the exact
    quotient, a and b the weights of g in the corrected moments). To this come roundings: a few of each term,
    and for Adam those of the constants 1 - beta_1 and 1 - beta_2, formed from rounded betas: beta / (1 - beta)
    u relative to each moment, 4 u and 19 u / 2 in the quotient.
    """
    optimiser = OPTIMISERS[kind]()
    rate, few = 0.5 * RATE, gamma(8, net.dtype)
    for t in range(1, steps + 1):
        nudged = nudged_states(net, batch, seed + t, cancel)
        gradient, slack = exact_gradient(net, nudged)
        before = [to_host(w).astype(float) for w in net.parameters]
        first, second = (to_host(s).astype(float) for s in optimiser.moments_for(net.buffer))
        eq.hebbian_update(net, nudged, optimiser)
        assert optimiser.steps == t
        for i, (at, c) in enumerate(zip(net.offsets, net.connections, strict=True)):
            shape, n = before[i].shape, before[i].size
            m, v = (s[at : at + n].reshape(shape) if s.size else np.zeros(shape) for s in (first, second))
            decay = 0.0 if c.stem == "bias" else DECAY
            g, d, w = gradient[i], slack[i], before[i]
            new, new_m, _ = papers_step(kind, w, g, m, v, t, decay)
            ends = [papers_step(kind, w, g + e, m, v, t, decay)[0] for e in (d, -d)]
            rounding = few * (abs(w) + abs(new))
            if kind != "Adam":
                rounding += few * rate * (abs(new_m) + abs(m) + abs(g))
            else:
                a, b = 0.2 / (1 - 0.8**t), 0.05 / (1 - 0.95**t)
                mean = a * abs(g) + a * 4 * abs(m)  # of absolute values, as it may cancel
                denominator = np.sqrt(b * g**2 + 19 * b * v) + 1e-8
                relative = gamma(8 + 4 + 10, net.dtype)
                rounding += rate * relative * mean / denominator
                if t > 1:
                    steep = a / denominator + abs(mean) * np.sqrt(b) / denominator**2
                    ends = [new - rate * steep * d, new + rate * steep * d]
                else:
                    rounding += rate * relative
            found = to_host(net.parameters[i]).astype(float)
            low, high = np.minimum(*ends) - rounding, np.maximum(*ends) + rounding
            bad = (found < low) | (found > high)
            assert not bad.any(), f"{kind} step {t}, {c.name}: {abs(found - new)[bad].max():.3g} off"


@pytest.mark.parametrize("kind", OPTIMISERS)
@PROPERTY
@given(net=networks(skips=False), batch=widths, seed=seeds)
def test_updates(kind, net, batch, seed):
    check_updates(unbounded(net), kind, batch, seed)


@pytest.mark.parametrize("kind", OPTIMISERS)
@PROPERTY
@given(net=networks("reference", ["float64"]), batch=widths, seed=seeds)
def test_updates_of_the_reference(kind, net, batch, seed):
    check_updates(unbounded(net), kind, batch, seed)


@pytest.mark.parametrize("dtype", DTYPES)
def test_adams_first_step_where_the_gradient_is_all_rounding(dtype):
    """There g / |g| may be anything from -1 to 1, and no more."""
    net = eq.Network.dense(33, 31, 13, dtype=dtype)
    for batch in (2, 33, 64):
        check_updates(net, "Adam", batch, 7, cancel=True, steps=1)


def unbounded(net):
    """The same network with laterals that no projection touches, which would come after the optimiser's step."""
    wires = [eq.Lateral(c.post, 1e30) if c.stem == "lateral" else c for c in net.connections]
    other = eq.Network(net.layers, wires, net.cost, net.schedule, str(net.dtype), net.backend)
    for mine, theirs in zip(other.parameters, net.parameters, strict=True):
        mine[...] = theirs
    return other


def check_paces(backend, dtype):
    """Which schedules are feed-forward, where the update leaves a product out."""
    for pace in ((1, 1, "sweep"), (2, 1, "sweep"), (1, 2, "sweep"), (1, 1, "even-odd")):
        plan = eq.Schedule("drawn", 0.5, *pace, tolerance=None)
        net = eq.Network.recurrent(7, 13, 6, 5, bound=1e6, schedule=plan, dtype=dtype, backend=backend)
        check_updates(net, "SGD", 17, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", HERE)
def test_paces(backend, dtype):
    check_paces(backend, dtype)


@PROPERTY
@given(net=networks(dtypes=["float64"]), batch=widths, seed=seeds)
def test_ten_training_steps(net, batch, seed):
    """End to end in float64: the network and its twin learn the same, to the digits that ten steps leave."""
    check_training(net, batch, seed)


def check_training(net, batch, seed):
    rng = np.random.default_rng(seed)
    twin = twins(net)
    # Small steps: where training itself diverges, it magnifies the last digit without bound.
    one, other = eq.Momentum(1e-3), eq.Momentum(1e-3)
    for _ in range(10):
        x, y = rng.uniform(0, 1, (batch, net.sizes[0])), rng.integers(0, net.sizes[-1], batch)
        step, expected = (eq.train_step(n, x, y, optimiser=o) for n, o in ((net, one), (twin, other)))
        assert step.loss == pytest.approx(expected.loss, rel=1e-9, abs=1e-9)
    for mine, theirs in zip(net.parameters, twin.parameters, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9)


def test_the_fastest_backend_is_one_that_prefers_to_run_here(monkeypatch):
    fastest = backends.fastest()
    monkeypatch.setattr(backends, "_preferred", lambda module: module is not backends.load_backend(fastest))
    assert backends.fastest() != fastest


def test_a_network_that_no_backend_fuses_runs_on_the_fastest():
    net = eq.Network(
        [eq.Layer(6), eq.Layer(8, "tanh"), eq.Layer(7, "tanh"), eq.Layer(3, "linear")],
        [eq.Dense(0, 1), eq.Dense(1, 2), eq.Dense(0, 2), eq.Dense(2, 3)], "squared-error",
    )  # fmt: skip
    assert net.backend == backends.fastest()
