"""Files of word embeddings, as they are found in the world, read into a matrix."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import PAD, UNK, Vocabulary
from trainer.model.pretrained import Coverage, read_embeddings

VOCABULARY = Vocabulary.from_counts({"a": 50, "cat": 20, "dog": 15, "zebra": 10, "rare": 5, "typo": 1}, max_size=9)
A, CAT, DOG, ZEBRA, RARE = range(4, 9)  # and "typo" is left out

GLOVE = "the 9 9 9\na 1 2 3\ncat 3 4 5\n. . . 7 7 7\ndog -1 0.5 1e-1\n"


@pytest.fixture
def write(tmp_path):
    """A function: content -> path of a file with it."""

    def write(content, name: str = "vectors.txt") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def check(matrix, coverage):
    assert matrix.shape == (9, 3) and matrix.dtype == np.float32 and np.isfinite(matrix).all()
    np.testing.assert_array_equal(matrix[[A, CAT, DOG]], np.array([[1, 2, 3], [3, 4, 5], [-1, 0.5, 0.1]], np.float32))
    assert not matrix[PAD].any() and matrix[[1, 2, UNK, ZEBRA, RARE]].any(axis=1).all()
    assert coverage == Coverage(words_found=3, words=5, token_share=85 / 101)


@pytest.mark.parametrize(
    "content",
    [
        GLOVE,
        "5 3\n" + GLOVE,
        GLOVE.replace("\n", " \n"),  # word2vec's own C program
        GLOVE.replace("\n", "\r\n"),
        GLOVE.rstrip("\n"),
        GLOVE + "cat 0 0 0\na x y z\n",  # the first one wins
        ". . 1 1 1\n" + GLOVE,
        "17 1 1 1\n" + GLOVE,
        GLOVE + "a name@domain.com 8 8 8\ncat 5 8 8 8\n",
        GLOVE + "naïve 8 8 8\nwörd 1 1 1\n\n",
        GLOVE.encode() + b"\xff\xfe 8 8 8\n",
        GLOVE + "other this line is not looked at\n",
    ],
)
def test_reads_what_is_found_in_the_world(write, content):
    check(*read_embeddings(write(content), VOCABULARY, 3, seed=0))


def test_reads_gzip(write):
    check(*read_embeddings(write(gzip.compress(GLOVE.encode()), "vectors.txt.gz"), VOCABULARY, 3, seed=0))


def test_missing_words_get_noise_like_the_words_found(write):
    generator = np.random.default_rng(0)
    known = generator.normal([5, -1], [2, 0.1], size=(3000, 2))
    vocabulary = Vocabulary.from_counts({f"w{i}": 1 for i in range(6000)})
    lines = "".join(f"w{i} {x} {y}\n" for i, (x, y) in enumerate(known))
    path = write(lines)
    matrix, coverage = read_embeddings(path, vocabulary, 2, seed=3)
    missing = matrix[[i for i, word in enumerate(vocabulary.words) if word[0] == "w" and int(word[1:]) >= 3000]]
    assert coverage == Coverage(3000, 6000, 0.5) and len(missing) == 3000
    np.testing.assert_allclose(missing.mean(0), [5, -1], atol=0.15)
    np.testing.assert_allclose(missing.std(0), [2, 0.1], rtol=0.1)
    assert np.array_equal(matrix, read_embeddings(path, vocabulary, 2, seed=3)[0])
    assert not np.array_equal(matrix, read_embeddings(path, vocabulary, 2, seed=4)[0])


def test_special_words_of_the_file_are_taken_but_not_counted(write):
    matrix, coverage = read_embeddings(write("<unk> 4 5 6\n<pad> 1 1 1\na 1 2 3\n"), VOCABULARY, 3, seed=0)
    np.testing.assert_array_equal(matrix[UNK], [4, 5, 6])
    assert not matrix[PAD].any() and coverage.words_found == 1


def test_coverage_in_one_line():
    text = "1,702 of 1,861 words (98.7 % of training tokens) have pretrained embeddings"
    assert str(Coverage(1702, 1861, 0.98761)) == text
    assert "(99.9 %" in str(Coverage(1, 2, 0.99999)) and "(100.0 %" in str(Coverage(2, 2, 1.0))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("the 1 2\na 1 2\n", "expected vectors of 3 numbers, found 2; give --embedding_dim 2"),
        ("2 4\nthe 1 2 3 4\na 1 2 3 4\n", "expected vectors of 3 numbers, found 4; give --embedding_dim 4"),
        ("the 1 2 3\na 1 2 x\n", "line 2: expected a word and 3 numbers, found 'a 1 2 x'"),
        ("2 3\nthe 1 2 3\na 1 2 nan\n", "line 3: expected a word and 3 numbers, found 'a 1 2 nan'"),
        ("the 1 2 3\na 1 2\n", "line 2: expected a word and 3 numbers, found 'a 1 2'"),
        ("the 1 2 3\na\n", "line 2: expected a word and 3 numbers, found 'a'"),
        ("the 1 2 3\na " + "1" * 99 + " x y\n", "line 2: expected a word and 3 numbers, found 'a " + "1" * 38 + "…'"),
        ("the 1 2 3\nChat 1 2 3\n", "found none of its 5; give a file"),
        ("<unk> 1 2 3\n", "found none of its 5; give a file"),
        (
            "",
            "in each line a word and its numbers with a space before each, found an empty file or a directory; unpack",
        ),
        ("5 3\n", "found an empty file"),
        ("It was a dark night\n", "found 'It was a dark night' in line 1"),
        ("the\t1\t2\t3\n", r"found 'the\t1\t2\t3' in line 1"),
        (b"PK\x03\x04\x00\x00 \xff\xfe\n", r"found 'PK\x03\x04\x00\x00 ��' in line 1; unpack a .zip first"),
        (b"3 3\n</s> \x00\x01\x02\xff\n\x00", "in line 2"),
        (b"\x00" * 100_000, "in line 1"),
        ("the 1 2 3\n" + "a" * (5 << 20), "line 2: expected a word and its numbers, found 4,194,304 bytes without"),
        ("the 1 2 3\na 1 1e20 3\n", "line 2: expected a word and 3 numbers, found 'a 1 1e20 3'"),  # its square is none
        ("the 1 2 1e39\n", "found 'the 1 2 1e39' in line 1"),
        ("a 1 2 3\ncat 1 -1e300 3\n", "line 2: expected a word and 3 numbers, found 'cat 1 -1e300 3'"),
    ],
)
def test_mistakes_are_told(write, content, told):
    with pytest.raises(InputError) as caught:
        read_embeddings(write(content), VOCABULARY, 3, seed=0)
    message = str(caught.value)
    assert message.startswith("--pretrained_embeddings: ") and "vectors.txt" in message and "\n" not in message
    assert told in message and len(message) < 450


def test_files_that_cannot_be_read_are_told(write, tmp_path):
    whole = gzip.compress(GLOVE.encode() * 50)
    for path, told in {
        str(tmp_path / "absent.txt"): "expected a file of word embeddings, found no ",
        str(tmp_path): "Is a directory",
        write(whole[:-12], "cut.txt.gz"): "expected a whole gzip file",
        write(whole[:30] + b"\x00" * 9 + whole[39:], "broken.txt.gz"): "expected a whole gzip file",
        write(GLOVE, "plain.txt.gz"): "expected a whole gzip file",
    }.items():
        with pytest.raises(InputError) as caught:
            read_embeddings(path, VOCABULARY, 3, seed=0)
        assert told in str(caught.value) and path in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60), st.booleans())
def test_anything_is_read_or_told(tmp_path_factory, content, behind_a_vector):
    path = tmp_path_factory.mktemp("any") / "vectors.txt"
    path.write_bytes((b"a 1 2 3\n" if behind_a_vector else b"") + content)
    try:
        matrix, _ = read_embeddings(str(path), VOCABULARY, 3, seed=0)
    except InputError:
        return
    assert np.isfinite(matrix).all()
