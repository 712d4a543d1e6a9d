"""Memory does not grow with settle steps: workspace, allocations in the kernels, heap and resident set."""

import subprocess
import sys
import tracemalloc

import numba
import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys

import eqkernel
from eqkernel import (
    Bias,
    Conv,
    Dense,
    Layer,
    Network,
    Schedule,
    free_phase,
    nudged_phase,
    predict,
    train_step,
)

STEPS = (10, 1000)
RNG = np.random.default_rng(0)
X, Y = RNG.random((96, 50)).astype(np.float32), RNG.integers(0, 10, 96)


def network(make=Network.dense, dtype="float32", **options):
    return make(50, 32, 24, 10, neuron="tanh", dtype=dtype, **options)


def convolutional(*_, neuron, dtype):
    """Of a map of 10 x 5: a convolution, and one of which the maximum is pooled."""
    layers = [Layer((10, 5, 1)), Layer((10, 5, 1), neuron), Layer((2, 1, 2), neuron), Layer(10, "softmax")]
    wires = [Conv(0, 1, 3, 1, 1), Bias(1), Conv(1, 2, 3, 1, 1, "max", 5), Bias(2), Dense(2, 3), Bias(3)]
    return Network(layers, wires, dtype=dtype)


MAKERS = [Network.dense, Network.recurrent, convolutional]


def plan(steps, form="mean-difference", order="even-odd"):
    return Schedule("memory", gamma=0.5, free_steps=steps, nudged_steps=steps, form=form, order=order, tolerance=None)


def settle(net, steps, form="mean-difference"):
    free = free_phase(net, X, plan(steps, form), reuse=True)
    nudged_phase(net, free, Y, beta=0.2, reuse=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", MAKERS)
def test_workspace_bytes_do_not_depend_on_steps(dtype, make):
    bytes_at = []
    for steps in STEPS:
        net = network(make, dtype)
        assert net.engine.workspace is None
        train_step(net, X, Y, lr=0.01, schedule=plan(steps))
        bytes_at.append(net.engine.workspace.nbytes)
    assert bytes_at[0] == bytes_at[1]
    # States, mean and difference of the batch, at least; and no more than some 20 copies of all its numbers.
    numbers = 96 * (50 + 32 + 24 + 10) * np.dtype(dtype).itemsize
    assert numbers < bytes_at[0] < 20 * numbers


def test_workspace_is_made_once_and_grows_only_with_the_batch():
    net = network(schedule=plan(5))
    train_step(net, X, Y, lr=0.01)
    workspace = net.engine.workspace
    for size in (1, 40, 96):
        train_step(net, X[:size], Y[:size], lr=0.01, schedule=plan(7))
        predict(net, X[:size])
    assert net.engine.workspace is workspace
    predict(net, np.tile(X, (3, 1)), size=64)
    assert net.engine.workspace is workspace, "predict must not grow with the number of its samples"
    train_step(net, np.tile(X, (2, 1)), np.tile(Y, 2), lr=0.01)
    assert net.engine.workspace.nbytes > workspace.nbytes


@numba.njit
def allocates(steps):
    """What a kernel must not do: a temporary array in every step."""
    x = np.ones(8)
    for _ in range(steps):
        x[:] = x + 1
    return x


@pytest.mark.parametrize("form", ["difference", "mean-difference", "plus-minus"])
@pytest.mark.parametrize("make", MAKERS)
def test_kernels_allocate_nothing_in_the_step_loop(form, make):
    """Numba counts every allocation of compiled code: as many for 1000 steps as for 10."""
    net, threads = network(make), eqkernel.get_threads()
    eqkernel.set_threads(1)  # each call from a second thread wraps its arguments once more
    before = _nrt_python.memsys_stats_enabled()
    _nrt_python.memsys_enable_stats()
    try:
        settle(net, 2, form)  # compiles, and makes the workspace
        counts = []
        for steps in STEPS:
            start = rtsys.get_allocation_stats()
            settle(net, steps, form)
            end = rtsys.get_allocation_stats()
            counts.append((end.alloc - start.alloc, end.mi_alloc - start.mi_alloc))
            assert end.alloc - start.alloc == end.free - start.free, "a leak"
        np.testing.assert_array_equal(counts[0], counts[1])
        start = rtsys.get_allocation_stats().alloc
        allocates(1)
        few = rtsys.get_allocation_stats().alloc - start
        allocates(1000)
        assert rtsys.get_allocation_stats().alloc - start - few >= 1000 > few, "the counter must count"
    finally:
        eqkernel.set_threads(threads)
        if not before:
            _nrt_python.memsys_disable_stats()


def heap_peak(run):
    """Peak bytes of the Python and NumPy heap while `run` runs, above where it began."""
    tracemalloc.start()
    try:
        base = tracemalloc.get_traced_memory()[0]
        run()
        return tracemalloc.get_traced_memory()[1] - base
    finally:
        tracemalloc.stop()


def backprop_through_time(weight, x, target, steps):
    """The rival: unrolled gradient of a settling layer s = tanh(x + W s), which must remember every state."""
    states = [np.zeros_like(x)]
    for _ in range(steps):
        states.append(np.tanh(x + states[-1] @ weight.T))
    error, gradient = states[-1] - target, np.zeros_like(weight)
    for before, after in zip(reversed(states[:-1]), reversed(states[1:]), strict=True):
        error = error * (1 - after**2)
        gradient += error.T @ before
        error = error @ weight
    return gradient


def test_heap_stays_where_backprop_through_time_grows():
    net = network(Network.recurrent)
    train_step(net, X, Y, lr=0.01, schedule=plan(2))
    ours = [heap_peak(lambda s=s: train_step(net, X, Y, lr=0.01, schedule=plan(s))) for s in STEPS]
    assert abs(ours[1] - ours[0]) < 96 * 24 * 4, ours  # a few Python objects more or less, not one layer's state

    weight, x = 0.01 * RNG.standard_normal((32, 32)), RNG.standard_normal((96, 32))
    theirs = [heap_peak(lambda s=s: backprop_through_time(weight, x, 0 * x, s)) for s in STEPS]
    assert theirs[1] > 20 * theirs[0], theirs


PEAK = """
import resource, sys
import numpy as np
from eqkernel import Network, Schedule, train_step
rng = np.random.default_rng(0)
x, y = rng.random((256, 784)).astype("f4"), rng.integers(0, 10, 256)
net = Network.dense(784, 256, 128, 10, seed=0)
plan = Schedule("peak", gamma=0.5, order="even-odd", free_steps=5, nudged_steps=5, tolerance=None)
steps = int(sys.argv[1])
for _ in range(2):
    train_step(net, x, y, lr=0.01, schedule=plan.but(free_steps=steps, nudged_steps=steps // 10))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
def test_peak_resident_set_does_not_depend_on_steps():
    subprocess.run([sys.executable, "-c", PEAK, "10"], check=True, capture_output=True)  # fills the kernel cache
    peaks = [
        int(subprocess.run([sys.executable, "-c", PEAK, str(s)], check=True, capture_output=True).stdout) for s in STEPS
    ]
    assert peaks[1] <= 1.05 * peaks[0], peaks
