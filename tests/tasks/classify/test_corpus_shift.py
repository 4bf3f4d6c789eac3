"""What is compared of a corpus with a database is bounded."""

import numpy as np
import pyarrow as pa
import pytest

from storage.parquet import part_name, write_table
from storage.store import Folder
from tasks.classify import corpus_shift
from tasks.classify.corpus_shift import distances_of


@pytest.mark.parametrize(("most", "expected"), [(100, [0, 1, 3, 4, 5]), (3, [0, 4])])
def test_distances_are_those_that_are_known_of_so_many_rows_at_most(
    tmp_path, monkeypatch, most, expected
):
    monkeypatch.setattr(corpus_shift, "_COMPARED", most)
    folder = Folder(str(tmp_path))
    for number, values in enumerate(([0.0, 1.0, None, 3.0], [4.0, 5.0])):
        nearest = pa.array(values, pa.float32())
        table = pa.table(
            {"nearest_distance": nearest, "usual": pa.nulls(len(nearest), pa.float32())}
        )
        write_table(folder, part_name(number), table)
    nearest, usual = distances_of(folder, 2, 6)
    np.testing.assert_array_equal(nearest, np.array(expected, np.float32))
    assert (nearest.dtype, usual.dtype, len(usual)) == (np.float32, np.float32, 0)
