"""`out=` in compiled code: written and returned, or refused with Python's sentences."""

import sys

import numba
import numpy as np
import pytest
from callers import assert_same, caller
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

import convjit

RNG = np.random.default_rng(0)
X, W, B = RNG.normal(size=(2, 3, 6, 7)), RNG.normal(size=(4, 3, 3, 2)), RNG.normal(size=4)


@pytest.mark.parametrize("x", [X, X[0]], ids=["batch", "image"])
def test_out_gets_every_element_and_is_returned(x):
    call = caller("conv2d", 3, ("out",))
    wanted = convjit.conv2d(x, W, B)
    room = np.full(wanted.size + 32, 77.0)
    out = room[16:-16].reshape(wanted.shape)
    call(x, W, B, out)
    references = sys.getrefcount(room), sys.getrefcount(out)
    for _ in range(3):
        out[...] = np.nan
        got = call(x, W, B, out)
        assert got.ctypes.data == out.ctypes.data
        assert_same(got, wanted)
        del got
    assert (sys.getrefcount(room), sys.getrefcount(out)) == references
    assert (room[:16] == 77).all()
    assert (room[-16:] == 77).all()


def unaligned(shape):
    return np.zeros(8 * int(np.prod(shape)) + 1, np.uint8)[1:].view(np.float64).reshape(shape)


SHAPE = convjit.conv2d(X, W).shape
ROOM = np.zeros(1000)
REFUSED = {
    "another shape": (X, W, B, np.empty((2, 4, 4, 5))),
    "one image": (X, W, B, np.empty(SHAPE[1:])),
    "a batch": (X[0], W, B, np.empty((1, *SHAPE[1:]))),
    "strides": (X, W, B, np.empty((*SHAPE[:3], 12))[..., ::2]),
    "upside down": (X, W, B, np.empty(SHAPE)[::-1]),
    "alignment": (X, W, B, unaligned(SHAPE)),
    "over x": (ROOM[:252].reshape(X.shape), W, B, ROOM[251 : 251 + 192].reshape(SHAPE)),
    "over weight": (X, ROOM[191:263].reshape(W.shape), B, ROOM[:192].reshape(SHAPE)),
    "over bias": (X, W, ROOM[188:196:2], ROOM[:192].reshape(SHAPE)),
    "weight that does not fit": (X, W[:, :2], B, ROOM[:192].reshape(SHAPE)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_pythons_own_sentences(name):
    *arrays, out = REFUSED[name]
    with pytest.raises(ValueError, match=r"^conv2d: ") as wanted:
        convjit.conv2d(*arrays, out=out)
    with pytest.raises(ValueError, match=r"^conv2d: ") as got:
        caller("conv2d", 3, ("out",))(*arrays, out)
    assert str(got.value) == str(wanted.value)


def test_what_types_tell_is_refused_when_the_caller_is_compiled():
    fixed = np.empty(SHAPE)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match=r"^conv2d: out is read-only$"):
        convjit.conv2d(X, W, out=fixed)
    with pytest.raises(ValueError, match=r"^conv2d: out is read-only$"):
        caller("conv2d", 2, ("out",))(X, W, fixed)
    with pytest.raises(TypeError, match=r"^conv2d: arrays must have one dtype .*, out float32$"):
        caller("conv2d", 2, ("out",))(X, W, np.empty(SHAPE, np.float32))


@given(data=st.data())
def test_out_among_the_elements_of_x(data):
    """Refused exactly where memory is shared; a row between two others of x is free."""
    room = np.arange(60.0)
    steps = st.integers(-7, 7)
    height, width, down, along = (data.draw(s) for s in (st.integers(1, 3), st.integers(1, 3), steps, steps))
    x = as_strided(room[30:], (1, height, width), (480, 8 * down, 8 * along))
    at = data.draw(st.integers(0, room.size - height * width))
    out, weight = room[at : at + height * width].reshape(1, height, width), np.full((1, 1, 1, 1), 3.0)
    values, call = x.copy(), caller("conv2d", 2, ("out",))
    if np.shares_memory(x, out):
        with pytest.raises(ValueError, match=r"^conv2d: out overlaps x, which is still read while out is written$"):
            call(x, weight, out)
    else:
        assert_same(call(x, weight, out), 3 * values)


@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaPerformanceWarning")  # of functions without a loop
def test_what_a_parallel_function_does_to_the_result_is_in_out():
    """Numba drops stores into an array that it takes for new, and that nobody reads."""

    @numba.njit(parallel=True)
    def added(x, weight):
        room = np.empty((2, 4, 4, 6))
        y = convjit.conv2d(x, weight, out=room)
        y += 100.0
        return room

    @numba.njit(parallel=True)
    def added_to_parts(x, weight):
        room = np.empty((2, 4, 4, 6))
        for i in range(2):
            y = convjit.conv2d(x[i], weight, out=room[i])
            y += 100.0
        return room

    @numba.njit(parallel=True)
    def added_by_turns(x, weight):
        room = np.empty((2, 4, 4, 6))
        y = convjit.conv2d(x, weight, out=room)
        for i in numba.prange(2):
            for o, h, w in np.ndindex(y.shape[1:]):  # a store of all at once takes Numba seconds to compile
                y[i, o, h, w] += 100.0
        return room

    for call in (added, added_to_parts, added_by_turns):
        np.testing.assert_array_equal(call(X, W), convjit.conv2d(X, W) + 100, err_msg=call.__name__)
