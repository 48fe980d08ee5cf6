"""What others on the same machine must not be able to do: hold up a run unnoticed, or choose a model."""

import os
import stat
import tempfile

import pytest

from tests.support.shelf import SHELF, ShelfFileSystem
from tfrecords_schema import machine
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import copies


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A directory for temporary files, and for what can be copied there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "shelf/model").mkdir(parents=True)
    monkeypatch.setattr(ShelfFileSystem, "root", str(tmp_path / "shelf"))
    return tmp_path


def test_a_private_directory_is_made_once_and_closed_to_others(temporary):
    path = machine.private_directory("copies")
    assert path == machine.private_directory("copies") == str(temporary / f"captioning-copies-{os.getuid()}")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    assert copies.place() == machine.private_directory("trainer") != path


@pytest.mark.parametrize(
    ("name", "copy"),
    [("copies", lambda: copies.local_copy(f"{SHELF}model")), ("trainer", copies.place)],
)
def test_somebody_elses_directory_is_refused_on_both_sides(temporary, monkeypatch, name, copy):
    somebody = os.getuid() + 1  # to whom the directory that this test makes is another's
    theirs = temporary / f"captioning-{name}-{somebody}"
    theirs.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    with pytest.raises(InputError, match=f"^{theirs}: expected a directory of this user, found another's; set TMPDIR"):
        copy()


def test_somebody_elses_link_to_a_directory_of_ours_is_refused(temporary, monkeypatch):
    """They could lead it elsewhere the moment after."""
    link = temporary / "captioning-copies-0"
    link.symlink_to("/")  # root's
    if os.getuid() == 0:
        os.lchown(link, 65534, 65534)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    with pytest.raises(InputError, match="found another's"):
        machine.private_directory("copies")


def test_a_lock_is_for_one_at_a_time(tmp_path):
    path = str(tmp_path / "lock")
    with machine.hold(path, "busy"), pytest.raises(InputError, match=r"^busy$"):
        machine.hold(path, "busy")
    machine.hold(path, "busy").close()
