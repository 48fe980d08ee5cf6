"""How the command line's search is understood, and text made of words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.captions.detokenise import detokenise
from pipelines.captions.search import Search, resolve
from tfrecords_schema.dataset_info import FeatureSpec
from tfrecords_schema.errors import InputError
from tfrecords_schema.model_info import ModelInfo
from tfrecords_schema.vocabulary import END, PAD, SPECIAL_WORDS, Vocabulary

FEATURES = FeatureSpec("inception_v3", "layer", "random", "digest", (4,), "float16", "float32", "bilinear")
INFO = ModelInfo({}, FEATURES, 20, "digest", "digest", {}, {"beam_width": 3, "length_penalty": 0.7})


def test_what_is_not_said_is_as_the_model_was_validated():
    assert resolve({"sample": False, "beam_width": None}, INFO) == Search(3, 3, max_length=20, length_penalty=0.7)
    assert resolve({"beam_width": 5}, INFO) == Search(5, 5, max_length=20, length_penalty=0.7)
    assert resolve({"captions_per_image": 2}, INFO) == Search(3, 2, max_length=20, length_penalty=0.7)
    assert resolve({"captions_per_image": 10}, INFO) == Search(10, 10, max_length=20, length_penalty=0.7)
    assert resolve({"sample": True, "top_p": 0.9}, INFO) == Search(
        captions_per_image=1, max_length=20, sample=True, top_p=0.9
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"beam_width": 3, "captions_per_image": 4}, "--captions_per_image: .* found 4; give --beam_width 4"),
        ({"beam_width": 1001}, "--beam_width: expected at most 1000, found 1001"),
        ({"max_length": 2}, "--max_length: expected at least 3, found 2"),
        ({"min_length": 21}, "--min_length: expected at most the greatest length, 20, found 21"),
        ({"length_penalty": float("nan")}, "--length_penalty: expected a number from 0 to 10, found nan"),
        ({"top_p": 0.5}, "--top_p: expected --sample beside it, found none"),
        ({"seed": 0}, "--seed: expected --sample beside it"),
        ({"sample": True, "beam_width": 3}, "--beam_width: expected it without --sample"),
        ({"sample": True, "length_penalty": 0.0}, "--length_penalty: expected it without --sample"),
        ({"sample": True, "temperature": 0.0}, "--temperature: expected a number above 0, found 0.0"),
        ({"sample": True, "top_p": 1.5}, "--top_p: expected a number above 0, and at most 1, found 1.5"),
    ],
)
def test_what_does_not_fit_is_refused(flags, message):
    with pytest.raises(InputError, match=message):
        resolve(flags, INFO)


def test_only_what_shapes_the_captions_is_compared_with_a_later_run():
    assert "seed" not in resolve({}, INFO).describe() and "beam_width" in resolve({}, INFO).describe()
    assert {"seed", "top_p"} <= resolve({"sample": True}, INFO).describe().keys()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("a man 's dog is n't here .", "a man's dog isn't here."),
        ("two dogs , one ball !", "two dogs, one ball!"),
        ("a sign ( `` stop '' ) on a street", 'a sign ("stop") on a street'),
        ("it costs $ 5 ; or 5 %", "it costs $5; or 5%"),
        ("a t-shirt at five o'clock", "a t-shirt at five o'clock"),
        ("", ""),
    ],
)
def test_text_reads_like_text(words, text):
    assert detokenise(words.split()) == text


@pytest.mark.parametrize(
    ("words", "text"),
    [("a dog", "A dog"), ('"a dog"', '"A dog"'), ("", ""), ("...", "..."), ("élan vital", "Élan vital")],
)
def test_a_capital_letter_where_it_is_asked_for(words, text):
    assert detokenise([words], capitalise=True) == text


VOCABULARY = Vocabulary((*SPECIAL_WORDS, "a", "dog", ".", "'s", "("), (0, 0, 0, 0, 5, 4, 3, 2, 1))


@given(st.lists(st.integers(0, len(VOCABULARY) - 1)))
def test_end_and_padding_are_never_shown(ids):
    text = detokenise(VOCABULARY.words_of(ids))
    assert not any(word in text for word in ("<pad>", "<start>", "<end>"))
    assert " ." not in text and " '" not in text and "( " not in text
    assert text == text.strip() and "  " not in text
    kept = ids[: ids.index(END)] if END in ids else ids
    assert text.replace(" ", "") == "".join(VOCABULARY.words[i] for i in kept if i not in (PAD, 1))
