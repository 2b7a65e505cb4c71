"""The table of instruction sets: what is chosen for a target, and that its register tiles fit the registers."""

import re

import numpy as np
import pytest

from convjit.gemm import blocked, direct_kernels, micro, planes, tiles
from convjit.runtime import emitting
from convjit.simd import isa
from convjit.simd.isa import INSTRUCTION_SETS, choose

X86 = "x86_64-unknown-linux-gnu"


@pytest.mark.parametrize(
    ("triple", "features", "name"),
    [
        (X86, "+avx2,+fma,+avx512f,+avx512dq,+avx512vl", "avx512"),
        (X86, "+avx2,+fma,+avx512f,-avx512dq,+avx512vl", "avx2"),
        (X86, "+avx2,-fma", "vector128"),
        (X86, "", "vector128"),
        ("aarch64-apple-darwin", "+neon", "neon"),
        ("arm64-apple-macosx", "", "neon"),
        ("riscv64-unknown-linux-gnu", "+v", "vector128"),
    ],
)
def test_the_best_row_that_the_target_has(triple, features, name):
    assert choose(triple, features).name == name


@pytest.mark.parametrize("row", INSTRUCTION_SETS, ids=lambda row: row.name)
def test_tiles_fit_the_registers(row):
    assert row.rows * row.vectors + row.vectors + 1 <= row.registers
    assert row.rows * row.vectors >= 8  # chains that hide the latency of a multiply-add
    for rows in tiles.tile_rows(row):
        vectors = tiles.tile_vectors(row, rows)
        assert rows * vectors + min(rows, vectors) + 1 <= row.registers
        assert rows * vectors >= 8
        for line in (1, 2):
            chains = line * tiles.tile_lines(row, rows, line)
            assert rows * chains + min(rows, chains) + 1 <= row.registers
    assert row.vector_bytes // 4 <= planes.BEHIND  # elements that may be read behind the last plane
    assert blocked._TILE_ROWS % row.rows == 0  # of which chunks of rows are multiples
    for size in (4, 8):
        assert blocked.PANEL_LANES % (row.vectors * row.vector_bytes // size) == 0  # a panel is a whole number of tiles
    for vectors in range(1, row.channel_vectors + 1):
        rows = direct_kernels.most_rows(row, vectors)
        assert rows * vectors + vectors + 1 <= row.registers
        assert rows * vectors >= 8
        for height in direct_kernels.rows_of_halves(row, vectors):
            assert 2 * height * vectors + vectors + 1 <= row.registers


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_the_widest_tiles_of_pixels_keep_their_chains_in_registers(dtype):
    """A loop that spilled would run at a third of the speed: none of its instructions may name the stack."""
    row = isa.here()
    functions = micro.functions(np.dtype(dtype))
    for rows in tiles.tile_rows(row):
        hold_in_registers(functions, row, rows, tiles.tile_vectors(row, rows), micro.passes(row), dtype == "int64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiles_that_ask_keep_their_chains_in_registers(dtype):
    row = isa.here()
    functions = micro.asking_functions(np.dtype(dtype))
    for rows in tiles.tile_rows(row):
        loop = hold_in_registers(functions, row, rows, tiles.tile_vectors(row, rows), {})
        assert any(re.search(r"prefetch|prfm", line) for line in loop)


@pytest.mark.parametrize("vectors", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_largest_tiles_of_lines_keep_their_chains_in_registers(dtype, vectors):
    row = isa.here()
    functions = micro.line_functions(np.dtype(dtype), vectors)
    for rows in tiles.tile_rows(row):
        lines = tiles.tile_lines(row, rows, vectors)
        hold_in_registers(functions, row, rows, lines, {}, chains=rows * lines * vectors)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_widest_tiles_of_channels_keep_their_chains_in_registers(dtype):
    row = isa.here()
    functions, vectors = direct_kernels.functions(np.dtype(dtype)), row.channel_vectors
    for width in range(1, vectors + 1):
        hold_in_registers(functions, row, direct_kernels.most_rows(row, width), width, direct_kernels.passes(row))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiles_of_halves_keep_their_chains_in_registers(dtype):
    row = isa.here()
    heights = {width: direct_kernels.rows_of_halves(row, width) for width in range(1, row.channel_vectors + 1)}
    if not any(heights.values()):
        pytest.skip(f"{row.title} has registers for no tiles of halves: its panels run those of the test above")
    functions = direct_kernels.functions(np.dtype(dtype))
    for width, (most, *_) in ((width, found) for width, found in heights.items() if found):
        symbol = f"tile_{most}_{width}_of_halves"
        hold_in_registers(functions, row, most, width, {}, chains=2 * most * width, symbol=symbol)


# A vector on the stack.
STACK = {"x86_64": r"rsp.*[xyz]mm|[xyz]mm.*rsp", "aarch64": r"\bq\d+,.*\[sp", "arm64": r"\bq\d+,.*\[sp"}


def hold_in_registers(functions, row, rows, vectors, passes, is_integer=False, chains=None, symbol=None):
    """The lines of the innermost loop of a tile."""
    symbol, chains = symbol or f"tile_{rows}_{vectors}", chains or rows * vectors
    code = emitting.assembly({symbol: functions[symbol]}, row.features, passes)
    multiplies = re.compile(r"\bvpmullq" if is_integer else r"\bv?fm(la|add)")  # as Arm and x86 call a multiply-add
    if not multiplies.search(code):
        pytest.skip("no instruction for it here: what stands in for a multiplication needs the stack")
    stack = next((names for family, names in STACK.items() if emitting.target().triple.startswith(family)), None)
    if stack is None:
        pytest.skip("the stack's name in this assembly is not known; the tests of speed would show a spill")
    blocks = [[]]
    for line in code.splitlines():
        blocks[-1].append(line)
        if re.match(r"\.?L", line):  # a label, of Linux and of macOS
            blocks.append([line])
    loop = max(blocks, key=lambda block: sum(map(bool, map(multiplies.search, block))))
    assert sum(map(bool, map(multiplies.search, loop))) >= chains
    assert not [line for line in loop if re.search(stack, line)]
    return loop
