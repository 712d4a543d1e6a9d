"""A case for every CUDA kernel, right by its own check: what the checker watches and planted bugs must break."""

import numpy as np
import shim
import test_backends
import test_cuda_conv
import test_verbs
from cuda_twins import backend, on_cuda

import eqkernel as eq
from eqkernel import cuda, reference
from eqkernel.cuda import device, scores
from eqkernel.cuda import field as cuda_field
from eqkernel.interop import to_host


def dense(sizes=(33, 147, 70)):
    for verb in ("energy", "drive_post", "drive_pre", "hebbian"):
        test_verbs.check_verb("dense", verb, "float32", *sizes, 1, backend())


def neurons(n=33):
    for neuron in ("tanh", "fhn"):
        test_verbs.check_rates(neuron, "float32", n, 1, backend())
    out = np.empty((9, n), np.float32)
    backend().neurons.rate(out, np.zeros_like(out), "softmax")
    np.testing.assert_allclose(out, 1 / n, rtol=1e-5)


def conv(cases=test_cuda_conv.CASES[1:5:3]):
    for case in cases:
        test_cuda_conv.check_verbs(case, "float32")
        if case[4] == "max":
            test_cuda_conv.check_choice(case)


def diffusion(shape=(2, 19, 33)):
    state, weight = np.random.default_rng(0).standard_normal(shape), np.array([0.7])
    for verb, out in (("energy", np.zeros(len(state))), ("drive_post", np.zeros(shape))):
        arguments = (state, state, weight) if verb == "energy" else (state, weight)
        exact, found = out.copy(), out.astype(np.float32)
        getattr(reference.diffusion, verb)(exact, *arguments)
        getattr(backend().diffusion, verb)(found, *(a.astype(np.float32) for a in arguments))
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


def field(shape=(37, 150)):
    state = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    c = reference.field.Constants(1.1, 13.0, 1.4, 0.7, 0.1, 0.011, 0.009)
    exact, found = state.astype(float), state.copy()
    largest = reference.field.advance(exact, np.empty_like(exact), 5, c, "periodic")
    measured = cuda_field.advance(found, np.empty_like(found), 5, c, "periodic")
    np.testing.assert_allclose(found, exact, atol=1e-4)
    assert abs(measured - largest) < 1e-4


def settle(sizes=(7, 40, 13, 5), batch=5):
    for form, nudge, order, build in (
        ("mean-difference", "frozen", "even-odd", eq.Network.recurrent),
        ("plus-minus", "live", "synchronous", eq.Network.recurrent),
        ("difference", "frozen", "sweep", eq.Network.dense),
    ):
        plan = eq.Schedule("drawn", 0.5, 3, 2, order, form, nudge, None)
        net = build(*sizes, schedule=plan, backend="cpu")
        test_backends.contract(net)
        test_backends.check_phases(on_cuda(net), batch, 0)


def shallow(sizes=(7, 270, 5), batch=3):
    """Every form and order; two warps, of units that do not fill them."""
    for form, nudge, order in (
        ("mean-difference", "frozen", "even-odd"),
        ("plus-minus", "live", "synchronous"),
        ("difference", "frozen", "sweep"),
    ):
        plan = eq.Schedule("drawn", 0.5, 3, 2, order, form, nudge, None)
        net = eq.Network.dense(*sizes, cost="squared-error", output="tanh", schedule=plan, backend="cpu")
        test_backends.contract(net)
        twin = on_cuda(net)
        assert type(twin.engine).__name__ == "Shallow"
        test_backends.check_phases(twin, batch, 0)


def wide():
    """The blocks of `shallow` with most threads, 128 and 256."""
    for hidden in (600, 1100):
        shallow((7, hidden, 5), 2)


def score(shape=(5, 70)):
    """Losses of both costs, and hits as NumPy finds them: the first of equals; -1 for a target of zeros."""
    rng, arrays = np.random.default_rng(0), device.current().arrays
    output = rng.integers(1, 9, shape).astype(np.float32) / np.float32(10)
    target = np.eye(shape[1], dtype=np.float32)[: shape[0]]
    target[0] = output[0]
    target[1] = 0
    for cost in (eq.costs.SquaredError(), eq.costs.CrossEntropy()):
        found = [arrays.zeros(shape[0], np.float32) for _ in range(2)]
        scores.score(*found, arrays.asarray(output), arrays.asarray(target), cost)
        loss, right = map(to_host, found)
        np.testing.assert_allclose(loss, cost.loss(output.astype(float), target), rtol=1e-5)
        np.testing.assert_array_equal(right[2:], output[2:].argmax(axis=1) == target[2:].argmax(axis=1))
        assert (right[0], right[1]) == (1, -1)


def update(sizes=(7, 70, 13, 5), batch=5):
    net = eq.Network.recurrent(*sizes, bound=1e6, backend="cpu")
    for kind in test_backends.OPTIMISERS:
        test_backends.check_updates(on_cuda(net), kind, batch, 0, steps=1)


TENSOR_PLANS = {
    "even-odd": eq.Schedule("drawn", 0.5, 1, 1, "even-odd", "difference", "frozen", None),
    "synchronous": eq.Schedule("drawn", 0.5, 2, 2, "synchronous", "mean-difference", "frozen", None),
    "sweep": eq.Schedule("drawn", 1.0, 2, 1, "sweep", "mean-difference", "frozen", None),
    "plus-minus": eq.Schedule("drawn", 0.5, 2, 1, "synchronous", "plus-minus", "live", None),
}


def tensor(sizes=(7, 70, 13, 5), batch=5, plans=tuple(TENSOR_PLANS), names=("tf32", "bf16")):
    """Weights and states of so few bits that nothing is rounded: tensor cores give what layer.cu gives, to the bit."""
    before, cuda.LARGEST = cuda.LARGEST, -1
    try:
        _tensor(sizes, batch, plans, names)
    finally:
        cuda.LARGEST = before
        cuda.set_precision("float32")


def _tensor(sizes, batch, plans, names):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 2, (batch, sizes[0])), rng.integers(0, 2, (batch, sizes[-1]))
    for plan in map(TENSOR_PLANS.get, plans):
        net = eq.Network.recurrent(
            *sizes, neuron="hard-sigmoid", cost="squared-error", bound=1e6, schedule=plan, backend="cpu"
        )
        for w in net.parameters:
            w[...] = 0.5 * rng.integers(-1, 2, w.shape) * (rng.random(w.shape) < 4 / w.shape[-1])
            if w.ndim == 2 and w.shape[0] == w.shape[1]:
                w[...] = np.triu(w, 1) + np.triu(w, 1).T
        found = []
        for name in ("float32", *names):
            cuda.set_precision(name)
            there = on_cuda(net)
            for _ in range(2):  # launch by launch, and recorded
                free = eq.free_phase(there, x, reuse=True)
                nudged = eq.nudged_phase(there, free, y, 0.25, reuse=True)
            found.append(
                [*map(to_host, (*free.state, *nudged.mean, *nudged.difference)), free.residual, nudged.residual]
            )
        assert all(np.ptp(state) > 0 for state in found[0][1 : len(sizes)])
        for other in found[1:]:
            for one, two in zip(found[0], other, strict=True):
                np.testing.assert_array_equal(one, two)


# Sizes in whole lines of memory, where what a kernel makes of memory is its own doing.
REGULAR = {
    "dense": ((64, 128, 64),), "neurons": (64,), "diffusion": ((2, 32, 32),), "field": ((32, 512),),
    "settle": ((16, 64, 32, 16), 8), "shallow": ((16, 512, 8), 4), "score": ((8, 64),), "update": ((16, 64, 32, 16), 8),
    "tensor": ((64, 64, 128, 64), 32, ("synchronous",)),
}  # fmt: skip
CASES = {
    case.__name__: case
    for case in (dense, conv, neurons, diffusion, field, settle, shallow, wide, score, update, tensor)
}


if __name__ == "__main__":  # on a GPU, for compute-sanitizer
    for name, case in CASES.items():
        with shim.running():
            case()
        print(name, "ok")
