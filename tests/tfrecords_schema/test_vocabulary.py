import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import END, PAD, START, UNK, Vocabulary, count_words, normalise, tokenise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man, riding a horse.", "a man riding a horse"),
        ("It's 5 o'clock -- a T-Shirt!", "it's 5 o'clock a t-shirt"),
        ("don’t “quote” me", "don't quote me"),
        ("the dogs' 'tis -ing rock-", "the dogs tis ing rock"),
        ("  tabs\tand\nlines ", "tabs and lines"),
        ("ＦＵＬＬ ﬁne Ⅷ", "full fine viii"),  # compatibility forms
        ("Çelik İstanbul ÉCOLE", "çelik i̇stanbul école"),
        ("हिन्दी में", "हिन्दी में"),  # vowel signs are marks, not letters
        ("snake_case under_score", "snake case under score"),
        ("...!?", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


@given(st.text())
def test_normalise_is_idempotent_and_leaves_single_spaces(text):
    once = normalise(text)
    assert normalise(once) == once
    assert once == " ".join(once.split())


@given(st.lists(st.text(), max_size=5))
def test_count_words_counts_every_token(captions):
    assert sum(count_words(captions).values()) == sum(len(tokenise(caption)) for caption in captions)


def test_ids_fall_by_count_then_alphabet():
    vocabulary = Vocabulary.from_counts({"dog": 3, "cat": 3, "a": 9, "rare": 1}, min_count=2)
    assert vocabulary.words == ("<pad>", "<start>", "<end>", "<unk>", "a", "cat", "dog")
    assert vocabulary.counts == (0, 0, 0, 1, 9, 3, 3)


def test_max_size_counts_the_special_words():
    vocabulary = Vocabulary.from_counts({"a": 3, "b": 2, "c": 1}, max_size=6)
    assert vocabulary.words[4:] == ("a", "b")
    assert len(vocabulary) == 6


def test_encode_pads_and_counts_start_and_end():
    vocabulary = Vocabulary.from_counts({"a": 2, "dog": 1})
    assert vocabulary.encode("A dog!", 6) == ([START, 4, 5, END, PAD, PAD], 4)
    assert vocabulary.encode("a zebra", 4) == ([START, 4, UNK, END], 4)


def test_encode_keeps_the_first_words_and_end_of_a_long_caption():
    vocabulary = Vocabulary.from_counts({"a": 2, "dog": 1})
    assert vocabulary.encode("dog a dog a", 4) == ([START, 5, 4, END], 4)


def test_decode_stops_at_end():
    vocabulary = Vocabulary.from_counts({"a": 2, "dog": 1})
    assert vocabulary.decode([START, 4, 5, END, 4, PAD]) == "a dog"
    assert vocabulary.decode([4, PAD, 5]) == "a dog"


@given(st.lists(st.sampled_from(["a", "big", "dog", "t-shirt"]), max_size=8))
def test_decode_undoes_encode(words):
    vocabulary = Vocabulary.from_counts({"a": 1, "big": 1, "dog": 1, "t-shirt": 1})
    ids, length = vocabulary.encode(" ".join(words), 10)
    assert vocabulary.decode(ids) == " ".join(words)
    assert length == len(words) + 2 and len(ids) == 10


@given(st.dictionaries(st.from_regex(r"[a-zé'-]{1,8}", fullmatch=True), st.integers(1, 99)))
def test_loads_undoes_dumps(counts):
    vocabulary = Vocabulary.from_counts(counts)
    loaded = Vocabulary.loads(vocabulary.dumps())
    assert loaded == vocabulary
    assert loaded.digest == vocabulary.digest


def test_digest_is_of_words_and_not_of_counts():
    a, b = Vocabulary.from_counts({"a": 3, "b": 1}), Vocabulary.from_counts({"a": 9, "b": 2})
    assert a.digest == b.digest != Vocabulary.from_counts({"b": 9, "a": 2}).digest


def test_loads_im2txt_word_counts():
    vocabulary = Vocabulary.loads("a 969108\n<S> 586368\n</S> 586368\non 213612\n", "word_counts.txt")
    assert vocabulary.words == ("<pad>", "<start>", "<end>", "<unk>", "a", "on")


def test_loads_words_that_python_3_wrote_as_bytes():
    text = "b'a' 9\nb'<S>' 5\nb'</S>' 5\nb\"'s\" 4\nb'caf\\xc3\\xa9' 3\nb'\\\\' 2\nb' 1\n"
    assert Vocabulary.loads(text).words[4:] == ("a", "'s", "café", "\\", "b'")


def test_im2txt_words_by_our_ids_and_the_rows_of_its_model():
    text = "a 9\n</S> 5\n<S> 5\n. 4\n's 2\n"
    vocabulary, rows = Vocabulary.of_im2txt(text, 9, "w.txt")
    assert vocabulary.words == ("<pad>", "<start>", "<end>", "<unk>", "a", ".", "'s", "<unk>", "<unk>", "<unk>")
    assert vocabulary.counts == (0, 0, 0, 0, 9, 4, 2, 0, 0, 0)
    assert rows == [-1, 2, 1, 5, 0, 3, 4, 6, 7, 8]  # UNK is the row behind the last word
    assert vocabulary.further_unknown == (7, 8, 9)
    assert vocabulary.encode("a zebra", 4)[0] == [START, 4, UNK, END]
    assert vocabulary.decode([4, 9, END]) == "a <unk>"
    assert Vocabulary.loads(vocabulary.dumps()) == vocabulary
    listed, rows = Vocabulary.of_im2txt("<S> 5\n</S> 5\n<UNK> 4\na 2\n", 4, "w.txt")
    assert listed.words[3:] == ("<unk>", "a") and rows == [-1, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 9\n<S> 5\n", "w.txt: expected word_counts.txt of im2txt, with a line for </S>, found none"),
        ("a 9\nb 1\n", "w.txt: expected word_counts.txt of im2txt, with a line for <S>, found none"),
        ("a 9\n<S> 5\n</S> 5\nb 1\n", "w.txt: expected at most 4 words, <UNK> counted, as the model has, found 5;"),
        ("a 9\n<S> 5\n</S>", "w.txt: line 3: expected `word count`, found '</S>'"),
    ],
)
def test_im2txt_words_that_do_not_fit(text, message):
    with pytest.raises(InputError) as error:
        Vocabulary.of_im2txt(text, 4, "w.txt")
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "v.txt: expected `word count` lines, found an empty file"),
        ("<pad> 0\nword\n", "v.txt: line 2: expected `word count`, found 'word'"),
        ("a 1\nb 2\n", "v.txt: vocabulary: expected the first words"),
        ("<pad> 0\n<start> 0\n<end> 0\n<unk> 0\na 1\na 1\n", "v.txt: vocabulary: a word is listed twice"),
    ],
)
def test_loads_says_what_is_wrong(text, message):
    with pytest.raises(InputError) as error:
        Vocabulary.loads(text, "v.txt")
    assert str(error.value).startswith(message)
