"""CNN and decoder learn together: exact on tiny networks, and from images to captions by the real commands."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import ROOT, commands, decoders, tunable, tuning_step
from tests.support.outputs import history, outcome, read_split, rows, sign
from tests.support.small import SMALL, train_without_java, write_features
from tfrecords_schema.errors import InputError, RunError
from tfrecords_schema.manifests.features_info import FeaturesInfo
from tfrecords_schema.vocabulary import PAD
from trainer.config import TrainConfig
from trainer.data import dataset
from trainer.data.batches import Batch
from trainer.training import fine_tuning, objectives
from trainer.training.run import make_cnn
from trainer.training.screen import Screen

TUNED = {"fine_tune": "joined", "fine_tune_epochs": 2, "fine_tune_rate": 0.01, "fine_tune_batch_size": 6, "epochs": 2}
TUNED |= {"monitor": "val_loss"}


pytestmark = pytest.mark.usefixtures("tunable_network")


@pytest.fixture(scope="module")
def features(once, coco_dir) -> pathlib.Path:
    """`features/` with images in the records, of `given.weights.h5` beside it; read only."""

    def make(directory: pathlib.Path) -> None:
        weights = tunable.save(directory / "given.weights.h5")
        flags = {"weights": weights, "store_images": True, "records_per_shard": 8, "precision": "float32"}
        write_features(directory / "features", tunable.NAME, coco_dir, **flags)

    return once("tunable", make) / "features"


@pytest.fixture(scope="module")
def job(once, features) -> pathlib.Path:
    """A job of all three phases; read only."""
    return once("tuned", lambda directory: train_without_java(features, directory, **TUNED, self_critical=1))


def network_of(directory: pathlib.Path, info: str) -> dict[str, list[np.ndarray]]:
    """The weights of the network that a directory carries."""
    return tunable.weights_by_layer(directory / json.loads((directory / info).read_text())["extractor"])


def changed(before: dict, after: dict) -> set[tuple[str, int]]:
    return {(name, n) for name in before for n, old in enumerate(before[name]) if (old != after[name][n]).any()}


# One step


def test_the_objective_is_that_of_the_first_phase_over_features_of_each_image():
    """Without dropout, against `objectives.cross_entropy` over the same captions one by one."""
    learner, batch = tuning_step.learner(), tuning_step.batch()
    features = learner.cnn.features(learner.cnn.activations(batch.inputs[0])).numpy()
    real = [(place, ids) for place, captions in enumerate(batch.ids) for ids in captions if (ids[1:] != PAD).any()]
    places = np.array([place for place, _ in real])
    flat = Batch(features[places], np.stack([ids for _, ids in real])[:, None], places.astype(np.int32))
    expected = objectives.cross_entropy(learner.decoder, flat, None, 0.0, TrainConfig())
    for inputs in (batch.inputs, learner.cnn.activations(batch.inputs[0])):
        given = with_inputs(inputs, batch)
        found = fine_tuning.objective(learner, given, None, 0.0, TrainConfig())
        assert float(found.total) == pytest.approx(float(expected.total), rel=1e-5)
        assert float(found.tokens) == float(expected.tokens) == (flat.ids[:, 0, 1:] != PAD).sum()


def with_inputs(inputs, batch):
    return batch._replace(inputs=tuple(map(tf.constant, inputs)))


def test_the_network_runs_once_for_each_image():
    learner, batch = tuning_step.learner(), tuning_step.batch()
    seen, features = [], learner.cnn.features

    def counted(activations, training=False):
        seen.append(activations[0].shape[0])
        return features(activations, training)

    learner.cnn.features = counted
    fine_tuning.objective(learner, with_inputs(batch.inputs, batch), None, 0.0, TrainConfig())
    assert seen == [6] and batch.ids.shape[1] == 3


def test_with_a_rate_of_nought_nothing_of_the_network_changes_and_each_has_its_own():
    start = tuning_step.learner()
    before = [weight.value.numpy() for weight in (*start.decoder.weights, *start.cnn.weights)]
    count = len(start.decoder.weights)
    for rates, moved in (((0.1, 0.0), (True, False)), ((0.0, 0.1), (False, True))):
        found = tuning_step.steps(rates=rates)
        after = [found[f"weight_{place}"] for place in range(len(before))]
        differ = [(old != new).any() for old, new in zip(before, after, strict=True)]
        assert (any(differ[:count]), any(differ[count:])) == moved


def test_the_gradient_is_that_of_the_whole():
    """One kernel entry of the network, by a difference of two losses."""
    learner, batch = tuning_step.learner(), with_inputs(tuning_step.batch().inputs, tuning_step.batch())
    kernel = learner.cnn.trainable_variables[0]

    def loss():
        return fine_tuning.objective(learner, batch, None, 0.0, TrainConfig()).total

    with tf.GradientTape() as tape:
        total = loss()
    gradient = tape.gradient(total, kernel.value).numpy()
    place = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
    given, step = np.array(kernel), 1e-2
    values = []
    for way in (1, -1):
        moved = given.copy()
        moved[place] += way * step
        kernel.assign(moved)
        values.append(float(loss()))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(gradient[place], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", [False, True])
def test_two_replicas_do_what_one_does(tmp_path, batch_norm):
    """Where batch norms learn each replica measures its own images, so that only the moving statistics agree nearly."""
    out = tmp_path / "two.npz"
    command = [sys.executable, "-m", "tests.support.tuning_step", str(out), "2", str(batch_norm)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    two, one = np.load(out), tuning_step.steps(batch_norm)
    assert (int(two["replicas"]), one["replicas"]) == (2, 1) and float(two["tokens"]) == one["tokens"]
    tolerance = 0.3 if batch_norm else 1e-4
    assert float(two["loss"]) == pytest.approx(one["loss"], rel=tolerance)
    if not batch_norm:
        for name in one:
            if name.startswith("weight_"):
                np.testing.assert_allclose(two[name], one[name], atol=1e-5)


# Whole runs


def tuning_of(features, tmp_path, **changes) -> fine_tuning.Tuning:
    directory = dataset.open_directory(str(features))
    config = TrainConfig(fine_tune="joined", **changes)
    learner = fine_tuning.Learner(make_cnn(directory, config), decoders.make(feature_shape=(10,)))
    return fine_tuning.Tuning(directory, str(tmp_path), config, learner, Screen(), None)


@pytest.mark.parametrize("changes", [{}, {"augment": True}, {"cache_gb": 0.0}])
def test_features_of_the_network_as_it_came_are_the_stored_ones(features, tmp_path, changes):
    """In memory or made again, to what the two ways to resize differ by."""
    tuning = tuning_of(features, tmp_path, **changes)
    assert tuning.keeps_train == (not changes)
    tuning.remake_all(lambda: None)
    for split, count in (("train", 24), ("val", 8)):
        stored = np.stack([record["image/feature"] for record in read_split(features, split)])
        remade = tuning._directory.remade[split]
        assert remade.shape == (count, 10) and remade.dtype == np.float16
        np.testing.assert_allclose(remade, stored, atol=0.01 * np.abs(stored).max())
        read = [one["image/feature"].numpy() for one in dataset.images(tuning._directory, split)]
        np.testing.assert_array_equal(read, remade)
    shards = [[one["image/feature"].numpy() for one in dataset.images(tuning._directory, "train", [n])] for n in (2, 0)]
    size = len(shards[1])
    np.testing.assert_array_equal(shards[1], tuning._directory.remade["train"][:size])
    np.testing.assert_array_equal(shards[0], tuning._directory.remade["train"][-len(shards[0]) :])
    (tmp_path / ".remade/mine").touch()
    tuning.close()
    assert [path.name for path in tmp_path.rglob("*")] == [".remade", "mine"], "what others put there stays"


@pytest.mark.slow
def test_a_full_disk_is_an_error_that_is_told(coco_dir, tmp_path):
    """And no signal that ends the process, as it is where a file's map in memory is written to."""
    flags = {"weights": tunable.save(tmp_path / "given.weights.h5"), "store_images": True, "feature_grid": True}
    write_features(tmp_path / "features", tunable.NAME, coco_dir, **flags)
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        tuning = tuning_of(tmp_path / "features", disk)
        with pytest.raises(OSError, match="No space left"):  # 24 features take 30 kB
            tuning.remake_all(lambda: None)
        tuning.close()
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["/bin/umount", disk], check=True)


def test_only_the_top_has_learned_and_the_decoder_with_it(features, job):
    assert [row["phase"] for row in history(job)] == ["cross_entropy"] * 2 + ["fine_tuning"] * 2 + ["self_critical"]
    before, after = network_of(features, "features_info.json"), network_of(job / "export", "model_info.json")
    assert changed(before, after) == {("high", 0)}
    losses = [float(row["loss"]) for row in history(job)[:4]]
    assert losses[3] < losses[1], "it goes on learning"
    assert not (job / ".remade").exists()


def test_the_export_captions_with_the_tuned_network(features, job, coco_dir, tmp_path):
    """Features of `pipelines.features --weights EXPORT` and those of a network that is built here are the same."""
    info = json.loads((job / "export/model_info.json").read_text())
    given = json.loads((features / "features_info.json").read_text())
    assert info["features"]["weights_digest"] != given["features"]["weights_digest"]
    assert info["features"]["weights"].startswith("fine-tuned from joined up: ")
    flags = {"weights": str(job / "export"), "precision": "float32"}
    write_features(tmp_path / "again", tunable.NAME, coco_dir, **flags)
    again = FeaturesInfo.loads((tmp_path / "again/features_info.json").read_text())
    assert again.features.weights_digest == info["features"]["weights_digest"] and again.extractor == info["extractor"]
    found = {record["image/id"]: record for record in read_split(tmp_path / "again", "val")}
    cnn = tunable.model(str(job / "export" / info["extractor"]))
    for record in found.values():
        pixels = keras.utils.img_to_array(keras.utils.load_img(record["image/uri"]))
        square = tf.round(tf.image.resize(pixels, (32, 32), antialias=True))[None] / 127.5 - 1
        np.testing.assert_allclose(record["image/feature"], cnn(square)[0], atol=0.02)
    commands.caption(images=[f"{coco_dir}/val2017"], model=str(job / "export"), output=str(tmp_path / "captions"))
    commands.caption(
        features=str(tmp_path / "again"), split="val", model=str(job / "export"), output=str(tmp_path / "2")
    )
    from_images, from_features = rows(tmp_path / "captions"), rows(tmp_path / "2")
    assert len(from_images) == 8
    assert [one["caption"] for one in from_images.values()] == [
        from_features[str(int(name))]["caption"] for name in from_images
    ]
    with pytest.raises(InputError, match=r"weights_digest differs: --features .* has .*, --model .* has"):
        commands.caption(features=str(features), model=str(job / "export"), output=str(tmp_path / "3"))


def test_a_network_that_did_not_change_is_exported_as_it_came(features, tmp_path):
    train_without_java(
        features, tmp_path / "job", **{**TUNED, "fine_tune_rate": 0.0, "epochs": 1, "fine_tune_epochs": 1}
    )
    exported = json.loads((tmp_path / "job/export/model_info.json").read_text())
    given = json.loads((features / "features_info.json").read_text())
    assert (exported["features"], exported["extractor"]) == (given["features"], given["extractor"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [{"augment": True, "fine_tune": "all"}, {"fine_tune_batch_norm": True, "cache_gb": 0.0}]
)
def test_other_ways(features, tmp_path, flags):
    train_without_java(features, tmp_path / "job", **{**TUNED, "epochs": 1, **flags})
    before, after = network_of(features, "features_info.json"), network_of(tmp_path / "job/export", "model_info.json")
    found = changed(before, after)
    if "augment" in flags:
        assert {name for name, _ in found} == {"low", "left", "right", "high"}
    else:
        assert found == {("high", 0), *(("high_norm", n) for n in range(4))}


@pytest.mark.slow
def test_attention_over_a_map_of_a_network_that_learns(coco_dir, tmp_path):
    weights = tunable.save(tmp_path / "given.weights.h5")
    flags = {"weights": weights, "store_images": True, "feature_grid": True}
    write_features(tmp_path / "features", tunable.NAME, coco_dir, **flags)
    settings = {**TUNED, "epochs": 1, "self_critical": 1, "attention": "bahdanau", "attention_units": 8}
    train_without_java(tmp_path / "features", tmp_path / "job", **settings)
    exported = json.loads((tmp_path / "job/export/model_info.json").read_text())
    assert exported["features"]["shape"] == [64, 10] and exported["features"]["weights"].startswith("fine-tuned from")
    commands.caption(
        images=[f"{coco_dir}/val2017"], model=str(tmp_path / "job/export"), output=str(tmp_path / "captions")
    )
    assert len(rows(tmp_path / "captions")) == 8


@pytest.mark.slow
def test_mixed_precision(features, tmp_path):
    for precision in ("bfloat16", "float16"):
        best = train_without_java(features, tmp_path / precision, **TUNED, mixed_precision=precision)
        assert np.isfinite(best["loss"])
        info = json.loads((tmp_path / precision / "export/model_info.json").read_text())
        assert info["features"]["precision"] == precision


@pytest.mark.slow
def test_without_validation_images(coco_dir, tmp_path):
    weights = tunable.save(tmp_path / "given.weights.h5")
    flags = {"train_captions": [f"{coco_dir}/annotations/captions_train2017.json"], "images": [f"{coco_dir}/train2017"]}
    write_features(tmp_path / "features", tunable.NAME, None, weights=weights, store_images=True, **flags)
    settings = {**TUNED, "epochs": 1, "fine_tune_epochs": 1, "self_critical": 1}
    train_without_java(tmp_path / "features", tmp_path / "job", **{**settings, "monitor": "cider"})
    assert (tmp_path / "job/export/model_info.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"fine_tune": "nothing"}, "--fine_tune: expected all or a layer of tunable, such as .*, found 'nothing'"),
        ({"fine_tune": "", "augment": True}, "--augment: expected --fine_tune LAYER beside it"),
        (
            {"fine_tune": "", "fine_tune_batch_norm": True},
            "--fine_tune_batch_norm: expected --fine_tune LAYER beside it",
        ),
    ],
)
def test_flags_that_do_not_fit(features, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        train_without_java(features, tmp_path / "job", **{**TUNED, **flags})
    assert not (tmp_path / "job/config.json").exists()


def test_a_directory_without_images_is_refused_before_anything_is_written(made_features, tmp_path):
    with pytest.raises(InputError, match="--fine_tune: expected a feature directory with images in its records, found"):
        train_without_java(made_features, tmp_path / "job", **TUNED)
    assert not (tmp_path / "job/config.json").exists()


@pytest.mark.parametrize("augment", [False, True])
def test_an_image_that_cannot_be_decoded_is_named(features, tmp_path, augment):
    """In a directory whose digests are right, as another program may have made it."""
    directory = shutil.copytree(features, tmp_path / "features")
    path = next(directory.glob("train-00001-*"))
    records = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))]
    feature = records[1].features.feature
    feature["image/encoded"].bytes_list.value[0] = b"GIF89a and no JPEG"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record.SerializeToString())
    sign(directory)
    name = feature["image/id"].bytes_list.value[0].decode()
    with pytest.raises(RunError, match=rf"{path.name}: image '{name}': expected a JPEG, found what TensorFlow cannot"):
        train_without_java(directory, tmp_path / "job", **{**TUNED, "epochs": 1, "augment": augment})


def test_weights_of_an_export_must_be_those_of_the_network(job, coco_dir, tmp_path, tiny_network):
    with pytest.raises(
        InputError, match="--weights: expected an export with weights of --extractor tiny, found those of"
    ):
        write_features(tmp_path / "x", tiny_network, coco_dir, weights=str(job / "export"))
    with pytest.raises(InputError, match=f"--weights: expected an export, .* without model_info.json: {job}"):
        write_features(tmp_path / "x", tiny_network, coco_dir, weights=str(job))
    broken = shutil.copytree(job / "export", tmp_path / "export")
    next((broken / "extractor").iterdir()).write_bytes(b"others")
    with pytest.raises(InputError, match=r"--weights: .*expected the weights of digest .*, found others"):
        write_features(tmp_path / "x", tunable.NAME, coco_dir, weights=str(broken))


STOPPED = {**SMALL, **TUNED, "embedding_dropout": 0.3, "checkpoint_steps": 1, "self_critical": 1, "augment": True}
RUNNING = (
    "import sys\nfrom tests.support import tunable\nfrom tfrecords_schema.networks import registry\n"
    "registry.NETWORKS[tunable.NAME] = tunable.NETWORK\nfrom trainer import task\ntask.main(sys.argv[1:])\n"
)


def start(data, job) -> subprocess.Popen:
    flags = {"data": data, "job_dir": job, **STOPPED}
    given = [str(x) for k, v in flags.items() for x in ((f"--{k}",) if v is True else (f"--{k}", v))]
    env = {**os.environ, "PATH": "/nowhere", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", RUNNING, *given]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def saved(job: pathlib.Path, phase: str) -> int:
    """The number of a phase's latest checkpoint."""
    paths = pathlib.Path(job).glob(f"checkpoints/{phase}/*.index")
    return max((int(path.stem.rpartition("-")[2]) for path in paths), default=0)


@pytest.mark.slow
def test_killed_in_any_phase_and_run_again_equals_undisturbed(features, tmp_path):
    from tests.support.processes import finish, wait_for

    finish(start(features, tmp_path / "undisturbed"))
    expected = outcome(tmp_path / "undisturbed")
    job = tmp_path / "killed"
    for phase, number in (("cross_entropy", 3), ("fine_tuning", 2), ("fine_tuning", 6), ("self_critical", 2)):
        process = start(features, job)
        wait_for(process, lambda phase=phase, number=number: saved(job, phase) >= number)
        process.kill() if number != 6 else process.terminate()
        process.wait()
        assert process.returncode == (75 if number == 6 else -9)
    assert "going on with epoch" in finish(start(features, job))
    assert outcome(job) == expected
    networks = [network_of(one / "export", "model_info.json") for one in (job, tmp_path / "undisturbed")]
    assert not changed(*networks)
