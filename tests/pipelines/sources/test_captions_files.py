"""Every kind of captions file, and files that are of no kind."""

import json

import pytest

from pipelines.sources import captions_files
from tfrecords_schema.errors import InputError


def read(tmp_path, content, name="captions"):
    path = tmp_path / name
    data = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(captions_files.read(str(path)))


def problems(listed) -> list[tuple[str, str]]:
    return [(entry.problem.error, entry.id) for entry in listed if entry.problem]


COCO = {
    "info": {"description": "x"},
    "images": [{"id": 7, "file_name": "a b#%.jpg", "width": 3.5}, {"id": 8, "file_name": "é.jpg"}],
    "annotations": [
        {"image_id": 7, "caption": "One.", "id": 1},
        {"image_id": 9, "caption": "Lost.", "id": 2},
        {"image_id": 7, "caption": "Two.", "id": 3},
    ],
}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("keys", [("images", "annotations"), ("annotations", "images", "info")])
def test_coco(tmp_path, keys, mark):
    listed = {entry.id: entry for entry in read(tmp_path, mark + json.dumps({key: COCO[key] for key in keys}).encode())}
    assert listed["7"].captions == ("One.", "Two.") and listed["7"].names == ("a b#%.jpg",)
    assert listed["7"].problem is None and listed["7"].split is None and listed["8"].names == ("é.jpg",)
    assert sorted(problems(listed.values())) == [("NoCaption", "8"), ("NotListed", "9")]


def test_a_bad_entry_does_not_take_its_neighbours_along(tmp_path):
    images = [*COCO["images"], {"id": 10}, "x", {"id": 11, "file_name": "y.jpg"}]
    listed = read(
        tmp_path, {"images": images, "annotations": [*COCO["annotations"], {"image_id": 11, "caption": None}]}
    )
    found = problems(listed)
    assert ("BadEntry", "images[2]") in found and ("BadEntry", "images[3]") in found
    assert ("BadEntry", "annotations[3]") in found and ("NoCaption", "11") in found
    assert [entry.id for entry in listed if not entry.problem] == ["7"]


def test_half_a_surrogate_pair_does_not_take_the_file_along(tmp_path):
    annotations = [{"image_id": 7, "caption": "A \ud83d dog."}, {"image_id": 7, "caption": "\ude00"}]
    (listed,) = read(tmp_path, {"images": COCO["images"][:1], "annotations": annotations})
    assert listed.captions == ("A \ufffd dog.", "\ufffd")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "flickr8k"])
def test_names_that_only_their_endings_tell_apart_keep_them_in_their_ids(tmp_path, kind):
    names = ["cat.jpg", "dog.jpg", "cat.png"]
    rows = {"csv": "{},a cat", "jsonl": '{{"image": "{}", "caption": "a cat"}}', "flickr8k": "{}#0\ta cat"}
    lines = ["image,caption"] * (kind == "csv") + [rows[kind].format(name) for name in names]
    assert [entry.id for entry in read(tmp_path, "\n".join(lines))] == ["cat.jpg", "dog", "cat.png"]


def karpathy(**changes) -> dict:
    entry = {
        "filepath": "val2014",
        "sentids": [1, 2],
        "filename": "COCO_val2014_000000391895.jpg",
        "imgid": 0,
        "split": "test",
        "sentences": [{"tokens": ["a"], "raw": "A man.", "imgid": 0, "sentid": 1}, {"raw": "A bike."}],
        "cocoid": 391895,
    }
    return {key: value for key, value in {**entry, **changes}.items() if value is not None}


def test_karpathy(tmp_path):
    flickr = karpathy(filename="1000092795.jpg", filepath=None, cocoid=None, split="restval")
    wrong = karpathy(cocoid=5, split="unheard of")
    first, second, third = read(tmp_path, {"images": [karpathy(), flickr, wrong], "dataset": "coco"})
    assert (first.id, first.captions, first.split) == ("391895", ("A man.", "A bike."), "test")
    assert first.names == ("val2014/COCO_val2014_000000391895.jpg", "COCO_val2014_000000391895.jpg")
    assert (second.id, second.names, second.split) == ("1000092795", ("1000092795.jpg",), "restval")
    assert (third.problem.error, third.split) == ("NoSplit", "train")


TOKENS = """\
1_a.jpg#0\tA child in a pink dress .
1_a.jpg#1\tA girl .
2_b.jpg#0\tA dog .
3_c.jpg.1#0\tA name that no list has .
no caption at all
4_d.jpg#0\tA cat .
"""


def test_flickr8k_without_lists_has_no_splits(tmp_path):
    listed = read(tmp_path, TOKENS, "Flickr8k.token.txt")
    assert [entry.id for entry in listed] == ["1_a", "2_b", "3_c.jpg", "line 5", "4_d"]
    assert listed[0].captions == ("A child in a pink dress .", "A girl .") and listed[0].split is None
    assert problems(listed) == [("BadEntry", "line 5")]


def test_flickr8k_with_lists(tmp_path):
    for kind, names in (("train", "1_a.jpg\n"), ("dev", "2_b.jpg\n"), ("test", "4_d.jpg\n")):
        (tmp_path / f"Flickr_8k.{kind}Images.txt").write_text(names)
    listed = {entry.id: entry for entry in read(tmp_path, TOKENS, "Flickr8k.token.txt")}
    assert [listed[image_id].split for image_id in ("1_a", "2_b", "4_d")] == ["train", "val", "test"]
    assert listed["3_c.jpg"].problem.error == "NoSplit"


def test_csv(tmp_path):
    text = (
        'image,caption,split\n"a, b.jpg","A man, who ""runs"".\nFast.",train\nx/c.png,A dog,dev\nx/c.png,The dog,dev\n'
    )
    first, second = read(tmp_path, text)
    assert (first.id, first.names, first.split) == ("a, b", ("a, b.jpg",), "train")
    assert first.captions == ('A man, who "runs".\nFast.',)
    assert (second.id, second.captions, second.split) == ("x/c", ("A dog", "The dog"), "val")


def test_rows_that_do_not_fit(tmp_path):
    rows = "image,caption\na.jpg,A dog, that runs\n,No image\nb.jpg\nc.jpg,Good\nd.jpg,\n"
    listed = read(tmp_path, rows)
    assert problems(listed) == [
        ("BadEntry", "line 2"),
        ("BadEntry", "line 3"),
        ("BadEntry", "line 4"),
        ("NoCaption", "d"),
    ]
    lines = ['{"image": "a.jpg", "caption": "Good"}', "{broken", '["a"]', '{"image": 3, "caption": "x"}', ""]
    listed = read(tmp_path, "\n".join([*lines, '{"image": "b.jpg"}']))
    assert problems(listed) == [("BadEntry", f"line {n}") for n in (2, 3, 4)] + [("NoCaption", "b")]


def test_a_quoted_header_and_blank_first_lines(tmp_path):
    (listed,) = read(tmp_path, '"image","caption"\n"a.jpg","hello you"\n')
    assert (listed.id, listed.captions) == ("a", ("hello you",))
    assert len(read(tmp_path, "\n\n" + json.dumps(COCO))) == 3
    assert len(read(tmp_path, '\n\n{"image": "a.jpg", "caption": "x"}\n')) == 1


@pytest.mark.parametrize("end", ['a2.jpg,"dog"\na3.jpg,bird\n', "a2.jpg,dog\n"])
def test_a_quote_that_is_never_closed_is_no_caption_of_many_lines(tmp_path, end):
    with pytest.raises(InputError, match=r"captions: expected CSV in UTF-8, found something unreadable: line \d+: "):
        read(tmp_path, 'image,caption\na0.jpg,"6 foot man\na1.jpg,cat\n' + end)


def test_one_name_in_several_spellings(tmp_path):
    (listed,) = read(tmp_path, "image,caption\n./a.jpg,One\na.jpg,Two\nx/../a.jpg,Three\n")
    assert (listed.id, listed.names, listed.captions) == ("a", ("a.jpg",), ("One", "Two", "Three"))


def test_entries_that_are_there_twice_have_their_captions_once(tmp_path):
    coco = {"images": [{"id": 8, "file_name": "x.jpg"}] * 2, "annotations": [{"image_id": 8, "caption": "A."}]}
    for content in (coco, {"images": [karpathy()] * 2}):
        (listed,) = read(tmp_path, content)
        assert listed.captions in (("A.",), ("A man.", "A bike."))


def test_karpathy_entries_of_odd_types(tmp_path):
    odd = [karpathy(), {**karpathy(), "filepath": 7}, {**karpathy(filename="y.jpg"), "cocoid": None}]
    odd += [karpathy(filename="z.jpg", cocoid=6, sentences=[{"raw": "A cat."}, {"tokens": ["a"]}])]
    first, second, third, sentence, fifth = read(tmp_path, {"images": odd})
    assert first.problem is None and second.problem.error == "BadEntry" and third.id == "y"
    assert (sentence.id, sentence.problem.error) == ("images[3].sentences[1]", "BadEntry")
    assert (fifth.id, fifth.captions, fifth.problem) == ("6", ("A cat.",), None), "a bad caption leaves the others"


def test_a_line_nested_too_deep_is_a_bad_row(tmp_path):
    good, bad = read(tmp_path, '{"image": "a.jpg", "caption": "x"}\n' + "[" * 100_000)
    assert good.problem is None and bad.problem.error == "BadEntry"


def test_jsonl(tmp_path):
    rows = [{"image": "a.jpg", "caption": "One \ud83d", "split": "val"}, {"image": "gs://b/é.jpg", "caption": "Two"}]
    first, second = read(tmp_path, "\n".join(map(json.dumps, rows)))
    assert (first.captions, first.split) == (("One \ufffd",), "val"), "half a surrogate pair is no text"
    assert second.names == ("gs://b/é.jpg",) and second.split is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "found a file that begins with 'not json'"),
        ("", "found a file that begins with ''"),
        ("[]", "a list 'images', found none"),
        (b"\xff\xfe\x00", "found a file that begins with"),
        ('{"images": "é"}'.encode("latin-1"), "found something unreadable"),
        ('{"images": [], "annotations": [', "found something unreadable"),
        ('{"images": [{"id": 1, "file_name": "x"}], "annotations": []} and more', "found something unreadable"),
        ({"images": []}, "a list 'annotations', found none"),
        ("a.jpg,A dog\n", "found a file that begins with 'a.jpg,A dog'"),
        ("image,caption\n\xe9.jpg,x\n".encode("latin-1"), "found something unreadable: 'utf-8' codec"),
    ],
)
def test_files_of_no_known_kind(tmp_path, content, message):
    with pytest.raises(InputError, match=f"captions: .*{message}"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("file,text\na.jpg,A dog\n", ", found file, text; rename them in the first line"),
        ("image;caption\n", ", with commas, found image, caption, with semicolons; write it with commas"),
        (
            '"file"\ttext\n',
            ", with commas, found file, text, with tabs; write it with commas and rename them in the first line",
        ),
    ],
)
def test_a_table_with_other_columns_says_which_it_should_have(tmp_path, content, told):
    path = tmp_path / "captions"
    path.write_text(content)
    with pytest.raises(InputError) as refused:
        captions_files.check(str(path))
    assert str(refused.value) == f"{path}: expected the columns image and caption (split is optional){told}"


def test_missing_files(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match=f"expected captions as COCO .*found no file at {path}"):
            list(captions_files.read(str(path)))
