"""The C library itself: its variants are the same to the bit, it refuses what it must, and it needs nobody."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_backends
import test_verbs

import eqkernel as eq
from eqkernel.backends import unavailable
from eqkernel.neurons import tanh_coefficients, tanh_limit

if reason := unavailable("c"):
    pytest.skip(f"backend 'c': {reason}", allow_module_level=True)

from eqkernel.bindings import backend, library
from eqkernel.bindings.layered import Workspace
from eqkernel.bindings.library import ffi, lib

ROOT = Path(__file__).parent.parent / "bindings"
VARIANTS = [name for name, code in library.VARIANTS.items() if name != "auto" and lib.eqk_runs_variant(code)]
CC = shutil.which("cc")
needs_cc = pytest.mark.skipif(CC is None, reason="needs a C compiler")


@pytest.fixture(autouse=True)
def restore_variant():
    yield
    library.use_variant("auto")


# -- variants ------------------------------------------------------------------------------------------------------


def in_every_variant(run):
    """What run() returns, a list of arrays, is the same to the last bit in every variant."""
    found = {}
    for name in VARIANTS:
        library.use_variant(name)
        found[name] = run()
    for name, arrays in found.items():
        for ours, scalar in zip(arrays, found["scalar"], strict=True):
            np.testing.assert_array_equal(ours, scalar, name)


def test_there_is_more_than_one_variant_on_x86():
    features = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert ("avx2" in VARIANTS) == (" avx2 " in features)
    assert ("avx512" in VARIANTS) == ("avx512-intel" in VARIANTS) == (" avx512dq " in features)
    best = VARIANTS[-1] if "GenuineIntel" in features else [v for v in VARIANTS if v != "avx512-intel"][-1]
    assert library.variant_name() == best


@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
@pytest.mark.parametrize(("stem", "verb"), test_verbs.VERBS)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 33, 17), (7, 31, 65), (33, 100, 13), (64, 257, 40)], ids=str)
def test_verbs_are_the_same_bits_in_every_variant(stem, verb, dtype, sizes):
    out, arguments = test_verbs.verb_arguments(stem, verb, dtype, *sizes, seed=0)

    def run():
        found = out.copy()
        getattr(getattr(backend, stem), verb)(found, *arguments)
        return [found]

    in_every_variant(run)


def test_a_network_runs_the_variant_of_the_moment():
    net, x, y = eq.Network.dense(6, 8, 3, backend="c"), np.ones((4, 6), np.float32), np.zeros(4, int)
    for name in (VARIANTS[-1], "scalar"):
        library.use_variant(name)
        eq.train_step(net, x, y, lr=0.1)
        assert net.engine.workspace.job.variant == library.VARIANTS[name]


@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
@pytest.mark.parametrize("neuron", [*test_verbs.RATES, "softmax"])
def test_neurons_are_the_same_bits_in_every_variant(neuron, dtype):
    rng = np.random.default_rng(0)
    drive = (rng.standard_normal((5, 67)) * 10 ** rng.uniform(-6, 2, (5, 67))).astype(dtype)
    drive[0, :6] = 0, -0.0, np.inf, -np.inf, np.nan, np.finfo(dtype).tiny

    def run():
        rate, state, difference = np.empty_like(drive), np.full_like(drive, 0.3), np.zeros_like(drive)
        backend.neurons.rate(rate, drive, neuron)
        if neuron != "softmax":
            backend.neurons.relax(state, drive, 0.7, neuron)
            backend.neurons.difference(difference, drive, drive[::-1].copy(), neuron)
        return [rate, state, difference]

    in_every_variant(run)


@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
@pytest.mark.parametrize("form", test_backends.FORMS, ids=str)
@pytest.mark.parametrize("order", ["synchronous", "even-odd", "sweep"])
@pytest.mark.parametrize("neuron", ["hard-sigmoid", "fhn"])
def test_phases_and_updates_are_the_same_bits_in_every_variant(neuron, order, form, dtype):
    rng = np.random.default_rng(0)
    plan = {"order": order, "form": form[0], "nudge": form[1], "tolerance": None}
    schedule = eq.Schedule(gamma=0.5, free_steps=5, nudged_steps=4, **plan)
    x, y = rng.random((35, 67)).astype(dtype), rng.integers(0, 10, 35)

    def run():
        found = []
        for size in (1, 7, 35):
            net = eq.Network.recurrent(67, 41, 33, 10, neuron=neuron, schedule=schedule, dtype=dtype, backend="c")
            for optimiser in (eq.SGD(0.1), eq.Momentum(0.1, weight_decay=0.1), eq.Adam(0.01)):
                free = eq.free_phase(net, x[:size])
                nudged = eq.nudged_phase(net, free, y[:size], 0.2)
                eq.hebbian_update(net, nudged, optimiser)
                found += [*free.state[1:], *nudged.mean[1:], *nudged.difference[1:], net.buffer.copy()]
                found.append(np.array([free.residual, nudged.residual]))
        return found

    with np.errstate(all="ignore"):
        in_every_variant(run)


@pytest.mark.parametrize("dtype", test_verbs.DTYPES)
@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_diffusion_and_the_field_are_the_same_bits_in_every_variant(boundary, dtype):
    rng = np.random.default_rng(0)
    pre, post = (rng.standard_normal((2, 37, 53)).astype(dtype) for _ in range(2))
    D, constants = np.array([0.7], dtype), (1.1, 13.0, 1.4, 0.7, 0.1, 0.011, 0.009)

    def run():
        energy, drive, trace, state = np.zeros(2, dtype), np.zeros_like(pre), np.zeros(1, dtype), pre.copy()
        backend.diffusion.energy(energy, pre, post, D, boundary)
        backend.diffusion.drive_post(drive, pre, D, boundary)
        backend.diffusion.hebbian(trace, pre, post, 0.3, boundary)
        largest = backend.field.advance(state, np.empty_like(state), 7, constants, boundary)
        return [energy, drive, trace, state, np.array(largest)]

    in_every_variant(run)


def test_a_variant_that_cannot_run_is_refused():
    with pytest.raises(eq.EqkernelError, match="unknown variant 'avx51': did you mean 'avx512'"):
        library.use_variant("avx51")
    drive = np.zeros((1, 1), np.float32)
    pointer = library.writes(drive)
    status = lib.eqk_bias_drive_post_f32(99, pointer, pointer, 1, 1)
    assert status == lib.EQK_BAD_VALUE


# -- refusals ------------------------------------------------------------------------------------------------------


def job_of(batch=3, dtype="float32", adaptation=0.0, **options):
    """A workspace whose job is whole: every field may now be spoilt in turn."""
    net = eq.Network.recurrent(5, 4, 3, dtype=dtype, backend="c", **{"cost": "squared-error", **options})
    net.engine.layers["adaptation"][1:] = adaptation
    workspace = Workspace(net.engine.layers, net.buffer, batch)
    x, target = np.zeros((batch, 5), dtype), np.zeros((batch, 3), dtype)
    workspace.prepare(x, net.schedule)
    workspace.aim(target, 0.1, "centered", net.schedule)
    moments = np.zeros((2, net.buffer.size), dtype)
    workspace.job.first, workspace.job.second = (workspace.pointer(m) for m in moments)
    workspace.job.optimiser.rule, workspace.job.optimiser.constants[4] = lib.EQK_ADAM, 1e-8
    return workspace, (net, x, target, moments)


POINTERS = ["layers", "parameters", "x", "state", "mean", "difference", "report", "first", "second", "work"]
SPOILT = {
    "version": ("version", 99, "EQK_WRONG_VERSION"),
    "variant": ("variant", 7, "EQK_BAD_VALUE"),
    "no samples": ("batch", 0, "EQK_BAD_SIZE"),
    "fewer than none": ("batch", -1, "EQK_BAD_SIZE"),
    "more than can be": ("batch", 2**62, "EQK_BAD_SIZE"),
    "more than the workspace": ("batch", 64, "EQK_SMALL_WORKSPACE"),
    "one layer": ("count", 1, "EQK_BAD_SIZE"),
    "too many layers": ("count", 2**40, "EQK_BAD_SIZE"),
    "no parameters": ("parameter_count", 0, "EQK_BAD_SIZE"),
    "fewer parameters": ("parameter_count", 20, "EQK_BAD_VALUE"),
    "beta": ("beta", 0.0, "EQK_BAD_VALUE"),
    "beta below zero": ("beta", -0.1, "EQK_BAD_VALUE"),
    "beta no number": ("beta", float("nan"), "EQK_BAD_VALUE"),
    "beta too small for the type": ("beta", 1e-300, "EQK_BAD_VALUE"),
    "workspace": ("work_size", 100, "EQK_SMALL_WORKSPACE"),
    "gamma": ("schedule.gamma", 1.5, "EQK_BAD_VALUE"),
    "gamma no number": ("schedule.gamma", float("nan"), "EQK_BAD_VALUE"),
    "step": ("schedule.step", 0.0, "EQK_BAD_VALUE"),
    "tolerance": ("schedule.tolerance", -1.0, "EQK_BAD_VALUE"),
    "free steps": ("schedule.free_steps", 0, "EQK_BAD_SIZE"),
    "nudged steps": ("schedule.nudged_steps", -5, "EQK_BAD_SIZE"),
    "order": ("schedule.order", 3, "EQK_BAD_VALUE"),
    "form": ("schedule.form", 0, "EQK_BAD_VALUE"),
    "nudge": ("schedule.nudge", 2, "EQK_BAD_VALUE"),
    "live nudge of a difference": ("schedule.nudge", 1, "EQK_BAD_VALUE"),
    "rule": ("optimiser.rule", 4, "EQK_BAD_VALUE"),
    "rate": ("optimiser.rate", float("inf"), "EQK_BAD_VALUE"),
    "gamma too small for the type": ("schedule.gamma", 1e-50, "EQK_BAD_VALUE"),
    "rate beyond the type": ("optimiser.rate", 1e300, "EQK_BAD_VALUE"),
    "decay beyond the type": ("optimiser.decay", -1e300, "EQK_BAD_VALUE"),
    "constant beyond the type": ("optimiser.constants", [0, 0, 0, 0, 1e300], "EQK_BAD_VALUE"),
    "size": ("layers.size", 0, "EQK_BAD_SIZE"),
    "size beyond the parameters": ("layers.size", 2**30, "EQK_BAD_VALUE"),
    "size beyond all": ("layers.size", 2**62, "EQK_BAD_SIZE"),
    "weight": ("layers.weight", -1, "EQK_BAD_VALUE"),
    "bias": ("layers.bias", 2**60, "EQK_BAD_VALUE"),
    "lateral": ("layers.lateral", 2**40, "EQK_BAD_VALUE"),
    "neuron": ("layers.neuron", 9, "EQK_BAD_VALUE"),
    "softmax inside": ("layers.neuron", lib.EQK_SOFTMAX, "EQK_BAD_VALUE"),
    "row": ("layers.row", 1, "EQK_BAD_VALUE"),
    "adaptation": ("layers.adaptation", -0.1, "EQK_BAD_VALUE"),
    "adaptation no number": ("layers.adaptation", float("nan"), "EQK_BAD_VALUE"),
    "adaptation beyond the type": ("layers.adaptation", 1e300, "EQK_BAD_VALUE"),
    "tau of a layer that adapts": ("layers.tau", 0.5, "EQK_BAD_VALUE"),
    "tau no number": ("layers.tau", float("nan"), "EQK_BAD_VALUE"),
    **{f"{name} is NULL": (name, ffi.NULL, "EQK_NULL_POINTER") for name in POINTERS},
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_job_that_cannot_be_done_is_refused_and_nothing_written(what):
    workspace, keep = job_of(adaptation=0.2)
    place, value, expected = SPOILT[what]
    owner, _, field = place.rpartition(".")
    if owner == "layers":
        target = ffi.cast("eqk_layer *", ffi.from_buffer(workspace.layers))[1]
    else:
        target = getattr(workspace.job, owner) if owner else workspace.job
    setattr(target, field, value)
    before = keep[0].buffer.copy()
    assert lib.eqk_train_step_f32(workspace.job, ffi.NULL, ffi.NULL) == getattr(lib, expected)
    for array in (workspace.state, workspace.mean, workspace.difference, workspace.report):
        assert not array.any()
    np.testing.assert_array_equal(keep[0].buffer, before)


def test_a_step_that_could_only_make_nans_is_refused():
    """The feedback of a deep network leaves its type, and an Adam without eps divides 0 by 0."""
    for hidden, dtype, fits in ((16, "float32", True), (17, "float32", False), (17, "float64", True)):
        net = eq.Network.dense(4, *[3] * hidden, 3, dtype=dtype, backend="c")
        workspace, x, y = net.engine.reserve(5, False), np.ones((5, 4), dtype), np.arange(5) % 3
        job = workspace.prepare(x, net.schedule)
        workspace.aim(None, 0.02, "centered", net.schedule, y)
        job.optimiser.rule, job.optimiser.rate = lib.EQK_SGD, 0.1
        assert workspace.run.train_step(job, ffi.NULL, ffi.NULL) == (lib.EQK_OK if fits else lib.EQK_BAD_VALUE)
        assert np.isfinite(net.buffer).all()
    workspace, keep = job_of()
    moments = np.zeros_like(keep[0].buffer)
    job = workspace.job
    job.optimiser.constants[4], job.first, job.second = 0, *[ffi.from_buffer("float[]", moments)] * 2
    assert lib.eqk_train_step_f32(job, ffi.NULL, ffi.NULL) == lib.EQK_BAD_VALUE
    job.optimiser.constants[4] = 1e-8
    assert lib.eqk_train_step_f32(job, ffi.NULL, ffi.NULL) == lib.EQK_OK


@pytest.mark.parametrize("name", POINTERS)
def test_a_misaligned_pointer_is_refused(name):
    workspace, keep = job_of()
    pointer = getattr(workspace.job, name)
    setattr(workspace.job, name, ffi.cast(ffi.typeof(pointer), int(ffi.cast("uintptr_t", pointer)) + 2))
    expected = lib.EQK_MISALIGNED
    assert lib.eqk_train_step_f32(workspace.job, ffi.NULL, ffi.NULL) == expected, keep[0]


def test_labels_outside_the_classes_are_refused():
    workspace, keep = job_of()
    labels = np.array([0, 3, 1])
    workspace.job.target, workspace.job.labels = ffi.NULL, ffi.from_buffer("int64_t[]", labels)
    assert lib.eqk_settle_f32(workspace.job, 0, 1) == lib.EQK_BAD_VALUE
    labels[1] = 2
    assert lib.eqk_settle_f32(workspace.job, 0, 1) == lib.EQK_OK, keep[0]
    assert lib.eqk_settle_f32(workspace.job, 0, 2) == lib.EQK_BAD_SIZE
    assert lib.eqk_free_phase_f32(ffi.NULL, 0, 1) == lib.EQK_NULL_POINTER


def test_every_status_has_a_sentence_and_every_variant_a_name():
    texts = [ffi.string(lib.eqk_status_text(code)).decode() for code in range(-1, 11)]
    assert len(set(texts)) == 11 and texts[0] == texts[-1] == "no status of eqkernel"
    names = [ffi.string(lib.eqk_variant_name(code)).decode() for code in library.VARIANTS.values()]
    assert names == list(library.VARIANTS) and names[-1] == "avx512-intel"
    with pytest.raises(eq.EqkernelError, match="refused a call: a pointer that is needed is NULL"):
        library.check(lib.eqk_bias_drive_post_f32(0, ffi.NULL, ffi.NULL, 1, 1))


def test_float16_is_refused():
    with pytest.raises(eq.EqkernelError, match="float32 and float64, not float16"):
        backend.dense.energy(np.zeros(1, np.float16), np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((2, 2)))


# -- the sources ---------------------------------------------------------------------------------------------------


def test_the_constants_of_tanh_are_those_of_the_table():
    """The literals of coefficients.h, read as C reads them."""
    text = (ROOT / "src/coefficients.h").read_text()
    for dtype, part in zip((np.float32, np.float64), text.split("#else"), strict=True):
        for name, expected in zip(("ODD", "EVEN"), tanh_coefficients(dtype), strict=True):
            literals = re.search(rf"TANH_{name}\[(\d+)\] = {{(.*?)}}", part, re.DOTALL)
            numbers = [dtype(literal.rstrip("f")) for literal in re.split(r"[,\s]+", literals[2].strip())]
            assert len(numbers) == int(literals[1]) and numbers == list(expected[::-1])
        limit = re.search(r"TANH_LIMIT ([\d.]+)", part)
        assert dtype(limit[1]) == dtype(tanh_limit(dtype))


def test_the_library_allocates_nothing():
    for path in sorted((ROOT / "src").glob("*.[ch]")):
        code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        assert not re.search(r"\b(malloc|calloc|realloc|alloca|free)\s*\(", code), path.name


PLANTED = """
static int counter = 0;
int shared;
static _Thread_local double own = 1;
static const int table[] = {1, 2};
static const char *const names[] = {"one", "two"};
int f(int i) { static int calls; own *= 2; return counter++ + ++calls + shared + (int)own + table[i] + *names[i]; }
"""


@pytest.fixture
def variables():
    """variables(library): names of what it could write to, in functions too; cffi's and the runtime's begin with _."""
    if (nm := shutil.which("nm")) is None or sys.platform != "linux":
        pytest.skip("needs nm, and the sections of ELF")

    def listed(path):
        out = subprocess.run([nm, "-f", "sysv", str(path)], capture_output=True, text=True, check=True).stdout
        rows = [[cell.strip() for cell in line.split("|")] for line in out.splitlines() if line.count("|") == 6]
        if not rows:
            pytest.skip("the library was stripped of its symbols")
        # Constant pointers lie in .data.rel.ro, which the loader seals.
        return {name.split(".")[0] for name, *_, section in rows if section in (".data", ".bss", ".tdata", ".tbss")}

    return listed


@needs_cc
def test_variables_are_seen_wherever_they_are_planted(variables, tmp_path):
    (tmp_path / "planted.c").write_text(PLANTED)
    subprocess.run([CC, "-fPIC", "-shared", "planted.c", "-o", "planted.so"], cwd=tmp_path, check=True)
    found = variables(tmp_path / "planted.so") - {"completed"}
    assert {name for name in found if not name.startswith("_")} == {"counter", "shared", "own", "calls"}


def test_the_library_holds_no_state(variables):
    (extension,) = ROOT.glob("_eqkernel*.so")
    found = variables(extension) - {"completed"}  # of the C runtime
    assert not [name for name in found if not name.startswith("_")]


@needs_cc
def test_an_extension_exports_nothing_but_what_the_header_declares():
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("needs nm")
    (extension,) = ROOT.glob("_eqkernel*.so")
    listed = subprocess.run([nm, "-D", "--defined-only", str(extension)], capture_output=True, text=True, check=True)
    names = {line.split()[-1] for line in listed.stdout.splitlines()}
    header = (ROOT / "include/eqkernel.h").read_text()
    declared = set(re.findall(r"EQK_API .*?\b(eqk_\w+)\(", header))
    declared |= {f"eqk_{verb}_{bits}" for verb in re.findall(r"EQK\((\w+)\)\(", header) for bits in ("f32", "f64")}
    assert {name for name in names if name.startswith("eqk_")} == declared
    assert {name for name in names if not name.startswith("eqk_")} <= {"PyInit__eqkernel", "_init", "_fini"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            "ImportError('undefined symbol: fma')",
            "was built, but does not load: undefined symbol: fma; reinstall eqkernel",
        ),
        ("ModuleNotFoundError('no cffi', name='_cffi_backend')", "was built, but does not load: no cffi; reinstall"),
        ("ModuleNotFoundError('none', name=name)", "was not built when eqkernel was installed; install a C compiler"),
    ],
)
def test_a_library_that_does_not_load_is_not_taken_for_one_that_was_not_built(error, expected):
    code = f"""
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.endswith("._eqkernel"):
            raise {error}
sys.meta_path.insert(0, Finder())
from eqkernel.backends import unavailable
print(unavailable("c"))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert expected in result.stdout


# -- memory of others ----------------------------------------------------------------------------------------------


def test_an_output_that_may_not_be_written_is_refused():
    drive = np.zeros((2, 3))
    drive.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        backend.dense.drive_post(drive, np.ones((2, 4)), np.ones((3, 4)))
    assert not drive.any()


@pytest.mark.parametrize("shape", [(2, 3), (5, 4), (15,)])
def test_a_bias_that_does_not_fit_its_batch_or_its_layer_is_refused(shape):
    energy = np.zeros(5)
    with pytest.raises(eq.EqkernelError):
        backend.bias.energy(energy, None, np.ones(shape), np.ones(3))
    assert not energy.any()
