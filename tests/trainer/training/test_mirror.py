"""A job directory in a bucket that cannot be reached for a while."""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

from tests.support import ROOT, hurting, stores
from tests.support.outputs import content, outcome
from tests.support.processes import finish, wait_for
from tests.support.small import SMALL
from tfrecords_schema import machine
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import clients, copies, files
from trainer.training import job
from trainer.training.mirror import Mirror


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with stores.running("s3", tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
def proxy(server, monkeypatch):
    with hurting.proxy(server.endpoint) as proxy:
        for name, value in {**server.env, "AWS_ENDPOINT_URL": proxy.endpoint}.items():
            monkeypatch.setenv(name, value)
        clients.use_flags({})
        yield proxy
    clients.use_flags({})


def write(directory, *numbers: int, phase: str = "cross_entropy", config: str = "{}") -> None:
    files.make_directory(f"{directory}/checkpoints/{phase}")
    for number in numbers:
        named = {f"ckpt-{number}.{end}": f"{phase} {number}".encode() for end in ("index", "data-00000-of-00001")}
        files.replace(f"{directory}/checkpoints/{phase}", {**named, "checkpoint": f"latest {number}".encode()})
    files.replace(str(directory), {"config.json": config.encode()})


@pytest.mark.parametrize(
    ("here", "there", "kept"),
    [
        ({"numbers": (1, 2, 3)}, {"numbers": (1, 2)}, True),
        ({"numbers": (1, 2)}, {"numbers": (1, 2)}, False),
        ({"numbers": (1, 2)}, {"numbers": (2, 3)}, False),
        ({"numbers": (1, 2, 3), "config": '{"units": 8}'}, {"numbers": (1, 2)}, False),
    ],
)
def test_whichever_side_is_further_wins(server, proxy, tmp_path, here, there, kept, request):
    prefix = f"{request.node.name}/job"
    uri = server.url(prefix)
    write(tmp_path / "job", *here.pop("numbers"), **here)
    write(uri, *there.pop("numbers"), **there)
    expected = content(tmp_path / "job" if kept else server.get_directory(prefix, tmp_path / "before"))
    mirror = Mirror(str(tmp_path / "job"), uri, job._SENT)
    mirror.fetch()
    assert mirror.has_unsent == kept and content(tmp_path / "job") == expected
    mirror.send()
    assert content(server.get_directory(prefix, tmp_path / "after")) == expected


@pytest.mark.parametrize("name", ["../../../precious", "checkpoints/../../../precious", "/precious"])
def test_names_in_a_bucket_do_not_lead_out_of_a_copy(server, proxy, tmp_path, name, monkeypatch):
    """A store takes any text for a name; joined to the directory of a copy, `..` would write where it likes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp/copies"))
    (tmp_path / "tmp/copies").mkdir(parents=True)
    before = content(tmp_path)
    uri = server.url(f"{len(name)}/job")
    server.put(f"{len(name)}/job/best/x", b"fine")
    server.put(f"{len(name)}/job/{name}", b"harm")
    with pytest.raises(InputError, match="expected names of files inside it, found"), copies.temporary(uri):
        pass
    with pytest.raises(InputError, match="expected names of files inside it, found"):
        copies.local_copy(uri)
    assert content(tmp_path) == before and not any(pathlib.Path(machine.private_directory("copies")).iterdir())


@pytest.mark.parametrize("name", ["best/../../../evil", "best/..", "best//../../evil"])
def test_a_name_that_leads_out_of_the_directory_is_refused(server, proxy, tmp_path, name, request):
    """In a bucket it is a name like any other; here it would be a file elsewhere."""
    prefix = f"{request.node.callspec.id.replace('/', '_')}/job"
    write(server.url(prefix), 1)
    server.put(f"{prefix}/{name}", b"evil")
    mirror = Mirror(str(tmp_path / "here/there/job"), server.url(prefix), job._SENT)
    with pytest.raises(
        InputError, match=r"expected names of files inside it, found '.*', which leads outside; delete it"
    ):
        mirror.fetch()
    assert not list(tmp_path.rglob("evil"))


def test_a_later_phase_is_further(server, proxy, tmp_path):
    write(server.url("phases"), 5)
    write(tmp_path / "job", 5)
    write(tmp_path / "job", 1, phase="self_critical")
    mirror = Mirror(str(tmp_path / "job"), server.url("phases"), job._SENT)
    mirror.fetch()
    assert mirror.has_unsent and (tmp_path / "job/checkpoints/self_critical").exists()


@pytest.mark.slow
def test_after_an_outage_the_same_command_goes_on_with_what_could_not_be_sent(server, proxy, trained, tmp_path):
    """From the middle of a training to its end the store is gone; then it is there again."""
    server.put_directory(trained / "features", "data")
    settings = {**SMALL, "epochs": 3, "checkpoint_steps": 20, "monitor": "bleu_4"}
    env = {**os.environ, "PATH": "/nowhere", "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)}

    def start(name: str) -> subprocess.Popen:
        flags = {"data": server.url("data"), "job_dir": server.url(name), **settings}
        command = [sys.executable, "-m", "trainer.task", *(str(x) for k, v in flags.items() for x in (f"--{k}", v))]
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def saved(name: str) -> set[str]:
        return {n for n in server.listing(name) if n.endswith(".index")}

    finish(start("undisturbed"))
    process = start("outage")
    wait_for(process, lambda: len(saved("outage/checkpoints")) >= 1)
    proxy.share, proxy.hurts = 1, ("down",)
    text = finish(process, status=1)
    assert "could not be written" in text and "run the same command on this machine to send it and continue" in text
    before = saved("outage/checkpoints")
    proxy.share = 0
    text = finish(start("outage"))
    assert "which an earlier run could not send to" in text and saved("outage/checkpoints") != before
    found, expected = (server.get_directory(name, tmp_path / name) for name in ("outage", "undisturbed"))
    assert outcome(found) == outcome(expected)
