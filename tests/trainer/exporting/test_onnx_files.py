"""A model in ONNX, run by ONNX Runtime: the numbers of the decoder, and the captions of the SavedModel."""

import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from PIL import Image

import pipelines
from tests.support import commands, decoders
from tests.support.outputs import edit_json
from tests.support.small import SMALL, train_without_java
from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import START
from trainer import export
from trainer.exporting import onnx_files

FEW = ("lstm", "gru_initial_state", "attention_gru", "luong_layers")
KINDS = [kind if kind in FEW else pytest.param(kind, marks=pytest.mark.slow) for kind in decoders.KINDS]
FILES = {"encoder.onnx", "decoder_step.onnx", "vocabulary.txt", "caption.py", "onnx_info.json"}


def outputs(session, inputs) -> dict[str, np.ndarray]:
    known = {each.name for each in session.get_inputs()}
    found = session.run(None, {name: value for name, value in inputs.items() if name in known})
    return {each.name: value for each, value in zip(session.get_outputs(), found, strict=True)}


@pytest.mark.parametrize("kind", KINDS)
def test_both_graphs_give_what_the_decoder_gives(kind):
    """Three images, then three words of two hypotheses of each."""
    decoder = decoders.make(kind)
    shape = decoder.config.feature_shape
    size = int(np.prod(shape))

    def forward(pixels):  # any function of the pixels
        return tf.reshape(pixels, [-1, 12])[:, :1] / 255 * tf.range(1.0, size + 1) / size

    encoder, step = (
        onnxruntime.InferenceSession(onnx_files.onnx_of(function))
        for function in (onnx_files.encoder(decoder, forward, 2, "float16"), onnx_files.step(decoder))
    )
    pixels = np.random.default_rng(0).integers(0, 256, [3, 2, 2, 3], np.uint8)
    features = forward(tf.constant(pixels, tf.float32)).numpy().astype(np.float16).astype(np.float32)
    features = features.reshape(3, *shape)
    made = outputs(encoder, {"pixels": pixels})
    assert made["features"].dtype == np.float16 and np.array_equal(made["features"], features)
    image = decoder.encode(features)
    state = tf.nest.map_structure(lambda tensor: tf.repeat(tensor, 2, axis=0), decoder.initial_state(image))
    states = {name: np.repeat(value, 2, axis=0) for name, value in made.items() if name.startswith("state_")}
    last = np.full(6, START, np.int32)
    for ids in ([4, 5, 6, 4, 4, 10], [2, 7, 4, 5, 9, 9], None):
        logits, state = decoder.step(last, state, image)
        found = outputs(step, {**made, **states, "ids": last})
        np.testing.assert_allclose(found["log_probs"], decoders.log_softmax(logits), atol=1e-4)
        if decoder.attention:
            np.testing.assert_allclose(found["attention"], state.attention, atol=1e-5)
        states = {name: found[f"next_{name}"] for name in states}
        last = np.array(ids, np.int32) if ids else last


# The whole command, and the program that it writes.


@pytest.fixture(scope="module")
def models(trained, attentive, tmp_path_factory):
    """A function: name -> (an export, the directory of it in ONNX); read only."""
    made: dict[str, pathlib.Path] = {}
    jobs = {"trained": trained / "job/export", "attentive": attentive / "job/export"}

    def of(name: str) -> tuple[pathlib.Path, pathlib.Path]:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("onnx") / name
            export.main(["--onnx", str(jobs[name]), "--output", str(made[name])])
        return jobs[name], made[name]

    return of


@pytest.fixture
def photos(coco_dir, tmp_path) -> list[pathlib.Path]:
    """Of the network's size, of which all decoders give the same pixels; one is transparent, one has 16 bits."""
    found = []
    for path in sorted((coco_dir / "val2017").glob("*.jpg"))[:4]:
        image = Image.open(path).resize((32, 32))
        if not found:
            image.putalpha(128)
        elif len(found) == 1:
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        found.append(tmp_path / f"{path.stem}.png")
        image.save(found[-1])
    return found


def loop(directory):
    """The module caption.py."""
    spec = importlib.util.spec_from_file_location("caption", directory / "caption.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_same(captioner, module, photos, atol=1e-4, rtol=0.0, **search):
    """Texts and log probabilities of the loop are those of the SavedModel with the same search."""
    for photo in photos:
        expected = captioner(photo, **search)
        found = module.captions(Image.open(photo), *search.values())
        assert [text for text, _ in found] == [caption.text for caption in expected]
        log_probs = [caption.log_prob for caption in expected]
        np.testing.assert_allclose([log_prob for _, log_prob in found], log_probs, rtol, atol)


@pytest.mark.parametrize("name", ["trained", "attentive"])
def test_the_loop_gives_the_captions_of_the_export(models, photos, name):
    model, directory = models(name)
    assert {path.name for path in directory.iterdir()} == FILES
    captioner, module = pipelines.load(model), loop(directory)
    check_same(captioner, module, photos)
    for width, penalty in ((1, 0.0), (2, 1.5), (8, 0.3)):
        check_same(captioner, module, photos, beam_width=width, length_penalty=penalty)


def test_files_are_of_onnx_and_say_what_they_are(models):
    model, directory = models("attentive")
    given = json.loads((model / "model_info.json").read_text())
    info = json.loads((directory / "onnx_info.json").read_text())
    assert info["model_digest"] == given["digest"] and info["image_size"] == 32 and info["feature_shape"] == [16, 3]
    assert (info["pad"], info["start"], info["end"], info["unk"]) == (0, 1, 2, 3)
    assert {name: info[name] for name in given["search"]} == given["search"]
    assert info["max_length"] == given["max_caption_length"]
    assert (directory / "vocabulary.txt").read_bytes() == (model / "vocabulary.txt").read_bytes()
    for name in ("encoder.onnx", "decoder_step.onnx"):
        loaded = onnx.load(directory / name)
        assert [each.version for each in loaded.opset_import if each.domain == ""] == [info["opset"]]
        assert info["opset"] >= 17 and {each.domain for each in loaded.opset_import} <= {"", "ai.onnx.ml"}


def test_the_loop_is_a_program_that_needs_neither_tensorflow_nor_us(models, photos, tmp_path):
    model, directory = models("trained")
    moved = shutil.copytree(directory, tmp_path / "moved")
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['caption.py', *{list(map(str, photos[:2]))!r}, '--beam_width', '2']\n"
        f"runpy.run_path({str(moved / 'caption.py')!r}, run_name='__main__')\n"
        "assert not {'tensorflow', 'trainer', 'pipelines', 'tfrecords_schema'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    captioner = pipelines.load(model)
    expected = [
        f"{photo}\t{np.exp(caption.log_prob):.3g}\t{caption.text}"
        for photo in photos[:2]
        for caption in captioner(photo, beam_width=2)
    ]
    assert found.stdout.splitlines() == expected


# What cannot be converted is told in one line, and nothing is written.


def refused(match: str, output: pathlib.Path, **flags) -> None:
    with pytest.raises(InputError, match=match) as told:
        commands.export(output=str(output), **flags)
    assert "\n" not in str(told.value) and not output.exists()


def test_what_is_no_export(trained, export_dir, tmp_path):
    out = tmp_path / "out"
    refused("--ensemble or --onnx: expected one of them, found none", out)
    refused("--ensemble or --onnx: expected one of them, found both", out, onnx="a", ensemble=["b", "c"])
    refused("--overwrite: expected --ensemble beside it, found --onnx", out, onnx="a", overwrite=True)
    refused("--onnx: expected an export directory with model_info.json, found none", out, onnx=str(tmp_path))
    refused("--onnx: expected an export directory", out, onnx=str(trained / "features"))
    model = pathlib.Path(export_dir) / "model_info.json"
    text = model.read_text()
    for edit, match in (
        (lambda info: info["features"].update(extractor="saved_model"), "--onnx: expected a model over features of "),
        (lambda info: info["features"].update(layer="other"), "--onnx: expected a model over features of .*'other'"),
        (lambda info: info["features"].update(weights="imagenet"), "--onnx: expected the network's weights in .*none"),
        (
            lambda info: info.update(decoder={"ensemble": []}),
            "--onnx: expected an export of trainer.task, found an ens",
        ),
    ):
        edit_json(model, edit)
        refused(match, out, onnx=export_dir)
        model.write_text(text)


def test_a_directory_that_holds_something_is_left(export_dir, tmp_path):
    before = sorted(path.name for path in pathlib.Path(export_dir).iterdir())
    with pytest.raises(InputError, match=r"--output: expected nothing in .*, found .*; give another directory"):
        commands.export(onnx=export_dir, output=export_dir)
    assert sorted(path.name for path in pathlib.Path(export_dir).iterdir()) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--output: expected nothing in .*, found no directory"):
        commands.export(onnx=export_dir, output=str(tmp_path / "file"))


def test_a_missing_package_is_told_with_what_to_install(export_dir, tmp_path):
    """In a process that finds no tf2onnx, before TensorFlow is imported."""
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *given: None if name == 'tf2onnx' else find(name, *given)\n"
        "from trainer import export\n"
        f"try: export.main(['--onnx', {export_dir!r}, '--output', {str(tmp_path / 'out')!r}])\n"
        "finally: assert 'tensorflow' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    message = "error: --onnx: expected the package tf2onnx, found none; pip install 'batch-image-captioning[onnx]'\n"
    assert (found.returncode, found.stderr) == (2, message) and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_inception(coco_dir, tmp_path):
    """Real Inception, with weights that an export carries.

    The last of onnxruntime's optimisations adds up convolutions in another order, which on processors without AVX-512
    changes a log probability of -17 by up to 5e-4. Without it they differ by some units of float32's last place.
    """
    import onnxruntime

    from tfrecords_schema.networks import building

    weights = tmp_path / "inception.weights.h5"
    building.build("inception_v3", None).save_weights(weights)
    given = {"coco_dir": str(coco_dir), "weights": str(weights), "feature_grid": True, "min_word_count": 1}
    commands.features(output=str(tmp_path / "features"), max_caption_length=16, **given)
    how = {**SMALL, "attention": "luong", "attention_units": 8, "epochs": 2}
    train_without_java(tmp_path / "features", tmp_path / "job", **how)
    export.main(["--onnx", str(tmp_path / "job/export"), "--output", str(tmp_path / "onnx")])
    photos = []
    for path in sorted((coco_dir / "val2017").glob("*.jpg"))[:3]:
        photos.append(tmp_path / f"{path.stem}.png")
        Image.open(path).resize((299, 299)).save(photos[-1])
    captioner, module = pipelines.load(tmp_path / "job/export"), loop(tmp_path / "onnx")
    check_same(captioner, module, photos, atol=1e-3)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    module.ENCODER = onnxruntime.InferenceSession(tmp_path / "onnx/encoder.onnx", options)
    check_same(captioner, module, photos, rtol=1e-5)
