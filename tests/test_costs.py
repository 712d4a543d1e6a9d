"""Costs: losses as written, errors their slopes, and labels or targets checked before they reach a kernel."""

import numpy as np
import pytest
from bounds import gamma, softmax_roundings
from compiled import BACKENDS
from scipy.special import expit

from eqkernel import SGD, Network, Schedule, ep_gradient, reference, train_step
from eqkernel.costs import COSTS, BinaryCrossEntropy, CrossEntropy, SquaredError, find_cost
from eqkernel.errors import EqkernelError

RNG = np.random.default_rng(0)
OUTPUT = RNG.uniform(-1, 1, (4, 3))
TARGET = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.25, 0.25, 0.5]])


def softmax(drive):
    out = np.empty_like(drive)
    reference.neurons.rate(out, drive, "softmax")
    return out


RATES = {SquaredError(): lambda drive: drive, CrossEntropy(): softmax, BinaryCrossEntropy(): expit}


@pytest.mark.parametrize(("cost", "rate"), RATES.items(), ids=[cost.name for cost in RATES])
def test_error_is_minus_the_slope_of_the_loss_in_the_drive_of_the_output(cost, rate):
    step = 1e-5
    for k in range(3):
        shift = step * np.eye(3)[k]
        above, below = cost.loss(rate(OUTPUT + shift), TARGET), cost.loss(rate(OUTPUT - shift), TARGET)
        error = cost.error(rate(OUTPUT), TARGET)[:, k]
        np.testing.assert_allclose(error, -(above - below) / (2 * step), atol=1e-9)


def test_losses_as_written():
    s, t = np.array([[0.5, 0.25], [0.1, 0.9]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(SquaredError().loss(s, t), [(0.25 + 0.0625) / 2, 0.01])
    np.testing.assert_allclose(CrossEntropy().loss(s, t), [-np.log(0.5), -np.log(0.9)])
    binary = [-np.log(0.5) - np.log(0.75), -2 * np.log(0.9)]
    np.testing.assert_allclose(BinaryCrossEntropy().loss(s, t), binary)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy_of_a_certain_mistake_is_finite(dtype):
    loss = BinaryCrossEntropy().loss(np.array([[1, 0]], dtype), np.array([[0, 1]], dtype))
    assert loss.dtype == dtype
    assert 30 < loss[0] < 80


def test_binary_cross_entropy_wants_probabilities_and_an_output_of_sigmoids():
    for targets in ([[0.0, 1.5]], [[-0.5, 0.5]]):
        with pytest.raises(EqkernelError, match=r"numbers in \[0, 1\]"):
            BinaryCrossEntropy().targets(targets, 2)
    with pytest.raises(EqkernelError, match="needs 'sigmoid' there"):
        Network.dense(3, 4, 2, output="tanh", cost="binary-cross-entropy")
    assert Network.dense(3, 4, 2, cost="binary-cross-entropy").layers[-1].neuron == "sigmoid"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_of_a_certain_mistake_is_finite(dtype):
    loss = CrossEntropy().loss(np.array([[1, 0]], dtype), np.array([[0, 1]], dtype))
    assert loss.dtype == dtype
    assert 80 < loss[0] < 800


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["cpu", "c"])
def test_the_loss_of_a_confident_mistake_keeps_its_digits(backend, dtype):
    """Drives x and 0, the second right: ln(1 + e^x)."""
    if backend == "c":
        pytest.importorskip("eqkernel.bindings.library")
    net = Network.dense(1, 1, 2, backend=backend, dtype=dtype)
    for array, value in zip(net.parameters, (1 / 80, 0, [[80], [0]], 0), strict=True):
        array[...] = value
    for x in (0, 1, 10, 20, 40, 80):
        loss = train_step(net, np.full((16, 1), x, dtype), np.ones(16, int), optimiser=SGD(1e-30)).loss
        # the logarithm of what errs relatively, by a drive of four roundings too; then a mean
        bound = gamma(softmax_roundings(2, dtype) + 5 * x, dtype) + gamma(17, dtype) * x
        np.testing.assert_allclose(loss, np.logaddexp(0, x), rtol=0, atol=bound)


@pytest.mark.parametrize("cost", COSTS.values(), ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels_become_one_hot_rows(cost, dtype):
    for labels in ([2, 0, 1], np.array([2, 0, 1], np.uint8)):
        rows = cost.targets(labels, 3, dtype)
        assert rows.dtype == dtype
        np.testing.assert_array_equal(rows, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("cost", COSTS.values(), ids=repr)
def test_targets_pass_as_they_are(cost):
    for given in (TARGET, TARGET[:3].astype(int), TARGET[:3].astype(bool), np.asfortranarray(TARGET)):
        rows = cost.targets(given, 3, "float32")
        assert rows.dtype == np.float32 and rows.flags.c_contiguous and not np.shares_memory(rows, given)
        np.testing.assert_array_equal(rows, given)


BAD = [
    ([], "y is empty"),
    (np.zeros((0, 3)), "y is empty"),
    ([0, 3], r"labels run from 0 to 3: they must lie in 0\.\.2"),
    ([-1, 2], r"labels run from -1 to 2"),
    ([0.0, 1.0], r"labels have type float64: pass integers in 0\.\.2 .* or targets of shape \(B, 3\)"),
    ([True, False], "labels have type bool"),
    (["a", "b"], "labels have type <U1"),
    (1, r"y has shape \(\)"),
    (np.zeros((2, 4)), r"y has shape \(2, 4\): .* \(B, 3\)"),
    (np.zeros((2, 3, 1)), r"y has shape \(2, 3, 1\)"),
    (np.full((2, 3), 1j), "y has type complex128"),
    ([["a", "b", "c"]], "y has type <U1"),
    ([[1, 0, np.nan]], "y holds a NaN"),
    ([[1, 0, -np.inf]], "y holds a NaN, an infinity"),
    ([[1e300, 0, 0]], "y holds a NaN, an infinity or a number too large for float32"),
    ([[0, 1], [0]], "y cannot be read as an array"),
]


@pytest.mark.parametrize("cost", COSTS.values(), ids=repr)
@pytest.mark.parametrize(("y", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_targets_are_refused(cost, y, message):
    with pytest.raises(EqkernelError, match=message):
        cost.targets(y, 3, "float32")


@pytest.mark.parametrize("y", [[[1, 1, 0]], [[2, -1, 0]], [[0, 0, 0]], [[0.5, 0.3, 0.1]]])
def test_cross_entropy_takes_probabilities_alone(y):
    with pytest.raises(EqkernelError, match="must be probabilities"):
        CrossEntropy().targets(y, 3)
    SquaredError().targets(y, 3)


def test_find_cost():
    assert find_cost("squared-error") is COSTS["squared-error"]
    assert find_cost(own := CrossEntropy()) is own
    with pytest.raises(EqkernelError, match=r"unknown cost 'cross_entropy': did you mean 'cross-entropy'\?"):
        find_cost("cross_entropy")
    with pytest.raises(EqkernelError, match=r"unknown cost 3: choose one of 'squared-error', 'cross"):
        find_cost(3)


class Twice(SquaredError):
    """Its error is not the one that fused kernels know."""

    name = "twice"

    def loss(self, output, target):
        return 2 * super().loss(output, target)

    def error(self, output, target):
        return 2 * super().error(output, target)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cost_of_ones_own_nudges_by_its_own_error(backend):
    x, plan = RNG.random((4, 6)), Schedule(gamma=0.5, free_steps=3, nudged_steps=3, tolerance=None)
    nets = [Network.dense(6, 5, 3, cost=cost, dtype="float64", backend=backend, schedule=plan, output="linear")
            for cost in (Twice(), "squared-error")]  # fmt: skip
    twice, once = (ep_gradient(net, x, TARGET, 1e-4) for net in nets)
    for a, b in zip(twice, once, strict=True):
        np.testing.assert_allclose(a, 2 * b, rtol=1e-6, atol=1e-9)


def test_a_cost_of_ones_own_is_not_saved(tmp_path):
    class Same(SquaredError):
        pass

    for cost in (Twice(), Same()):
        with pytest.raises(EqkernelError, match="cannot save the network: its cost .* is none of eqkernel's"):
            Network.dense(6, 5, 3, cost=cost, output="linear").save(tmp_path / "net.safetensors")
    assert list(tmp_path.iterdir()) == []
