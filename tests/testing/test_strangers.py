"""README's test files, of somebody else's functions, saved and run as a reader would."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
FILES = {
    name: block
    for block in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for name in re.findall(r"\A# (test_\w+\.py)$", block, re.MULTILINE)
}
SHOWN = re.search(r"^`pytest test_mine\.py`.*?^```text\n(.*?)^```", README, re.MULTILINE | re.DOTALL).group(1)

# A machine that is busy with other tests is slow.
CONFTEST = """
from hypothesis import settings
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
"""


def run(directory, name, source):
    (directory / name).write_text(source)
    (directory / "conftest.py").write_text(CONFTEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=1", name]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_the_planted_mistake_is_found_and_shown_as_readme_shows_it(tmp_path):
    done = run(tmp_path, "test_mine.py", FILES["test_mine.py"])
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    printed = " ".join(re.sub("^E ", "", done.stdout, flags=re.MULTILINE).split())
    for part in SHOWN.split("...\n"):
        assert " ".join(part.split()) in printed, done.stdout


def test_without_the_mistake_all_is_well(tmp_path):
    wrong, right = "weight.swapaxes(0, 1))", "weight[:, :, ::-1, ::-1].swapaxes(0, 1))"
    assert FILES["test_mine.py"].count(wrong) == 1
    done = run(tmp_path, "test_mine.py", FILES["test_mine.py"].replace(wrong, right))
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_pytorch_is_right(tmp_path):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed; test_mine.py shows the same checks")
    done = run(tmp_path, "test_pytorch.py", FILES["test_pytorch.py"])
    assert "2 passed" in done.stdout, done.stdout + done.stderr
