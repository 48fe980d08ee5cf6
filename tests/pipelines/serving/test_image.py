"""Dockerfile.serve, which no test builds: what it copies, installs and starts is there."""

import json
import re

from pipelines.settings.serve import ServeConfig
from tests.support import ROOT
from tfrecords_schema import command_line

LINES = [line.split(maxsplit=1) for line in (ROOT / "Dockerfile.serve").read_text().splitlines() if line[:1].isupper()]


def test_it_starts_a_command_of_this_package_for_all_of_the_containers_addresses():
    (start,) = [json.loads(rest) for word, rest in LINES if word == "CMD"]
    assert f'"{start[0]} = pipelines.serve:main"' in (ROOT / "setup.py").read_text()
    config = command_line.parse(ServeConfig, start[1:])
    assert (config.model, config.host, config.port) == ("/model", "0.0.0.0", None)


def test_it_copies_what_there_is_and_installs_the_extra():
    copied = [name for word, rest in LINES if word == "COPY" for name in rest.split()[:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    assert any(word == "RUN" and '".[serve]" && pip check' in rest for word, rest in LINES)
    assert [rest for word, rest in LINES if word == "USER"] == ["captions"]


def test_pins_hold_for_the_extra():
    (named,) = re.findall(r"^SERVE = (\[.*\])$", (ROOT / "setup.py").read_text(), re.M)
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert all(re.match(r"[\w-]+", one)[0] in pins for one in json.loads(named))
