"""Text made of words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.captions.detokenise import detokenise
from tfrecords_schema.vocabulary import END, PAD, SPECIAL_WORDS, Vocabulary


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
