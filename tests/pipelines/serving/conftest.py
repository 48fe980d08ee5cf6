import pathlib

import pytest

from tests.support.serving import Served, running


@pytest.fixture
def photos(coco_dir) -> list[pathlib.Path]:
    return sorted((coco_dir / "val2017").glob("*.jpg"))


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory) -> Served:
    """A service as it comes."""
    with running(trained / "job/export", tmp_path_factory.mktemp("served") / "log") as one:
        yield one
