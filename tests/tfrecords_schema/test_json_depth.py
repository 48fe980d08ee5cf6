"""The depth of JSON against that of what Python's own parser gives."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords_schema import json_depth
from tfrecords_schema.json_depth import DEEPEST, require_shallow, shallow

VALUES = st.recursive(
    st.text('"\\[]{}a', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("[\\", max_size=2), inner),
)


def depth(value) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@settings(deadline=None, max_examples=200)
@given(VALUES, st.integers(-3, 3), st.integers(1, 9))
def test_as_deep_as_what_is_parsed(value, more, chunk):
    text = json.dumps(value)
    wrapped = DEEPEST + more - depth(value)
    data = ("[" * wrapped + text + "]" * wrapped).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_depth, "_CHUNK_BYTES", chunk)
        if more > 0:
            with pytest.raises(ValueError, match=r"^lists and objects nested deeper than 64 levels$"):
                require_shallow(data)
        else:
            require_shallow(data)


def test_pieces_are_passed_on_as_they_are():
    pieces = [b'{"a[[": ["\\"[', b'", {"b\\\\": ', b"[]}]}"]
    assert list(shallow(pieces)) == pieces
