"""Every example runs: those of the docstrings and, in order, the Python blocks of README.md.

Bridges to other libraries have blocks that stand alone and are skipped where their library is missing.
"""

import doctest
import importlib
import os
import pkgutil
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

import convjit

MODULES = ["convjit"] + [
    info.name for info in pkgutil.walk_packages(convjit.__path__, "convjit.") if not info.name.endswith("__main__")
]
README = Path(convjit.__file__).parent.parent / "README.md"
BRIDGES = re.compile(r"^## Bridges.*?(?=^## )", re.MULTILINE | re.DOTALL)


def python_blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def importable(name):
    """The module, or a skip where an optional package of an optional module is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "convjit":
            raise
        pytest.skip(f"{name} needs {error.name}, which is not installed")


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importable(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0, f"python -m doctest of {name} prints what was wanted"


def test_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(BRIDGES.sub("", README.read_text()))
    assert blocks, "README.md has no Python block"
    namespace = {"__name__": "readme"}
    monkeypatch.setitem(sys.modules, "readme", type(sys)("readme"))
    for number, block in enumerate(blocks, 1):
        if block.startswith("# test_"):
            continue  # a file for pytest: tests/testing/test_strangers.py
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, namespace, f"block {number}", "README.md", 0)
            runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
            assert runner.run(test, clear_globs=False).failed == 0, f"block {number} of README.md"
            namespace.update(test.globs)
        else:
            exec(compile(block, f"README.md, block {number}", "exec"), namespace)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="README shows what AVX2 runs")
def test_what_readme_says_that_explain_prints():
    call, printed = re.search(
        r"^print\((convjit\.explain\(.*\))\)\n```\n\nOn two cores with AVX2:\n\n```text\n(.*?)^```",
        README.read_text(), re.MULTILINE | re.DOTALL,
    ).groups()  # fmt: skip
    code = f"import convjit; from convjit.runtime import threads; threads.available = lambda: 2; print({call})"
    environment = {**os.environ, "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == printed, done.stderr


@pytest.mark.parametrize("block", python_blocks(BRIDGES.search(README.read_text()).group()))
def test_readme_on_bridges(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        exec(compile(block, "README.md, Bridges", "exec"), {"__name__": "readme"})
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "convjit":
            raise
        pytest.skip(f"this bridge needs {error.name}, which is not installed")
