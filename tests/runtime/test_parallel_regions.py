"""What runs inside parallel loops, read from the compiled code: nothing there allocates.

An allocation that fails inside one is lost by Numba: the loop returns unwritten output as if all were well.
"""

from __future__ import annotations

import numpy as np
import plain_samples
import pytest
from fresh import output

from convjit.runtime.compile import DRIVERS, Driver
from convjit.runtime.launch import launch

READ = r"""
    import re
    import numpy as np
    import convjit
    from convjit.runtime import contention, emitting, threads, turns
    from convjit.runtime.compile import DRIVERS, driver
    from convjit.runtime.launch import launch

    ALLOCATORS = re.compile(r"NRT_(Allocate|MemInfo_(alloc|new)|Reallocate)|\b(malloc|calloc|realloc)\b")
    CALL, DEFINITION = r'(?:call|invoke)[^@]*@("?[^"(\s]+"?)\(', r'define .*?@("?[^"(]+"?)\('

    # Of plain code: what each module calls by name that is neither its own nor LLVM's.
    strangers = set()
    optimised = emitting._optimised

    def read(*arguments):
        module = optimised(*arguments)
        ours = set(re.findall(DEFINITION, str(module)))
        called = set(re.findall(CALL, str(module)))
        strangers.update(name for name in called - ours if not name.startswith("llvm."))
        return module

    emitting._optimised = read

    def called_inside(ir):
        '''Names of all functions that are reached from the bodies of parallel loops.'''
        calls, current = {}, None
        for line in ir.splitlines():
            definition = re.match(DEFINITION, line)
            if definition:
                current = calls.setdefault(definition.group(1), set())
            elif line.startswith("}"):
                current = None
            elif current is not None:
                current.update(re.findall(CALL, line))
        todo, seen = [name for name in calls if "parfor" in name], set()
        assert todo, "no parallel loop in this code"
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo.extend(calls.get(name, ()))
        return seen

    def allocators(function):
        '''What a function that Numba compiled calls in its parallel loop to allocate.'''
        assert function.signatures, function
        names = set().union(*(called_inside(function.inspect_llvm(signature)) for signature in function.signatures))
        return sorted(name for name in names if ALLOCATORS.search(name))
"""

EVERY_DRIVER = (
    READ
    + """
    threads.SERIAL_BELOW_NS = 0
    contention.are_free = lambda: True  # whatever else runs here: some drivers are a team's
    ours = list(DRIVERS)
    x, weight = np.ones((2, 4, 12, 12), "f4"), np.ones((4, 4, 3, 3), "f4")
    for algorithm in ("direct", "implicit", "reference"):
        y = convjit.conv2d(x, weight, np.ones(4, "f4"), padding=1, algorithm=algorithm)
        convjit.conv2d_backward(y, x, weight, padding=1, algorithm=algorithm)
    for algorithm in ("direct", "implicit"):  # band by band
        convjit.conv2d(np.ones((9, 4, 12, 12), "f4"), weight, padding=1, algorithm=algorithm)
    convjit.conv2d(x, np.ones((4, 4, 1, 1), "f4"), algorithm="direct")  # in place
    convjit.conv2d(np.ones((1, 20000, 2, 2), "f4"), np.ones((1, 20000, 1, 1), "f4"))  # a long sum
    for algorithm in ("direct", "implicit"):  # phase by phase
        convjit.conv2d_input_grad(x, weight, 25, stride=2, algorithm=algorithm)
    convjit.conv2d_input_grad(x, weight, 36, stride=3, algorithm="patches")
    for channels in (4, 64):  # pixels as lanes, and channels
        many, filters = np.ones((2, channels, 12, 12), "f4"), np.ones((channels, 1, 3, 3), "f4")
        y = convjit.conv2d(many, filters, np.ones(channels, "f4"), 1, 1, 1, channels, algorithm="depthwise")
        convjit.conv2d_backward(y, many, filters, 1, 1, 1, channels, algorithm="depthwise")
    # Winograd's: with weights transformed in each task, and before all; one block, and several.
    few, many = np.ones((1, 32, 28, 28), "f4"), np.ones((1, 32, 120, 120), "f4")
    weight = np.ones((32, 32, 3, 3), "f4")
    for images in (few, many):
        convjit.conv2d(images, weight, padding=1, algorithm="winograd")
        convjit.conv2d(images, weight, padding=1, stride=2, algorithm="winograd")
        convjit.conv2d_weight_grad(images, images, 3, padding=1, algorithm="winograd")
    convjit.col2im(convjit.im2col(x, 2), 12, 2)
    convjit.pad2d_backward(convjit.pad2d(x, 1, mode="edge"), 1, mode="edge")
    y = convjit.max_pool2d(x, 2)
    convjit.max_pool2d_backward(y, x, 2)
    convjit.avg_pool2d_backward(convjit.avg_pool2d(x, 2), 12, 2)
    names = (
        "conv2d_backward", "conv3d", "conv3d_backward", "im2col3d", "col2im3d", "max_pool3d", "max_pool3d_backward",
        "avg_pool3d", "avg_pool3d_backward", "max_pool2d", "max_pool2d_backward", "avg_pool2d", "avg_pool2d_backward",
        "conv_transpose2d_backward", "Activation", "BatchNormalization", "Dense", "SGD", "Adagrad", "Adadelta",
        "RMSprop", "Adam", "AdamW",
    )
    convjit.warmup(names, dtypes=["float32"])
    from convjit.algorithms import averaging, bias
    averaging.means.DTYPES = ()
    convjit.avg_pool2d(x, 2)  # window by window, as compiled callers have it
    convjit.avg_pool3d(x[None], 2)
    launch(bias._bias_grad, 2, 1, 0, 0, 4, np.ones((1, 4, 4), "f4"), np.empty(4, "f4"))  # compiled callers have it
    for pool in (convjit.max_pool2d, convjit.max_pool3d):
        pool(np.ones((2, 4, 12, 12), "u8"), 2)  # which plain code does not take
    print([each.__name__ for each in ours if not each._ways])
    print(sorted(strangers))
    numbas = [each.twins.parallel for each in ours if "parallel" in each.twins._made]
    print(len(numbas), [name for each in (turns.work_in_team(), *numbas) for name in allocators(each)])
"""
)


def test_nothing_allocates_inside_a_parallel_loop():
    unused, strangers, numbas = output(EVERY_DRIVER, NUMBA_NUM_THREADS="2", CONVJIT_CACHE="0").splitlines()
    assert unused == "[]"
    assert strangers == "[]"
    assert numbas == "2 []"


PLANTED = (
    READ
    + """
    @driver
    def planted(task, worker, y):
        room = np.zeros(task + 1)
        y[task] = room.sum()

    planted.twins.run(2, 0, 10, (np.zeros(10),))
    print(len(allocators(planted.twins.parallel)) > 0)
"""
)


def test_the_reading_finds_an_allocation():
    assert output(PLANTED, NUMBA_NUM_THREADS="2", CONVJIT_CACHE="0") == "True"


def test_plain_code_that_allocates_is_not_compiled():
    launched = Driver(plain_samples.allocating)
    with pytest.raises(AssertionError, match="memory that is not on the stack"):
        launch(launched, 2, 10, 1, np.zeros(10))
    y = np.zeros(10)
    launched.twins.run(1, 0, 10, (y,))
    assert y.tolist() == [*range(1, 11)]


def test_twins_have_names_of_their_own():
    """Numba's cache key knows functions and signatures, not compile flags."""
    twins = [twin.py_func for driver in DRIVERS for twin in (driver.twins.serial, driver.twins.parallel)]
    assert len({(twin.__module__, twin.__qualname__) for twin in twins}) == len(twins)
