"""Instruction sets: how wide a vector is, and the register tile that fills the registers.

Knows names of CPU features; does not know what is computed. A new instruction set is a row; one without a multiply-add
runs by calls of libm. A new architecture is one also for `runtime.status`, which reads flags of floating-point errors,
and for `runtime.turns`, which tells the processor that a loop waits; wider vectors need more room behind planes
(`gemm.planes.BEHIND`, which a test compares).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from ..runtime import emitting
from ..typing import DType


class InstructionSet(NamedTuple):
    """A row: when it is chosen, and the tile of `rows` x `vectors` chains that the micro-kernel keeps in registers.

    Live at once are `rows * vectors` chains, `vectors` of the panel and one element of `a` in all lanes: they must fit
    into the registers, and be enough to hide a multiply-add's latency (4 cycles, 2 a cycle: 8 chains).
    """

    name: str
    title: str  # for people
    architectures: tuple[str, ...]  # of the target triple; any if empty
    needs: tuple[str, ...]  # CPU features
    vector_bytes: int
    registers: int
    rows: int
    vectors: int
    # The widest tile whose lanes are channels, see `gemm.direct_kernels`: as many rows as registers are left for.
    channel_vectors: int
    # What tiles of one, two and more vectors reach of the multiply-add units: loads stand in the way of narrow ones. Of
    # `rows` x `vectors`, and of those whose lanes are channels. Fitted to calls with algorithm="implicit" and "direct".
    speeds: tuple[float, ...]
    channel_speeds: tuple[float, ...]
    # LLVM cuts 512-bit vectors in two for processors whose early models slowed down under them; whole ones do twice the
    # multiply-adds an instruction.
    features: str = ""


# Of 32 registers: tiles of 8 rows.
_WIDE_SPEEDS, _WIDE_CHANNEL_SPEEDS = (0.55, 0.9, 1.0), (0.7, 0.87, 1.0, 1.0)
# Of 16 registers: 6 rows, or of channels 4 rows of three vectors, 6 of two and 8 of one.
_NARROW_SPEEDS, _NARROW_CHANNEL_SPEEDS = (0.75, 0.93), (0.5, 1.0, 1.0)

# Best first, the last one always there: 128-bit vectors are in every x86-64 and every 64-bit Arm.
INSTRUCTION_SETS = (
    InstructionSet(
        "avx512", "AVX-512", ("x86_64",), ("avx512f", "avx512dq", "avx512vl"), 64, 32, rows=8, vectors=3,
        channel_vectors=4, speeds=_WIDE_SPEEDS, channel_speeds=_WIDE_CHANNEL_SPEEDS, features="-prefer-256-bit",
    ),
    InstructionSet(
        "avx2", "AVX2 with FMA", ("x86_64",), ("avx2", "fma"), 32, 16, rows=6, vectors=2,
        channel_vectors=3, speeds=_NARROW_SPEEDS, channel_speeds=_NARROW_CHANNEL_SPEEDS,
    ),
    InstructionSet(
        "neon", "NEON", ("aarch64", "arm64"), (), 16, 32, rows=8, vectors=3,
        channel_vectors=4, speeds=_WIDE_SPEEDS, channel_speeds=_WIDE_CHANNEL_SPEEDS,
    ),
    InstructionSet(
        "vector128", "128-bit vectors", (), (), 16, 16, rows=6, vectors=2,
        channel_vectors=3, speeds=_NARROW_SPEEDS, channel_speeds=_NARROW_CHANNEL_SPEEDS,
    ),
)  # fmt: skip


def here() -> InstructionSet:
    """The best row for what Numba compiles for in this process."""
    target = emitting.target()
    return choose(target.triple, target.features)


def lanes(dtype: DType) -> int:
    """Elements of a vector of this machine."""
    return here().vector_bytes // dtype.itemsize


@cache
def choose(triple: str, features: str) -> InstructionSet:
    """The best row for a target as LLVM describes it: `x86_64-unknown-linux-gnu` and `+avx2,+fma,-avx512f,...`."""
    architecture = triple.partition("-")[0]
    present = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    return next(
        row
        for row in INSTRUCTION_SETS
        if (not row.architectures or architecture in row.architectures) and present.issuperset(row.needs)
    )
