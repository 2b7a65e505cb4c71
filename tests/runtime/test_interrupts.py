"""Ctrl-C: it arrives while a long call runs, and leaves layers as they were before or after a whole step."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from fresh import output, report_lines
from hypothesis import given
from hypothesis import strategies as st

from convjit.runtime.launch import in_pieces
from convjit.runtime.tiles import tile, tiling

# Each takes half a second or more, on one core at least.
LONG_CALLS = {
    "conv2d": "conv2d(ones(4, 64, 256, 256), ones(64, 64, 3, 3), padding=1)",
    "conv2d, one channel": "conv2d(ones(1, 1, 3000, 3000), ones(1, 1, 15, 15))",
    "conv2d, one row": "conv2d(ones(1, 1, 1, 1 << 22), ones(1, 1, 1, 1001))",
    "conv2d, integers": "conv2d(ones(2, 32, 256, 256, 'i4'), ones(32, 32, 3, 3, 'i4'))",
    "conv2d, complex": "conv2d(ones(2, 32, 256, 256, 'c8'), ones(32, 32, 3, 3, 'c8'))",
    "conv2d, reference": "conv2d(ones(1, 16, 256, 256), ones(16, 16, 3, 3), algorithm='reference')",
    "conv2d, many terms": "conv2d(ones(12, 1 << 15, 12, 12), ones(32, 1 << 15, 3, 3))",
    "input gradient": "conv2d_input_grad(ones(2, 64, 384, 384), ones(64, 64, 3, 3), 384, padding=1)",
    "input gradient, stride 2": "conv2d_input_grad(ones(4, 64, 256, 256), ones(64, 64, 3, 3), 513, 2)",
    "weight gradient": "conv2d_weight_grad(ones(4, 64, 256, 256), ones(4, 64, 256, 256), 3, padding=1)",
    "weight gradient, one weight": "conv2d_weight_grad(PLANE, PLANE, 1, algorithm='reference')",
    "bias gradient": "[conv2d_backward(ones(4, 64, 512, 512), ones(4, 1, 512, 512), ones(64, 1, 1, 1), need=(0, 0, 1))"
    " for _ in range(20)]",
    "transposed": "conv_transpose2d(ones(4, 64, 256, 256), ones(64, 64, 3, 3), ones(64))",
    "im2col": "[im2col(ones(1, 16, 700, 700), 3) for _ in range(4)]",
    "col2im": "[col2im(ones(1, 144, 1 << 20), 1024, 3, padding=1) for _ in range(4)]",
    "pad2d": "[pad2d(ones(1, 64, 1024, 1024), 5, mode='reflect') for _ in range(2)]",
    "pad2d_backward": "[pad2d_backward(ones(1, 64, 1024, 1024), 5, mode='reflect') for _ in range(2)]",
    "max_pool2d": "max_pool2d(ones(1, 64, 256, 256), 15, 1, 7)",
    "max_pool2d_backward": "[max_pool2d_backward(PLANE, PLANE, 1) for _ in range(2)]",
    "avg_pool2d": "avg_pool2d(ones(4, 64, 256, 256), 15, 1, 7)",
    "avg_pool2d_backward": "avg_pool2d_backward(ones(1, 64, 256, 256), 256, 7, 1, 3)",
    "a converted giant": "[conv2d(ones(1, 1, 1 << 14, 1 << 13, 'f2'), ones(1, 1, 1, 1, 'f2')) for _ in range(4)]",
    "a transposed giant": "[conv2d(ones(1, 1, 1 << 14, 1 << 13).swapaxes(2, 3), ones(1, 1, 1, 1)) for _ in range(4)]",
    "a layer": "step(Conv2D(64, (3, 3), input_shape=(64, 256, 256), dtype='f4', rng=0), ones(1, 64, 256, 256))",
    "a dense layer": "step(Dense(4096, input_shape=(4096,), dtype='f4', rng=0), ones(4096, 4096))",
    "batch normalisation": "step(BatchNormalization(), ones(4, 64, 512, 512))",
    "an activation": "step(Activation('softmax'), ones(1 << 18, 256))",
}

# Ctrl-C comes with the fifth piece of work, whatever does it: a kernel, a NumPy pass, a product by BLAS. One call
# is one line of the report, so that a call that ends the process, or never ends, is the first without its line.
PROGRAM = """
import json, signal, sys
from functools import cache
import numpy as np
import convjit
from convjit import arrays
from convjit.layers import slices
from convjit.runtime import launch
from convjit.runtime.loops import Loop

@cache
def ones(*shape):
    dtype = "f4"
    if isinstance(shape[-1], str):
        *shape, dtype = shape
    return np.ones(shape, dtype)

def step(layer, x):
    if layer.input_shape is None:
        layer.set_input_shape(x.shape[1:])
    if hasattr(layer, "initialize"):
        layer.initialize(convjit.SGD(0.01))
    layer.backward_pass(layer.forward_pass(x))

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell has put in the background
pieces = 0

def piece(run):
    def counted(*arguments, **options):
        global pieces
        pieces += 1
        if pieces == 5:
            signal.raise_signal(signal.SIGINT)
        return run(*arguments, **options)
    return counted

launch.PIECE_NS = 1  # as many pieces as tasks allow, whatever the speed of the machine
Loop.run = piece(Loop.run)
np.matmul = piece(np.matmul)
in_pieces, cuts = arrays.in_pieces, slices.cuts
arrays.in_pieces = lambda run, *rest: in_pieces(piece(run), *rest)
slices.cuts = lambda *shape, **keep: map(piece(lambda where: where), cuts(*shape, **keep))

for name, text in json.loads(sys.argv[1]).items():
    ones.cache_clear()  # hundreds of megabytes a call
    names = dict(vars(convjit), ones=ones, step=step)
    if "PLANE" in text:
        names["PLANE"] = ones(1, 1, 1 << 13, 1 << 13)
    call = compile(text, "call", "eval")  # an interrupt in a string that `eval` compiles ends the process
    pieces = 0
    try:
        eval(call, names)
        ending = "to its end"
    except KeyboardInterrupt:
        ending = "interrupted"
    print(json.dumps([name, f"{ending} {pieces}"]), flush=True)
"""


@cache
def endings(threads: str) -> dict[str, str]:
    """How each long call ends, on so many threads: all in one process, as an import takes longer than most calls."""
    return report_lines(PROGRAM, LONG_CALLS, NUMBA_NUM_THREADS=threads)


@pytest.mark.parametrize("call", LONG_CALLS)
def test_a_long_call_is_interrupted_between_two_pieces(call, share):
    """How long that takes is measured by `python -m bench.peace`."""
    for threads in share("2", "12"):
        assert endings(threads)[call] == "interrupted 5"


@given(st.integers(0, 500), st.floats(0, 1e10))
def test_pieces_cover_every_task_once(tasks, nanoseconds):
    done = []
    in_pieces(lambda first, stop: done.extend(range(first, stop)), tasks, nanoseconds)
    assert done == list(range(tasks))


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.floats(1, 1e6))
def test_tiles_cover_every_pixel_once(planes, height, width, cost):
    tiles = tiling(height, width, cost)
    hits = np.zeros((planes, height, width), int)
    for task in range(planes * tiles.a_plane):
        plane, top, bottom, left, right = tile(task, height, width, tiles.rows, tiles.cols)
        hits[plane, top:bottom, left:right] += 1
    assert (hits == 1).all()


def test_giant_rows_and_columns_are_cut():
    for height, width in ((1, 1 << 30), (1 << 30, 1), (1 << 15, 1 << 15)):
        tiles = tiling(height, width)
        assert tiles.rows * tiles.cols <= 1 << 16
        assert tiles.a_plane * tiles.rows * tiles.cols >= 1 << 30


TRAINING = """
import copy, hashlib, pickle, random, signal, sys
import numpy as np
import convjit

rng = np.random.default_rng(0)
x, labels = rng.normal(size=(8, 1, 8, 8)), rng.integers(0, 3, 8)

class Momentum:
    '''A foreign optimizer, which writes into its state and into the weights.'''
    def __init__(self):
        self.velocity, self.steps = None, 0
    def update(self, w, grad):
        if self.velocity is None:
            self.velocity = np.zeros_like(w)
        self.velocity *= 0.9
        self.velocity += grad
        self.steps += 1
        w -= 0.01 * self.velocity
        return w

def network(optimizer):
    model = convjit.Sequential(optimizer=optimizer, loss="cross_entropy")
    for layer in (
        convjit.Conv2D(4, (3, 3), input_shape=(1, 8, 8), rng=0), convjit.BatchNormalization(),
        convjit.Activation("relu"), convjit.MaxPooling2D((2, 2), stride=2), convjit.Flatten(),
        convjit.Dense(3, rng=1), convjit.Activation("softmax"),
    ):
        model.add(layer)
    return model

def digest(model):
    kept = [model.layers[1].running_mean, model.layers[1].running_var]
    for layer in model.layers:
        for name in layer.weight_names:
            kept.append(getattr(layer, name))
            kept += [value for _, value in sorted(vars(getattr(layer, name + "_opt")).items())]
    parts = (part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode() for part in kept)
    return hashlib.sha256(b"|".join(parts)).hexdigest()

def interrupted_training(optimizer, interrupts):
    model, twin = network(optimizer), network(optimizer)
    # The digest after each number of whole steps; the twin is trained as far as it is needed.
    whole = {digest(twin): 0}
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    seen, reached = 0, 0
    random.seed(1)
    while seen < interrupts:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 4e-3))
            for _ in range(20):
                model.train_on_batch(x, labels)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            seen += 1
        while digest(model) not in whole and len(whole) < reached + 30:
            twin.train_on_batch(x, labels)
            whole[digest(twin)] = len(whole)
        assert digest(model) in whole, f"not as after any whole step, after {seen} interrupts"
        reached = whole[digest(model)]
    return reached

network(convjit.Adam(1e-4)).train_on_batch(x, labels)
print(*(interrupted_training(each, int(sys.argv[1])) > 100 for each in (convjit.Adam(1e-4), Momentum())))
"""


def test_interrupts_leave_weights_and_optimizers_as_after_whole_steps():
    assert output(TRAINING, "500") == "True True"


# Where a function begins, and where one of C code returns, Python looks for signals.
ANYWHERE = """
import copy, os, sys
import numba
import numpy as np
import convjit
from convjit.runtime import contention, threads

def interrupted(call, moment):
    def look(frame, event, argument):
        nonlocal moment
        moment -= event in ("call", "c_return")
        if moment == 0:
            sys.setprofile(None)
            raise KeyboardInterrupt
    sys.setprofile(look)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False

def count_moments(call, check):
    call()
    moment = 1
    while interrupted(call, moment):
        check(moment)
        moment += 1
    return moment
"""


def test_an_interrupt_at_any_moment_leaves_the_thread_mask():
    code = """
contention.are_free = lambda: True
threads.cpu_quota = lambda: 2  # so that a team is smaller than the mask
plan, x = convjit.conv2d_plan(np.ones((16, 16, 3, 3))), np.ones((2, 16, 40, 40))
def check(moment):
    assert numba.get_num_threads() == 4, moment
print(count_moments(lambda: plan(x), check) > 50)
"""
    assert output(ANYWHERE + code, NUMBA_NUM_THREADS="4") == "True"


def test_an_interrupt_at_any_moment_leaves_the_environment():
    code = """
import ctypes
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
threads.launch_pool()
threads._start = lambda: None
def launch():
    threads._launched = False
    threads.launch_pool()
def check(moment):
    assert getenv(b"GOMP_SPINCOUNT") is None, moment
    assert "GOMP_SPINCOUNT" not in os.environ, moment
print(count_moments(launch, check) > 5)
"""
    assert output(ANYWHERE + code) == "True"


def test_an_interrupt_at_any_moment_leaves_statistics_with_the_weights_that_they_belong_to():
    code = """
layer = convjit.BatchNormalization()
layer.set_input_shape((2,))
def initialize():
    layer.__dict__.update(gamma=np.full(2, 5.0), running_mean=np.ones(2), running_var=np.ones(2))
    layer.initialize(None)
def check(moment):
    if "gamma" in vars(layer):
        assert (layer.gamma[0] == 1) == (layer.running_mean is None) == (layer.running_var is None), moment
print(count_moments(initialize, check) > 20)
"""
    assert output(ANYWHERE + code) == "True"
