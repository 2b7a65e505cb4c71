"""The disk cache: right numbers, at most one warning, never an exception, never stale.

Each row runs in processes of its own. Two kernels of one signature, mean pooling and its gradient, stand for all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import NamedTuple

import numba
import pytest
from numba.core.registry import cpu_target

import convjit
from convjit import environment
from convjit.runtime import cache

PACKAGE = Path(convjit.__file__).parent

PROBE = """
import json, os, sys, warnings
{before}
import numpy as np
import convjit
from convjit.runtime.compile import DRIVERS

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    means = convjit.avg_pool2d(np.arange(16.0).reshape(4, 4, 1), 2, layout="NHWC")
    {between}
    columns = convjit.im2col(np.arange(4.0).reshape(1, 2, 2), 2)
assert means.ravel().tolist() == [2.5, 4.5, 10.5, 12.5], means
assert columns.ravel().tolist() == [0, 1, 2, 3], columns
anew = [each for driver in DRIVERS for each in driver.made().values()]
print(json.dumps([len(anew) - sum(anew), sum(anew), len(caught)]))
"""


class Outcome(NamedTuple):
    """What a process did for its two kernels."""

    loaded: int
    compiled: int
    warnings: int


COLD = Outcome(loaded=0, compiled=2, warnings=0)
WARM = Outcome(loaded=2, compiled=0, warnings=0)
ONE_ANEW = Outcome(loaded=1, compiled=1, warnings=0)
ONE_WARNING = Outcome(loaded=0, compiled=2, warnings=1)

UNSET = ("CONVJIT_CACHE", "CONVJIT_CACHE_DIR", "XDG_CACHE_HOME", "PYTHONWARNINGS")


def started(before: str = "", between: str = "", cwd: Path | None = None, **variables: str) -> subprocess.Popen[str]:
    code = PROBE.format(before=textwrap.dedent(before), between=between)
    kept = {name: value for name, value in os.environ.items() if name not in UNSET and not name.startswith("NUMBA_")}
    paths = [variables.pop("PYTHONPATH", str(PACKAGE.parent)), kept.get("PYTHONPATH")]
    variables = {**kept, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **variables}
    command = [sys.executable, "-P", "-c", code]
    return subprocess.Popen(command, cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen[str]) -> Outcome:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors == ""
    return Outcome(*json.loads(out))


def run(place: Path | str, before: str = "", between: str = "", cwd: Path | None = None, **variables: str) -> Outcome:
    """What a fresh process does whose cache is at `place`."""
    return outcome(started(before, between, cwd, CONVJIT_CACHE_DIR=str(place), **variables))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    place = tmp_path_factory.mktemp("filled")
    assert run(place, before="os.umask(0)") == COLD
    return place


@pytest.fixture
def place(filled, tmp_path):
    """A folder that holds both kernels."""
    return shutil.copytree(filled, tmp_path / "cache")


def entry(place: Path, name: str = "_im2col") -> Path:
    (path,) = place.rglob(f"*.{name}.*.nbc")
    return path


def leftovers(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file() and path.suffix != ".nbc"]


# --- what works -----------------------------------------------------------------------------------------------------


def test_a_second_process_loads_what_the_first_compiled(place):
    assert run(place) == WARM
    assert leftovers(place) == []


def test_what_numba_compiled_with_its_kernels_is_loaded(place):
    of_uint64 = "convjit.max_pool2d(np.ones((1, 4, 4), np.uint64), 2)"  # plain code does not compare those
    first = run(place, between=of_uint64)
    assert first.compiled > 0
    assert run(place, between=of_uint64) == Outcome(first.loaded + first.compiled, compiled=0, warnings=0)


def test_the_cache_can_be_switched_off(place):
    before = sorted(place.rglob("*"))
    assert run(place, CONVJIT_CACHE="0") == COLD
    assert sorted(place.rglob("*")) == before


def test_numbas_own_cache_folder_is_not_used(place, tmp_path):
    assert run(place, NUMBA_CACHE_DIR=str(tmp_path / "numba")) == WARM
    assert not (tmp_path / "numba").exists()


def test_a_path_of_any_characters(filled, tmp_path):
    odd = shutil.copytree(filled, tmp_path / "a b 'c' größe 文" / "deeper")
    assert run(odd) == WARM


@pytest.mark.skipif(os.name != "posix", reason="a home elsewhere is found another way")
def test_the_home_folder_is_the_place_if_none_is_named(filled, tmp_path):
    shutil.copytree(filled, tmp_path / ".cache" / "convjit")
    assert outcome(started(HOME=str(tmp_path))) == WARM
    shutil.copytree(filled, tmp_path / "named")
    assert run("~/named", HOME=str(tmp_path)) == WARM
    assert outcome(started(HOME=str(tmp_path), CONVJIT_CACHE_DIR="")) == WARM


def test_a_relative_path_means_one_folder_whatever_the_process_changes_to(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "here" / "kept")
    (tmp_path / "there").mkdir()
    assert run("kept", between="os.chdir('../there')", cwd=tmp_path / "here") == WARM


def test_many_processes_may_start_cold_at_once(tmp_path):
    processes = [started(CONVJIT_CACHE_DIR=str(tmp_path)) for _ in range(8)]
    for process in processes:
        loaded, compiled, warnings = outcome(process)
        assert (loaded + compiled, warnings) == (2, 0)
    assert leftovers(tmp_path) == []
    assert run(tmp_path) == WARM


@pytest.mark.skipif(os.name != "posix", reason="permissions of files are those of POSIX")
def test_others_may_read_what_was_compiled_and_nobody_else_write_it(filled):
    assert entry(filled).stat().st_mode & 0o777 == 0o644
    assert entry(filled).parent.stat().st_mode & 0o777 == 0o755


# --- files that are not what they should be -------------------------------------------------------------------------


def test_truncated_and_foreign_entries_are_compiled_anew_and_mended(place):
    for lengths in ((0, 31), (32, 33), (-100, -1)):
        for path, length in zip(place.rglob("*.nbc"), lengths, strict=True):
            os.truncate(path, length if length >= 0 else path.stat().st_size + length)
        assert run(place) == COLD, lengths
    for path in place.rglob("*.nbc"):
        path.write_bytes(os.urandom(path.stat().st_size))
    assert run(place) == COLD
    assert run(place) == WARM


def test_a_flipped_bit_is_seen(place):
    content = bytearray(entry(place).read_bytes())
    content[len(content) // 2] ^= 1
    entry(place).write_bytes(content)
    assert run(place) == ONE_ANEW


def test_an_entry_of_another_function_is_not_run(place):
    shutil.copyfile(entry(place, "_avg_pool"), entry(place))
    assert run(place) == ONE_ANEW


def test_another_version_loads_nothing_even_under_the_same_name(place):
    (ours,) = place.iterdir()
    assert run(place, before="import numba; numba.__version__ += '.1'") == COLD
    (theirs,) = set(place.iterdir()) - {ours}
    for path in theirs.iterdir():
        assert (ours / path.name).exists()
        shutil.copyfile(path, ours / path.name)
    assert run(place) == COLD


def test_a_folder_in_an_entrys_place_costs_one_warning(place):
    path = entry(place)
    path.unlink()
    path.mkdir()
    assert run(place) == Outcome(loaded=1, compiled=1, warnings=1)
    assert leftovers(place) == []


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege")
def test_a_dangling_link_is_replaced(place, tmp_path):
    path = entry(place)
    path.unlink()
    path.symlink_to(tmp_path / "nothing")
    assert run(place) == ONE_ANEW
    assert path.is_file()
    assert not path.is_symlink()


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege")
def test_what_is_no_entry_does_not_count_as_one(place, monkeypatch):
    (ours,) = place.iterdir()
    (ours / "dangling.nbc").symlink_to(place / "nothing")
    (ours / "folder.nbc").mkdir()
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(place))
    state = environment.cache_state()
    assert (state["folder"], state["state"]) == (str(ours), "on")
    assert state["entries"].startswith("2 (")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="the file that root cannot read either is Linux's")
def test_an_unreadable_entry_is_replaced(place):
    path = entry(place)
    path.unlink()
    path.symlink_to("/proc/self/mem")
    assert run(place) == ONE_ANEW
    assert path.is_file()
    assert not path.is_symlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_what_has_no_end_to_read_is_replaced(place, put):
    path = entry(place)
    path.unlink()
    put(path)
    assert run(place) == ONE_ANEW
    assert path.is_file()
    assert not path.is_symlink()


def test_what_a_killed_process_left_does_no_harm(place):
    path = entry(place)
    for name in (".0123456789abcdef.tmp", ".tmp"):
        path.with_name(name).write_bytes(path.read_bytes()[:1000])
    path.unlink()
    assert run(place) == ONE_ANEW


# --- places that cannot be used -------------------------------------------------------------------------------------


def test_a_place_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "below") == ONE_WARNING


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the folder that root cannot write either is Linux's")
def test_a_folder_that_nobody_can_write(monkeypatch):
    assert run("/proc") == ONE_WARNING
    monkeypatch.setenv("CONVJIT_CACHE_DIR", "/proc")
    assert environment.cache_state()["state"] == "on, but the folder cannot be written"


def test_a_warm_folder_that_cannot_be_written_serves(place):
    refuse = """
        def refuse(*arguments, **options):
            raise PermissionError(13, "no")
        os.mkdir = os.open = os.replace = refuse
    """
    assert run(place, before=refuse) == WARM


def test_a_path_that_is_too_long(tmp_path, monkeypatch):
    for path in (tmp_path / "/".join(["x" * 200] * 25), tmp_path / ("x" * 300)):
        monkeypatch.setenv("CONVJIT_CACHE_DIR", str(path))
        state = environment.cache_state()
        assert state["folder"].startswith(str(path))
        assert state["state"].startswith("on, but the folder cannot be used (")
    assert run(path) == ONE_WARNING


NOBODY = """
import pwd
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
"""


@pytest.mark.skipif(os.name != "posix", reason="a user without a home is POSIX's")
def test_a_user_without_a_home(monkeypatch):
    assert outcome(started("del os.environ['HOME']" + NOBODY, HOME="")) == ONE_WARNING
    monkeypatch.delenv("CONVJIT_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert environment.cache_state()["folder"] == "none"
    assert "no home folder" in environment.cache_state()["state"]


@pytest.mark.skipif(os.name != "posix", reason="a home elsewhere is found another way")
def test_a_home_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    assert outcome(started(HOME=str(tmp_path / "file" / "home"))) == ONE_WARNING


@pytest.mark.skipif(os.name != "posix", reason="a folder in use cannot be removed")
def test_a_warm_folder_serves_where_the_working_folder_is_gone(place, tmp_path):
    """(Numba itself cannot compile there.)"""
    (tmp_path / "gone").mkdir()
    assert run(place, before="import numba; os.rmdir(os.getcwd())", cwd=tmp_path / "gone") == WARM


def test_a_folder_that_vanishes_between_calls_is_made_again(tmp_path):
    place = tmp_path / "place"
    assert run(place, between=f"__import__('shutil').rmtree({str(place)!r})") == COLD
    assert len(list(place.rglob("*.nbc"))) == 1


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX's")
def test_a_disk_that_is_full(tmp_path):
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    assert run(tmp_path, before=full) == ONE_WARNING
    assert leftovers(tmp_path) == []


def test_one_warning_whatever_the_reasons(tmp_path):
    fail = """
        reasons = [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")]
        def fail(*arguments):
            raise reasons.pop()
        os.replace = fail
    """
    assert run(tmp_path, before=fail) == ONE_WARNING
    assert leftovers(tmp_path) == []


# --- never stale ----------------------------------------------------------------------------------------------------

EDIT = """

from convjit.runtime.compile import kernel
exact = value

@kernel
def value(sums):
    return exact(sums) + 1
"""
GRADIENT = "assert convjit.conv2d_backward(*np.ones((3, 1, 1, 1, 1)), need=(0, 0, 1))[2] == {wanted}"


def test_a_change_of_a_callee_in_another_file_is_seen(tmp_path):
    """`bias_grad` returns what `gemm/summation.py` makes of its sums."""
    copied = shutil.copytree(PACKAGE, tmp_path / "edited" / "convjit", ignore=shutil.ignore_patterns("__pycache__"))
    callee = copied / "gemm" / "summation.py"
    original = callee.read_text()

    def outcome_of(text, wanted):
        callee.write_text(text)
        return run(tmp_path, between=GRADIENT.format(wanted=wanted), PYTHONPATH=str(copied.parent))

    assert outcome_of(original, 1) == Outcome(loaded=0, compiled=3, warnings=0)
    assert outcome_of(original + EDIT, 2) == Outcome(loaded=0, compiled=3, warnings=0)
    assert outcome_of(original, 1) == Outcome(loaded=3, compiled=0, warnings=0)


def test_a_file_that_is_edited_after_the_import_is_not_what_is_kept(tmp_path):
    copied = shutil.copytree(PACKAGE, tmp_path / "edited" / "convjit", ignore=shutil.ignore_patterns("__pycache__"))
    edit = f"__import__('convjit'); open({str(copied / 'geometry.py')!r}, 'a').write('# edited')"
    imported = cache.source_digest(copied)
    assert run(tmp_path / "kept", before=edit, PYTHONPATH=str(copied.parent)) == COLD
    assert cache.source_digest(copied) != imported
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [imported]


def test_without_sources_nothing_is_kept(tmp_path):
    archive = tmp_path / "convjit.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in PACKAGE.rglob("*.py"):
            file.write(path, path.relative_to(PACKAGE.parent))
    assert run(tmp_path / "cache", PYTHONPATH=str(archive)) == ONE_WARNING
    assert not (tmp_path / "cache").exists()


def test_the_digest_follows_every_source_file_and_its_name(tmp_path):
    def digest(**sources):
        package = tmp_path / str(len(list(tmp_path.iterdir())))
        (package / "below").mkdir(parents=True)
        for name, text in sources.items():
            (package / "below" / f"{name}.py").write_text(text)
        return cache.source_digest(package)

    assert len({digest(a="x = 1"), digest(a="x = 2"), digest(b="x = 1"), digest(a="x = 1", b="")}) == 4
    assert digest(a="x = 1") == digest(a="x = 1")
    assert digest() is None


def test_code_for_another_cpu_is_not_loaded(place):
    assert run(place, NUMBA_CPU_NAME="generic") == COLD
    assert run(place, NUMBA_CPU_NAME="generic") == WARM
    assert run(place) == WARM


@pytest.mark.parametrize("setting", cache._SETTINGS)
def test_code_of_other_settings_has_another_name(setting, monkeypatch):
    def name():
        return cache.DiskCache(environment.report)._key((), cpu_target.target_context.codegen())

    before = name()
    assert name() == before
    monkeypatch.setattr(numba.config, setting, 7)
    assert name() != before


def test_plain_code_is_the_same_with_all_settings(place):
    assert run(place, NUMBA_BOUNDSCHECK="1", NUMBA_OPT="0") == WARM
