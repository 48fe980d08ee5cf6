"""Text that any file can hold, and errors in one line."""

import os

import pytest

from tfrecords_schema.text import beside, on_screen, one_line, whole


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("a dog 😀 é", "a dog 😀 é"),
        ("\ud83d", "\ufffd"),
        ("x\ude00y\ud83d\ud83d", "x\ufffdy\ufffd\ufffd"),
        ("\ude00\ud83d", "\ufffd\ufffd"),  # the halves in the wrong order
    ],
)
def test_halves_of_surrogate_pairs_become_the_replacement_character(text, expected):
    assert whole(text) == expected


def test_an_error_is_one_line_of_its_first_words():
    assert one_line(OSError("no\n  space\tleft")) == "no space left"
    assert one_line(ValueError(" ")) == "ValueError"
    assert one_line(ValueError("word " * 30)) == " ".join(["word"] * 20)


@pytest.mark.parametrize(
    ("job_dir", "expected"),
    [
        ("/jobs/1/", "/jobs/1-captions"),
        (".", f"{os.getcwd()}-captions"),
        ("gs://bucket/jobs/1/", "gs://bucket/jobs/1-captions"),
        ("s3://bucket", "s3://bucket/captions"),
    ],
)
def test_a_place_beside_another(job_dir, expected):
    assert beside(job_dir, "captions") == expected


def test_a_screen_is_given_no_orders():
    assert on_screen("é 😀 \x1b[2J\n\x07\u202e\udcff") == r"é 😀 \x1b[2J\n\x07\u202e\udcff"
