"""Compiled code on disk, per user: one file a function and signature.

Knows where files lie and that any of them may be missing, truncated or foreign. Does not know what they hold.
The folder's name is a digest of the package's sources and of the versions of Python, NumPy, Numba and llvmlite; the
file's name one of the signature, the CPU and Numba's settings: code that could be stale has another name. (Numba's own
cache looks at one source file, and so runs old machine code after a change in another; see "Caching" in its developer
manual.)

`CONVJIT_CACHE_DIR` moves the folder, `CONVJIT_CACHE=0` switches the cache off.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import secrets
import sys
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import compiler
from numba.core.caching import _Cache
from numba.core.serialize import dumps

_DIGEST_BYTES = hashlib.sha256().digest_size

# Settings of Numba (`NUMBA_OPT` and so on) that change machine code; CPU_NAME and CPU_FEATURES come with the target.
_SETTINGS = ("BOUNDSCHECK", "DEBUGINFO_DEFAULT", "DISABLE_INTEL_SVML", "LOOP_VECTORIZE", "OPT", "SLP_VECTORIZE")

# Others may read, as far as the umask lets them: what root compiles into a container image serves the image's users.
# Nobody else may write: entries are machine code.
_FOLDER_MODE, _FILE_MODE = 0o755, 0o644


def enabled() -> bool:
    """Whether compiled code is kept on disk."""
    return os.environ.get("CONVJIT_CACHE", "1") != "0"


def source_digest(package: Path, texts: dict[str, bytes] | None = None) -> str | None:
    """A digest of everything that decides what kernels compile to, but for CPU and settings; None without sources.

    What was read is kept in `texts`, by path below the package.
    """
    versions = (numba.__version__, llvmlite.__version__, np.__version__, sys.version)
    digest = hashlib.sha256(repr(versions).encode())
    try:
        sources = sorted(package.rglob("*.py"))
        for path in sources:
            name, text = path.relative_to(package).as_posix(), path.read_bytes()
            digest.update(name.encode())
            digest.update(text)
            if texts is not None:
                texts[name] = text
    except OSError:
        return None
    return digest.hexdigest()[:16] if sources else None


# Taken now, while the modules are imported: a file that is edited later is not what this process compiles.
_texts: dict[str, bytes] = {}
SOURCES = source_digest(Path(__file__).resolve().parent.parent, _texts)


def text_of(module: str) -> str | None:
    """The source of a module of this package when it was imported."""
    text = _texts.get(module.partition(".")[2].replace(".", "/") + ".py")
    return None if text is None else text.decode()


def folder() -> Path:
    """Where compiled code is kept, below `CONVJIT_CACHE_DIR` or the user's cache folder; `OSError` if there is none."""
    if SOURCES is None:
        raise FileNotFoundError("the package's sources cannot be read, by which old code is told from new")
    try:
        return _absolute(_base()) / SOURCES
    except RuntimeError:  # so says pathlib
        raise FileNotFoundError("this user has no home folder") from None


def _base() -> Path:
    chosen = os.environ.get("CONVJIT_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "convjit"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "convjit"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convjit"


@cache
def _absolute(path: Path) -> Path:
    """A relative path means one folder, however often the process changes its own."""
    return path.absolute()


_complaint: str | None = None


def obstacle() -> str | None:
    """Why compiled code cannot be kept, found out by making the folder and a file in it; None where it can."""
    if not enabled():
        return "CONVJIT_CACHE=0"
    if _complaint is None:
        try:
            probe = folder() / ".probe"
            _write(probe, b"")
            probe.unlink(missing_ok=True)
        except OSError as error:
            return f"{type(error).__name__}: {error}"
    return _complaint


def _complain(reason: str) -> None:
    """One warning a process, whatever else goes wrong later."""
    global _complaint
    if _complaint is not None:
        return
    _complaint = reason
    warnings.warn(
        f"convjit: compiled code is not kept on disk ({reason}); every process compiles anew. "
        "Set CONVJIT_CACHE_DIR to a writable folder, or CONVJIT_CACHE=0 to silence this.",
        RuntimeWarning,
        stacklevel=3,
    )


def _seal(path: Path, payload: bytes) -> bytes:
    """What an entry begins with: it fits neither damaged content nor another entry's name."""
    return hashlib.sha256(f"{path.parent.name}/{path.name}\n".encode() + payload).digest()


def _write(path: Path, payload: bytes) -> None:
    """Written aside and renamed: another process sees the whole file or none."""
    path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    aside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(aside, "xb", opener=_create) as file:
            file.write(_seal(path, payload) + payload)
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def _create(name: str, flags: int) -> int:
    return os.open(name, flags, _FILE_MODE)


def read(name: str, key: str) -> bytes | None:
    """What was kept under a name and a key; None if it is not there, or not whole."""
    if not enabled():
        return None
    try:
        path = _entry(name, key)
        if not path.is_file():  # a pipe would be waited for, and /dev/zero has no end
            return None
        content = path.read_bytes()
    except Exception:  # whatever is wrong with a file, the way out is to compile
        return None
    payload = content[_DIGEST_BYTES:]
    return payload if content[:_DIGEST_BYTES] == _seal(path, payload) else None


def keep(name: str, key: str, payload: bytes) -> None:
    """Keep code on disk, or warn once a process: a full disk, no home, a folder that is a file."""
    if not enabled():
        return
    try:
        _write(_entry(name, key), payload)
    except Exception as error:
        _complain(f"{type(error).__name__}: {error}")


def _entry(name: str, key: str) -> Path:
    return folder() / f"{name}-{key}.nbc"


class DiskCache(_Cache):
    """The cache of one function, in the form that a Numba dispatcher asks for.

    Loading fails silently (the function is compiled), saving with one warning a process.
    """

    def __init__(self, function: Any) -> None:
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._active = True

    @property
    def cache_path(self) -> str:
        try:
            return str(folder())
        except OSError:
            return ""

    def enable(self) -> None:
        self._active = True

    def disable(self) -> None:
        self._active = False

    def flush(self) -> None:
        """Nothing to do: an entry that cannot be read is overwritten."""

    def _key(self, signature: Any, codegen: Any) -> str:
        settings = [str(getattr(numba.config, name, None)) for name in _SETTINGS]
        return hashlib.sha256(repr((signature, codegen.magic_tuple(), settings)).encode()).hexdigest()[:24]

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        if not (self._active and enabled()):
            return None
        target_context.refresh()
        try:
            payload = read(self._name, self._key(signature, target_context.codegen()))
            if payload is None:
                return None
            return compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception:  # whatever is wrong with a file, the way out is to compile
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        if not (self._active and enabled()):
            return
        try:
            payload = dumps(compiled._reduce())
        except Exception as error:  # a function that refers to what cannot be pickled
            _complain(f"{type(error).__name__}: {error}")
            return
        keep(self._name, self._key(signature, compiled.codegen), payload)
