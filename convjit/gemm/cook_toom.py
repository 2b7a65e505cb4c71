"""The matrices of Winograd's convolution, computed exactly, and vectors multiplied with them.

Knows points and polynomials; does not know images. F(m, r) gives m outputs of a filter with r taps from m + r - 1
products: y = AT [(G g) * (BT d)].
Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4; S. Winograd,
"Arithmetic Complexity of Computations" (1980), for the construction from points (Cook and Toom's, turned round); B.
Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution" (2020), for what points decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from ..simd.vectors import Vectors


class Surd(NamedTuple):
    """The number `whole + root * sqrt(2)`."""

    whole: Fraction
    root: Fraction = Fraction(0)

    def plus(self, other: Surd) -> Surd:
        return Surd(self.whole + other.whole, self.root + other.root)

    def times(self, other: Surd) -> Surd:
        whole = self.whole * other.whole + 2 * self.root * other.root
        return Surd(whole, self.whole * other.root + self.root * other.whole)

    def negative(self) -> Surd:
        return Surd(-self.whole, -self.root)

    def inverse(self) -> Surd:
        norm = self.whole**2 - 2 * self.root**2
        return Surd(self.whole / norm, -self.root / norm)

    def __float__(self) -> float:
        return float(self.whole) + float(self.root) * math.sqrt(2)


ZERO, ONE = Surd(Fraction(0)), Surd(Fraction(1))
Matrix = list[list[Surd]]


class Tile(NamedTuple):
    """A row: m outputs of r taps, and the points besides infinity at which polynomials are multiplied."""

    outputs: int
    taps: int
    points: tuple[Surd, ...]

    @property
    def window(self) -> int:
        """Inputs of a row, and products."""
        return self.outputs + self.taps - 1


# Points and their inverses keep all matrices' entries near 1. With {0, +-1, +-2} instead the error of 3x3 layers is
# more than twice as large.
F4X3 = Tile(4, 3, (ZERO, *(Surd(Fraction(0), Fraction(sign, n)) for n in (2, 1) for sign in (1, -1))))
# For the phases of a 3x3 convolution with stride 2, which have two taps or one. Pairs of points with opposite signs
# share their products. Of 15 sets these had the smallest error, for 64 channels in float32 5.3e-7; {+-1, +-1/2} had
# 6.6e-7 and {+-1/sqrt(2), +-sqrt(2)} 7.3e-7.
F4X2 = Tile(4, 2, (*(Surd(Fraction(sign, 2)) for sign in (1, -1)), *(Surd(Fraction(0), Fraction(s)) for s in (1, -1))))
# The other way round, for a gradient of 3x3 taps: results are the taps, and what was results is multiplied.
F3X4 = Tile(3, 4, F4X3.points)


def matrices(tile: Tile) -> tuple[Matrix, Matrix, Matrix]:
    """`AT` (m, a), `G` (a, r) and `BT` (a, a) with a = m + r - 1."""
    size = tile.window
    at = [[power(p, i) for p in tile.points] + [ONE if i == tile.outputs - 1 else ZERO] for i in range(tile.outputs)]
    g, bt = [], []
    for j, point in enumerate(tile.points):
        others = tile.points[:j] + tile.points[j + 1 :]
        polynomial = _from_roots(others)
        scale = _value(polynomial, point).inverse()
        g.append([power(point, k).times(scale) for k in range(tile.taps)])
        bt.append([*polynomial, ZERO])
    g.append([ONE if k == tile.taps - 1 else ZERO for k in range(tile.taps)])
    bt.append(_from_roots(tile.points))
    assert len(bt) == size
    return at, g, bt


def power(number: Surd, exponent: int) -> Surd:
    """`number ** exponent`, where 0 ** 0 is 1."""
    result = ONE
    for _ in range(exponent):
        result = result.times(number)
    return result


def _from_roots(roots: Sequence[Surd]) -> list[Surd]:
    """Coefficients of the product of (x - root), lowest first."""
    found = [ONE]
    for root in roots:
        shifted, scaled = [ZERO, *found], [c.times(root).negative() for c in found] + [ZERO]
        found = [a.plus(b) for a, b in zip(shifted, scaled, strict=True)]
    return found


def _value(polynomial: Sequence[Surd], point: Surd) -> Surd:
    total = ZERO
    for k, c in enumerate(polynomial):
        total = total.plus(c.times(power(point, k)))
    return total


# --- vectors --------------------------------------------------------------------------------------------------------


def apply(v: Vectors, matrix: Matrix, values: Sequence[Any]) -> list[Any]:
    """The products of a matrix with a column of vectors.

    What rows or columns that differ in signs only have in common is computed once.
    """
    rows = list(matrix)
    columns = _twins([list(column) for column in zip(*rows, strict=True)])
    inputs = list(values)
    for i, j in columns:  # the sum and the difference of two inputs replace them
        inputs[i], inputs[j] = v.add(values[i], values[j]), v.subtract(values[i], values[j])
        rows = [_merged(row, i, j) for row in rows]
    results: list[Any] = [None] * len(rows)
    for i, j in _twins(rows):
        same = [a if a == b else ZERO for a, b in zip(rows[i], rows[j], strict=True)]
        opposite = [ZERO if a == b else a for a, b in zip(rows[i], rows[j], strict=True)]
        even, odd = _combined(v, same, inputs), _combined(v, opposite, inputs)
        results[i], results[j] = v.add(even, odd), v.subtract(even, odd)
    return [_combined(v, row, inputs) if done is None else done for row, done in zip(rows, results, strict=True)]


def store_products(v: Vectors, matrix: Matrix, columns: Sequence[Sequence[Any]], place: Any, pitch: Any) -> None:
    """Store matrix * x * matrix^T, of the columns of x, row by row; the products lie `pitch` elements apart."""
    mixed = [apply(v, matrix, column) for column in columns]
    for r in range(len(matrix)):
        for value in apply(v, matrix, [column[r] for column in mixed]):
            v.store(value, place)
            place = v.offset(place, pitch)


def _twins(rows: Matrix) -> list[tuple[int, int]]:
    """Pairs of rows with some entries equal and some opposite, the others zero."""
    pairs, free = [], set(range(len(rows)))
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            entries = [(a, b) for a, b in zip(rows[i], rows[j], strict=True) if ZERO not in (a, b) or a != b]
            same = sum(a == b for a, b in entries)
            if {i, j} <= free and len(entries) > same > 0 and all(b in (a, a.negative()) for a, b in entries):
                pairs.append((i, j))
                free -= {i, j}
    return pairs


def _merged(row: Sequence[Surd], i: int, j: int) -> list[Surd]:
    """Coefficients of the sum and the difference in place of those of two inputs."""
    found = list(row)
    found[i], found[j] = (row[i], ZERO) if row[i] == row[j] else (ZERO, row[i])
    return found


def _combined(v: Vectors, coefficients: Sequence[Surd], values: Sequence[Any]) -> Any:
    """A linear combination, those with a factor of 1 first: they cost least."""
    terms = [(float(c), value) for c, value in zip(coefficients, values, strict=True) if c != ZERO]
    terms.sort(key=lambda term: abs(term[0]) != 1)
    total: Any = None
    for factor, value in terms:
        if total is None:
            total = value if factor == 1 else v.multiply(v.constant(factor), value)
        elif abs(factor) == 1:
            total = v.add(total, value) if factor == 1 else v.subtract(total, value)
        else:
            total = v.fma(v.constant(factor), value, total)
    return total
