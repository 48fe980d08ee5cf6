"""`--gpu`: what it adds to the flags of a Dataflow job, and what it refuses."""

import argparse

import pytest

from pipelines.engines.gpu import GPUS, with_gpu
from tfrecords_schema.errors import InputError

GIVEN = ["--runner=DataflowRunner", "--sdk_container_image=europe-docker.pkg.dev/p/r/worker:1"]
L4 = "type:nvidia-l4;count:1;machine_type:g2-standard-8;install-nvidia-driver"
ADDED = ["--experiments=no_use_multiple_sdk_containers", "--number_of_worker_harness_threads=2"]


def test_one_gpu_in_each_worker_that_extracts():
    assert with_gpu("nvidia-l4", GIVEN, None) == ([*GIVEN, *ADDED], L4)


def test_without_the_flag_nothing_changes():
    assert with_gpu(None, ["--runner=FlinkRunner"], L4) == (["--runner=FlinkRunner"], L4)


@pytest.mark.parametrize(
    ("name", "machine_type"),
    [
        ("nvidia-tesla-t4", "n1-standard-8"),
        ("nvidia-tesla-a100", "a2-highgpu-1g"),
        ("nvidia-a100-80gb", "a2-ultragpu-1g"),
        ("nvidia-h100-80gb", "a3-highgpu-1g"),
    ],
)
def test_each_gpu_has_a_machine_that_it_goes_with(name, machine_type):
    hint = f"type:{name};count:1;machine_type:{machine_type};install-nvidia-driver"
    assert with_gpu(name, GIVEN, None)[1] == hint


@pytest.mark.parametrize(
    ("flags", "added"),
    [
        (["--number_of_worker_harness_threads=1"], ADDED[:1]),
        (["--number_of_worker_harness_threads", "4"], ADDED[:1]),
        (["--experiments=use_multiple_sdk_containers"], ADDED[1:]),
        (["--experiment=a,no_use_multiple_sdk_containers"], ADDED[1:]),
        (["--experiments=shuffle_mode=service"], ADDED),
        (["--experiments", "a", "--number_of_worker_harness_threads=3"], ADDED[:1]),
        (["--dataflow_service_options=enable_dynamic_thread_scaling"], ADDED),
    ],
)
def test_flags_of_the_user_stay_as_they_are(flags, added):
    assert with_gpu("nvidia-l4", [*GIVEN, *flags], None) == ([*GIVEN, *flags, *added], L4)


@pytest.mark.parametrize("flag", [["--machine_type=g2-standard-16"], ["--worker_machine_type", "g2-standard-16"]])
def test_a_machine_that_has_the_gpu_is_the_extracting_workers_alone(flag):
    """As `--machine_type` it would be every worker's, and there is no G2 machine without a GPU."""
    beam_args, hint = with_gpu("nvidia-l4", [*GIVEN, *flag, "--max_num_workers=9"], None)
    assert beam_args == [*GIVEN, "--max_num_workers=9", *ADDED]
    assert hint == L4.replace("g2-standard-8", "g2-standard-16")


def test_a_machine_to_which_the_gpu_is_attached_may_be_all_workers():
    beam_args, hint = with_gpu("nvidia-tesla-t4", [*GIVEN, "--machine_type=n1-highmem-4"], None)
    assert beam_args == [*GIVEN, "--machine_type=n1-highmem-4", *ADDED]
    assert hint == "type:nvidia-tesla-t4;count:1;machine_type:n1-highmem-4;install-nvidia-driver"


def test_another_machine_is_the_other_workers():
    beam_args, hint = with_gpu("nvidia-l4", [*GIVEN, "--machine_type=e2-standard-2"], None)
    assert beam_args == [*GIVEN, "--machine_type=e2-standard-2", *ADDED] and hint == L4


@pytest.mark.parametrize(
    ("name", "beam_args", "accelerator", "message"),
    [
        ("l4", GIVEN, None, f"--gpu: expected one of {', '.join(GPUS)}, found 'l4'; for others give --accelerator"),
        ("nvidia-l4", GIVEN, L4, f"--gpu: expected no --accelerator beside it, found {L4}; give one of the two"),
        (None, GIVEN, "nvidia-l4:4", "--accelerator: expected Beam's hint, such as type:nvidia-l4;count:1;"),
        (None, GIVEN, "count:1;machine_type:g2-standard-8", "--accelerator: expected Beam's hint, such as type:nvidia"),
        ("nvidia-l4", [], None, "--gpu: expected --runner=DataflowRunner, found no --runner; "),
        (
            "nvidia-l4",
            ["--runner", "FlinkRunner"],
            None,
            "--gpu: expected --runner=DataflowRunner, found FlinkRunner; ",
        ),
        (
            "nvidia-l4",
            [*GIVEN, "--dataflow_service_options=a,worker_accelerator=type:nvidia-l4;count:1"],
            None,
            "--gpu: expected no --dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1 beside it, ",
        ),
        (
            "nvidia-l4",
            [*GIVEN, "--machine_type=a2-highgpu-1g"],
            None,
            "--machine_type: expected a machine with nvidia-l4 (g2-…) or without GPUs, found a2-highgpu-1g",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name, beam_args, accelerator, message):
    with pytest.raises(InputError) as error:
        with_gpu(name, beam_args, accelerator)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("command", ["features", "caption"])
def test_both_commands_refuse_before_anything_is_read(command, capsys):
    import importlib

    inputs = {"features": ["--coco_dir=/nowhere"], "caption": ["--model=/nowhere", "--images=/nowhere"]}[command]
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"pipelines.{command}").main([*inputs, "--output=/nowhere/out", "--gpu=l4"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: --gpu: expected one of nvidia-l4, ")


def test_names_of_flags_are_beams():
    """Each name that `--gpu` looks for, under the meaning that it takes it for."""
    from apache_beam.options.pipeline_options import DebugOptions, GoogleCloudOptions, WorkerOptions

    parser = argparse.ArgumentParser()
    for options in (DebugOptions, GoogleCloudOptions, WorkerOptions):
        options._add_argparse_args(parser)
    named = {flag: action.dest for flag, action in parser._option_string_actions.items()}
    for flags, meaning in [
        (["--machine_type", "--worker_machine_type"], "machine_type"),
        (["--experiment", "--experiments"], "experiments"),
        (["--dataflow_service_option", "--dataflow_service_options"], "dataflow_service_options"),
        (["--number_of_worker_harness_threads"], "number_of_worker_harness_threads"),
    ]:
        assert {named.pop(flag) for flag in flags} == {meaning}
        assert meaning not in named.values()
