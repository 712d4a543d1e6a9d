"""A training step in one call of the engine is the phases' step, to the last bit, in all it does and says."""

import warnings
from functools import partial
from importlib import import_module

import numpy as np
import pytest
from mutations import Mutation, plant

import eqkernel
from eqkernel import Network
from eqkernel.backends import unavailable
from eqkernel.costs import SquaredError

NETS = {
    "readout": partial(Network.dense, 9, 17, 11, 4),
    "squared error": partial(Network.dense, 9, 17, 4, neuron="sigmoid", cost="squared-error"),
    "recurrent": partial(Network.recurrent, 9, 12, 4, bound=0.4),
}
OPTIMISERS = {
    "sgd": partial(eqkernel.SGD, lr=0.1, weight_decay=0.1),
    "momentum": partial(eqkernel.Momentum, lr=0.05),
    "adam": partial(eqkernel.Adam, lr=0.01, weight_decay=0.1),
}
MODES = ["at once", "phases"]


@pytest.fixture(params=["cpu", "c"])
def backend(request):
    if unavailable(request.param):
        pytest.skip("the C library was not built")
    return request.param


def layered_of(backend):
    return import_module(f"eqkernel.{'bindings' if backend == 'c' else 'cpu'}.layered").Layered


@pytest.fixture
def taken(monkeypatch, backend):
    """taken(net) tells of each of its steps whether the engine took it at once, taken() of those of all networks.

    It never does of a network that has an attribute `phases_only`.
    """
    Layered = layered_of(backend)
    step, seen = Layered.step, []

    def spied(self, *arguments):
        whole = None if getattr(self.network, "phases_only", False) else step(self, *arguments)
        seen.append((self.network, whole is not None))
        return whole

    monkeypatch.setattr(Layered, "step", spied)
    return lambda net=None: [done for network, done in seen if net in (None, network)]


def pair(make, backend, **options):
    """Two equal networks, of which the second goes phase by phase."""
    nets = [make(backend=backend, seed=1, **options) for _ in MODES]
    nets[1].phases_only = True
    return nets


def batch_of(size, net, labels=True):
    rng = np.random.default_rng(size)
    x, y = rng.random((size, net.sizes[0])), rng.integers(0, net.sizes[-1], size)
    return x.astype(net.dtype), y if labels else np.eye(net.sizes[-1], dtype=net.dtype)[y]


def same(first, second, terms):
    """Equal Steps; the loss alone may differ, by the rounding of the phases' sum of `terms` terms, none negative."""
    loss, eps = second.loss, np.finfo(np.float32).eps
    assert abs(first.loss - loss) <= terms * eps * loss
    assert vars(first) | {"loss": 0} == vars(second) | {"loss": 0}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("kind", NETS)
@pytest.mark.filterwarnings("ignore::eqkernel.UnsettledWarning")
def test_a_step_at_once_is_the_step_of_the_phases(taken, backend, kind, optimiser, dtype):
    for schedule in ("few-step", "single-sweep", "converged"):
        for variant, labels, size in (("centered", True, 41), ("negative", False, 5), ("positive", True, 1)):
            nets = pair(NETS[kind], backend, dtype=dtype, schedule=schedule)
            optimisers = [OPTIMISERS[optimiser]() for _ in nets]
            for count in (size, size, max(1, size // 2)):  # a smaller batch in the same memory
                x, y = batch_of(count, nets[0], labels)
                steps = [
                    eqkernel.train_step(net, x, y, beta=0.1, variant=variant, optimiser=o)
                    for net, o in zip(nets, optimisers, strict=True)
                ]
                same(*steps, terms=4 * (nets[0].sizes[-1] + count))
                np.testing.assert_array_equal(nets[0].buffer, nets[1].buffer)
            assert optimisers[0].steps == optimisers[1].steps == 3
            first = optimiser == "sgd"  # the phases make an optimiser's moments
            assert taken(nets[0]) == [first, True, True] and taken(nets[1]) == [False] * 3


@pytest.mark.filterwarnings("ignore::eqkernel.UnsettledWarning")
def test_nothing_of_a_step_is_left_for_the_next(taken, backend):
    net = NETS["readout"](backend=backend)
    strong = eqkernel.SCHEDULES["few-step"].but(gamma=0.3)
    for size, schedule in ((40, "few-step"), (7, "few-step"), (7, strong), (40, strong), (40, "few-step")):
        fresh, (x, y) = NETS["readout"](backend=backend), batch_of(size, net)
        fresh.buffer[...] = net.buffer
        for each in (net, fresh):
            eqkernel.train_step(each, x, y, lr=0.1, schedule=schedule)
        np.testing.assert_array_equal(net.buffer, fresh.buffer)
    assert all(taken())


def test_other_ways_to_say_the_same_are_taken_at_once(taken, backend):
    net = NETS["readout"](backend=backend)
    x, y = batch_of(6, net)
    for given_x, given_y in ((x.tolist(), y.tolist()), (x.astype(float), y.astype(np.uint8)), (x[::-1], y[::-1])):
        eqkernel.train_step(net, given_x, given_y, lr=1e-3)
    assert taken(net) == [True] * 3


def test_what_an_engine_does_not_know_is_left_to_the_phases(taken, backend):
    class Doubled(SquaredError):
        def loss(self, output, target):
            return 2 * super().loss(output, target)

    net = Network.dense(9, 7, 4, cost=Doubled(), output="linear", backend=backend)
    x, y = batch_of(6, net)
    eqkernel.train_step(net, x, y, lr=1e-3)
    assert taken() == [backend == "cpu"]  # the C library knows but some costs
    net = NETS["readout"](backend=backend)
    eqkernel.train_step(net, x, y, lr=1e-3, reward="surprise")
    eqkernel.train_step(net, x, y, optimiser=eqkernel.Muon(lr=1e-3))
    assert not any(taken()[1:])


@pytest.mark.parametrize("make", [lambda: eqkernel.Adam(1e-3), lambda: eqkernel.SGD(0.1)])
def test_several_threads_do_large_steps_at_once_to_the_same_bits(taken, backend, make, threads):
    seen = []
    for count in (1, 2, 3):
        threads(count)
        net, optimiser = Network.dense(784, 512, 10, schedule="few-step", backend=backend), make()
        x, y = batch_of(100, net)
        steps = [eqkernel.train_step(net, x, y, optimiser=optimiser) for _ in range(3)]
        assert taken(net)[-2:] == [True, True]
        assert {(s.free_steps, s.nudged_steps) for s in steps} == {(net.schedule.free_steps, net.schedule.nudged_steps)}
        seen.append((net.buffer, steps))
    for buffer, steps in seen[1:]:
        np.testing.assert_array_equal(buffer, seen[0][0])
        assert steps == seen[0][1]


@pytest.mark.parametrize("cause", ["a label", "weights"])
def test_several_threads_refuse_what_one_refuses(backend, cause, threads):
    threads(2)
    net = Network.dense(784, 512, 10, backend=backend)
    x, y = batch_of(64, net)
    if cause == "a label":
        y = np.where(np.arange(64) == 40, 10, y)
    else:
        net.buffer[7], x[:, 7] = np.nan, 0  # which meets zeros alone
    before = net.buffer.copy()
    with pytest.raises(eqkernel.EqkernelError, match="labels run from 0 to 10" if cause == "a label" else "diverged"):
        eqkernel.train_step(net, x, y, lr=0.1)
    np.testing.assert_array_equal(net.buffer, before)


@pytest.mark.parametrize(
    ("backend", "name", "bug", "old", "new"),
    [
        ("c", "_over_tiles", "last tile left out", "(index + 1) // parts)", "(index + 1) // parts - bool(index))"),
        ("c", "step", "the first share learnt by all", "run.update(job, part, parts)", "run.update(job, 0, parts)"),
        ("c", "step", "what diverged is learnt", "run.measure(job, workspace.loss, workspace.correct)", "False"),
        ("cpu", "_over_tiles", "last tile left out", "(index + 1) // parts)", "(index + 1) // parts - bool(index))"),
        ("cpu", "_over_tiles", "the nudged phase left out", "in phases:", "in phases[:1]:"),
        ("cpu", "_nudged", "one report of both phases", "workspace.report[workspace.count(len(target)) :]",
         "workspace.report"),
        ("cpu", "step", "what diverged is learnt", "is Outcome.DIVERGED", "is None"),
        ("cpu", "both", "a NaN that meets zeros unseen", "finite = self._finite(len(x), 1)", "finite = True"),
    ],
    indirect=["backend"],
)  # fmt: skip
def test_planted_in_a_step_of_several_threads(monkeypatch, threads, backend, name, bug, old, new):
    plant(monkeypatch, Mutation(bug, layered_of(backend), name, old, new))
    taken = lambda net=None: [True, True] if net else []  # noqa: E731
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_several_threads_do_large_steps_at_once_to_the_same_bits(taken, backend, OPTIMISERS["sgd"], threads)
        test_several_threads_refuse_what_one_refuses(backend, "weights", threads)
        test_divergence_is_told_in_the_same_words_and_changes_nothing(taken, backend, "nudged")


@pytest.fixture
def threads():
    before = eqkernel.get_threads()
    yield eqkernel.set_threads
    eqkernel.set_threads(before)


def spoilt(x, y, **changes):
    return {"x": x, "y": y, "beta": 0.1, "lr": 0.1} | changes


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: {"x": np.where(np.arange(x.size).reshape(x.shape) == 7, np.nan, x)},
        lambda x, y: {"x": np.where(np.arange(x.size).reshape(x.shape) == 7, np.inf, x)},
        lambda x, y: {"x": x[:, 1:]},
        lambda x, y: {"x": x[:0], "y": y[:0]},
        lambda x, y: {"y": np.where(np.arange(len(y)) == 3, 4, y)},
        lambda x, y: {"y": np.where(np.arange(len(y)) == 3, -1, y)},
        lambda x, y: {"y": y[1:]},
        lambda x, y: {"y": y.astype(float)},
        lambda x, y: {"y": np.full((len(y), 4), np.nan)},
        lambda x, y: {"y": np.ones((len(y), 4))},
        lambda x, y: {"beta": -0.1},
        lambda x, y: {"beta": "much"},
        lambda x, y: {"variant": "sideways"},
        lambda x, y: {"schedule": "eventually"},
    ],
)
def test_bad_input_is_refused_in_the_same_words_and_changes_nothing(taken, backend, change):
    said = []
    for net in pair(NETS["readout"], backend):
        x, y = batch_of(6, net)
        before = net.buffer.copy()
        with pytest.raises(eqkernel.EqkernelError) as error:
            eqkernel.train_step(net, **spoilt(x, y) | change(x, y))
        said.append(str(error.value))
        np.testing.assert_array_equal(net.buffer, before)
    assert said[0] == said[1] and not any(taken())


@pytest.mark.parametrize("spoil", ["free", "loss", "nudged"])
def test_divergence_is_told_in_the_same_words_and_changes_nothing(taken, backend, spoil):
    said = []
    make = partial(Network.dense, 9, 7, 4, neuron="linear", cost="squared-error", schedule="converged")
    for net in pair(make, backend):
        x, y = batch_of(6, net)
        if spoil == "loss":
            net.parameters[-1][0] = np.nan
        else:
            net.buffer *= 100  # feedback that grows
        before = net.buffer.copy()
        schedule = eqkernel.SCHEDULES["converged"].but(free_steps=1, nudged_steps=40) if spoil == "nudged" else None
        with pytest.raises(eqkernel.DivergenceError) as error:
            eqkernel.train_step(net, x, y, lr=0.1, schedule=schedule)
        said.append(str(error.value))
        np.testing.assert_array_equal(net.buffer, before)
    assert said[0] == said[1] and not any(taken())


def test_an_unsettled_network_warns_once_from_the_callers_line(taken, backend):
    told = []
    for net in pair(NETS["readout"], backend, schedule=eqkernel.SCHEDULES["few-step"].but(tolerance=1e-9)):
        x, y = batch_of(6, net)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                eqkernel.train_step(net, x, y, lr=0.1)
        told.append([(str(w.message), w.category, w.filename) for w in caught])
    assert told[0] == told[1] and len(told[0]) == 1 and told[0][0][2] == __file__
    assert taken() == [True, True, False, False]
