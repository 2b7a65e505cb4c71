"""Compiled code on disk, per user: one file a function and signature.

Knows where files lie and that any of them may be missing, truncated or foreign. Does not know what they hold.
The folder's name is a digest of the package's sources, Numba's and llvmlite's versions; the file's name one of the
signature and the CPU: code that could be stale has another name. (Numba's own cache looks at one source file, and so
runs old machine code after a change in another; see "Caching" in its developer manual.)

`CONVJIT_CACHE_DIR` moves the folder, `CONVJIT_CACHE=0` switches the cache off.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import compiler
from numba.core.caching import _Cache
from numba.core.serialize import dumps

_DIGEST_BYTES = hashlib.sha256().digest_size


def enabled() -> bool:
    """Whether compiled code is kept on disk."""
    return os.environ.get("CONVJIT_CACHE", "1") != "0"


@cache
def source_digest() -> str:
    """A digest of everything that decides what a kernel compiles to, but for the CPU."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {sys.version}".encode())
    package = Path(__file__).resolve().parent.parent
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def folder() -> Path:
    """Where compiled code is kept: `CONVJIT_CACHE_DIR`, or the user's cache folder."""
    chosen = os.environ.get("CONVJIT_CACHE_DIR")
    if chosen:
        base = Path(chosen)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "convjit"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches" / "convjit"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convjit"
    return base / source_digest()


@cache
def _warn_once(reason: str) -> None:
    warnings.warn(
        f"convjit: compiled code is not kept on disk ({reason}); every process compiles anew. "
        "Set CONVJIT_CACHE_DIR to a writable folder, or CONVJIT_CACHE=0 to silence this.",
        RuntimeWarning,
        stacklevel=2,
    )


class DiskCache(_Cache):
    """The cache of one function, in the form that a Numba dispatcher asks for.

    Loading fails silently (the function is compiled), saving with one warning a process. A file begins with the
    sha256 of what follows, so a truncated one is seen before it is unpickled.
    """

    def __init__(self, function: Any) -> None:
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._active = True

    @property
    def cache_path(self) -> str:
        return str(folder())

    def enable(self) -> None:
        self._active = True

    def disable(self) -> None:
        self._active = False

    def flush(self) -> None:
        """Nothing to do: an entry that cannot be read is overwritten."""

    def _path(self, signature: Any, codegen: Any) -> Path:
        key = hashlib.sha256(repr((signature, codegen.magic_tuple())).encode()).hexdigest()[:24]
        return folder() / f"{self._name}-{key}.nbc"

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        if not (self._active and enabled()):
            return None
        target_context.refresh()
        try:
            content = self._path(signature, target_context.codegen()).read_bytes()
            digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
            if hashlib.sha256(payload).digest() != digest:
                return None
            return compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception:  # whatever is wrong with a file, the way out is to compile
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        if not (self._active and enabled()):
            return
        try:
            path = self._path(signature, compiled.codegen)
            payload = dumps(compiled._reduce())
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(path, hashlib.sha256(payload).digest() + payload)
        except Exception as error:  # a full disk, no home, a folder that is a file
            _warn_once(f"{type(error).__name__}: {error}")

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        # Written aside and renamed: another process sees the whole file or none.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
