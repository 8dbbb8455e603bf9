"""The digest of the code behind a rule: it sees what the rule uses, and nothing else."""

import shutil

import pytest

import theraflow.source as source


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A copy of the library whose files may be changed."""
    root = tmp_path / "theraflow"
    shutil.copytree(source.ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(source, "ROOT", root)

    def digest(module):
        for cached in (source.code_digest, source._files, source._imports):
            cached.cache_clear()
        return source.code_digest(module)

    yield root, digest
    digest("theraflow.errors")


def edit(path):
    path.write_text(path.read_text() + "\n# changed\n")


def test_a_change_reaches_the_stages_behind_it_only(library):
    root, digest = library
    stages = [f"theraflow.{name}" for name in ("dicom", "registration", "lesions", "cohort")]
    before = [digest(stage) for stage in stages]
    edit(root / "registration" / "rigid.py")
    after = [digest(stage) for stage in stages]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False, True]
    edit(root / "errors.py")
    assert all(a != b for a, b in zip(after, map(digest, stages), strict=True))


def test_templates_count(library):
    root, digest = library
    before = digest("theraflow.report")
    template = next((root / "report" / "templates").iterdir())
    edit(template)
    assert digest("theraflow.report") != before
