"""Every backend's verbs and neurons are those of the reference, each within a derived bound (`bounds`), of any layout.

A verb may differ from the reference by gamma_n times the same verb on absolute values.
"""

import numpy as np
import pytest
from bounds import (
    difference_error,
    gamma,
    rate_error,
    softmax_error,
    softmax_roundings,
    verb_bound,
)
from compiled import COMPILED, MODULES
from hypothesis import given, settings
from hypothesis import strategies as st

import eqkernel as eq
from eqkernel import cpu, reference

DTYPES = ("float32", "float64")
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", MODULES)
def test_an_unlikely_class_keeps_its_digits(backend, dtype):
    """The loss is its logarithm; what is less likely than the least normal number may count as that."""
    gap = np.linspace(0, 85, 500)
    drive = np.stack([np.zeros_like(gap), -gap], 1).astype(dtype)
    exact, found = np.empty((500, 2)), np.empty((500, 2), dtype)
    reference.neurons.rate(exact, drive.astype(float), "softmax")
    MODULES[backend].neurons.rate(found, drive, "softmax")
    within(found, exact, exact * gamma(softmax_roundings(2, dtype) + gap[:, None], dtype), "softmax")
    drive[:] = [[0, -2000]]
    MODULES[backend].neurons.rate(found, drive, "softmax")
    assert (found[:, 1] <= 1.001 * np.finfo(dtype).tiny).all()


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


@pytest.mark.parametrize("backend", COMPILED)
def test_the_right_number_of_weights_in_another_shape_is_refused(backend):
    drive = np.zeros((2, 3))
    with pytest.raises(ValueError):
        MODULES[backend].dense.drive_post(drive, np.ones((2, 4)), np.ones((4, 3)))
    assert not drive.any()
