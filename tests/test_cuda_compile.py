"""The real compiler on every CUDA text, without a GPU: it compiles, spills nothing, and leaves room on the chip.

NVRTC comes as the wheel nvidia-cuda-nvrtc (extra "test", on Linux x86-64). A ceiling here is what the kernel needed
when it was written, a little rounded: who passes it has made a kernel worse, or must say why not.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
from shim import build, nvrtc

from eqkernel.cuda import shallow, tensor
from eqkernel.cuda.launcher import HERE, text_of
from eqkernel.cuda.products import THREADS as THREADS_OF
from eqkernel.geometry import conv_geometry

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None, reason="needs NVRTC: pip install nvidia-cuda-nvrtc (Linux x86-64)"
)
ARCHITECTURES = ("75", "80", "90", "100")
STEMS = sorted(path.stem for path in HERE.glob("*.cu") if path.stem != "tensor")  # which needs sm_80
# The second of two convolutions of MNIST: 12 x 12 x 16 through 5 x 5 kernels, stride 2, and pooled.
GEOMETRY = conv_geometry("it", (12, 12, 16), (2, 2, 32), 5, 2, 2, "max", 3)
TILES = tuple((("TILE", tile), ("GEMM_THREADS", threads)) for tile, threads in THREADS_OF.items())
DEFINES = {
    "fused": (("LANES", 4),),
    "shallow": (("BLOCK", 64), ("UNITS", 8), ("OUTPUTS", 10)),  # 784-512-10
    "field": (("STEPS", 4),),
    "dense": TILES[1], "hebbian": TILES[1], "layer": TILES[1],
    "conv": (*TILES[1], *((field.upper(), value) for field, value in GEOMETRY._asdict().items())),
}  # fmt: skip
# float32: kernel -> most registers, least share of a multiprocessor's warps that can be resident
CEILINGS = {
    "advance": (160, 0.1875),
    "energy": (64, 1.0), "drive_post": (128, 0.25), "drive_pre": (128, 0.25), "hebbian": (128, 0.25),
    "rate": (32, 1.0), "relax": (32, 1.0), "difference": (32, 1.0), "softmax": (48, 0.75),
    "drive": (40, 1.0), "correlate": (40, 1.0), "update": (128, 0.25),
    "free_tiles": (128, 0.25), "nudged_tiles": (128, 0.25), "input_drive": (128, 0.25), "score": (40, 1.0),
    "free_sample": (176, 0.1875), "nudged_sample": (255, 0.125),
    "convolve": (128, 0.25), "conv.drive_pre": (128, 0.25), "trace_parts": (128, 0.25), "gather": (40, 1.0),
    "pool": (40, 1.0), "choose": (40, 1.0), "relax_layer": (128, 0.25),
}  # fmt: skip
THREADS = {"advance": 32, "free_sample": 64, "nudged_sample": 64}  # a block; others have 256
WIDEST = [  # (type, what shallow.cu is compiled with where it needs most registers)
    (dtype, (("BLOCK", shallow.BLOCKS[-1]), ("UNITS", units), ("OUTPUTS", outputs)))
    for dtype, units, outputs in (("float32", 4, 16), ("float64", 4, 8), ("float64", 8, 5))
]
# Bytes of shared memory chosen at launch: the tiles of 784-512-10, of which a block at least must
# fit the small multiprocessors of sm_75.
DYNAMIC = {"free_tiles": 51_000, "nudged_tiles": 51_000}


@pytest.fixture(scope="module")
def needs():
    """(stem, architecture) -> what its kernels need, float32; and of the largest float64 on sm_90, (stem, "double")."""
    jobs = {(stem, arch): ("float32", DEFINES.get(stem, ()), arch) for stem in STEMS for arch in ARCHITECTURES}
    for tile in (TILES[0], TILES[2]):
        jobs |= {(stem, f"80, tile {tile[0][1]}"): ("float32", tile, "80") for stem in ("dense", "hebbian", "layer")}
    jobs |= {(stem, "double"): ("float64", DEFINES[stem], "90") for stem in ("fused", "hebbian")}  # the largest
    jobs |= {("shallow", f"{dtype} {most}"): (dtype, most, "90") for dtype, most in WIDEST}
    with ThreadPoolExecutor(2) as pool:
        done = {
            key: pool.submit(nvrtc.compile, text_of(key[0], dtype, defines), arch)
            for key, (dtype, defines, arch) in jobs.items()
        }
        return {key: future.result() for key, future in done.items()}


@pytest.mark.parametrize(
    ("arch", "code", "tile"),
    [*(("90", 2, tile) for tile in tensor.TILES), ("80", 1, tensor.TILES[0]), ("100", 2, tensor.TILES[0])],
    ids=str,
)
def test_tensor_cores(arch, code, tile):
    """The text with its PTX spills nothing; as many blocks of each tile fit a multiprocessor as was counted on."""
    kernels = nvrtc.compile(text_of("tensor", "float32", tuple(tensor.defines_of(tile, code).items())), arch)
    assert set(kernels) == {"relax_layers", "round_rows"}
    for need in kernels.values():
        assert need.spills == need.stack == 0
    assert kernels["relax_layers"].occupancy(arch, 256, tile.shared) >= tile.blocks * 8 / 64
    assert kernels["round_rows"].occupancy(arch, 256) == 1


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
