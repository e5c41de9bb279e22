import datetime
import decimal
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guerdon.cli import files
from guerdon.core import tables

RIGHT = ("--reward", "cli_parts.right", "--allow-import")
VALUE = "{part: cli_parts.value, name: raw}"

ROWS = [
    {"prompt": "1+1=", "completion": "2", "answer": "2", "id": 7},
    {"prompt": "1+1=", "completion": "3", "answer": "2", "id": 8},
    {"prompt": "1+2=", "completion": "3", "answer": None, "id": 9},
]


@pytest.mark.parametrize("out", ["scores.jsonl", "scores.jsonl.gz", "scores.parquet"])
@pytest.mark.parametrize("name", ["rollouts.jsonl", "rollouts.jsonl.gz"])
def test_scores_are_added_to_the_columns_of_the_file(guerdon, jsonl, tmp_path, name, out):
    result = guerdon("score", jsonl(ROWS, name), *RIGHT, "--out", tmp_path / out)
    assert result.exit_code == 0, result.stderr
    scored = files.read(tmp_path / out)
    assert {column: scored[column] for column in ROWS[0]} == {c: [row[c] for row in ROWS] for c in ROWS[0]}
    assert scored["score"] == [1.0, 0.0, None]
    assert scored["valid"] == [True, True, False]
    assert scored["reason"] == [None, None, "no score was returned"]
    assert scored["part.cli_parts.right"] == [1.0, 0.0, None]
    assert scored["details"] == [{}, {}, {}]
    assert set(os.listdir(tmp_path)) == {name, out}


def test_parquet_is_read(guerdon, tmp_path):
    tables.write_parquet(tmp_path / "a.parquet", {name: [row[name] for row in ROWS] for name in ROWS[0]})
    assert guerdon("score", tmp_path / "a.parquet", *RIGHT, "-o", tmp_path / "b.parquet").exit_code == 0
    assert pq.read_table(tmp_path / "b.parquet").column("score").to_pylist() == [1.0, 0.0, None]


def test_the_table_at_the_end(guerdon, jsonl, tmp_path):
    rows = [{"prompt": "p", "completion": "a", "answer": "a" if i < 30 else None} for i in range(40)]
    result = guerdon("score", jsonl(rows), *RIGHT, "--out", tmp_path / "out.jsonl")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[:3] == ["rows 40", "mean score 1 (1 to 1)", "abstained 10 (25 %)"]
    assert lines[3].startswith("rows/s ")
    assert lines[4] == f"written {tmp_path / 'out.jsonl'}"
    assert lines[-1] == "10 25 % no score was returned"


CENTRED = "{part: cli_parts.value, shape: [{part: shaping.center, at: %s}]}"


def test_groups_are_compared_whole_wherever_the_file_is_cut(guerdon, tmp_path, monkeypatch):
    # groups of 1 to 5 rows, read five rows at a time from row groups of seven
    teams = [f"team {i}" for i in range(40) for _ in range(i % 5 + 1)]
    values = [float(i * i % 17) for i in range(len(teams))]
    table = pa.table({"prompt": ["p"] * len(teams), "completion": [str(v) for v in values], "team": teams})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=7)
    monkeypatch.setattr("guerdon.cli.files.SLICE_ROWS", 5)
    monkeypatch.setattr("guerdon.cli.output.PART_ROWS", 10)
    options = ("--reward", CENTRED % "group", "--allow-import", "--group", "team", "--out", tmp_path / "out.parquet")
    result = guerdon("score", tmp_path / "in.parquet", *options)
    assert result.exit_code == 0, result.stderr
    scored = files.read(tmp_path / "out.parquet")
    means = {
        team: sum(v for v, t in zip(values, teams, strict=True) if t == team) / teams.count(team) for team in teams
    }
    assert scored["score"] == pytest.approx([v - means[team] for v, team in zip(values, teams, strict=True)])
    assert scored["part.cli_parts.value"] == values


def test_runs_of_equal_prompts_are_compared_whole(guerdon, jsonl, tmp_path, monkeypatch):
    monkeypatch.setattr("guerdon.cli.files.SLICE_ROWS", 3)
    rows = [{"prompt": p, "completion": str(i)} for i, p in enumerate("aaaabbacccccccc")]
    options = ("--reward", CENTRED % "group", "--allow-import", "--out", tmp_path / "out.jsonl")
    assert guerdon("score", jsonl(rows), *options).exit_code == 0
    means = [1.5] * 4 + [4.5] * 2 + [6.0] + [10.5] * 8
    assert files.read(tmp_path / "out.jsonl")["score"] == pytest.approx([i - m for i, m in enumerate(means)])


def test_a_group_seen_again_is_an_error_that_names_both_rows(guerdon, jsonl, tmp_path):
    path = jsonl([{"prompt": "p", "completion": str(i), "team": "aabbbac"[i]} for i in range(7)])
    options = ("--allow-import", "--group", "team", "--out", tmp_path / "out.jsonl")
    result = guerdon("score", path, "--reward", CENTRED % "group", *options)
    assert result.exit_code == 2
    assert f"{path}: rows 0 and 5 are of one group" in result.stderr
    assert os.listdir(tmp_path) == [path.name]
    assert guerdon("score", path, "--reward", "cli_parts.value", *options).exit_code == 0, "nothing is compared"


def test_more_rows_than_may_be_compared_are_refused_before_any_work(guerdon, jsonl, tmp_path):
    path = jsonl([{"prompt": str(i), "completion": str(i)} for i in range(60)])
    options = ("--reward", CENTRED % "batch", "--allow-import", "--out", tmp_path / "out.jsonl", "--max-batch")
    result = guerdon("score", path, *options, "59")
    assert result.exit_code == 2
    assert "compares all rows with one another" in result.stderr
    assert "has 60" in result.stderr
    assert "Raise --max-batch, which is 59" in result.stderr
    assert guerdon("score", path, *options, "60").exit_code == 0


def test_a_batch_is_compared_whole(guerdon, jsonl, tmp_path):
    rows = [{"prompt": str(i), "completion": str(i)} for i in range(60)]
    options = ("--reward", CENTRED % "batch", "--allow-import", "--out", tmp_path / "out.jsonl")
    assert guerdon("score", jsonl(rows), *options).exit_code == 0
    assert files.read(tmp_path / "out.jsonl")["score"] == pytest.approx([i - 29.5 for i in range(60)])


def test_each_part_of_a_reward_has_its_column(guerdon, jsonl, tmp_path):
    spec = f"[{VALUE}, {{part: cli_parts.right, weight: 10}}]"
    result = guerdon("score", jsonl(ROWS[:2]), "-r", spec, "--allow-import", "-o", tmp_path / "out.jsonl")
    scored = files.read(tmp_path / "out.jsonl")
    assert scored["score"] == [12.0, 3.0]
    assert scored["part.raw"] == [2.0, 3.0]
    assert scored["part.cli_parts.right"] == [1.0, 0.0]
    cells = [line.split() for line in result.stdout.splitlines()]
    assert ["raw", "2.5", "2", "2.5", "3", "2"] in cells
    assert ["cli_parts.right", "0.5", "0", "0.5", "1", "2"] in cells


def test_a_score_per_step_is_a_list(guerdon, jsonl, tmp_path):
    rows = [
        {"prompt": "p", "completion": "a"},
        {"prompt": "p", "completion": "abc"},
        {"prompt": "p", "completion": "b"},
    ]
    result = guerdon("score", jsonl(rows), "-r", "cli_parts.steps", "--allow-import", "-o", tmp_path / "out.jsonl")
    scored = files.read(tmp_path / "out.jsonl")
    assert scored["score"] == [[0.25], [0.25, None, 0.25], [0.25]]
    assert scored["valid"] == [True, False, True]
    assert "mean score 0.25" in " ".join(result.stdout.split())


def test_scores_of_another_reward_are_kept_beside(guerdon, jsonl, tmp_path):
    path, first, second = jsonl(ROWS), tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    guerdon("score", path, *RIGHT, "--out", first)
    result = guerdon("score", first, "-r", VALUE, "--allow-import", "--out", second)
    assert result.exit_code == 2
    assert "already has a column 'score'" in result.stderr
    assert "--prefix NAME writes NAME.score" in result.stderr
    assert not second.exists()
    assert guerdon("score", first, "-r", VALUE, "--allow-import", "-o", second, "--prefix", "b").exit_code == 0
    scored = files.read(second)
    assert scored["score"] == [1.0, 0.0, None]
    assert scored["b.score"] == scored["b.part.raw"] == [2.0, 3.0, 3.0]


def test_a_part_whose_column_is_taken_is_refused(guerdon, jsonl, tmp_path):
    path = jsonl([{"prompt": "p", "completion": "1", "part.raw": 0}])
    result = guerdon("score", path, "-r", VALUE, "--allow-import", "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 2
    assert "'part.raw'" in result.stderr


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("out.txt", "out.txt must be a file of rollouts"),
        ("there/out.jsonl", "there is no folder"),
        ("rollouts.jsonl", "is the file that is read"),
        ("link.jsonl", "is the file that is read"),
        ("old.jsonl", "exists already: --force writes over it"),
    ],
)
def test_where_it_would_write_is_checked_before_any_work(guerdon, jsonl, tmp_path, out, message):
    path = jsonl(ROWS)
    (tmp_path / "old.jsonl").write_text("old")
    (tmp_path / "link.jsonl").symlink_to(path)
    before = path.read_bytes()
    forced = [] if out == "old.jsonl" else ["--force"]
    result = guerdon("score", path, "-r", "cli_parts.interrupted", "--allow-import", "--out", tmp_path / out, *forced)
    assert result.exit_code == 2
    assert message in result.stderr
    assert path.read_bytes() == before
    assert (tmp_path / "old.jsonl").read_text() == "old"


def test_force_writes_over(guerdon, jsonl, tmp_path):
    (tmp_path / "out.jsonl").write_text("old")
    assert guerdon("score", jsonl(ROWS), *RIGHT, "--out", tmp_path / "out.jsonl", "--force").exit_code == 0
    assert files.read(tmp_path / "out.jsonl")["score"] == [1.0, 0.0, None]


def test_too_many_abstentions_stop_it_and_keep_what_there_is(guerdon, jsonl, tmp_path):
    # 8 + 8 + 32 rows are scored; all 10 that may abstain of 100 have, and one more
    rows = [{"prompt": "p", "completion": "a", "answer": None if 20 <= i < 31 else "a"} for i in range(100)]
    options = (*RIGHT, "--out", tmp_path / "out.jsonl", "--max-abstain")
    result = guerdon("score", jsonl(rows), *options, "0.1")
    assert result.exit_code == 3
    assert "11 of 48 rows scored so far abstained, and at most 10 % of 100 may" in result.stderr
    assert "no score was returned" in result.stdout
    assert not (tmp_path / "out.jsonl").exists()
    again = guerdon("score", jsonl(rows), *options, "0.1")
    assert again.exit_code == 3
    assert "48 of 100 rows are done" in again.stderr, "nothing more is scored"
    assert guerdon("score", jsonl(rows), *options, "0.11").exit_code == 0
    assert files.read(tmp_path / "out.jsonl")["score"] == [1.0] * 20 + [None] * 11 + [1.0] * 69


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", "out.jsonl.gz"])
def test_after_an_interruption_the_same_command_goes_on(guerdon, jsonl, tmp_path, monkeypatch, name):
    rows = [{"prompt": "p", "completion": "stop" if i == 50 else str(i), "odd": [i, "x"]} for i in range(90)]
    path, out = jsonl(rows), tmp_path / name
    options = ("-r", "cli_parts.interrupted", "--allow-import", "--out", out)
    result = guerdon("score", path, *options)
    assert result.exit_code == 130
    assert "48 of 90" in result.stdout
    assert f"{out}.parts" in result.stdout
    assert "48 of 90 rows are done: the same command goes on from there" in result.stderr
    assert not out.exists()
    monkeypatch.setenv("CLI_PARTS_CALM", "yes")
    result = guerdon("score", path, *options)
    assert result.exit_code == 0
    assert f"resuming: 48 of 90 rows are done, in {out}.parts" in result.stderr
    assert result.stdout.split()[:2] == ["rows", "90"]
    guerdon("score", path, *options[:-1], tmp_path / f"whole-{name}")
    assert files.read(out) == files.read(tmp_path / f"whole-{name}")
    assert files.read(out)["completion"] == [row["completion"] for row in rows]
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, name, f"whole-{name}"])


def test_groups_are_whole_after_an_interruption_too(guerdon, jsonl, tmp_path, monkeypatch):
    rows = [{"prompt": str(i // 7), "completion": "stop" if i == 60 else str(i), "answer": "1"} for i in range(98)]
    reward = "[{part: cli_parts.interrupted}, {part: cli_parts.even, shape: [{part: shaping.center, at: group}]}]"
    options = ("-r", reward, "--allow-import", "--out", tmp_path / "out.jsonl")
    assert guerdon("score", jsonl(rows), *options).exit_code == 130
    monkeypatch.setenv("CLI_PARTS_CALM", "yes")
    again = guerdon("score", jsonl(rows), *options)
    assert "resuming: 28 of 98" in again.stderr, (
        "in whole groups of seven: 14, 14, and the 56 that were interrupted are not among them"
    )
    even = [float(i % 2 == 0) for i in range(98)]
    expected = [1 + e - sum(even[i // 7 * 7 : i // 7 * 7 + 7]) / 7 for i, e in enumerate(even)]
    assert files.read(tmp_path / "out.jsonl")["score"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"reward": "{part: cli_parts.interrupted, at: halt}"}, "different: reward"),
        ({"rows": [{"prompt": "p", "completion": "other"}] * 9}, "different: input, rows"),
        ({"options": ["--deadline", "3"]}, "different: deadline"),
        ({"options": ["--prefix", "b"]}, "different: prefix"),
        ({"options": ["--group", "completion"]}, "different: group"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_run_is_not_gone_on_with(guerdon, jsonl, tmp_path, monkeypatch, change, differs):
    rows = [{"prompt": "p", "completion": "stop" if i == 50 else str(i)} for i in range(90)]
    options = ("--allow-import", "--out", tmp_path / "out.jsonl")
    assert guerdon("score", jsonl(rows), "-r", "cli_parts.interrupted", *options).exit_code == 130
    monkeypatch.setenv("CLI_PARTS_CALM", "yes")
    path = jsonl(change.get("rows", rows))
    other = ("score", path, "-r", change.get("reward", "cli_parts.interrupted"), *options, *change.get("options", ()))
    result = guerdon(*other)
    assert result.exit_code == 2
    assert differs in result.stderr
    assert "--force starts again" in result.stderr
    forced = guerdon(*other, "--force")
    assert forced.exit_code == 0
    assert "resuming" not in forced.stderr
    assert len(files.read(tmp_path / "out.jsonl")["prompt"]) == len(change.get("rows", rows))


def test_a_file_that_was_moved_is_the_same_file(guerdon, jsonl, tmp_path, monkeypatch):
    path = jsonl([{"prompt": "p", "completion": "stop" if i == 50 else str(i)} for i in range(90)])
    options = ("-r", "cli_parts.interrupted", "--allow-import", "--workers", "3", "--out", tmp_path / "out.jsonl")
    guerdon("score", path, *options)
    monkeypatch.setenv("CLI_PARTS_CALM", "yes")
    result = guerdon("score", path.rename(tmp_path / "moved.jsonl"), *options[:4], "2", *options[5:])
    assert "resuming: 48 of 90" in result.stderr


def test_an_interruption_before_the_first_score_writes_nothing(guerdon, jsonl, tmp_path):
    path = jsonl([{"prompt": "p", "completion": "stop"}])
    options = ("-r", "cli_parts.interrupted", "--allow-import", "--out", tmp_path / "out.jsonl")
    assert guerdon("score", path, *options).exit_code == 130
    assert os.listdir(tmp_path) == [path.name]


def test_a_crash_before_the_parts_were_removed_is_harmless(guerdon, jsonl, tmp_path, monkeypatch):
    path, out = jsonl(ROWS), tmp_path / "out.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr("guerdon.cli.output.Output._remove", lambda kept: None)
        guerdon("score", path, *RIGHT, "--out", out)
    whole = out.read_bytes()
    assert (tmp_path / "out.jsonl.parts").is_dir()
    result = guerdon("score", path, *RIGHT, "--out", out)
    assert result.exit_code == 0
    assert "is whole" in result.stderr
    assert out.read_bytes() == whole
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", path.name]
    assert guerdon("score", path, *RIGHT, "--out", out).exit_code == 2, "now it exists, and that is all"


def test_a_full_disk_loses_nothing_that_is_finished(guerdon, jsonl, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    options = ("score", jsonl(ROWS), *RIGHT, "--out", tmp_path / "out.jsonl")
    with monkeypatch.context() as patched:
        patched.setattr("guerdon.cli.output.LinesFormat.merge", full)
        result = guerdon(*options)
    assert result.exit_code == 1
    assert "out.jsonl.parts cannot be written: No space left on device" in result.stderr
    result = guerdon(*options)
    assert "resuming: 3 of 3 rows are done" in result.stderr
    assert files.read(tmp_path / "out.jsonl")["score"] == [1.0, 0.0, None]


def test_types_of_a_parquet_file_are_kept(guerdon, tmp_path):
    day = datetime.date(2024, 2, 29)
    schema = pa.schema(
        [
            pa.field("prompt", pa.large_string()),
            pa.field("completion", pa.dictionary(pa.int32(), pa.string())),
            pa.field("answer", pa.string(), nullable=False),
            pa.field("when", pa.timestamp("us", tz="UTC")),
            pa.field("price", pa.decimal128(9, 2)),
            pa.field("small", pa.int8()),
            pa.field("half", pa.float32()),
            pa.field("image", pa.binary()),
            pa.field("day", pa.date32()),
            pa.field("boxes", pa.list_(pa.struct([("x", pa.float32()), ("tags", pa.list_(pa.string()))]))),
            tables.json_field("odd"),
            pa.field("nothing", pa.null()),
        ],
        metadata={"made by": "me"},
    )
    row = {
        "prompt": "p", "completion": "2", "answer": "2", "when": datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
        "price": decimal.Decimal("12.50"), "small": 7, "half": 0.1, "image": b"\x00\xff", "day": day,
        "boxes": [{"x": 0.1, "tags": ["a"]}, {"x": None, "tags": None}], "odd": '{"a": 1}', "nothing": None,
    }  # fmt: skip
    other = dict.fromkeys(row) | {"prompt": "q", "completion": "3", "answer": "2"}
    given = pa.Table.from_pylist([row, other, row], schema=schema)
    pq.write_table(given, tmp_path / "in.parquet", row_group_size=2)
    result = guerdon("score", tmp_path / "in.parquet", *RIGHT, "--out", tmp_path / "out.parquet")
    assert result.exit_code == 0, result.stderr
    read = pq.read_table(tmp_path / "out.parquet")
    assert read.column_names == [*schema.names, "score", "valid", "reason", "details", "part.cli_parts.right"]
    assert read.select(schema.names).cast(schema).equals(given)
    assert [read.schema.field(name).type for name in schema.names] == schema.types
    assert read.schema.metadata == schema.metadata
    assert read.column("score").to_pylist() == [1.0, 0.0, 1.0]
    assert guerdon("score", tmp_path / "in.parquet", *RIGHT, "--out", tmp_path / "out.jsonl").exit_code == 0
    first = files.read(tmp_path / "out.jsonl")
    assert (first["odd"][0], first["day"][0], first["price"][0]) == ({"a": 1}, "2024-02-29", "12.50")


def test_columns_of_lines_become_columns_of_one_type(guerdon, jsonl, tmp_path, monkeypatch):
    monkeypatch.setattr("guerdon.cli.files.FIRST_ROWS", 2)
    monkeypatch.setattr("guerdon.cli.output.PART_ROWS", 2)
    extra = [{"n": 1}, {"n": 2, "mixed": "a"}, {"n": 0.5}, {"mixed": [1]}, {"chat": [{"role": "user"}]}, {}]
    rows = [{"prompt": "p", "completion": "c", "answer": "c", **more} for more in extra]
    assert guerdon("score", jsonl(rows), *RIGHT, "--out", tmp_path / "out.parquet").exit_code == 0
    read = tables.read_parquet(tmp_path / "out.parquet")
    for name in ("n", "mixed", "chat"):
        assert read[name] == [row.get(name) for row in rows]
    assert pq.read_schema(tmp_path / "out.parquet").field("n").type == pa.float64()


def test_a_line_that_lacks_a_column_is_passed_on_as_it_is(guerdon, jsonl, tmp_path):
    rows = [
        {"prompt": "p", "completion": "c", "answer": "c"},
        {"answer": "c", "completion": "d", "prompt": "p", "x": 1},
    ]
    assert guerdon("score", jsonl(rows), *RIGHT, "--out", tmp_path / "out.jsonl").exit_code == 0
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [list(row)[: len(given)] for row, given in zip(scored, rows, strict=True)] == [list(row) for row in rows]
    assert "x" not in scored[0]


def test_a_file_of_one_row_in_odd_row_groups(guerdon, tmp_path):
    one = pa.table({"prompt": ["p"], "completion": ["c"], "answer": ["c"]})
    with pq.ParquetWriter(tmp_path / "in.parquet", one.schema) as writer:
        for table in (one.slice(0, 0), one, one.slice(0, 0)):
            writer.write_table(table)
    assert guerdon("score", tmp_path / "in.parquet", *RIGHT, "--out", tmp_path / "out.parquet").exit_code == 0
    assert files.read(tmp_path / "out.parquet")["score"] == [1.0]


def test_a_bad_row_is_named_before_any_work(guerdon, jsonl, tmp_path):
    path = jsonl([{"prompt": "p", "completion": "stop", "group": i if i != 700 else None} for i in range(900)])
    result = guerdon("score", path, "-r", "cli_parts.interrupted", "--allow-import", "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 2
    assert f"{path}: row 700 has no 'group', which other rows have" in result.stderr


def test_where_there_is_no_terminal_a_line_now_and_then_says_how_far_it_is(guerdon, jsonl, tmp_path, monkeypatch):
    monkeypatch.setattr("guerdon.cli.scoring.LINE_SECONDS", 0.0)
    path = jsonl([{"prompt": "p", "completion": "a", "answer": "a"} for _ in range(20)])
    lines = guerdon("score", path, *RIGHT, "--out", tmp_path / "out.jsonl").stderr.splitlines()
    assert [line.split(",")[0] for line in lines] == ["8 of 20 rows", "16 of 20 rows", "20 of 20 rows"]
    assert all(line.endswith(" left") and " rows/s, " in line for line in lines)


@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet"])
def test_evidence_with_odd_keys_is_written(guerdon, jsonl, tmp_path, out):
    options = ("-r", "cli_parts.detailed", "--allow-import", "--out", tmp_path / out)
    assert guerdon("score", jsonl(ROWS[:2]), *options).exit_code == 0
    details = files.read(tmp_path / out)["details"]
    assert details == [{"by": {"pairs": [{"(0, 1)": "same"}]}}, {"by": {"2": 0.5}}]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (ROWS, ["--reward", "cli_parts.right"], "--allow-import"),
        (ROWS, ["--reward", "cli_parts.wrong", "--allow-import"], "there is no part 'cli_parts.wrong'"),
        (ROWS, ["--reward", "{part: math.answer, shape: [{part: shaping.brevity}]}"], "'tokens' is missing"),
        (ROWS, [*RIGHT, "--group", "team"], "no column 'team'"),
        ([{"prompt": "p", "completion": "c"}], [*RIGHT], "'answer' is missing: cli_parts.right reads it"),
        ([{"prompt": "p", "answer": "c"}], [*RIGHT], "no column 'completion'"),
        ([], [*RIGHT], "has no rows"),
    ],
)
def test_bad_input_says_what_is_wrong_without_a_traceback(guerdon, jsonl, tmp_path, rows, options, message):
    result = guerdon("score", jsonl(rows), *options, "--out", tmp_path / "out.jsonl")
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_odd_text_is_kept(guerdon, jsonl, tmp_path):
    rows = [{"prompt": "\x1b[2J", "completion": "\ud800 [bold]", "answer": "\ud800 [bold]"}]
    assert guerdon("score", jsonl(rows), *RIGHT, "--out", tmp_path / "out.jsonl").exit_code == 0
    scored = files.read(tmp_path / "out.jsonl")
    assert scored["completion"] == ["\ud800 [bold]"]
    assert scored["score"] == [1.0]
    assert guerdon("score", jsonl(rows), *RIGHT, "--out", tmp_path / "out.parquet").exit_code == 0


# A shell's background job is born deaf to SIGINT, and so would be all it starts: this command hears Ctrl-C anyway.
SMALL_PARTS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from guerdon.cli import main, output
output.PART_ROWS = 40
main()
"""


@pytest.mark.processes
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_stopped_from_outside_it_goes_on_from_the_finished_parts(guerdon, jsonl, tmp_path, monkeypatch, how):
    log, out = tmp_path / "log", tmp_path / "out.parquet"
    log.touch()
    path = jsonl([{"prompt": "p", "completion": str(i)} for i in range(300)])
    options = ["-r", "cli_parts.logged", "--allow-import", "--workers", "1", "--out", str(out)]
    monkeypatch.setenv("CLI_PARTS_LOG", str(log))
    running = subprocess.Popen(
        [sys.executable, "-c", SMALL_PARTS, "score", str(path), *options],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    patience = time.monotonic() + 40
    while len(list(tmp_path.glob("out.parquet.parts/part-*"))) < 2 and time.monotonic() < patience:
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    os.killpg(running.pid, how)
    _, errors = running.communicate(timeout=15)
    parts = sorted(tmp_path.glob("out.parquet.parts/part-*"))
    done = sum(pq.read_metadata(part).num_rows for part in parts)
    assert 0 < done < 300, errors
    if how == signal.SIGINT:
        assert running.returncode == 130
        assert errors == (f"{done} of 300 rows are done: the same command goes on from there\nguerdon: interrupted\n")
    result = guerdon("score", path, *options)
    assert result.exit_code == 0, result.stderr
    assert f"resuming: {done} of 300 rows are done" in result.stderr
    scored = files.read(out)
    assert scored["completion"] == [str(i) for i in range(300)]
    assert scored["score"] == [1.0] * 300
    logged = log.read_text().split()
    assert set(logged) == set(scored["completion"])
    assert all(logged.count(str(i)) == 1 for i in range(done)), "finished rows are not scored again"
