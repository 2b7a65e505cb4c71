"""Workspaces that small calls leave, and a network's room: found by the next, had by one call at a time, few in all."""

from collections import OrderedDict
from threading import Thread

import numpy as np
import pytest

from convjit import conv2d, conv2d_backward, conv2d_input_grad, conv3d, conv3d_plan
from convjit.functional import batches, bilinear, kept
from convjit.runtime import memory, threads
from convjit.runtime.reusing import REUSED_FROM, Reused

RNG = np.random.default_rng(0)
X, WEIGHT = RNG.standard_normal((1, 3, 12, 12)).astype("f4"), RNG.standard_normal((5, 3, 3, 3)).astype("f4")


@pytest.fixture
def shelf(monkeypatch):
    monkeypatch.setattr(threads, "available", lambda: 1)  # where others have the cores, it changes from call to call
    monkeypatch.setattr(kept, "_kept", OrderedDict())
    return kept._kept


@pytest.fixture
def allocated(monkeypatch):
    seen, allocate = [], bilinear.allocate

    def counted(function, what, shape, dtype):
        seen.append(what)
        return allocate(function, what, shape, dtype)

    def counted_bytes(function, what, size):
        seen.append(what)
        return allocate_bytes(function, what, size)

    allocate_bytes = kept.allocate_bytes
    monkeypatch.setattr(bilinear, "allocate", counted)
    monkeypatch.setattr(kept, "allocate_bytes", counted_bytes)
    return seen


def test_the_next_call_of_a_kind_allocates_its_result_only(shelf, allocated):
    first = conv2d(X, WEIGHT)
    assert sorted(allocated) == ["the result", "workspaces"]  # of which all lie in one block
    del allocated[:]
    (left,) = shelf.values()
    for space in left:  # whatever lies there
        space.reshape(-1).view(np.uint8)[...] = 0xFF
    again = conv2d(X, WEIGHT)
    assert allocated == ["the result"]
    assert again.tobytes() == first.tobytes()
    assert not any(np.shares_memory(again, space) for space in left)


def test_what_runs_a_call_is_found_once(shelf):
    dy = RNG.standard_normal((1, 5, 10, 10)).astype("f4")
    for call in (lambda: conv2d(X, WEIGHT), lambda: conv2d_backward(dy, X, WEIGHT)):
        call()
        found = {kind: left.run for kind, left in shelf.items()}
        assert None not in found.values()
        call()
        assert {kind: left.run for kind, left in shelf.items()} == found


def test_gradients_find_theirs(shelf, allocated):
    dy = RNG.standard_normal((1, 5, 10, 10)).astype("f4")
    first = conv2d_backward(dy, X, WEIGHT, need=(True, True, False))
    for left in shelf.values():
        for space in left:
            space.reshape(-1).view(np.uint8)[...] = 0xFF
    del allocated[:]
    again = conv2d_backward(dy, X, WEIGHT, need=(True, True, False))
    assert set(allocated) == {"the result"}
    assert [grad.tobytes() for grad in again[:2]] == [grad.tobytes() for grad in first[:2]]


def test_whole_volumes_find_theirs(shelf, allocated):
    x, weight = np.ones((1, 4, 6, 8, 8), "f4"), np.ones((16, 4, 3, 3, 3), "f4")
    first, plan = conv3d(x, weight), conv3d_plan(weight)
    assert plan(x).tobytes() == first.tobytes()
    for left in shelf.values():
        for space in left:
            space.reshape(-1).view(np.uint8)[...] = 0xFF
    del allocated[:]
    for again in (conv3d(x, weight), plan(x)):
        assert again.tobytes() == first.tobytes()
    assert allocated == ["the result"] * 2


def test_images_of_slices_find_theirs(shelf, allocated):
    """Whose weight is packed once for all of them."""
    x, weight = np.ones((1, 16, 12, 40, 40), "f4"), np.ones((16, 16, 3, 3, 3), "f4")
    first = conv3d(x, weight, padding=1, algorithm="winograd")
    del allocated[:]
    assert conv3d(x, weight, padding=1, algorithm="winograd").tobytes() == first.tobytes()
    assert allocated == ["the result"]


def test_large_calls_leave_nothing(shelf):
    dy, weight = np.ones((1, 512, 7, 7), "f4"), np.ones((512, 512, 3, 3), "f4")
    conv2d_input_grad(dy, weight, 7, padding=1, algorithm="implicit")
    assert not shelf


def test_few_kinds_are_kept_and_those_the_latest(shelf):
    for width in range(8, 8 + 3 * kept.CALLS):
        conv2d(X[..., :5], np.ones((width, 3, 1, 1), "f4"))
    assert [call.geometry.out_channels for call, _ in shelf] == [*range(8 + 2 * kept.CALLS, 8 + 3 * kept.CALLS)]


def test_few_bytes_are_kept(shelf):
    for width in range(40, 40 + kept.CALLS):
        conv2d(np.ones((1, 64, 40, width), "f4"), np.ones((64, 64, 3, 3), "f4"), padding=1)
    taken = sum(space.nbytes for left in shelf.values() for space in left)
    assert 0.5 * kept.BYTES < taken <= kept.BYTES
    assert 1 < len(shelf) < kept.CALLS
    assert [call.bytes(crew) for call, crew in shelf] == [sum(s.nbytes for s in left) for left in shelf.values()]


def test_one_call_has_them_at_a_time(shelf):
    conv2d(X, WEIGHT)
    (kind,), (left,) = shelf, shelf.values()
    assert kept.take("f", *kind) == (True, left)
    was_left, others = kept.take("f", *kind)
    assert not was_left
    assert not any(np.shares_memory(a, b) for a in left for b in others)


def interrupt(monkeypatch, call, handler):
    """Let a handler run in the next call before it computes, as when a signal arrives; the arguments of all runs."""
    bind, pending, runs = call.operation.bind, [handler], []

    def interrupted(workers, geometry, dtype, *workspaces):
        run = bind(workers, geometry, dtype, *workspaces)

        def wrapped(*arrays):
            runs.append([a for a in (*arrays, *workspaces) if a.flags.writeable and a.size])
            if pending:
                pending.pop()(*arrays, *workspaces)
            run(*arrays)

        return wrapped

    monkeypatch.setattr(call, "operation", call.operation._replace(bind=interrupted))
    kept._kept.clear()  # with what was bound before
    return runs


def assert_apart(outer, inner):
    """Neither results nor workspaces of the two runs lie over one another; both are given X and WEIGHT."""
    given = (X, WEIGHT)
    outer, inner = ([a for a in run if not any(np.shares_memory(a, b) for b in given)] for run in (outer, inner))
    assert len(outer) == len(inner) > 1
    assert not any(np.shares_memory(a, b) for a in outer for b in inner)


def test_a_call_within_a_call_has_its_own(shelf, monkeypatch):
    wanted, ((call, _),), inner = conv2d(X, WEIGHT), shelf, []

    def handler(*arguments):
        inner.append(conv2d(X, WEIGHT))
        arguments[-1].reshape(-1)[...] = 7  # what the inner call left there is not ours

    runs = interrupt(monkeypatch, call, handler)
    assert conv2d(X, WEIGHT).tobytes() == wanted.tobytes() == inner[0].tobytes()
    assert_apart(*runs)


def test_a_call_that_fails_leaves_nothing(shelf):
    conv2d(X, WEIGHT)

    def fails(*arrays):
        raise KeyboardInterrupt

    (left,) = shelf.values()
    left.run = fails
    with pytest.raises(KeyboardInterrupt):
        conv2d(X, WEIGHT)
    assert not shelf


def test_many_threads(shelf):
    problems = [(X[..., : 6 + i], WEIGHT) for i in range(7)] * 4
    wanted = [conv2d(*problem).tobytes() for problem in problems]
    wrong = []

    def work():
        for _ in range(40):
            wrong.extend(i for i, problem in enumerate(problems) if conv2d(*problem).tobytes() != wanted[i])

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(shelf) <= kept.CALLS


# --- in a network's step ----------------------------------------------------------------------------------------------


def test_calls_of_a_step_have_the_same_room(shelf, allocated):
    network, wanted = Reused(), [conv2d(X, WEIGHT).tobytes(), conv2d(X[..., 2:], WEIGHT).tobytes()]
    shelf.clear()
    for _ in range(2):
        with network.step():
            assert [conv2d(X, WEIGHT).tobytes(), conv2d(X[..., 2:], WEIGHT).tobytes()] == wanted
            (room,) = network._rooms
            for call, crew in room._cuts:
                for space in room.arrays((call, crew)):
                    space.reshape(-1).view(np.uint8)[...] = 0xFF
        del allocated[:]
    with network.step():
        conv2d(X, WEIGHT)
    assert allocated == ["the result"]
    assert not shelf
    first, second = ([a for a in arrays if a.size] for _, arrays in room._cuts.values())
    assert any(np.shares_memory(a, b) for a in first for b in second)
    for arrays in (first, second):
        assert all(a.__array_interface__["data"][0] % 64 == 0 for a in arrays)
        assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_a_call_within_a_call_of_a_step_has_its_own(shelf, monkeypatch):
    wanted, ((call, _),), inner, network = conv2d(X, WEIGHT), shelf, [], Reused()

    def handler(*arguments):
        inner.append(conv2d(X, WEIGHT))
        arguments[-1].reshape(-1)[...] = 7

    runs = interrupt(monkeypatch, call, handler)
    with network.step():
        assert conv2d(X, WEIGHT).tobytes() == wanted.tobytes() == inner[0].tobytes()
        assert len(network._rooms) == 1
    assert_apart(*runs)


def test_workspaces_of_a_step_that_find_the_room_taken_are_blocks_of_the_network(shelf):
    network = Reused()
    with network.step():
        room = network.take_room()
        y = conv2d(np.ones((1, 32, 60, 240), "f4"), np.ones((32, 32, 3, 3), "f4"), padding=1)
        network.put_back(room)
        blocks = [block[0].base for blocks in network._blocks.values() for block in blocks]
        assert len(blocks) > 1
        assert sum(y.base is block for block in blocks) == 1


def test_a_call_that_fails_does_not_put_the_room_back_and_the_next_step_has_another(shelf, monkeypatch):
    conv2d(X, WEIGHT)
    ((call, _),), network = shelf, Reused()

    def fails(*arguments):
        raise KeyboardInterrupt

    with network.step():
        with monkeypatch.context() as patch:
            patch.setattr(call, "operation", call.operation._replace(bind=lambda *arguments: fails))
            with pytest.raises(KeyboardInterrupt):
                conv2d(X, WEIGHT)
        assert not network._rooms
        conv2d(X, WEIGHT)
    with network.step():
        conv2d(X, WEIGHT)
        assert len(network._rooms) == 1


def test_a_step_within_a_call_of_a_step_leaves_one_room(shelf, monkeypatch):
    """A handler that trains the same network."""
    wanted, ((call, _),), inner, network = conv2d(X, WEIGHT), shelf, [], Reused()

    def handler(*arguments):
        with network.step():
            inner.append(conv2d(X, WEIGHT))

    runs = interrupt(monkeypatch, call, handler)
    with network.step():
        assert conv2d(X, WEIGHT).tobytes() == wanted.tobytes() == inner[0].tobytes()
    assert len(network._rooms) == 1
    assert_apart(*runs)


@pytest.mark.parametrize("crew", [1, 2])
def test_a_call_finds_its_place_in_a_room_that_has_moved(crew, shelf, monkeypatch):
    monkeypatch.setattr(batches, "workers", lambda _: crew)
    large = np.ones((1, 32, 60, 120), "f4"), np.ones((32, 32, 3, 3), "f4")
    wanted, network, places = conv2d(X, WEIGHT), Reused(), []
    with network.step():
        for problem in ((X, WEIGHT), large, (X, WEIGHT), (X, WEIGHT)):
            y = conv2d(*problem)
            assert problem is large or y.tobytes() == wanted.tobytes()
            places.append(network._rooms[0]._memory)
            places[-1][...] = 0xFF
        first, *_, last = places
        assert first.size < last.size
        assert (first == 0xFF).all()  # where the call was first, nobody writes any more
        assert conv2d(X, WEIGHT).tobytes() == wanted.tobytes()
        assert (last != 0xFF).any()


def test_a_room_that_grows_leaves_nothing_behind(shelf):
    network = Reused()
    with network.step():
        for width in (60, 120, 240):
            conv2d(np.ones((1, 32, 60, width), "f4"), np.ones((32, 32, 3, 3), "f4"), padding=1)
        assert network._rooms[0]._memory.size >= REUSED_FROM
        assert all(dtype != np.uint8 for _, dtype in network._blocks)


def test_blocks_are_given_up_for_a_room_that_does_not_fit(shelf, monkeypatch):
    network, asked = Reused(), []

    def fails_once(function, what, size):
        asked.append(size)
        if len(asked) == 1:
            raise MemoryError
        return allocate_bytes(function, what, size)

    allocate_bytes, wanted = kept.allocate_bytes, conv2d(X, WEIGHT)
    monkeypatch.setattr(kept, "allocate_bytes", fails_once)
    with network.step():
        memory.allocate("f", "the result", (REUSED_FROM,), np.dtype("f4"))
        assert network._blocks
        assert conv2d(X, WEIGHT).tobytes() == wanted.tobytes()
        assert not network._blocks
    assert len(asked) == 2


def test_a_room_is_as_large_as_the_last_step_wanted(monkeypatch):
    monkeypatch.setattr(batches, "workers", lambda _: 1)  # of whom each has a share
    network, large = Reused(), (np.ones((1, 64, 20, 20), "f4"), np.ones((64, 64, 3, 3), "f4"))

    def size_after(*problems):
        with network.step():
            for problem in problems:
                conv2d(*problem)
        return network._rooms[0]._memory.size

    small = (X, WEIGHT)
    most = size_after(small, large, small)
    assert size_after(large) == size_after(small, large) == size_after(small) == most
    least = size_after(small)
    assert least < most
    assert size_after(small, large) == most
    network.clear()
    assert not network._rooms
