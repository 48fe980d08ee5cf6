import collections

from hypothesis import given
from hypothesis import strategies as st

from tfrecords_schema import shards


def test_names():
    assert shards.shard_name("train", 3, 8) == "train-00003-of-00008.tfrecord"
    assert shards.parse_shard_name("captions-00000-of-00004.parquet") == ("captions", 0, 4, ".parquet")
    assert shards.parse_shard_name("vocabulary.txt") is None


@given(st.sampled_from(shards.SPLITS), st.integers(0, 10**6), st.integers(1, 10**6))
def test_parse_undoes_name(prefix, index, count):
    assert shards.parse_shard_name(shards.shard_name(prefix, index, count)) == (prefix, index, count, ".tfrecord")


def test_the_shard_of_an_id_never_changes():
    """Fixed values: a change here would scatter every existing output's images over other shards."""
    assert [shards.shard_of(image_id, 1000) for image_id in ("1", "397133", "é")] == [940, 938, 502]


def test_shards_are_about_equal_and_order_is_independent_of_the_shard():
    ids = [str(i) for i in range(8000)]
    sizes = collections.Counter(shards.shard_of(i, 8) for i in ids)
    assert len(sizes) == 8 and max(sizes.values()) < 1.15 * min(sizes.values())
    first = [i for i in ids if shards.shard_of(i, 8) == 0]
    ordered = sorted(first, key=shards.order_in_shard)
    assert ordered != sorted(first) and sorted(ordered) == sorted(first)


def test_shard_count():
    assert [shards.shard_count(n, 100) for n in (0, 1, 100, 101)] == [1, 1, 1, 2]
