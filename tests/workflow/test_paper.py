"""The target `paper` where there is no image, and the clinical sheets of a user's cohort."""

import pytest

from theraflow.tables import read_table

pytestmark = pytest.mark.workflow
NOWHERE = {"patient": "P1", "scan": "pet", "tracer": "FDG", "timepoint": "baseline", "dicom": "nowhere"}


def test_the_paper_needs_no_image(make_run):
    pytest.importorskip("xlsxwriter")
    run = make_run("paper")
    run.write([NOWHERE])
    result = run.snakemake("paper")
    assert result.returncode == 0, result.stdout
    table = read_table(run.results("paper", "reproduction.tsv")).set_index("item")
    assert table.at["progression-free survival, median", "verdict"] == "agrees as rounded"
    assert run.results("paper", "tables.xlsx").is_file()
    again = run.snakemake("paper", "-n")
    assert "Nothing to be done" in again.stdout


def test_clinical_sheets_of_a_cohort(make_run):
    run = make_run("clinical")
    run.write([NOWHERE], expression="expression.tsv", toxicity="toxicity.tsv")
    (run.folder / "expression.tsv").write_text("patient\tmarker\tpositive_percent\tintensity\nP1\tCXCR4\t95\t2\n")
    (run.folder / "toxicity.tsv").write_text(
        "patient\tcycle\tday\tparameter\tvalue\tunit\nP1\t1\t10\tplatelets\t24,9\t10^9/L\nP1\t1\t20\tplatelets\t60\t10^9/L\n"
    )
    names = ("expression", "toxicity", "toxicity_worst")
    result = run.snakemake(*(f"results/cohort/{name}.tsv" for name in names))
    assert result.returncode == 0, result.stdout
    expression, grades, worst = (read_table(run.results("cohort", f"{name}.tsv")) for name in names)
    assert expression["score"].tolist() == [8]
    assert grades["grade"].tolist() == [4, 2]
    assert worst["grade"].tolist() == [4]


def test_a_sheet_that_breaks_its_schema_stops_the_run_in_one_sentence(make_run):
    run = make_run("broken")
    run.write([NOWHERE], toxicity="toxicity.tsv")
    (run.folder / "toxicity.tsv").write_text("patient\tcycle\tparameter\tgrade\nP1\t1\tplatelets\t6\n")
    result = run.snakemake("-n")
    assert result.returncode != 0
    assert "toxicity.tsv, line 2, column 'grade': 6.0 is not one of" in result.stdout
