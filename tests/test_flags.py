"""Whole numbers of every command: those that nothing could be done with are refused, and told in a short line."""

import importlib

import pytest

from tests.support.every_command import COMMANDS, command_of


@pytest.mark.parametrize("name", COMMANDS)
def test_numbers_without_measure_are_refused(name, capsys):
    command = command_of(name)
    numbers = [flag for flag in command.flags if flag.type is int]
    without = ("trainer.export", "trainer.import_im2txt", "pipelines.download_coco", "scripts.docs_check")
    assert numbers or name in without
    for flag in numbers:
        for value, found in (("9" * 20, "9" * 20), ("9" * 4000, "9" * 40 + "…"), ("9" * 5000, "9" * 40 + "…")):
            with pytest.raises(SystemExit) as end:
                command.main([*command.needed, f"--{flag.name}", value])
            told = capsys.readouterr().err
            assert end.value.code == 2 and told.startswith(f"error: --{flag.name}: expected ") and found in told
            assert told.count("\n") == 1 and len(told) < 200


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_without_a_word_are_told_as_such(name, capsys):
    command = command_of(name)
    for flag in command.flags:
        if flag.type is str and flag.default != "" and not flag.about.positional and flag.about.bare is None:
            with pytest.raises(SystemExit) as end:
                command.main([*command.needed, f"--{flag.name}", ""])
            assert end.value.code == 2
            kind = "a directory" if "folder" in (flag.about.reads, flag.about.writes) else "a value"
            assert capsys.readouterr().err == f"error: --{flag.name}: expected {kind}, found ''\n"


def test_what_nobody_knows_is_not_repeated_in_full(capsys):
    with pytest.raises(SystemExit) as end:
        importlib.import_module("pipelines.gallery").main(["--captions", "x", "--unknown" + "x" * 100_000])
    told = capsys.readouterr().err
    assert end.value.code == 2 and told.startswith("error: unrecognized arguments: --unknownxxx") and len(told) < 600
