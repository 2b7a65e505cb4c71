"""Files written whole: what they replace, and what they leave as it is."""

import os
import re
import stat

import pytest

from convjit.runtime.files import as_path, write_whole

posix = pytest.mark.skipif(os.name == "nt", reason="links, pipes and permissions are those of POSIX")


def put(path, content=b"new"):
    write_whole("save", as_path("save", path), lambda file: file.write(content))


@posix
@pytest.mark.parametrize("there", [False, True])
def test_what_a_link_leads_to_is_replaced(tmp_path, there):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    if there:
        target.write_bytes(b"old")
    link.symlink_to("folder/target")
    put(link)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path / "folder") == ["target"]


@posix
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666, 0o400])
def test_the_mode_of_an_old_file_is_kept(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)

    def write(file):
        (aside,) = {*os.listdir(tmp_path)} - {"file"}
        assert stat.S_IMODE((tmp_path / aside).stat().st_mode) == mode

    write_whole("save", path, write)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@posix
def test_what_is_no_regular_file_stays(tmp_path):
    pipe, folder, link = tmp_path / "pipe", tmp_path / "folder", tmp_path / "link"
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to("pipe")
    for path in (pipe, folder, link):
        said = f"save: path must be a regular file or not be there yet, got {str(path)!r}"
        with pytest.raises(OSError, match=f"^{re.escape(said)}$"):
            put(path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "pipe"]


def test_names_may_be_long(tmp_path):
    put(tmp_path / ("n" * 244))
    assert os.listdir(tmp_path) == ["n" * 244]
    with pytest.raises(OSError, match="n" * 256):
        put(tmp_path / ("n" * 256))


@pytest.mark.parametrize("path", ["", ".", "/", "a\0b", "\ud800.npz"])
def test_what_is_no_name_of_a_file(path):
    said = f"save: path must be the name of a file, got {path!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        as_path("save", path)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_writing_that_fails_leaves_the_old_file(tmp_path, error):
    def fails(file):
        file.write(b"half")
        raise error

    put(tmp_path / "file", b"old")
    with pytest.raises(type(error)):
        write_whole("save", tmp_path / "file", fails)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_errors_name_the_path_that_was_given(tmp_path):
    with pytest.raises(FileNotFoundError) as failure:
        put(tmp_path / "nowhere" / "file")
    assert failure.value.filename == str(tmp_path / "nowhere" / "file")
