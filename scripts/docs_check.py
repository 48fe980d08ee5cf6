"""Runs the commands of README and docs as they are written, over a small demo: `make docs-check`.

Of the fenced blocks of a page, `sh` is run by bash, `python` by this Python, and of `console` the lines that begin with
"$ ". Each must end with exit status 0. `text` and others are not run: they need a cloud, a cluster or an account, or
are no commands. A command that serves stays until the end of its page. Pages are run one after the other, in a
directory that looks like the repository's root with the demo in it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from tfrecords_schema import command_line
from tfrecords_schema.command import Settings, setting
from tfrecords_schema.errors import InputError, told_in_one_line

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_DEMO = "--train 48 --val 12 --unseen 12 --epochs 1 --min_right 0"
_SERVES = "pipelines.serve"


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page: its first line's number, from 1, its language, and what stands in it."""

    page: str
    line: int
    language: str
    text: str

    def commands(self) -> list[str]:
        """What is to be run, in order: whole scripts, or for `console` each command that is shown."""
        if self.language in ("sh", "python"):
            return [self.text]
        return list(_shown(self.text)) if self.language == "console" else []


def blocks(page: str, text: str) -> list[Block]:
    """All fenced blocks of a page, in its order."""
    return [Block(page, text.count("\n", 0, m.start()) + 1, m[1], m[2]) for m in _FENCE.finditer(text)]


def _shown(text: str) -> Iterator[str]:
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith(("\\", "|")):
                command += "\n" + next(lines)
            yield command


def prepare(root: pathlib.Path) -> None:
    """Makes an empty directory look like the repository's root with a small demo in it. Raises RuntimeError."""
    for entry in ROOT.iterdir():
        if entry.name not in ("demo", ".git"):
            (root / entry.name).symlink_to(entry)
    if error := _run("sh", f"python -m scripts.demo {_DEMO}", root, []):
        raise RuntimeError(f"the demo failed: {error}")


def check(pages: Sequence[str], root: pathlib.Path) -> list[str]:
    """Runs all blocks of the pages below `root`; returns a line for each that failed."""
    failed = []
    for page in pages:
        served: list[subprocess.Popen] = []
        for block in blocks(page, (ROOT / page).read_text()):
            for command in block.commands():
                began = time.monotonic()
                error = _run(block.language, command, root, served)
                print(f"{page}:{block.line} {time.monotonic() - began:.0f} s {'FAILED' if error else 'ok'}", flush=True)
                if error:
                    failed.append(f"{page}:{block.line}: {command.strip()}\n{error}")
        for process in served:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    return failed


def _run(language: str, command: str, root: pathlib.Path, served: list[subprocess.Popen]) -> str:
    """Runs one command; returns what it said if it failed."""
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-"] if language == "python" else ["bash", "-e", "-o", "pipefail", "-c", command]
    if _SERVES in command and language != "python":
        process = subprocess.Popen(
            argv, cwd=root, env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True
        )
        served.append(process)
        told = ""
        for line in process.stdout or ():  # ends with the process
            told += line
            if line.strip() == "ready":
                return ""
        return told or "it ended before it was ready"
    done = subprocess.run(
        argv, cwd=root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        input=command if language == "python" else "",
    )  # fmt: skip
    return f"exit status {done.returncode}\n{done.stdout[-3000:]}" if done.returncode else ""


ABOUT = {
    "prog": "python -m scripts.docs_check",
    "usage": "%(prog)s [--pages PAGE ...]",
    "description": "Run the commands of README and docs as they are written, over a small demo in a temporary "
    "directory.",
    "examples": """
        python -m scripts.docs_check
        python -m scripts.docs_check --pages README.md docs/features.md
    """,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DocsCheckConfig(Settings):
    """The whole of `python -m scripts.docs_check`."""

    pages: tuple[str, ...] = setting(
        "pages to check, by their paths from the repository's root", (), unset="all", metavar="PAGE"
    )

    def __post_init__(self):
        super().__post_init__()
        for page in self.pages:
            if page not in PAGES:
                raise InputError(f"--pages: expected some of {', '.join(PAGES)}, found {page}")


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with 0 if every command of every page did."""
    with told_in_one_line():
        config = command_line.parse(DocsCheckConfig, argv, **ABOUT)
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        prepare(root)
        if failed := check(config.pages or PAGES, root):
            sys.exit("\n".join(["", *failed, f"error: {len(failed)} commands failed"]))


if __name__ == "__main__":
    main()
