"""The command: files that do not fit, told in a line with nothing written; and a model of full size, everywhere."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import pipelines
from pipelines.captions.image_captioner import as_item
from pipelines.clock import StageClock
from scripts import scenes
from tests.support import ROOT, commands, im2txt_graph
from tests.support.outputs import read_split, rows
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import IM2TXT_RESIZE
from tfrecords_schema.manifests.model_info import ModelInfo
from trainer import import_im2txt

ROWS = 400
START, END = 3, 2
# Of 400 rows 9 stand behind UNK.
COUNTS = "a 999\n. 990\n</S> 900\n<S> 900\n's 800\nman 700\n" + "".join(f"w{i} {600 - i}\n" for i in range(384))
PHOTOS = 20


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, str]:
    """Files of a model without a CNN, and its words."""
    directory = tmp_path_factory.mktemp("small")
    model = im2txt_graph.build(ROWS, size=12, units=10, cnn=False)
    (directory / "word_counts.txt").write_text(COUNTS)
    (directory / "text.pb").write_text("no graph\n" * 99)
    return {
        "v1": model.save_checkpoint(directory / "v1/model.ckpt-7", 1),
        "v2": model.save_checkpoint(directory / "v2/model.ckpt-7", 2),
        "graph": model.save_frozen(directory / "graph.pb"),
        "text": str(directory / "text.pb"),
        "words": str(directory / "word_counts.txt"),
    }


def refused(output: pathlib.Path, **flags) -> str:
    """What the command says, which is one line; it writes nothing."""
    with pytest.raises(InputError) as error:
        commands.import_im2txt(output=str(output), **flags)
    assert not output.exists() and not list(output.parent.glob(".*making"))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_checkpoint_of_another_architecture(small, tmp_path):
    said = refused(tmp_path / "export", checkpoint=small["v2"], word_counts=small["words"])
    name = "InceptionV3/Conv2d_1a_3x3/weights [3, 3, 3, 32]"
    expected = (
        f"--checkpoint: {small['v2']}: expected im2txt's Show and Tell, with a tensor {name}, found none of this name"
    )
    assert said == expected


def test_a_graph_without_the_nodes(small, tmp_path):
    tf.io.write_graph(tf.Graph().as_graph_def(), str(tmp_path), "empty.pb", as_text=False)
    graph = tf.compat.v1.GraphDef.FromString(pathlib.Path(small["graph"]).read_bytes())
    for node in graph.node:
        node.name = node.name.replace("lstm/state_feed", "rnn/state_feed")
    (tmp_path / "other.pb").write_bytes(graph.SerializeToString())
    for name, missing in (("empty.pb", "0 nodes without image_feed"), ("other.pb", "nodes without lstm/state_feed")):
        said = refused(tmp_path / "export", graph=str(tmp_path / name), word_counts=small["words"])
        assert said.startswith(
            f"--graph: {tmp_path / name}: expected a frozen graph of im2txt with the nodes image_feed, "
        )
        assert said.endswith(missing)


def test_words_of_another_model(small, tmp_path):
    (tmp_path / "w.txt").write_text(COUNTS + "".join(f"more{i} 1\n" for i in range(10)))
    said = refused(tmp_path / "export", graph=small["graph"], word_counts=str(tmp_path / "w.txt"))
    assert said.startswith(
        f"--word_counts: {tmp_path}/w.txt: expected at most 400 words, <UNK> counted, as the model has"
    )
    assert "found 401; " in said


@pytest.mark.parametrize("kind", ["v1", "v2", "graph", "text", "absent", "words"])
def test_files_that_are_cut_off_or_something_else(small, tmp_path, kind):
    flag, words = ("graph" if kind in ("graph", "text") else "checkpoint"), small["words"]
    given = pathlib.Path(small.get(kind, "/nowhere/model.ckpt-7"))
    if kind == "words":
        flag, given, words = "checkpoint", pathlib.Path(small["v1"]), str(tmp_path / "cut.txt")
        pathlib.Path(words).write_text(COUNTS[:-4])
    elif kind in ("v1", "graph"):
        cut = tmp_path / given.name
        cut.write_bytes(given.read_bytes()[:-100])
        given = cut
    elif kind == "v2":
        for part in given.parent.glob(f"{given.name}.*"):
            data = part.read_bytes()
            (tmp_path / part.name).write_bytes(data if part.suffix == ".index" else data[:-100])
        given = tmp_path / given.name
    said = refused(tmp_path / "export", word_counts=words, **{flag: str(given)})
    if kind == "words":
        assert said == f"--word_counts: {words}: line 390: expected `word count`, found 'w383 '"
    else:
        what = "a frozen graph" if flag == "graph" else "a whole checkpoint"
        assert said.startswith(f"--{flag}: {given}: expected {what} of TensorFlow, found what is none: ")


def test_flags_that_do_not_fit(small, tmp_path):
    told = refused(tmp_path / "export", word_counts=small["words"])
    assert told == "--checkpoint or --graph: expected one of them, found none"
    told = refused(tmp_path / "export", graph=small["graph"], checkpoint=small["v1"], word_counts=small["words"])
    assert told == "--checkpoint or --graph: expected one of them, found both"
    told = refused(tmp_path / "export", graph=small["graph"], word_counts=str(tmp_path / "none.txt"))
    assert told == f"--word_counts: expected a file, found none at {tmp_path}/none.txt"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"--output: expected an export or nothing in .*, found letter.txt"):
        commands.import_im2txt(output=str(tmp_path / "other"), graph=small["graph"], word_counts=small["words"])
    with pytest.raises(SystemExit) as error:
        import_im2txt.main(["--graph", small["graph"], "--word_counts", small["words"], "--output", ""])
    assert error.value.code == 2


class Full:
    """A model of full size, its files and its exports, made once."""

    def __init__(self, directory: pathlib.Path):
        scenes.write_coco(directory / "coco", train=4, val=PHOTOS, size=(200, 150))
        self.coco = directory / "coco"
        self.photos = sorted((self.coco / "val2017").glob("*.jpg"))
        self.model = im2txt_graph.build(ROWS)
        mean = next(op for op in self.model.graph.get_operations() if op.type == "Mean").outputs[0]
        with self.model.session() as session:
            made = [session.run(mean, {"image_feed:0": photo.read_bytes()})[0] for photo in self.photos]
        self.features = dict(zip((photo.stem for photo in self.photos), made, strict=True))
        self._teach(np.stack(made))
        (directory / "word_counts.txt").write_text(COUNTS)
        words = str(directory / "word_counts.txt")
        given = {
            "v1": ("--checkpoint", self.model.save_checkpoint(directory / "v1/model.ckpt-7", 1)),
            "v2": ("--checkpoint", self.model.save_checkpoint(directory / "v2/model.ckpt-7", 2)),
            "frozen": ("--graph", self.model.save_frozen(directory / "graph.pb")),
        }
        self.infos = {}
        for kind, flags in given.items():
            output = directory / "exports" / kind
            command = ["-m", "trainer.import_im2txt", *flags, "--word_counts", words, "--output", str(output)]
            done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True)
            assert done.stdout.startswith(
                "words       388; 9 rows of the model behind them mean <unk>\nWARNING: 9 of these"
            )
            assert not done.stderr
            self.infos[kind] = ModelInfo.loads((output / "model_info.json").read_text())
        self.export = str(directory / "exports/frozen")
        words_of = [line.split()[0] for line in COUNTS.splitlines()]
        self.words = np.array([*words_of, *["<unk>"] * (ROWS - len(words_of))])
        self.theirs = {}
        with self.model.session() as session:
            for photo in self.photos:
                self.theirs[photo.stem] = im2txt_graph.beam_search(session, photo.read_bytes(), START, END)

    def _teach(self, features: np.ndarray) -> None:
        """Makes what a model has learned: to see how images differ, to end captions, and that START never follows."""
        weights, middle = self.model.weights, features.mean(0)
        image = weights["image_embedding/weights"]
        image -= np.outer(middle, middle @ image) / (middle @ middle)
        image *= 2 / (features @ image).std()
        weights["logits/biases"][END] += 1
        weights["logits/biases"][START] -= 60

    def texts(self, photo: pathlib.Path) -> list[str]:
        """What im2txt says of one, best first, END left out."""
        return [" ".join(self.words[[i for i in ids if i != END]]) for _, ids in self.theirs[photo.stem]]


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Full:
    return Full(tmp_path_factory.mktemp("full"))


def written(text: str) -> str:
    """As people write it."""
    return re.sub(r"^ ", "", re.sub(r" (?=\.|'s)", "", text))


@pytest.mark.slow
def test_a_full_model_gives_the_same_softmax_and_captions_whatever_it_came_in(full):
    v1, v2, frozen = (full.infos[kind] for kind in ("v1", "v2", "frozen"))
    assert v1.digest == v2.digest == frozen.digest
    assert v1.features.weights_digest == v2.features.weights_digest == frozen.features.weights_digest
    captioner = pipelines.load(full.export)
    found = captioner(full.photos)
    different = set()
    for photo, captions in zip(full.photos, found, strict=True):
        assert [" ".join(caption.words) for caption in captions][: len(full.theirs[photo.stem])] == full.texts(photo)
        for caption, (log_prob, _) in zip(captions, full.theirs[photo.stem], strict=False):
            assert caption.log_prob == pytest.approx(log_prob, abs=1e-3)
        different.add(captions[0].text)
    assert len(different) > 5 and any(best[-1] == END for (_, best), *_ in full.theirs.values())
    # The first words' softmax, from the photo to the probability.
    features = captioner.captioning.features
    (batch,) = features.batches([as_item(str(photo)) for photo in full.photos[:8]], StageClock(), lambda: features)
    ids = np.array([[captioner.vocabulary.ids["a"]]] * 8, np.int32)
    signature = tf.saved_model.load(full.export).signatures["score"]
    log_probs = signature(features=tf.constant(batch.features), ids=tf.constant(ids))["word_log_prob"].numpy()[:, 0]
    with full.model.session() as session:
        for photo, log_prob in zip(full.photos, log_probs, strict=False):
            state = session.run("lstm/initial_state:0", {"image_feed:0": photo.read_bytes()})
            softmax = session.run("softmax:0", {"input_feed:0": [START], "lstm/state_feed:0": state})
            assert np.exp(log_prob) == pytest.approx(softmax[0, 0], abs=1e-5)


@pytest.mark.slow
def test_an_export_of_it_is_used_as_any_other(full, tmp_path, capsys):
    images = [str(photo) for photo in full.photos]
    report = commands.caption(images=images, model=full.export, output=str(tmp_path / "captions"))
    assert report["options"]["forbid_unk"] is False and report["options"]["beam_width"] == 3
    assert capsys.readouterr().out.startswith(
        "search: beam_width 3, max_length 20, min_length 2, length_penalty 0.0, forbid_unk False; what no flag says is "
    )
    table = rows(tmp_path / "captions")
    plain = {photo.stem: written(full.texts(photo)[0]) for photo in full.photos}
    assert {key: row["caption"] for key, row in table.items()} == plain
    shown = subprocess.run(
        [sys.executable, "-m", "pipelines.caption", images[0], "--model", full.export, "--format", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(shown.stdout)["caption"] == plain[full.photos[0].stem]
    references = str(full.coco / "annotations/captions_val2017.json")
    scores = commands.evaluate(
        captions=[str(tmp_path / "captions")], references=[references], output=str(tmp_path / "s")
    )
    assert scores


@pytest.mark.slow
def test_features_with_its_network_are_those_of_the_graph(full, tmp_path):
    given = {"coco_dir": str(full.coco), "weights": full.export, "feature_dtype": "float32", "max_caption_length": 16}
    commands.features(output=str(tmp_path / "features"), extractor="inception_v3_im2txt", min_word_count=1, **given)
    records = read_split(tmp_path / "features", "val")
    assert len(records) == PHOTOS
    for record in records:
        expected = full.features[pathlib.Path(record["image/uri"]).stem]
        np.testing.assert_allclose(record["image/feature"], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert full.infos["v1"].features.resize == IM2TXT_RESIZE
    report = commands.caption(features=str(tmp_path / "features"), model=full.export, output=str(tmp_path / "captions"))
    assert report["records"] == PHOTOS + 4
    table = rows(tmp_path / "captions")
    for photo in full.photos:
        assert table[str(int(photo.stem))]["caption"] == written(full.texts(photo)[0])
