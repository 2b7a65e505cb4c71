"""Options that are looked up, and values that errors show."""

from __future__ import annotations

import numpy as np
import pytest

from convjit import (
    conv2d,
    conv2d_input_grad,
    conv2d_weight_grad,
    conv_transpose2d,
    conv_transpose2d_backward,
    max_pool2d,
    pad2d,
)
from convjit.functional import convolving
from convjit.parsing import are_plain

X, WEIGHT = np.ones((1, 1, 8, 8), "f4"), np.ones((1, 1, 3, 3), "f4")


def test_what_may_be_looked_up():
    assert are_plain((1, "same", None, (2, 3), ((1, 2), (0, 3))))
    for other in (True, 1.0, np.int64(1), [1, 2], (1, True), ((1, 1.0), (0, 0)), ((((1,),),),)):
        assert not are_plain((1, other))


def test_equal_options_of_another_type_are_refused_after_right_ones():
    """What is kept of `(1, 1)` is not found for `(1, True)`, which equals it."""
    convolving._decide_forward.kept.cache_clear()
    conv2d(X, WEIGHT, stride=(1, 1), padding=((1, 1), (1, 1)))
    assert convolving._decide_forward.kept.cache_info().currsize == 1
    with pytest.raises(TypeError, match="stride must be an int or a pair of ints, got bool True"):
        conv2d(X, WEIGHT, stride=(1, True), padding=((1, 1), (1, 1)))
    with pytest.raises(TypeError, match=r"padding must be .*, got float 1\.0"):
        conv2d(X, WEIGHT, stride=(1, 1), padding=((1, 1.0), (1, 1)))


@pytest.mark.parametrize(
    ("call", "right", "wrong", "name"),
    [
        (lambda option: conv2d_input_grad(X, WEIGHT, option), (10, 10), (10, np.float64(10)), "input_size"),
        (lambda option: conv2d_input_grad(X, WEIGHT, 10, stride=option), 1, True, "stride"),
        (lambda option: conv2d_weight_grad(X, X, option), (1, 1), (1, True), "kernel_size"),
        (lambda option: conv2d_weight_grad(X, X, 1, dilation=option), 1, 1.0, "dilation"),
        (lambda option: conv_transpose2d(X, WEIGHT, stride=option), 2, 2.0, "stride"),
        (lambda option: conv_transpose2d(X, WEIGHT, output_size=option), 10, 10.0, "output_size"),
        (lambda option: conv_transpose2d_backward(X, X, np.ones((1, 1, 1, 1), "f4"), option), 1, True, "stride"),
    ],
)
def test_what_others_keep_is_not_found_for_equal_options_of_another_type(call, right, wrong, name):
    call(right)
    call([right, right] if isinstance(right, int) else list(right))  # which nothing can be looked up by
    with pytest.raises(TypeError, match=f": {name} must be "):
        call(wrong)


def test_tuples_without_an_end_are_refused_in_one_sentence():
    deep = 1
    for _ in range(100_000):
        deep = (deep,)
    with pytest.raises(TypeError, match=r"^conv2d: stride must be an int or a pair of ints, got tuple nested too deep"):
        conv2d(X, WEIGHT, stride=deep)
    with pytest.raises(TypeError, match=r"^max_pool2d: kernel_size must be .*, got tuple nested too deep to show$"):
        max_pool2d(X, deep)


# More digits than Python prints.
HUGE = 10**5000


class Mute:
    def __repr__(self):
        raise KeyError("no repr")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: conv2d(X, WEIGHT, stride=HUGE), "conv2d: stride must be an int .*, got an int of 16,610 bits"),
        (lambda: conv2d(X, WEIGHT, padding=((1, -HUGE), (1, 1))), "conv2d: padding must be .*, got an int of 16,610"),
        (lambda: conv2d(X, WEIGHT, algorithm=HUGE), "conv2d: .*algorithm.* int that cannot be shown"),
        (lambda: conv2d(X, WEIGHT, HUGE), "conv2d: bias .*"),
        (lambda: pad2d(X, 1, value=HUGE), "pad2d: value must be a scalar number, got int that cannot be shown"),
        (lambda: conv2d(X, WEIGHT, stride=Mute()), "conv2d: stride must be .*, got Mute that cannot be shown"),
        (lambda: conv2d(X, WEIGHT, padding_mode={HUGE: 1}), "conv2d: .*padding_mode.* dict that cannot be shown"),
    ],
)
def test_what_cannot_be_printed_is_refused_in_one_sentence(call, sentence):
    with pytest.raises((TypeError, ValueError), match=f"^{sentence}"):
        call()
