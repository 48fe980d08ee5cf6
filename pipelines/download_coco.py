"""COCO's images and captions -> a directory for `--coco_dir` (`python -m pipelines.download_coco`)."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines import cli
from pipelines.settings.download_coco import DownloadCocoConfig
from tfrecords_schema import command_line
from tfrecords_schema.errors import InputError
from tfrecords_schema.text import beside, on_screen

ABOUT = {
    "prog": "python -m pipelines.download_coco",
    "usage": "%(prog)s --output DIR [flags]",
    "description": "Download the images and captions of COCO (20 GB). Run the same command again to "
    "continue a download that was stopped.",
    "examples": """
        python -m pipelines.download_coco --output coco
        python -m pipelines.download_coco --output coco-val --splits val
    """,
}
_LOCK = ".download.lock"


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-download-coco`."""
    with cli.command():
        run(command_line.parse(DownloadCocoConfig, argv, **ABOUT))


def run(config: DownloadCocoConfig) -> None:
    """Brings what is missing of COCO to `config.output`, and says which command takes it.

    Raises:
      InputError: the server has no such files, the disk has no room, or something else is in the way.
      RunError: the network or the disk failed; what has come is kept.
    """
    from pipelines.downloads import coco
    from tfrecords_schema import machine

    wanted = coco.published(config.year, config.splits)
    busy = f"--output: another download to {config.output} is running; wait for it, or give another --output"
    with _told(config.output):
        os.makedirs(config.output, exist_ok=True)
        with machine.hold(os.path.join(config.output, _LOCK), busy):
            open_ = [archive for archive in wanted if not archive.is_done(config.output)]
            missing = []
            for archive in wanted:
                path = _path(config, archive.name)
                if archive in open_ and not os.path.exists(path):
                    missing.append(archive)
                elif archive in open_ or not archive.members:
                    way = "delete it, and the same command downloads it"
                    coco.require_zip(path, f"--output: {path}", way)
            if missing:
                _download(config, missing)
            for archive in open_:
                coco.unpack(config.output, archive)
    what = f"COCO {config.year} ({', '.join(config.splits)})"
    print(on_screen(f"output      {what} in {config.output}{'' if open_ else '; nothing was missing'}"))
    for line in _following(config):
        print(on_screen(f"next        {line}"))


@contextlib.contextmanager
def _told(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--output: expected a directory that can be written to, found {output}: {error}") from None


def _download(config: DownloadCocoConfig, missing: Sequence[Any]) -> None:
    """Says how much comes and how much is free, then brings the files in the given order."""
    from pipelines.downloads import coco
    from pipelines.downloads.progress import Progress
    from pipelines.downloads.resumable import Download

    downloads = []
    for archive in missing:
        downloads.append(Download(_look(f"{config.base_url.rstrip('/')}/{archive.place}"), _path(config, archive.name)))
    total, have = sum(d.remote.bytes for d in downloads), sum(d.have for d in downloads)
    free = shutil.disk_usage(config.output).free
    print(on_screen(f"COCO {config.year} from {config.base_url}"))
    for archive, download in zip(missing, downloads, strict=True):
        there = f", {_gb(download.have)} of it here" if download.have else ""
        print(f"  {archive.name:<32}{_gb(download.remote.bytes):>10}{there}")
    print(on_screen(f"{_gb(total - have)} to download, {_gb(free)} free in {config.output}"), flush=True)
    if total - have > free:
        raise InputError(
            f"--output: expected {total - have:,} bytes free in {config.output}, found {free:,}; free some, or give "
            "another --output"
        )
    with Progress(total, have) as progress:
        for archive, download in zip(missing, downloads, strict=True):
            progress.begin(archive.name)
            way = "give another --base_url, or try again later"
            download.run(progress, functools.partial(coco.require_zip, blamed=download.remote.url, way=way))


def _look(url: str) -> Any:
    from pipelines.downloads import web
    from tfrecords_schema.storage import faults

    try:
        return web.look(url)
    except OSError as error:
        raise InputError(f"--base_url: expected a file at {url}, found: {faults.told(error)}") from None


def _path(config: DownloadCocoConfig, name: str) -> str:
    return os.path.join(config.output, name)


def _gb(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"


def _following(config: DownloadCocoConfig) -> Iterator[str]:
    """The commands that take what is there."""
    from pipelines.downloads import coco

    output, year = config.output, config.year
    there = [
        s for s in ("train", "val") if any(os.path.exists(_path(config, f"{s}{year}{end}")) for end in ("", ".zip"))
    ]
    if {*there} & {*config.splits}:
        held_out = [] if len(there) > 1 else ["--val_fraction", "0.05"]
        given = ["--coco_dir", output, "--year", year, *held_out, "--output", beside(output, "features")]
        yield shlex.join(["python", "-m", "pipelines.features", *given])
    if "test" in config.splits:
        images, root = _path(config, coco.TEST_IMAGES.format(year=year)), _path(config, f"test{year}.zip")
        given = ["--images", images, "--root", root, "--model", "EXPORT", "--output", beside(output, "captions")]
        yield shlex.join(["python", "-m", "pipelines.caption", *given])


if __name__ == "__main__":
    main()
