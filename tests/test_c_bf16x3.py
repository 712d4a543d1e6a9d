"""Products of factors split in two bfloat16: within their bound, exact in the gradient, the same bits in any batch.

Both kinds of instructions are tested wherever the processor has them. That of AMX runs besides in an emulation of its
instructions (shim/amx.h): test_c_mutations runs the checks below on a library that is compiled with it.
"""

import shutil
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest
import test_backends
import test_independence
import test_verbs
from bounds import gamma, split_gamma
from c_library import BINDINGS, CC
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import cosine

import eqkernel as eq
from eqkernel.backends import unavailable

if reason := unavailable("c"):
    pytest.skip(f"backend 'c': {reason}", allow_module_level=True)

from test_bindings import job_of

from eqkernel.bindings import backend, library, precision
from eqkernel.bindings.library import ffi, lib

KINDS = {"bf16x3-avx512": lib.EQK_BF16X3_AVX512, "bf16x3-amx": lib.EQK_BF16X3_AMX}
HERE = [name for name, code in KINDS.items() if code <= lib.eqk_bf16x3()]
EACH = [
    pytest.param(name, marks=pytest.mark.skipif(name not in HERE, reason=f"this processor cannot run {name}"))
    for name in KINDS
]
needs_one = pytest.mark.skipif(not HERE, reason="this processor has neither AVX512-BF16 nor AMX")
ONE = eq.Schedule("one", 0.5, 1, 1, "synchronous", "difference", "frozen", None)
FEW = settings(max_examples=30, deadline=None, derandomize=True, database=None)


@contextmanager
def settling(name):
    """Phases of this precision for a while."""
    precision.set_precision(name)
    try:
        yield
    finally:
        precision.set_precision("float32")


def linear(*sizes, **options):
    """A network whose states are its drives, all parameters random."""
    build = eq.Network.recurrent if options.pop("lateral", False) else eq.Network.dense
    net = build(*sizes, neuron="linear", output="linear", cost="squared-error", backend="c", **options)
    net.buffer[...] = np.random.default_rng(7).standard_normal(net.buffer.size)
    for wire, parameter in zip(net.connections, net.parameters, strict=True):
        if wire.stem == "lateral":
            parameter += parameter.T.copy()
    return net


def parts(x):
    """x rounded to bfloat16 (ties to even), and what is left of it rounded likewise, in float64."""
    found, rest = [], np.ascontiguousarray(x, np.float32)
    for _ in range(2):
        bits = rest.view(np.uint32)
        bits = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        found.append(bits.view(np.float32).astype(float))
        rest = rest - bits.view(np.float32)
    return found


def check_product(found, weight, state, added):
    """found = added + state weight^T: of the parts as in any order of float32, of the factors within the bound."""
    (w_high, w_low), (s_high, s_low) = parts(weight), parts(state)
    n, size = weight.shape[1], abs(state.astype(float)) @ abs(weight.astype(float)).T
    sums = s_high @ w_high.T + s_low @ w_high.T + s_high @ w_low.T
    few = gamma(3, "float32") * (abs(added) + size)  # gamma, and what is added
    loose, tight = (split_gamma(n) * size + few, 1.02 * gamma(3 * n, "float32") * size + few)
    test_verbs.within(found, added + sums, tight, "the product of the parts")
    test_verbs.within(found, added + state.astype(float) @ weight.astype(float).T, loose, "the product")


def check_products(batch, n, m, seed):
    """Products upwards, downwards and within a layer, each in a network in which it stands alone."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, n)).astype(np.float32)
    net = linear(n, m, schedule=ONE)
    weight, bias = net.parameters
    check_product(eq.free_phase(net, x).output, weight, x, bias)

    net = linear(1, n, m, schedule=ONE.but(order="even-odd"))
    for wire, parameter in zip(net.connections, net.parameters, strict=True):
        if wire.post == 1 or wire.stem == "bias":
            parameter[...] = 0
        else:
            weight = parameter
    free = eq.free_phase(net, np.ones((batch, 1), np.float32))
    target = rng.standard_normal((batch, m)).astype(np.float32)
    nudged = eq.nudged_phase(net, free, target, beta=0.5)
    np.testing.assert_array_equal(nudged.difference[2], target)
    check_product(nudged.difference[1], 0.5 * weight.T, target, np.zeros(n))

    net = linear(n, m, 1, lateral=True, schedule=ONE)
    named = {(c.post, c.stem): p for c, p in zip(net.connections, net.parameters, strict=True)}
    named[2, "bias"][...] = 0  # the layer above is still at rest
    first = eq.free_phase(net, x).state[1]
    second = eq.free_phase(net, x, schedule=ONE.but(free_steps=2)).state[1]
    check_product(second, named[1, "lateral"], first, first.astype(float))


@pytest.mark.parametrize("kind", EACH)
def test_products(kind):
    @FEW
    @given(batch=test_verbs.widths, n=st.integers(1, 130), m=st.integers(1, 70), seed=test_verbs.seeds)
    def check(batch, n, m, seed):
        with settling(kind):
            check_products(batch, n, m, seed)

    check()


def test_the_bound_is_worth_having():
    assert 2**-15 < split_gamma(1) < 2**-14 and split_gamma(784) < 2e-4


@pytest.mark.parametrize("kind", EACH)
def test_phases(kind):
    @FEW
    @given(
        net=test_backends.networks("c", ["float32"], skips=False), batch=test_verbs.widths, seed=test_verbs.seeds,
        variant=st.sampled_from(list(eq.phases.VARIANTS)),
    )  # fmt: skip
    def check(net, batch, seed, variant):
        with settling(kind):
            test_backends.check_phases(net, batch, seed, variant, split=True)

    check()


def check_gradient(schedule, neuron):
    """Difference forms keep the gradient: the worst cosine of any matrix with the float64 estimate."""
    plan = eq.SCHEDULES[schedule].but(tolerance=None)
    net = eq.Network.recurrent(20, 48, 40, 10, neuron=neuron, schedule=plan, backend="c", seed=3)
    test_backends.contract(net)
    twin, rng = test_backends.twins(net), np.random.default_rng(0)
    x, y = rng.random((16, 20)), rng.integers(0, 10, 16)
    found = {}
    for form in ("difference", "mean-difference", "plus-minus"):
        ours, exact = (eq.ep_gradient(n, x, y, 1e-3, schedule=plan.but(form=form)) for n in (net, twin))
        pairs = zip(net.connections, ours, exact, strict=True)
        found[form] = min(cosine(g, e) for c, g, e in pairs if c.stem != "bias")
    return found


@pytest.mark.parametrize("neuron", ["tanh", "hard-sigmoid"])
@pytest.mark.parametrize("schedule", ["few-step", "converged"])
@pytest.mark.parametrize("kind", EACH)
def test_the_difference_keeps_the_gradient(kind, schedule, neuron):
    """At beta = .001, where two states differ by little more than they are rounded by. (Measured: 1 - 3e-11.)"""
    with settling(kind):
        found = check_gradient(schedule, neuron)
    assert min(found["difference"], found["mean-difference"]) > 1 - 1e-9, found


# -- the same bits ---------------------------------------------------------------------------------------------------


def check_bits(topology="recurrent", plan="difference", batches=(1, 2, 16, 17, 33)):
    """A sample settles to the same bits in any batch, and on any number of threads."""
    net = test_independence.TOPOLOGIES[topology]("float32", test_independence.PLANS[plan], "c")
    x, y = test_independence.X, test_independence.Y
    whole = test_independence.phases(net, x[:33], y[:33])
    for size in batches:
        np.testing.assert_array_equal(test_independence.phases(net, x[:size], y[:size]), whole[:size])
        found = test_independence.phases(net, x[33 - size : 33], y[33 - size : 33])
        np.testing.assert_array_equal(found, whole[-size:])
    return whole


@pytest.mark.parametrize("plan", test_independence.PLANS)
@pytest.mark.parametrize("topology", ["dense", "recurrent", "conv"])
@pytest.mark.parametrize("kind", EACH)
def test_a_sample_settles_to_the_same_bits_whatever_its_batch(kind, topology, plan, monkeypatch):
    with settling(kind):
        whole = check_bits(topology, plan)
        monkeypatch.setattr("eqkernel.cpu.threads.WORTH_A_THREAD", 0)
        before = eq.get_threads()
        for threads in (2, 3):
            eq.set_threads(threads)
            np.testing.assert_array_equal(check_bits(topology, plan, (7, 33)), whole)
        eq.set_threads(before)


def check_memory():
    """Tiles and shares in any order, in memory of exactly the size asked for that held NaNs: the bits of the whole."""
    rng = np.random.default_rng(0)
    for batch in (1, 17, 40):
        workspace, (net, x, target, _) = job_of(batch)
        x[:], target[:] = rng.random(x.shape), rng.random(target.shape)
        job, size, found = workspace.job, workspace.job.work_size, []
        for shares, offset, tiles in ((1, 0, (0, 1)), (3, 4, (1, 0)), (2, 60, (0, 1))):
            guarded = np.full(size + 2 * 4096, 0xFF, np.uint8)
            begin = 4096 + (-guarded.ctypes.data) % 64 + offset
            job.work = ffi.from_buffer(guarded) + begin
            for share in reversed(range(shares)):
                library.check(lib.eqk_pack_f32(job, share, shares))
            for phase in (lib.eqk_free_phase_f32, lib.eqk_nudged_phase_f32):
                for tile in tiles[: lib.eqk_tiles_f32(job)] if batch > 32 else (0,):
                    library.check(phase(job, tile, tile + 1))
            assert (guarded[:begin] == 0xFF).all() and (guarded[begin + size :] == 0xFF).all(), (batch, offset)
            arrays = (workspace.state, workspace.mean, workspace.difference, workspace.report)
            found.append([a.copy() for a in arrays])
        for other in found[1:]:
            for one, two in zip(found[0], other, strict=True):
                np.testing.assert_array_equal(one, two, str(batch))
        assert all(np.isfinite(a).all() for a in found[0])
        assert net is not None


@pytest.mark.parametrize("kind", EACH)
def test_tiles_and_shares_make_the_whole_and_keep_to_their_memory(kind):
    with settling(kind):
        check_memory()


def check_steps():
    """Training steps in one call are those of the phases, which see the weights as they have become."""
    plan, rng = eq.SCHEDULES["few-step"], np.random.default_rng(0)
    x, y = rng.random((33, 20)).astype(np.float32), rng.integers(0, 5, 33)
    nets = [eq.Network.recurrent(20, 30, 5, schedule=plan, backend="c", seed=1) for _ in range(2)]
    whole, alone = (eq.Momentum(0.1) for _ in nets)
    for _ in range(3):
        eq.train_step(nets[0], x, y, beta=0.2, optimiser=whole)
        free = eq.free_phase(nets[1], x, reuse=True)
        nudged = eq.nudged_phase(nets[1], free, y, beta=0.2, reuse=True)
        eq.hebbian_update(nets[1], nudged, alone)
        np.testing.assert_array_equal(nets[0].buffer, nets[1].buffer)


@pytest.mark.parametrize("kind", EACH)
def test_steps_in_one_call_are_those_of_the_phases(kind):
    with settling(kind):
        check_steps()


def test_steps_of_full_precision_are_those_of_the_phases():
    check_steps()


@needs_one
def test_the_precision_may_change_between_phases():
    net, x = linear(20, 30, schedule=ONE), np.random.default_rng(0).random((33, 20))
    full = eq.free_phase(net, x).output.copy()
    with settling("bf16x3"):
        rounded = eq.free_phase(net, x, reuse=True).output.copy()
        assert not np.array_equal(full, rounded)
        double = linear(20, 30, schedule=ONE, dtype="float64")
        exact = eq.free_phase(double, x).output.copy()
    np.testing.assert_array_equal(eq.free_phase(net, x, reuse=True).output, full)
    np.testing.assert_array_equal(eq.free_phase(double, x).output, exact)
    with settling("bf16x3"):
        np.testing.assert_array_equal(eq.free_phase(net, x, reuse=True).output, rounded)


@pytest.mark.parametrize("kind", EACH)
@pytest.mark.parametrize("what", [np.nan, np.inf, 3.4e38])
def test_what_is_not_finite_is_not_learnt_from(kind, what):
    """Nor what rounds to no finite bfloat16."""
    net, x = linear(20, 30, 10), np.ones((5, 20), np.float32)
    x[3, 7] = what
    before = net.buffer.copy()
    with settling(kind), pytest.raises(eq.EqkernelError):
        eq.train_step(net, x, np.zeros(5, int))
    np.testing.assert_array_equal(net.buffer, before)


# -- what cannot be done ---------------------------------------------------------------------------------------------


def test_a_precision_that_cannot_run_is_refused(monkeypatch):
    with pytest.raises(eq.EqkernelError, match=r"unknown precision 'bf16': did you mean 'bf16x3'\?"):
        precision.set_precision("bf16")
    monkeypatch.setattr(precision, "_best", lambda: 0)
    with pytest.raises(eq.EqkernelError, match="'bf16x3' needs AVX512-BF16 or AMX, which this processor"):
        precision.set_precision("bf16x3")
    assert "no bf16x3" in backend.detail()
    monkeypatch.setattr(precision, "_best", lambda: lib.EQK_BF16X3_AVX512)
    with pytest.raises(eq.EqkernelError, match="'bf16x3-amx' needs AMX, which"):
        precision.set_precision("bf16x3-amx")
    assert "bf16x3 by AVX512-BF16" in backend.detail()
    library.use_variant("scalar")
    with pytest.raises(eq.EqkernelError, match="needs the kernels 'avx512', not 'scalar'"):
        precision.set_precision("bf16x3")
    library.use_variant("auto")
    assert precision.get_precision() == "float32"


def test_a_job_of_another_precision_is_refused():
    workspace, keep = job_of()
    run, job = lib.eqk_settle_f32, workspace.job
    for code, expected in ((-1, lib.EQK_BAD_VALUE), (4, lib.EQK_BAD_VALUE)):
        job.schedule.precision = code
        job.work_size = lib.eqk_workspace_f32(job)
        workspace.memory = np.zeros(job.work_size, np.uint8)
        job.work = ffi.from_buffer(workspace.memory)
        assert run(job, 0, 1) == lib.eqk_pack_f32(job, 0, 1) == expected, keep[0]
    for code in (lib.EQK_BF16X3, *KINDS.values()):
        job.schedule.precision = code
        here = bool(HERE) and code <= lib.eqk_bf16x3()
        assert (lib.eqk_pack_f32(job, 0, 1) == lib.EQK_OK) == here
        for variant in (lib.EQK_SCALAR, lib.EQK_AVX2) if here else ():
            job.variant = variant
            assert run(job, 0, 1) == lib.EQK_NOT_SUPPORTED
        job.variant = lib.EQK_AUTO
    job.work_size -= 1
    assert lib.eqk_pack_f32(job, 0, 1) == lib.EQK_SMALL_WORKSPACE
    for part, of in ((1, 1), (-1, 1), (0, 0)):
        job.work_size += 1
        assert lib.eqk_pack_f32(job, part, of) == lib.EQK_BAD_SIZE
    double, keep = job_of(dtype="float64")
    assert lib.eqk_pack_f64(double.job, 0, 1) == lib.EQK_OK  # nothing is to be packed
    double.job.schedule.precision = lib.EQK_BF16X3
    assert lib.eqk_pack_f64(double.job, 0, 1) == lib.EQK_NOT_SUPPORTED, keep[0]
    names = [ffi.string(lib.eqk_precision_name(code)).decode() for code in range(-1, 5)]
    assert len(set(names)) == 5 and names[0] == names[-1] == "no precision of eqkernel"


@pytest.mark.skipif(CC is None or shutil.which("uname") is None, reason="needs a C compiler")
def test_the_real_instructions_are_compiled(tmp_path):
    """Not an emulation of them: what AMX runs."""
    made = tmp_path / "amx.s"
    command = [CC, "-std=c99", "-O1", "-w", f"-I{BINDINGS / 'include'}", "-S", BINDINGS / "src/amx_f32.c", "-o", made]
    assert subprocess.run(command).returncode == 0
    text = made.read_text()
    if subprocess.run(["uname", "-m"], capture_output=True, text=True).stdout.strip() != "x86_64":
        pytest.skip("not an x86-64 processor")
    for instruction in ("ldtilecfg", "tilezero", "tileloadd", "tdpbf16ps", "tilestored", "tilerelease"):
        assert instruction in text
