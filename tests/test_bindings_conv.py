"""Convolution in the C library: its variants are the same to the bit, and it refuses what it must."""

import numpy as np
import pytest
import test_conv_backends
from test_bindings import in_every_variant, restore_variant  # noqa: F401  (a fixture; skips without the library)
from test_verbs import DTYPES

from eqkernel import EqkernelError
from eqkernel.bindings import backend
from eqkernel.bindings.library import ffi, lib
from eqkernel.geometry import conv_geometry

SHAPES = {  # pre, post, kernel, stride, padding, pool, window
    "one neuron": ((1, 1, 1), (1, 1, 1), 1, 1, 0, "none", 1),
    "few channels": ((7, 9, 2), (4, 5, 5), 3, 2, 1, "none", 1),
    "whole vectors": ((9, 14, 16), (9, 14, 32), 3, 1, 1, "none", 1),
    "all block sizes": ((6, 8, 21), (6, 8, 31), 5, 1, 2, "none", 1),
    "stride beyond the kernel": ((9, 7, 3), (4, 3, 18), 2, 3, 1, "none", 1),
    "largest": ((9, 8, 5), (4, 4, 19), 3, 1, 1, "max", 2),
    "average": ((9, 8, 17), (3, 2, 4), 3, 1, 1, "average", 3),
}


def geometry_of(name):
    pre, post, *how = SHAPES[name]
    return conv_geometry("here", pre, post, *how)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("verb", test_conv_backends.VERBS)
@pytest.mark.parametrize("name", SHAPES)
def test_verbs_are_the_same_bits_in_every_variant(name, verb, dtype):
    geometry = geometry_of(name)
    out, arguments = test_conv_backends.verb_arguments(verb, dtype, 3, geometry, seed=0)

    def run():
        found = out.copy()
        getattr(backend.conv, verb)(found, *arguments)
        return [found]

    in_every_variant(run)


@pytest.mark.parametrize("dtype", DTYPES)
def test_choices_are_the_same_in_every_variant(dtype):
    geometry = geometry_of("largest")
    _, (pre, weight, *_) = test_conv_backends.verb_arguments("drive_post", dtype, 3, geometry, seed=0)

    def run():
        winners = np.zeros((3, geometry.n_post), np.int32)
        backend.conv.choose(winners, pre, weight, geometry)
        return [winners]

    in_every_variant(run)


FIELDS = ("pre_height", "pre_width", "pre_channels", "post_channels", "kernel", "stride", "padding", "pool", "window")
CONV = dict(zip(FIELDS, (6, 7, 3, 4, 3, 1, 1, 1, 2), strict=True))
SPOILT = {  # field: value, status
    "pre_height": (0, "EQK_BAD_SIZE"),
    "pre_width": (2**62, "EQK_BAD_SIZE"),
    "pre_channels": (-1, "EQK_BAD_SIZE"),
    "post_channels": (2**40, "EQK_BAD_SIZE"),
    "kernel": (0, "EQK_BAD_SIZE"),
    "kernel larger than the map": ("kernel", 9, "EQK_BAD_VALUE"),
    "kernel beyond all": ("kernel", 2**31, "EQK_BAD_SIZE"),
    "stride": (0, "EQK_BAD_SIZE"),
    "padding": (-1, "EQK_BAD_SIZE"),
    "padding of the kernel's size": ("padding", 3, "EQK_BAD_VALUE"),
    "pool": (3, "EQK_BAD_VALUE"),
    "window": (0, "EQK_BAD_SIZE"),
    "window larger than the map": ("window", 8, "EQK_BAD_VALUE"),
    "window beyond all": ("window", 2**62, "EQK_BAD_VALUE"),
    "window without pooling": ("pool", 0, "EQK_BAD_VALUE"),
}


def conv_call(verb, conv, batch=2, **replaced):
    """The status of a verb on arrays that fit CONV, some of its arguments replaced."""
    arrays = {
        "out": np.zeros(500, np.float32), "pre": np.ones(500, np.float32), "post": np.ones(500, np.float32),
        "weight": np.ones(500, np.float32), "winners": np.zeros(500, np.int32),
    }  # fmt: skip
    work = np.zeros(lib.eqk_conv_workspace_f32(ffi.new("eqk_conv *", CONV)), np.uint8)
    kinds = {name: "int32_t[]" if name == "winners" else "float[]" for name in arrays}
    a = {name: ffi.from_buffer(kinds[name], array) for name, array in arrays.items()}
    a |= {"work": ffi.from_buffer(work), "work_size": work.size, "variant": 0} | replaced
    end = conv, batch, a["work"], a["work_size"]
    arguments = {
        "energy": (a["out"], a["pre"], a["post"], a["weight"], a["winners"]),
        "drive_post": (a["out"], a["pre"], a["weight"], a["winners"]),
        "drive_pre": (a["out"], a["post"], a["weight"], a["winners"]),
        "hebbian": (a["out"], a["pre"], a["post"], 1.0, a["winners"]),
        "choose": (a["winners"], a["pre"], a["weight"]),
    }[verb]
    status = getattr(lib, f"eqk_conv_{verb}_f32")(a["variant"], *arguments, *end)
    assert status == lib.EQK_OK or not (arrays["out"].any() or arrays["winners"].any()), "a refused call wrote"
    return status


CALLS = (*test_conv_backends.VERBS, "choose")


@pytest.mark.parametrize("what", SPOILT)
@pytest.mark.parametrize("verb", CALLS)
def test_a_convolution_that_cannot_be_is_refused(verb, what):
    field, value, expected = (what, *SPOILT[what])[-3:]
    conv = ffi.new("eqk_conv *", CONV | {field: value})
    if (verb, what) == ("choose", "pool"):
        expected = "EQK_BAD_VALUE"
    assert conv_call(verb, conv) == getattr(lib, expected)
    assert lib.eqk_conv_workspace_f32(conv) == 0
    assert lib.eqk_conv_post(conv, ffi.NULL, ffi.NULL, ffi.NULL) == getattr(lib, expected)


def test_averaged_kernels_that_no_memory_holds_are_refused():
    """Of kernels of one tap 2^20 are averaged, for each of 2^21 channels."""
    large = {"pre_height": 1024, "pre_width": 1024, "pre_channels": 1, "post_channels": 2**21}
    average = {"kernel": 1, "padding": 0, "pool": lib.EQK_AVERAGE_POOL, "window": 1024}
    conv = ffi.new("eqk_conv *", CONV | large | average)
    assert lib.eqk_conv_post(conv, ffi.NULL, ffi.NULL, ffi.NULL) == lib.EQK_BAD_SIZE
    assert lib.eqk_conv_workspace_f32(conv) == 0


NEEDED = {
    "energy": ("out", "pre", "post", "weight", "winners", "work"),
    "drive_post": ("out", "pre", "weight", "winners", "work"),
    "drive_pre": ("out", "post", "weight", "winners", "work"),
    "hebbian": ("out", "pre", "post", "winners", "work"),
    "choose": ("pre", "weight", "winners", "work"),
}


@pytest.mark.parametrize("verb", CALLS)
def test_pointers_batches_and_working_memory_are_checked(verb):
    conv = ffi.new("eqk_conv *", CONV)
    assert conv_call(verb, conv) == lib.EQK_OK
    assert conv_call(verb, ffi.NULL) == lib.EQK_NULL_POINTER
    for name in NEEDED[verb]:
        assert conv_call(verb, conv, **{name: ffi.NULL}) == lib.EQK_NULL_POINTER, name
        odd = ffi.cast("int32_t *" if name == "winners" else "float *", int(ffi.cast("uintptr_t", conv)) + 2)
        assert conv_call(verb, conv, **{name: odd}) == lib.EQK_MISALIGNED, name
    for batch in (0, -1, 2**62):
        assert conv_call(verb, conv, batch) == lib.EQK_BAD_SIZE
    assert conv_call(verb, conv, work_size=8) == lib.EQK_SMALL_WORKSPACE
    assert conv_call(verb, conv, variant=9) == lib.EQK_BAD_VALUE


@pytest.mark.parametrize("name", SHAPES)
def test_the_map_of_post_is_what_the_geometry_says(name):
    g = geometry_of(name)
    sides = (g.pre_height, g.pre_width, g.pre_channels, g.post_channels, g.kernel, g.stride, g.padding)
    height, width, n_post = (ffi.new("int64_t *") for _ in range(3))
    conv = ffi.new("eqk_conv *", (*sides, g.pool, g.window))
    assert lib.eqk_conv_post(conv, height, width, n_post) == lib.EQK_OK
    assert (height[0], width[0], n_post[0]) == (g.post_height, g.post_width, g.n_post)


@pytest.mark.parametrize("verb", test_conv_backends.VERBS)
def test_winners_outside_their_window_reach_no_memory(verb):
    """What the caller made up wins nothing."""
    conv = ffi.new("eqk_conv *", CONV)
    wild = np.random.default_rng(0).integers(-(2**31), 2**31, 500, np.int32) | 64
    assert conv_call(verb, conv, winners=ffi.from_buffer("int32_t[]", wild)) == lib.EQK_OK


def test_winners_of_another_size_are_refused_and_of_another_type_read_right():
    geometry, rng = geometry_of("largest"), np.random.default_rng(0)
    pre, weight = rng.random((2, geometry.n_pre)), rng.random(geometry.weight_shape)
    winners, drives = np.zeros((2, geometry.n_post), np.int32), np.zeros((2, 2, geometry.n_post))
    wide = np.zeros((2, geometry.n_post + 1), np.int32)
    with pytest.raises(EqkernelError):
        backend.conv.choose(wide, pre, weight, geometry)
    with pytest.raises(EqkernelError):
        backend.conv.drive_post(drives[0], pre, weight, geometry, wide)
    assert not wide.any() and not drives.any()
    backend.conv.choose(winners, pre, weight, geometry)
    for drive, dtype in zip(drives, (np.int32, np.int64), strict=True):
        backend.conv.drive_post(drive, pre, weight, geometry, winners.astype(dtype))
    np.testing.assert_array_equal(*drives)
