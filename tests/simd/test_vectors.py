"""The vocabulary of micro-kernels: what is stored of a vector that is cut."""

import ctypes

import numpy as np
import pytest

from convjit.runtime import emitting
from convjit.runtime.options import COMPILED
from convjit.simd.vectors import Vectors

pytestmark = pytest.mark.skipif(not COMPILED, reason="nothing is emitted here; NumPy's way runs instead")

NUMBER = 3


def store_first(dtype, lanes):
    """store(source, target, pitch, count): `NUMBER` vectors, each `pitch` behind the one before."""

    def body(builder, arguments):
        v = Vectors(builder, dtype, lanes)
        source, target, pitch, count = arguments
        places = [v.pointer(target)]
        while len(places) < NUMBER:
            places.append(v.offset(places[-1], pitch))
        v.store_first([v.load(v.offset(v.pointer(source), i * lanes)) for i in range(NUMBER)], places, count)

    name = f"{__name__}.store_first.{dtype}.{lanes}"
    (address,) = emitting.compiled(name, {"store": (4, body)}).values()
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(address)


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_lanes_below_a_count_are_stored_and_nothing_else(dtype, lanes):
    store, pitch = store_first(np.dtype(dtype), lanes), 3 * lanes
    source = np.arange(1, NUMBER * lanes + 1).astype(dtype)
    for count in range(-2, lanes + 3):
        target = np.zeros(NUMBER * pitch, dtype)
        wanted = target.copy()
        for i in range(NUMBER):
            here = source[i * lanes : i * lanes + min(max(count, 0), lanes)]
            wanted[i * pitch + 1 :][: len(here)] = here
        store(source.ctypes.data, target.ctypes.data + target.itemsize, pitch, count)
        np.testing.assert_array_equal(target, wanted, err_msg=str(count))
