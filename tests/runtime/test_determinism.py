"""The same bits, whatever computes them: threads, threading layers, memory layouts, slices, algorithms, instructions.

Digests are compared result by result, so that a failure names what differs.
"""

from __future__ import annotations

import ctypes
import json
import platform
import sys
from collections import Counter

import fixed_problems
import fresh
import numba
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from rows import UNLIMITED

import convjit
from convjit.functional import batches, bilinear, columns, padding, pools, slicing
from convjit.gemm import micro
from convjit.runtime import emitting, launch, team, threads
from convjit.simd import isa
from convjit.testing import LAYOUTS

MANY_THREADS = 16


def differing(got: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """The names of results that are not the same; both must have the same names."""
    assert set(got) == set(wanted)
    return [name for name in wanted if got[name] != wanted[name]]


@pytest.fixture(scope="module")
def wanted():
    """The digests of this process, as it runs."""
    return fixed_problems.everything()


def test_a_repeated_call_gives_the_same_bits(wanted):
    assert not differing(fixed_problems.everything(), wanted)


def test_the_large_problems_are_for_several_threads(monkeypatch):
    """Else the tests of threads would compare serial calls."""
    crews = Counter()

    def record(nanoseconds: float) -> int:
        crews[1 if nanoseconds < threads.SERIAL_BELOW_NS else 2] += 1
        return 1

    for module in (batches, bilinear, columns, padding, pools, slicing):
        monkeypatch.setattr(module, "workers", record)
    for problem in fixed_problems.LARGE.values():
        before = crews[2]
        list(fixed_problems.convolution(problem, "float32"))
        assert crews[2] >= before + 3, problem  # the sum of a bias may be short
    small, large = crews[1], crews[2]
    list(fixed_problems.other_operations((8, 8, 56, 59), "float32"))
    assert crews[2] > large + 10
    assert crews[1] <= small + 1  # the sum of a bias


# --- threads --------------------------------------------------------------------------------------------------------


def report_threads(most: int) -> None:
    """Print the digests for 1, 2, ... `most` threads."""
    by_count = []
    for count in range(1, most + 1):
        numba.set_num_threads(count)
        by_count.append(fixed_problems.everything())
    print(json.dumps(by_count))


def test_any_number_of_threads_gives_the_same_bits(wanted):
    code = f"import test_determinism as t; t.report_threads({MANY_THREADS})"
    by_count = fresh.answer(code, NUMBA_NUM_THREADS=str(MANY_THREADS))
    differs = {count: names for count, got in enumerate(by_count, 1) if (names := differing(got, wanted))}
    assert not differs, f"by number of threads: {differs}"


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("turns", [1, 1000])
def test_any_way_of_cutting_the_work_gives_the_same_bits(turns, workers, wanted, monkeypatch):
    """Pieces of one task each, and tasks taken one by one or as many as there are."""
    monkeypatch.setattr(launch, "_CUT_ABOVE_NS", -1)
    monkeypatch.setattr(launch, "PIECE_NS", 1)
    monkeypatch.setattr(team, "_TURNS", turns)
    monkeypatch.setattr(threads, "available", lambda: workers)
    assert not differing(fixed_problems.everything(), wanted)


def report_layer(library: str | None) -> None:
    """Print the threading layer that runs, and the digests under it."""
    if library is not None:
        ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
    got = fixed_problems.everything()
    print(json.dumps([numba.threading_layer(), got]))


@pytest.mark.parametrize("layer", fresh.LAYERS)
def test_any_threading_layer_gives_the_same_bits(layer, wanted):
    library = fresh.TBB if layer == "tbb" else None
    if layer == "omp" and sys.platform == "darwin":
        pytest.skip("Numba's wheels for macOS have no OpenMP: workqueue runs instead")
    code = f"import test_determinism as t; t.report_layer({library!r})"
    runs, got = fresh.answer(code, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="4")
    assert runs == layer
    assert not differing(got, wanted)


# --- memory layouts, slices, algorithms -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", fixed_problems.DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_gives_the_same_bits(layout, dtype, wanted):
    got = fixed_problems.digests(fixed_problems.results(dtype, LAYOUTS[layout]))
    assert not [name for name in got if got[name] != wanted[name]]


@pytest.mark.parametrize("algorithm", UNLIMITED)
@pytest.mark.parametrize("dtype", fixed_problems.DTYPES)
def test_any_algorithm_gives_the_same_bits(algorithm, dtype):
    for name, problem in (fixed_problems.SMALL | fixed_problems.LARGE).items():
        wanted = fixed_problems.digests(fixed_problems.convolution(problem, dtype))
        got = fixed_problems.digests(fixed_problems.convolution(problem, dtype, algorithm=algorithm))
        assert not differing(got, wanted), name


SLICES = [slice(0, 1), slice(1, 3), slice(3, 4), slice(0, 4, 3)]


@pytest.mark.parametrize("dtype", fixed_problems.DTYPES)
@pytest.mark.parametrize("name", ["images", "grouped"])
def test_a_slice_of_the_batch_gives_the_same_bits(name, dtype):
    """Of outputs and input gradients; sums over the batch are others."""
    problem = (fixed_problems.SMALL | fixed_problems.LARGE)[name]
    x, weight, bias, _ = fixed_problems.arrays(problem, dtype)
    x = np.resize(x, (4, *x.shape[1:]))
    y = convjit.conv2d(x, weight, bias, **problem.options)
    dx, _, _ = convjit.conv2d_backward(y, x, weight, **problem.options)
    for part in SLICES:
        assert_array_equal(convjit.conv2d(x[part], weight, bias, **problem.options), y[part], strict=True)
        got = convjit.conv2d_input_grad(y[part], weight, x.shape[2:], **problem.options)
        assert_array_equal(got, dx[part], strict=True)


# --- instruction sets -----------------------------------------------------------------------------------------------

# By name: what Numba is told, and what its machine code must and must not hold. The name of a processor alone takes no
# features away: Numba adds those of the machine that it runs on to any but "generic". The machine's own instructions
# are what these are compared with.
INSTRUCTION_SETS = {
    "generic": ({"NUMBA_CPU_NAME": "generic"}, "xmm", "vfmadd"),
    "nehalem": ({"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2"}, "xmm", "vfmadd"),
    "haswell": ({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}, "ymm", "zmm"),
}
ON_X86_64 = platform.machine().lower() in ("x86_64", "amd64")


def small_convolutions() -> dict[str, str]:
    """The digests of `conv2d` and its gradients on small problems in float32: each operation costs a compilation."""
    named = (
        (f"{name} {part}", array)
        for name, problem in fixed_problems.SMALL.items()
        for part, array in fixed_problems.convolution(problem, "float32")
    )
    return fixed_problems.digests(named)


def report_instructions(which: str) -> None:
    """Print the digests, and the machine code of the register tiles."""
    got = {"small": small_convolutions, "all": fixed_problems.everything}[which]()
    code = emitting.assembly(micro.functions(np.dtype("float32")), isa.here().features)
    print(json.dumps([got, code]))


@pytest.mark.skipif(not ON_X86_64, reason="these are instruction sets of x86-64")
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_any_instruction_set_gives_the_same_bits(name, tmp_path, share, wanted):
    environment, there, absent = INSTRUCTION_SETS[name]
    which = "all" if share(0, 1) else "small"
    code = f"import test_determinism as t; t.report_instructions({which!r})"
    got, machine_code = fresh.answer(code, CONVJIT_CACHE_DIR=str(tmp_path), **environment)
    assert there in machine_code
    assert absent not in machine_code
    assert not differing(got, wanted if which == "all" else small_convolutions())
