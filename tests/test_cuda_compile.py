"""The real compiler on every CUDA text, without a GPU: it compiles, spills nothing, and leaves room on the chip.

NVRTC comes as the wheel nvidia-cuda-nvrtc (extra "test", on Linux x86-64). A ceiling here is what the kernel needed
when it was written, a little rounded: who passes it has made a kernel worse, or must say why not.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
from shim import build, nvrtc

from eqkernel.cuda.launcher import HERE, text_of
from eqkernel.geometry import conv_geometry

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None, reason="needs NVRTC: pip install nvidia-cuda-nvrtc (Linux x86-64)"
)
ARCHITECTURES = ("75", "80", "90", "100")
STEMS = sorted(path.stem for path in HERE.glob("*.cu"))
# The second of two convolutions of MNIST: 12 x 12 x 16 through 5 x 5 kernels, stride 2, and pooled.
GEOMETRY = conv_geometry("it", (12, 12, 16), (2, 2, 32), 5, 2, 2, "max", 3)
DEFINES = {
    "fused": (("LANES", 4),),
    "layer": (("PRECISION", 0),),
    "field": (("STEPS", 4),),
    "conv": tuple(sorted((field.upper(), value) for field, value in GEOMETRY._asdict().items())),
}
# float32: kernel -> most registers, least share of a multiprocessor's warps that can be resident
CEILINGS = {
    "advance": (160, 0.1875),
    "energy": (64, 1.0), "drive_post": (64, 0.5), "drive_pre": (64, 0.5), "hebbian": (64, 0.5),
    "rate": (32, 1.0), "relax": (32, 1.0), "difference": (32, 1.0), "softmax": (48, 0.75),
    "drive": (40, 1.0), "correlate": (40, 1.0), "update": (80, 0.375),
    "free_tiles": (128, 0.25), "nudged_tiles": (128, 0.25),
    "convolve": (64, 0.5), "conv.drive_pre": (64, 0.5), "trace_parts": (64, 0.5), "gather": (40, 1.0),
    "pool": (40, 1.0), "choose": (40, 1.0), "relax_layer": (128, 0.25),
}  # fmt: skip
THREADS = {"advance": 32}  # a block; others have 256
# Bytes of shared memory chosen at launch: the tiles of 784-512-10, of which a block at least must
# fit the small multiprocessors of sm_75.
DYNAMIC = {"free_tiles": 51_000, "nudged_tiles": 51_000}


@pytest.fixture(scope="module")
def needs():
    """(stem, architecture) -> what its kernels need, float32; and of the largest float64 on sm_90, (stem, "double")."""
    jobs = {(stem, arch): ("float32", arch) for stem in STEMS for arch in ARCHITECTURES}
    jobs |= {(stem, "double"): ("float64", "90") for stem in ("fused", "hebbian")}  # the largest
    with ThreadPoolExecutor(2) as pool:
        done = {
            key: pool.submit(nvrtc.compile, text_of(key[0], dtype, DEFINES.get(key[0], ())), arch)
            for key, (dtype, arch) in jobs.items()
        }
        return {key: future.result() for key, future in done.items()}


@pytest.mark.parametrize("arch", ["80", "100"])
@pytest.mark.parametrize("precision", [1, 2], ids=["tf32", "bf16"])
def test_tensor_cores(precision, arch):
    """The text with its PTX compiles where there are such cores, and is no larger than that without."""
    need = nvrtc.compile(text_of("layer", "float32", (("PRECISION", precision),)), arch)["relax_layer"]
    assert need.spills == need.stack == 0 and need.registers <= 112 and need.occupancy(arch, 256) >= 0.25


@pytest.mark.parametrize("stem", STEMS)
def test_every_kernel_compiles_and_spills_nothing(needs, stem):
    declared = set(build.kernels(text_of(stem, "float32", DEFINES.get(stem, ()))))
    for (file, arch), kernels in needs.items():
        if file == stem:
            assert set(kernels) == declared, f"sm_{arch}"
            for name, need in kernels.items():
                assert need.spills == need.stack == 0, f"{name}, {arch}: {need}"


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_registers_and_occupancy(needs, arch):
    found = {}
    for (stem, a), kernels in needs.items():
        for name, need in kernels.items():
            if a == arch:
                found[f"conv.{name}" if stem == "conv" and name == "drive_pre" else name] = need
    assert set(found) == set(CEILINGS)
    for name, need in found.items():
        registers, least = CEILINGS[name]
        share = need.occupancy(arch, THREADS.get(name, 256), DYNAMIC.get(name, 0))
        assert need.registers <= registers, f"{name}: {need.registers} registers"
        assert share >= least, f"{name}: {share:.0%} of the warps"


def test_a_text_that_does_not_compile_says_why():
    with pytest.raises(RuntimeError, match='identifier "nothing" is undefined'):
        nvrtc.compile('extern "C" __global__ void k(float* a) { a[0] = nothing; }', "90")


def test_spills_are_seen():
    """A kernel that keeps 300 numbers in at most 32 registers a thread must put them elsewhere."""
    text = """
extern "C" __global__ void __launch_bounds__(1024, 2) k(float* a) {
    float x[300];
    for (int i = 0; i < 300; i++) x[i] = a[i * 7];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 300; i++) a[i] = x[i] * x[299 - i] + x[(i * 7) % 300];
}
"""
    need = nvrtc.compile(text, "90")["k"]
    assert need.spills + need.stack > 0
