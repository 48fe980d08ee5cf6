import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords_schema import record, shards

RECORD = {
    "image/id": "42",
    "image/uri": "gs://bucket/a b%20#é.jpg",
    "image/height": 480,
    "image/width": 640,
    "image/feature": np.array([0.5, -1.25, 3.0]),
    "caption/text": ["A dog.", "Ein größerer Hund"],
    "caption/ids": [[1, 4, 2, 0], [1, 3, 5, 2]],
    "caption/length": [3, 4],
}
WITH_IMAGE = {**RECORD, record.IMAGE: b"\xff\xd8 no text \xff\xd9"}


def equal(a, b) -> bool:
    return all(np.array_equal(np.asarray(a[key]), np.asarray(b[key])) for key in a) and a.keys() == b.keys()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_encode_file_parse_round_trip(tmp_path, dtype):
    """Through a file that TensorFlow's own reader reads, checksums included."""
    path = tmp_path / "a.tfrecord"
    with open(path, "wb") as handle:
        written = sum(shards.write_framed(handle, record.encode(RECORD, dtype)) for _ in range(3))
    assert path.stat().st_size == written
    dataset = tf.data.TFRecordDataset(str(path)).map(lambda s: record.parse(s, (3,), dtype, 4))
    parsed = list(dataset.as_numpy_iterator())
    assert len(parsed) == 3
    values = {**parsed[2], "caption/text": [text.decode() for text in parsed[2]["caption/text"]]}
    values |= {key: values[key].decode() for key in ("image/id", "image/uri")}
    assert equal(values, RECORD)
    assert parsed[0]["image/feature"].dtype == dtype


@settings(deadline=None, max_examples=30)
@given(
    st.text(),
    st.lists(st.text(), min_size=1, max_size=6),
    st.lists(st.integers(-2048, 2048), min_size=6, max_size=6),  # which float16 holds exactly
    st.integers(2, 5),
)
def test_decode_undoes_encode(image_id, captions, feature, max_length):
    ids = np.arange(len(captions) * max_length).reshape(len(captions), max_length)
    values = {
        **RECORD,
        "image/id": image_id,
        "image/feature": np.array(feature, np.float16).reshape(2, 3),
        "caption/text": captions,
        "caption/ids": ids,
        "caption/length": [max_length] * len(captions),
    }
    assert equal(record.decode(record.encode(values, "float16"), (2, 3), "float16", max_length), values)


def test_a_file_name_that_is_no_utf8_survives():
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    decoded = record.decode(record.encode({**RECORD, "image/uri": name}, "float32"), (3,), "float32", 4)
    assert decoded["image/uri"] == name


def test_an_image_goes_through_as_it_is():
    serialized = record.encode(WITH_IMAGE, "float32", has_image=True)
    assert equal(record.decode(serialized, (3,), "float32", 4, has_image=True), WITH_IMAGE)
    parsed = record.parse(serialized, (3,), "float32", 4, has_image=True)
    assert parsed[record.IMAGE].numpy() == WITH_IMAGE[record.IMAGE] and parsed.keys() == WITH_IMAGE.keys()


def test_an_image_that_should_not_be_there_is_refused_everywhere():
    with pytest.raises(KeyError, match=record.IMAGE):
        record.encode(WITH_IMAGE, "float16")
    serialized = record.encode(WITH_IMAGE, "float16", has_image=True)
    with pytest.raises(KeyError, match=record.IMAGE):
        record.decode(serialized, (3,), "float16", 4)
    with pytest.raises(tf.errors.InvalidArgumentError, match=record.IMAGE):
        record.parse(serialized, (3,), "float16", 4)


@pytest.mark.parametrize("key", [field.key for field in record.FIELDS])
def test_encode_names_a_missing_key(key):
    values = {k: v for k, v in WITH_IMAGE.items() if k != key}
    with pytest.raises(KeyError, match=key):
        record.encode(values, "float16", has_image=True)


def test_encode_names_an_unknown_key():
    with pytest.raises(KeyError, match="image/colour"):
        record.encode({**RECORD, "image/colour": 1}, "float16")


@pytest.mark.parametrize("key", [field.key for field in record.FIELDS])
def test_parse_and_decode_name_a_missing_key(key):
    example = tf.train.Example.FromString(record.encode(WITH_IMAGE, "float16", has_image=True))
    del example.features.feature[key]
    with pytest.raises(tf.errors.InvalidArgumentError, match=key):
        record.parse(example.SerializeToString(), (3,), "float16", 4, has_image=True)
    with pytest.raises(KeyError, match=key):
        record.decode(example.SerializeToString(), (3,), "float16", 4, has_image=True)


def test_decode_names_an_unknown_key():
    example = tf.train.Example.FromString(record.encode(RECORD, "float16"))
    example.features.feature["image/colour"].int64_list.value.append(1)
    with pytest.raises(KeyError, match="image/colour"):
        record.decode(example.SerializeToString(), (3,), "float16", 4)


def test_parse_refuses_captions_of_another_length():
    with pytest.raises(tf.errors.InvalidArgumentError, match="caption/ids"):
        record.parse(record.encode(RECORD, "float16"), (3,), "float16", 5)
