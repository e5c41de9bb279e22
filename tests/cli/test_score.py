import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from guerdon.cli import files

COMMAND = str(Path(sys.executable).with_name("guerdon"))
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
    files.write(tmp_path / "a.parquet", {name: [row[name] for row in ROWS] for name in ROWS[0]})
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


def test_groups_are_compared_whole_however_they_lie(guerdon, jsonl, tmp_path):
    # 60 rows, more than the first batches hold, of three groups that take turns
    rows = [{"prompt": "p", "completion": str(i), "team": "abc"[i % 3]} for i in range(60)]
    means = {"a": 28.5, "b": 29.5, "c": 30.5}
    spec = "{part: cli_parts.value, shape: [{part: shaping.center, at: group}]}"
    options = ("--reward", spec, "--allow-import", "--group", "team", "--out", tmp_path / "out.jsonl")
    assert guerdon("score", jsonl(rows), *options).exit_code == 0
    scored = files.read(tmp_path / "out.jsonl")
    assert scored["completion"] == [str(i) for i in range(60)]
    assert scored["score"] == pytest.approx([i - means["abc"[i % 3]] for i in range(60)])
    assert scored["part.cli_parts.value"] == [float(i) for i in range(60)]


def test_a_batch_is_compared_whole(guerdon, jsonl, tmp_path):
    rows = [{"prompt": str(i), "completion": str(i)} for i in range(60)]
    spec = "{part: cli_parts.value, shape: [{part: shaping.center, at: batch}]}"
    options = ("--reward", spec, "--allow-import", "--out", tmp_path / "out.jsonl")
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
    # 8 + 32 rows are scored; all 10 that may abstain of 100 have, and one more
    rows = [{"prompt": "p", "completion": "a", "answer": None if 20 <= i < 31 else "a"} for i in range(100)]
    options = (*RIGHT, "--out", tmp_path / "out.jsonl", "--max-abstain")
    result = guerdon("score", jsonl(rows), *options, "0.1")
    assert result.exit_code == 3
    assert "11 of 40 rows scored so far abstained, and at most 10 % of 100 may" in result.stderr
    assert "no score was returned" in result.stdout
    assert not (tmp_path / "out.jsonl").exists()
    assert files.read(tmp_path / "out.partial.jsonl")["score"] == [1.0] * 20 + [None] * 11 + [1.0] * 9
    assert guerdon("score", jsonl(rows), *options, "0.11").exit_code == 0


def test_an_interruption_keeps_what_there_is(guerdon, jsonl, tmp_path):
    rows = [{"prompt": "p", "completion": "stop" if i == 50 else str(i)} for i in range(90)]
    options = ("-r", "cli_parts.interrupted", "--allow-import", "--out", tmp_path / "out.parquet")
    result = guerdon("score", jsonl(rows), *options)
    assert result.exit_code == 130
    assert files.read(tmp_path / "out.partial.parquet")["completion"] == [str(i) for i in range(40)]
    assert not (tmp_path / "out.parquet").exists()
    assert "40 of 90" in result.stdout


def test_an_interruption_before_the_first_score_writes_nothing(guerdon, jsonl, tmp_path):
    path = jsonl([{"prompt": "p", "completion": "stop"}])
    options = ("-r", "cli_parts.interrupted", "--allow-import", "--out", tmp_path / "out.jsonl")
    assert guerdon("score", path, *options).exit_code == 130
    assert os.listdir(tmp_path) == [path.name]


def test_a_full_disk_loses_nothing(guerdon, jsonl, tmp_path, monkeypatch):
    refuge = tmp_path / "elsewhere"
    refuge.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(refuge))
    write = files.write

    def full(path, columns):
        if refuge not in path.parents:
            raise OSError(28, "No space left on device")
        write(path, columns)

    monkeypatch.setattr(files, "write", full)
    result = guerdon("score", jsonl(ROWS), *RIGHT, "--out", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    (kept,) = refuge.rglob("out.jsonl")
    assert f"out.jsonl cannot be written: No space left on device; the scores are in {kept}" in result.stderr
    assert files.read(kept)["score"] == [1.0, 0.0, None]


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


@pytest.mark.processes
def test_ctrl_c_ends_the_installed_command(jsonl, tmp_path):
    log = tmp_path / "log"
    log.touch()
    path = jsonl([{"prompt": "p", "completion": str(i)} for i in range(5000)])
    options = ["-r", "cli_parts.logged", "--allow-import", "--workers", "1", "--out", str(tmp_path / "out.jsonl")]
    running = subprocess.Popen(
        [COMMAND, "score", str(path), *options],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "CLI_PARTS_LOG": str(log)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    patience = time.monotonic() + 40
    while log.read_text().count("\n") < 60 and time.monotonic() < patience:
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=15)
    assert running.returncode == 130
    assert errors == "guerdon: interrupted\n"
    kept = files.read(tmp_path / "out.partial.jsonl")
    assert 16 <= len(kept["completion"]) < 5000
    assert kept["completion"] == [str(i) for i in range(len(kept["completion"]))]
    assert set(kept["score"]) == {1.0}
