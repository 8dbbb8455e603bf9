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

    def digest(module, *tables):
        for cached in (source.code_digest, source._files, source._imports):
            cached.cache_clear()
        return source.code_digest(module, *tables)

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


def test_a_table_that_a_module_reads_counts_as_its_code(library, tmp_path):
    _, digest = library
    table = tmp_path / "table.csv"
    table.write_text("1\n")
    before = digest("theraflow.errors", table)
    assert before != digest("theraflow.errors")
    table.write_text("2\n")
    assert before != digest("theraflow.errors", table)
