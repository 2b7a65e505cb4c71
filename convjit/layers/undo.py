"""Putting layers and optimizers back, in place, where a step fails or is interrupted.

They stay the same objects, and so does what they hold: whoever shares something with one, as tied weights, a schedule
or a log, still does after a failed step. Knows how objects keep attributes, and which containers can be refilled; does
not know what a step is.
"""

from __future__ import annotations

import operator
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import starmap
from types import MemberDescriptorType
from typing import Any

import numpy as np

_HERE = f"{__package__}."
_METHODS = ("forward_pass", "update")
# The first that fits is what refills: a subclass's own methods may do anything.
_CONTAINERS: tuple[Any, ...] = (list, OrderedDict, dict, set, deque)
_Operations = list[tuple[Any, ...]]


def undoing(holders: Iterable[Any]) -> Iterator[Any]:
    """Remember what layers and optimizers hold now; to `exhaust` what is returned puts it back.

    Of somebody else's, arrays, lists, dicts, sets, deques and generators are refilled, and layers and optimizers that
    they hold put back with them; other objects are left as they are.
    """
    operations: _Operations = []
    seen: set[int] = set()
    for holder in holders:
        if _is_known_to_rebind(type(holder)):
            _remember_attributes(holder, operations)
        else:
            _remember(holder, operations, seen)
    return starmap(operator.call, operations)


# One call of compiled code, in which Python looks for no signal: a second Ctrl-C cannot stop it halfway.
exhaust: Callable[[Iterator[Any]], object] = partial(deque, maxlen=0)


def exhaust_the_rest(undo: Iterator[Any]) -> None:
    """Go on where `exhaust` failed: what cannot be put back stops nothing, and is not the error to be told.

    Callers try `exhaust` themselves first: where a function begins, Python looks for signals.
    """
    while True:
        try:
            exhaust(undo)
        except Exception:
            continue
        return


def _is_known_to_rebind(kind: Any) -> bool:
    """Whether such holders rebind what they hold, and write into nothing: convjit's own."""
    return str(kind.__module__).startswith(_HERE)


def _remember_attributes(holder: Any, operations: _Operations) -> None:
    attributes = vars(holder)
    state = attributes.copy()
    if isinstance(source := state.get("rng"), np.random.Generator):
        operations.append((setattr, source.bit_generator, "state", source.bit_generator.state))
    operations += (dict.clear, attributes), (dict.update, attributes, state)


def _remember(holder: Any, operations: _Operations, seen: set[int]) -> None:
    """Somebody else's layer or optimizer, and what it holds: each object once, however deep it lies."""
    seen.add(id(holder))
    waiting = _remember_holder(holder, operations)
    while waiting:
        value = waiting.pop()
        if id(value) not in seen:  # what is in it lives as long as `operations`
            seen.add(id(value))
            waiting += _remember_value(value, operations)


def _remember_holder(holder: Any, operations: _Operations) -> list[Any]:
    """A layer or an optimizer, in its dictionary and in slots; what it holds that may be written into."""
    if _is_known_to_rebind(type(holder)):
        _remember_attributes(holder, operations)
        return [value for value in vars(holder).values() if _is_holder(value)]  # an optimizer of its weights
    held: list[Any] = []
    if isinstance(attributes := getattr(holder, "__dict__", None), dict):
        operations += (dict.clear, attributes), (dict.update, attributes, attributes.copy())
        held += attributes.values()
    for slot in _slots(type(holder)):
        try:
            value = slot.__get__(holder)
        except AttributeError:  # to delete what is not there would raise
            operations += (slot.__set__, holder, None), (slot.__delete__, holder)
        else:
            operations.append((slot.__set__, holder, value))
            held.append(value)
    return held


def _remember_value(value: Any, operations: _Operations) -> list[Any]:
    """Whatever is held; what it holds itself."""
    if isinstance(value, np.ndarray):
        if value.flags.writeable:
            # A step may have locked it; an array is only as writeable as its base.
            bases = [value.base] if isinstance(value.base, np.ndarray) and value.base.flags.writeable else []
            operations += [(np.ndarray.setflags, each, True) for each in (*bases, value)]
            operations.append((np.copyto, value, value.copy()))
    elif isinstance(value, np.random.Generator):
        operations.append((setattr, value.bit_generator, "state", value.bit_generator.state))
    elif isinstance(value, np.random.RandomState):
        operations.append((value.set_state, value.get_state()))
    elif kind := next((kind for kind in _CONTAINERS if isinstance(value, kind)), None):
        held: Any = kind.copy(value)
        operations += (kind.clear, value), (kind.extend if kind in (list, deque) else kind.update, value, held)
        return list(held.values() if isinstance(held, dict) else held)
    elif isinstance(value, tuple):
        return list(value)
    elif _is_holder(value):
        return _remember_holder(value, operations)
    return []


def _is_holder(value: Any) -> bool:
    """Whether it is a layer or an optimizer, by its class: an instance may claim to have any attribute."""
    return any(callable(getattr(type(value), name, None)) for name in _METHODS)


def _slots(kind: type) -> Iterator[Any]:
    """The slots of a class, under whatever names: they are set past a class that refuses to set attributes."""
    for each in kind.__mro__:
        if "__slots__" in vars(each):
            yield from (member for member in vars(each).values() if isinstance(member, MemberDescriptorType))
