"""Convolutions: the verbs against the matrix of `maps`, adjoints, pooling, geometries that do not fit, weight files."""

from itertools import product

import numpy as np
import pytest
from maps import Maps

import eqkernel as eq
from eqkernel import reference
from eqkernel.geometry import conv_geometry

BATCH = 3
CASES = [  # map of pre, kernel, stride, padding, pool, window
    (pre, kernel, stride, padding, pool, window)
    for pre, kernel, stride in product([(7, 6, 2), (5, 9, 1)], (1, 2, 3, 5), (1, 2, 3))
    for padding in range(kernel)
    for pool, window in (("none", 2), ("average", 2), ("max", 2), ("max", 3))
    if min((side + 2 * padding - kernel) // stride + 1 for side in pre[:2]) >= (1 if pool == "none" else window)
]


def problem(pre, kernel, stride, padding, pool, window, seed=0):
    """(matrix maps, geometry, winners, pre, post, weight) of a random case with three channels out."""
    size = 1 if pool == "none" else window
    post = *(((side + 2 * padding - kernel) // stride + 1) // size for side in pre[:2]), 3
    geometry = conv_geometry("it", pre, post, kernel, stride, padding, pool, window)
    rng = np.random.default_rng(seed)
    s_pre, s_post = rng.standard_normal((BATCH, geometry.n_pre)), rng.standard_normal((BATCH, geometry.n_post))
    weight = rng.standard_normal(geometry.weight_shape)
    winners = None
    if pool == "max":
        winners = np.full((BATCH, geometry.n_post), -1, np.int32)
        reference.conv.choose(winners, s_pre, weight, geometry)
    maps = Maps(eq.Conv(0, 1, kernel, stride, padding, pool, window), pre, post)
    return maps, geometry, winners, s_pre, s_post, weight


def check_verbs(*case):
    """Every verb is what the matrix says; adds to what is there; and is the adjoint of the others to rounding."""
    maps, geometry, winners, pre, post, weight = problem(*case)
    A = maps.matrix(weight, pre)
    close = {"rtol": 0, "atol": 1e-12 * abs(A).sum(axis=(1, 2)).max()}
    up, down, energy = np.ones_like(post), np.ones_like(pre), np.ones(BATCH)
    reference.conv.drive_post(up, pre, weight, geometry, winners)
    reference.conv.drive_pre(down, post, weight, geometry, winners)
    reference.conv.energy(energy, pre, post, weight, geometry, winners)
    np.testing.assert_allclose(up - 1, (A @ pre[..., None])[..., 0], **close)
    np.testing.assert_allclose(down - 1, (post[:, None] @ A)[:, 0], **close)
    np.testing.assert_allclose(1 - energy, (post * (up - 1)).sum(axis=1), **close)
    trace = np.ones_like(weight)
    reference.conv.hebbian(trace, pre, post, -0.3, geometry, winners)
    exact = maps.kernel(weight, pre, post[:, :, None] * pre[:, None])
    np.testing.assert_allclose(trace - 1, -0.3 * exact, **close)


def check_adjoint(*case):
    """|<K u, v> - <u, K^T v>| and |<K u, v> - <K, hebbian(u, v)>| within 1e-12 of |K u| |v|."""
    _, geometry, winners, u, v, weight = problem(*case)
    up, down, trace = np.zeros_like(v), np.zeros_like(u), np.zeros_like(weight)
    reference.conv.drive_post(up, u, weight, geometry, winners)
    reference.conv.drive_pre(down, v, weight, geometry, winners)
    reference.conv.hebbian(trace, u, v, 1.0, geometry, winners)
    size = np.linalg.norm(up) * np.linalg.norm(v)
    assert abs(np.vdot(up, v) - np.vdot(u, down)) <= 1e-12 * size
    assert abs(np.vdot(up, v) - np.vdot(weight, trace)) <= 1e-12 * size


def check_taps(*case):
    """Each tap of the Hebbian trace is the slope of the energy, by central differences, the border's too."""
    _, geometry, winners, pre, post, weight = problem(*case)
    trace = np.zeros_like(weight)
    reference.conv.hebbian(trace, pre, post, 1.0, geometry, winners)
    slopes = np.empty_like(weight)
    for i in np.ndindex(weight.shape):
        ends = []
        for shift in (1e-4, -1e-4):
            moved, energy = weight.copy(), np.zeros(BATCH)
            moved[i] += shift
            reference.conv.energy(energy, pre, post, moved, geometry, winners)
            ends.append(energy.sum())
        slopes[i] = -(ends[0] - ends[1]) / 2e-4
    assert abs(trace - slopes).max() <= 1e-6 * abs(slopes).max()


@pytest.mark.parametrize("case", CASES)
def test_verbs_are_those_of_the_matrix(case):
    check_verbs(*case)


@pytest.mark.parametrize("case", CASES)
def test_each_verb_is_the_adjoint_of_the_others(case):
    check_adjoint(*case)


@pytest.mark.parametrize("case", CASES[::7])
def test_every_tap_is_a_slope_of_the_energy(case):
    check_taps(*case)


def test_one_convolution_by_hand():
    """The one place where the order of taps and places does not follow from anything else: no flip, row by row."""
    geometry = conv_geometry("it", (3, 3, 1), (1, 1, 1), 2, 1, 0, "max", 2)
    image = np.arange(9.0)[None]
    weight = np.array([1.0, 10, 100, 1000]).reshape(1, 2, 2, 1)
    winners = np.zeros((1, 1), np.int32)
    reference.conv.choose(winners, image, weight, geometry)
    assert winners == 3  # the last of the four places, where the image is largest
    for place, corner in enumerate((0, 1, 3, 4)):
        drive = np.zeros((1, 1))
        reference.conv.drive_post(drive, image, weight, geometry, np.array([[place]], np.int32))
        assert drive == corner + 10 * (corner + 1) + 100 * (corner + 3) + 1000 * (corner + 4)


def test_the_first_of_equals_wins():
    geometry = conv_geometry("it", (5, 5, 1), (2, 2, 3), 1, 1, 0, "max", 2)
    winners = np.full((1, 12), 9, np.int32)
    reference.conv.choose(winners, np.ones((1, 25)), np.ones((3, 1, 1, 1)), geometry)
    assert not winners.any()


MISFITS = {
    "a map of 7 x 6 through a 3 x 3 kernel, stride 2, padding 1, pooled by 1, is 4 x 3, and layer 1 is 3 x 3": (
        (7, 6, 1), (3, 3, 2), {"kernel": 3, "stride": 2, "padding": 1}),
    "is 4 x 3, and layer 1 is 4 x 5": ((7, 6, 1), (4, 5, 2), {"kernel": 3, "stride": 2, "padding": 1}),
    "its pre layer has size 42; give a map": (42, (4, 3, 2), {}),
    "its post layer has size 12; give a map": ((7, 6, 1), 12, {}),
    "leaves nothing of a map of 7 x 6": ((7, 6, 1), (1, 1, 1), {"kernel": 9}),
    "leaves nothing of a map of 3 x 9": ((3, 9, 1), (1, 5, 1), {"kernel": 5}),
    "padding 3 must be less than the kernel, 3": ((7, 6, 1), (7, 6, 1), {"kernel": 3, "padding": 3}),
    "stride must be a whole number of at least 1, not 0": ((7, 6, 1), (7, 6, 1), {"stride": 0}),
    "a pooling window must be a whole number of at least 2, not 1": (
        (7, 6, 1), (7, 6, 1), {"pool": "max", "window": 1}),
    "unknown pool 'maximum': did you mean": ((7, 6, 1), (7, 6, 1), {"pool": "maximum"}),
}  # fmt: skip


@pytest.mark.parametrize("message", MISFITS)
def test_what_does_not_fit_is_refused_with_its_numbers(message):
    pre, post, options = MISFITS[message]
    layers = [eq.Layer(pre), eq.Layer(post, "tanh"), eq.Layer(3, "softmax")]
    with pytest.raises(eq.EqkernelError) as caught:
        eq.Network(layers, [eq.Conv(0, 1, **options), eq.Dense(1, 2)])
    assert message in str(caught.value)
    assert "connection conv.0-1" in str(caught.value) or "unknown pool" in message


def test_a_convolution_within_a_layer_is_refused():
    layers = [eq.Layer((7, 6, 1)), eq.Layer((7, 6, 2), "tanh"), eq.Layer(3, "softmax")]
    with pytest.raises(eq.EqkernelError, match="use Lateral"):
        eq.Network(layers, [eq.Conv(0, 1, 3, padding=1), eq.Conv(1, 1, 3, padding=1), eq.Dense(1, 2)])


@pytest.mark.parametrize("size", [(7, 6), (7, 6, 0), (7, 6.5, 1), ()])
def test_a_map_has_three_whole_sides(size):
    with pytest.raises(eq.EqkernelError, match="a map is"):
        eq.Layer(size)


def network(**options):
    layers = [eq.Layer((8, 7, 1)), eq.Layer((4, 3, 3), "tanh"), eq.Layer((2, 1, 4), "tanh"), eq.Layer(3, "softmax")]
    wires = [eq.Conv(0, 1, 3, padding=1, pool="max"), eq.Conv(1, 2, 3, 1, 1, "average"), eq.Dense(2, 3)]
    return eq.Network(layers, [*wires, *map(eq.Bias, (1, 2, 3))], **options)


def test_a_weight_file_keeps_maps_and_convolutions(tmp_path):
    net = network(seed=3)
    net.save(tmp_path / "net.safetensors")
    other = eq.Network.load(tmp_path / "net.safetensors")
    assert other.layers == net.layers and other.connections == net.connections and other.shapes == net.shapes
    np.testing.assert_array_equal(other.buffer, net.buffer)
    assert repr(net).startswith("Network(8x7x1-4x3x3-2x1x4-3, ")


def test_initial_kernels_are_glorot_uniform_over_their_taps():
    layers = [eq.Layer((28, 28, 4)), eq.Layer((24, 24, 32), "tanh"), eq.Layer(3, "softmax")]
    kernel, _ = eq.Network(layers, [eq.Conv(0, 1), eq.Dense(1, 2)]).parameters
    limit = np.sqrt(6 / (25 * (4 + 32)))
    assert 0.98 * limit < abs(kernel).max() <= limit


def test_a_map_shares_one_bias_per_channel():
    assert [p.shape for p in network().parameters[3:]] == [(3,), (4,), (3,)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_conv_net_learns(dtype):
    """Bars against crosses of bars: the loss falls to nearly nothing."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 0.2, (96, 8, 7, 1))
    y = np.arange(96) % 3
    x[y == 0, :, 3] += 0.8
    x[y == 1, 4] += 0.8
    net, optimiser = network(dtype=dtype, schedule="few-step"), eq.Adam(0.02)
    x = x.reshape(96, -1)
    losses = [eq.train_step(net, x, y, beta=0.1, optimiser=optimiser).loss for _ in range(60)]
    assert losses[-1] < 0.02 * losses[0]
    assert (eq.predict(net, x) == y).all()
