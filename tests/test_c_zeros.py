"""The C library leaves zeros out of Hebbian products and drives: to the same bits, wherever they are."""

import numpy as np
import pytest
import test_verbs
import test_zeros
from test_bindings import VARIANTS, ffi, library

import eqkernel as eq
from eqkernel.bindings import backend
from eqkernel.bindings.layered import Workspace

SIZES = (300, 131, 45, 10)  # no multiple of a vector, more units than are listed at once, chunks of several vectors
LONG = (1100, 40, 10)  # rows of more weights than learn at once
RULES = {"gradient": library.lib.EQK_GRADIENT, "sgd": library.lib.EQK_SGD, "momentum": library.lib.EQK_MOMENTUM,
         "adam": library.lib.EQK_ADAM}  # fmt: skip
# The part of numbers that are zero: of the clamped input, of means, of differences.
ZEROS = {"none": (0, 0, 0), "input": (0.7, 0, 0), "differences": (0, 0, 0.7), "all": (0.6,) * 3, "most": (0.97,) * 3}


class Update:
    """The update of a network from means and differences with zeros among them, called as C calls it."""

    def __init__(self, batch, dtype, zeros="all", rule="gradient", decay=0.0, parts=1, sizes=SIZES):
        rng = np.random.default_rng(batch)
        self.net = eq.Network.recurrent(*sizes, dtype=dtype, backend="c", cost="squared-error",
                                        schedule=eq.SCHEDULES["converged"].but(gamma=0.5))  # fmt: skip
        workspace = Workspace(self.net.engine.layers, self.net.buffer, batch)
        self.layers, self.workspace, self.parts = self.net.engine.layers, workspace, parts
        self.x = rng.random((batch, sizes[0])).astype(dtype)
        workspace.prepare(self.x, self.net.schedule)
        self.mean, self.difference = workspace.mean, workspace.difference
        for array, part in zip((self.x, self.mean, self.difference), ZEROS[zeros], strict=True):
            array[...] = rng.standard_normal(array.shape)
            dark = rng.random(array.size) < part
            same = rng.random(array.size // 2) < 0.9  # neighbours are mostly dark together, as pixels are
            dark[1::2][same] = dark[: 2 * same.size : 2][same]
            array[dark.reshape(array.shape)] *= 0  # of either sign
        job = self.job = workspace.job
        self.blocks("difference")[0][:, 8:16] = 0  # units that do not change
        self.x[:, :70] = 0  # and a dark edge
        self.moments = rng.random((2, self.net.buffer.size)).astype(dtype)
        job.first, job.second = (workspace.pointer(m) for m in self.moments)
        job.optimiser.rule, job.optimiser.rate, job.optimiser.decay = RULES[rule], 0.1, decay
        job.optimiser.constants = [0.9, 0.1, 0.99, 0.01, 1e-8, 2.0, 3.0]

    def blocks(self, name):
        """Layers 1..L of an array of states, (B, n_l) each."""
        batch, flat = self.job.batch, getattr(self.workspace, name)
        return [flat[batch * row :][: batch * n].reshape(batch, n) for row, n in self.layers[["row", "size"]][1:]]

    def run(self):
        """All parameters, then their moments."""
        run, job = library.functions(self.net.dtype), self.job
        size = run.update_workspace(job, self.parts)
        self.guarded = np.full(size + 2 * 64, 0xA5, np.uint8)
        job.work, job.work_size = ffi.from_buffer(self.guarded) + 64, size
        for part in range(self.parts)[::-1]:
            library.check(run.update(job, part, self.parts))
        assert (self.guarded[:64] == 0xA5).all() and (self.guarded[64 + size :] == 0xA5).all()
        return [self.net.buffer.copy(), *self.moments.copy()]

    def matrix(self, flat, l, name="weight"):
        """Of an array of all parameters, the matrix into layer l."""
        at, n = self.layers[name][l], self.layers["size"][l]
        pre = self.layers["size"][l - 1] if name == "weight" else n
        return flat[at : at + n * pre].reshape(n, pre)


def check_gradient(batch, dtype, zeros):
    """The verb leaves nothing out; it takes both products of a matrix as one of twice as many samples."""
    update = Update(batch, dtype, zeros)
    m, d = ([None, *update.blocks(name)] for name in ("mean", "difference"))
    m[0], d[0] = update.x, np.zeros_like(update.x)
    flat, top = update.run()[0], len(SIZES) - 1
    for l in range(1, top + 1):
        ends = [(m[l - 1], d[l - 1], "weight", 1.0), (m[l], d[l], "lateral", 0.5)]
        for m_pre, d_pre, name, half in ends[: 1 + (l < top)]:
            both = slice(None, None if l > 1 or name == "lateral" else batch)
            pre, post = np.concatenate([m_pre, d_pre])[both], np.concatenate([d[l], m[l]])[both]
            expected = np.zeros((SIZES[l], pre.shape[1]), dtype)
            scale = np.dtype(dtype).type(half) * np.dtype(dtype).type(-1 / 0.5 ** (top - l) / batch)
            backend.dense.hebbian(expected, pre, post, float(scale))
            np.testing.assert_array_equal(update.matrix(flat, l, name), expected, f"{name} into {l}")


@pytest.mark.parametrize("batch", [1, 3, 64, 130])
@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
def test_gradients_are_those_of_the_whole_product(dtype, zeros, batch):
    check_gradient(batch, dtype, zeros)


def check_infinity(batch, dtype, zeros, rule, decay, parts):
    """With an infinite number among them, nothing is left out: what it does not touch must be the same bits."""
    finite, other = (Update(batch, dtype, zeros, rule, decay, parts) for _ in range(2))
    other.x[batch // 2, 100] = np.inf
    for i, (ours, whole) in enumerate(zip(finite.run(), other.run(), strict=True)):
        touched = other.matrix(whole, 1)[:, 100]
        assert i or not np.isfinite(touched).any()
        touched[:] = finite.matrix(ours, 1)[:, 100]
        np.testing.assert_array_equal(ours, whole)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("batch", [1, 40, 70])
@pytest.mark.parametrize(("rule", "decay"), [("sgd", 0.0), ("sgd", 0.1), ("momentum", 0.0), ("adam", 0.0)])
@pytest.mark.parametrize("zeros", ["input", "differences", "all"])
def test_an_infinity_meets_its_zeros_and_all_else_is_the_same(zeros, rule, decay, batch, parts):
    check_infinity(batch, "float32", zeros, rule, decay, parts)


def check_variants(batch, dtype, zeros, rule, sizes):
    """Weights and moments are the same bits, though some learn in bands of rows."""
    results = []
    for name in VARIANTS:
        update = Update(batch, dtype, zeros, rule, parts=2, sizes=sizes)
        update.job.variant = library.VARIANTS[name]
        results.append(np.concatenate(update.run()))
    for name, result in zip(VARIANTS, results, strict=True):
        np.testing.assert_array_equal(result, results[0], name)


@pytest.mark.parametrize("sizes", [SIZES, LONG])
@pytest.mark.parametrize("rule", ["momentum", "adam"])
@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("batch", [3, 64, 130])
@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
def test_all_variants_learn_the_same(dtype, batch, zeros, rule, sizes):
    check_variants(batch, dtype, zeros, rule, sizes)


def test_the_scratch_must_be_as_large_as_was_asked_for():
    update = Update(3, "float32")
    update.run()
    run, before = library.functions(update.net.dtype), update.net.buffer.copy()
    update.job.work_size -= 1
    assert run.update(update.job, 0, 1) == library.lib.EQK_SMALL_WORKSPACE
    update.job.work = ffi.NULL
    assert run.update(update.job, 0, 1) == library.lib.EQK_NULL_POINTER
    np.testing.assert_array_equal(update.net.buffer, before)
    sizes = [run.update_workspace(update.job, parts) for parts in range(3)]
    assert sizes[0] == 0 < sizes[1] < sizes[2]


@pytest.mark.parametrize("sizes", [SIZES, LONG])
def test_a_larger_batch_needs_no_less_scratch(sizes):
    """What was allotted for the largest batch must do for all."""
    update = Update(200, "float32", sizes=sizes)
    run, needed = library.functions(update.net.dtype), []
    for batch in range(1, 201):
        update.job.batch = batch
        needed.append(run.update_workspace(update.job, 1))
    assert needed == sorted(needed)


@pytest.mark.parametrize("make", [test_zeros.resting, test_zeros.scattered])
@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
def test_a_tile_settles_to_the_bits_of_its_samples_alone(dtype, make):
    before = eq.get_threads()
    test_zeros.check_tiles(dtype, "c", make)
    eq.set_threads(before)


@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_meets_zeros_alone_is_not_hidden(bad, dtype):
    test_zeros.check_bad_weight(bad, dtype, "c")


@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
def test_a_weight_that_keeps_its_unit_at_rest_is_not_hidden(dtype):
    test_zeros.check_weight_that_keeps_at_rest(dtype, "c")


def check_workspace(net, x):
    """The phases of one tile keep within a workspace that begins nearly a line before the tile."""
    run, dtype = library.functions(net.dtype), net.dtype
    workspace = Workspace(net.engine.layers, net.buffer, len(x))
    job, size = workspace.prepare(x, net.schedule), workspace.job.work_size
    guarded = np.full(size + 3 * 64, 0xA5, np.uint8)
    begin = 64 + (-guarded.ctypes.data) % 64 + dtype.itemsize
    job.work = ffi.from_buffer(guarded) + begin
    labels = np.arange(len(x)) % net.sizes[-1]
    workspace.aim(None, 0.1, "centered", net.schedule, labels)
    for name in VARIANTS:
        job.variant = library.VARIANTS[name]
        library.check(run.settle(job, 0, 1))
        assert (guarded[:begin] == 0xA5).all() and (guarded[begin + size :] == 0xA5).all(), name


@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
@pytest.mark.parametrize("pixels", [63, 528])
def test_the_list_of_a_drive_stays_in_the_workspace(pixels, dtype):
    """Of a tile that ends with the list and the room that some variants need; 528 pixels, none dark, fill it."""
    net = eq.Network.dense(pixels, 64, 5, dtype=dtype, backend="c")
    check_workspace(net, 1 - np.random.default_rng(0).random((3, pixels), dtype))


@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
def test_the_samples_of_a_drive_stay_in_the_workspace(dtype):
    """Of a tile that ends with what is left of each sample; the lateral drive of the largest layer fills it."""
    net, x, _ = test_zeros.scattered(dtype, "c")
    check_workspace(net, x[:30])
    flat = eq.Network.dense(64, 256, 128, 10, dtype=dtype, backend="c", cost="squared-error")  # few units, few samples
    flat.buffer[:] = 0  # all stay at rest but the output of a sample's label
    check_workspace(flat, np.zeros((16, 64), dtype))
