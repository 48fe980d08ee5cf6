"""Text that any file can hold, and errors in one line."""

import pytest

from tfrecords_schema.text import one_line, whole


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
