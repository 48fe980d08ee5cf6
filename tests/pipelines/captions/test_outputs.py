"""The caption table as other programs read it, its further columns, and captions that are drawn."""

import json

import datasets
import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from pipelines.captions import exports
from tests.support import commands
from tests.support.decoders import signature_inputs
from tests.support.outputs import content, read_split, rows
from tfrecords_schema.errors import InputError

FORMATS = ["jsonl", "csv", "coco"]


@pytest.fixture(scope="module")
def tables(trained, coco_dir, tmp_path_factory):
    """A directory with the table in every format, in two shards."""
    output = tmp_path_factory.mktemp("tables") / "captions"
    flags = {"images": [f"{coco_dir}/val2017/*.jpg"], "model": str(trained / "job/export"), "rows_per_file": 4}
    commands.caption(output=str(output), format=FORMATS, **flags)
    return output


def test_pandas_duckdb_and_datasets_read_it_alike(tables):
    expected = rows(tables)
    assert len(expected) == 8 and len(list(tables.glob("captions-*.parquet"))) == 2
    frame = pd.concat([pd.read_parquet(path) for path in tables.glob("captions-*.parquet")])
    assert dict(zip(frame.image_id, frame.caption, strict=True)) == {i: r["caption"] for i, r in expected.items()}
    query = "select image_id, captions[1].caption, captions[1].log_prob = log_prob, height from '{}'"
    found = duckdb.sql(query.format(tables / "captions-*.parquet")).fetchall()
    assert sorted(found) == sorted((i, r["caption"], True, 72) for i, r in expected.items())
    read = datasets.load_dataset("parquet", data_files=str(tables / "captions-*.parquet"), split="train")
    assert {row["image_id"]: row for row in read} == expected
    json_lines = datasets.load_dataset("json", data_files=str(tables / "captions-*.jsonl"), split="train")
    assert {row["image_id"]: row["caption"] for row in json_lines} == {i: r["caption"] for i, r in expected.items()}


def test_jsonl_csv_and_coco_say_the_same(tables):
    expected = rows(tables)
    lines = [json.loads(line) for path in tables.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert {row["image_id"]: row for row in lines} == expected
    assert duckdb.sql(f"select count(*) from '{tables}/captions-*.jsonl'").fetchall() == [(8,)]
    frame = pd.concat([pd.read_csv(path, dtype={"image_id": str}) for path in tables.glob("captions-*.csv")])
    assert list(frame.columns) == list(next(iter(expected.values())))
    for row in frame.to_dict("records"):
        assert {**row, "captions": json.loads(row["captions"])} == expected[row["image_id"]]
    results = json.loads((tables / "captions.coco.json").read_text())
    assert {f"{row['image_id']:012d}": row["caption"] for row in results} == {
        i: r["caption"] for i, r in expected.items()
    }


def test_the_metadata_says_what_made_the_table(tables, trained):
    metadata = pq.read_schema(next(tables.glob("captions-*.parquet"))).metadata
    assert metadata[b"model_digest"].decode() == exports.open_model(str(trained / "job/export"))[0].digest
    search = json.loads(metadata[b"search"])
    assert search["beam_width"] == 3 and search["forbid_unk"] is True
    assert json.loads(metadata[b"features"])["extractor"] == "tiny"
    assert set(json.loads(metadata[b"versions"])) == {"batch-image-captioning", "apache-beam", "tensorflow"}


def test_other_formats_are_made_of_what_is_there(run):
    """Without captioning again; and those that are not asked for any more do not grow stale."""
    output, _ = run(rows_per_file=4)
    before = content(output)
    _, report = run(rows_per_file=4, format=["csv", "coco"])
    assert report["shards_left"] == report["shards"] == 2
    names = set(content(output)) - set(before)
    assert names == {"captions-00000-of-00002.csv", "captions-00001-of-00002.csv", "captions.coco.json"}
    run(rows_per_file=4)
    assert content(output) == before


def test_an_empty_shard_has_its_columns_in_every_format(run, tmp_path):
    (tmp_path / "bad.jpg").write_text("no image")
    output, _ = run(images=[str(tmp_path / "bad.jpg")], max_reject_fraction=1.0, format=FORMATS)
    assert (
        next(output.glob("*.csv")).read_text().startswith("image_id,image_uri,height,width,caption,log_prob,captions")
    )
    assert next(output.glob("*.jsonl")).read_text() == ""
    assert json.loads((output / "captions.coco.json").read_text()) == []


def test_values_that_other_formats_cannot_hold(run, coco_dir, tmp_path):
    """Columns of any type are carried along, and stay what they are in Parquet."""
    paths = sorted(str(path) for path in (coco_dir / "val2017").iterdir())[:2]
    table = pd.DataFrame(
        {
            "path": paths,
            "when": pd.to_datetime(["2020-01-02", "2021-03-04"]),
            "score": [1.5, float("nan")],
            "tags": [["a", 'b"'], []],
            "raw": [b"\x00\xff", b""],
            "note": ["line\none", None],
        }
    )
    table.to_parquet(tmp_path / "table.parquet")
    columns = ["when", "score", "tags", "raw=data", "note"]
    flags = {"images": [str(tmp_path / "table.parquet")], "uri_column": "path"}
    output, _ = run(**flags, metadata_columns=columns, format=FORMATS)
    schema = pq.read_schema(next(output.glob("*.parquet")))
    assert schema.names[-5:] == ["when", "score", "tags", "data", "note"]
    assert str(schema.field("when").type).startswith("timestamp") and str(schema.field("data").type) == "binary"
    by_uri = {row["image_uri"]: row for row in rows(output).values()}
    assert by_uri[paths[0]]["when"] == pd.Timestamp("2020-01-02") and by_uri[paths[0]]["tags"] == ["a", 'b"']
    lines = {row["image_uri"]: row for row in map(json.loads, next(output.glob("*.jsonl")).read_text().splitlines())}
    assert lines[paths[0]]["data"] == "AP8=" and lines[paths[0]]["when"].startswith("2020-01-02")
    assert lines[paths[1]]["score"] is None and lines[paths[1]]["note"] is None
    frame = pd.read_csv(next(output.glob("*.csv"))).set_index("image_uri")
    assert frame.loc[paths[0], "note"] == "line\none" and json.loads(frame.loc[paths[0], "tags"]) == ["a", 'b"']


def test_attention_is_a_column_of_words_and_weights(attentive, run):
    export = str(attentive / "job/export")
    output, _ = run(model=export, attention=True, capitalise=True)
    _, vocabulary = exports.open_model(export)
    signature = tf.saved_model.load(export).signatures["caption"]
    found = rows(output)
    assert len(found) == 8
    for record in read_split(attentive / "features", "val"):
        row = found[f"{int(record['image/id']):012d}"]
        given = {"length_penalty": 0.7, "min_length": 3}
        expected = signature(**signature_inputs(record["image/feature"][None], **given))
        words = vocabulary.words_of(expected["ids"].numpy()[0, 0])
        assert [entry["word"] for entry in row["attention"]] == words and row["caption"].lower() == " ".join(words)
        assert row["caption"][0].isupper()
        weights = np.array([entry["weights"] for entry in row["attention"]])
        np.testing.assert_allclose(weights, expected["attention"].numpy()[0, 0, : len(words)], atol=1e-4)
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-4)


def test_attention_of_a_model_without_it_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="--attention: expected a model with attention, found none"):
        run(attention=True)
    assert not (tmp_path / "captions").exists()


@pytest.mark.slow
def test_drawn_captions_are_of_the_seed_and_the_image_alone(run, coco_dir, tmp_path):
    """The same in another order, in other batches, among other images; others with another seed."""
    drawing = {"sample": True, "captions_per_image": 4, "temperature": 1.5}
    first = rows(run(tmp_path / "a", **drawing)[0])
    images = [str(path) for path in sorted((coco_dir / "val2017").iterdir(), reverse=True)]
    second = rows(run(tmp_path / "b", **drawing, images=images[:5], batch_size=3, rows_per_file=2)[0])
    assert len(second) == 5
    for image_id, row in second.items():
        assert [c["caption"] for c in row["captions"]] == [c["caption"] for c in first[image_id]["captions"]]
        np.testing.assert_allclose(row["log_prob"], first[image_id]["log_prob"], atol=1e-4)
    other = rows(run(tmp_path / "c", **drawing, seed=1)[0])
    assert [row["captions"] for row in other.values()] != [row["captions"] for row in first.values()]
    for row in first.values():
        texts = [c["caption"] for c in row["captions"]]
        assert len(set(texts)) == len(texts) <= 4 and "<unk>" not in " ".join(texts)
        assert [c["log_prob"] for c in row["captions"]] == sorted(
            (c["log_prob"] for c in row["captions"]), reverse=True
        )


def test_rules_for_captions(run, tmp_path):
    output, _ = run(beam_width=4, captions_per_image=2, min_length=9, no_repeat_ngram=1)
    for row in rows(output).values():
        assert len(row["captions"]) == 2
        for found in row["captions"]:
            words = found["caption"].split()
            assert len(words) >= 7 and len(set(words)) == len(words)


def test_what_no_caption_can_obey_is_a_reject(run):
    """A vocabulary has only so many words to say without saying one twice."""
    output, report = run(max_length=200, min_length=200, no_repeat_ngram=1, max_reject_fraction=1.0)
    assert report["rejects"] == 8 and report["reject_reasons"] == {"caption/NoCaption": 8}
    assert rows(output) == {}


def test_the_beginning_and_the_score_of_each_row(run, coco_dir, trained, tmp_path):
    """Columns of a table: a beginning for some images, and captions to be scored, the model's own among them."""
    first, _ = run(tmp_path / "first", word_scores=True)
    own = {row["image_uri"]: row for row in rows(first).values()}
    paths = sorted(own)
    for row in own.values():
        for caption in row["captions"]:
            told = [entry["word"] for entry in caption["words"] if entry["word"] != "<end>"]
            assert " ".join(told) == caption["caption"]
            assert sum(entry["log_prob"] for entry in caption["words"]) == pytest.approx(caption["log_prob"], abs=1e-3)
    _, vocabulary = exports.open_model(str(trained / "job/export"))
    word = vocabulary.words[6]
    begins = [word, f"{word} {word}", "zzyzx", "", None, "...", word, word]
    said = [own[path]["caption"] for path in paths]
    said[1:4] = ["Zzyzx!", "", None]
    table = pd.DataFrame({"image_uri": paths, "begins": begins, "caption": said})
    table.to_parquet(tmp_path / "table.parquet")
    given = {"images": [str(tmp_path / "table.parquet")], "prefix_column": "begins", "score_column": "caption=said"}
    output, report = run(tmp_path / "second", **given, beam_groups=2, beam_width=4, max_reject_fraction=1.0)
    assert report["reject_reasons"] == {"caption/BadPrefix": 2}
    messages = {r["image_uri"]: r["message"] for r in pd.read_parquet(output / "rejects").to_dict("records")}
    assert "found 'zzyzx', which it has not" in messages[paths[2]] and "expected words" in messages[paths[5]]
    found = {row["image_uri"]: row for row in rows(output).values()}
    for path, beginning in zip(paths, begins, strict=True):
        if path not in messages:
            assert all(c["caption"].startswith(beginning or "") for c in found[path]["captions"])
    for place in (0, 4, 6, 7):
        row, mine = found[paths[place]], own[paths[place]]
        assert row["said"] == mine["caption"] and row["given_length"] == len(mine["captions"][0]["words"])
        assert row["given_log_prob"] == pytest.approx(mine["log_prob"], abs=1e-3)
    unknown, nothing = found[paths[1]], found[paths[3]]
    assert unknown["given_length"] == 2 and unknown["given_log_prob"] < -1
    assert nothing["given_log_prob"] is None and nothing["given_length"] is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"prefix": "a zzyzx"}, "--prefix: expected words of the model's vocabulary, found 'zzyzx', which it has not"),
        ({"prefix": "a " * 30}, "--prefix: expected at most 14 words, .* found 30"),
        ({"prefix": "?!"}, "--prefix: expected words, found none in"),
        ({"forbid_words": "{tmp}/two"}, "--forbid_words: .*two: line 2: expected one word, found 'two words'"),
        ({"forbid_words": "{tmp}/none"}, "--forbid_words: expected a file, found none at"),
        ({"prefix": "a", "prefix_column": "x"}, "--prefix: expected it or --prefix_column, found both"),
        ({"score_column": "y"}, "--score_column: expected texts in the column 'y', found type int64"),
    ],
)
def test_words_that_cannot_be_asked_for(run, coco_dir, tmp_path, flags, message):
    (tmp_path / "two").write_text("one\ntwo words\n")
    path = next(iter(sorted((coco_dir / "val2017").iterdir())))
    pd.DataFrame({"image_uri": [str(path)], "x": ["a"], "y": [1]}).to_parquet(tmp_path / "t.parquet")
    given = {name: str(value).format(tmp=tmp_path) for name, value in flags.items()}
    with pytest.raises(InputError, match=message):
        run(images=[str(tmp_path / "t.parquet")], **given)
    assert not (tmp_path / "captions").exists()


def test_forbidden_words_and_a_beginning_for_all(run, trained, tmp_path, capsys):
    _, vocabulary = exports.open_model(str(trained / "job/export"))
    first, second, third = vocabulary.words[4:7]
    (tmp_path / "words").write_text(f"{first.upper()}\n\n zzyzx\n{second}\n")
    output, _ = run(forbid_words=str(tmp_path / "words"), prefix=f"{third.title()}, {first}")
    assert f"forbidden words: 2 of the 3 in {tmp_path}/words are in the model's vocabulary" in capsys.readouterr().out
    for row in rows(output).values():
        for found in row["captions"]:
            words = found["caption"].split()
            assert words[:2] == [third, first] and not {first, second} & set(words[2:])
