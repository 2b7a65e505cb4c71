"""Loops in plain code: to the bit what Numba makes of the same tasks, for every kind of argument that they take."""

from __future__ import annotations

import numpy as np
import pytest
from decisions import forget
from every_call import _functions
from numpy.testing import assert_array_equal

from convjit.runtime import loops
from convjit.runtime.compile import DRIVERS, Driver
from convjit.runtime.launch import launch
from convjit.runtime.loops import key_of, kinds_of
from convjit.runtime.twins import Twins

# Of the functions of images, in the order of `every_call`: those whose drivers Numba compiles within a few seconds.
QUICK = {"im2col", "pad2d", "pad2d_backward", "avg_pool2d", "avg_pool2d_backward"}


def results(x, names):
    """What functions return, by name."""
    return [(name, run()) for name, run in _functions(x) if names is None or name in names]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_numba_gives_the_same_bits(dtype, request, monkeypatch):
    names = None if request.config.getoption("--whole") else QUICK
    x = (np.random.default_rng(3).standard_normal((2, 4, 9, 18)) * 8).astype(dtype)
    wanted = results(x, names)
    for each in DRIVERS:
        monkeypatch.setattr(each, "_ways", {})
    monkeypatch.setattr(loops, "kinds_of", lambda body, arguments: None)
    forget()  # launches that have found their loops
    try:
        for (name, got), (_, values) in zip(results(x, names), wanted, strict=True):
            for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, values)), strict=True):
                assert_array_equal(a, b, strict=True, err_msg=name)
        used = [each for each in DRIVERS if each._ways]
        assert used
        assert all(isinstance(way, Twins) for each in used for way in each._ways.values())
    finally:
        forget()


def numbers_of(task, worker, y, count, is_set, real, single, strided):
    """y = what it is given, each number in its own way."""
    y[0] = np.float64(count)
    y[1] = 1.0 if is_set else 0.0
    y[2] = real
    y[3] = single
    y[4] = strided[1, 2] + strided.shape[0] * 10.0
    y[5 + task] = 1.0


def test_every_kind_of_argument():
    made, y = Driver(numbers_of), np.zeros(12)
    strided = np.arange(24.0).reshape(4, 6)[::2, ::2]
    launch(made, 1, 1, 1, y, 1 << 40, True, -0.1, np.float32(0.1), strided)
    assert y.tolist() == [float(1 << 40), 1, -0.1, float(np.float32(0.1)), 16 + 20, 1, *[0] * 6]
    launch(made, 2, 7, 1, y, np.int32(-3), False, np.float64(np.inf), np.float32(-2), strided.copy())
    assert y.tolist() == [-3, 0, np.inf, -2, 16 + 20, *[1] * 7]
    assert len({kind for kind in made.made() if "float32" in kind}) == 2  # strided and not


@pytest.mark.parametrize(
    "array", [np.zeros(2, "u8"), np.zeros(2, "f2"), np.zeros(2, ">f4")], ids=["uint64", "float16", "swapped"]
)
def test_what_plain_code_does_not_take(array):
    assert kinds_of(numbers_of, (1, array)) is None
    assert isinstance(Driver(numbers_of).way((1, array)), Twins)


def test_a_module_without_its_source(monkeypatch):
    """As in a frozen program."""
    monkeypatch.setattr(loops, "source_of", lambda module: None)
    assert kinds_of(numbers_of, (1,)) is None


def test_kinds_are_told_apart():
    base = np.zeros((4, 4), "f4")
    different = (base, base.astype("f8"), base.view("i4"), base[0], base[:, ::2], 1, 1.0, True, np.float32(1))
    assert len({key_of((each,)) for each in different}) == len(different)
    assert key_of((base[:, ::2],)) == key_of((base.T,))


@pytest.mark.parametrize("place", ["_ITEMS", "_DATA", "_SHAPE", "_STRIDES"])
def test_an_interpreter_whose_objects_are_others(place, monkeypatch):
    """Where tuples or arrays are not as they are read here, Numba's twins serve."""
    monkeypatch.setattr(loops, place, getattr(loops, place) + 8)
    loops._reads_arrays.cache_clear()
    try:
        assert kinds_of(numbers_of, (np.zeros(2),)) is None
    finally:
        loops._reads_arrays.cache_clear()
