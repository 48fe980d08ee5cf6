"""From a caption's words to text that reads like text."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Vocabularies of ours have no punctuation; those of others do, in the manner of the Penn Treebank: `do n't`, `man 's`.
_JOINS_LEFT = re.compile(r"[.,!?;:%)\]}…’”]+|''|['’](?:s|re|ve|ll|d|m|em|t)|n['’]t", re.IGNORECASE)
_JOINS_RIGHT = re.compile(r"[(\[{$#¿¡“]|``")
_QUOTES = {"``": '"', "''": '"'}


def detokenise(words: Iterable[str], capitalise: bool = False) -> str:
    """Words -> one line: no space before punctuation or inside brackets, and one between any other two words.

    Args:
      capitalise: the first letter becomes a capital.
    """
    text, glued = "", True
    for word in words:
        space = "" if glued or _JOINS_LEFT.fullmatch(word) else " "
        text += space + _QUOTES.get(word, word)
        glued = bool(_JOINS_RIGHT.fullmatch(word))
    return _capitalised(text) if capitalise else text


def _capitalised(text: str) -> str:
    first = re.search(r"\w", text)
    return text if first is None else text[: first.start()] + first[0].upper() + text[first.end() :]
