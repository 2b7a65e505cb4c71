"""The FMA peak of this machine, measured: `python -m bench.peak`.

Knows how fast fused multiply-adds can follow each other when nothing else is done: independent chains of them on
registers, in vectors of every width that the processor has; the best one counts. Does not know convolution. The
numbers come from memory, so that nothing can be computed beforehand.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from convjit import environment

from .problems import DTYPES

# Enough chains to hide the latency of two or four units, few enough for the registers: chains + 2.
#          feature    bits  chains
WIDTHS = (("avx512f", 512,  24),
          ("fma",     256,  12),
          ("fma",     128,  12),
          ("neon",    128,  24))  # fmt: skip
UNROLLED = 4
SCALARS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
INDEX = ir.IntType(64)

# Of one sample, and of all samples of one width.
SAMPLE_SECONDS = 0.005
WIDTH_SECONDS = 0.15

Run = Callable[[int, int], None]


class Chains(NamedTuple):
    """A compiled loop; `run(address, rounds)` goes round with the vectors at an address."""

    run: Run
    elements: int  # that it takes at the address
    flops: int  # of a round


def measure(dtype: str, threads: int) -> float | None:
    """Floating-point operations a second, an FMA counted as two; None where there is no FMA."""
    rates = [_best_rate(chains, dtype, threads) for chains in _all_chains(dtype)]
    return max(rates, default=None)


@cache
def _all_chains(dtype: str) -> list[Chains]:
    features = {name for name, present in llvm.get_host_cpu_features().items() if present}
    if platform.machine().lower() in ("arm64", "aarch64"):
        features.add("neon")  # always there, not always listed
    return [_compile(dtype, bits, chains) for feature, bits, chains in WIDTHS if feature in features]


def _best_rate(chains: Chains, dtype: str, threads: int) -> float:
    """The best of many short samples: what disturbs one does not show.

    The threads are the same in all of them: new ones begin on one core, and Linux takes its time to part them.
    """
    rounds = 1000
    with ThreadPoolExecutor(threads) as pool:
        while (seconds := _sample(pool, chains, dtype, threads, rounds)) < SAMPLE_SECONDS:
            rounds *= 2
        shortest, end = seconds, time.perf_counter() + WIDTH_SECONDS
        while time.perf_counter() < end:
            shortest = min(shortest, _sample(pool, chains, dtype, threads, rounds))
    return threads * rounds * chains.flops / shortest


def _sample(pool: ThreadPoolExecutor, chains: Chains, dtype: str, threads: int, rounds: int) -> float:
    """Seconds from the first thread's start to the last one's end."""
    barrier = Barrier(threads)

    def one(numbers: np.ndarray[Any, Any]) -> tuple[float, float]:
        barrier.wait()
        start = time.perf_counter()
        chains.run(numbers.ctypes.data, rounds)
        return start, time.perf_counter()

    all_numbers = [np.full(chains.elements, 0.5, dtype) for _ in range(threads)]
    starts, ends = zip(*pool.map(one, all_numbers), strict=True)
    return float(max(ends) - min(starts))


def _compile(dtype: str, bits: int, chains: int) -> Chains:
    scalar = SCALARS[dtype]
    lanes = bits // (8 * np.dtype(dtype).itemsize)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    if "avx512f" in features:
        features += ",-prefer-256-bit"  # LLVM would split vectors of 512 bits
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(_emit(scalar, lanes, chains))), machine)
    engine.finalize_object()
    # A foreign function of ctypes runs without the interpreter's lock.
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(engine.get_function_address("chains"))

    def run(address: int, rounds: int, _engine: object = engine) -> None:  # the code lives as long as its engine
        function(address, rounds)

    return Chains(run, (2 + chains) * lanes, 2 * lanes * chains * UNROLLED)


def _emit(scalar: Any, lanes: int, chains: int) -> ir.Module:
    """`x[i] = x[i] * a + b` over and over; `a`, `b` and all `x[i]` are vectors that lie side by side at an address."""
    vector = ir.VectorType(scalar, lanes)
    module = ir.Module()
    suffix = "f64" if isinstance(scalar, ir.DoubleType) else "f32"
    fma = ir.Function(module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}{suffix}")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [vector.as_pointer(), INDEX]), "chains")
    entry, loop, end = (function.append_basic_block(name) for name in ("entry", "loop", "end"))
    builder = ir.IRBuilder(entry)
    places = [builder.gep(function.args[0], [INDEX(i)]) for i in range(2 + chains)]
    a, b, *x = _aligned([builder.load(place) for place in places])
    builder.branch(loop)
    builder.position_at_end(loop)
    left = builder.phi(INDEX)
    carried = [builder.phi(vector) for _ in x]
    now: list[Any] = carried
    for _ in range(UNROLLED):
        now = [builder.call(fma, [value, a, b]) for value in now]
    fewer = builder.sub(left, INDEX(1))
    builder.cbranch(builder.icmp_signed(">", fewer, INDEX(0)), loop, end)
    for phi, before, after in zip([left, *carried], [function.args[1], *x], [fewer, *now], strict=True):
        phi.add_incoming(before, entry)
        phi.add_incoming(after, loop)
    builder.position_at_end(end)
    _aligned([builder.store(value, place) for value, place in zip(now, places[2:], strict=True)])
    builder.ret_void()
    return module


def _aligned(accesses: list[Any]) -> list[Any]:
    """NumPy aligns to elements, not to vectors."""
    for access in accesses:
        access.align = 4
    return accesses


def main(arguments: list[str]) -> int:
    """Print the peak for both dtypes; the exit status."""
    from .__main__ import default_threads, positive

    parser = argparse.ArgumentParser(prog="python -m bench.peak", description="Measure the FMA peak of this machine.")
    parser.add_argument("--threads", nargs="+", type=positive, metavar="N", help="default: 1 and all cores")
    options = parser.parse_args(arguments)
    print(f"{environment.cpu_name()}, {environment.instruction_set()}")
    for dtype in DTYPES:
        for threads in options.threads or default_threads():
            rate = measure(dtype, threads)
            shown = "no fused multiply-add" if rate is None else f"{rate / 1e9:8.1f} GFLOP/s"
            print(f"{dtype}  {threads} thread{'s' if threads > 1 else ' '}  {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
