import pytest

from tfrecords_schema import show


def test_show_tells_what_a_directory_holds(make_features, capsys):
    output, _ = make_features(records_per_shard=10)
    show.main([str(output), "--n", "2"])
    text = capsys.readouterr().out
    assert "tiny, layer means: float16 [48], computed in float32" in text
    assert (
        "train       24 images, 120 captions; 3 shards" in text
        and "val         8 images, 40 captions; 1 shard," in text
    )
    assert text.count("96 x 72 pixels") == 4 and "<start>:1 " in text and " <end>:2" in text


def test_what_stands_in_a_directory_gives_a_terminal_no_orders(features_dir, capsys):
    path = features_dir / "features_info.json"
    path.write_text(path.read_text().replace('"resize": "', r'"resize": "x\u001b[2J\ny '))
    show.main([str(features_dir), "--n", "0"])
    assert r"resize      x\x1b[2J\ny " in capsys.readouterr().out


def test_show_names_what_is_damaged(make_features, tmp_path, capsys):
    output, _ = make_features()
    shard = output / "train-00000-of-00001.tfrecord"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    for directory, message in (
        (output, f"{shard}: expected 24 records, found it damaged: record 1"),
        (tmp_path, "none"),
    ):
        with pytest.raises(SystemExit) as exit_:
            show.main([str(directory), "--n", "24"])
        assert exit_.value.code == 2 and message in capsys.readouterr().err
