"""Functions of eight integers in the subset of Python that is plain code; they also run in Python, on a NumPy array."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np


class Span(NamedTuple):
    start: int
    stop: int


def arithmetic(numbers: Any) -> Any:
    a, b, c = numbers[0], numbers[1], numbers[2]
    numbers[3], numbers[4] = a // b, a % b
    numbers[5] = numbers[6] = -a * b - c
    return a // -7 + b % 16 + c % -5 + max(a, b, c) - min(a, 3, b) + (a & 6)


def choices(numbers: Any) -> Any:
    a, b, c = numbers[0], numbers[1], numbers[2]
    inside = 0 <= a < 8 and numbers[a] != b
    count = 1 if inside or not c > 0 else 2
    if a in (b, c, 4):
        count += 10
    elif (a < b) & (b < c) | (a == 1):
        return 1000 - count
    else:
        count -= 100
    if a != b != c:
        count -= 1
    if c:
        count *= 3
    return count


def loops(numbers: Any) -> Any:
    total = 0
    for i in range(7, 0, -2):
        for j in range(numbers[i] % 5):
            if j == 2:
                continue
            total += i * j
            if total > 40:
                return total * 1000 + j
    k = numbers[0] % 50
    while k > 3 and k != 17:
        k = k // 2 if k % 2 == 0 else 3 * k + 1
        total += 1
        if total > 300:
            return -total
    for number in numbers:
        total += number % 3
    return total


def _ordered(a: Any, b: Any) -> Any:
    if a > b:
        a, b = b, a
    return Span(a, b), (a == b, a)


def _longest(first: Span, second: Span) -> Any:
    return first if first.stop - first.start >= second.stop - second.start else second


def _fits(numbers: Any, i: Any, span: Span) -> Any:
    if i > 6:
        return False
    return span.start <= numbers[i] <= span.stop


def records(numbers: Any) -> Any:
    span, (same, least) = _ordered(numbers[0] % 100, numbers[1] % 100)
    best = span
    for i in range(2, 8):
        other, _ = _ordered(numbers[i] % 50, span.start)
        best = _longest(best, other)
        least += _fits(numbers, i, best)
    numbers[7] = math.gcd(best.start, best.stop)
    return (best[0] * 100 + best.stop) * 10 + same + least


def arrays(numbers: Any) -> Any:
    rows, cols = numbers[0] % 4 + 1, numbers[1] % 5 + 1
    table, counts, two = np.empty((rows, cols), np.int64), np.zeros(cols, np.int64), np.array((rows, 7), np.int64)
    for i in range(rows):
        line = table[i]
        for j in range(cols):
            line[j] = numbers[(i + j) % 8] % 1000
            counts[j] += line[j]
    table[rows - 1, cols // 2 :] = 0
    part = numbers[2:6]
    part[1] -= 5
    total = two[0] * two[1] + part.size + table.size + len(counts)
    for count in counts:
        total = total * 3 + count
    for i in range(rows):
        for j in range(cols):
            total += table[i, j] * (i + 2 * j)
    return total


def reals(numbers: Any) -> Any:
    a, b = np.float64(numbers[0]), np.float64(numbers[1])
    half = np.empty(2, np.float32)
    half[0], half[1] = np.float32(a) / np.float32(3), np.float32(b)
    half[1] += half[0]
    ratio = a / b
    is_nan = ratio != ratio
    beyond = not ratio <= 2.0
    return is_nan * 1000 + beyond * 100 + (half[1] > half[0]) * 10 + (float(numbers[2]) * b < 70)


def slices(numbers: Any) -> Any:
    first = 2 * (numbers[0] % 4)
    some = numbers[first : first + 3]
    total = 0
    for i in range(len(some)):
        total += some[i] % 100
    return total * 10 + len(numbers[3:]) + len(numbers[:20])


def _tripled(of: Any) -> Any:
    def inner(numbers: Any, i: Any) -> Any:
        return 3 * of(numbers, i) + shift

    shift = 1
    return inner


def _halved(numbers: Any, i: Any) -> Any:
    return numbers[i] // 2


_three_halves = _tripled(_halved)


def enclosing(numbers: Any) -> Any:
    return _three_halves(numbers, 0) + _three_halves(numbers, 1)


def mixed(numbers: Any) -> Any:
    root = np.sqrt(np.float64(numbers[0] % 1000))
    small = np.sqrt(np.float32(numbers[1] % 7))
    product = numbers[2] % 30000001 * np.float32(0.1)  # of an integer and a float32: a float64, as NumPy has it
    return (root * root > 500) * 100 + (small > 2) * 10 + (product > 700000.0)


def allocating(task: Any, worker: Any, y: Any) -> None:
    """What no task may be."""
    room = np.zeros(task + 1, np.int64)
    y[task] = room.size


def much_memory(numbers: Any) -> Any:
    room = np.empty(numbers[0], np.int64)
    return 1 if room.size > 0 else 0


SHARED = (_longest, _fits)
SAMPLES = (arithmetic, choices, loops, records, arrays, reals, slices, enclosing, mixed)
