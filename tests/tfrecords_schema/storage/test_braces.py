"""Braces in places: what they stand for, and that all of it must be there."""

import subprocess

import pytest

from tests.support.shelf import SHELF, ShelfFileSystem
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import braces


@pytest.mark.parametrize(
    "given",
    [
        "x{00..12}.tar",
        "{a,b}/{1..3}.tar",
        "x{3..1}",
        "{08..11}",
        "{1..010}",
        "a{,b}c",
        "{a}",
        "{}",
        "x{1..2}y{a,b}z{3..4}",
    ],
)
def test_they_stand_for_what_bash_has_them_stand_for(given):
    shown = subprocess.run(["bash", "-c", f"echo {given}"], capture_output=True, text=True).stdout.split()
    assert braces.expand(given) == shown


def test_a_file_of_that_very_name_is_itself(tmp_path):
    path = tmp_path / "{a,b}.tar"
    assert len(braces.expand(str(path))) == 2
    path.write_bytes(b"")
    assert braces.expand(str(path)) == [str(path)]


def test_what_is_not_there_is_named(tmp_path):
    for number in (0, 1, 3):
        (tmp_path / f"{number:05}.tar").write_bytes(b"x" * number)
    found = braces.glob_versions(f"{tmp_path}/{{00000..00001}}.tar")
    assert [path for path, _ in found] == [f"{tmp_path}/0000{n}.tar" for n in (0, 1)] and found[1][1].startswith("1:")
    with pytest.raises(InputError, match=r"each of the 5 paths .* none at '.*/00002.tar' and at 1 more"):
        braces.glob_versions(f"{tmp_path}/{{00000..00004}}.tar")
    assert [path for path, _ in braces.glob_versions(f"{tmp_path}/0000{{0,3}}.t*")] == [
        f"{tmp_path}/0000{n}.tar" for n in (0, 3)
    ]


def test_many_remote_files_are_listed_and_not_asked_for_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(ShelfFileSystem, "root", str(tmp_path))
    (tmp_path / "d").mkdir()
    for name in [*(f"{number:02}.tar" for number in range(12)), "00.txt"]:
        (tmp_path / "d" / name).write_bytes(b"x")
    found = braces.glob_versions(f"{SHELF}d/{{00..11}}.tar")
    assert [path.rpartition("/")[2] for path, _ in found] == [f"{number:02}.tar" for number in range(12)]
    with pytest.raises(InputError, match=r"none at 'shelf://d/12.tar'"):
        braces.glob_versions(f"{SHELF}d/{{00..12}}.tar")


@pytest.mark.parametrize("given", ["{0..99999999}", "{0..99}" * 4, "{1..999999999999999999}"])
def test_too_many_are_refused_before_they_are_made(given):
    with pytest.raises(InputError, match="at most 1,000,000 paths"):
        braces.expand(given)
