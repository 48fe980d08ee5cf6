"""The page that --help prints of every command: whole, in order, within a terminal's width; its examples are true."""

from __future__ import annotations

import importlib
import itertools
import re
import shlex

import pytest

from tests.support.every_command import COMMANDS, command_of
from tfrecords_schema.command import REQUIRED
from tfrecords_schema.command_line import parse_known

WIDTH = 80
DEFAULT_NOTE = r"[(;] ?default: "


@pytest.fixture
def page_of(capsys, monkeypatch):
    """What `python -m name --help` prints on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))

    def printed(name: str) -> str:
        with pytest.raises(SystemExit) as end:
            command_of(name).main(["--help"])
        assert end.value.code == 0
        return capsys.readouterr().out

    return printed


def entries(page: str) -> dict[str, str]:
    """The help text of each flag, in one line, by the flag as it is typed."""
    flags_part = page.partition("\nexamples:\n")[0]
    found = re.findall(r"^  (-.*|DIR .*)\n((?: {6,}.*\n)*)", flags_part, re.M)
    return {first.split()[0].rstrip(","): " ".join(f"{first} {rest}".split()) for first, rest in found}


def sections(page: str) -> list[str]:
    """The titles of the page's sections, from the top."""
    return re.findall(r"^(\S.*):$", page, re.M)


def examples(page: str) -> list[list[str]]:
    """The words of each example."""
    text = page.partition("\nexamples:\n")[2].replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines()]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_flag_has_a_text_of_its_own_and_its_default(name, page_of):
    found = entries(page_of(name))
    for flag in command_of(name).flags:
        typed = "DIR" if flag.about.positional else f"--{flag.name}"
        text = found[typed]
        assert len(flag.about.help) >= 9 and flag.about.help.split()[0] in text
        assert not re.match("of |for |from |that |which |with ", flag.about.help), "no phrase that stands by itself"
        assert not flag.about.help.endswith("."), "phrases have no full stop"
        if flag.is_required or flag.default is False:
            assert not re.search(DEFAULT_NOTE, text)
        elif flag.about.unset:
            assert text.endswith(f"default: {flag.about.unset})")
        else:
            words = flag.default if isinstance(flag.default, tuple) else [flag.default]
            shown = "on" if flag.default is True else " ".join(map(str, words))
            assert text.endswith(f"default: {shown if flag.default not in (None, (), '') else 'none'})")
        assert all(choice in text for choice in flag.about.choices)
    assert {"--help", "-h"} & set(found)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_must_be_given_comes_first_and_help_last(name, page_of):
    page, required = page_of(name), [flag.name for flag in command_of(name).flags if flag.is_required]
    titles = sections(page)
    assert (titles[0] == REQUIRED) == bool(required) and titles[-2:] == ["help", "examples"]
    assert len(set(titles)) == len(titles)
    usage = page.partition("\n\n")[0]
    assert usage.startswith(f"usage: python -m {name} ") and usage.count("\n") <= 5
    assert all(f"--{name} " in usage or name == "directory" for name in required)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_fits_the_terminal(name, page_of):
    page = page_of(name)
    flags_part = page.partition("\nexamples:\n")[0]
    assert max(map(len, page.splitlines())) <= WIDTH
    assert len(re.findall(r"\n\n", flags_part)) >= 3  # usage, what it does, sections


def test_paragraphs_follow_the_width(capsys, monkeypatch):
    pages = []
    for width in ("60", "200"):
        monkeypatch.setenv("COLUMNS", width)
        with pytest.raises(SystemExit):
            command_of("pipelines.features").main(["--help"])
        pages.append(capsys.readouterr().out.partition("\nexamples:\n")[0].splitlines())
    narrow, wide = pages
    assert len(narrow) > 1.5 * len(wide) and max(map(len, wide)) > 120


def accepted(name: str, argv: list[str]) -> None:
    """Has the command's own parser and checks take a command line; raises or exits where they do not."""
    command = command_of(name)
    if name == "pipelines.caption":
        _, left = command.module.parse(argv)
    elif name == "trainer.task":
        command.module.parse(argv)
        left = []
    else:
        config, left = parse_known(command.config, argv, **command.about)
        if name == "trainer.submit":  # the rest is the trainer's
            task = importlib.import_module("trainer.task")
            task.parse([f"--data={config.data}", f"--job_dir={config.job_dir}", *left])
            left = []
    assert not left


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_taken_by_the_commands_own_parsers(name, page_of, tmp_path, monkeypatch):
    found = examples(page_of(name))
    assert 1 <= len(found) <= 3
    monkeypatch.chdir(tmp_path)
    for word in itertools.chain(*found):  # photos that the demo draws
        if word.startswith("demo/unseen/") and word.endswith(".jpg"):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).touch()
    commands = []
    for words in found:
        start = words.index("python")
        assert all("=" in word for word in words[:start]) and words[start + 1] == "-m"
        commands.append(words[start + 2])
        accepted(commands[-1], words[start + 3 :])
    assert name in commands and set(commands) <= set(COMMANDS)


def test_an_example_with_a_wrong_flag_would_be_found():
    with pytest.raises(AssertionError):
        accepted("pipelines.features", ["--coco_dir", "demo/coco", "--output", "x", "--outptu", "y"])
    with pytest.raises(SystemExit):
        accepted("trainer.submit", ["--data", "gs://b/f", "--job_dir", "gs://b/j", "--epochs", "many"])
