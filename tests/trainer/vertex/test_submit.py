"""Training jobs on Vertex AI: what reaches the service, what is refused before, and a rehearsal on this machine."""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import grpc
import pytest
import yaml
from google.cloud import aiplatform_v1
from google.protobuf import json_format

from tests.support import ROOT, commands
from tests.support.outputs import steps_done
from tests.support.processes import wait_for
from tests.support.small import STOPPABLE
from tests.support.vertex import NAME, JobServer, serving
from tfrecords_schema import command
from tfrecords_schema.errors import InputError
from trainer import submit, task
from trainer.vertex import spec

GIVEN = {
    "data": "gs://bucket/features",
    "job_dir": "gs://bucket/jobs/captions-7",
    "project": "my-project-1",
    "region": "us-central1",
    "image": "us-docker.pkg.dev/my-project-1/images/trainer:1",
}
MACHINE = ["--accelerator", "nvidia-l4:4", "--spot"]
TRAINER = ["--epochs", "3", "--self_critical", "--attention", "bahdanau", "--jit_compile"]
MORE = [
    *(
        "--name",
        "Seventh try",
        "--labels",
        "team=vision",
        "cost=low",
        "--timeout_hours",
        "2.5",
        "--boot_disk_gb",
        "300",
    ),
    *("--service_account", "trainer@my-project-1.iam.gserviceaccount.com"),
    *("--network", "projects/123456/global/networks/default"),
]


def argv(*more: str, **changes) -> list[str]:
    flags = {name: value for name, value in {**GIVEN, **changes}.items() if value is not None}
    return [*(x for name, value in flags.items() for x in (f"--{name}", value)), *more]


def status_of(arguments: list[str]) -> int:
    """Of the command, as a shell sees it."""
    try:
        submit.main(arguments)
    except SystemExit as exit_:
        return exit_.code
    return 0


# ---- what is submitted -------------------------------------------------------------------------------------------


def test_the_job_arrives_at_the_service_complete(capsys):
    server = JobServer()
    with serving(server) as endpoint:
        assert status_of(argv(*MACHINE, *TRAINER, *MORE, "--api_endpoint", endpoint)) == 0
    (request,) = server.requests
    job = aiplatform_v1.CustomJob(
        display_name="Seventh try",
        labels={"team": "vision", "cost": "low"},
        job_spec=aiplatform_v1.CustomJobSpec(
            worker_pool_specs=[
                aiplatform_v1.WorkerPoolSpec(
                    machine_spec=aiplatform_v1.MachineSpec(
                        machine_type="g2-standard-48",
                        accelerator_type=aiplatform_v1.AcceleratorType.NVIDIA_L4,
                        accelerator_count=4,
                    ),
                    replica_count=1,
                    disk_spec=aiplatform_v1.DiskSpec(boot_disk_size_gb=300),
                    container_spec=aiplatform_v1.ContainerSpec(
                        image_uri="us-docker.pkg.dev/my-project-1/images/trainer:1",
                        command=["python", "-m", "trainer.task"],
                        args=["--data=gs://bucket/features", "--job_dir=gs://bucket/jobs/captions-7", *TRAINER],
                    ),
                )
            ],
            scheduling=aiplatform_v1.Scheduling(
                timeout={"seconds": 9000},
                restart_job_on_worker_restart=True,
                strategy=aiplatform_v1.Scheduling.Strategy.SPOT,
            ),
            service_account="trainer@my-project-1.iam.gserviceaccount.com",
            network="projects/123456/global/networks/default",
            base_output_directory=aiplatform_v1.GcsDestination(output_uri_prefix="gs://bucket/jobs/captions-7"),
        ),
    )
    assert request.parent == "projects/my-project-1/locations/us-central1"
    assert server.routing == ["parent=projects/my-project-1/locations/us-central1"]
    assert request.custom_job == job
    assert not request.custom_job.job_spec.scheduling.disable_retries, "a status of 75 must be retried"
    console = "https://console.cloud.google.com/ai/platform/locations/us-central1/training/789?project=123456"
    assert capsys.readouterr().out.splitlines() == [
        f"job         {NAME}",
        f"console     {console}",
        f"logs        gcloud ai custom-jobs stream-logs {NAME}",
        f"follow      python -m trainer.submit --follow {NAME} --api_endpoint {endpoint}",
        f"cancel      gcloud ai custom-jobs cancel {NAME}",
    ]


def test_defaults_are_one_processor_machine_named_after_the_job_directory():
    server = JobServer()
    with serving(server) as endpoint:
        assert status_of(argv("--api_endpoint", endpoint, job_dir="/gcs/bucket/jobs/c8/")) == 0
    job = server.requests[0].custom_job
    assert (job.display_name, dict(job.labels)) == ("c8", {})
    (pool,) = job.job_spec.worker_pool_specs
    assert pool.machine_spec == aiplatform_v1.MachineSpec(machine_type="n1-standard-16")
    assert pool.container_spec.args == ["--data=gs://bucket/features", "--job_dir=/gcs/bucket/jobs/c8/"]
    assert job.job_spec.scheduling.strategy == aiplatform_v1.Scheduling.Strategy.STANDARD
    assert job.job_spec.base_output_directory.output_uri_prefix == "gs://bucket/jobs/c8/"
    for unset in ("service_account", "network"):
        assert not getattr(job.job_spec, unset)
    assert "timeout" not in job.job_spec.scheduling and "disk_spec" not in pool


@pytest.mark.parametrize(
    ("accelerator", "expected"),
    [
        ("nvidia-l4", ("g2-standard-8", "NVIDIA_L4", 1)),
        ("nvidia-l4:8", ("g2-standard-96", "NVIDIA_L4", 8)),
        ("nvidia-tesla-t4:2", ("n1-standard-16", "NVIDIA_TESLA_T4", 2)),
        ("nvidia-tesla-v100:8", ("n1-standard-64", "NVIDIA_TESLA_V100", 8)),
        ("nvidia-tesla-a100:4", ("a2-highgpu-4g", "NVIDIA_TESLA_A100", 4)),
        ("nvidia-tesla-a100:16", ("a2-megagpu-16g", "NVIDIA_TESLA_A100", 16)),
        ("nvidia-a100-80gb:2", ("a2-ultragpu-2g", "NVIDIA_A100_80GB", 2)),
        ("nvidia-h100-80gb:8", ("a3-highgpu-8g", "NVIDIA_H100_80GB", 8)),
    ],
)
def test_the_machine_follows_from_the_accelerator(accelerator, expected):
    assert tuple(spec.machine(accelerator).values()) == expected


@pytest.mark.parametrize("name", spec.MACHINES)
def test_every_accelerator_is_one_that_the_service_knows(name):
    for number in spec.MACHINES[name]:
        made = json_format.ParseDict(spec.machine(f"{name}:{number}"), aiplatform_v1.MachineSpec.pb()())
        assert made.accelerator_type and made.accelerator_count == number


def test_a_machine_type_is_used_as_given():
    assert spec.machine("nvidia-l4:1", "g2-standard-32")["machineType"] == "g2-standard-32"
    assert spec.machine("nvidia-h100-80gb:1", "a3-highgpu-1g")["acceleratorCount"] == 1
    assert spec.machine(None, "c3-highcpu-22") == {"machineType": "c3-highcpu-22"}


def test_no_flag_but_two_belongs_to_both_commands():
    """A flag of the trainer with the name of one of ours would never reach it."""
    own, trainers = ({flag.name for flag in command.flags(c)} for c in (submit.SubmitConfig, task.TaskConfig))
    assert own & trainers == {"data", "job_dir"}


# ---- --dry_run ---------------------------------------------------------------------------------------------------


def printed_job(capsys, *more, **changes) -> str:
    assert status_of(argv(*more, "--dry_run", **changes)) == 0
    return capsys.readouterr().out


def test_a_dry_run_prints_the_same_job_and_sends_nothing(capsys):
    server = JobServer()
    with serving(server) as endpoint:
        text = printed_job(capsys, *MACHINE, *TRAINER, *MORE, "--api_endpoint", endpoint)
        assert not server.requests
        status_of(argv(*MACHINE, *TRAINER, *MORE, "--api_endpoint", endpoint))
    spec = json_format.ParseDict(yaml.safe_load(text), aiplatform_v1.CustomJobSpec.pb()())
    assert spec == aiplatform_v1.CustomJobSpec.pb(server.requests[0].custom_job.job_spec)
    assert not re.search(r"^[ -]*\w*_\w*:", text, re.MULTILINE), "gcloud takes no keys with underscores"
    assert text.splitlines()[0] == (
        "# gcloud ai custom-jobs create --project=my-project-1 --region=us-central1 '--display-name=Seventh try' "
        "--labels=team=vision,cost=low --config=FILE"
    )


def test_gcloud_takes_what_a_dry_run_prints(capsys, tmp_path):
    """The real gcloud, which sends it to a server of ours."""
    if not shutil.which("gcloud"):
        pytest.skip("gcloud is not installed: whether it takes the YAML was not tried")
    import http.server
    import json
    import threading

    bodies = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"name": NAME, "state": "JOB_STATE_PENDING"}).encode())

        def log_message(self, *_):
            pass

    text = printed_job(capsys, *MACHINE, *TRAINER, *MORE)
    (tmp_path / "job.yaml").write_text(text)
    (tmp_path / "token").write_text("none")
    command = [*shlex.split(text.splitlines()[0].replace("FILE", str(tmp_path / "job.yaml")))[1:]]
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "CLOUDSDK_CONFIG": str(tmp_path),
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(tmp_path / "token"),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": f"http://127.0.0.1:{server.server_port}/",
        }
        found = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        server.shutdown()
    assert found.returncode == 0, found.stderr
    ((path, body),) = bodies
    assert path.startswith("/v1/projects/my-project-1/locations/us-central1/customJobs")
    sent = json_format.ParseDict(body, aiplatform_v1.CustomJob.pb()())
    job = {"displayName": "Seventh try", "labels": {"team": "vision", "cost": "low"}, "jobSpec": yaml.safe_load(text)}
    assert sent == json_format.ParseDict(job, aiplatform_v1.CustomJob.pb()())


# ---- what is refused before anything is sent ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "changes", "message"),
    [
        (["--bogus", "1"], {}, "--bogus: expected a flag of this command or of the trainer"),
        (["--accelarator=nvidia-l4"], {}, "--accelarator=nvidia-l4: expected a flag"),
        (["--epochs", "x"], {}, "--epochs: expected a whole number, found 'x'"),
        (["--epochs", "0"], {}, "--epochs: expected at least 1, found 0"),
        (["--layers", "9"], {}, "--layers: expected at most 3, found 9"),
        (["--cell", "rnn"], {}, "--cell: expected one of lstm, gru, found rnn"),
        (["--freeze_embeddings"], {}, "--freeze_embeddings: expected --pretrained_embeddings FILE"),
        (["--pretrained_embeddings", "/home/me/glove.txt"], {}, "--pretrained_embeddings: expected a place that"),
        (["--init_from", "/home/me/export"], {}, "--init_from: expected a place that machines in the cloud can reach"),
        (
            ["--overwrite"],
            {},
            "--overwrite: expected without it, since a restarted job would delete its own checkpoints",
        ),
        ([], {"data": "features"}, "--data: expected a place that machines in the cloud can reach, gs://BUCKET/…"),
        ([], {"data": None}, "--data: expected a directory, found ''"),
        ([], {"job_dir": "jobs/7"}, "--job_dir: expected a place"),
        ([], {"job_dir": None}, "--job_dir: expected a directory, found ''"),
        ([], {"project": "My Project"}, "--project: expected a project id such as my-project-1, found My Project"),
        ([], {"project": None}, "--project: expected a project id such as my-project-1, found nothing"),
        ([], {"region": "us-central1-a"}, "--region: expected a region such as us-central1, found us-central1-a"),
        ([], {"image": None}, "--image: expected an image such as us-docker.pkg.dev/"),
        (["--accelerator", "l4:1"], {}, "--accelerator: expected one of nvidia-l4, nvidia-tesla-t4,"),
        (["--accelerator", "nvidia-l4:x"], {}, "--accelerator: expected nvidia-l4:COUNT, found nvidia-l4:x"),
        (["--accelerator", "nvidia-l4:"], {}, "--accelerator: expected nvidia-l4:COUNT, found nvidia-l4:"),
        (["--accelerator="], {}, "--accelerator: expected a value, found ''"),
        (
            ["--accelerator", "nvidia-l4:1", "--machine_type", "n1-standard-4"],
            {},
            "--machine_type: expected g2-… for nvidia-l4, found n1-standard-4",
        ),
        (["--name", "a\u2028b"], {}, "--name: expected 1 to 128 characters, found a"),
        (
            ["--accelerator", "nvidia-l4:3"],
            {},
            "--accelerator: expected nvidia-l4:1, nvidia-l4:2, nvidia-l4:4, nvidia-l4:8, found nvidia-l4:3; or give",
        ),
        (["--machine_type", "g2"], {}, "--machine_type: expected a machine type such as g2-standard-48, found g2"),
        (["--labels", "Team=a"], {}, "--labels: expected key=value of lower-case letters"),
        (["--labels", "team"], {}, "--labels: expected KEY=VALUE, found team"),
        (["--name", "x" * 129], {}, "--name: expected 1 to 128 characters"),
        (["--service_account", "me"], {}, "--service_account: expected …@….gserviceaccount.com, found me"),
        (["--network", "default"], {}, "--network: expected projects/NUMBER/global/networks/NAME, found default"),
        (["--timeout_hours", "0"], {}, "--timeout_hours: expected more than 0"),
        (["--boot_disk_gb", "50"], {}, "--boot_disk_gb: expected 100 to 64000, found 50"),
        (["--poll_seconds", "0"], {}, "--poll_seconds: expected more than 0, found 0"),
        (["--dry_run", "--local"], {}, "--local: expected it without --dry_run"),
        (["--follow", "789"], {}, "--follow: expected projects/P/locations/R/customJobs/NUMBER, found 789"),
        (["--follow", NAME], {}, "--data: expected without --follow JOB"),
    ],
)
def test_bad_flags_are_refused_in_one_line_before_anything_is_sent(capsys, more, changes, message):
    server = JobServer()
    with serving(server) as endpoint:
        assert status_of(argv(*more, "--api_endpoint", endpoint, **changes)) == 2
    assert not server.requests
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}") and captured.err.count("\n") == 1 and not captured.out


def test_without_the_client_library_one_line_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(
        sys.modules, "google.cloud.aiplatform_v1", None
    )  # what Python does for a module that is not there
    assert status_of(argv()) == 2
    err = capsys.readouterr().err
    assert "expected google-cloud-aiplatform, found none; pip install '.[vertex]'" in err and err.count("\n") == 1


def test_without_credentials_one_line_says_how_to_get_them(tmp_path):
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "NO_GCE_CHECK": "true"}
    found = subprocess.run(
        [sys.executable, "-m", "trainer.submit", *argv()],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 2 and found.stderr.count("\n") == 1, found.stderr
    assert "run gcloud auth application-default login" in found.stderr


@pytest.mark.parametrize("endpoint", ["ftp://host", "http://", "https://host/v1"])
def test_an_endpoint_is_a_host(capsys, endpoint):
    assert status_of(argv("--api_endpoint", endpoint)) == 2
    assert "--api_endpoint: expected HOST, HOST:PORT or http://HOST:PORT" in capsys.readouterr().err


# ---- what the service answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "Permission 'aiplatform.customJobs.create' denied"),
        (grpc.StatusCode.INVALID_ARGUMENT, "Machine type is not supported.\nSecond line"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "quota exceeded: custom_model_training_nvidia_l4_gpus"),
        (grpc.StatusCode.UNAVAILABLE, "try again"),
    ],
)
def test_a_refusal_of_the_service_is_one_line_and_the_job_is_sent_once(capsys, code, details):
    server = JobServer(refuse=(code, details))
    with serving(server) as endpoint:
        assert status_of(argv("--api_endpoint", endpoint)) == 1
    assert capsys.readouterr().err == f"error: {endpoint}: {code.name}: {details.splitlines()[0]}\n"
    assert len(server.requests) == 1


def test_a_service_that_is_not_there_is_one_line(capsys):
    with serving(JobServer()) as endpoint:
        pass
    assert status_of(argv("--api_endpoint", endpoint)) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {endpoint}: UNAVAILABLE: ") and err.count("\n") == 1


def states(text: str) -> list[str]:
    """The lines with a time of day before them."""
    return re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  (\w+)$", text, re.MULTILINE)


def test_following_prints_each_change_of_state_until_the_job_succeeded(capsys):
    unavailable = grpc.StatusCode.UNAVAILABLE  # in the middle of it
    server = JobServer(["QUEUED", "QUEUED", "PENDING", unavailable, "RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"])
    with serving(server) as endpoint:
        assert status_of(argv("--follow", "--poll_seconds", "0.01", "--api_endpoint", endpoint)) == 0
    assert states(capsys.readouterr().out) == ["QUEUED", "PENDING", "RUNNING", "SUCCEEDED"]
    assert len(server.requests) == 1 + 8 and {request.name for request in server.requests[1:]} == {NAME}


@pytest.mark.parametrize("end", ["FAILED", "CANCELLED", "EXPIRED"])
def test_a_job_that_does_not_succeed_ends_with_1_and_the_error(capsys, end):
    server = JobServer(["RUNNING", end], error="The replica workerpool0-0 exited with a non-zero status of 1.")
    with serving(server) as endpoint:
        assert status_of(argv("--follow", "--poll_seconds", "0.01", "--api_endpoint", endpoint)) == 1
    captured = capsys.readouterr()
    assert states(captured.out) == ["RUNNING", end]
    reason = ": The replica workerpool0-0 exited with a non-zero status of 1." if end == "FAILED" else ""
    assert captured.err == f"error: {NAME}: {end}{reason}; see gcloud ai custom-jobs stream-logs {NAME}\n"


def test_a_job_that_was_submitted_before_can_be_followed(capsys):
    server = JobServer(["RUNNING", "SUCCEEDED"])
    with serving(server) as endpoint:
        assert status_of(["--follow", NAME, "--poll_seconds", "0.01", "--api_endpoint", endpoint]) == 0
    assert states(capsys.readouterr().out) == ["RUNNING", "SUCCEEDED"]
    assert [type(request).__name__ for request in server.requests] == ["GetCustomJobRequest"] * 2


def test_ctrl_c_while_following_leaves_the_job_running_and_says_how_to_go_on():
    server = JobServer(["RUNNING"])
    with serving(server) as endpoint:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer.submit", *argv("--follow", "--api_endpoint", endpoint)],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not process.stdout.readline().endswith("RUNNING\n"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.splitlines() == [
        f"error: interrupted; the job runs on: python -m trainer.submit --follow {NAME} --api_endpoint {endpoint} "
        "follows it again",
        f"       gcloud ai custom-jobs cancel {NAME} ends it",
    ]
    assert [type(request).__name__ for request in server.requests] == ["CreateCustomJobRequest", "GetCustomJobRequest"]


# ---- the image, and the rehearsal --------------------------------------------------------------------------------


def test_the_trainers_image_can_be_built_of_what_is_here():
    """What can be told without a container engine."""
    text = (ROOT / "Dockerfile.trainer").read_text()
    instructions = re.findall(r"^([A-Z]+) (.+)$", text, re.MULTILINE)
    sources = [source for what, value in instructions if what == "COPY" for source in value.split()[:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {"setup.py", "README.md", "requirements.txt", "tfrecords_schema", "trainer"} <= set(sources)
    (base,) = (value for what, value in instructions if what == "FROM")
    assert base == "python:3.11-slim", "requirements.txt is made for 3.11: see `make requirements`"
    (install,) = (value for what, value in instructions if what == "RUN" and value.startswith("pip "))
    assert shlex.split(install)[:2] == ["pip", "install"] and "--constraint requirements.txt" in install
    assert '"tensorflow[and-cuda]"' in install and re.search(
        r"^tensorflow==", (ROOT / "requirements.txt").read_text(), re.M
    )
    assert yaml.safe_load(dict(instructions)["ENTRYPOINT"]) == list(spec.COMMAND)


def local(job: pathlib.Path, directory: pathlib.Path, **changes) -> subprocess.Popen:
    flags = {"data": directory, "job_dir": job, **STOPPABLE, "self_critical": 0, **changes}
    return subprocess.Popen(
        [sys.executable, "-m", "trainer.submit", "--local"] + [str(x) for k, v in flags.items() for x in (f"--{k}", v)],
        cwd=ROOT,
        env={**os.environ, "PATH": "/nowhere", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGTERM, 75, "SIGTERM"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_rehearsed_preemption_saves_a_checkpoint_and_the_same_command_goes_on(data, tmp_path, number, status, word):
    job = tmp_path / "job"
    process = local(job, data, epochs=500, checkpoint_steps=0)
    wait_for(process, lambda: (job / "history.csv").exists())
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status, stderr
    assert stderr.splitlines()[-1] == f"error: {word}; run the same command to continue"
    steps = steps_done(job)
    assert steps > 0
    process = local(job, data, epochs=500, checkpoint_steps=0)
    first = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert first.startswith("going on with epoch")
    assert steps_done(job) >= steps


@pytest.mark.slow
def test_a_rehearsal_ends_as_the_trainer_does(data, tmp_path):
    process = local(tmp_path / "job", data, epochs=1)
    stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 0, stderr
    assert (tmp_path / "job/export/model_info.json").exists() and "\nexport      " in stdout
    process = local(tmp_path / "other", tmp_path / "nothing", epochs=1)
    _, stderr = process.communicate(timeout=180)
    assert process.returncode == 2 and stderr.startswith("error: ") and str(tmp_path / "nothing") in stderr


def test_a_rehearsal_needs_neither_project_nor_cloud_paths_but_checks_the_rest(capsys, tmp_path):
    assert status_of(["--local", "--data", str(tmp_path), "--job_dir", str(tmp_path), "--epochs", "0"]) == 2
    assert capsys.readouterr().err == "error: --epochs: expected at least 1, found 0\n"
    with pytest.raises(InputError, match="--accelerator: expected one of"):
        commands.submit(local=True, data=str(tmp_path), job_dir=str(tmp_path), accelerator="tpu")
