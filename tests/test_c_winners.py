"""Max pooling in the C library: maps that are mostly zeros, and room for what pools."""

import numpy as np
import pytest
from test_bindings import restore_variant  # noqa: F401  (a fixture; skips without the library)
from test_c_zeros import check_workspace
from test_conv_backends import verb_arguments
from test_verbs import DTYPES, float64

import eqkernel as eq
from eqkernel import reference
from eqkernel.bindings import backend
from eqkernel.geometry import conv_geometry

GEOMETRY = conv_geometry("here", (9, 8, 5), (4, 4, 19), kernel=3, stride=1, padding=1, pool="max", window=2)


def check_infinity(verb, bad, dtype):
    """What is not finite meets the zeros of the map, as in the reference: there are NaNs, and in the same places."""
    out, arguments = verb_arguments(verb, dtype, 3, GEOMETRY, seed=0)
    factor = arguments[1 if verb == "drive_pre" else 0]  # the weights, or the states of pre
    factor.flat[factor.size // 2] = bad
    found, exact = out.copy(), out.astype(float)
    getattr(backend.conv, verb)(found, *arguments)
    with np.errstate(invalid="ignore"):
        getattr(reference.conv, verb)(exact, *float64(arguments))
    assert np.isnan(exact).any() and not np.isnan(exact).all()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(exact))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("verb", ["drive_pre", "hebbian"])
def test_what_is_not_finite_meets_the_zeros_of_a_map(verb, bad, dtype):
    check_infinity(verb, bad, dtype)


def check_bits(verb, dtype):
    """The winners of a post, and the map that they make, which a convolution without pooling takes whole."""
    g, batch = GEOMETRY, 5
    out, arguments = verb_arguments(verb, dtype, batch, g, seed=0)
    arguments = list(arguments)
    place, winners = (0 if verb == "drive_pre" else 1), arguments[-1]
    arguments[place][:, ::3] = 0
    whole = np.zeros((batch, g.map_height, g.map_width, g.post_channels), dtype)
    for y, x, channel in np.ndindex(g.post_height, g.post_width, g.post_channels):
        at = (y * g.post_width + x) * g.post_channels + channel
        for sample, winner in enumerate(winners[:, at]):
            whole[sample, 2 * y + winner // 2, 2 * x + winner % 2, channel] = arguments[place][sample, at]
    found, exact = out.copy(), out.copy()
    getattr(backend.conv, verb)(found, *arguments)
    arguments[place], arguments[-1] = whole.reshape(batch, -1), None
    arguments[-2] = conv_geometry("here", (9, 8, 5), whole.shape[1:], 3, 1, 1, "none", 2)
    getattr(backend.conv, verb)(exact, *arguments)
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("verb", ["drive_pre", "hebbian"])
def test_a_map_without_its_zeros_is_summed_to_the_bits_of_the_whole_map(verb, dtype):
    check_bits(verb, dtype)


POOLED = {"max": (2, 2, 1), "average": (2, 2, 96)}


def check_room(pool, dtype):
    """Winners of a map smaller than the state below it, whose frames need more room, and many averaged kernels."""
    layers = [eq.Layer((9, 9, 1)), eq.Layer((9, 9, 7), "tanh"), eq.Layer(POOLED[pool], "tanh"), eq.Layer(3)]
    wires = [eq.Conv(0, 1, 1), eq.Conv(1, 2, 5, 2, 2, pool, 2), eq.Dense(2, 3), *map(eq.Bias, (1, 2, 3))]
    net = eq.Network(layers, wires, "squared-error", eq.SCHEDULES["few-step"], dtype, "c")
    for batch in (1, 7, 16):
        check_workspace(net, np.random.default_rng(0).random((batch, 81), dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pool", POOLED)
def test_what_pools_stays_in_the_workspace(pool, dtype):
    check_room(pool, dtype)
