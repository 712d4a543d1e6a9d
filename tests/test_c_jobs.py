"""Jobs of the C library, called as C calls them: tiles, shares, working memory, divergence; and verbs that refuse."""

import re

import numpy as np
import pytest
import test_verbs
from test_bindings import ROOT, ffi, job_of, lib, library

import eqkernel as eq
from eqkernel.bindings.layered import Workspace
from eqkernel.schedules import FORMS, ORDERS

RESULTS = ("state", "mean", "difference", "report")


def results(workspace):
    return {name: getattr(workspace, name).copy() for name in RESULTS}


# -- tiles, shares, memory, divergence -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
def test_tiles_and_shares_make_the_whole_in_any_order(dtype):
    run, rng = library.functions(np.dtype(dtype)), np.random.default_rng(0)
    batch = 3 * lib.EQK_TILE // np.dtype(dtype).itemsize - 1
    whole, (net, x, target, moments) = job_of(batch, dtype)
    x[:], target[:] = rng.random(x.shape), rng.random(target.shape)
    start = net.buffer.copy()
    whole.job.optimiser.rate, whole.job.optimiser.constants = 0.1, [0.9, 0.1, 0.99, 0.01, 1e-8, 2.0, 3.0]
    library.check(run.settle(whole.job, 0, run.tiles(whole.job)))
    library.check(run.update(whole.job, 0, 1))
    expected = [*results(whole).values(), net.buffer.copy(), moments.copy()]
    assert not np.array_equal(net.buffer, start)

    for array in (whole.state, whole.mean, whole.difference, whole.report, moments, whole.memory):
        array[...] = 0
    net.buffer[:] = start
    assert run.tiles(whole.job) == 3
    for phase in (run.free_phase, run.nudged_phase):
        for tile in (2, 0, 1):
            library.check(phase(whole.job, tile, tile + 1))
    for part in (3, 1, 0, 2, 4):
        library.check(run.update(whole.job, part, 5))
    for found, wanted in zip([*results(whole).values(), net.buffer, moments], expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
def test_a_network_of_maps_has_tiles_of_half_as_many_samples(dtype):
    """Each is settled by itself, so two threads share a batch that would be one tile of other networks."""
    lanes = lib.EQK_TILE // np.dtype(dtype).itemsize
    layers = [eq.Layer((5, 4, 1)), eq.Layer((3, 2, 2), "tanh"), eq.Layer(3)]
    wires = [eq.Conv(0, 1, 3), eq.Dense(1, 2), eq.Bias(1), eq.Bias(2)]
    net = eq.Network(layers, wires, "squared-error", "few-step", dtype, "c")
    for batch, tiles in ((1, 1), (lanes // 2, 1), (lanes // 2 + 1, 2), (lanes, 2), (lanes + 1, 3)):
        workspace = Workspace(net.engine.layers, net.buffer, batch)
        x = np.random.default_rng(0).random((batch, 20)).astype(dtype)
        job, run = workspace.prepare(x, net.schedule), workspace.run
        assert run.tiles(job) == tiles
        library.check(run.free_phase(job, tiles - 1, tiles))
        first, state = (tiles - 1) * lanes // 2, workspace.views("state", batch)[0]
        assert not state[:first].any()
        np.testing.assert_array_equal(state[first:], eq.free_phase(net, x).state[1][first:])
        assert run.free_phase(job, 0, tiles + 1) == lib.EQK_BAD_SIZE


def test_what_is_no_job_has_no_tiles():
    workspace, keep = job_of(3)
    assert workspace.run.tiles(workspace.job) == 1 and keep
    workspace.job.batch = 0
    assert workspace.run.tiles(workspace.job) == workspace.run.tiles(ffi.NULL) == 0


@pytest.mark.parametrize("adaptation", [0.0, 0.3])
@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
def test_nothing_is_written_beyond_the_workspace(dtype, adaptation):
    """The working memory of every width of tile, wherever it begins, between two guards."""
    run, item = library.functions(np.dtype(dtype)), np.dtype(dtype).itemsize
    lanes = lib.EQK_TILE // item
    for batch in (1, 2, lanes // 2, lanes // 2 + 1, lanes, lanes + 1):
        workspace, keep = job_of(batch, dtype, adaptation)
        size = workspace.job.work_size
        for offset in (0, item, 64 - item):
            guarded = np.full(size + 2 * 4096, 0xA5, np.uint8)
            begin = 4096 + (-guarded.ctypes.data) % 64 + offset
            workspace.job.work = ffi.from_buffer(guarded) + begin
            library.check(run.settle(workspace.job, 0, run.tiles(workspace.job)))
            assert (guarded[:begin] == 0xA5).all() and (guarded[begin + size :] == 0xA5).all(), (batch, offset, keep[0])


@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", ORDERS)
def test_what_stood_in_the_workspace_does_not_matter(order, form, dtype):
    """Bytes of NaN, as memory of a C program or the scratch of an update may hold."""
    schedule = eq.Schedule("probe", 0.7, 3, 3, order, form, tolerance=None)
    for cost, adaptation, batch in (("squared-error", 0.3, 1), ("squared-error", 0.0, 5), ("cross-entropy", 0.0, 5)):
        workspace, (net, x, *_) = job_of(batch, dtype, adaptation, cost=cost, schedule=schedule)
        x[:] = np.random.default_rng(0).random(x.shape)
        found = []
        for content in (0, 0xFF):
            workspace.memory[:] = content
            library.check(workspace.run.settle(workspace.job, 0, 1))
            found.append(results(workspace))
        for name in RESULTS:
            np.testing.assert_array_equal(*(f[name] for f in found))
        assert np.isfinite(found[0]["difference"]).all() and net


@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
@pytest.mark.parametrize("cause", ["a weight is NaN", "weights that amplify"])
def test_a_step_that_diverges_says_so_and_does_not_learn(cause, dtype):
    run = library.functions(np.dtype(dtype))
    workspace, (net, x, _, moments) = job_of(3, dtype, neuron="linear", schedule="converged")
    x[:] = 1
    if cause == "a weight is NaN":
        net.parameters[0][0, 2] = np.nan
    else:
        net.buffer *= net.dtype.type(1e12)
    before = net.buffer.copy()
    assert run.train_step(workspace.job, ffi.NULL, ffi.NULL) == lib.EQK_DIVERGED
    np.testing.assert_array_equal(net.buffer, before)
    assert not moments.any()
    assert not np.isfinite(workspace.report[:, 1]).any()  # nor did the residuals of either phase


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
def test_samples_that_are_not_finite_are_refused_where_they_count(dtype, value):
    """Those of the tiles that run: of x where the free phase does, of the target where the nudged one does."""
    run, lanes = library.functions(np.dtype(dtype)), lib.EQK_TILE // np.dtype(dtype).itemsize
    workspace, (net, x, target, _) = job_of(2 * lanes, dtype)
    job, phases = workspace.job, (run.free_phase, run.nudged_phase, run.settle)
    before, bad, fine = net.buffer.copy(), lib.EQK_NOT_FINITE, lib.EQK_OK
    for array, says in ((x, (bad, fine, bad)), (target, (fine, bad, bad))):
        for place in (0, lanes - 1, lanes, 2 * lanes - 1):
            tile = place // lanes
            for column in (0, -1):
                spoilt, array[place, column] = array[place, column], value
                assert [phase(job, tile, tile + 1) for phase in phases] == list(says)
                assert [phase(job, 1 - tile, 2 - tile) for phase in phases] == [fine] * 3
                assert run.train_step(job, ffi.NULL, ffi.NULL) == bad
                array[place, column] = spoilt
    np.testing.assert_array_equal(net.buffer, before)
    assert [phase(job, 0, 2) for phase in phases] == [fine] * 3


# -- verbs ---------------------------------------------------------------------------------------------------------

HEADER = re.sub(r"/\*.*?\*/", "", (ROOT / "include/eqkernel.h").read_text(), flags=re.DOTALL)
PROTOTYPES = re.findall(r"EQK_API eqk_status EQK\((\w+)\)\(int variant, (.*?)\);", HEADER, re.DOTALL)
VERBS = {name: [re.split(r"\s+\*?|\*", p.strip())[-1] for p in text.split(",")] for name, text in PROTOTYPES}
SIZES = {"batch", "n", "n_pre", "n_post", "count", "rows", "width", "steps"}
ENOUGH = 1 << 14  # bytes of each array, and of work


def arguments_of(verb, bits):
    """(function, its parameters and, for each, a value that is right: arrays of their own, every size 1)."""
    function = getattr(lib, f"eqk_{verb}_{bits}")
    types = ffi.typeof(function).args[1:]
    given = {}
    for name, kind in zip(VERBS[verb], types, strict=True):
        if kind.kind == "pointer":
            memory = ffi.new("double[]", ENOUGH // 8)
            given[name] = ffi.gc(ffi.cast(kind, memory), lambda _, memory=memory: None)
            if name == "conv":
                given[name][0] = [1, 1, 1, 1, 1, 1, 0, lib.EQK_MAX_POOL, 1]
        else:
            given[name] = ENOUGH if name == "work_size" else 0 if name in ("boundary", "neuron", "first") else 1
    return function, given


def test_the_header_was_read():
    assert {"dense_drive_post", "bias_hebbian", "lateral_energy", "neurons_potential", "field_advance"} <= set(VERBS)
    assert VERBS["bias_hebbian"] == ["trace", "post", "scale", "batch", "n"]


@pytest.mark.parametrize("bits", ["f32", "f64"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_refuses_what_it_cannot_do(verb, bits):
    function, given = arguments_of(verb, bits)
    call = lambda variant=0, **changed: function(variant, *{**given, **changed}.values())  # noqa: E731
    assert call() == lib.EQK_OK
    for variant in (-1, max(library.VARIANTS.values()) + 1, 2**31 - 1):
        assert call(variant) == lib.EQK_BAD_VALUE
    for name, value in given.items():
        if isinstance(value, ffi.CData):
            assert call(**{name: ffi.NULL}) == lib.EQK_NULL_POINTER, name
            odd = ffi.cast(ffi.typeof(value), int(ffi.cast("uintptr_t", value)) + 1)
            assert call(**{name: odd}) == lib.EQK_MISALIGNED, name
        elif name in SIZES:
            for size in (0, -1, -(2**63), 2**41, 2**62, 2**63 - 1):
                assert call(**{name: size}) == lib.EQK_BAD_SIZE, (name, size)
        elif name in ("boundary", "neuron"):
            for code in (-1, 6, 2**31 - 1):
                assert call(**{name: code}) == lib.EQK_BAD_VALUE, (name, code)
        elif name == "work_size":
            for size in (0, 7):
                assert call(work_size=size) == lib.EQK_SMALL_WORKSPACE
    products = [name for name in given if name in SIZES - {"steps"}]
    if len(products) > 1:  # each can be, together they cannot
        assert call(**dict.fromkeys(products, 2**22)) == lib.EQK_BAD_SIZE
        assert call(**{products[0]: 4, products[1]: 2**62}) == lib.EQK_BAD_SIZE


def test_results_begin_on_a_line_of_the_cache():
    net = eq.Network.dense(7, 13, 5, backend="c")
    for batch in (1, 3, 50):
        workspace = Workspace(net.engine.layers, net.buffer, batch)
        for w in (workspace, workspace.with_own_results()):
            assert [a.ctypes.data % 64 for a in (w.state, w.mean, w.difference)] == [0, 0, 0]
