"""The real command on caption tables and results files of every kind, good and bad; quick ones without Java."""

import errno
import json
import pathlib
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import caption
from tests.support import commands
from tests.support.outputs import write_report
from tests.support.scored import CAPTIONS, REFERENCES
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import caption_table
from trainer import evaluate
from trainer.scoring import java
from trainer.scoring.metrics import METRICS, Scorer
from trainer.scoring.predictions import Prediction, read_predictions
from trainer.scoring.references import Reference, match, read_references


def coco(references) -> dict:
    """COCO's JSON of {id: captions}; files are named as in COCO 2017."""
    annotations = [{"image_id": i, "caption": text} for i, texts in references.items() for text in texts]
    images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in references]
    return {"images": images, "annotations": [{"id": n, **a} for n, a in enumerate(annotations)]}


def write(path: pathlib.Path, value) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def write_table(directory: pathlib.Path, captions: dict[str, str], parts=2) -> pathlib.Path:
    """A caption table as pipelines.caption leaves it; keys are URIs."""
    directory.mkdir()
    names = [f"captions-{n:05d}-of-{parts:05d}.parquet" for n in range(parts)]
    for n, name in enumerate(names):
        rows = [
            {"image_id": uri.rpartition("/")[2].partition(".")[0], "image_uri": uri, "caption": text}
            for uri, text in list(captions.items())[n::parts]
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=caption_table.schema({})), directory / name)
    write_report(directory, names)
    return directory


@pytest.fixture
def references(tmp_path) -> pathlib.Path:
    return write(tmp_path / "references.json", coco({int(i): texts for i, texts in REFERENCES.items()}))


@pytest.fixture
def results(tmp_path) -> pathlib.Path:
    return write(tmp_path / "mine.json", [{"image_id": int(i), "caption": text} for i, text in CAPTIONS.items()])


@pytest.fixture
def run(references, results, tmp_path):
    """A function that runs the command; keyword arguments are its flags."""

    def run(*captions, output=tmp_path / "out", **changes):
        given = {"captions": [str(c) for c in captions or (results,)], "references": [str(references)], **changes}
        return pathlib.Path(output), commands.evaluate(output=str(output), **given)

    return run


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_the_real_pipelines_table_with_java(trained, coco_dir, tmp_path, capsys):
    """Images -> pipelines.caption -> trainer.evaluate; the figures are the Scorer's for the table's own captions."""
    flags = ["--images", f"{coco_dir}/val2017/*.jpg", "--model", str(trained / "job/export")]
    caption.main([*flags, "--output", str(tmp_path / "captions")])
    annotations = coco_dir / "annotations/captions_val2017.json"
    capsys.readouterr()
    flags = ["--captions", str(tmp_path / "captions"), "--references", str(annotations), "--n", "3"]
    evaluate.main([*flags, "--output", str(tmp_path / "out")])
    screen = capsys.readouterr().out
    assert "tokeniser   Stanford PTB 3.4.1, as for published figures" in screen and "left out" not in screen

    rows = [r for path in (tmp_path / "captions").glob("captions-*") for r in pq.read_table(path).to_pylist()]
    said = {str(int(row["image_id"])): row["caption"] for row in rows}
    listed = json.loads(annotations.read_text())["annotations"]
    known = {i: [a["caption"] for a in listed if str(a["image_id"]) == i] for i in said}
    expected = Scorer(known, meteor=False)(said)  # which takes seconds, and test_metrics.py is about
    (found,) = json.loads((tmp_path / "out/metrics.json").read_text())["predictions"]
    assert found["metrics"] == pytest.approx({**expected.corpus, "meteor": found["metrics"]["meteor"]})
    assert 0 < found["metrics"]["meteor"] <= 100 and found["images"] == len(said) == 8
    table = {row["image_id"]: row for row in pq.read_table(tmp_path / "out/scores.parquet").to_pylist()}
    for name, each in expected.per_image.items():
        assert {i: row[name] for i, row in table.items()} == pytest.approx(each)
    for metric, value in found["metrics"].items():
        assert METRICS[metric] in screen and f"{value:.1f}" in screen


def test_known_figures_in_every_file(no_java, run, tmp_path, capsys):
    """Papineni's example of 2 words in 7, beside a caption that repeats its reference."""
    cats = ["The cat is on the mat.", "There is a cat on the mat."]
    known = write(tmp_path / "cats.json", coco({7: cats, 8: ["one two three four five"], 9: ["nobody says this"]}))
    said = {7: "the the the the the the the", 8: "one two\nthree four <b>five</b> *", 5: "no such image"}
    mine = write(tmp_path / "p.json", [{"image_id": i, "caption": text} for i, text in said.items()])
    output, found = run(mine, references=[str(known)], n=1)
    (row,) = found["predictions"]
    # "<b>" is no word of ours but its b is one: 2 + 5 of 7 + 7 words.
    assert row["metrics"]["bleu_1"] == pytest.approx(100 * 7 / 14)
    assert (row["name"], row["images"], row["captions_without_references"]) == ("p.json", 2, 1)
    assert (row["captions_ambiguous"], row["references_without_caption"]) == (0, 1)
    assert (row["mean_words"], row["distinct_captions"], row["distinct_words"]) == (7, 2, 7)
    assert found["references"] == {"files": [str(known)], "split": None, "images": 3, "captions": 4}
    assert not found["comparable"] and "NOT comparable" in found["notes"][0]
    assert json.loads((output / "metrics.json").read_text()) == found
    assert sorted(p.name for p in output.iterdir()) == sorted(found["files"])

    results = json.loads((output / "results.json").read_text())
    assert results == [{"image_id": i, "caption": said[i]} for i in (7, 8)]
    table = pq.read_table(output / "scores.parquet")
    assert table.column_names[5:] == list(METRICS) and table["meteor"].null_count == 2
    first = table.to_pylist()[0]
    assert (first["image_id"], first["predictions"], first["references"]) == ("7", "p.json", cats)
    assert first["bleu_1"] == pytest.approx(100 * 2 / 7)

    worst, best = (output / "examples.md").read_text().split("the best by CIDEr")
    assert "**the the the the the the the**" in worst and "- There is a cat on the mat." in worst
    assert "**one two three four &lt;b&gt;five&lt;/b&gt; \\***" in best

    screen = capsys.readouterr().out
    assert "our own" in screen and "NOT comparable with published figures" in screen
    assert (
        "left out    1 captions of images without references; 1 images with references but without a caption: "
        "scored over the 2 images that have both\n" in screen
    )
    worst, best = (f"{cider:.1f}" for cider in table["cider"].to_pylist())
    assert screen.splitlines()[-3:] == [
        f"{'':<6}  {'CIDEr':>8}  {'predicted':<32}  what people said",
        f"p.json  {worst:>8}  {'the the the the the the the':<32}  The cat is on the mat.",
        f"p.json  {best:>8}  one two three four <b>five</b> *  one two three four five",
    ]


def test_every_kind_of_captions_side_by_side(no_java, run, results, tmp_path, capsys):
    listed = json.loads(results.read_text())
    table = write_table(tmp_path / "table", {f"/a/{int(i):012d}.jpg": text for i, text in CAPTIONS.items()})
    lines = write(tmp_path / "x/mine.json", "\ufeff" + "\n\n".join(map(json.dumps, listed[:3])) + "\n")
    parquet = tmp_path / "mine.parquet"
    pq.write_table(pa.Table.from_pylist([{**row, "other": 1.5} for row in listed]), parquet)
    output, found = run(results, f"{table}/", lines, parquet)
    rows = found["predictions"]
    assert [row["name"] for row in rows] == [str(results), "table", str(lines), "mine.parquet"]
    assert rows[0]["metrics"] == pytest.approx(rows[1]["metrics"]) and rows[0]["metrics"] == rows[3]["metrics"]
    assert rows[2]["images"] == 3 and "the predictions are of different images" in found["notes"][-1]
    assert [row["results"] for row in rows] == [f"results-{n}.json" for n in (1, 2, 3, 4)]
    in_order = lambda path: sorted(json.loads(path.read_text()), key=lambda row: row["image_id"])  # noqa: E731
    assert in_order(output / "results-2.json") == in_order(output / "results-1.json") == listed
    assert pq.read_metadata(output / "scores.parquet").num_rows == 15
    assert capsys.readouterr().out.count("left out    ") == 1


def test_karpathys_splits(no_java, run, tmp_path):
    images = [
        {
            "filename": f"COCO_val2014_{int(i):012d}.jpg",
            "filepath": "val2014",
            "cocoid": int(i),
            "split": split,
            "sentences": [{"raw": text} for text in REFERENCES[i]],
        }
        for i, split in zip(REFERENCES, ["test", "test", "val", "restval"], strict=True)
    ]
    known = str(write(tmp_path / "dataset_coco.json", {"images": images, "dataset": "coco"}))
    _, found = run(references=[known])
    assert found["references"]["images"] == found["predictions"][0]["images"] == 2
    _, found = run(references=[known], split="val", output=tmp_path / "val")
    assert found["predictions"][0]["images"] == 1
    with pytest.raises(InputError, match=r"--split: expected one of restval, test, val, found 'dev'"):
        run(references=[known], split="dev", output=tmp_path / "dev")
    with pytest.raises(InputError, match="--split: expected no split for COCO's captions, found 'val'"):
        run(split="val", output=tmp_path / "coco")
    flickr = {"filename": "1000.jpg", "split": "test", "sentences": [{"raw": "a dog"}]}
    (only,) = read_references([str(write(tmp_path / "flickr.json", {"images": [flickr]}))]).values()
    assert only == Reference("1000", "1000.jpg", ("a dog",))


def test_several_reference_files_are_joined(tmp_path):
    one = write(tmp_path / "1.json", coco({1: ["a dog", "a dog", "..."], 2: ["?"]}))
    two = write(tmp_path / "2.json", coco({1: ["a dog", "a cat"], 3: ["a fox"]}))
    found = read_references([str(one), str(two)])
    assert {key: r.captions for key, r in found.items()} == {"1": ("a dog", "a dog", "a cat"), "3": ("a fox",)}
    content = coco({1: ["a dog"]})
    content["images"][0]["file_name"] = "other.jpg"
    with pytest.raises(InputError, match=r"image 1 is other.jpg, but was 000000000001.jpg before"):
        read_references([str(one), str(write(tmp_path / "3.json", content))])


def test_texts_that_utf_8_cannot_hold_are_mended_alike_on_both_sides(tmp_path):
    broken = {"images": [{"id": "a\ud83d", "file_name": "a\ud83d.jpg"}]}
    broken["annotations"] = [{"image_id": "a\ud83d", "caption": "a dog \ude00"}]
    known = read_references([str(write(tmp_path / "known.json", broken))])
    assert known == {"a\ufffd": Reference("a\ufffd", "a\ufffd.jpg", ("a dog \ufffd",))}
    said = read_predictions(str(write(tmp_path / "said.json", [{"image_id": "a\ud83d", "caption": "\udc00 dog"}])))
    assert match(said, known, "said.json").predictions == {"a\ufffd": Prediction("a\ufffd", "\ufffd dog")}


def test_results_have_the_ids_of_the_references(no_java, run, tmp_path):
    """COCO's server takes numbers where its file has numbers, and texts where another has texts."""
    known = coco({7: ["a dog"]})
    known["images"].append({"id": "0008", "file_name": "x.jpg"})
    known["annotations"].append({"image_id": "0008", "caption": "a cat"})
    mine = write(tmp_path / "p.json", [{"image_id": i, "caption": "a dog"} for i in ("7", "0008")])
    output, _ = run(mine, references=[str(write(tmp_path / "known.json", known))])
    assert [row["image_id"] for row in json.loads((output / "results.json").read_text())] == [7, "0008"]


def test_an_earlier_evaluation_is_replaced_only_on_request(no_java, run, results, tmp_path):
    other = write(tmp_path / "other.json", json.loads(results.read_text()))
    output, _ = run(results, other)
    (output / "mine.txt").write_text("notes")
    before = {p.name: p.read_bytes() for p in output.iterdir()}
    with pytest.raises(InputError, match="holds an earlier evaluation; give --overwrite"):
        run()
    assert {p.name: p.read_bytes() for p in output.iterdir()} == before
    _, found = run(overwrite=True)
    assert sorted(p.name for p in output.iterdir()) == sorted([*found["files"], "mine.txt"])
    for somebody_elses in ("{}", "[]", "no JSON", '{"files": 3}'):
        write(output / "metrics.json", somebody_elses)
        with pytest.raises(InputError, match="which no earlier evaluation wrote; give another --output"):
            run(overwrite=True)


def with_parquet(columns):
    def make(directory):
        pq.write_table(pa.table(columns), directory / "x.parquet")
        return directory / "x.parquet"

    return make


def incomplete(directory):
    table = write_table(directory / "table", {"/a/1.jpg": "a dog"})
    (table / "report.json").unlink()
    return table


def damaged(directory):
    table = write_table(directory / "table", {"/a/1.jpg": "a dog"}, parts=1)
    next(table.glob("*.parquet")).write_bytes(b"PAR1")
    return table


def lost(directory):
    table = write_table(directory / "table", {"/a/1.jpg": "a dog"})
    next(table.glob("*-00001-*")).unlink()
    return table


def no_captions(directory):
    return write_report(directory / "features", ["train-00000-of-00001.tfrecord"]).parent


def text(content):
    return lambda directory: write(directory / "x.json", content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d / "nothing", "--captions: expected a file, found none at "),
        (text("hello"), "line 1: expected JSON, found something else"),
        (text("[" * 100_000), "expected JSON, found something else"),
        (text('{"images": [], "annotations": []}'), "caption 1: expected an image_id and a caption, found"),
        (text("3"), "caption 1: expected an image_id and a caption, found 3"),
        (text("[]"), "expected captions, found none"),
        (text(""), "expected captions, found none"),
        (text([{"image_id": 139}]), "caption 1: expected an image_id and a caption, found"),
        (text([{"image_id": 139, "caption": None}]), "caption 1: expected an image_id and a caption, found"),
        (text([{"image_id": True, "caption": "x"}]), "caption 1: expected an image_id and a caption, found"),
        (text([{"image_id": 139.5, "caption": "x"}]), "caption 1: expected an image_id and a caption, found"),
        (text([{"image_id": 139, "caption": "x"}] * 2), "expected one caption an image, found two of '139'"),
        (text([{"image_id": 5, "caption": "x"}]), "such as 139 (000000000139.jpg), 285 (000000000285.jpg), found none"),
        (with_parquet({"id": [1], "caption": ["x"]}), "expected the columns image_id and caption, found id, caption"),
        (with_parquet({"image_id": [139], "caption": [None]}), "caption 1: expected an image_id and a caption"),
        (
            with_parquet({"image_id": pa.array([1 << 60], pa.timestamp("us")), "caption": ["x"]}),
            "expected a Parquet file, f",
        ),
        (lambda d: write(d / "x.parquet", "PAR1"), "expected a Parquet file, found: "),
        (incomplete, "--captions: expected a directory that pipelines.caption completed, found "),
        (no_captions, "--captions: expected a directory that pipelines.caption completed, found "),
        (damaged, "expected a caption table, found: "),
        (lost, "expected a caption table, found: "),
    ],
)
def test_captions_that_are_none(no_java, make, message, references, tmp_path, capsys):
    path = make(tmp_path)
    flags = ["--captions", str(path), "--references", str(references), "--output", str(tmp_path / "out")]
    assert_told(flags, message, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--references: expected a file, found none at "),
        ("{", "expected captions as COCO or Karpathy JSON, found something unreadable: "),
        ("[]", "expected a COCO captions JSON with a list 'images', found none"),
        ({"annotations": []}, "expected a COCO captions JSON with a list 'images', found none"),
        ({"images": []}, "expected a COCO captions JSON with a list 'annotations', found none"),
        ({"images": [3], "annotations": []}, "images[0]: expected an entry with 'id', found 3"),
        ({"images": [], "annotations": [{"image_id": 1}]}, "annotations[0]: expected an entry with 'caption', found {"),
        ({"images": [], "annotations": [{"image_id": [], "caption": "x"}]}, "expected an entry with 'image_id', found"),
        ({"images": [{"id": 1, "file_name": None}], "annotations": []}, "expected an entry with 'file_name', found {"),
        ({"images": [{"id": True, "file_name": "a"}], "annotations": []}, "expected an entry with 'id', found {"),
        ({"images": [], "annotations": []}, "expected images with captions, found none"),
        (coco({1: ["..."]}), "expected images with captions, found none"),
        ({"images": [{"sentences": [], "filename": "a"}]}, "images[0]: expected an entry with 'split', found {"),
        (
            {"images": [{"sentences": [{}], "filename": "a", "split": "val"}]},
            "images[0].sentences[0]: expected an entry with 'raw', found {}",
        ),
    ],
)
def test_references_that_are_none(no_java, content, message, results, tmp_path, capsys):
    path = tmp_path / "broken.json"
    if content is not None:
        write(path, content)
    flags = ["--captions", str(results), "--references", str(path), "--output", str(tmp_path / "out")]
    assert_told(flags, message, capsys)


def test_other_flags_that_do_not_fit(no_java, results, references, tmp_path, capsys):
    flags = ["--captions", str(results), "--references", str(references)]
    file = write(tmp_path / "file", "")
    assert_told([*flags, "--output", str(file)], "--output: expected a directory, found the file", capsys)
    message = "--output: expected a directory that can be written to, found"
    assert_told([*flags, "--output", str(file / "below")], message, capsys)
    assert_told([*flags, "--output", ""], "--output: expected a directory, found ''", capsys)
    out = ["--output", str(tmp_path / "out")]
    assert_told([*flags, *out, "--n", "0"], "--n: expected at least 1, found 0", capsys)
    twice = ["--captions", str(results), str(results), *flags[2:], *out]
    assert_told(twice, f"--captions: expected each once, found {results} twice", capsys)


def test_a_full_disk_leaves_nothing_half_written(no_java, run, monkeypatch, results, references, tmp_path, capsys):
    output, _ = run()
    before = {p.name: p.read_bytes() for p in output.iterdir()}
    from tfrecords_schema.storage import files

    def full(path, mode, **how):
        if path.endswith("metrics.json.tmp"):
            raise OSError(errno.ENOSPC, "no space left")
        return open(path, mode, **how)

    monkeypatch.setattr(files, "open", full, raising=False)
    with pytest.raises(SystemExit) as exit_:
        flags = ["--captions", str(results), "--references", str(references), "--output", str(output), "--overwrite"]
        evaluate.main(flags)
    assert exit_.value.code == 1
    assert "the output could not be written: [Errno 28] no space left" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in output.iterdir()} == before


class FakeMeteor:
    def __call__(self, captions, references):
        return 0.5, [0.5] * len(captions)

    def close(self):
        pass


def test_figures_before_and_after_java_broke_are_not_set_side_by_side(run, results, tmp_path, monkeypatch):
    def stanford_tokens(texts):
        if "other" in texts:
            raise java.JavaError("it broke")
        return texts

    monkeypatch.setattr(java, "stanford_tokens", stanford_tokens)
    monkeypatch.setattr(java, "Meteor", FakeMeteor)
    other = write(tmp_path / "other.json", [{"image_id": 139, "caption": "other"}])
    _, found = run(results, other)
    assert [row["comparable"] for row in found["predictions"]] == [True, False] and not found["comparable"]
    assert found["notes"][-1] == "Java failed between two predictions: their figures cannot be compared with each other"


def assert_told(flags, message, capsys):
    """The command ends with one line that holds the message, and exit status 2."""
    with pytest.raises(SystemExit) as exit_:
        evaluate.main(flags)
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2 and stderr.startswith("error: ") and stderr.count("\n") == 1
    assert message in stderr
