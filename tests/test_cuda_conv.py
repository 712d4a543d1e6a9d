"""Convolution on backend "cuda": the verbs as the reference has them, within the bound, and a network that learns."""

import numpy as np
import pytest
import shim
import test_conv
import test_gradient
from bounds import gamma
from cuda_twins import on_cuda
from test_backends import within

import eqkernel as eq
from eqkernel import reference
from eqkernel.cuda import device
from eqkernel.geometry import conv_geometry

pytestmark = shim.needed
CASES = [  # map of pre, kernel, stride, padding, pool, window
    ((7, 6, 2), 3, 1, 0, "none", 2),
    ((5, 9, 1), 5, 2, 2, "none", 2),
    ((7, 6, 2), 3, 1, 1, "average", 2),
    ((7, 6, 2), 2, 1, 0, "max", 2),
    ((11, 12, 3), 3, 1, 2, "max", 3),
    ((1, 1, 5), 1, 1, 0, "none", 2),
]


def verbs(case, dtype, seed=0):
    """verb -> (out, arguments before the geometry), of random states; the geometry; the winners."""
    _, geometry, winners, pre, post, weight = test_conv.problem(*case, seed)
    pre, post, weight = (a.astype(dtype) for a in (pre, post, weight))
    start = np.random.default_rng(seed).standard_normal
    return (
        {
            "energy": (start(len(pre)).astype(dtype), (pre, post, weight)),
            "drive_post": (start(post.shape).astype(dtype), (pre, weight)),
            "drive_pre": (start(pre.shape).astype(dtype), (post, weight)),
            "hebbian": (start(weight.shape).astype(dtype), (pre, post, -0.3)),
        },
        geometry,
        winners,
    )


def check_verbs(case, dtype):
    """Each verb within gamma_n of itself on absolute values, n the terms of its longest sum."""
    from eqkernel.cuda import conv

    calls, g, winners = verbs(case, dtype)
    upload = device.current().arrays.asarray
    taps = g.kernel**2
    terms = {
        "energy": taps * g.pre_channels + g.window**2 + g.n_post,
        "drive_post": taps * g.pre_channels + g.window**2,
        "drive_pre": taps * g.post_channels + g.window**2,
        "hebbian": len(calls["energy"][0]) * g.map_height * g.map_width + 2,
    }
    there = None if winners is None else upload(winners)
    for verb, (out, arguments) in calls.items():
        found, exact = upload(out), out.astype(float)
        size = -abs(exact) if verb == "energy" else abs(exact)
        double = [a.astype(float) if isinstance(a, np.ndarray) else a for a in arguments]
        getattr(conv, verb)(found, *(upload(a) if isinstance(a, np.ndarray) else a for a in arguments), g, there)
        getattr(reference.conv, verb)(exact, *double, g, winners)
        getattr(reference.conv, verb)(size, *map(abs, double), g, winners)
        within(found.get(), exact, gamma(terms[verb] + 6, dtype) * abs(size), verb)


@pytest.mark.parametrize(
    ("case", "dtype"), [*((case, "float32") for case in CASES), (CASES[4], "float64")], ids=str
)  # fmt: skip
def test_verbs(case, dtype):
    for order in (1, 2):
        with shim.running(seed=order):
            check_verbs(case, dtype)


def check_choice(case):
    """Small integers: many windows hold their maximum twice, and every sum is exact."""
    from eqkernel.cuda import conv

    _, geometry, winners, *_ = test_conv.problem(*case)
    rng = np.random.default_rng(0)
    state = rng.integers(-1, 2, (3, geometry.n_pre)).astype(np.float32)
    weight = rng.integers(-1, 2, geometry.weight_shape).astype(np.float32)
    reference.conv.choose(winners, state, weight, geometry)
    upload = device.current().arrays.asarray
    found = upload(np.full_like(winners, -1))
    conv.choose(found, upload(state), upload(weight), geometry)
    np.testing.assert_array_equal(found.get(), winners)


@pytest.mark.parametrize("case", [case for case in CASES if case[4] == "max"], ids=str)
def test_the_first_of_equals_wins(case):
    with shim.running():
        check_choice(case)


def test_traces_are_summed_by_many_blocks_as_by_one():
    """More places than a block takes: the parts are added in their order."""
    from eqkernel.cuda import conv

    geometry = conv_geometry("it", (17, 16, 1), (17, 16, 2), 3, 1, 1, "none", 2)
    rng = np.random.default_rng(0)
    pre, post = rng.standard_normal((4, geometry.n_pre)), rng.standard_normal((4, geometry.n_post))
    exact = np.zeros(geometry.weight_shape)
    reference.conv.hebbian(exact, pre, post, 0.5, geometry, None)
    with shim.running():
        arrays = device.current().arrays
        found = arrays.zeros(geometry.weight_shape, np.float64)
        conv.hebbian(found, arrays.asarray(pre), arrays.asarray(post), 0.5, geometry, None)
        np.testing.assert_allclose(found.get(), exact, rtol=0, atol=1e-12 * abs(exact).max())


@pytest.mark.parametrize("pool", ["none", "average"])
def test_the_contrast_is_the_gradient(pool):
    """A small convolutional network, as every other: cosine, and the fall of the error with beta."""
    side = 4 if pool == "none" else 2
    layers = [eq.Layer((6, 6, 1)), eq.Layer((side, side, 3), "tanh"), eq.Layer(7, "tanh"), eq.Layer(3, "softmax")]
    wires = [eq.Conv(0, 1, 3, pool=pool), eq.Bias(1), eq.Dense(1, 2), eq.Bias(2), eq.Dense(2, 3), eq.Bias(3)]
    schedule = test_gradient.SETTLED.but(gamma=0.5)
    host = eq.Network(layers, wires, "cross-entropy", schedule, "float64", "reference", seed=1)
    for parameter in host.parameters:
        parameter *= 0.5
    rng = np.random.default_rng(2)
    x, y = rng.random((4, 36)), rng.integers(0, 3, 4)
    with shim.running():
        net = on_cuda(host)
        test_gradient.check_cosines(net, x, y)
        test_gradient.check_order_of_error(net, x, y, ["centered"])


def test_training_learns_what_the_reference_learns():
    layers = [eq.Layer((6, 6, 1)), eq.Layer((2, 2, 3)), eq.Layer((2, 2, 2)), eq.Layer(3, "softmax")]
    wires = [eq.Conv(0, 1, 3, pool="max"), eq.Bias(1), eq.Conv(1, 2, 1), eq.Bias(2), eq.Dense(2, 3), eq.Bias(3)]
    fixed = eq.SCHEDULES["few-step"].but(tolerance=None)
    host = eq.Network(layers, wires, "cross-entropy", fixed, "float64", "reference", seed=1)
    rng = np.random.default_rng(2)
    with shim.running():
        net = on_cuda(host)
        one, other = eq.Adam(0.01), eq.Adam(0.01)
        for _ in range(4):
            x, y = rng.random((5, 36)), rng.integers(0, 3, 5)
            step, expected = eq.train_step(net, x, y, optimiser=one), eq.train_step(host, x, y, optimiser=other)
            assert step.loss == pytest.approx(expected.loss, rel=1e-9)
        np.testing.assert_allclose(net.buffer.get(), host.buffer, rtol=0, atol=1e-9)
