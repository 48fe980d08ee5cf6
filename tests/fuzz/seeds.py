"""The valid files that cases start from: those that the commands write, and those of others that they read."""

from __future__ import annotations

import csv
import json
import pathlib
import shutil
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from scripts import scenes
from tests.support import commands, tar_files
from tests.support.small import TINY, train_without_java, write_features
from tfrecords_schema.networks import registry
from tfrecords_schema.vocabulary import Vocabulary

_PICTURES = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP", "tiff": "TIFF", "bmp": "BMP"}


def make(directory: pathlib.Path) -> None:
    """All of them, from nothing: half a minute."""
    scenes.write_coco(directory / "drawn", train=12, val=4, size=(64, 48))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.NETWORKS, "tiny", TINY)
        write_features(directory / "features", "tiny", directory / "drawn", records_per_shard=6)
        train_without_java(directory / "features", directory / "job", epochs=1)
        gather(directory, directory / "drawn", directory)


def gather(directory: pathlib.Path, coco_dir: pathlib.Path, trained: pathlib.Path) -> None:
    """From what tests have already; `trained` holds features/ and job/. A network "tiny" must be known."""
    images = directory / "images"
    images.mkdir(parents=True)
    for path in sorted((coco_dir / "val2017").iterdir())[:4]:
        shutil.copy(path, images / path.name)
    names = sorted(path.name for path in images.iterdir())
    _pictures(directory / "pictures", images / names[0])
    if trained != directory:
        shutil.copytree(trained / "features", directory / "features")
        shutil.copytree(trained / "job", directory / "job", ignore=shutil.ignore_patterns("tensorboard"))
    _captions(directory, names)
    _tables(directory, images, names)
    _tars(directory, images, names)
    _words(directory)
    table = directory / "captions"
    model = str(directory / "job/export")
    commands.caption(images=[str(images)], model=model, output=str(table), rows_per_file=2, format=["csv"])
    (directory / "told").mkdir()  # what readers compare with, and no case changes
    for path in (table / "report.json", directory / "job/config.json"):
        shutil.copy(path, directory / "told" / path.name)
    _begin(shutil.copytree(table, directory / "begun"))
    rows = pq.read_table(sorted(table.glob("*.parquet"))).to_pylist()
    (directory / "told/rows.json").write_text(json.dumps({row["image_id"]: row["caption"] for row in rows}))
    given = [{"image_id": row["image_id"], "caption": row["caption"]} for row in rows]
    (directory / "predictions").mkdir()
    (directory / "predictions/a.json").write_text(json.dumps(given))
    (directory / "predictions/a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in given))
    pq.write_table(pa.Table.from_pylist(given), directory / "predictions/a.parquet")


def _begin(directory: pathlib.Path) -> None:
    """Makes of a complete output one whose run was killed before it was published."""
    report = directory / "report.json"
    (directory / ".work/finished").mkdir(parents=True)
    for path in directory.glob("captions-*"):
        path.rename(directory / ".work/finished" / path.name)
    (directory / ".work/options.json").write_text(json.dumps(json.loads(report.read_text())["options"]))
    shutil.rmtree(directory / "rejects")
    (directory / ".shards/list.parquet").unlink()
    report.unlink()


def _pictures(directory: pathlib.Path, drawn: pathlib.Path) -> None:
    directory.mkdir()
    for ending, kind in _PICTURES.items():
        image = Image.open(drawn)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.Image.save(image, directory / f"a.{ending}", kind, **({"exif": exif} if kind in ("JPEG", "WEBP") else {}))
    Image.open(drawn).convert("P").save(directory / "b.png", transparency=3)
    Image.open(drawn).save(directory / "b.tiff", compression="tiff_lzw")
    Image.open(drawn).save(directory / "b.jpg", progressive=True)


def _captions(directory: pathlib.Path, names: list[str]) -> None:
    """Captions files of all kinds, of the same images."""
    said = [f"A large red circle, number {n} of caf\u00e9s." for n in (1, 2)]
    folder = directory / "said"
    folder.mkdir()
    coco = {
        "images": [{"id": n, "file_name": name, "width": 64} for n, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n // 2 % len(names), "caption": said[n % 2]} for n in range(8)],
    }
    (folder / "coco.json").write_text(json.dumps(coco))
    sentences = [{"raw": text, "tokens": text.split()} for text in said]
    splits = ["train", "val", "test", "restval"]
    images = [
        {"filename": name, "split": split, "sentences": sentences, "cocoid": n, "filepath": "."}
        for n, (name, split) in enumerate(zip(names, splits, strict=True))
    ]
    (folder / "karpathy.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    rows = [
        (name, text, split)
        for name, split in zip(names, ["train", "train", "val", "test"], strict=True)
        for text in said
    ]
    with (folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption", "split"), *rows])
    lines = [json.dumps(dict(zip(("image", "caption", "split"), row, strict=True))) for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")


def _tables(directory: pathlib.Path, images: pathlib.Path, names: list[str]) -> None:
    """Tables that --images takes, beside their images, and zip files of these."""
    folder = directory / "tables"
    shutil.copytree(images, folder)
    rows = [{"file_name": name, "id": f"i{n}", "licence": n % 2} for n, name in enumerate(names)]
    (folder / "coco.json").write_text(json.dumps({"images": rows}))
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    content = [(folder / name).read_bytes() for name in names]
    cells = {"image": content, "id": [row["id"] for row in rows], "licence": [1, 2, 3, 4]}
    pq.write_table(pa.table(cells), folder / "cells.parquet", row_group_size=2)
    structs = [{"bytes": data, "path": name} for data, name in zip(content, names, strict=True)]
    pq.write_table(pa.table({"image": structs, "licence": [1, 2, 3, 4]}), folder / "structs.parquet")
    (directory / "zips").mkdir()
    for number, method in enumerate([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]):
        with zipfile.ZipFile(directory / f"zips/{number}.zip", "w", method) as archive:
            for name, data in zip(names, content, strict=True):
                archive.writestr(f"photos/{name}", data)


def _tars(directory: pathlib.Path, images: pathlib.Path, names: list[str]) -> None:
    """Shards in every form of tar, with a sample of each image."""
    (directory / "tars").mkdir()
    for number, form in enumerate([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]):
        members = []
        for name in names:
            stem = f"{number}{name.partition('.')[0]}"
            members.append((f"{stem}.jpg", (images / name).read_bytes()))
            members.append((f"{stem}.txt", "A large red circle of caf\u00e9s.".encode()))
            members.append((f"{stem}.json", json.dumps({"key": stem, "said": ["One.", "Two."]}).encode()))
        tar_files.write(directory / f"tars/{number}.tar", members, form)


def _words(directory: pathlib.Path) -> None:
    """im2txt's list of words, and vectors of ours."""
    vocabulary = Vocabulary.loads((directory / "features/vocabulary.txt").read_text())
    folder = directory / "words"
    folder.mkdir()
    words = ["<S> 9", "</S> 9", *(f"{word} {9 - n % 5}" for n, word in enumerate(vocabulary.words[4:]))]
    (folder / "word_counts.txt").write_text("\n".join(words) + "\n")
    vectors = [f"{word} {n / 7:.3f} -{n}.5 1e-3 0" for n, word in enumerate(vocabulary.words[4:])]
    (folder / "vectors.txt").write_text("\n".join(vectors) + "\n")
