"""No operation reads or writes beside its arrays, and the guard pages that say so notice who does."""

import os
import weakref
from pathlib import Path

import guarded
import numpy as np
import pytest
import trials
from fresh import output
from guarded_calls import CALLS

SCRIPT = Path(__file__).with_name("guarded_calls.py")
pytestmark = pytest.mark.skipif(bool(guarded.REASON), reason=guarded.REASON)


def test_operations_stay_inside_their_arrays(share):
    seeds = range(share(1_500, 20_000))
    report = trials.run(SCRIPT, seeds, timeout=120)
    if report.findings:
        pytest.fail(f"{report.summary()}\n{report.details()}", pytrace=False)
    assert report.counts["unharmed"] == len(seeds)


TINY_IMAGES = """
    import guarded
    import numpy as np
    import convjit

    room = guarded.Guarded(at_end=True)
    for dtype in (np.float32, np.float64):
        for images, channels, rows in ((2, 1, 1), (3, 1, 1), (2, 2, 1), (3, 1, 2), (2, 1, 3), (5, 1, 1)):
            for columns in range(1, 18):
                for kernel in (1, 2):
                    if kernel <= min(rows, columns):
                        x = room.full((images, channels, rows, columns), 1, dtype)
                        weight = np.ones((3, channels, kernel, kernel), dtype)
                        y = convjit.conv2d(x, weight, algorithm="implicit")
                        assert (y == channels * kernel * kernel).all()
    print(room.overwritten())
"""


def test_images_of_less_than_a_vector_are_not_read_beyond_the_last_one():
    """Behind the last but one there are fewer pixels than fill a vector."""
    path = os.pathsep.join(filter(None, (str(SCRIPT.parent), os.environ.get("PYTHONPATH"))))
    assert output(TINY_IMAGES, PYTHONPATH=path) == "0"


@pytest.mark.parametrize("plant", ["read behind", "read before"])
def test_a_read_beside_an_array_ends_the_process(plant):
    report = trials.run(SCRIPT, range(6, 9), workers=1, timeout=120, plant=plant)
    assert list(report.findings) == [7]
    assert "SIGSEGV" in report.findings[7] or "SIGBUS" in report.findings[7]
    assert report.counts["unharmed"] == 2


def test_a_workspace_that_is_too_short_is_found():
    report = trials.run(SCRIPT, range(18), timeout=120, plant="short workspace")
    assert any("SIGSEGV" in text or "SIGBUS" in text for text in report.findings.values()), report.summary()


@pytest.mark.parametrize(
    ("plant", "says"), [("stray write", "an array's neighbourhood was written to"), ("other bits", "other bits")]
)
def test_a_planted_fault_is_found(plant, says):
    report = trials.run(SCRIPT, range(len(CALLS)), timeout=120, plant=plant)  # each function once
    assert any(text.startswith(says) for text in report.findings.values()), report.summary()


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("shape", [(3,), (0,), (2, 5, 7), (4096,), (1, 4097)])
def test_guarded_arrays_are_ordinary_arrays_full_of_nan(shape, at_end):
    room = guarded.Guarded(at_end)
    array = room.empty(shape, np.float32)
    assert array.shape == shape
    assert np.isnan(array).all()
    assert array.flags.c_contiguous
    assert array.flags.aligned
    array[...] = 1
    assert room.overwritten() == 0


def test_guarded_arrays_give_their_memory_back():
    room = guarded.Guarded(at_end=True)
    array = room.empty((3,))
    view, memory = array[:2], weakref.ref(array.base)
    assert room.overwritten() == 0
    del array
    assert memory() is not None
    del view
    assert memory() is None
