"""The gate that compares with git's history: in a clone, in a shallow one, and where there is none."""

import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import orjson
import pytest

from rehome_events.__main__ import main
from rehome_events.tools.history import incompatible, past
from rehome_events.tools.released import incompatible as incompatible_with_the_copy
from rehome_events.tools.released import tampered

SCHEMAS = Path(str(files("rehome_events") / "schemas"))
COPY = "released/migration.completed/v1.json"

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(at: Path, *arguments: str) -> None:
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    subprocess.run(
        ["git", "-C", str(at), *name, *arguments], check=True, capture_output=True, env=environment
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository in which a field was once released that the models do not have, and the copy was edited since."""
    root = tmp_path / "project"
    schemas = Path(shutil.copytree(SCHEMAS, root / "schemas"))
    now = (schemas / COPY).read_bytes()
    once = orjson.loads(now)
    once["$defs"]["MigrationCompleted"]["properties"]["gone"] = {"type": "string"}
    (schemas / COPY).write_bytes(orjson.dumps(once))
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", ".")
    git(root, "commit", "-qm", "released with one field more")
    (schemas / COPY).write_bytes(now)
    git(root, "commit", "-qam", "edited, as if the field had never been there")
    return schemas


def test_the_models_break_nothing_that_git_knows_as_released() -> None:
    assert incompatible(past()) == []


def test_a_break_that_was_hidden_by_editing_the_released_copy_is_noticed(repository: Path) -> None:
    assert tampered(repository) == incompatible_with_the_copy(repository) == []
    known = past(repository)
    assert incompatible(known) == ["migration.completed v1: data.gone: removed (released in git's history)"]
    assert known.note.startswith(f"compared with {len(known.schemas)} released schemas of git's history")


def test_a_shallow_clone_says_that_its_history_is_cut_off(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository.parent}", "shallow")
    known = past(tmp_path / "shallow" / "schemas")
    assert known.note.endswith("cut off: this is a shallow clone")
    assert incompatible(known) == []


def test_without_a_repository_it_says_so(repository: Path, tmp_path: Path) -> None:
    unpacked = Path(shutil.copytree(repository, tmp_path / "unpacked"))
    known = past(unpacked)
    assert known.schemas == ()
    assert "not a git repository" in known.note
    assert known.note.endswith("compared with the released copy only")


def test_another_projects_repository_around_it_is_none_of_ours(repository: Path, tmp_path: Path) -> None:
    unpacked = Path(shutil.copytree(repository, tmp_path / "another" / "vendored"))
    git(tmp_path, "init", "-q", str(tmp_path / "another"))
    assert past(unpacked).note.startswith("no history: git does not have these files")


def test_without_git_it_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert past(repository).note.startswith("no history: git is not installed")


def test_the_check_tells_how_much_it_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--check"]) == 0
    assert capsys.readouterr() == ("", f"schemas: {past().note}\n")
