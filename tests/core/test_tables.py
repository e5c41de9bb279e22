from __future__ import annotations

import datetime
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.core import GuerdonError
from guerdon.core.tables import (
    common_field,
    from_arrow,
    is_json,
    json_field,
    read_parquet,
    to_arrow,
    write_parquet,
)


def there_and_back(tmp_path, column):
    write_parquet(tmp_path / "t.parquet", {"c": column})
    return read_parquet(tmp_path / "t.parquet")["c"]


@pytest.mark.parametrize(
    "column",
    [
        [],
        [None, None],
        ["a", None, ""],
        [1, None, 3],
        [True, None],
        [1, 2.5],
        [True, 1],
        [2**70, 1],
        ["a", 1, None, [2, "b"], {"c": None}],
        [["a"], [], None, [["b"], 3]],
        [[1, [2, None]], [3]],
        [b"\x00\xff", None],
        [{"role": "user", "content": None}, {"role": "assistant", "content": "4", "tool_calls": [{"id": 1}]}],
        [[{"role": "user", "content": "2+2"}], [{"role": "assistant", "content": None, "tool_calls": []}], []],
        [{"a": 1}, {"b": 2}, {}],
        [{}, {}],
        [[{"arguments": {}}], [{"arguments": {}}]],
        [[{"x": 1}, {"y": 2}]],
        ["x" * 100_000],
        [datetime.datetime(2024, 2, 29, 12, 30), None],
    ],
    ids=lambda column: repr(column)[:40],
)
def test_what_is_written_is_read(tmp_path, column):
    read = there_and_back(tmp_path, column)
    assert read == column
    assert column == [1, 2.5] or [type(v) for v in read] == [type(v) for v in column]


def test_not_a_number_is_kept(tmp_path):
    assert math.isnan(there_and_back(tmp_path, [1.0, math.nan])[1])
    assert math.isnan(there_and_back(tmp_path, [{"a": 1.0}, {"a": math.nan}])[1]["a"])
    assert math.isnan(there_and_back(tmp_path, [[1.0], [math.nan]])[1][0])


@pytest.mark.parametrize("levels", [60, 200])
def test_what_nests_deeper_than_parquet_reads_is_kept_as_well(tmp_path, levels):
    """A model can write brackets without end, and its tool calls are in the rollouts."""
    deep: list[object] = ["core"]
    for _ in range(levels):
        deep = [deep]
    assert there_and_back(tmp_path, [deep, None]) == [deep, None]


def test_text_beside_bytes_stays_text(tmp_path):
    """Arrow would turn the text into bytes."""
    assert there_and_back(tmp_path, ["a", b"b"])[0] == "a"


def test_lone_surrogates_become_replacement_characters_and_pairs_are_joined(tmp_path):
    assert there_and_back(tmp_path, ["a\ud800b", "\udc00", "\ud83d\ude00", "\ufeffé"]) == [
        "a\ufffdb", "\ufffd", "\U0001f600", "\ufeffé",
    ]  # fmt: skip
    assert there_and_back(tmp_path, [{"content": "\ud800"}]) == [{"content": "\ud800"}], "JSON can escape them"


def test_arrays_become_lists_and_the_rest_its_repr(tmp_path):
    assert there_and_back(tmp_path, [np.array([1, 2]), np.array([3])]) == [[1, 2], [3]]
    assert there_and_back(tmp_path, [torch.tensor([1.5]), None]) == [[1.5], None]
    assert there_and_back(tmp_path, [np.float32(0.5), np.float64(2.0)]) == [0.5, 2.0]
    assert there_and_back(tmp_path, [{"image": slice(1, 2), "box": np.array([1])}]) == [
        {"image": "slice(1, 2, None)", "box": [1]}
    ]


def test_a_column_that_cannot_be_written_is_named():
    with pytest.raises(GuerdonError, match="column 'odd' cannot be written"):
        to_arrow({"fine": [1], "odd": [{(1, 2): 3}]})
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(GuerdonError, match="column 'odd'"):
        to_arrow({"odd": [loop]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(JSON, max_size=5))
@settings(max_examples=150, deadline=None)
def test_any_json_comes_back(column):
    """Numbers may come back as floats, which compare equal; nothing else changes."""
    file = pa.BufferOutputStream()
    pq.write_table(to_arrow({"c": column}), file)
    assert from_arrow(pq.read_table(pa.BufferReader(file.getvalue())))["c"] == column


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    write_parquet(path, {"c": [1]})

    def torn(table, where, **options):
        where.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", torn)
    with pytest.raises(OSError, match="No space left"):
        write_parquet(path, {"c": [2]})
    assert read_parquet(path) == {"c": [1]}
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_a_file_cut_short_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "t.parquet"
    write_parquet(path, {"c": list(range(1000))})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(GuerdonError, match=r"t\.parquet is not a whole Parquet file"):
        read_parquet(path)


def test_columns_kept_as_json_are_marked_for_other_readers(tmp_path):
    table = to_arrow({"plain": ["a"], "mixed": ["a"]})
    assert table.schema.field("plain").metadata is None
    table = to_arrow({"mixed": ["a", 1]})
    assert table.schema.field("mixed").type == pa.string()
    assert table.schema.field("mixed").metadata == {b"guerdon.json": b"1"}
    assert table.column("mixed").to_pylist() == ['"a"', "1"]


def test_batches_of_one_schema_fit_together():
    schema = to_arrow({"n": [0.5, 1], "tags": [["a"], []], "odd": ["a", 1]}).schema
    for batch in (
        {"n": [1], "tags": [[]], "odd": [None]},
        {"n": [None], "tags": [None], "odd": [{"k": [1, "\ud800"]}]},
    ):
        table = to_arrow(batch, schema)
        assert table.schema.equals(schema, check_metadata=True)
        assert from_arrow(table) == batch


@pytest.mark.parametrize("value", ["a", 2**60 + 1, [1], {"a": 1}])
def test_what_is_not_of_the_schema_is_an_error_that_names_the_column(value):
    with pytest.raises(GuerdonError, match="column 'n' cannot be written as double"):
        to_arrow({"n": [value]}, pa.schema([("n", pa.float64())]))


def test_a_record_batch_is_read_like_a_table():
    table = to_arrow({"a": [1, 2], "mixed": ["a", [1]]})
    assert from_arrow(table.to_batches()[0]) == {"a": [1, 2], "mixed": ["a", [1]]}


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        (pa.null(), pa.string(), pa.string()),
        (pa.int64(), pa.int64(), pa.int64()),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.bool_(), pa.int64(), None),
        (pa.string(), pa.list_(pa.string()), None),
        (pa.list_(pa.null()), pa.list_(pa.int64()), pa.list_(pa.int64())),
        (pa.list_(pa.int64()), pa.list_(pa.float64()), None),
        (pa.struct([("a", pa.null())]), pa.struct([("a", pa.int64())]), pa.struct([("a", pa.int64())])),
        (pa.struct([("a", pa.int64())]), pa.struct([("b", pa.int64())]), None),
        (pa.struct([("a", pa.int64())]), pa.struct([("a", pa.int64()), ("b", pa.null())]), None),
        (pa.struct([("a", pa.int64()), ("b", pa.int64())]), pa.struct([("b", pa.int64()), ("a", pa.int64())]), None),
    ],
    ids=str,
)
def test_what_holds_the_batches_of_a_column(first, second, common):
    """A type that would give a value back otherwise than it came, such as with another key, is none."""
    for a, b in ((first, second), (second, first)):
        found = common_field(pa.field("c", a), pa.field("c", b))
        assert is_json(found) == (common is None)
        assert found.type == (pa.string() if common is None else common)
        assert is_json(common_field(json_field("c"), pa.field("c", b)))


@given(st.lists(JSON, max_size=4), st.lists(JSON, max_size=4))
@settings(max_examples=150, deadline=None)
def test_batches_of_a_column_come_back_from_what_holds_both(first, second):
    batches = [{"c": first}, {"c": second}]
    (one,), (other,) = (to_arrow(batch).schema for batch in batches)
    schema = pa.schema([common_field(one, other)])
    assert from_arrow(pa.concat_tables([to_arrow(batch, schema) for batch in batches]))["c"] == first + second
