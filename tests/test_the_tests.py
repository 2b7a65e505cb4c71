"""Planted bugs: every check must catch its own, and accept what is right, a stranger's convolution included."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import convjit
from convjit.testing import (
    Case,
    Problem,
    assert_within_rounding,
    check_adjoint,
    check_gradients,
    conv2d_cases,
    exact_arrays,
    real_arrays,
    reference_conv2d,
    reference_conv2d_backward,
    reference_max_pool2d,
    reference_max_pool2d_backward,
    reference_pad2d_backward,
)

SMALL = {"max_batch": 2, "max_channels": 2, "max_groups": 2, "max_extra": 2, "max_padding": 2}


def fails(check, strategy):
    """Assert that some drawn example fails the check, with an AssertionError."""

    # Any failing example will do: it is not made smaller.
    @settings(max_examples=300, database=None, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False)
    @given(strategy)
    def run(drawn):
        check(drawn)

    with pytest.raises(AssertionError):
        run()


# --- convolution: the properties ------------------------------------------------------------------------------------


class Convolution:
    """convjit's convolution as the properties below see it; a planted bug replaces one of its methods."""

    def forward(self, x, weight, bias, problem):
        return convjit.conv2d(x, weight, bias, **problem.options)

    def backward(self, dy, x, weight, problem):
        return convjit.conv2d_backward(dy, x, weight, **problem.options)


def forward_is_exact(convolution, case):
    problem = case.problem
    wanted = reference_conv2d(
        case.x.reshape(problem.batched_x_shape), case.weight, case.bias, **problem.reference_options
    )
    assert_array_equal(convolution.forward(case.x, case.weight, case.bias, problem), wanted.reshape(problem.y_shape))


def backward_is_exact(convolution, case):
    problem = case.problem
    dy, x = case.grad_output.reshape(problem.batched_y_shape), case.x.reshape(problem.batched_x_shape)
    wanted = reference_conv2d_backward(dy, x, case.weight, **problem.reference_options)
    got = convolution.backward(case.grad_output, case.x, case.weight, problem)
    for gradient, exact in zip(got, wanted, strict=True):
        assert_array_equal(gradient, exact.reshape(gradient.shape))


def input_is_adjoint(convolution, case):
    check_adjoint(
        lambda x: convolution.forward(x, case.weight, None, case.problem),
        lambda dy: convolution.backward(dy, case.x, case.weight, case.problem)[0],
        case.x,
        case.grad_output,
    )


def weight_is_adjoint(convolution, case):
    check_adjoint(
        lambda weight: convolution.forward(case.x, weight, None, case.problem),
        lambda dy: convolution.backward(dy, case.x, case.weight, case.problem)[1],
        case.weight,
        case.grad_output,
    )


def quotients_are_gradients(convolution, case):
    bias = np.zeros(len(case.weight)) if case.bias is None else case.bias
    check_gradients(
        lambda x, weight, b: convolution.forward(x, weight, b, case.problem),
        lambda dy, x, weight, _: convolution.backward(dy, x, weight, case.problem),
        [case.x, case.weight, bias],
        case.grad_output,
    )


PROPERTIES = [forward_is_exact, backward_is_exact, input_is_adjoint, weight_is_adjoint, quotients_are_gradients]


@pytest.mark.parametrize("check", PROPERTIES)
@settings(max_examples=30)
@given(case=conv2d_cases(**SMALL))
def test_the_properties_hold_without_a_bug(check, case):
    check(Convolution(), case)


# --- convolution: planted bugs --------------------------------------------------------------------------------------


def changed(problem, **options):
    """What convjit computes with other options, cut or filled to the right shape."""
    return {**problem.options, **options}


def fitted(array, shape):
    """The array cut or zero-filled to a shape."""
    result = np.zeros(shape, array.dtype)
    common = tuple(slice(0, min(a, b)) for a, b in zip(array.shape, shape, strict=True))
    result[common] = array[common]
    return result


class FlippedKernel(Convolution):
    def forward(self, x, weight, bias, problem):
        return super().forward(x, weight[:, :, ::-1, ::-1], bias, problem)


class PaddingOffByOne(Convolution):
    def forward(self, x, weight, bias, problem):
        return np.roll(super().forward(x, weight, bias, problem), 1, -1)


class SwappedPadding(Convolution):
    def forward(self, x, weight, bias, problem):
        options = changed(problem, padding=problem.pads[::-1], padding_mode="constant")
        room = tuple((p + 9, q + 9) for p, q in options["padding"])
        y = convjit.conv2d(x, weight, bias, **{**options, "padding": room, "stride": 1})[..., 9:, 9:]
        return fitted(y[..., :: problem.stride_pair[0], :: problem.stride_pair[1]], problem.y_shape)


class StrideOfHeightForWidth(Convolution):
    def forward(self, x, weight, bias, problem):
        sh = problem.stride_pair[0]
        y = convjit.conv2d(x, weight, bias, **changed(problem, stride=sh, padding=problem.pads))
        return fitted(y, problem.y_shape)


class NoDilation(Convolution):
    def forward(self, x, weight, bias, problem):
        return fitted(convjit.conv2d(x, weight, bias, **changed(problem, dilation=1, padding=problem.pads)),
                      problem.y_shape)  # fmt: skip


class GroupMixUp(Convolution):
    def forward(self, x, weight, bias, problem):
        return super().forward(np.roll(x, problem.weight_shape[1], -3), weight, bias, problem)


class MissingLastTap(Convolution):
    def forward(self, x, weight, bias, problem):
        weight = weight.copy()
        weight[..., -1, -1] = 0
        return super().forward(x, weight, bias, problem)


class NoBias(Convolution):
    def forward(self, x, weight, bias, problem):
        return super().forward(x, weight, None, problem)


class LastImageLost(Convolution):
    def forward(self, x, weight, bias, problem):
        y = super().forward(x, weight, bias, problem)
        if y.ndim == 4 and len(y) > 1:
            y[-1] = y[0]
        return y


class ConstantInsteadOfEdges(Convolution):
    def forward(self, x, weight, bias, problem):
        return convjit.conv2d(x, weight, bias, **changed(problem, padding_mode="constant"))


class RoundedToHalf(Convolution):
    def forward(self, x, weight, bias, problem):
        return super().forward(x, weight, bias, problem).astype(np.float16).astype(x.dtype) * (1 + 2.0**-30)


@pytest.mark.parametrize(
    "bug",
    [FlippedKernel, PaddingOffByOne, SwappedPadding, StrideOfHeightForWidth, NoDilation, GroupMixUp, MissingLastTap,
     NoBias, LastImageLost, ConstantInsteadOfEdges, RoundedToHalf],
)  # fmt: skip
def test_exactness_catches(bug):
    fails(lambda case: forward_is_exact(bug(), case), conv2d_cases())


@pytest.mark.parametrize(
    "bug",
    [FlippedKernel, PaddingOffByOne, MissingLastTap, StrideOfHeightForWidth, ConstantInsteadOfEdges, LastImageLost],
)
@pytest.mark.parametrize("check", [input_is_adjoint, weight_is_adjoint, quotients_are_gradients])
def test_gradient_checks_catch_a_wrong_forward(bug, check):
    fails(lambda case: check(bug(), case), conv2d_cases(**SMALL))


class WrongGradient(Convolution):
    """Breaks one gradient by a function of it and the case."""

    def __init__(self, index, spoil):
        self.index, self.spoil = index, spoil

    def backward(self, dy, x, weight, problem):
        gradients = list(super().backward(dy, x, weight, problem))
        gradients[self.index] = self.spoil(gradients[self.index], dy, x, weight, problem)
        return tuple(gradients)


def adjoint_with_wrong_dilation(_, dy, x, weight, problem):
    options = changed(problem, padding=0, dilation=1, padding_mode="constant")
    size = [(o - 1) * s + k for o, s, k in zip(problem.out_size, problem.stride_pair, problem.kernel, strict=True)]
    full = convjit.conv2d_input_grad(dy, weight, size, **options)
    (top, _), (left, _) = problem.pads
    return fitted(full[..., top:, left:], x.shape)


def adjoint_with_flipped_kernel(_, dy, x, weight, problem):
    return convjit.conv2d_input_grad(dy, weight[:, :, ::-1, ::-1], problem.image, **problem.options)


def padding_dropped_not_added(_, dy, x, weight, problem):
    """The gradient of the padding is cut off instead of being added to the pixels that it shows."""
    return convjit.conv2d_input_grad(dy, weight, problem.image, **changed(problem, padding_mode="constant"))


def lost_update(gradient, dy, *_):
    """A scatter of which one addition was lost."""
    gradient = gradient.copy()
    gradient.ravel()[-1] -= dy.ravel()[-1]
    return gradient


def without_one_image(gradient, dy, *_):
    return gradient - dy[-1].sum((-1, -2)) if dy.ndim == 4 and len(dy) > 1 else gradient


def mean_for_sum(gradient, dy, *_):
    return gradient / dy[..., 0, :, :].size


def doubled(gradient, *_):
    return 2 * gradient


def shifted_taps(gradient, *_):
    return np.roll(gradient, 1, -1)


def transposed_taps(gradient, *_):
    return gradient.swapaxes(-1, -2).copy() if gradient.shape[-1] == gradient.shape[-2] else gradient


def swapped_groups(gradient, *_):
    return np.roll(gradient, 1, 0)


WRONG = [
    (0, adjoint_with_wrong_dilation), (0, adjoint_with_flipped_kernel), (0, padding_dropped_not_added),
    (0, lost_update), (0, doubled), (0, shifted_taps), (1, shifted_taps), (1, transposed_taps), (1, swapped_groups),
    (1, lost_update), (1, mean_for_sum), (2, without_one_image), (2, mean_for_sum), (2, doubled),
]  # fmt: skip


@pytest.mark.parametrize(("index", "spoil"), WRONG)
def test_gradient_checks_catch(index, spoil):
    bug = WrongGradient(index, spoil)
    checks = [backward_is_exact, quotients_are_gradients, (input_is_adjoint, weight_is_adjoint, None)[index]]
    for check in filter(None, checks):
        fails(lambda case, check=check: check(bug, case), conv2d_cases(**SMALL))


def test_central_differences_catch_a_gradient_off_by_a_millionth():
    def check(case):
        def slightly_wrong(dy, _):
            gradient = convjit.conv2d_input_grad(dy, case.weight, case.problem.image, **case.problem.options)
            return (1.000001 * gradient,)

        check_gradients(
            lambda x: convjit.conv2d(x, case.weight, **case.problem.options),
            slightly_wrong,
            [case.x],
            case.grad_output,
            central=True,
            step=0.5,
            units=64,
            truncation=1e-12,
        )

    fails(check, conv2d_cases(values=real_arrays, **SMALL))


# --- columns, padding, pooling --------------------------------------------------------------------------------------


def adjoint_fails(forward, adjoint, x_shape, y_shape):
    arrays = st.tuples(exact_arrays(x_shape), exact_arrays(y_shape))
    fails(lambda pair: check_adjoint(forward, adjoint, *pair), arrays)


def test_a_scatter_that_loses_updates_is_caught():
    def scatter(columns):
        """`images[indices] += columns`, which keeps one of the values that meet in a pixel."""
        k, i, j = convjit.get_im2col_indices((1, 1, 4, 4), (2, 2), 0)
        image = np.zeros((1, 4, 4))
        image[k, i, j] += columns
        return image

    adjoint_fails(lambda x: convjit.im2col(x, 2), scatter, (1, 4, 4), (4, 9))


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
def test_a_padding_gradient_that_is_cut_off_is_caught(mode):
    adjoint_fails(lambda x: convjit.pad2d(x, 1, mode=mode), lambda dy: dy[..., 1:-1, 1:-1], (1, 3, 3), (1, 5, 5))


def test_one_padding_mode_for_another_is_caught():
    adjoint_fails(
        lambda x: convjit.pad2d(x, 1, mode="reflect"),
        lambda dy: reference_pad2d_backward(dy, ((1, 1), (1, 1)), "symmetric"),
        (1, 3, 3),
        (1, 5, 5),
    )


def test_sum_for_mean_is_caught():
    adjoint_fails(
        lambda x: convjit.avg_pool2d(x, 2),
        lambda dy: 4 * convjit.avg_pool2d_backward(dy, 4, 2),
        (1, 4, 4),
        (1, 2, 2),
    )


def test_a_tie_that_goes_to_the_last_maximum_is_caught():
    def check(pair):
        x, dy = pair
        _, indices = reference_max_pool2d(x[..., ::-1, ::-1], (2, 2), (2, 2))
        last = reference_max_pool2d_backward(dy[..., ::-1, ::-1], indices, (4, 4))[..., ::-1, ::-1]
        assert_array_equal(convjit.max_pool2d_backward(dy, x, 2), last)

    fails(check, st.tuples(exact_arrays((1, 1, 4, 4)), exact_arrays((1, 1, 2, 2))))


# --- the checks themselves ------------------------------------------------------------------------------------------


def stranger(x, weight):
    """A full correlation in one dimension, by NumPy."""
    return np.convolve(x, weight[::-1], "valid")


def strangers_gradients(dy, x, weight):
    return np.convolve(dy, weight, "full"), np.convolve(x, dy[::-1], "valid")


@given(x=exact_arrays(7), weight=exact_arrays(3), dy=exact_arrays(5))
def test_a_strangers_convolution_is_accepted(x, weight, dy):
    check_gradients(stranger, strangers_gradients, [x, weight], dy)
    check_adjoint(lambda a: stranger(a, weight), lambda g: strangers_gradients(g, x, weight)[0], x, dy)


@given(x=real_arrays(7), weight=real_arrays(3), dy=real_arrays(5))
def test_a_strangers_convolution_is_accepted_on_real_numbers(x, weight, dy):
    check_gradients(stranger, strangers_gradients, [x, weight], dy, central=True, units=64, truncation=1e-12)
    adjoint = strangers_gradients(dy, x, weight)[0]
    check_adjoint(lambda a: stranger(a, weight), lambda g: adjoint, x, dy, tolerance=1e-15)


def test_nan_is_never_right():
    with pytest.raises(AssertionError):
        check_adjoint(lambda x: x * np.nan, lambda y: y, np.ones(2), np.ones(2))
    with pytest.raises(AssertionError):
        check_gradients(lambda x: x, lambda dy, x: (dy * np.nan,), [np.ones(2)], np.ones(2))
    with pytest.raises(AssertionError, match="at \\(1,\\)"):
        assert_within_rounding(np.array([1.0, np.nan]), [1.0, 1.0], [1.0, 1.0], 1e9)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(AssertionError, match="shape"):
        assert_within_rounding(np.ones((2, 1)), np.ones(2), np.ones(2), 1)
    with pytest.raises(AssertionError, match="gradient of argument 0: got shape"):
        check_gradients(lambda x: x, lambda dy, x: (dy[:, None],), [np.ones(2)], np.ones(2))
    with pytest.raises(AssertionError, match="maps"):
        check_adjoint(lambda x: x.sum(keepdims=True), lambda y: y, np.ones(2), np.ones(1))
    with pytest.raises(AssertionError, match="1 gradients for 2 arguments"):
        check_gradients(stranger, lambda dy, x, w: (dy,), [np.ones(7), np.ones(3)], np.ones(5))


def test_rounding_errors_are_counted_in_units():
    unit = 2.0**-24
    got = np.array([1.0], np.float32)
    assert_within_rounding(got, [1 + 7.9 * unit], [1.0], 8)
    with pytest.raises(AssertionError, match=r"8\.1 units where 8 are allowed"):
        assert_within_rounding(got, [1 + 8.1 * unit], [1.0], 8)


def test_a_failure_prints_the_call():
    one = np.ones((1, 1, 1))
    case = Case(Problem((1, 1, 1), (1, 1, 1, 1), padding="same"), one, one[None], None, one)
    assert_array_equal(eval(repr(case), {"conv2d": convjit.conv2d, "np": np}), one)
