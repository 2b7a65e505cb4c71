"""Plain code computes what Python does, and is refused where it is none."""

import ctypes

import numpy as np
import plain_samples
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import ir

from convjit.runtime import emitting, entries
from convjit.runtime.plain import Array, shared
from convjit.runtime.translating import Translation

SIZE = 8
for _function in plain_samples.SHARED:
    shared(_function)
NUMBERS = st.lists(
    st.integers(-3, 9) | st.integers(-300, 300) | st.sampled_from([-(1 << 63), (1 << 63) - 1, 1 << 40, -(1 << 40)]),
    min_size=SIZE, max_size=SIZE,
)  # fmt: skip


def compiled(function):
    """A function of an array of eight integers, as machine code."""

    def body(builder, arguments):
        address, status = arguments
        translation = Translation(builder, entries.NUMBAS_MEMORY)
        result = translation.run(function, (Array(address, (SIZE,), np.int64),))
        builder.store(result, builder.inttoptr(status, ir.IntType(64).as_pointer()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVJIT_CACHE", "0")  # which knows the package's sources, not these
        (address,) = emitting.compiled(function.__name__, {"entry": (2, body)}).values()
    machine_code = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(address)

    def call(numbers):
        result = np.zeros(1, np.int64)
        machine_code(numbers.ctypes.data, result.ctypes.data)
        return int(result[0])

    return call


@pytest.mark.parametrize("function", plain_samples.SAMPLES, ids=lambda f: f.__name__)
def test_plain_code_computes_what_python_does(function):
    call = compiled(function)

    @given(numbers=NUMBERS)
    def same(numbers):
        wanted, got = np.array(numbers, np.int64), np.array(numbers, np.int64)
        with np.errstate(all="ignore"):  # NumPy's integers wrap, and give 0 where they are divided by 0, with a warning
            result = np.int64(function(wanted))
        assert call(got) == result
        np.testing.assert_array_equal(got, wanted)

    same()


def test_memory_that_is_not_there():
    call = compiled(plain_samples.much_memory)
    numbers = np.ones(SIZE, np.int64)
    for count, wanted in ((0, 0), (1000, 1), (1 << 58, -(1 << 61) - 64), (1000, 1)):
        numbers[0] = count
        assert call(numbers) == wanted
