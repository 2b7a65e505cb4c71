"""Arrays by name as the bytes of an `.npz` or `.safetensors` file, and back.

Knows the two formats; `.safetensors` needs the package safetensors, `.npz` nothing. Does not know what the arrays are.
Source: `numpy.lib.format`; the safetensors format.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..extras import needed
from ..runtime.files import as_path
from ..typing import Array


def _to_npz(state: dict[str, Array]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **state)  # type: ignore[arg-type]  # the stubs take a flag's name for any
    return file.getvalue()


def _from_npz(content: bytes) -> dict[str, Array]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _to_safetensors(state: dict[str, Array]) -> bytes:
    with needed("a .safetensors file"):
        from safetensors.numpy import save

    content: bytes = save(state)
    return content


def _from_safetensors(content: bytes) -> dict[str, Array]:
    with needed("a .safetensors file"):
        import safetensors

    read: Any = safetensors.deserialize  # its stub has no types
    return {name: _tensor(**tensor) for name, tensor in read(content)}


def _tensor(dtype: str, shape: list[int], data: bytes) -> Array:
    """A tensor of the file; NumPy has no bfloat16, whose bits are the upper half of a float32's."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    names = {"F": "f", "I": "i", "U": "u", "C": "c"}
    if dtype != "BOOL" and (dtype[0] not in names or not dtype[1:].isdigit()):
        raise ValueError(f"NumPy has no dtype {dtype}")
    code = "?" if dtype == "BOOL" else f"<{names[dtype[0]]}{int(dtype[1:]) // 8}"
    return np.frombuffer(data, code).reshape(shape)


class Format(NamedTuple):
    write: Callable[[dict[str, Array]], bytes]
    read: Callable[[bytes], dict[str, Array]]


_FORMATS = {".npz": Format(_to_npz, _from_npz), ".safetensors": Format(_to_safetensors, _from_safetensors)}


def format_of(function: str, path: Any) -> tuple[Path, Format]:
    """The path, and the format that its ending names."""
    file = as_path(function, path)
    if file.suffix not in _FORMATS:
        raise ValueError(f"{function}: path must end in {' or '.join(_FORMATS)}, got {str(path)!r}")
    return file, _FORMATS[file.suffix]
