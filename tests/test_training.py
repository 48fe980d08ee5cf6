"""Decoder, loss, replicas, resume and export, on a tiny decoder."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.captioner import Captioner, Search, open_model
from tests.conftest import training_flags
from tfrecords_schema.errors import InputError, RunError
from tfrecords_schema.vocabulary import END, PAD, START, UNK
from trainer import dataset, export, task
from trainer.config import DecoderConfig, TrainConfig
from trainer.decoder import ShowAndTell

CONFIG = DecoderConfig(
    vocabulary_size=11,
    max_length=7,
    feature_shape=(5,),
    embedding_dim=6,
    units=8,
    feature_scaling="whiten",
    dropout=0.0,
)


@pytest.fixture
def decoder() -> ShowAndTell:
    keras.utils.set_random_seed(1)
    model = ShowAndTell(CONFIG)
    model.build()
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:  # larger than at the start, so that words differ in probability
        weight.assign(generator.normal(0, 0.7, weight.shape))
    model.scaling.measure(generator.normal(size=5), np.cov(generator.normal(size=(5, 50))))
    return model


def batch(size: int, seed: int = 0):
    """((features, words in), words out), captions of 3 to 5 words."""
    generator = np.random.default_rng(seed)
    ids = np.full((size, 7), PAD, np.int32)
    for row in ids:
        length = generator.integers(3, 6)
        row[: length + 2] = [START, *generator.integers(4, 11, length), END]
    return (generator.normal(size=(size, 5)).astype(np.float32), ids[:, :-1]), ids[:, 1:]


def test_the_layer_and_the_stepped_cell_give_the_same_logits(decoder):
    (features, ids), _ = batch(4)
    whole = decoder((features, ids), training=False)  # [4, 6, 11]
    state = decoder.initial_state(features)
    for time in range(ids.shape[1]):
        logits, state = decoder.step(ids[:, time], state)
        np.testing.assert_allclose(logits, whole[:, time], atol=1e-5)


def independent_loss(decoder, inputs, targets) -> float:
    """Cross-entropy per real token, in numpy."""
    logits = decoder(inputs, training=False).numpy().astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_probs, targets[..., None], -1)[..., 0]
    return -picked[targets != PAD].mean()


@pytest.fixture
def one_step(decoder, tmp_path):
    """A function: runs of (replicas, captions, padding), side by side -> for each (loss, updated weights)."""

    def run(*runs):
        processes = []
        for replicas, size, padding in runs:
            (features, ids), targets = batch(size)
            ids, targets = (np.pad(a, ((0, 0), (0, padding)), constant_values=PAD) for a in (ids, targets))
            weights = {f"weight_{i}": weight for i, weight in enumerate(decoder.get_weights())}
            initial, out = (tmp_path / f"{name}-{replicas}-{size}-{padding}.npz" for name in ("initial", "out"))
            config = json.dumps(vars(CONFIG))
            np.savez(initial, config=config, features=features, ids=ids, targets=targets, **weights)
            command = [sys.executable, "-m", "tests.one_step", str(replicas), str(initial), str(out)]
            processes.append((subprocess.Popen(command, stderr=subprocess.PIPE), replicas, out))
        results = []
        for process, replicas, out in processes:
            _, stderr = process.communicate(timeout=120)
            assert process.returncode == 0, stderr.decode()
            found = np.load(out)
            assert found["replicas"] == replicas
            results.append((float(found["loss"]), [found[f"weight_{i}"] for i in range(len(decoder.weights))]))
        return results

    return run


def largest_difference(a, b) -> float:
    return max(np.abs(x - y).max() for x, y in zip(a, b, strict=True))


def test_loss_and_update_depend_on_neither_replicas_nor_padding(decoder, one_step):
    """Six captions over four replicas: the shares are uneven, in captions and in real tokens."""
    expected = independent_loss(decoder, *batch(6))
    (loss, updated), *others = one_step((1, 6, 0), (2, 6, 0), (4, 6, 0), (1, 6, 9))
    assert loss == pytest.approx(expected, abs=1e-5)
    assert largest_difference(updated, decoder.get_weights()) > 1e-3
    for other_loss, other_updated in others:
        assert other_loss == pytest.approx(loss, abs=1e-5)
        assert largest_difference(other_updated, updated) < 1e-5


def test_whitening_makes_features_uncorrelated():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(400, 6)) @ generator.normal(size=(6, 6)) * [1, 1, 1, 1, 1, 100] + 7
    config = {**vars(CONFIG), "feature_shape": (6,), "feature_scaling": "standardise"}
    for kind in ("standardise", "whiten"):
        model = ShowAndTell(DecoderConfig(**{**config, "feature_scaling": kind}))
        model.build()
        model.scaling.measure(values.mean(0), np.cov(values.T, bias=True))
        scaled = model.scaling(values.astype(np.float32)).numpy()
        np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-3)
        correlations = np.cov(scaled.T, bias=True)
        if kind == "standardise":
            np.testing.assert_allclose(np.diag(correlations), 1, atol=1e-3)
        else:
            np.testing.assert_allclose(correlations - np.diag(np.diag(correlations)), 0, atol=1e-3)


@pytest.fixture
def features_dir(make_features):
    return make_features()[0]


def test_batches_hold_every_caption_once(features_dir):
    directory = dataset.open_directory(str(features_dir))
    seen = []
    for (features, words_in), words_out in dataset.captions(directory, "train", 32, shuffle_seed=0):
        assert features.shape[1:] == (48,) and features.dtype == tf.float32
        assert np.array_equal(words_in[:, 1:], words_out[:, :-1]) and (words_in[:, 0].numpy() == START).all()
        seen += [directory.vocabulary.decode(row) for row in words_out.numpy()]
    texts = [t for r in dataset.images(directory, "train") for t in r["caption/text"].numpy()]
    assert len(seen) == 120 and sorted(seen) == sorted(
        directory.vocabulary.decode(directory.vocabulary.encode(t.decode(), 16)[0]) for t in texts
    )


def test_moments_equal_numpy(features_dir):
    directory = dataset.open_directory(str(features_dir))
    values = np.stack([r["image/feature"].numpy() for r in dataset.images(directory, "train")]).astype(np.float64)
    mean, covariance = dataset.feature_moments(directory)
    np.testing.assert_allclose(mean, values.mean(0), atol=1e-9)
    np.testing.assert_allclose(covariance, np.cov(values.T, bias=True), atol=1e-9)


def test_train_export_and_resume(features_dir, tmp_path):
    """The real command: it learns, exports a model that stands alone, and goes on where it stopped."""
    job = tmp_path / "job"
    with pytest.raises(KeyboardInterrupt):
        task.run(data=str(features_dir), job_dir=str(job), **training_flags(epochs=6), callbacks=[StopAfter(2)])
    assert not (job / "export").exists()
    metrics = task.run(data=str(features_dir), job_dir=str(job), **training_flags(epochs=6))
    rows = (job / "history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == list("012345"), "each epoch once"
    losses = [float(row.split(",")[2]) for row in rows[1:]]
    assert losses[-1] < 0.7 * losses[0]
    assert metrics["perplexity"] == pytest.approx(np.exp(metrics["val_loss"]))
    assert list((job / "tensorboard").rglob("events*"))

    info, _ = open_model(str(job / "export"))
    assert info.metrics == metrics and info.features.extractor == "tiny"
    again = task.run(data=str(features_dir), job_dir=str(job), **training_flags(epochs=6))
    assert again == metrics and open_model(str(job / "export"))[0].digest == info.digest
    with pytest.raises(InputError, match=r"units was 16, now 24.*--overwrite"):
        task.run(data=str(features_dir), job_dir=str(job), **training_flags(epochs=6, units=24))
    task.run(data=str(features_dir), job_dir=str(job), **training_flags(epochs=1, units=24, overwrite=True))


def test_other_records_are_refused(features_dir, tmp_path):
    """The same vocabulary and weights, but another shard."""
    train_once = {"data": str(features_dir), "job_dir": str(tmp_path / "job"), **training_flags(epochs=1)}
    task.run(**train_once)
    info = json.loads((features_dir / "dataset_info.json").read_text())
    info["splits"]["val"]["shards"][0]["sha256"] = "other images"
    (features_dir / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"holds a run with other settings \(records was"):
        task.run(**train_once)


def test_overwrite_deletes_the_run_and_nothing_else(features_dir, tmp_path):
    job = features_dir.parent  # the data lies in the job directory
    (job / "thesis.txt").write_text("mine")
    for _ in range(2):
        task.run(data=str(features_dir), job_dir=str(job), **training_flags(epochs=1, overwrite=True))
    assert (job / "thesis.txt").exists() and (job / "export/saved_model.pb").exists()
    assert len((job / "history.csv").read_text().splitlines()) == 2


def test_a_run_that_diverges_exports_nothing(features_dir, tmp_path):
    flags = training_flags(epochs=2, learning_rate=10.0, clip_norm=1e9, weight_decay=1.0)

    class Diverge(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.decoder.logits.kernel.assign(np.nan * self.model.decoder.logits.kernel)

    with pytest.raises(RunError, match="no epoch ended with a finite loss"):
        task.run(data=str(features_dir), job_dir=str(tmp_path / "job"), **flags, callbacks=[Diverge()])
    assert not (tmp_path / "job/export").exists()


def test_a_damaged_shard_is_named(features_dir, tmp_path, capsys):
    shard = next(features_dir.glob("train-*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(SystemExit) as exit_:
        task.main(["--data", str(features_dir), "--job_dir", str(tmp_path / "job"), "--units", "8"])
    assert exit_.value.code == 1 and f"error: {shard}: damaged" in capsys.readouterr().err


class StopAfter(keras.callbacks.Callback):
    """Stands for a Ctrl-C in the middle of an epoch."""

    def __init__(self, epochs: int):
        super().__init__()
        self.epochs = epochs

    def on_train_batch_end(self, batch, logs=None):
        if self.done == self.epochs:
            raise KeyboardInterrupt

    def on_train_begin(self, logs=None):
        self.done = 0

    def on_epoch_end(self, epoch, logs=None):
        self.done += 1


@pytest.fixture
def exported(decoder, make_features, tmp_path):
    """An export of the fixture's decoder, with the features and the vocabulary of a real feature directory."""
    directory = dataset.open_directory(str(make_features(vocab_size=11)[0]))
    config = DecoderConfig(**{**vars(CONFIG), "vocabulary_size": 11})
    assert len(directory.vocabulary) == config.vocabulary_size
    export.export(decoder, directory, {"val_loss": 1.0}, str(tmp_path / "export"))
    return tmp_path / "export"


def test_the_export_gives_what_the_model_in_memory_gives(decoder, exported):
    (features, _), _ = batch(5)
    in_memory = export.CaptionModule(decoder).caption(features, 3, 7, 0.6)
    saved = tf.saved_model.load(str(exported)).signatures["caption"](
        features=tf.constant(features),
        beam_width=tf.constant(3),
        max_length=tf.constant(7),
        length_penalty=tf.constant(0.6),
    )
    assert saved["ids"].shape == (5, 3, 6)
    assert np.array_equal(saved["ids"], in_memory["ids"]) and np.array_equal(saved["length"], in_memory["length"])
    np.testing.assert_allclose(saved["log_prob"], in_memory["log_prob"], atol=1e-5)
    assert not np.isin(saved["ids"], [START, UNK]).any()


def test_log_probabilities_equal_teacher_forcing(decoder, exported):
    """Scored again, word by word, by the layer that training uses."""
    (features, _), _ = batch(5)
    found = export.CaptionModule(decoder).caption(features, 4, 7, 0.0)
    for image in range(5):
        for ids, log_prob, length in zip(
            *(found[key].numpy()[image] for key in ("ids", "log_prob", "length")), strict=True
        ):
            words_in = np.array([[START, *ids[:-1]]])
            logits = decoder((features[image : image + 1], words_in), training=False).numpy()[0].astype(np.float64)
            log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            assert log_probs[np.arange(length), ids[:length]].sum() == pytest.approx(log_prob, abs=1e-4)
        assert (np.diff(found["log_prob"][image]) <= 0).all()
        assert len({tuple(ids) for ids in found["ids"].numpy()[image]}) == 4


def test_the_export_needs_no_python_of_ours(exported, tmp_path):
    code = (
        "import json, sys, tensorflow as tf\n"
        f"f = tf.saved_model.load({str(exported)!r}).signatures['caption']\n"
        "o = f(features=tf.ones([2, 5]), beam_width=tf.constant(2), max_length=tf.constant(5),"
        " length_penalty=tf.constant(0.0))\n"
        "assert not {'trainer', 'pipelines', 'tfrecords_schema'} & set(sys.modules)\n"
        "print(json.dumps(o['ids'].numpy().tolist()))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    captioner = Captioner(str(exported), Search(2, 5, 0.0)).load()
    texts = [[c.text for c in image] for image in captioner(np.ones((2, 5), np.float32))]
    _, vocabulary = open_model(str(exported))
    assert [[vocabulary.decode(ids) for ids in image] for image in json.loads(found.stdout)] == texts


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: (d / "dataset_info.json").unlink(), "--data: expected a feature directory with dataset_info.json"),
        (lambda d: (d / "vocabulary.txt").unlink(), "--data: expected a feature directory with vocabulary.txt"),
        (lambda d: replace(d / "vocabulary.txt", "a ", "zebra "), "vocabulary.txt: its digest is"),
        (lambda d: replace(d / "dataset_info.json", '"schema_version": 2', '"schema_version": 7'), "found 7"),
        (lambda d: next(d.glob("val-*")).unlink(), "bytes, found no file"),
        (lambda d: next(d.glob("train-*")).write_bytes(b"x"), "bytes, found 1 bytes"),
    ],
)
def test_a_feature_directory_that_does_not_fit_is_refused(features_dir, tmp_path, capsys, break_it, message):
    break_it(features_dir)
    with pytest.raises(SystemExit) as exit_:
        task.main(["--data", str(features_dir), "--job_dir", str(tmp_path / "job")])
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2 and stderr.startswith("error: ") and message in stderr and stderr.count("\n") == 1
    assert not (tmp_path / "job").exists()


def replace(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("config", "setting", "message"),
    [
        (DecoderConfig, {"units": 0}, "--units: expected at least 1, found 0"),
        (DecoderConfig, {"dropout": 1.5}, "--dropout: expected at most 0.95, found 1.5"),
        (
            DecoderConfig,
            {"feature_scaling": "x"},
            "--feature_scaling: expected one of none, standardise, whiten, found x",
        ),
        (
            DecoderConfig,
            {"feature_shape": (8, 8, 2048)},
            "--data: expected features [F] or [positions, F], found shape (8, 8, 2048)",
        ),
        (TrainConfig, {"learning_rate": 0.0}, "--learning_rate: expected at least 1e-09, found 0.0"),
        (TrainConfig, {"patience": 0}, "--patience: expected at least 1, found 0"),
    ],
)
def test_settings_out_of_range_are_refused(config, setting, message):
    given = {"vocabulary_size": 9, "max_length": 5, "feature_shape": (4,)} if config is DecoderConfig else {}
    with pytest.raises(InputError) as error:
        config(**{**given, **setting})
    assert str(error.value).startswith(message)
