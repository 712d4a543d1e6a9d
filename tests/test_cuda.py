"""Backend "cuda" computes what the reference specifies: the checks of the other backends, on CUDA text.

Without a GPU the kernels run on the CPU (see `shim`), threads and blocks in three shuffled orders; the arrays are
strict, so that nothing which would fail with CuPy passes. `make test-gpu` runs the same tests on a GPU.
"""

from types import SimpleNamespace

import cuda_cases
import numpy as np
import pytest
import shim
import test_backends
import test_gradient
import test_verbs
from bounds import gamma, softmax_error
from cuda_twins import backend, on_cuda
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import cosine, relative_error
from shim.stand_in import StandIn

import eqkernel as eq
from eqkernel import reference
from eqkernel.cuda import conv, device, field, launcher, products
from eqkernel.cuda.workspace import Workspace
from eqkernel.geometry import conv_geometry
from eqkernel.interop import to_host

pytestmark = shim.needed
DTYPES = test_verbs.DTYPES
ORDERS = (1, 2, 3)  # seeds of the order in which threads and blocks run
SHAPES = [(1, 1, 1), (3, 7, 13), (33, 97, 31), (70, 31, 97)]
FIXED = eq.SCHEDULES["converged"].but(tolerance=None)
FEW = settings(max_examples=12, deadline=None, derandomize=True, database=None)
widths = st.sampled_from([1, 2, 7, 13, 33])
seeds = st.integers(0, 2**31)


# -- verbs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("stem", "verb"), test_verbs.VERBS)
def test_each_verb(stem, verb, dtype, order):
    with shim.running(seed=order):
        for shape in SHAPES:
            test_verbs.check_verb(stem, verb, dtype, *shape, order, backend())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(37, 150, 141), (137, 148, 36)], ids=str)
def test_a_product_is_the_same_bits_whatever_its_tile(sizes, dtype, monkeypatch):
    """Every tile, with and without asynchronous copies; rows that are multiples of 16 bytes, and rows that are not."""
    (batch, n_pre, n_post), rng, found = sizes, np.random.default_rng(0), []
    pre, post, weight = (
        rng.standard_normal(shape).astype(dtype) for shape in ((batch, n_pre), (batch, n_post), (n_post, n_pre))
    )
    for tile, threads in products.THREADS.items():
        if tile * weight.itemsize > 512:
            continue
        monkeypatch.setattr(products, "THREADS", {tile: threads})
        for capability in (75, 90):
            monkeypatch.setattr(StandIn, "capability", capability)
            with shim.running(seed=tile):
                verbs = backend().dense
                outs = [np.zeros_like(array) for array in (post, pre, weight)]
                verbs.drive_post(outs[0], pre, weight)
                verbs.drive_pre(outs[1], post, weight)
                verbs.hebbian(outs[2], pre, post, 0.5)
                found.append(outs)
    assert len(found) >= 4
    a, b, w = (array.astype(float) for array in (pre, post, weight))
    sums = [lambda a, b, w: a @ w.T, lambda a, b, w: b @ w, lambda a, b, w: 0.5 * b.T @ a]
    for out, total in zip(found[0], sums, strict=True):
        test_verbs.within(out, total(a, b, w), gamma(max(sizes) + 2, dtype) * total(abs(a), abs(b), abs(w)))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("neuron", test_verbs.RATES)
def test_neurons(neuron, dtype):
    with shim.running():
        for n in (1, 33, 300):
            test_verbs.check_rates(neuron, dtype, n, n, backend())


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax(dtype):
    drive = np.random.default_rng(0).standard_normal((9, 70)).astype(dtype) * 5
    exact, found = np.empty((9, 70)), np.empty((9, 70), dtype)
    reference.neurons.rate(exact, drive.astype(float), "softmax")
    with shim.running():
        backend().neurons.rate(found, drive, "softmax")
    test_verbs.within(found, exact, softmax_error(70, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 40), (1, 5, 9), (2, 19, 33)])
def test_diffusion(shape, boundary, dtype):
    """Every verb within gamma_n of itself with its terms' magnitudes; of a Laplacian these are four neighbours and 4 s.

    Roundings: three in a Laplacian, one for its product, one for each term of a sum, the scale and the last sum.
    """
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    weight, cells = np.array([0.7], dtype), int(np.prod(shape[1:]))

    def magnitude(state):
        laplacian, size = np.zeros(shape), abs(state.astype(float))
        reference.diffusion.drive_post(laplacian, size, np.array([2.0]), boundary=boundary)
        return laplacian + 8 * size

    both = (abs(b) * magnitude(a)).reshape(len(a), -1).sum(axis=1)
    calls = {
        "energy": (np.zeros(shape[0], dtype), (a, b, weight), cells + 6, 0.35 * both),
        "drive_post": (np.zeros(shape, dtype), (a, weight), 5, 0.35 * magnitude(a)),
        "drive_pre": (np.zeros(shape, dtype), (b, weight), 5, 0.35 * magnitude(b)),
        "hebbian": (np.zeros(1, dtype), (a, b, -0.3), cells + shape[0] + 7, 0.15 * both.sum()),
    }
    with shim.running():
        for verb, (out, arguments, roundings, size) in calls.items():
            exact = out.astype(float)
            getattr(reference.diffusion, verb)(exact, *test_verbs.float64(arguments), boundary=boundary)
            getattr(backend().diffusion, verb)(out, *arguments, boundary=boundary)
            test_verbs.within(out, exact, gamma(roundings, dtype) * size, verb)


def test_arrays_that_a_kernel_would_misread_are_refused():
    with shim.running():
        arrays = device.current().arrays
        good, weight = arrays.zeros((4, 6), np.float32), arrays.zeros((6, 6), np.float32)
        dense = pytest.importorskip("eqkernel.cuda").dense
        for bad, why in (
            (np.zeros((4, 6), np.float32), "device arrays"),
            (arrays.zeros((4, 7), np.float32), "shape"),
            (arrays.zeros((4, 6), np.float64), "float32 or all float64"),
            (arrays.zeros((6, 4), np.float32).T, "C-contiguous"),
        ):
            with pytest.raises(eq.EqkernelError, match=why):
                dense.drive_post(good, bad, weight)


def test_what_a_kernel_cannot_count_is_refused(monkeypatch):
    """Sizes beyond a C int; here beyond a smaller limit."""
    with shim.running():
        arrays = device.current().arrays
        net = eq.Network.dense(5, 8, 7, 3, dtype="float64", backend="cuda")  # 135 parameters
        geometry = conv_geometry("it", (5, 9, 1), (3, 4, 3), 5, 1, 4, "average", 3)
        pre, post = arrays.zeros((3, 45)), arrays.zeros((3, 36))  # a map of 351 places between them
        trace, tall = arrays.zeros(geometry.weight_shape), np.zeros((140, 2))
        monkeypatch.setattr(launcher, "MOST", 300)
        monkeypatch.setattr(conv, "SHARE", 100)  # of which no block counts to the limit
        for call in (
            lambda: eq.predict(net, np.zeros((70, 5))),
            lambda: conv.hebbian(trace, pre, post, 1.0, geometry, None),
            lambda: Workspace.table(SimpleNamespace(tables={}), (0, 2**31)),
        ):
            with pytest.raises(eq.EqkernelError, match="elements: CUDA kernels count to 300 .* pass smaller batches"):
                call()
        eq.predict(net, np.zeros((2, 5)))
        monkeypatch.setattr(launcher, "HIGHEST", 1)
        with pytest.raises(eq.EqkernelError, match="blocks: CUDA kernels count to .* 1 blocks down"):
            backend().dense.drive_post(np.zeros((140, 1)), tall, np.zeros((1, 2)))


@shim.shim_only
@pytest.mark.parametrize(("hidden", "threads"), [(600, 128), (1100, 256)])
def test_a_wide_hidden_layer_has_more_warps(hidden, threads):
    with shim.running():
        net = eq.Network.dense(7, hidden, 5, cost="squared-error", backend="cuda")
        assert net.engine.block == threads
        cuda_cases.shallow((7, hidden, 5), 3)


# -- the field -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
@pytest.mark.parametrize("shape", [(3, 3), (5, 70), (37, 41), (64,), (7,)])
def test_field(shape, boundary, dtype, order):
    """Steps in one pass as the reference takes them one by one, each step adding its roundings to what was there."""
    state = np.random.default_rng(order).standard_normal((2, *shape)).astype(dtype)
    c = reference.field.Constants(Du=1.1, Dv=13.0, eps=1.4, alpha=0.7, beta=0.1, dt=0.011, dt_v=0.009)
    for steps in (1, 2, 9):
        exact, found = state.astype(float), state.copy()
        largest = reference.field.advance(exact, np.empty_like(exact), steps, c, boundary)
        with shim.running(seed=order):
            measured = field.advance(found, np.empty_like(found), steps, c, boundary)
        # |s| < 5 of noise; a step multiplies an error by at most 1 + dt (8 Du + 1 + 3 s^2) < 2 and adds < 40 roundings.
        bound = gamma(40, dtype) * 5 * 2.0**steps
        test_verbs.within(found, exact, bound)
        assert abs(measured - largest) <= bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "boundary"), [((37, 150), "periodic"), ((3, 260), "neumann"), ((50, 9), "neumann")])
def test_a_field_is_the_same_bits_whatever_its_strips(shape, boundary, dtype):
    """Steps all in one pass or one by one, a warp of few rows or of many."""
    state = np.random.default_rng(0).standard_normal((2, *shape)).astype(dtype)
    c = reference.field.Constants(Du=1.1, Dv=13.0, eps=1.4, alpha=0.7, beta=0.1, dt=0.011, dt_v=0.009)
    found = []
    for parts, shortest in (((7,), 16), ((1,) * 7, 16), ((3, 4), 1), ((7,), 1000)):
        one = state.copy()
        with shim.running(seed=1), pytest.MonkeyPatch.context() as patch:
            patch.setattr(field, "SHORTEST", shortest)
            largest = [field.advance(one, np.empty_like(one), steps, c, boundary) for steps in parts]
        assert largest[-1] == abs(one).max()
        found.append(one)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_a_field_takes_a_spare_of_its_own_shape():
    c = reference.field.Constants(1, 1, 1, 1, 0, 0.01, 0.01)
    with shim.running():
        zeros = device.current().arrays.zeros
        for spare in (zeros((2, 9, 8), np.float32), zeros((2, 9, 9), np.float64)):
            with pytest.raises(eq.EqkernelError, match="shape|all float32"):
                field.advance(zeros((2, 9, 9), np.float32), spare, 3, c, "periodic")


def test_a_field_that_diverged_says_so():
    with shim.running():
        state = np.full((2, 9, 9), np.nan, np.float32)
        c = reference.field.Constants(1, 1, 1, 1, 0, 0.01, 0.01)
        assert np.isnan(field.advance(state, state.copy(), 3, c, "periodic"))


# -- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_phases(order):
    @settings(FEW, max_examples=30)
    @given(net=test_backends.networks(), batch=widths, seed=seeds, variant=st.sampled_from(list(eq.phases.VARIANTS)))
    def check(net, batch, seed, variant):
        test_backends.check_phases(on_cuda(net), batch, seed, variant)

    with shim.running(seed=order):
        check()


@pytest.mark.parametrize("kind", test_backends.OPTIMISERS)
def test_updates(kind):
    @FEW
    @given(net=test_backends.networks(skips=False), batch=widths, seed=seeds)
    def check(net, batch, seed):
        test_backends.check_updates(on_cuda(test_backends.unbounded(net)), kind, batch, seed)

    with shim.running():
        check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_paces(dtype):
    with shim.running():
        test_backends.check_paces("cuda", dtype)


@pytest.mark.parametrize("kind", test_gradient.SIZES)
@pytest.mark.parametrize("neuron", ["tanh", "fhn"])
def test_the_contrast_is_the_gradient(kind, neuron):
    """Cosine with the gradient of the loss, and the fall of the error with beta, as for every backend."""
    host, x, y = test_gradient.problem(kind, "cross-entropy", 0.5, "cpu", neuron)
    with shim.running():
        net = on_cuda(host)
        test_gradient.check_cosines(net, x, y)
        test_gradient.check_order_of_error(net, x, y, ["centered"])


@pytest.mark.parametrize("form", ["difference", "mean-difference"])
def test_float32_keeps_the_gradient_at_weak_feedback(form):
    """At gamma = 1e-3 the two states themselves would lose it: that the difference is carried is what saves it."""
    host, x, y = test_gradient.problem("3 hidden", "cross-entropy", 1e-3)
    exact = eq.ep_gradient(host, x, y, 1e-3)
    eight = eq.Schedule("eight", 1e-3, 8, 8, "even-odd", tolerance=None)
    single = eq.Network(host.layers, host.connections, host.cost, eight, backend="cpu")
    for mine, theirs in zip(single.parameters, host.parameters, strict=True):
        mine[...] = theirs
    with shim.running():
        found = eq.ep_gradient(on_cuda(single), x, y, 1e-3, schedule=single.schedule.but(form=form))
        assert min(map(cosine, found, exact)) > 0.9999
        lost = eq.ep_gradient(on_cuda(single), x, y, 1e-3, schedule=single.schedule.but(form="plus-minus"))
        assert relative_error(lost[0], exact[0]) > 0.2


def test_a_sample_settles_to_the_same_bits_whatever_its_batch():
    host = eq.Network.recurrent(19, 17, 11, 5, dtype="float32", schedule=FIXED)
    x = np.random.default_rng(0).random((13, 19))
    with shim.running():
        net = on_cuda(host)
        whole = eq.free_phase(net, x).state
        for size in (1, 2, 5):
            for part, all_of_it in zip(eq.free_phase(net, x[:size]).state, whole, strict=True):
                np.testing.assert_array_equal(part, all_of_it[:size])


def test_training_learns_what_the_host_learns():
    """Ten steps in float64, the laterals' projection included, end at the same weights to the digits they leave."""
    host = eq.Network.recurrent(9, 8, 7, 4, dtype="float64", schedule=FIXED, backend="reference")
    rng = np.random.default_rng(0)
    with shim.running():
        net = on_cuda(host)
        one, other = eq.Adam(0.01), eq.Adam(0.01)
        for _ in range(10):
            x, y = rng.random((6, 9)), rng.integers(0, 4, 6)
            step, expected = eq.train_step(net, x, y, optimiser=one), eq.train_step(host, x, y, optimiser=other)
            assert step.loss == pytest.approx(expected.loss, rel=1e-9) and step.accuracy == expected.accuracy
        np.testing.assert_allclose(to_host(net.buffer), host.buffer, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(eq.predict(net, x), eq.predict(host, x))
