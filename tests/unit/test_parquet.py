"""Parquet against the TSV that it was made of, read with the csv module."""

import csv
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.errors import TheraflowError
from theraflow.exchange.parquet import export_parquet, read_meanings, unit_of, write_parquet

# Written here once more, from the contract of the tables, not from the code.
KINDS = {
    "patient": pa.string(), "lesion": pa.string(), "site": pa.string(), "label": pa.int64(), "volume_ml": pa.float64(),
    "suv_peak": pa.float64(), "positive": pa.bool_(), "n_timepoints": pa.int64(), "p_value": pa.float64(),
}  # fmt: skip
words = st.text("abzÄßé漢 ,;|'-.0189", max_size=8).map(lambda word: f"w{word}")
CELLS = {
    pa.string(): words,
    pa.int64(): st.integers(-(2**53), 2**53).map(str),
    pa.float64(): st.floats(allow_nan=False).map(repr),
    pa.bool_(): st.sampled_from(["True", "False"]),
}
READ = {
    pa.string(): str,
    pa.int64(): int,
    pa.float64(): float,
    pa.bool_(): {"True": True, "False": False}.get,
}


def written(folder: Path, columns: dict[str, list[str]]) -> Path:
    """A TSV of these cells."""
    path = folder / "table.tsv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@st.composite
def tables(draw):
    """Cells by column, each column with at least one value."""
    rows = draw(st.integers(0, 8))
    columns = {}
    for name, kind in KINDS.items():
        cells = draw(st.lists(st.one_of(CELLS[kind], st.just("NA")), min_size=rows, max_size=rows))
        columns[name] = [draw(CELLS[kind]), *cells]
    return columns


@given(columns=tables())
@settings(max_examples=50, deadline=None)
def test_every_value_comes_back_in_its_type(columns, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet")
    write_parquet(written(folder, columns), folder / "table.parquet", {})
    table = pq.read_table(folder / "table.parquet")
    assert table.column_names == list(columns)
    for name, cells in columns.items():
        kind = KINDS[name]
        assert table.schema.field(name).type == kind, name
        assert table[name].to_pylist() == [None if cell == "NA" else READ[kind](cell) for cell in cells], name


def test_the_same_table_gives_the_same_bytes(tmp_path):
    source = written(tmp_path, {"patient": ["P1", "P2"], "volume_ml": ["1.5", "NA"]})
    made = []
    for name in ("one.parquet", "two.parquet"):
        write_parquet(source, tmp_path / name, {"volume_ml": "of the lesion"})
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


def test_the_type_of_a_column_is_the_same_in_every_cohort(tmp_path):
    """Whole numbers, fractions or none: two cohorts lie one below the other."""
    schemas = set()
    for number, cells in enumerate((["1", "2"], ["1.5", "NA"], ["NA", "NA"], ["NA", "3.0"])):
        source = written(tmp_path, {"patient": ["1", "2"], "suv_max": cells, "cycle": ["1", "NA"]})
        write_parquet(source, tmp_path / f"{number}.parquet", {})
        schemas.add(str(pq.read_schema(tmp_path / f"{number}.parquet").remove_metadata()))
    assert schemas == {"patient: string\nsuv_max: double\n  -- field metadata --\n  unit: 'g/mL'\ncycle: int64"}


def test_a_table_of_a_cohort_without_any_row_has_the_types_of_a_full_one(tmp_path):
    full = {"patient": "P1", "positive": "True", "suv_max": "1.5", "tbr": "2.0", "p_value": "0.03", "n": "3",
            "value": "9.5", "ci_low": "0.1", "times_days": "10 20+", "specimen": "012", "new_lesions": "0"}  # fmt: skip
    schemas = []
    for name, cells in (("full", [[cell] for cell in full.values()]), ("empty", [[] for _ in full])):
        write_parquet(written(tmp_path, dict(zip(full, cells, strict=True))), tmp_path / f"{name}.parquet", {})
        schemas.append(pq.read_schema(tmp_path / f"{name}.parquet"))
    assert schemas[0].equals(schemas[1], check_metadata=True)
    assert pq.read_table(tmp_path / "full.parquet")["specimen"].to_pylist() == ["012"]


def test_a_whole_number_that_pandas_wrote_as_a_fraction_is_one(tmp_path):
    write_parquet(written(tmp_path, {"n_timepoints": ["4.0", "NA"]}), tmp_path / "t.parquet", {})
    assert pq.read_table(tmp_path / "t.parquet")["n_timepoints"].to_pylist() == [4, None]


@pytest.mark.parametrize("cell", ["6.2 to 18.3", "1_000", "0x10", "nan", "1,5", " 1", "٣", "TRUE", "true"])
def test_what_is_no_number_of_ours_stays_a_word(tmp_path, cell):
    write_parquet(written(tmp_path, {"range_a": [cell, "2"]}), tmp_path / "t.parquet", {})
    assert pq.read_table(tmp_path / "t.parquet")["range_a"].to_pylist() == [cell, "2"]


def test_infinity_is_a_number(tmp_path):
    write_parquet(written(tmp_path, {"statistic": ["inf", "-inf", "1e-300"]}), tmp_path / "t.parquet", {})
    assert pq.read_table(tmp_path / "t.parquet")["statistic"].to_pylist() == [math.inf, -math.inf, 1e-300]


def test_names_stay_words_also_where_they_look_like_numbers(tmp_path):
    write_parquet(written(tmp_path, {"patient": ["007"], "timepoint": ["1"]}), tmp_path / "t.parquet", {})
    assert pq.read_table(tmp_path / "t.parquet").to_pylist() == [{"patient": "007", "timepoint": "1"}]


@pytest.mark.parametrize(
    ("column", "unit"),
    [("volume_ml", "mL"), ("suv_peak", "g/mL"), ("sul_peak", "g/mL"), ("background_suv", "g/mL"), ("tlg_ml", "g"),
     ("dose_gy_per_gbq", "Gy/GBq"), ("ci_low_gy_per_gbq", "Gy/GBq"), ("sd_gy", "Gy"), ("activity_gbq", "GBq"),
     ("t_eff_h", "h"), ("tia_h", "h"), ("mass_g", "g"), ("change_percent", "%"), ("median_days", "d"), ("days", "d"),
     ("x_mm", "mm"), ("tbr", None), ("patient", None), ("p_value", None), ("registration", None)],
)  # fmt: skip
def test_units_are_those_of_ucum(column, unit):
    assert unit_of(column) == unit


def test_the_tables_carry_the_meaning_of_their_columns(tmp_path):
    header = "table\tcolumn\ttype\tlevels\tmeaning\n"
    (tmp_path / "columns.tsv").write_text(header + "pairs\ta\tnumeric\tNA\tfirst value\npairs\tkind\tfactor\tx|y\tNA\n")
    (tmp_path / "pairs.tsv").write_text("kind\ta\nx\t1.5\n")
    (tmp_path / "doses.tsv").write_text("patient\tmass_g\n")
    assert read_meanings(tmp_path / "columns.tsv") == {"pairs": {"a": "first value"}}
    export_parquet([tmp_path / "pairs.tsv", tmp_path / "doses.tsv"], tmp_path / "columns.tsv")
    schema = pq.read_schema(tmp_path / "pairs.parquet")
    assert schema.field("a").metadata == {b"meaning": b"first value"}
    assert schema.field("kind").metadata is None
    assert schema.metadata[b"table"] == b"pairs"
    empty = pq.read_table(tmp_path / "doses.parquet")
    assert empty.num_rows == 0 and empty.schema.field("mass_g").type == pa.float64()
    assert empty.schema.field("mass_g").metadata == {b"unit": b"g"}


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TheraflowError, match=r"gone\.tsv"):
        write_parquet(tmp_path / "gone.tsv", tmp_path / "gone.parquet", {})
    assert not (tmp_path / "gone.parquet").exists()
