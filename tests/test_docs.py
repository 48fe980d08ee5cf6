"""README and docs: their links lead somewhere, and their commands run."""

import re

import pytest

from scripts import docs_check
from scripts.docs_check import ROOT, Block

PAGES = [*docs_check.PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"]
LANGUAGES = {"sh", "python", "console", "text", "mermaid"}


def anchors(text: str) -> set[str]:
    """Those that GitHub gives the headings of a page."""
    found = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_are_there(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", docs_check.PAGES)
def test_every_block_says_what_it_is(page):
    found = docs_check.blocks(page, (ROOT / page).read_text())
    assert not [block.line for block in found if block.language not in LANGUAGES]
    assert (ROOT / page).read_text().count("```") == 2 * len(found)
    remote = re.compile(r"gs://|s3://|docker |gcloud ")  # these cannot run here
    assert not [block.line for block in found if any(map(remote.search, block.commands()))]


def test_the_readme_is_a_front_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_blocks_and_their_commands():
    text = "# A\n```sh\na \\\n  b\nc\n```\n\n```console\n$ d |\n  e\nf\n$ g\n```\n```text\nh\n```\n```python\ni\n```\n"
    found = docs_check.blocks("page.md", text)
    assert found[0] == Block("page.md", 2, "sh", "a \\\n  b\nc\n")
    assert [(block.line, block.commands()) for block in found] == [
        (2, ["a \\\n  b\nc\n"]),
        (8, ["d |\n  e", "g"]),
        (14, []),
        (17, ["i\n"]),
    ]


def test_a_command_that_fails_is_told_and_the_next_ones_run(tmp_path, monkeypatch, capsys):
    page = "```sh\necho one > first\n```\n```sh\ncat no-such-file | cat\ntouch never\n```\n"
    page += "```python\nopen('third', 'w')\n```\n"
    (tmp_path / "page.md").write_text(page)
    (tmp_path / "root").mkdir()
    monkeypatch.setattr(docs_check, "ROOT", tmp_path)
    (failed,) = docs_check.check(["page.md"], tmp_path / "root")
    assert failed.startswith("page.md:4: cat no-such-file") and "exit status 1" in failed
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["first", "third"]
    assert "page.md:4 0 s FAILED" in capsys.readouterr().out


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("root")
    docs_check.prepare(made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("page", docs_check.PAGES)
def test_every_command_runs(page, root):
    failed = docs_check.check([page], root)
    assert not failed, "\n".join(failed)
