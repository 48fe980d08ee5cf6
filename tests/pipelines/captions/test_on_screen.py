"""`pipelines.caption` without --output: what is printed, and what it asks an output for."""

import json
import math
import pathlib
import re
import shutil

import numpy as np
import pytest

from pipelines import caption
from pipelines.captions.on_screen import MOST
from tests.support import commands, stores
from tests.support.outputs import annotations, rows
from tfrecords_schema.storage import clients
from tfrecords_schema.text import shown_names


@pytest.fixture
def photos(coco_dir) -> list[pathlib.Path]:
    return sorted((coco_dir / "val2017").glob("*.jpg"))


@pytest.fixture
def printed(trained, capsys):
    """A function that runs the command; (its exit status, stdout, stderr)."""

    def printed(*words, model=trained / "job/export"):
        status = 0
        capsys.readouterr()
        try:
            caption.main([*map(str, words), "--model", str(model)])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return printed


def test_captions_are_printed_with_their_probabilities(run, printed, photos):
    table = rows(run()[0])
    status, out, err = printed(*photos)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    width = max(len(entry["caption"]) for row in table.values() for entry in row["captions"])
    expected = []
    for photo in photos:
        for number, entry in enumerate(table[photo.stem]["captions"]):
            name = "" if number else photo.name
            expected.append(
                (f"{name:<{len(photo.name)}}  {entry['caption']:<{width}}  p=", math.exp(entry["log_prob"]))
            )
    assert [line[: line.index("p=") + 2] for line in lines] == [text for text, _ in expected]
    np.testing.assert_allclose([float(line.partition("p=")[2]) for line in lines], [p for _, p in expected], rtol=5e-3)


def test_images_behind_their_flag_are_the_same_as_in_front_of_all(printed, photos):
    assert printed(*photos) == printed("--images", *photos) == printed(photos[0], "--images", *photos[1:])
    assert printed(*photos) == printed(photos[0].parent)


def test_json_has_the_rows_of_the_table(run, printed, photos):
    table = rows(run(word_scores=True, beam_width=2)[0])
    _, out, _ = printed(*photos, "--format", "json", "--word_scores", "--beam_width", 2)
    found = list(map(json.loads, out.splitlines()))
    assert [row["image_id"] for row in found] == [photo.stem for photo in photos]
    for row in found:
        expected = table[row["image_id"]]
        assert row.keys() == expected.keys() and row["image_uri"] == expected["image_uri"]
        assert [c["caption"] for c in row["captions"]] == [c["caption"] for c in expected["captions"]]
        words = [[c["words"] for c in one["captions"]] for one in (row, expected)]
        assert [[w["word"] for w in c] for c in words[0]] == [[w["word"] for w in c] for c in words[1]]
        assert row["log_prob"] == pytest.approx(expected["log_prob"], rel=1e-5)


def test_names_in_json_give_a_terminal_no_orders(printed, photos, tmp_path):
    """Beside those that JSON escapes anyway: CSI in one letter, delete, and what many take for the end of a line."""
    good, bad = (tmp_path / f"{name}\x9b2J\x7f\u2028\x85\x1b é.jpg" for name in ("good", "bad"))
    shutil.copy(photos[0], good)
    bad.write_bytes(b"no image")
    _, out, _ = printed(good, bad, "--format", "json")
    assert out.replace("\n", "").isprintable() and "é" in out
    assert [json.loads(line)["image_uri"] for line in out.splitlines()] == [str(good), str(bad)]


def test_json_tells_where_an_attention_model_looked(printed, attentive, photos):
    _, out, _ = printed(photos[0], "--format", "json", "--attention", model=attentive / "job/export")
    (row,) = map(json.loads, out.splitlines())
    assert " ".join(entry["word"] for entry in row["attention"]) == row["caption"]
    np.testing.assert_allclose([sum(entry["weights"]) for entry in row["attention"]], 1, atol=1e-4)


def test_bad_images_are_a_line_each_and_the_exit_status(printed, photos, tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "e\nvil.jpg").write_text("")
    given = [tmp_path / "text.jpg", photos[0], tmp_path / "e\nvil.jpg"]
    status, out, err = printed(*given)
    assert status == 1 and out == printed(photos[0])[1]
    assert err.splitlines() == [
        f"{tmp_path}/text.jpg: decode/NotAnImage: no known image format; begins with b'hello'",
        f"{tmp_path}/e\\nvil.jpg: decode/Empty: the file has 0 bytes",
    ]
    status, out, _ = printed(*given, "--format", "json")
    rows = list(map(json.loads, out.splitlines()))
    assert status == 1 and [row.get("error") for row in rows] == ["NotAnImage", None, "Empty"]
    status, out, _ = printed(given[0])
    assert (status, out) == (1, "")


def test_what_people_said_stands_below(printed, coco_dir, trained, photos):
    """As a captions file says, or the COCO JSON that images are listed in, or the records of features."""
    said = annotations(coco_dir, "val")
    file = coco_dir / "annotations/captions_val2017.json"
    _, out, _ = printed(photos[0], "--references", file)
    people = re.findall(r"^ *people:  (.*)$", out, re.M)
    assert people == [" ".join(text.split()) for text in said[str(int(photos[0].stem))]] and len(people) > 1
    assert out.startswith(photos[0].name)
    for flags in (
        ("--images", file, "--root", coco_dir / "val2017"),
        ("--features", trained / "features", "--split", "val"),
    ):
        _, out, _ = printed(*flags, "--format", "json")
        found = {row["image_id"]: row["references"] for row in map(json.loads, out.splitlines())}
        assert found == said
    status, _, err = printed(photos[0], "--references", coco_dir / "annotations/captions_train2017.json")
    assert status == 2 and "--references: expected captions of the images in --images, found none" in err


def test_stored_features_are_captioned_as_the_images_are(printed, trained, photos):
    flags = ("--features", trained / "features", "--split", "val")
    found = [re.findall(r"^(.*)p=", out, re.M) for _, out, _ in (printed(*flags), printed(*photos))]
    captions = [sorted(re.sub(r"^\S+|people:.*", "", line).strip() for line in lines) for lines in found]
    assert captions[0] == captions[1] and len(captions[0]) == 24


def test_more_than_a_few_hundred_images_are_to_have_an_output(printed, photos, tmp_path):
    for number in range(MOST + 1):
        shutil.copy(photos[0], tmp_path / f"{number}.jpg")
    status, out, err = printed(tmp_path)
    assert (status, out) == (2, "")
    assert err == (
        f"error: --output: expected a directory for more than {MOST} images, found none, and {MOST + 1} images; give "
        "--output DIR, or --limit N\n"
    )
    status, out, _ = printed(tmp_path, "--limit", 40, "--captions_per_image", 1, "--beam_width", 3)
    assert status == 0 and out.count("\n") == 40 and len(set(re.findall(r"^\S+ +(.*)$", out, re.M))) == 1


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            "--rows_per_file 5",
            "--rows_per_file: expected --output DIR beside it, found none; captions are only printed",
        ),
        ("--metadata_columns a", "--metadata_columns: expected --output DIR beside it"),
        ("--max_reject_fraction 1", "--max_reject_fraction: expected --output DIR beside it"),
        ("--overwrite", "--overwrite: expected --output DIR beside it"),
        ("--dry_run", "--dry_run: expected --output DIR beside it"),
        ("--format csv json", "--format csv: expected --output DIR beside it"),
        ("--word_scores", "--word_scores: expected --output DIR or --format json beside it, found neither"),
        (
            "--runner=DirectRunner",
            "--runner=DirectRunner: not a flag of this command; Beam gets other flags, but only with --output",
        ),
        ("--beam_with 5", "--beam_with: not a flag of this command; did you mean --beam_width?\n"),
        ("nope.jpg", "no file or directory nope.jpg\n"),
        ("{0..1}.jpg", "--images: expected "),
        ("--output out", "--images: expected it before '{photo}"),
        ("--output out --images x --references y", "--images: expected it before"),
    ],
)
def test_flags_that_make_no_sense_are_told(printed, photos, flags, told):
    status, out, err = printed(photos[0], *flags.split())
    assert (status, out) == (2, "") and err.startswith(f"error: {told.format(photo=str(photos[0])[:40])}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("flags", ["--references y", "--format json"])
def test_what_is_only_printed_has_no_output(printed, flags):
    name = " ".join(flags.split()[: 2 if "json" in flags else 1])
    _, _, err = printed("--images", "x", "--output", "out", *flags.split())
    assert err == f"error: {name}: expected it without --output, found both; leave one of them out\n"


def test_a_run_ends_with_some_of_its_captions(run, capsys):
    output, _ = run()
    table = {pathlib.Path(row["image_uri"]).name: row for row in rows(output).values()}
    shown = re.findall(r"^(?:examples    | {12})(\S+)  (.*)  p=(\S+)$", capsys.readouterr().out, re.M)
    assert len(shown) == 3
    for name, text, probability in shown:
        assert text == table[name]["caption"]
        assert float(probability) == pytest.approx(math.exp(table[name]["log_prob"]), rel=5e-3)


def test_a_run_without_captions_has_none_to_show(tmp_path, run, capsys):
    (tmp_path / "text.jpg").write_text("hello")
    run(images=[str(tmp_path / "text.jpg")], max_reject_fraction=1.0)
    assert "examples" not in capsys.readouterr().out


def test_remote_images_are_read(printed, photos, tmp_path, monkeypatch):
    with stores.running("s3", tmp_path) as server:
        server.put_directory(photos[0].parent, "photos")
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        clients.use_flags({})
        assert printed(server.url("photos"))[:2] == printed(*photos)[:2]
        status, _, err = printed("s3://no-such-bucket/a.jpg")
        assert status == 2 and err.startswith("error: --images: ")
    clients.use_flags({})


def test_names_in_a_column():
    assert shown_names(["a/b/c.jpg", "a/d.jpg"]) == {"a/b/c.jpg": "b/c.jpg", "a/d.jpg": "d.jpg"}
    assert shown_names(["/a/b.jpg"]) == {"/a/b.jpg": "b.jpg"}
    assert shown_names(["/a.jpg", "b.jpg"]) == {"/a.jpg": "/a.jpg", "b.jpg": "b.jpg"}
    uris = ["s3://a/bc/d.jpg", "s3://a/be/d.jpg"]
    assert list(shown_names(uris).values()) == ["bc/d.jpg", "be/d.jpg"]
    assert shown_names([]) == {}


def test_the_function_without_an_output_says_so(export_dir):
    with pytest.raises(ValueError, match="--output: expected a directory, found none"):
        commands.caption(model=export_dir, images=["x"])
