"""The README and the documents are up to date."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_the_table_of_settings_is_the_one_of_the_code() -> None:
    script = ROOT / "scripts" / "settings_table.py"
    done = subprocess.run(
        [sys.executable, script, "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


PATHS = re.compile(r"`((?:consumer|events|sandbox|tests|benchmarks|scripts|rabbitmq)/[\w./-]+\.\w+)`")


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))])
def test_every_file_that_a_document_names_exists(document: str) -> None:
    named = set(PATHS.findall((ROOT / document).read_text()))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_every_file_that_it_links_exists() -> None:
    text = (ROOT / "README.md").read_text()
    links = {part.partition(")")[0] for part in text.split("](")[1:]}
    local = {link for link in links if not link.startswith("http")}
    assert local
    assert [link for link in local if not (ROOT / link.partition("#")[0]).exists()] == []
