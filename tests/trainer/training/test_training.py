"""The training command, on a tiny decoder: what it leaves, and what it refuses."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.captions.exports import open_model
from tests.support import ROOT, decoders, tar_files
from tests.support.outputs import annotations, history, replace, rows, sign
from tests.support.small import SMALL, TINY, train, write_features
from tfrecords_schema import command, shards
from tfrecords_schema.errors import InputError, RunError
from tfrecords_schema.vocabulary import PAD
from trainer import task
from trainer.config import DecoderConfig, TrainConfig
from trainer.data import dataset
from trainer.model.exported import load_export
from trainer.model.scaling import FeatureScaling
from trainer.scoring.metrics import Scores
from trainer.training import job as job_module
from trainer.training.schedules import LearningRate
from trainer.training.validation import Validation


def test_whitening_makes_features_uncorrelated():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(400, 6)) @ generator.normal(size=(6, 6)) * [1, 1, 1, 1, 1, 100] + 7
    for kind in ("standardise", "whiten"):
        scaling = FeatureScaling(kind)
        scaling.build((None, 6))
        scaling.measure(values.mean(0), np.cov(values.T, bias=True) if kind == "whiten" else values.var(0))
        scaled = scaling(values.astype(np.float32)).numpy()
        np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-3)
        correlations = np.cov(scaled.T, bias=True)
        if kind == "standardise":
            np.testing.assert_allclose(np.diag(correlations), 1, atol=1e-3)
        else:
            np.testing.assert_allclose(correlations - np.diag(np.diag(correlations)), 0, atol=1e-3)


@pytest.mark.parametrize("kind", ["standardise", "whiten"])
@pytest.mark.parametrize("varying", [0, 2])
def test_features_that_were_the_same_in_all_images_are_not_blown_up(kind, varying):
    """As most of VGG16's are in few images; one of them in another image is no million deviations."""
    values = np.full((40, 6), 0.3)
    values[:, :varying] = np.random.default_rng(0).normal(size=(40, varying))
    scaling = FeatureScaling(kind)
    scaling.build((None, 6))
    covariance = np.cov(values.T, bias=True)
    scaling.measure(values.mean(0), covariance if kind == "whiten" else np.diag(covariance))
    assert np.abs(scaling(np.full((1, 6), 1.3, np.float32)).numpy()).max() < 50


@pytest.fixture(autouse=True)
def without_java(request):
    """Scores come quickly without Java; one test has it."""
    if "java" not in request.keywords:
        request.getfixturevalue("no_java")


@pytest.mark.parametrize("grid", [False, True])
def test_moments_equal_numpy(made_features, made_grid_features, grid):
    directory = dataset.open_directory(str(made_grid_features if grid else made_features))
    values = np.stack([r["image/feature"].numpy() for r in dataset.images(directory, "train")]).astype(np.float64)
    for pooled in [True, False] if grid else [True]:
        expected = values.mean(1) if grid and pooled else values.reshape(-1, values.shape[-1])
        for covariance in (True, False):
            mean, spread = dataset.feature_moments(directory, pooled, covariance)
            np.testing.assert_allclose(mean, expected.mean(0), atol=1e-6)
            np.testing.assert_allclose(
                spread, np.cov(expected.T, bias=True) if covariance else expected.var(0), atol=1e-6
            )


@pytest.fixture
def job(trained, tmp_path):
    """A copy of a job directory, of three epochs over the features beside it."""
    return shutil.copytree(trained / "job", tmp_path / "trained_job")


@pytest.mark.java
def test_train_and_export(made_features, coco_dir, tmp_path, capsys):
    """The real command: it learns, leaves what people look at, and exports the best epoch."""
    job = tmp_path / "job"
    best = train(made_features, job, epochs=4)
    out, rows = capsys.readouterr().out, history(job)
    assert [row["epoch"] for row in rows] == list("1234")
    losses = [float(row["loss"]) for row in rows]
    assert losses[-1] < 0.85 * losses[0]
    assert best["cider"] == max(float(row["cider"]) for row in rows)
    if shutil.which("java"):
        assert best["comparable"] and best["meteor"] > 0 and "NOT comparable" not in out
    assert best["val_perplexity"] == pytest.approx(np.exp(best["val_loss"]))
    assert {"bleu_1", "bleu_4", "rouge_l", "tokens_per_s", "waited", "learning_rate"} <= rows[0].keys()
    assert list((job / "tensorboard").rglob("events*"))
    with Image.open(job / "loss.png") as picture:
        assert picture.width > 300
    samples = list(csv.DictReader(io.StringIO((job / "samples.csv").read_text())))
    assert {row["epoch"] for row in samples} == set("1234") and len(samples) == 4 * 8
    people = annotations(coco_dir, "val")
    assert all(row["references"] == " | ".join(people[row["image_id"]]) for row in samples)
    shown = [line.split("  | people: ") for line in out.splitlines() if line.startswith("  caption  ")]
    expected = [[row["caption"], people[row["image_id"]][0]] for i, row in enumerate(samples) if i % 8 < 2]
    assert [[caption.removeprefix("  caption  ").rstrip(), said] for caption, said in shown] == expected

    info, _ = open_model(str(job / "export"))
    assert info.metrics == best and info.features.extractor == "tiny"
    assert info.search == {"beam_width": 3, "length_penalty": 0.7}
    again = train(made_features, job, epochs=4)
    assert again == best and open_model(str(job / "export"))[0].digest == info.digest


def test_the_best_epoch_is_exported_and_patience_ends_a_phase(made_features, tmp_path, monkeypatch):
    """CIDEr is made up here: 1, 3, 2, 2, and there would be more epochs."""
    figures = iter([1.0, 3.0, 2.0, 2.0, 9.0])
    monkeypatch.setattr(Validation, "scores", lambda *_: (Scores({"cider": next(figures)}, {}, True, ()), []))
    best = train(made_features, tmp_path / "job", epochs=9, patience=2)
    assert best["epoch"] == 2 and len(history(tmp_path / "job")) == 4
    decoder = load_export(str(tmp_path / "job/export"), open_model(str(tmp_path / "job/export"))[0])
    measured = val_loss(decoder, made_features)
    assert measured == pytest.approx(float(history(tmp_path / "job")[1]["val_loss"]), abs=1e-5)


def val_loss(decoder, features_dir) -> float:
    """Cross-entropy per token over the validation captions, one at a time."""
    directory = dataset.open_directory(str(features_dir))
    total, tokens = 0.0, 0
    for record in dataset.images(directory, "val"):
        for ids in record["caption/ids"].numpy():
            logits, _ = decoders.forced(decoder, record["image/feature"][None], ids[None])
            log_probs = decoders.log_softmax(logits)[0]
            real = ids[1:] != PAD
            total -= log_probs[np.arange(len(real)), ids[1:]][real].sum()
            tokens += real.sum()
    return total / tokens


def test_without_java_the_screen_says_what_the_figures_are_worth(made_features, tmp_path, capsys):
    best = train(made_features, tmp_path / "job", epochs=2)
    assert not best["comparable"] and "meteor" not in best and best["cider"] >= 0
    assert capsys.readouterr().out.count("NOT comparable with published figures") == 1
    with pytest.raises(InputError, match="--monitor meteor: expected `java` on the PATH"):
        train(made_features, tmp_path / "other", epochs=1, monitor="meteor")


@pytest.mark.slow
def test_other_ways_of_training(make_features, tmp_path):
    """One caption an epoch, streamed data, GRU, attention, smoothing, sampling, self-critical: all in one."""
    data, _ = make_features(feature_grid=True, records_per_shard=12)
    (tmp_path / "glove.txt").write_text("a 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n")
    best = train(
        data,
        tmp_path / "job",
        epochs=2,
        captions_per_epoch="one",
        cache_gb=0.0,
        attention="bahdanau",
        cell="gru",
        layers=2,
        image_input="initial_state",
        label_smoothing=0.1,
        scheduled_sampling=0.2,
        state_dropout=0.2,
        optimizer="rmsprop",
        schedule="exponential",
        warmup_steps=3,
        pretrained_embeddings=str(tmp_path / "glove.txt"),
        freeze_embeddings=True,
        mixed_precision="bfloat16",
        self_critical=2,
        self_critical_samples=2,
        metrics_every=2,
    )
    rows = history(tmp_path / "job")
    assert [row["phase"] for row in rows] == ["cross_entropy"] * 2 + ["self_critical"] * 2
    assert not rows[0]["cider"] and rows[1]["cider"] and rows[3]["reward"] and not rows[1]["reward"]
    assert best["epoch"] in (2, 4)
    info, vocabulary = open_model(str(tmp_path / "job/export"))
    decoder = load_export(str(tmp_path / "job/export"), info)
    row = decoder.word_embedding.embeddings.numpy()[vocabulary.words.index("a")]
    np.testing.assert_array_equal(row, np.arange(1, 17))
    saved = tf.saved_model.load(str(tmp_path / "job/export")).signatures["caption"]
    found = saved(**decoders.signature_inputs(np.ones([2, 16, 3]), beam_width=2, max_length=9))
    assert found["attention"].shape == (2, 2, 8, 16)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [{}, {"attention": "bahdanau"}])
def test_ordinary_training_is_not_traced_again_and_again(make_features, tmp_path, flags):
    """Few steps an epoch, batches of other lengths, last ones of another size: TensorFlow once warned of retracing.

    In a process of its own, since TensorFlow warns twice and no more.
    """
    data, _ = make_features(feature_grid="attention" in flags)
    settings = {**SMALL, **flags, "batch_size": 50, "epochs": 3, "self_critical": 2}
    given = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "trainer.task", "--data", data, "--job_dir", tmp_path / "job", *given]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0 and len(history(tmp_path / "job")) == 5, ended.stderr
    assert "retracing" not in ended.stderr


@pytest.mark.slow
def test_the_command_that_is_told_next_captions_images_when_pasted(coco_dir, tmp_path, capsys):
    """Names that a shell must be shown with care, and a network of one's own; a line of the screen, run by a shell."""
    coco, data = tmp_path / "Ann's $images", tmp_path / "features"
    shutil.copytree(coco_dir, coco)
    TINY.build(None).export(str(tmp_path / "my net"), verbose=False)
    write_features(data, f"saved_model:{tmp_path / 'my net'}", coco, weights="imagenet")
    train(data, tmp_path / "a job", epochs=1)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("next        python -m pipelines.caption ")
    env = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:/bin", "PYTHONPATH": ROOT}
    line = last.removeprefix("next").strip()
    ended = subprocess.run(line, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    found = rows(tmp_path / "a job-captions").values()
    assert {row["image_uri"] for row in found} == {str(path) for path in (coco / "val2017").iterdir()}


def test_the_place_of_images_is_a_directory_or_an_archive(make_features, made_features, coco_dir, tmp_path):
    def place(data) -> str:
        return dataset.place_of_images(dataset.open_directory(str(data)))

    assert place(made_features) == str(coco_dir / "val2017")
    train_only = {"train_captions": [str(coco_dir / "annotations/captions_train2017.json")], "coco_dir": None}
    assert place(make_features(images=[str(coco_dir / "train2017")], **train_only)[0]) == str(coco_dir / "train2017")
    zipped = tmp_path / "coco"
    shutil.copytree(coco_dir, zipped, ignore=shutil.ignore_patterns("val2017"))
    shutil.make_archive(str(zipped / "val2017"), "zip", coco_dir, "val2017")
    assert place(make_features(tmp_path / "zipped", coco_dir=zipped)[0]) == str(zipped / "val2017.zip")
    shard, jpeg = tmp_path / "0.tar", next((coco_dir / "val2017").iterdir()).read_bytes()
    samples = [(f"{n}.{ending}", data) for n in range(4) for ending, data in (("jpg", jpeg), ("txt", b"A dog."))]
    tar_files.write(shard, samples)
    captions = {"coco_dir": None, "train_captions": [str(shard)], "min_word_count": 1}
    assert place(make_features(tmp_path / "tarred", **captions)[0]) == str(shard)


def overflow(path, images: int) -> None:
    """Gives that many images of a shard features that float16 holds, but no sum of them."""
    records = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))]
    for record in records[:images]:
        record.features.feature["image/feature"].bytes_list.value[:] = [np.full(48, 65504, "<f2").tobytes()]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record.SerializeToString())
    sign(path.parent)


@pytest.mark.slow
def test_steps_that_overflow_float16_are_left_out_and_counted(features_dir, tmp_path, capsys):
    """One image of 24, in at most five of 15 steps; the rate follows the steps that were made."""
    (shard,) = features_dir.glob("train-*")
    overflow(shard, 1)
    flags = {"mixed_precision": "float16", "feature_scaling": "none", "epochs": 2}
    train(features_dir, tmp_path / "job", **flags)
    rate = LearningRate("cosine", SMALL["learning_rate"], 30)
    made, shown = 0, capsys.readouterr().out
    for row in history(tmp_path / "job"):
        left_out = int(row["left_out"])
        made += 15 - left_out
        assert 1 <= left_out <= 5 and f"  left_out {left_out}  " in shown
        assert float(row["learning_rate"]) == pytest.approx(float(rate(made - 1)))
        assert np.isfinite(float(row["loss"]))
    overflow(shard, 24)
    with pytest.raises(RunError, match="the gradient was too large for float16 in all 15 steps; try"):
        train(features_dir, tmp_path / "other", **flags)


@pytest.mark.slow
def test_without_validation_images_the_training_loss_tells_the_best_epoch(make_features, coco_dir, tmp_path):
    captions = coco_dir / "annotations/captions_train2017.json"
    data, _ = make_features(coco_dir=None, train_captions=[str(captions)], images=[str(coco_dir / "train2017")])
    best = train(data, tmp_path / "job", epochs=2)
    assert "val_loss" not in best and best["loss"] == min(float(row["loss"]) for row in history(tmp_path / "job"))
    best = train(data, tmp_path / "two", epochs=1, self_critical=2)
    rewards = [float(row["reward"]) for row in history(tmp_path / "two")[1:]]
    assert best["reward"] == max(rewards), "self-critical epochs are compared with each other"


def test_other_settings_are_refused(trained, job):
    with pytest.raises(InputError, match=r"units was 16, now 24.*--overwrite"):
        train(trained / "features", job, epochs=3, units=24)


def test_other_records_are_refused(features_dir, job):
    """The same vocabulary and weights, but another shard."""
    info = json.loads((features_dir / "features_info.json").read_text())
    (shard,) = info["splits"]["val"]["shards"]
    data = list(shards.read_framed(io.BytesIO((features_dir / shard["name"]).read_bytes())))[::-1]
    with open(features_dir / shard["name"], "wb") as handle:
        for one in data:
            shards.write_framed(handle, one)
    shard["sha256"] = hashlib.sha256((features_dir / shard["name"]).read_bytes()).hexdigest()
    (features_dir / "features_info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"holds a run with other settings \(records was [0-9a-f]{12}…, now "):
        train(features_dir, job, epochs=3)


def test_overwrite_deletes_the_run_and_nothing_else(trained, job, tmp_path):
    features_dir = shutil.copytree(trained / "features", job / "features")  # the data lies in the job directory
    (job / "thesis.txt").write_text("mine")
    train(features_dir, job, epochs=1, units=24, overwrite=True)
    assert (job / "thesis.txt").exists() and (job / "export/saved_model.pb").exists()
    assert len(history(job)) == 1
    digest = open_model(str(job / "export"))[0].digest
    for mistake, message in (
        ({"pretrained_embeddings": str(tmp_path / "none.txt")}, "--pretrained_embeddings"),
        ({"warmup_steps": 9999}, "--warmup_steps"),
    ):
        with pytest.raises(InputError, match=message):
            train(features_dir, job, epochs=1, units=24, overwrite=True, **mistake)
    assert len(history(job)) == 1 and open_model(str(job / "export"))[0].digest == digest, "a mistake deletes nothing"


@pytest.mark.parametrize("name", ["best", "export", "checkpoints", "history.csv", "tensorboard", "config.json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_no_run_wrote_is_neither_deleted_nor_replaced(features_dir, tmp_path, name, overwrite):
    job = tmp_path / "job"
    mine = job / name if "." in name else job / name / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(InputError, match=r"--job_dir: .*give .*another"):
        train(features_dir, job, epochs=1, overwrite=overwrite)
    assert mine.read_text() == "mine"


def test_a_refused_command_does_not_stand_in_the_way_of_the_corrected_one(features_dir, tmp_path):
    with pytest.raises(InputError):
        train(features_dir, tmp_path / "job", epochs=1, pretrained_embeddings=str(tmp_path / "none.txt"))
    train(features_dir, tmp_path / "job", epochs=1)


def test_two_runs_on_one_job_directory_are_kept_apart(features_dir, tmp_path):
    with job_module.opened(str(tmp_path / "job")), pytest.raises(InputError, match="another run is writing to"):
        train(features_dir, tmp_path / "job", epochs=1)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: (d / "features_info.json").unlink(), "--data: expected a feature directory with features_info.json"),
        (lambda d: (d / "vocabulary.txt").unlink(), "--data: expected a feature directory with vocabulary.txt"),
        (lambda d: replace(d / "vocabulary.txt", "a ", "zebra "), "vocabulary.txt: its digest is"),
        (lambda d: replace(d / "features_info.json", '"schema_version": 2', '"schema_version": 7'), "found 7"),
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


@pytest.mark.parametrize(
    ("config", "setting", "message"),
    [
        (DecoderConfig, {"units": 0}, "--units: expected at least 1, found 0"),
        (DecoderConfig, {"output_dropout": 1.5}, "--output_dropout: expected at most 0.95, found 1.5"),
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
        (DecoderConfig, {"layers": 4}, "--layers: expected at most 3, found 4"),
        (DecoderConfig, {"attention": "bahdanau"}, "--attention bahdanau: expected features [positions, F]"),
        (TrainConfig, {"freeze_embeddings": True}, "--freeze_embeddings: expected --pretrained_embeddings FILE"),
        (TrainConfig, {"cache_gb": float("nan")}, "--cache_gb: expected at least 0, found nan"),
    ],
)
def test_settings_out_of_range_are_refused(config, setting, message):
    given = {"vocabulary_size": 9, "max_length": 5, "feature_shape": (4,)} if config is DecoderConfig else {}
    with pytest.raises(InputError) as error:
        config(**{**given, **setting})
    assert str(error.value).startswith(message)


@pytest.mark.slow
def test_two_replicas_train_as_one_does(features_dir, tmp_path):
    """The whole command on one and on two devices: the same batches (of 9, filled up for two), nearly the same losses.

    Self-critical rewards are only of one size: each device draws its own samples.
    """
    rows = {}
    for replicas in (1, 2):
        flags = {**SMALL, "epochs": 2, "batch_size": 9, "self_critical": 1, "metrics_every": 3}
        code = (
            "import json, sys, tensorflow as tf\n"
            "replicas, data, job, flags = json.loads(sys.argv[1])\n"
            "cpu = tf.config.list_physical_devices('CPU')[0]\n"
            "logical = [tf.config.LogicalDeviceConfiguration()] * replicas\n"
            "tf.config.set_logical_device_configuration(cpu, logical)\n"
            "from tests.support import commands\n"
            "commands.task(data=data, job_dir=job, **flags)\n"
        )
        job = tmp_path / str(replicas)
        given = json.dumps([replicas, str(features_dir), str(job), flags])
        ended = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr
        assert f"{replicas} device" in ended.stdout
        rows[replicas] = history(job)
    for one, two in zip(rows[1][:2], rows[2][:2], strict=True):
        for name in ("loss", "val_loss", "accuracy"):
            assert float(two[name]) == pytest.approx(float(one[name]), abs=2e-3)
    assert float(rows[2][2]["reward"]) == pytest.approx(float(rows[1][2]["reward"]), rel=0.3)


def test_a_preset_names_what_the_features_lack(made_features, made_grid_features, tmp_path):
    for directory, missing in (
        (made_features, "--feature_grid --store_images"),
        (made_grid_features, "--store_images"),
    ):
        given = ["--data", str(directory), "--job_dir", str(tmp_path / "job"), "--preset", "best"]
        message = f"--preset best: expected features made with pipelines.features {missing}, found"
        with pytest.raises(InputError, match=re.escape(message)):
            task.run(task.parse(given))
    assert not (tmp_path / "job").exists()


def test_a_preset_changes_defaults_and_flags_still_count():
    given = ["--data", "d", "--job_dir", "j"]

    def parsed(*flags):
        return command.values(task.parse([*given, *flags]))

    plain, preset = parsed(), parsed("--preset", "flickr8k")
    assert plain["label_smoothing"] == 0 and preset["label_smoothing"] == 0.1 and preset["units"] == plain["units"]
    assert parsed("--preset", "flickr8k", "--label_smoothing", "0.2")["label_smoothing"] == 0.2
    for name, values in task.PRESETS.items():
        assert set(values) <= set(plain), name
    assert parsed("--self_critical")["self_critical"] == 10
    assert parsed("--mixed_precision")["mixed_precision"] == "bfloat16"
