"""Jobs for Google's Dataflow, as Beam's real DataflowRunner writes them: to a bucket on this machine."""

import ast
import json
import re
import runpy
import shlex
import sys

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from google.cloud import dataflow_v1beta3
from google.protobuf import json_format

from pipelines.engines.gpu import GPUS
from pipelines.engines.options import pipeline_options
from pipelines.settings.caption import CaptionConfig
from pipelines.settings.features import FeaturesConfig
from scripts.flex import templates
from tests.support import ROOT, commands
from tests.support.google import BUCKET, IMAGE, emulated_bucket
from tfrecords_schema.command import flags
from tfrecords_schema.command_line import parse_known

L4 = "type:nvidia-l4;count:1;machine_type:g2-standard-8;install-nvidia-driver"
LAUNCH = ROOT / "scripts/flex/launch.py"
CONFIGS = {"features": FeaturesConfig, "caption": CaptionConfig}
TEMPLATES = {name: json.loads((ROOT / f"scripts/flex/{name}.json").read_text()) for name in ("features", "caption")}


@pytest.fixture(scope="module")
def bucket(coco_dir, trained):
    """With `coco` and `model` in it."""
    with emulated_bucket() as found:
        found.upload(coco_dir, "coco")
        found.upload(trained / "job/export", "model")
        yield found


def translate(bucket, name, command, *beam_flags, **arguments):
    """The job that a real run wrote."""
    given = {"output": f"gs://{BUCKET}/{name}/out", "beam_args": [*bucket.flags(name), *beam_flags], **arguments}
    if command is commands.features:
        given = {"extractor": "tiny", "weights": "random", "min_word_count": 1, **given}
    else:
        given = {"model": f"gs://{BUCKET}/model", **given}
    assert command(**given) == {}  # no report: nothing has run
    return bucket.job(name)


@pytest.fixture(scope="module")
def jobs(bucket):
    """A job of each pipeline with `--gpu nvidia-l4`."""
    coco, images = f"gs://{BUCKET}/coco", [f"gs://{BUCKET}/coco/val2017/*.jpg"]
    return {
        "features": translate(
            bucket, "job-features", commands.features, "--max_num_workers=20", coco_dir=coco, gpu="nvidia-l4"
        ),
        "caption": translate(
            bucket, "job-caption", commands.caption, "--max_num_workers=20", images=images, gpu="nvidia-l4"
        ),
    }


@pytest.mark.parametrize("name", ["features", "caption"])
class TestJob:
    def test_only_extraction_asks_for_a_gpu(self, jobs, name):
        hints = jobs[name].hints()
        assert {re.sub(r"/ParDo\(.*", "", step) for step in hints} == {"MakeShards/ProcessShard"}
        assert all(found == {"beam:resources:accelerator:v1": L4} for found in hints.values())
        assert "worker_accelerator" not in json.dumps(jobs[name].environment)  # it would be every worker's
        assert "machineType" not in jobs[name].pool

    def test_all_workers_run_our_image(self, jobs, name):
        images = jobs[name].pool["sdkHarnessContainerImages"]
        assert [image["containerImage"] for image in images] == [IMAGE, IMAGE]  # with and without a GPU
        steps = jobs[name].graph.components.environments
        assert {image["environmentId"] for image in images} == set(steps)

    def test_one_process_with_two_threads_has_the_gpu(self, jobs, name):
        experiments = jobs[name].environment["experiments"]
        assert "no_use_multiple_sdk_containers" in experiments and "use_multiple_sdk_containers" not in experiments
        assert jobs[name].pool["numThreadsPerWorker"] == 2
        assert jobs[name].pool["autoscalingSettings"] == {"maxNumWorkers": 20}

    def test_the_package_is_in_the_image_and_not_staged(self, jobs, name, bucket):
        """What is staged: the graph, and two small files that Beam always adds."""
        staged = {path.rsplit("/", 1)[1] for path in bucket.names(f"job-{name}/staging/")}
        assert staged == {"pipeline.pb", "pickled_main_session", "submission_environment_dependencies.txt"}
        assert {package["name"] for package in jobs[name].pool["packages"]} == staged - {"pipeline.pb"}

    def test_nothing_is_written_but_what_a_run_begins_with(self, jobs, name, bucket):
        prefixes = {"features": ["train", "val"], "caption": ["captions"]}[name]
        written = [*(f"listing/{prefix}-00000.parquet" for prefix in prefixes), "options.json"]
        assert bucket.names(f"job-{name}/out/") == [f"job-{name}/out/.work/{one}" for one in written]

    def test_no_weights_are_in_it(self, jobs, name):
        assert max(jobs[name].sizes) < 130_000


@pytest.mark.slow
def test_a_job_is_as_large_for_a_thousand_images_as_for_ten(bucket, tiny_network):
    sizes = {}
    for count in (10, 1_000):
        rows = [f"gs://{BUCKET}/coco/train2017/{n:012d}.jpg" for n in range(count)]
        coco = {
            "images": [{"id": n, "file_name": row.rsplit("/", 1)[1]} for n, row in enumerate(rows)],
            "annotations": [{"image_id": n, "caption": f"A caption, number {n}."} for n in range(count)],
        }
        captions = bucket.write(f"{count:04d}/captions.json", json.dumps(coco))
        table = bucket.write(f"{count:04d}/images.csv", "\n".join(["image", *rows]))
        images = [f"gs://{BUCKET}/coco/train2017"]
        made = [
            translate(
                bucket, f"features-{count:04d}", commands.features, train_captions=[captions], train_images=images
            ),
            translate(bucket, f"caption-{count:04d}", commands.caption, images=[table]),
        ]
        sizes[count] = [size for job in made for size in job.sizes]
    assert sizes[10] == pytest.approx(sizes[1_000], abs=200)


def test_several_processes_share_a_gpu_by_mps(bucket, tiny_network):
    """The second recipe of docs/dataflow.md: a service option, for all workers, and no hint."""
    option = "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver;use_nvidia_mps"
    flags = [f"--dataflow_service_options={option}", "--machine_type=g2-standard-8"]
    job = translate(bucket, "mps", commands.features, *flags, coco_dir=f"gs://{BUCKET}/coco")
    assert job.environment["serviceOptions"] == [option]
    assert job.pool["machineType"] == "g2-standard-8" and "numThreadsPerWorker" not in job.pool
    assert "use_multiple_sdk_containers" in job.environment["experiments"] and job.hints() == {}


def test_a_dry_run_is_told_from_a_run(bucket, tiny_network, capsys):
    flags = [flag for flag in bucket.flags("dry") if not flag.startswith("--template_location")]
    given = {"coco_dir": f"gs://{BUCKET}/coco", "extractor": "tiny", "weights": "random"}
    assert commands.features(output=f"gs://{BUCKET}/dry/out", beam_args=[*flags, "--dry_run=True"], **given) == {}
    assert "translated, not started" in capsys.readouterr().out
    assert bucket.names("dry/staging") == []


class TestDocs:
    text = (ROOT / "docs/dataflow.md").read_text()

    def test_commands_have_flags_that_there_are(self):
        blocks = re.findall(r"^```text\n(.*?)^```", self.text, re.M | re.S)
        commands = [block for block in blocks if block.startswith("python -m pipelines.")]
        assert len(commands) == 2
        for command in commands:
            module, *words = shlex.split(command.replace("\\\n", ""))[2:]
            config, beam_args = parse_known(CONFIGS[module.rpartition(".")[2]], words)
            assert config.running.gpu in GPUS and config.output.startswith("gs://")
            assert pipeline_options(beam_args).get_all_options()["runner"] == "DataflowRunner"

    def test_costs_are_what_the_formula_gives(self, capsys):
        (code,) = re.findall(r"^```python\n(.*?)^```", self.text, re.M | re.S)
        exec(code, {})
        assert f"```text\n{capsys.readouterr().out}```" in self.text

    def test_rates_are_those_measured(self):
        measured = (ROOT / "benchmarks/README.md").read_text()
        assert "| feature pipeline, network loaded | 24.7 images/s |" in measured
        assert measured.count("| **captioning, beam width 3** | 24.3 | |") == 1
        assert measured.count("| **captioning, beam width 3** | 27.0 | |") == 1
        assert "4.4 ms are a core's work" in measured

    def test_hints_and_options_are_those_of_the_tests(self):
        assert "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver;use_nvidia_mps" in self.text
        assert L4 in self.text and all(f"`{name}`" in self.text for name in GPUS)
        assert all(f"| {gpu.machine_type} |" in self.text for gpu in GPUS.values())


@pytest.mark.parametrize("name", TEMPLATES)
class TestFlexTemplate:
    def test_metadata_are_what_the_service_reads(self, name):
        metadata = json_format.ParseDict(TEMPLATES[name], dataflow_v1beta3.TemplateMetadata.pb()())
        assert metadata.name and metadata.description
        assert all(p.name and p.label and p.help_text and len(p.regexes) == 1 for p in metadata.parameters)

    def test_they_are_made_of_the_commands_flags(self, name):
        assert (ROOT / f"scripts/flex/{name}.json").read_text() == templates.template(name), "run `make templates`"

    def test_each_flag_is_a_parameter_or_left_out_on_purpose(self, name):
        own = [flag.name for flag in flags(CONFIGS[name])]
        declared = [p["name"] for p in TEMPLATES[name]["parameters"]]
        assert [flag for flag in own if flag not in templates.LEFT_OUT] == declared[:-1]
        assert set(templates.LEFT_OUT) & {"max_reject_fraction", "accelerator"} <= set(own)
        assert declared[-1] == "sdk_container_image" in PipelineOptions([]).get_all_options()
        assert len(set(declared)) == len(declared)

    def test_what_must_be_given_and_what_is_a_switch(self, name):
        parameters = {p["name"]: p for p in TEMPLATES[name]["parameters"]}
        required = {"features": {"output"}, "caption": {"output", "model"}}[name]
        assert {n for n, p in parameters.items() if not p.get("isOptional")} == {*required, "sdk_container_image"}
        switches = {"features": {"feature_grid", "overwrite", "store_images", "update"}}
        switches["caption"] = {"forbid_unk", "sample", "attention", "word_scores", "capitalise", "overwrite"}
        assert {n for n, p in parameters.items() if p.get("paramType") == "BOOLEAN"} == switches[name]


GOOD_AND_BAD = {
    "output": (["gs://bucket-1/a/b c", "gs://a.b_c/"], ["/local", "s3://bucket/a", "gs://B/a", "gs://bucket/a,b"]),
    "coco_dir": (["gs://bucket/coco"], ["coco"]),
    "captions": (["gs://bucket/a.json", "gs://bucket/a.json,gs://bucket/b.json"], ["a.json", "gs://b"]),
    "images": (["gs://bucket", "gs://bucket/**.jpg,gs://other/b.zip"], ["gs://bucket/a,b.jpg", "", ","]),
    "batch_size": (["1", "64"], ["0", "-1", "1.5", "many"]),
    "val_fraction": (["0", "0.05", "1", "1.0"], ["1.5", "-0.1", ".", "5%"]),
    "top_p": (["0.9"], ["2"]),
    "length_penalty": (["0.7", "0"], ["a", "1e3", "", "-1"]),
    "extractor": (["inception_v3", "saved_model:gs://bucket/net"], ["resnet", "saved_model:/local"]),
    "weights": (["imagenet", "random"], ["gs://bucket/w.h5"]),
    "year": (["2017"], ["17", "20170"]),
    "gpu": (list(GPUS), ["l4", "nvidia-l4;count:8"]),
    "overwrite": (["true", "false"], ["True", "yes", "1"]),
    "format": (["csv", "csv,coco"], ["xml", "csv,", "csv coco"]),
    "metadata_columns": (["city", "city=town,date"], ["", "a,,b"]),
    "split": (["val"], ["validation"]),
    "sdk_container_image": (
        [IMAGE, "gcr.io/p/worker@sha256:" + "0" * 64],
        ["worker", "gcr.io/p/worker", "gcr.io/P/worker:1", "gcr.io/p/worker:1 --no_auth"],
    ),
}


@pytest.mark.parametrize("parameter", GOOD_AND_BAD)
def test_regexes_take_good_values_and_refuse_bad_ones(parameter):
    regexes = {p["regexes"][0] for t in TEMPLATES.values() for p in t["parameters"] if p["name"] == parameter}
    assert regexes
    good, bad = GOOD_AND_BAD[parameter]
    for regex in regexes:
        assert [value for value in good if not re.search(regex, value)] == []
        assert [value for value in bad if re.search(regex, value)] == []


def launch(monkeypatch, pipeline, *parameters):
    """Runs the file that the launcher runs, as it runs it: a program with `--name=value` after it."""
    monkeypatch.setenv("PIPELINE", pipeline)
    monkeypatch.setattr(sys, "argv", [str(LAUNCH), *parameters])
    runpy.run_path(str(LAUNCH), run_name="__main__")


def test_the_launcher_starts_a_feature_job(bucket, tiny_network, monkeypatch, capsys):
    split = [f"--train_captions=gs://{BUCKET}/coco/annotations/captions_train2017.json"]
    split += [f"--val_captions=gs://{BUCKET}/coco/annotations/captions_val2017.json"]
    images = f"--images=gs://{BUCKET}/coco/train2017,gs://{BUCKET}/coco/val2017"
    own = [
        "--extractor=tiny",
        "--weights=random",
        "--feature_grid=true",
        "--update=false",
        "--overwrite=true",
        "--gpu=",
    ]
    # The last ones are further parameters that the launcher is known to pass on.
    beams = [*bucket.flags("flex-features"), '--labels={"team": "a"}', "--num_workers=1", "--max_num_workers=3"]
    launch(monkeypatch, "features", *split, images, f"--output=gs://{BUCKET}/flex-features/out", *own, *beams)
    assert f"gs://{BUCKET}/flex-features/job; it will write gs://{BUCKET}/flex-features/out" in capsys.readouterr().out
    assert bucket.job("flex-features").pool["numWorkers"] == 1
    options = json.loads(bucket.read(f"gs://{BUCKET}/flex-features/out/.work/options.json"))
    assert options["feature_layer"] == "pool"  # of the grid


def test_the_launcher_starts_a_caption_job(bucket, tiny_network, monkeypatch):
    own = ["--format=csv,coco", "--forbid_unk=false", "--sample=false", "--beam_width=2", "--gpu=nvidia-tesla-t4"]
    places = [f"--model=gs://{BUCKET}/model", f"--images=gs://{BUCKET}/coco/val2017/*.jpg"]
    launch(
        monkeypatch,
        "caption",
        *places,
        f"--output=gs://{BUCKET}/flex-caption/out",
        *own,
        *bucket.flags("flex-caption"),
    )
    job = bucket.job("flex-caption")
    assert "machine_type:n1-standard-8" in str(job.hints())
    options = json.loads(bucket.read(f"gs://{BUCKET}/flex-caption/out/.work/options.json"))
    assert options["forbid_unk"] is False and options["beam_width"] == 2


def test_the_launcher_passes_a_mistake_on(bucket, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        launch(monkeypatch, "features", "--output=gs://b/out", "--overwrite=perhaps")
    assert end.value.code == 2 and "--overwrite" in capsys.readouterr().err


def test_the_launched_file_imports_nothing_that_workers_lack():
    """It is the main program, whose names Beam sends along to the workers."""
    tree = ast.parse(LAUNCH.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= {"__future__", "os", "sys", "pipelines", "tfrecords_schema"}


class TestDockerfiles:
    def lines(self, name):
        text = (ROOT / name).read_text().replace("\\\n", " ")
        return [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]

    def pin(self, package):
        return re.search(rf"^{package}==(\S+)", (ROOT / "requirements.txt").read_text(), re.M)[1]

    def test_the_workers_image_is_beams_of_the_pinned_version(self):
        (base,) = [rest for word, rest in self.lines("Dockerfile.dataflow") if word == "FROM"]
        assert base == f"apache/beam_python${{PYTHON_VERSION}}_sdk:{self.pin('apache-beam')}"

    def test_its_python_is_the_one_that_requirements_are_pinned_for(self):
        (version,) = re.findall(r"^ARG PYTHON_VERSION=(.+)$", (ROOT / "Dockerfile.dataflow").read_text(), re.M)
        assert f"--python-version {version} " in (ROOT / "Makefile").read_text()
        assert (
            f"FROM gcr.io/dataflow-templates-base/python{version.replace('.', '')}-template-launcher-base"
            in (ROOT / "Dockerfile.flex").read_text()
        )

    def test_all_that_is_installed_is_pinned(self):
        installs = [rest for word, rest in self.lines("Dockerfile.dataflow") if word == "RUN" and "pip install" in rest]
        assert installs and all("--constraint requirements.txt" in line for line in installs)
        assert (
            self.pin("tensorflow")
            and "ARG TENSORFLOW=tensorflow[and-cuda]" in (ROOT / "Dockerfile.dataflow").read_text()
        )

    @pytest.mark.parametrize("name", ["Dockerfile.dataflow", "Dockerfile.flex"])
    def test_what_is_copied_is_there(self, name):
        copies = [rest.split() for word, rest in self.lines(name) if word == "COPY" and not rest.startswith("--from")]
        assert copies and all((ROOT / source).exists() for *sources, _ in copies for source in sources)

    def test_the_package_is_copied_whole(self):
        copied = {rest.split()[0] for word, rest in self.lines("Dockerfile.dataflow") if word == "COPY"}
        found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "scripts", "benchmarks"}
        assert found <= copied

    def test_the_launcher_runs_our_file(self):
        words = dict(line for line in self.lines("Dockerfile.flex") if line[0] == "ENTRYPOINT")
        assert words == {"ENTRYPOINT": '["/opt/google/dataflow/python_template_launcher"]'}
        assert ["ENV", "FLEX_TEMPLATE_PYTHON_PY_FILE=/template/launch.py"] in self.lines("Dockerfile.flex")
        assert ["COPY", "scripts/flex/launch.py /template/launch.py"] in self.lines("Dockerfile.flex")
