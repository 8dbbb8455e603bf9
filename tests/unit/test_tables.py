"""Tables on disk."""

import pandas as pd
import pytest

from theraflow.tables import read_table, write_table


@pytest.mark.parametrize("column", ["timepoint", "lesion", "region"])
def test_names_that_look_like_numbers_stay_words(tmp_path, column):
    write_table(pd.DataFrame({column: ["01", "2"]}), tmp_path / "t.tsv", [column])
    assert read_table(tmp_path / "t.tsv")[column].tolist() == ["01", "2"]
