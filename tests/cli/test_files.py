import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guerdon.cli import files
from guerdon.core.errors import GuerdonError, MissingInput

ROWS = [
    {"prompt": "1+1=", "completion": "2", "answer": "2", "tags": ["sum", "small"]},
    {"prompt": "π≈", "completion": "3\u20e31", "answer": None, "tags": []},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.b.parquet"])
def test_what_is_written_is_read(tmp_path, name):
    files.write(tmp_path / name, COLUMNS)
    assert files.read(tmp_path / name) == COLUMNS
    assert os.listdir(tmp_path) == [name]


def test_files_are_what_others_read(tmp_path):
    files.write(tmp_path / "a.jsonl.gz", COLUMNS)
    with gzip.open(tmp_path / "a.jsonl.gz", "rt", encoding="utf-8") as lines:
        assert [json.loads(line) for line in lines] == ROWS
    files.write(tmp_path / "a.parquet", COLUMNS)
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == ROWS


def test_lone_surrogates_survive_in_json_and_do_not_break_parquet(tmp_path):
    columns = {"prompt": ["\ud800 é"], "completion": ["ok"]}
    files.write(tmp_path / "a.jsonl", columns)
    assert files.read(tmp_path / "a.jsonl") == columns
    files.write(tmp_path / "a.parquet", columns)
    assert files.read(tmp_path / "a.parquet")["prompt"][0].endswith(" é")


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
        ("a.csv", b"prompt,completion\n", "a.csv must be a file of rollouts, whose name ends in .jsonl"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GuerdonError) as error:
        files.read(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert message in str(error.value)


def test_an_empty_table_has_no_rows(tmp_path):
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(GuerdonError, match="has no rows"):
        files.read(tmp_path / "a.parquet")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(GuerdonError, match="No such file"):
        files.read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, name):
    (tmp_path / name).write_text("old")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        files.write(tmp_path / name, COLUMNS)
    assert (tmp_path / name).read_text() == "old"
    assert os.listdir(tmp_path) == [name]


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
