"""What failures of the checks say: where, what was got, what was wanted, of which arrays."""

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

from convjit.testing import assert_within_rounding, check_adjoint, check_gradients, exact_arrays, real_arrays
from convjit.testing.checks import largest_difference

WHOLE = np.arange(1.0, 4)


def says(call, error=AssertionError):
    with pytest.raises(error) as failure:
        call()
    return str(failure.value)


def test_a_wrong_adjoint_is_traced_to_its_entry():
    def adjoint(y):
        back = 2 * y
        back[1] += 5
        back[2] += 7
        return back

    said = says(lambda: check_adjoint(lambda x: 2 * x, adjoint, WHOLE, WHOLE))
    assert "<forward(x), y> = 28.0 but <x, adjoint(y)> = 59.0" in said
    assert "2 of 3 entries of adjoint(y) are wrong, most at (2,): got 13.0, wanted 6.0" in said
    assert said.endswith("x = np.array([1.0, 2.0, 3.0], 'float64'), y = np.array([1.0, 2.0, 3.0], 'float64')")


def test_a_bias_is_no_mystery():
    said = says(lambda: check_adjoint(lambda x: x + 1, lambda y: y, WHOLE, WHOLE))
    assert "forward(0) is not 0, so forward is not linear: leave a bias out" in said


def test_large_arrays_are_described():
    x = np.ones((3, 400), np.float32)
    said = says(lambda: check_adjoint(lambda x: 2 * x, lambda y: y, x, x))
    assert said.endswith("x = float32 (3, 400), y = float32 (3, 400)")
    assert "entries" not in said  # too many to try each


@given(x=real_arrays((2, 3), "complex128"), y=real_arrays((2, 2), "complex128"))
def test_complex_adjoints_are_conjugated(x, y):
    factor = np.array([[1 + 2j, 3, -1j], [0, 1, 2]])
    check_adjoint(lambda x: x @ factor.T, lambda y: y @ factor.conj(), x, y, tolerance=1e-15)
    ones = np.ones((2, 3)), np.ones((2, 2))
    said = says(lambda: check_adjoint(lambda x: x @ factor.T, lambda y: y @ factor, *ones))
    assert "most at (0, 0): got (1+2j), wanted (1-2j)" in said


def test_the_gradient_that_is_furthest_off_is_named():
    def gradients(dy, x, w):
        return dy * w, dy * x + np.array([0, 1, -2])

    said = says(lambda: check_gradients(np.multiply, gradients, [WHOLE, WHOLE], np.ones(3)))
    assert said.startswith(
        "gradient of argument 1 is wrong in 2 of 3 entries, most at (2,): got 1.0, but the difference quotient is 3.0"
    )
    assert "grad_output np.array([1.0, 1.0, 1.0], 'float64')" in said
    assert "central" not in said


def test_nan_is_furthest_off():
    said = says(lambda: check_gradients(np.positive, lambda dy, x: (np.array([9, np.nan, 1]),), [WHOLE], np.ones(3)))
    assert "in 2 of 3 entries, most at (1,): got nan" in said


def test_who_compares_rounded_numbers_exactly_is_told():
    x, w = WHOLE / 7, WHOLE / 3
    said = says(lambda: check_gradients(np.multiply, lambda dy, x, w: (dy * w, dy * x), [x, w], np.ones(3)))
    assert "not all of the numbers are integers" in said
    assert "central=True" in said


def smooth(x, w):
    return np.tanh(x) * w**2


def smooth_gradients(dy, x, w):
    return dy * w**2 / np.cosh(x) ** 2, dy * 2 * w * np.tanh(x)


@given(x=real_arrays(4), w=real_arrays(4), dy=real_arrays(4))
def test_central_differences_of_a_smooth_function_need_no_numbers(x, w, dy):
    check_gradients(smooth, smooth_gradients, [x, w], dy, central=True)


@given(x=real_arrays(4, "float32"), w=real_arrays(4, "float32"), dy=real_arrays(4, "float32"))
def test_central_differences_in_float32(x, w, dy):
    check_gradients(smooth, smooth_gradients, [x, w], dy, central=True)


@pytest.mark.parametrize(("dtype", "error"), [("float64", 1e-7), ("float32", 3e-2)])
@pytest.mark.parametrize("which", [0, 1])
def test_central_differences_see_a_small_mistake(which, dtype, error):
    def wrong(dy, x, w):
        gradients = list(smooth_gradients(dy, x, w))
        gradients[which] = gradients[which] * (1 + error)
        return gradients

    x, w = np.array([0.3, -0.7], dtype), np.array([0.9, 1.1], dtype)
    said = says(lambda: check_gradients(smooth, wrong, [x, w], np.ones(2, dtype), central=True))
    assert f"gradient of argument {which} is wrong in 2 of 2 entries" in said


def test_what_cannot_be_differentiated():
    said = says(lambda: check_gradients(abs, lambda dy, x: (dy,), [np.arange(3)], np.ones(3), central=True), TypeError)
    assert said == "check_gradients: central differences need floating arrays, argument 0 is int64"
    said = says(lambda: check_gradients(np.positive, lambda dy, x: (dy,), [WHOLE], np.ones(2)))
    assert said == "grad_output has shape (2,), but the function returns (3,)"


@given(x=exact_arrays(3, "int64"), dy=exact_arrays(3, "int64"))
def test_integers_of_any_dtype_are_differentiated_exactly(x, dy):
    check_gradients(lambda x: 3 * x, lambda dy, x: (3 * dy,), [x], dy)


def test_rounding_of_complex_numbers_is_counted():
    got = np.array([1 + 1j])
    assert_within_rounding(got, [1 + 1j + 1e-16j], [1.5], 1)
    said = says(lambda: assert_within_rounding(got, [1 + 2j], [1.5], 1))
    assert re.fullmatch(r"at \(0,\): got \(1\+1j\), wanted \(1\+2j\), an error of .* allowed; 1 of 1 is wrong", said)


def test_only_what_rounds_has_rounding_errors():
    said = says(lambda: assert_within_rounding(np.ones(2, int), np.ones(2), np.ones(2), 1), TypeError)
    assert said == "assert_within_rounding: got must be floating or complex, not int64"


# --- functions with habits ------------------------------------------------------------------------------------------


def doubled_in_place(x):
    x *= 2
    return x


@pytest.mark.parametrize(
    "call",
    [
        lambda x, y: check_adjoint(lambda x: x.copy(), doubled_in_place, x, y),
        lambda x, y: check_adjoint(doubled_in_place, lambda y: y.copy(), x, y),
        lambda x, y: check_gradients(lambda x: 3 * x, lambda dy, x: (3 * doubled_in_place(dy),), [x], y),
        lambda x, y: check_gradients(doubled_in_place, lambda dy, x: (2 * dy,), [x], y),
        lambda x, y: check_gradients(lambda x: x * x, lambda dy, x: (dy * doubled_in_place(x),), [x], y, central=True),
    ],
)
def test_functions_that_write_into_their_arguments_fail(call):
    assert re.match(r"\w+ changes its argument \d: got np.array", says(lambda: call(WHOLE.copy(), WHOLE.copy())))


def test_a_function_may_return_the_same_buffer_each_time():
    room = np.empty(3)

    def times(factor):
        return lambda x: np.multiply(x, factor, out=room)

    check_adjoint(times(3), times(3), WHOLE, np.array([1.0, 0.0, 2.0]))
    says(lambda: check_adjoint(times(3), times(5), WHOLE, WHOLE))
    check_gradients(times(3), lambda dy, x: (times(3)(dy),), [WHOLE], WHOLE)
    says(lambda: check_gradients(times(3), lambda dy, x: (0 * dy,), [WHOLE], WHOLE))


@pytest.mark.parametrize(
    ("function", "at", "options", "told"),
    [
        (np.log, 2.0**-7, {}, "the function is not finite there; give a smaller step"),
        (np.exp, 88.715, {"step": 2.0**-8}, "is wrong in 1"),
        (np.exp, 88.715, {}, "the function is not finite there; give a smaller step"),
        # Infinite at the near ends, finite at the far ones.
        (np.reciprocal, 0.5, {"step": 0.5}, "the function is not finite there"),
        (np.reciprocal, 0.5, {"step": 0.5, "truncation": 0.0}, "the function is not finite there"),
    ],
)
def test_central_differences_near_the_end_of_what_is_finite(function, at, options, told):
    x, dy = np.array([at], np.float32), np.ones(1, np.float32)
    with np.errstate(all="ignore"):
        said = says(lambda: check_gradients(function, lambda dy, x: (1e6 * dy,), [x], dy, central=True, **options))
    assert told in said


@pytest.mark.parametrize(
    ("at", "dtype"), [(255.0, "float32"), (-4000.0, "float32"), (1e6, "float32"), (1e12, "float64")]
)
def test_steps_grow_with_the_numbers(at, dtype):
    """Beside a small step large numbers round so much that any gradient would do."""
    x, dy = np.array([at, 0.5], dtype), np.ones(2, dtype)
    check_gradients(lambda x: 3 * x, lambda dy, x: (3 * dy,), [x], dy, central=True)
    check_gradients(lambda x: x * x, lambda dy, x: (2 * x * dy,), [x], dy, central=True)
    said = says(lambda: check_gradients(lambda x: 3 * x, lambda dy, x: (dy * [4, 3],), [x], dy, central=True))
    assert "is wrong in 1 of 2 entries, most at (0,)" in said


def test_infinities_allow_nothing():
    x, y = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    with np.errstate(all="ignore"):
        assert "not adjoint" in says(lambda: check_adjoint(lambda x: x * np.inf, lambda y: 3 * y, x, y, tolerance=1e-6))
    assert "an error of inf units" in says(lambda: assert_within_rounding(np.array([1.0]), [1.5], [np.inf], 1))
    assert_within_rounding(np.array([1.0]), [1.0], [np.inf], 1)


def test_lists_are_arrays_for_gradients():
    check_gradients(lambda x: 2 * np.asarray(x), lambda dy, x: (2 * np.asarray(dy),), [[1.0, 2.0]], [1.0, 1.0])
    check_adjoint(lambda x: 2 * x, lambda y: 2 * y, [1, 2], [3, 4])


def test_one_array_is_no_list_of_arrays():
    x = np.array([1.0, 2.0])
    said = says(lambda: check_gradients(np.square, lambda dy, x: (2 * dy * x,), x, x, central=True), TypeError)
    assert said == "check_gradients: arrays must be a list, with one array for each argument, got one array"
    said = says(lambda: check_gradients(np.square, lambda dy, x: (2 * dy * x,), 3.0, 1.0, central=True), TypeError)
    assert said == "check_gradients: arrays must be a list, with one array for each argument, got float"
    said = says(lambda: check_gradients(np.square, lambda dy, x: 2 * dy * x, [x], x, central=True))
    assert said == "gradients returned one array, not a tuple of as many as arguments, 1"


@pytest.mark.filterwarnings("error")
def test_results_are_copied_as_arrays():
    """NumPy warns where `__array__` takes no `copy`, as PyTorch's does not."""

    class Tensor:
        def __init__(self, values):
            self.values = values

        def __array__(self, dtype=None):
            return self.values

    x = np.array([1.0, 2.0])
    check_gradients(lambda x: Tensor(2 * x), lambda dy, x: (Tensor(2 * dy),), [x], x)
    check_adjoint(lambda x: Tensor(2 * x), lambda y: Tensor(2 * y), x, x)


@pytest.mark.parametrize("dtype", ["bool", "complex128"])
def test_gradients_are_checked_of_real_numbers(dtype):
    x = np.ones(2, dtype)
    said = says(lambda: check_gradients(lambda x: x, lambda dy, x: (dy,), [x], x), TypeError)
    assert said == f"check_gradients: arrays must be real numbers, argument 0 is {dtype}"


# --- what may be allowed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [float("nan"), -1.0])
@pytest.mark.parametrize(
    ("function", "name", "call"),
    [
        ("check_adjoint", "tolerance", lambda allowed: check_adjoint(doubled, doubled, 1, 1, tolerance=allowed)),
        ("assert_within_rounding", "units", lambda allowed: assert_within_rounding(WHOLE, WHOLE, WHOLE, allowed)),
        ("check_gradients", "units", lambda allowed: check_wrong_gradients(units=allowed)),
        ("check_gradients", "units", lambda allowed: check_wrong_gradients(units=allowed, central=True)),
        ("check_gradients", "truncation", lambda allowed: check_wrong_gradients(truncation=allowed)),
        ("check_gradients", "truncation", lambda allowed: check_wrong_gradients(truncation=allowed, central=True)),
    ],
)
def test_nothing_negative_nor_nan_is_allowed(function, name, call, allowed):
    said = says(lambda: call(allowed), ValueError)
    assert said == f"{function}: {name} must be 0 or more, got {allowed}"


def doubled(x):
    return 2 * x


def check_wrong_gradients(**options):
    check_gradients(doubled, lambda dy, x: (3 * dy,), [WHOLE], WHOLE, **options)


def test_where_nan_is_allowed_everything_is_wrong():
    one = np.ones(1)
    assert largest_difference(one, one, np.array([np.nan])) == ((0,), 1)


# --- Python's own numbers -------------------------------------------------------------------------------------------

THIRDS = np.array([Fraction(1, 3), Fraction(2)], object)


@pytest.mark.parametrize("x", [THIRDS, np.array([1, 2], object), np.array([0.5, 2.0], object)])
def test_checks_of_python_numbers(x):
    check_adjoint(doubled, doubled, x, x)
    assert "2 of 2 entries of adjoint(y) are wrong, most at (" in says(
        lambda: check_adjoint(doubled, np.square, x, 5 + x)
    )
    check_gradients(doubled, lambda dy, x: (2 * dy,), [x], x)
    said = says(lambda: check_gradients(doubled, lambda dy, x: (3 * dy,), [x], x))
    assert said.startswith("gradient of argument 0 is wrong in 2 of 2 entries, most at (1,): got 6")
    assert "central" not in said


def test_differences_of_fractions_are_fractions():
    check_gradients(np.multiply, lambda dy, x, w: (dy * w, dy * x), [THIRDS, THIRDS], THIRDS)
    said = says(lambda: check_gradients(doubled, lambda dy, x: (dy,), [THIRDS], THIRDS))
    assert "got 2, but the difference quotient is 4" in said
    off = np.array([Fraction(2, 3) + Fraction(1, 10**30), 4], object)
    says(lambda: check_gradients(doubled, lambda dy, x: (off,), [THIRDS], THIRDS))


def test_only_what_rounds_is_allowed_units():
    said = says(lambda: check_gradients(doubled, lambda dy, x: (3 * dy,), [np.arange(2)], np.ones(2, int), units=1))
    assert "(allowed error 0.0)" in said


def test_gradients_may_be_python_numbers():
    wrong = np.array([1, 2, Fraction(1, 3)], object)
    said = says(lambda: check_gradients(np.positive, lambda dy, x: (wrong,), [WHOLE], np.ones(3)))
    assert "most at (1,): got 2, but the difference quotient is 1.0" in said


@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize("step", [0, -1, float("inf"), float("nan")])
def test_a_step_leads_somewhere(step, central):
    said = says(
        lambda: check_gradients(doubled, lambda dy, x: (2 * dy,), [WHOLE], WHOLE, step=step, central=central),
        ValueError,
    )
    assert said == f"check_gradients: step must be positive and finite, got {step}"


@pytest.mark.parametrize(
    ("returned", "told"), [(None, "NoneType"), (3, "int"), (np.float64(3), "float64"), (np.array(3.0), "one array")]
)
def test_gradients_that_are_no_tuple(returned, told):
    said = says(lambda: check_gradients(doubled, lambda dy, x: returned, [WHOLE], WHOLE))
    assert said == f"gradients returned {told}, not a tuple of as many as arguments, 1"
