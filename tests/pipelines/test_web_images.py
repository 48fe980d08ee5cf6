"""Images on web servers, which a table names, through the whole caption command."""

import pytest

from tests.support.outputs import rows
from tests.support.publisher import Published, Turn, publishing


@pytest.fixture
def server(coco_dir):
    """A server that has the 8 validation images."""
    with publishing() as server:
        for path in sorted((coco_dir / "val2017").iterdir()):
            server.files[f"/{path.name}"] = Published(path.read_bytes())
        yield server


def test_images_of_a_table_are_read_from_a_web_server(run, server, tmp_path):
    """The same captions as of files; what is not there is a reject, a server that is busy is asked again."""
    names = sorted(server.files)
    (tmp_path / "t.csv").write_text(
        "".join(["url,id\n", *(f"{server.url}{n},{n[1:-4]}\n" for n in [*names, "/0.jpg"])])
    )
    server.turns.extend([Turn(status=503), Turn(status=429), Turn(most=100)])
    output, report = run(images=[str(tmp_path / "t.csv")], max_reject_fraction=0.5)
    assert (report["records"], report["reject_reasons"]) == (8, {"read/Absent": 1})
    expected, _ = run(tmp_path / "of files")
    found = {key: (row["image_uri"], row["caption"]) for key, row in rows(output).items()}
    captions = {key: row["caption"] for key, row in rows(expected).items()}
    assert found == {key: (f"{server.url}/{key}.jpg", caption) for key, caption in captions.items()}
    _, report = run(images=[str(tmp_path / "t.csv")], max_reject_fraction=0.5)
    assert (report["kept"], report["new"], report["retried"]) == (8, 0, 1)
