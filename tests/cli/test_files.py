import gzip
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.cli import files
from guerdon.core import tables
from guerdon.core.errors import GuerdonError, MissingInput

ROWS = [
    {"prompt": "1+1=", "completion": "2", "answer": "2", "tags": ["sum", "small"]},
    {"prompt": "π≈", "completion": "3\u20e31", "answer": None, "tags": []},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


@pytest.fixture
def parquet(tmp_path):
    """Write tables to a Parquet file, one row group for each."""

    def write(*groups, name="rollouts.parquet"):
        with pq.ParquetWriter(tmp_path / name, groups[0].schema) as writer:
            for group in groups:
                writer.write_table(group)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.b.parquet"])
def test_a_file_is_read(jsonl, tmp_path, name):
    if name.endswith("parquet"):
        tables.write_parquet(tmp_path / name, COLUMNS)
    else:
        jsonl(ROWS, name)
    assert files.read(tmp_path / name) == COLUMNS


def test_lone_surrogates_survive_in_json(jsonl):
    assert files.read(jsonl([{"prompt": "\ud800 é"}])) == {"prompt": ["\ud800 é"]}


def test_a_line_may_lack_what_others_have(jsonl):
    path = jsonl([{"prompt": "p", "completion": "c"}, {"completion": "d", "answer": 1, "prompt": "q"}])
    assert files.read(path) == {"prompt": ["p", "q"], "completion": ["c", "d"], "answer": [None, 1]}


def gzipped_short(text):
    return gzip.compress(text * 50, mtime=0)[:-20]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"prompt": "p"}\n\n{"prompt": }\n', "line 3: not JSON"),
        ("a.jsonl", b'{"prompt": "p"}\n[1]\n', "line 2: a list, expected an object"),
        ("a.jsonl", b'{"prompt": "\xff"}\n', "line 1: not UTF-8"),
        ("a.jsonl", b"\n\n", "has no rows"),
        ("a.jsonl", b"", "has no rows"),
        ("a.jsonl.gz", b'{"prompt": "p"}\n', "broken gzip (Not a gzipped file"),
        ("a.jsonl.gz", gzipped_short(b'{"prompt": "p"}\n'), "broken gzip (Compressed file ended"),
        ("a.parquet", b"PAR1 but not really", "is not a whole Parquet file"),
        ("a.parquet", b"", "is not a whole Parquet file"),
        ("a.csv", b"prompt,completion\n", "a.csv must be a file of rollouts, whose name ends in .jsonl"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GuerdonError) as error:
        files.read(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert message in str(error.value)


def test_an_empty_table_has_no_rows(parquet):
    with pytest.raises(GuerdonError, match="has no rows"):
        files.read(parquet(pa.table({"prompt": pa.array([], pa.string())})))


def test_two_columns_of_one_name_are_an_error(parquet):
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(GuerdonError, match="has two columns 'a'"):
        files.source(parquet(twice))


def test_a_file_that_is_not_there(tmp_path):
    for name in ("a.jsonl", "a.parquet"):
        with pytest.raises(GuerdonError, match="No such file"):
            files.read(tmp_path / name)


def test_a_parquet_file_is_read_from_any_row_whatever_its_row_groups_are(parquet):
    ends = [(0, 0), (0, 1), (1, 5), (5, 5), (5, 12), (12, 12)]
    groups = [pa.table({"n": pa.array(range(a, b), pa.int64()), "x": pa.array(["?"] * (b - a))}) for a, b in ends]
    groups = [group.cast(groups[1].schema) for group in groups]
    source = files.source(parquet(*groups))
    assert source.rows == 12
    for start, size in itertools.product(range(13), (1, 2, 100)):
        source._slice_rows = size
        parts = list(source.slices(start))
        assert [n for part in parts for n in part.columns(["n"])["n"]] == list(range(start, 12))
        assert all(len(part) for part in parts)
    assert [part.records()[0] for part in source.slices(11)] == [{"n": 11, "x": "?"}]


def test_slices_are_small_where_rows_are_large(parquet, jsonl, monkeypatch):
    monkeypatch.setattr(files, "SLICE_BYTES", 100_000)
    rng = np.random.default_rng(0)
    texts = [rng.bytes(5_000).hex() for _ in range(100)]
    for path in (parquet(pa.table({"prompt": texts})), jsonl([{"prompt": text} for text in texts])):
        sizes = [len(part) for part in files.source(path).slices()]
        assert sum(sizes) == 100
        assert 5 <= max(sizes) <= 10, "of 10,000 bytes each"


def test_columns_of_lines_take_types_that_fit_all_lines(jsonl, monkeypatch):
    monkeypatch.setattr(files, "FIRST_ROWS", 2)
    nothing = {"prompt": None}
    rows = [
        {
            "whole": 1,
            "half": 1,
            "wide": 1,
            "mixed": 1,
            "tags": [],
            "chat": {"role": "a", "tool": None},
            "odd": {"a": 1},
        },
        nothing,
        nothing,
        {"whole": 2, "half": 0.5, "wide": 2**60, "mixed": "b", "tags": ["x"], "chat": {"role": "a", "tool": "t"}},
        {"odd": {"b": 2}, "late": True},
        {"wide": 0.5, "mixed": 2},
    ]
    schema = files.source(jsonl(rows), typed=True).schema
    kinds = {field.name: "json" if tables.is_json(field) else str(field.type) for field in schema}
    assert kinds == {
        "whole": "int64", "half": "double", "wide": "json", "mixed": "json", "tags": "list<item: string>",
        "chat": "struct<role: string, tool: string>", "odd": "json", "prompt": "null", "late": "bool",
    }  # fmt: skip


def rollouts_of(source, names=(), **options):
    return [rollouts for _, rollouts in files.rollouts(source, names, **{"group": None, **options})]


@given(prompts=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=30), size=st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_runs_of_equal_prompts_are_groups_wherever_the_file_is_cut(tmp_path_factory, prompts, size):
    path = tmp_path_factory.mktemp("runs") / "a.parquet"
    tables.write_parquet(path, {"prompt": prompts, "completion": ["c"] * len(prompts)})
    source = files.source(path)
    source._slice_rows = size
    groups = [int(g) for batch in rollouts_of(source) for g in batch.groups]
    began = 0
    for row, prompt in enumerate(prompts):
        began = row if row and prompt != prompts[row - 1] else began
        assert groups[row] == began, "a run is numbered by the row in which it begins"


def test_the_groups_of_a_column_are_the_same_in_all_slices(parquet):
    labels = ["b", "b", "a", "a", "a", "c"]
    source = files.source(parquet(pa.table({"prompt": list("ppqqqr"), "completion": list("123456"), "team": labels})))
    for size in (1, 2, 6):
        source._slice_rows = size
        groups = [int(g) for batch in rollouts_of(source, group="team") for g in batch.groups]
        assert {labels[i]: g for i, g in enumerate(groups)}.keys() == {"a", "b", "c"}
        assert [groups.index(g) for g in groups] == [0, 0, 2, 2, 2, 5]


def test_labels_that_are_equal_are_one_group_and_whole_numbers_stand_for_themselves():
    numbers = files._numbered([3, 3.0, "3", True, 0.5, 2**60, -1], 0, Path("f"))
    assert numbers[[0, 1, 3, 6]].tolist() == [3, 3, 1, -1]
    assert len(set(numbers.tolist())) == 6
    assert files._numbered(["3", 0.5], 9, Path("f")).tolist() == numbers[[2, 4]].tolist()


def test_only_columns_that_are_asked_for_become_python_values(parquet):
    table = pa.table({"prompt": ["p"], "completion": ["c"], "id": ["i"], "answer": ["4"], "image": [b"\x00"]})
    (batch,) = rollouts_of(files.source(parquet(table)), ["answer"])
    assert (dict(batch.columns), list(batch.ids)) == ({"answer": ["4"]}, ["i"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": None}, "row 301 has no 'id', which other rows have"),
        ({"team": None}, "row 301 has no 'team', which other rows have"),
        ({"finished": None}, "row 301 has no 'finished'"),
        ({"finished": "no"}, "row 301: finished is true or false, got 'no'"),
        ({"team": ["a"]}, r"row 301: a group is a number or a text, got \['a'\]"),
        ({"team": 0}, "rows 0 and 301 are of one group"),
    ],
)
def test_a_bad_row_is_found_before_any_work_and_named(jsonl, monkeypatch, row, message):
    monkeypatch.setattr(files, "SLICE_ROWS", 100)
    good = [{"id": str(i), "team": i // 4, "finished": True, "prompt": "p", "completion": "c"} for i in range(400)]
    path = jsonl([*good[:301], {**good[301], **row}, *good[302:]])
    files.inspect(files.source(jsonl(good, "good.jsonl")), group="team", together=True)
    with pytest.raises(GuerdonError, match=message) as error:
        files.inspect(files.source(path), group="team", together=True)
    assert str(path) in str(error.value)
    if message.startswith("rows"):
        files.inspect(files.source(path), group="team", together=False)


def test_groups_are_numbers_or_names_of_a_column():
    columns = {"prompt": ["p", "q", "p"], "completion": ["1", "2", "3"], "task": ["b", "a", "b"], "group": [4, 4, 5]}
    assert files.rollouts_of(columns, group=None, where=Path("f")).groups.tolist() == [4, 4, 5]
    assert files.rollouts_of(columns, group="task", where=Path("f")).groups.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("columns", "group", "message"),
    [
        ({"prompt": ["p"], "answer": ["1"]}, None, "f has no column 'completion'; it has: prompt, answer"),
        ({"prompt": ["p"], "completion": ["1"]}, "task", "no column 'task': --group names it; it has"),
        ({"prompt": ["p"], "completion": ["1"], "group": [["a"]]}, None, "f: "),
    ],
)
def test_columns_that_make_no_rollouts(columns, group, message):
    with pytest.raises(GuerdonError) as error:
        files.rollouts_of(columns, group=group, where=Path("f"))
    assert message in str(error.value)
    assert isinstance(error.value, MissingInput) == ("column" in message)


def test_a_digest_is_of_the_content_wherever_the_file_is(jsonl):
    first, same, other = jsonl(ROWS, "a.jsonl"), jsonl(ROWS, "b.jsonl"), jsonl(ROWS[::-1], "c.jsonl")
    assert files.digest(first) == files.digest(same) != files.digest(other)
