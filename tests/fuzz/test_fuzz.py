"""A short run over every format, and whether the fuzzer notices what it is there to notice."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

import pytest

from tests.fuzz import mutations, oracle, seeds
from tests.fuzz.formats import FORMATS
from tests.support import ROOT

SHORT = {name: one for name, one in FORMATS.items() if one.short}


@pytest.fixture(scope="module")
def valid(once, coco_dir, trained, tiny_network):
    """The seeds; read only."""
    return once("fuzz_seeds", lambda directory: seeds.gather(directory, coco_dir, trained))


@pytest.fixture(scope="module")
def short_run(valid, tmp_path_factory):
    """(Counts by format and outcome, all that was printed), of the real command."""
    counts = tmp_path_factory.mktemp("fuzz") / "counts.json"
    command = [sys.executable, "-m", "tests.fuzz", "--seeds", str(valid), "--seed", "1", "--counts", str(counts)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert counts.exists(), ran.stdout + ran.stderr
    return json.loads(counts.read_text()), ran.stdout + ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_nothing_that_is_read_does_more_than_be_refused(short_run, name):
    counts, printed = short_run
    assert sum(counts[name].values()) == SHORT[name].cases and "bad" not in counts[name], printed


@pytest.mark.slow
def test_files_that_stay_valid_are_read_and_others_refused(short_run):
    """Else cases would say nothing: every format has both."""
    read = {name for name, found in short_run[0].items() if found.get("rows") or found.get("rejects")}
    refused = {name for name, found in short_run[0].items() if found.get("refused") or found.get("rejects")}
    many = {name for name, one in SHORT.items() if one.cases > 10}
    assert many <= read and many <= refused


def test_what_must_not_be_is_noticed_and_the_next_case_tried(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.toys", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    found = {name: kinds for name, (kinds, _) in json.loads(ran.stdout).items()}
    assert found == {
        "_crash": ["crash"] * 2,
        "_hang": ["hang"] * 2,
        "_eat": ["MemoryError"] * 2,
        "_raise": ["KeyError"] * 2,
        "_stray": ["changed"] * 2,
        "_take": ["changed"] * 2,
        "_refuse": [],
        "_fail": [],
        "_exit": ["no line"] * 2,
        "_lose": ["lost"] * 2,
    }


def test_a_case_is_the_same_whenever_it_is_made(valid, tmp_path):
    spare = [path.read_bytes() for path in sorted((valid / "said").iterdir())]
    targets = [valid / "said/coco.json", valid / "tables/rows.parquet", valid / "zips/1.zip", valid / "pictures/a.jpg"]

    def made(number: int, folder: str) -> tuple[list[str], dict[str, object]]:
        (tmp_path / folder).mkdir()
        told = []
        for target in targets:
            path = pathlib.Path(shutil.copy(target, tmp_path / folder))
            context = mutations.Context(random.Random(f"x:1:{number}"), "/elsewhere", spare)
            told.append(mutations.mutate(path, context))
        return told, {os.path.basename(p): c for p, c in oracle.tree(tmp_path / folder).items()}

    first, again, other = made(5, "a"), made(5, "b"), made(6, "c")
    assert first[0] == again[0] and first[1] == again[1] and first[1] != other[1]
