"""Large networks on backend "cuda": layer by layer, recorded as a graph, and on tensor cores.

Small networks are made to take the path of large ones. What a graph records the stand-in checks as CUDA would:
capturing allows neither allocation nor a copy to the host.
"""

import cuda_cases
import numpy as np
import pytest
import shim
import test_backends
import test_gradient
import test_verbs
from bounds import gamma
from cuda_twins import on_cuda
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import cosine

import eqkernel as eq
from eqkernel import cuda
from eqkernel.cpu.plan import dense_plan_of
from eqkernel.cuda import device, precision, tensor
from eqkernel.cuda.layerwise import Layerwise

pytestmark = shim.needed
FEW = settings(max_examples=25, deadline=None, derandomize=True, database=None)
FIXED = eq.SCHEDULES["converged"].but(tolerance=None)


@pytest.fixture(autouse=True)
def all_networks_are_large(monkeypatch):
    monkeypatch.setattr(cuda, "LARGEST", -1)
    yield
    precision._precision = "float32"


@pytest.mark.parametrize("order", [1, 2])
def test_phases(order):
    @FEW
    @given(
        net=test_backends.networks(skips=False), batch=st.sampled_from([1, 7, 13, 70]), seed=st.integers(0, 2**31),
        variant=st.sampled_from(list(eq.phases.VARIANTS)),
    )  # fmt: skip
    def check(net, batch, seed, variant):
        there = on_cuda(net)
        assert isinstance(there.engine, Layerwise) == (dense_plan_of(net) is not None)
        test_backends.check_phases(there, batch, seed, variant)

    with shim.running(seed=order):
        check()


@shim.shim_only
@pytest.mark.parametrize(
    ("form", "nudge", "order"),
    [
        ("mean-difference", "frozen", "even-odd"),
        ("plus-minus", "live", "synchronous"),
        ("difference", "frozen", "sweep"),
    ],
)
@pytest.mark.parametrize("name", precision.PRECISIONS)
def test_no_kernel_breaks_a_rule(form, nudge, order, name):
    plan = eq.Schedule("drawn", 0.5, 2, 2, order, form, nudge, None)
    net = eq.Network.recurrent(7, 70, 13, 5, schedule=plan, backend="cpu")
    test_backends.contract(net)
    with shim.running("check"):
        cuda.set_precision(name)
        there = on_cuda(net)
        x = np.random.default_rng(0).random((5, 7))
        eq.nudged_phase(there, eq.free_phase(there, x), np.arange(5), 0.1)


@shim.shim_only
@pytest.mark.parametrize(("form", "nudge"), test_gradient.FORMS)
def test_a_graph_replays_what_was_recorded(form, nudge):
    """Each phase is recorded the second time; other inputs, targets and weights give what launches one by one give."""
    host = eq.Network.recurrent(6, 9, 8, 4, schedule=FIXED.but(form=form, nudge=nudge, free_steps=3), backend="cpu")
    rng = np.random.default_rng(0)
    with shim.running():
        net, stand_in = on_cuda(host), device.current()
        for call in range(4):
            x, y = rng.random((5, 6)), rng.integers(0, 4, 5)
            found = []
            for reuse in (True, False):  # in the network's own memory, or in new memory that no graph knows
                free = eq.free_phase(net, x, reuse=reuse)
                nudged = eq.nudged_phase(net, free, y, 0.1, reuse=reuse)
                found.append([*free.state, *nudged.mean, *nudged.difference, free.residual, nudged.residual])
            assert stand_in.graphs == (0 if call == 0 else 2)
            for one, other in zip(*found, strict=True):
                np.testing.assert_array_equal(one, other)
            net.buffer *= np.float32(1.1)


def test_early_stop_looks_at_every_residual():
    host, x, y = test_gradient.problem("3 hidden", "cross-entropy", 0.5, "cpu")
    with shim.running():
        net = on_cuda(host)
        ours, theirs = eq.free_phase(net, x), eq.free_phase(host, x)
        assert ours.outcome is eq.Outcome.SETTLED and abs(ours.steps - theirs.steps) <= 1
        test_gradient.check_cosines(net, x, y)


def test_training_learns_what_the_host_learns():
    host = eq.Network.recurrent(9, 8, 7, 4, dtype="float64", schedule=FIXED, backend="reference")
    rng = np.random.default_rng(0)
    with shim.running():
        net = on_cuda(host)
        one, other = eq.Adam(0.01), eq.Adam(0.01)
        for _ in range(5):
            x, y = rng.random((6, 9)), rng.integers(0, 4, 6)
            step, expected = eq.train_step(net, x, y, optimiser=one), eq.train_step(host, x, y, optimiser=other)
            assert step.loss == pytest.approx(expected.loss, rel=1e-9)
        np.testing.assert_allclose(net.buffer.get(), host.buffer, rtol=0, atol=1e-9)


def test_a_large_network_goes_layer_by_layer(monkeypatch):
    monkeypatch.undo()
    with shim.running():
        assert isinstance(eq.Network.dense(3, 700, 700, 4, backend="cuda").engine, Layerwise)
        assert isinstance(eq.Network.dense(3, 20_000, 4, backend="cuda").engine, Layerwise)
        assert not isinstance(eq.Network.dense(784, 512, 10, backend="cuda").engine, Layerwise)


# -- tensor cores ----------------------------------------------------------------------------------------------------


def rounded(x, name):
    """float32 x to 10 bits of fraction, ties away from 0 (tf32), or to 7, ties to even (bf16)."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    if name == "tf32":
        bits = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    elif name == "bf16":
        bits = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


@pytest.mark.parametrize("name", precision.PRECISIONS)
@pytest.mark.parametrize("shape", [(5, 7, 9), (70, 33, 65)])
def test_a_product_is_that_of_rounded_factors(shape, name):
    """x W^T of a linear layer: the factors are rounded once, and the sum errs as any of its length in float32."""
    batch, n, m = shape
    net = eq.Network.dense(n, m, cost="squared-error", schedule=FIXED.but(free_steps=1), backend="cpu")
    x = np.random.default_rng(0).standard_normal((batch, n)).astype(np.float32)
    a, b = rounded(x, name).astype(float), rounded(net.parameters[0], name).astype(float)
    with shim.running():
        cuda.set_precision(name)
        found = eq.free_phase(on_cuda(net), x).output
    test_verbs.within(found, a @ b.T, gamma(n + 4, "float32") * (abs(a) @ abs(b).T))


@pytest.mark.parametrize("plan", ["synchronous", "sweep"])
@pytest.mark.parametrize("tile", tensor.TILES, ids=str)
def test_tensor_cores_give_the_bits_of_the_float_kernels(tile, plan, monkeypatch):
    """Where nothing is rounded; more rows, columns and stages than a tile has, none of them whole."""
    monkeypatch.setattr(tensor, "TILES", (tile,))
    with shim.running():
        cuda_cases.tensor((20, 150, 140, 10), 70, (plan,))


@pytest.mark.parametrize(("neuron", "least"), [("tanh", 0.9999), ("hard-sigmoid", 0.997)])
@pytest.mark.parametrize("schedule", ["few-step", "converged"])
@pytest.mark.parametrize("name", ["tf32", "bf16"])
def test_the_difference_keeps_the_gradient_in_low_precision(name, schedule, neuron, least):
    """The worst cosine of any matrix with the float64 estimate of the same form; carrying the two states loses it.

    A difference is rounded relative to itself, which turns the gradient by some 2^-9 of its length in BF16. Hard
    sigmoids lose more, as BF16 puts some units at a corner on its other side. (Measured: .99999 and .998, and .1 to .94
    for the two states.)
    """
    plan = eq.SCHEDULES[schedule].but(tolerance=None)
    options = {"neuron": neuron, "schedule": plan, "seed": 3}
    host = eq.Network.dense(20, 48, 40, 10, dtype="float64", backend="reference", **options)
    single = eq.Network.dense(20, 48, 40, 10, backend="cpu", **options)
    for parameter in single.parameters:
        parameter *= 1 if schedule == "few-step" or parameter.ndim == 1 else np.float32(0.5)  # settles in its steps
        parameter += 0.3 * (parameter.ndim == 1)
    host.buffer[...] = single.buffer
    rng = np.random.default_rng(0)
    x, y = rng.random((16, 20)), rng.integers(0, 10, 16)
    matrices = [i for i, w in enumerate(host.parameters) if w.ndim == 2]
    with shim.running():
        cuda.set_precision(name)
        net = on_cuda(single)
        for form in ("difference", "mean-difference", "plus-minus"):
            exact, found = (eq.ep_gradient(n, x, y, 1e-3, schedule=plan.but(form=form)) for n in (host, net))
            worst = min(cosine(found[i], exact[i]) for i in matrices)
            if form == "plus-minus":
                assert worst < 0.97
            else:
                assert worst > least, f"{form}: {worst:.5f}"


@shim.shim_only
def test_a_gpu_without_tensor_cores_says_so(monkeypatch):
    with shim.running():
        monkeypatch.setattr(type(device.current()), "capability", 75)
        with pytest.raises(eq.EqkernelError, match="compute capability 8.0, not 7.5"):
            cuda.set_precision("bf16")
        with pytest.raises(eq.EqkernelError, match="choose one of"):
            cuda.set_precision("fp8")
        assert cuda.get_precision() == "float32"
