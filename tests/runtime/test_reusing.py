"""A network's steps use their large arrays again, and only those that nobody else has."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from fresh import output

import convjit
from convjit.functional import kept
from convjit.layers.products import product
from convjit.runtime import memory, reusing
from convjit.runtime.reusing import REUSED_FROM, Reused, Room

F4 = np.dtype("f4")
LARGE = (REUSED_FROM // 4,)


def block(elements):
    """The shape of a block of so many elements: it may be moved to where a cache line begins."""
    return (elements + 16,)


def place(array):
    return array.__array_interface__["data"][0]


def allocate(shape=LARGE, dtype=F4):
    return memory.allocate("f", "the result", shape, dtype)


def is_of(reused, array):
    """Whether an array is of a block that is kept there."""
    return any(array.base is each[0].base for blocks in reused._blocks.values() for each in blocks)


def test_a_block_that_nobody_has_is_used_again():
    reused = Reused()
    with reused.step():
        first = place(allocate())
        assert place(allocate()) == first
    with reused.step():
        assert place(allocate()) == first


def test_a_block_that_somebody_has_is_not():
    """An array, a part of it, a transposed view, or what refers to one of these."""
    reused = Reused()
    with reused.step():
        held = [allocate(), allocate()[5:7], allocate((2, *LARGE)).T, {"x": memoryview(allocate())}]
        places = {place(held[0]), place(held[1]) - 20, place(held[2]), place(np.asarray(held[3]["x"]))}
        assert len(places) == 4
        for _ in range(3):
            assert place(allocate()) not in places
            assert place(allocate((2, *LARGE))) not in places


def test_only_of_the_same_size_and_dtype():
    reused = Reused()
    with reused.step():
        allocate()
        array = allocate()
        array.flags.writeable = False  # of this array, not of the block
        first = place(array)
        del array
        again = allocate()
        assert (place(again), again.shape, again.dtype) == (first, LARGE, F4)
        assert again.flags.c_contiguous
        assert again.flags.writeable
        assert allocate(LARGE, np.dtype("f8")).dtype == np.float64


def test_outside_of_a_step_and_small_arrays_are_new():
    reused = Reused()
    with reused.step():
        kept = [allocate()]
        assert is_of(reused, kept[0])
        assert not is_of(reused, allocate((LARGE[0] - 1,)))
        with Reused().step():
            kept.append(allocate())
        kept.append(allocate())
    assert not is_of(reused, allocate())
    assert len({place(array) for array in kept}) == 3


def test_another_thread_has_new_arrays():
    found, reused = [], Reused()
    with reused.step():
        thread = threading.Thread(target=lambda: found.append(allocate()))
        thread.start()
        thread.join()
    assert found[0].shape == LARGE
    assert not is_of(reused, found[0])


def test_what_a_step_does_not_want_is_given_up():
    reused = Reused()
    with reused.step():
        allocate()
        allocate((3, *LARGE))
    with reused.step():
        allocate()
    with reused.step():
        assert list(reused._before) == [(LARGE[0], F4)]
    with reused.given_up(), reused.step():
        held = allocate()
        held[:] = 7
    assert not reused._blocks
    assert (held == 7).all()


def test_copies_have_none():
    reused = Reused()
    with reused.step():
        allocate()
    for other in (copy.copy(reused), copy.deepcopy(reused), pickle.loads(pickle.dumps(reused))):
        assert not other._blocks
        assert not other._rooms


def test_unused_blocks_are_given_up_for_an_array_that_does_not_fit(monkeypatch):
    reused, asked = Reused(), []

    def new(shape, dtype):
        asked.append(shape)
        if len(asked) == 2:
            raise MemoryError
        return np.empty(shape, dtype)

    monkeypatch.setattr(memory, "_new", new)
    with reused.step():
        allocate()
        assert allocate((2, *LARGE)).shape == (2, *LARGE)
        assert asked == [block(LARGE[0]), block(2 * LARGE[0]), block(2 * LARGE[0])]
        assert list(reused._blocks) == [(2 * LARGE[0], F4)]
        monkeypatch.setattr(memory, "_new", lambda shape, dtype: np.empty(1 << 62))
        with pytest.raises(MemoryError, match=r"f: the result of shape \(5, \d+\) and dtype float32 needs"):
            allocate((5, *LARGE))


def test_what_must_be_free_for_others_is_not_kept():
    """BLAS takes memory without asking; a block that a network keeps is not free."""
    reused = Reused()
    with reused.step():
        memory.check_room("f", "a workspace", 4 * REUSED_FROM)
        assert not reused._blocks
        product(np.ones((16, 1 << 14), F4), np.ones((1 << 14, 2), F4), np.ones((1, 2), F4))
        assert not reused._blocks


def test_arrays_of_a_room_lie_side_by_side_and_those_of_kinds_over_one_another():
    room, asked = Room(), []

    def new(size):
        asked.append(size)
        return np.empty(size, np.uint8)

    def arrays(kind, *kinds):
        return room.arrays(kind) or room.new_arrays(kind, [(shape, np.dtype(dtype)) for shape, dtype in kinds], new)

    large = arrays("large", ((3,), "f4"), ((2, 5), "i8"), ((0, 4), "f8"), ((7, 3), "f8"))
    assert [(a.shape, a.dtype.name) for a in large] == [
        ((3,), "float32"), ((2, 5), "int64"), ((0, 4), "float64"), ((7, 3), "float64"),
    ]  # fmt: skip
    starts = [place(a) for a in large]
    assert all(start % 64 == 0 for start in starts)
    for i, array in enumerate(large):
        array[...] = i
    assert [set(a.ravel()) for a in large] == [{0}, {1}, set(), {3}]
    small = arrays("small", ((5,), "f8"))
    assert place(small[0]) == starts[0]
    assert arrays("large") is large
    assert len(asked) == 1
    arrays("largest", ((400,), "f8"))
    assert len(asked) == 2
    assert room.arrays("small") is None  # it lay in memory that is gone
    assert not np.shares_memory(arrays("small", ((5,), "f8"))[0], large[0])
    for kind in range(3 * reusing._CUTS):
        arrays(kind, ((5,), "f8"))
    assert len(asked) == 2
    assert len(room._cuts) <= reusing._CUTS


def test_threads_at_once_never_have_the_same_block(monkeypatch):
    """One asks for an array when the other has just seen that a block is free."""
    reused, others, count = Reused(), [], reusing._references

    def ask():
        with reused.step():
            others.append(allocate())

    thread = threading.Thread(target=ask)

    def seen(block):
        references = count(block)
        if thread.ident is None:
            thread.start()
            thread.join()
        return references

    with reused.step():
        allocate()
        monkeypatch.setattr(reusing, "_references", seen)
        array = allocate()
    assert place(array) != place(others[0])


def network():
    layers = [
        convjit.Conv2D(16, (3, 3), input_shape=(3, 32, 32), dtype="float32", rng=0),
        convjit.Activation("relu"),
        convjit.MaxPooling2D((2, 2), 2),
        convjit.Conv2D(32, (3, 3), dtype="float32", rng=1),
        convjit.Activation("relu"),
        convjit.Flatten(),
        convjit.Dense(10, dtype="float32", rng=2),
        convjit.Activation("softmax"),
    ]
    return convjit.Sequential(layers)


def batches(count):
    rng = np.random.default_rng(3)
    return [(rng.standard_normal((32, 3, 32, 32), np.float32), rng.integers(0, 10, 32)) for _ in range(count)]


def test_a_network_learns_the_same(monkeypatch):
    reusing, plain = network(), network()
    losses = [reusing.train_on_batch(x, y) for x, y in batches(4)]
    assert reusing._memory()._blocks
    for module in (memory, kept):
        monkeypatch.setattr(module, "here", lambda: None)
    assert losses == [plain.train_on_batch(x, y) for x, y in batches(4)]
    assert not plain._memory()._blocks
    for a, b in zip(reusing.layers, plain.layers, strict=True):
        for name in a.weight_names:
            assert getattr(a, name).tobytes() == getattr(b, name).tobytes()


def test_arrays_of_a_step_stay_with_whoever_has_them():
    model = network()
    (x, y), *others = batches(4)
    model.train_on_batch(x, y)
    seen = [value for layer in model.layers for value in vars(layer).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes >= REUSED_FROM for array in seen) > 4
    before = [array.tobytes() for array in seen]
    for other in others:
        model.train_on_batch(*other)
    assert [array.tobytes() for array in seen] == before


def test_a_network_that_was_fitted_or_copied_keeps_no_blocks():
    model = network()
    ((x, y),) = batches(1)
    model.train_on_batch(x, y)
    assert not copy.deepcopy(model)._memory()._blocks
    assert not pickle.loads(pickle.dumps(model))._memory()._blocks
    assert model._memory()._blocks
    model.fit(x, y, batch_size=16)
    assert not model._memory()._blocks


def test_a_network_that_comes_without_blocks_trains_on():
    """As one that an older version pickled."""
    model, old = network(), network()
    first, second = batches(2)
    for each in (model, old):
        each.train_on_batch(*first)
    del old._reused
    assert old.train_on_batch(*second) == model.train_on_batch(*second)


PAGES = """
    import resource, sys
    sys.path.insert(0, sys.argv[1])
    from test_reusing import batches, network

    model, steps = network(), batches(2) * 10
    for x, y in steps[:10]:
        model.train_on_batch(x, y)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for x, y in steps:
        model.train_on_batch(x, y)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // len(steps))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="pages are counted on Linux; which blocks are used is tested above")
def test_a_step_takes_no_new_pages():
    """It took 620 of 4 KiB."""
    assert int(output(PAGES, str(Path(__file__).parent))) < 30
