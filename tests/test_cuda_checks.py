"""The checking build: no kernel races, strays or reads what nobody wrote; memory is used well; planted bugs are caught.

A kernel text is compiled with a call before each memory access (shim/checker.cpp), so what a GPU would do wrong once in
a thousand runs is found in the first.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import shim
from cuda_cases import CASES, REGULAR
from shim.build import KernelError
from shim.stand_in import ARRAYS, RawKernel, RawModule, StandIn

from eqkernel import EqkernelError
from eqkernel.cuda import device

pytestmark = shim.shim_only
TEXT = "typedef float real;\n"


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_no_kernel_breaks_a_rule(case, order):
    with shim.running("check", order):
        CASES[case]()


# -- planted bugs ----------------------------------------------------------------------------------------------------

RACE = "race on shared|nobody has written"
# what, case, old and new text of the kernels, what the checker says
BUGS = [
    ("missing barrier after a stage is loaded", "dense", "__syncthreads(); // stage `now` is whole", "//", RACE),
    ("copies that are not waited for", "dense", "wait_for_copies<STAGES - 2>();", "", RACE),
    ("copies that are waited for too late", "dense", "wait_for_copies<STAGES - 2>();", "wait_for_copies<STAGES - 1>();",
     RACE),
    ("missing barrier before the next product", "update", "__syncthreads(); // all stages are used", "//", RACE),
    ("missing barrier between refresh and relaxation", "settle",
     "        if (down && layer < t.top) refresh_down(t, channel, layer, gamma);\n    }\n    __syncthreads();",
     "        if (down && layer < t.top) refresh_down(t, channel, layer, gamma);\n    }\n", RACE),
    ("missing barrier after the last lateral drive", "settle", "    __syncthreads();\n    return total;",
     "    return total;", RACE),
    ("out-of-bounds load", "dense", "return first + row(n) < A.rows && from", "return from", "out of bounds"),
    ("out-of-bounds store", "dense", "i < rows ? max(0, min(WIDE, columns - j)) : 0",
     "max(0, min(WIDE, columns - j))", "out of bounds"),
    ("16 bytes where they are not aligned", "dense", "columns % WIDE == 0};", "true};",
     "not a multiple of 16|out of bounds"),
    ("out of the shared memory that was asked for", "settle", "flat(target_of(t) + of(t, t.last, SIZE))",
     "flat(target_of(t) + of(t, t.last, SIZE) + 1)", "out of bounds.*dynamic shared"),
    ("divergent barrier", "diffusion", "if (lane == 0) parts[warp] = part;\n    __syncthreads();",
     "if (lane == 0) { parts[warp] = part; __syncthreads(); }", "divergent barrier|race on shared"),
    ("race on an accumulation", "field", "atomicMax(largest, most)", "*largest = max(*largest, most)",
     "race on global"),
    ("strips that overlap as written", "field", "lane < EDGE || lane >= WARP - EDGE", "lane < EDGE", "race on global"),
    ("a row beyond the strip's share", "field", "if (y < top || r + half >= count", "if (y < top", "race on global"),
    ("uninitialised shared memory", "settle",
     "    for (int e = threadIdx.x; e < size; e += BLOCK) memory[e] = 0;\n", "", "nobody has written"),
    ("missing barrier before the sums of all warps are gathered", "shallow", "__syncthreads(); // all sums are written",
     "//", RACE),
    ("sums written where a slower warp still reads", "shallow", "    turn ^= SUMS;\n", "", RACE),
    ("units beyond the hidden layer", "shallow", "const bool there = hidden(u) < w.n;", "const bool there = true;",
     "out of bounds"),
    ("outputs that every warp writes", "shallow", "if (threadIdx.x < OUTPUTS) f(", "if (lane() < OUTPUTS) f(",
     "race on global|out of bounds"),
    ("a sum that two lanes write", "shallow", "return mine > 0 ? place : -1;", "return place;",
     "race on shared|out of bounds"),
    ("a sample that is not there is scored", "score", "    if (sample >= batch) return;\n", "", "out of bounds"),
    ("a warp maximum that half the warp skips", "neurons", "    highest = warp_max(highest);",
     "    if (lane < 16) highest = warp_max(highest);", "a warp meets at lines"),
    ("write through a pointer to const", "neurons", "out[i] = rate_of(drive[i], neuron);",
     "((real*)drive)[i] = out[i] = rate_of(drive[i], neuron);", "pointer to const"),
    ("copies for tensor cores that are waited for too late", "tensor", "wait_for_copies<STAGES - 2>();",
     "wait_for_copies<STAGES - 1>();", RACE),
    ("missing barrier after a stage for tensor cores", "tensor", "__syncthreads(); // stage `now` is whole", "//",
     RACE),
    ("missing barrier before the result takes the stages' place", "tensor", "__syncthreads(); // the stages are used",
     "//", RACE),
    ("missing barrier after the result is written", "tensor", "__syncthreads(); // the result is whole", "//", RACE),
    ("rows of a state that are not there", "tensor", "c * CHUNK, top + i < rows);", "c * CHUNK, true);",
     "out of bounds"),
    ("a tap outside the map", "conv", "if (y < 0 || y >= PRE_HEIGHT || x < 0 || x >= PRE_WIDTH) return 0;", "",
     "out of bounds"),
    ("places beyond the last window", "conv", "if (y >= POST_HEIGHT || x >= POST_WIDTH) return 0;", "",
     "out of bounds"),
    ("two blocks that sum a trace in one part", "conv", "parts + (long long)blockIdx.z * POST_CHANNELS * columns",
     "parts", "race on global"),
]  # fmt: skip


@pytest.mark.parametrize(("bug", "case", "old", "new", "says"), BUGS, ids=[bug[0] for bug in BUGS])
def test_planted_bugs_are_caught(bug, case, old, new, says):
    changed = []

    def edit(name, text):
        changed.append(text.count(old))
        return text.replace(old, new)

    with shim.running("check", 1, edit=edit), pytest.raises(KernelError, match=says):
        CASES[case]()
    assert 1 in changed, f"`{old}` occurs {changed} times"


GRID = """
extern "C" __global__ void shift(real* a, real* b, int n, int rounds) {
    for (int round = 0; round < rounds; round++) {
        const int i = blockIdx.x * blockDim.x + threadIdx.x;
        b[i] = a[(i + 1) % n];
        cooperative_groups::this_grid().sync(); // all are written
        a[i] = b[i];
        cooperative_groups::this_grid().sync(); // all are read
    }
}
"""


def shift(text, cooperative=True, mode="check"):
    """n numbers moved `rounds` places along by blocks that meet after every move."""
    a, b, n = ARRAYS.asarray(np.arange(128, dtype=np.float32)), ARRAYS.zeros(128, np.float32), 128
    module = RawModule(StandIn(mode, seed=1), TEXT + text)
    RawKernel(module, "shift", cooperative)((4,), (32,), (a, b, np.int32(n), np.int32(3)))
    np.testing.assert_array_equal(a.get(), np.roll(np.arange(128), -3))


def test_a_divergent_barrier_is_named_by_the_fast_build_too():
    text = 'extern "C" __global__ void k(real* a) { if (threadIdx.x < 40) __syncthreads(); a[threadIdx.x] = 1; }'
    with pytest.raises(KernelError, match="divergent barrier in block 0: 40 threads wait"):
        RawModule(StandIn(), TEXT + text).get_function("k")((1,), (64,), (ARRAYS.zeros(64, np.float32),))


@pytest.mark.parametrize("stray", ["a[1L << 40] = 1", "a[0] = a[-(1L << 40)]", "atomicAdd(a + (1L << 40), 1.0f)"])
def test_a_stray_access_is_stopped_before_it_happens(stray):
    text = f'extern "C" __global__ void k(real* a) {{ {stray}; }}'
    with pytest.raises(KernelError, match="out of bounds"):  # or this process would have ended
        RawModule(StandIn("check"), TEXT + text).get_function("k")((1,), (64,), (ARRAYS.zeros(64, np.float32),))


def test_stacks_of_threads_are_few_mappings():
    """Linux allows a process 65,530 of them, and a test run loads hundreds of modules that keep their stacks."""
    text = 'extern "C" __global__ void k(real* a) { __syncthreads(); a[threadIdx.x] = 1; }'
    kernel, a = RawModule(StandIn(), TEXT + text).get_function("k"), ARRAYS.zeros(1024, np.float32)
    before = mappings()
    kernel((1,), (1024,), (a,))
    assert mappings() < before + 64


def test_a_thread_that_needs_more_than_its_stack_is_named():
    text = """
        __attribute__((noinline)) void deep() { volatile char big[1 << 18]; for (volatile char& byte : big) byte = 1; }
        extern "C" __global__ void k(real* a, int which) { if (threadIdx.x == which) deep(); }
    """
    kernel, a = RawModule(StandIn(), TEXT + text).get_function("k"), ARRAYS.zeros(64, np.float32)
    with pytest.raises(KernelError, match="block 0 thread 7 needs more than 262144 bytes of stack"):
        kernel((1,), (64,), (a, np.int32(7)))
    kernel((1,), (64,), (a, np.int32(-1)))  # and leaves nothing behind


def mappings():
    return len(Path("/proc/self/maps").read_text().splitlines())


def test_blocks_that_meet_are_in_step():
    shift(GRID)


@pytest.mark.parametrize("which", ["all are written", "all are read"])
def test_a_missing_barrier_of_the_grid_is_caught(which):
    text = re.sub(rf"cooperative_groups::this_grid\(\).sync\(\); // {which}", "", GRID)
    with pytest.raises(KernelError, match="race on global"):
        shift(text)
    with pytest.raises((KernelError, AssertionError)):  # without the checker, by its numbers
        shift(text, mode="fast")


def test_a_barrier_of_the_grid_needs_a_cooperative_launch():
    with pytest.raises(KernelError, match="ordinary launch"):
        shift(GRID, cooperative=False)


def test_the_fast_build_catches_what_it_can():
    """Not every bug needs the checker: some break the numbers, or the guard bands around arrays."""
    caught, some = 0, BUGS[::4]
    for _, case, old, new, _ in some:
        with shim.running("fast", 1, edit=lambda name, text, old=old, new=new: text.replace(old, new)):
            try:
                CASES[case]()
            except (KernelError, AssertionError, EqkernelError):
                caught += 1
    assert caught >= len(some) - 2


# -- how memory is used ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profile():
    """kernel -> requests and sectors or passes, of global and shared reads and writes."""
    stand_in = StandIn("check", seed=1)
    stand_in.profile = {}
    with device.using(stand_in):
        for name, sizes in REGULAR.items():
            CASES[name](*sizes)
    return stand_in.profile


# A warp of floats that lie together is 4 sectors of 32 bytes.
CEILINGS = {"global reads": 4.5, "global writes": 4.5, "shared reads": 2.0, "shared writes": 2.0}
EXCUSED = {
    ("advance", "global reads"): 5.5,  # strips begin a lane before a whole line
    ("free_tiles", "shared reads"): 2.7,  # g++ splits the loads of four samples at once, which a GPU keeps whole
    ("nudged_tiles", "shared reads"): 2.7,
}


def test_memory_is_used_well(profile):
    kernels = {"drive_post", "input_drive", "drive_pre", "hebbian", "energy", "rate", "relax", "difference", "softmax",
               "drive", "correlate", "advance", "free_tiles", "nudged_tiles", "free_sample", "nudged_sample", "score",
               "update", "relax_layer", "relax_layers", "round_rows"}  # fmt: skip
    assert set(profile) == kernels
    for kernel, counts in profile.items():
        for (what, most), (requests, passes) in zip(CEILINGS.items(), counts, strict=True):
            most = EXCUSED.get((kernel, what), most)
            assert requests == 0 or passes / requests <= most, f"{kernel}: {passes / requests:.2f} for {what}"


def test_a_bad_access_pattern_shows():
    text = """
extern "C" __global__ void transpose(real* out, const real* in) {
    __shared__ real tile[32][32];
    for (int y = 0; y < 32; y++) tile[y][threadIdx.x] = in[32 * y + threadIdx.x];
    __syncthreads();
    for (int y = 0; y < 32; y++) out[32 * threadIdx.x + y] = tile[threadIdx.x][y];
}
"""
    stand_in = StandIn("check")
    stand_in.profile = {}
    a, b = (ARRAYS.zeros((32, 32), np.float32) for _ in range(2))
    RawModule(stand_in, TEXT + text).get_function("transpose")((1,), (32,), (a, b))
    reads, writes, shared_reads, shared_writes = (total / n for n, total in stand_in.profile["transpose"])
    assert (reads, writes, shared_reads, shared_writes) == (4, 32, 32, 1)


# -- the stand-in itself ---------------------------------------------------------------------------------------------

ADD = """extern "C" __global__ void __launch_bounds__(64) add(real* a, const real* b, real x, int n) {
    a[threadIdx.x] += x * b[threadIdx.x] + n;
}"""


def test_what_cupy_would_pass_on_wrongly_is_refused():
    add = RawModule(StandIn(), TEXT + ADD).get_function("add")
    a, b = (ARRAYS.zeros(32, np.float32) for _ in range(2))
    x, n = np.float32(1), np.int32(1)
    add((1,), (32,), (a, b, x, n))
    np.testing.assert_array_equal(a.get(), 1)
    for arguments in (
        (a, b, 1.0, n),  # CuPy sends a double
        (a, b, x, 1),  # and a 64-bit integer
        (a, b, np.float64(1), n),
        (a, b.astype(np.float64), x, n),
        (a, ARRAYS.zeros((32, 2), np.float32).T, x, n),
        (a, np.zeros(32, np.float32), x, n),
        (a, b, x),
    ):
        with pytest.raises(TypeError):
            add((1,), (32,), arguments)
    for grid, block, shared in (((1,), (128,), 0), ((1,), (2048,), 0), ((1,), (32,), 100_000)):
        with pytest.raises(KernelError):
            add(grid, block, (a, b, x, n), shared_mem=shared)


def test_host_and_device_arrays_do_not_mix():
    a, host = ARRAYS.zeros(3, np.float32), np.ones(3, np.float32)
    for mix in (lambda: a + host, lambda: host + a, lambda: np.asarray(a), lambda: a.__setitem__(..., host)):
        with pytest.raises(TypeError):
            mix()
    np.testing.assert_array_equal((2 * a + 1).get(), 1)
