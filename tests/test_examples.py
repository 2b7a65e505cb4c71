"""Every example runs: those of the docstrings and, in order, the Python blocks of README.md."""

import doctest
import importlib
import pkgutil
import re
import sys
from pathlib import Path

import pytest

import convjit

MODULES = ["convjit"] + [
    info.name for info in pkgutil.walk_packages(convjit.__path__, "convjit.") if not info.name.endswith("__main__")
]
README = Path(convjit.__file__).parent.parent / "README.md"


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
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
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
