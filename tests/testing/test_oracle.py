"""The oracle by hand and against NumPy's own functions, and what the strategies draw."""

import functools
import itertools
import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import Phase, find, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from numpy.testing import assert_array_equal

from convjit.testing import (
    PADDING_MODES,
    PADDING_NAMES,
    NumpyConv2D,
    Problem,
    conv2d_cases,
    conv2d_problems,
    exact_arrays,
    reference_avg_pool2d,
    reference_conv2d,
    reference_conv2d_backward,
    reference_max_pool2d,
    reference_pads,
)


def test_convolution_by_hand():
    x = np.arange(16).reshape(1, 1, 4, 4)
    weight = np.array([[1, 2], [3, 4]]).reshape(1, 1, 2, 2)
    y = reference_conv2d(x, weight, np.array([100]), stride=(2, 1), pads=((0, 0), (1, 0)), dilation=(1, 2))
    # Row 0: taps (h, w-1), (h, w+1) of rows 0 and 1 with weights 1 2 and 3 4.
    assert_array_equal(y[0, 0, 0], 100 + np.array([2 * 1 + 4 * 5, 2 * 2 + 3 * 4 + 4 * 6, 1 + 2 * 3 + 3 * 5 + 4 * 7]))


@given(x=exact_arrays((9, 8)), weight=exact_arrays((3, 2)))
def test_convolution_is_numpys_sliding_window(x, weight):
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape)
    assert_array_equal(
        reference_conv2d(x[None, None], weight[None, None])[0, 0], np.einsum("ijkl,kl->ij", windows, weight)
    )


def test_fractions_are_exact():
    third = np.full((1, 1, 1, 3), Fraction(1, 3))
    assert reference_conv2d(third, third).tolist() == [[[[Fraction(1, 3)]]]]


@given(case=conv2d_cases(dtype="int64"))
def test_its_gradients_are_its_adjoints(case):
    problem = case.problem
    x, dy = case.x.reshape(problem.batched_x_shape), case.grad_output.reshape(problem.batched_y_shape)
    y = reference_conv2d(x, case.weight, **problem.reference_options)
    dx, dw, db = reference_conv2d_backward(dy, x, case.weight, **problem.reference_options)
    assert y.shape == dy.shape
    assert (y * dy).sum() == (x * dx).sum() == (case.weight * dw).sum()
    assert_array_equal(db, dy.sum((0, 2, 3)))


@pytest.mark.parametrize(
    ("padding", "wanted"),
    [("valid", ((0, 0), (0, 0))), ("same", ((1, 1), (1, 2))), ("full", ((2, 2), (3, 3))), (1, ((1, 1), (1, 1))),
     ((1, 2), ((1, 1), (2, 2))), (((1, 2), (3, 4)), ((1, 2), (3, 4))), ("same_upper", ((1, 1), (1, 2))),
     ("same_lower", ((1, 1), (2, 1)))],
)  # fmt: skip
def test_padding_forms(padding, wanted):
    assert reference_pads(padding, (5, 5), (3, 4), stride=(2, 2)) == wanted


def test_pools_by_hand():
    x = np.array([[[[1.0, 5.0, 2.0, 4.0, 3.0]]]])
    assert_array_equal(reference_max_pool2d(x, (1, 2), (1, 2))[0], [[[[5, 4]]]])
    assert_array_equal(reference_max_pool2d(x, (1, 2), (1, 2), ceil_mode=True)[0], [[[[5, 4, 3]]]])
    assert_array_equal(reference_avg_pool2d(x, (1, 2), (1, 2), ((0, 0), (1, 0))), [[[[0.5, 3.5, 3.5]]]])
    excluded = reference_avg_pool2d(x, (1, 2), (1, 2), ((0, 0), (1, 0)), count_include_pad=False)
    assert_array_equal(excluded, [[[[1, 3.5, 3.5]]]])
    for included in (False, True):
        sums = reference_avg_pool2d(
            x, (1, 2), (1, 2), ((0, 0), (1, 0)), count_include_pad=included, divisor_override=-2
        )
        assert_array_equal(sums, [[[[-0.5, -3.5, -3.5]]]])


@functools.cache
def drawn(start):
    """A hundred problems, the default of Hypothesis."""
    found = []

    @seed(start)
    @settings(max_examples=100, database=None, deadline=None, derandomize=False, phases=[Phase.generate])
    @given(problem=conv2d_problems())
    def draw(problem):
        found.append(problem)

    draw()
    return found


@pytest.mark.parametrize(("name", "other"), list(itertools.permutations(PADDING_NAMES[1:4], 2)))
def test_a_hundred_problems_mostly_tell_names_of_padding_apart(name, other):
    def differs(problem):
        return problem.padding == name and problem.pads != replace(problem, padding=other).pads

    assert sum(any(map(differs, drawn(start))) for start in range(20)) > 9


@given(problem=conv2d_problems())
def test_drawn_problems_are_valid(problem):
    assert min(problem.out_size) >= 1
    assert problem.x_shape[-3] == problem.weight_shape[1] * problem.groups
    assert problem.weight_shape[0] % problem.groups == 0
    if problem.padding_mode == "reflect":
        assert all(max(pads) < size for pads, size in zip(problem.pads, problem.image, strict=True))


@pytest.mark.parametrize(
    "wanted",
    [
        lambda p: p.groups == 3,
        lambda p: p.padding == "same_lower",
        lambda p: np.ndim(p.padding) == 2,
        lambda p: p.padding_mode == "wrap" and p.pads != ((0, 0), (0, 0)),
        lambda p: len(p.x_shape) == 4 and p.x_shape[0] > 1,
        lambda p: p.stride_pair == (3, 1),
        lambda p: p.dilation_pair == (1, 2) and p.kernel[1] > 1,
        lambda p: p.stride_pair[0] > p.kernel[0],
        lambda p: max(p.pads[0]) > p.kernel[0],
        lambda p: p.bias_shape is not None,
        *(lambda p, name=name: p.padding == name for name in PADDING_NAMES),
        *(lambda p, mode=mode: p.padding_mode == mode for mode in PADDING_MODES),
    ],
)
def test_every_kind_of_problem_is_drawn(wanted):
    assert wanted(find(conv2d_problems(), wanted))


EMPTY = [
    lambda p: p.x_shape[0] == 0 and len(p.x_shape) == 4,
    lambda p: p.x_shape[-3] == 0,
    lambda p: p.image[0] == 0,
    lambda p: 0 in p.image and p.padding == "full",
]


@pytest.mark.parametrize("wanted", EMPTY)
def test_empty_images_are_drawn_where_they_are_asked_for(wanted):
    problem = find(conv2d_problems(empty=True), wanted, settings=settings(max_examples=20_000))
    assert min(problem.out_size) >= 1
    with pytest.raises(NoSuchExample):
        find(conv2d_problems(), wanted, settings=settings(max_examples=300, database=None))


@given(case=conv2d_cases(empty=True))
def test_empty_problems_are_valid(case):
    problem = case.problem
    x, dy = case.x.reshape(problem.batched_x_shape), case.grad_output.reshape(problem.batched_y_shape)
    y = reference_conv2d(x, case.weight, case.bias, **problem.reference_options)
    assert y.shape == dy.shape
    gradients = reference_conv2d_backward(dy, x, case.weight, **problem.reference_options)
    assert [g.shape for g in gradients] == [x.shape, case.weight.shape, (len(case.weight),)]
    assert eval(repr(case.problem), {"Problem": Problem}) == case.problem


@given(problem=conv2d_problems(batched=True, bias=False, paddings=st.just((1, 2)), padding_modes=["constant"]))
def test_what_is_drawn_can_be_narrowed(problem):
    assert len(problem.x_shape) == 4
    assert problem.bias_shape is None
    assert problem.pads == ((1, 1), (2, 2))


@pytest.mark.parametrize(
    ("limits", "error", "said"),
    [
        ({"padding_modes": "wrap"}, TypeError, "padding_modes must be a sequence of names, got the string 'wrap'"),
        *(
            ({"paddings": st.just(padding)}, ValueError,
             f"paddings drew {padding!r}, but problems have names of PADDING_NAMES, or counts of at least 0: an int, a "
             "pair, or ((top, bottom), (left, right))")
            for padding in (-1, (0, -2), ((0, 1), (-1, 0)), "zz", 1.5, (1, 2, 3), ((1,), (1, 2)), None)
        ),
    ],
)  # fmt: skip
def test_problems_that_cannot_be_drawn(limits, error, said):
    for strategy in (conv2d_problems, conv2d_cases):
        with pytest.raises(error, match=re.escape(f"conv2d_problems: {said}")):
            find(strategy(**limits), lambda found: True)


def test_shrinking_ends_at_the_smallest_problem():
    assert find(conv2d_problems(), lambda p: p.groups == 2) == Problem((2, 1, 1), (2, 1, 1, 1), groups=2)


ONE = np.ones((1, 1, 3, 3))


@pytest.mark.parametrize(
    ("arrays", "options", "said"),
    [
        ((ONE[0], ONE), {}, "x must have shape (N, C, H, W), got (1, 3, 3)"),
        ((ONE, ONE[0]), {}, "weight must have shape (O, C // groups, KH, KW), got (1, 3, 3)"),
        ((ONE, ONE), {"stride": 2}, "stride must be a pair (height, width), got 2"),
        ((ONE, ONE), {"stride": (1, 2, 3)}, "stride must be a pair (height, width), got (1, 2, 3)"),
        ((ONE, ONE), {"dilation": 1}, "dilation must be a pair (height, width), got 1"),
        ((ONE, ONE), {"pads": (1, 1)}, "pads must be ((top, bottom), (left, right)), got (1, 1)"),
    ],
)
def test_references_take_one_form(arrays, options, said):
    with pytest.raises(ValueError, match=re.escape(f"reference_conv2d: {said}")):
        reference_conv2d(*arrays, **options)
    with pytest.raises(ValueError, match=re.escape(f"reference_conv2d_backward: {said}")):
        reference_conv2d_backward(ONE, *arrays, **options)


class Sgd:
    """Plain gradient descent."""

    def update(self, w, grad):
        return w - grad


@pytest.mark.parametrize(
    ("padding", "stride", "size"), [("same", 1, 5), ("valid", 2, 5), ("same", 2, 5), ("valid", 1, 4)]
)
def test_the_numpy_layer_is_the_oracle(padding, stride, size):
    layer = NumpyConv2D(3, (3, 2), padding=padding, stride=stride)
    layer.set_input_shape((2, size, 6))
    layer.initialize(Sgd())
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 2, size, 6)).astype(float)
    layer.W = rng.integers(-4, 5, layer.W.shape).astype(float)
    layer.w0 = rng.integers(-4, 5, layer.w0.shape).astype(float)
    weight, bias = layer.W.copy(), layer.w0.copy()
    options = {"stride": (stride, stride), "pads": reference_pads(padding, (size, 6), (3, 2))}
    y = layer.forward_pass(x)
    assert_array_equal(y, reference_conv2d(x, weight, bias[:, 0], **options))
    assert y.shape == (2, *layer.output_shape())
    dy = rng.integers(-4, 5, y.shape).astype(float)
    dx, dw, db = reference_conv2d_backward(dy, x, weight, **options)
    assert_array_equal(layer.backward_pass(dy), dx)
    assert_array_equal(layer.W, weight - dw)
    assert_array_equal(layer.w0, bias - db[:, None])
    assert layer.parameters() == weight.size + bias.size
