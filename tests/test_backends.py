"""Every backend computes what the reference specifies: verbs, phases and updates, each within a derived bound.

No tolerance here is chosen by hand. A verb may differ from the reference by gamma_n times the same verb on
absolute values; a settled state by the fixed point of its rounding errors under the network's contraction; an
update by what the error of its gradient and its own roundings move the weight (`bounds` has the derivations).
Where an update is not smooth, as Adam's first step at a gradient near 0, the bound is the update itself at both
ends of the gradient's interval.
"""

import numpy as np
import pytest
from bounds import (
    UNIT,
    Contraction,
    difference_error,
    gamma,
    rate_error,
    softmax_error,
    verb_bound,
)
from compiled import COMPILED, HERE, MODULES
from hypothesis import given, settings
from hypothesis import strategies as st

import eqkernel as eq
from eqkernel import cpu, reference
from eqkernel.interop import to_host

DTYPES = ("float32", "float64")
FORMS = [("difference", "frozen"), ("mean-difference", "frozen"), ("plus-minus", "frozen"), ("plus-minus", "live")]
RATES = ("hard-sigmoid", "sigmoid", "tanh", "linear", "fhn")
SIZES = (1, 2, 7, 13, 31, 32, 33, 47, 97)
VERBS = [
    (stem, verb)
    for stem in ("dense", "bias", "lateral")
    for verb in ("energy", "drive_post", "drive_pre", "hebbian")
    if (stem, verb) != ("bias", "drive_pre")
]
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True, database=None)
widths = st.sampled_from(SIZES)
seeds = st.integers(0, 2**31)


def float64(arrays):
    return [a.astype(float) if isinstance(a, np.ndarray) else a for a in arrays]


def within(found, exact, bound, what=""):
    error = abs(np.asarray(found, float) - exact)
    assert found.dtype in (np.float32, np.float64) and found.shape == np.shape(exact)
    assert (error <= bound).all(), f"{what}: error {error.max():.3g} beyond {np.max(bound):.3g}"


# -- verbs ---------------------------------------------------------------------------------------------------------


def verb_arguments(stem, verb, dtype, batch, n_pre, n_post, seed):
    """(out, arguments): what the verb adds into, random already, and what it reads."""
    rng = np.random.default_rng(seed)
    n_pre = n_post if stem == "lateral" else n_pre
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    pre = None if stem == "bias" else draw(batch, n_pre)
    post, weight = draw(batch, n_post), draw(n_post) if stem == "bias" else draw(n_post, n_pre)
    return {
        "energy": (draw(batch), (pre, post, weight)),
        "drive_post": (draw(batch, n_post), (pre, weight)),
        "drive_pre": (draw(batch, n_pre), (post, weight)),
        "hebbian": (draw(*weight.shape), (pre, post, -0.3)),
    }[verb]


def check_verb(stem, verb, dtype, batch, n_pre, n_post, seed, backend=cpu):
    out, arguments = verb_arguments(stem, verb, dtype, batch, n_pre, n_post, seed)
    found, exact = out.copy(), out.astype(float)
    assert getattr(getattr(backend, stem), verb)(found, *arguments) is None
    getattr(getattr(reference, stem), verb)(exact, *float64(arguments))
    summed = {"energy": n_pre + n_post, "drive_post": n_pre, "drive_pre": n_post, "hebbian": batch}[verb]
    if stem != "dense":
        summed += n_post
    # The sum, and: product by scale or 1/2, the rounding of scale, the sum into `out`.
    bound = verb_bound(stem, verb, out.astype(float), float64(arguments), dtype, summed + 5)
    within(found, exact, bound, f"{stem}.{verb}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("stem", "verb"), VERBS)
@pytest.mark.parametrize("backend", COMPILED)
@PROPERTY
@given(batch=widths, n_pre=widths, n_post=widths, seed=seeds)
def test_verbs(backend, stem, verb, dtype, batch, n_pre, n_post, seed):
    check_verb(stem, verb, dtype, batch, n_pre, n_post, seed, MODULES[backend])


def check_rates(neuron, dtype, n, seed, backend=cpu):
    """rate, relax and difference on drives from tiny to saturating."""
    rng = np.random.default_rng(seed)
    drive = (rng.standard_normal((3, n)) * 10 ** rng.uniform(-3, 1, (3, n))).astype(dtype)
    c = (rng.standard_normal((3, n)) * 10 ** rng.uniform(-9, 0, (3, n))).astype(dtype)
    state = rng.uniform(0, 1, (3, n)).astype(dtype)
    exact, found = np.empty((3, n)), np.empty((3, n), dtype)
    reference.neurons.rate(exact, drive.astype(float), neuron)
    error = rate_error(exact, neuron, dtype)

    backend.neurons.rate(found, drive, neuron)
    within(found, exact, error, "rate")

    found, relaxed = state.copy(), state.astype(float)
    backend.neurons.relax(found, drive, 0.3, neuron)
    reference.neurons.relax(relaxed, drive.astype(float), 0.3, neuron)
    within(found, relaxed, 0.3 * error + gamma(4, dtype) * (abs(state) + 0.3 * (abs(exact) + abs(state))), "relax")

    found, secant = np.empty((3, n), dtype), np.empty((3, n))
    backend.neurons.difference(found, drive, c, neuron)
    reference.neurons.difference(secant, drive.astype(float), c.astype(float), neuron)
    within(found, secant, difference_error(c.astype(float), neuron, dtype), "difference")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("neuron", RATES)
@pytest.mark.parametrize("backend", COMPILED)
@PROPERTY
@given(n=widths, seed=seeds)
def test_neurons(backend, neuron, dtype, n, seed):
    check_rates(neuron, dtype, n, seed, MODULES[backend])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("neuron", RATES)
@pytest.mark.parametrize("backend", COMPILED)
def test_potential_and_softmax(backend, neuron, dtype):
    neurons, rng = MODULES[backend].neurons, np.random.default_rng(0)
    state = rng.uniform(0.01, 0.99, (5, 33)).astype(dtype)
    found, exact = np.ones(5, dtype), np.ones(5)
    neurons.potential(found, state, neuron)
    reference.neurons.potential(exact, state.astype(float), neuron)
    # Sums of 33 terms of at most 1, each with at most 8 roundings of numbers up to 1: |x ln x| <= 2 ln 2 for x < 2.
    within(found, exact, gamma(33 + 16, dtype) * (33 + 1), "potential")
    drive = (4 * rng.standard_normal((5, 33))).astype(dtype)
    found, exact = np.empty((5, 33), dtype), np.empty((5, 33))
    neurons.rate(found, drive, "softmax")
    reference.neurons.rate(exact, drive.astype(float), "softmax")
    within(found, exact, softmax_error(33, dtype), "softmax")


LAYOUTS = {
    "F order": np.asfortranarray,
    "strided": lambda a: (
        np.repeat(np.repeat(a, 2, 0), 2, -1)[tuple(slice(None, None, 2) for _ in a.shape)]
        if a.ndim > 1
        else np.repeat(a, 2)[::2]
    ),
    "reversed": lambda a: a[::-1].copy()[::-1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("stem", "verb"), VERBS)
@pytest.mark.parametrize("backend", COMPILED)
def test_an_array_of_any_layout_is_read_right_or_refused(backend, stem, verb, dtype, layout):
    """Each argument in turn, the output too; a refusal is an EqkernelError and leaves the output as it was."""
    plain, arguments = verb_arguments(stem, verb, dtype, 5, 7, 9, 0)
    exact = plain.astype(float)
    getattr(getattr(reference, stem), verb)(exact, *float64(arguments))
    bound = verb_bound(stem, verb, plain.astype(float), float64(arguments), dtype, 30)
    for place in range(-1, len(arguments)):
        out, given_ = plain.copy(), list(arguments)
        if place < 0:
            out = LAYOUTS[layout](out)
        elif isinstance(given_[place], np.ndarray):
            given_[place] = LAYOUTS[layout](given_[place])
        before = out.copy()
        try:
            getattr(getattr(MODULES[backend], stem), verb)(out, *given_)
        except eq.EqkernelError:
            np.testing.assert_array_equal(out, before)
        else:
            within(out, exact, bound, f"argument {place}")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("neuron", RATES)
@pytest.mark.parametrize("backend", COMPILED)
def test_neurons_read_any_layout_right_or_refuse(backend, neuron, dtype, layout):
    neurons = MODULES[backend].neurons
    drive = np.random.default_rng(0).standard_normal((5, 9)).astype(dtype)
    calls = {
        "rate": (lambda out, d: neurons.rate(out, d, neuron)),
        "relax": (lambda out, d: neurons.relax(out, d, 0.5, neuron)),
        "difference": (lambda out, d: neurons.difference(out, d, d, neuron)),
    }
    for name, call in calls.items():
        expected = np.zeros_like(drive)
        call(expected, drive)
        out = np.zeros_like(drive)
        call(out, LAYOUTS[layout](drive))
        np.testing.assert_array_equal(out, expected, name)
        out = LAYOUTS[layout](np.zeros_like(drive))
        try:
            call(out, drive)
        except eq.EqkernelError:
            assert not out.any()
        else:
            np.testing.assert_array_equal(out, expected, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("stem", "verb"), VERBS)
@pytest.mark.parametrize("backend", COMPILED)
def test_a_shape_that_does_not_fit_is_refused(backend, stem, verb, dtype):
    """A kernel that trusts its shapes would read memory that is not its own."""
    out, arguments = verb_arguments(stem, verb, dtype, 5, 7, 9, 0)
    for place, argument in enumerate(arguments):
        if not isinstance(argument, np.ndarray):
            continue
        wrong = list(arguments)
        wrong[place] = np.ones([n + 3 for n in argument.shape], dtype)
        before = out.copy()
        with pytest.raises(ValueError):
            getattr(getattr(MODULES[backend], stem), verb)(out, *wrong)
        np.testing.assert_array_equal(out, before)


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
    form, nudge = draw(st.sampled_from(FORMS))
    schedule = eq.Schedule(
        gamma=draw(st.sampled_from([1.0, 0.5, 0.01])),
        free_steps=draw(st.integers(1, 7)),
        nudged_steps=draw(st.integers(1, 5)),
        order=draw(st.sampled_from(["synchronous", "even-odd", "sweep"])),
        form=form,
        nudge=nudge,
        tolerance=None,
        step=draw(st.sampled_from([1.0, 0.5])),
    )
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
