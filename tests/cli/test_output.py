import contextlib
import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guerdon.cli import output
from guerdon.cli.files import LinesSlice, TableSlice
from guerdon.cli.output import LinesFormat, Output, TableFormat, folder_of
from guerdon.core import tables
from guerdon.core.errors import CannotWrite, GuerdonError

RUN = {"input": "f00", "reward": [{"part": "math.answer", "weight": 1.0}]}
ROWS = 10
SCORES = pa.schema([("score", pa.float64()), tables.json_field("details")])


class Killed(BaseException):
    """Stands for a kill: nobody catches it, and nothing is cleaned up."""


@pytest.fixture(autouse=True)
def parts_of_three_rows(monkeypatch):
    monkeypatch.setattr(output, "PART_ROWS", 3)


def opened(out, run=RUN, **options):
    return Output(out, LinesFormat("", gzipped=out.suffix == ".gz"), run, **options)


def score_all(kept, scored, until=ROWS):
    """Score what is left one by one; `scored` is told each row."""
    for row in range(kept.done, until):
        kept.expect(LinesSlice([{"row": row}]))
        kept.add({"score": [row / 2]})
        scored.append(row)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


WHOLE = [{"row": row, "score": row / 2} for row in range(ROWS)]


def test_parts_become_the_file_and_are_removed(tmp_path):
    out, scored = tmp_path / "out.jsonl", []
    with opened(out) as kept:
        score_all(kept, scored)
        parts = sorted(path.name for path in folder_of(out).glob("part-*"))
        assert parts == [f"part-{a:012d}-{a + 3:012d}.jsonl" for a in (0, 3, 6)]
        assert not out.exists()
        kept.finish()
    assert lines(out) == WHOLE
    assert os.listdir(tmp_path) == ["out.jsonl"]


def killing(monkeypatch, at):
    """Be killed just before the `at`-th change of what is on the disk; how many changes there were."""
    count = [0]

    def counted(change):
        def wrapper(*arguments, **options):
            if count[0] == at:
                raise Killed
            count[0] += 1
            return change(*arguments, **options)

        return wrapper

    for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "rmdir"), (Path, "mkdir")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    return count


def changes(monkeypatch, tmp_path):
    with monkeypatch.context() as patched:
        count = killing(patched, at=None)
        with opened(tmp_path / "count.jsonl") as kept:
            score_all(kept, [])
            kept.finish()
    (tmp_path / "count.jsonl").unlink()
    return count[0]


def test_killed_at_any_moment_it_goes_on_and_keeps_what_is_finished(monkeypatch, tmp_path):
    moments = changes(monkeypatch, tmp_path)
    assert moments > 20
    for moment in range(moments):
        out = tmp_path / str(moment) / "out.jsonl"
        out.parent.mkdir()
        kept, scored = None, []
        with monkeypatch.context() as patched:
            killing(patched, moment)
            with pytest.raises(Killed):  # noqa: PT012
                kept = opened(out)
                score_all(kept, scored)
                kept.finish()
        if kept is not None:
            kept._lock.close()  # as the kernel does for a process that has ended
        finished = len(list(folder_of(out).glob("part-*"))) * 3 if folder_of(out).exists() else 0
        if out.exists() and not output.is_merged(out):
            assert lines(out) == WHOLE
            left = list(folder_of(out).iterdir()) if folder_of(out).exists() else []
            assert all(path.name == "lock" for path in left), "the command line says that OUT exists, which is right"
            continue
        again = []
        with opened(out) as kept:
            if not kept.merged:
                score_all(kept, again)
            kept.finish()
        assert lines(out) == WHOLE, moment
        assert os.listdir(out.parent) == ["out.jsonl"], moment
        assert not set(again) & set(range(min(finished, ROWS))), "finished rows are not scored again"


@pytest.mark.parametrize("what", ["write", "merge"])
def test_a_file_that_was_torn_while_it_was_written_does_not_count(tmp_path, monkeypatch, what):
    out, scored, finish = tmp_path / "out.jsonl", [], getattr(LinesFormat, what)

    def torn(form, path, rows):
        finish(form, path, rows)
        path.write_bytes(path.read_bytes()[:-5])
        raise Killed

    kept = opened(out)
    with monkeypatch.context() as patched, pytest.raises(Killed):  # noqa: PT012
        patched.setattr(LinesFormat, what, torn)
        score_all(kept, scored)
        kept.finish()
    kept._lock.close()
    with opened(out) as kept:
        score_all(kept, scored)
        kept.finish()
    assert lines(out) == WHOLE


def test_a_merge_whose_file_was_taken_away_is_done_again(tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(Output, "_remove", lambda kept: None)
        with opened(out) as kept:
            score_all(kept, [])
            kept.finish()
    out.unlink()
    with opened(out) as kept:
        assert not kept.merged
        assert kept.done == ROWS
        kept.finish()
    assert lines(out) == WHOLE


@pytest.mark.parametrize("where", ["rows", "size", "write"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(7))
def test_an_interruption_anywhere_leaves_each_row_once(tmp_path, monkeypatch, where, after, at):
    out, calls, change = tmp_path / "out.jsonl", [], getattr(LinesFormat, where)

    def interrupted(form, *arguments):
        calls.append(1)
        if len(calls) == at + 1 and not after:
            raise KeyboardInterrupt
        found = change(form, *arguments)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        return found

    with opened(out) as kept:
        with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
            patched.setattr(LinesFormat, where, interrupted)
            score_all(kept, [])
        kept.flush()
    with opened(out) as kept:
        assert sum(len(part["score"]) for part in kept.scores(["score"])) == kept.done
        score_all(kept, [])
        kept.finish()
    assert lines(out) == WHOLE


def test_parts_after_a_gap_are_not_gone_on_with(tmp_path):
    out = tmp_path / "out.jsonl"
    kept = opened(out)
    score_all(kept, [])
    kept._lock.close()
    (folder_of(out) / f"part-{3:012d}-{6:012d}.jsonl").unlink()
    scored = []
    with opened(out) as kept:
        assert kept.done == 3
        assert len(list(folder_of(out).glob("part-*"))) == 1
        score_all(kept, scored)
        kept.finish()
    assert scored == list(range(3, ROWS))
    assert lines(out) == WHOLE


def test_two_at_once_are_one_too_many(tmp_path):
    out = tmp_path / "out.jsonl"
    with opened(out) as kept:
        score_all(kept, [], until=4)
        with pytest.raises(GuerdonError, match=r"out\.jsonl\.parts is in use: another guerdon score writes to it"):
            opened(out, force=True)
        score_all(kept, [])
    with opened(out) as kept:
        assert kept.done == 9


def test_the_beginning_of_another_run_is_not_gone_on_with(tmp_path):
    out = tmp_path / "out.jsonl"
    with opened(out) as kept:
        score_all(kept, [], until=6)
    other = {"input": "f00", "reward": [{"part": "math.answer", "weight": 2.0}], "group": "team"}
    with pytest.raises(GuerdonError, match=r"different: reward\[0\]\.weight, group\): --force starts again"):
        opened(out, other)
    with opened(out) as kept:
        assert kept.done == 6, "it is still there"
    with opened(out, RUN, force=True) as kept:
        assert kept.done == 6, "of the same run there is nothing to force"
    with opened(out, other, force=True) as kept:
        assert kept.done == 0
        score_all(kept, [])
        kept.finish()
    assert lines(out) == WHOLE


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    out = tmp_path / "out.jsonl"
    (tmp_path / "out.jsonl.parts").mkdir()
    (tmp_path / "out.jsonl.parts" / "diary.txt").write_text("dear")
    with pytest.raises(GuerdonError, match=r"out\.jsonl\.parts is no beginning of a run .*: move it away"):
        opened(out, force=True)
    assert (tmp_path / "out.jsonl.parts" / "diary.txt").read_text() == "dear"


def test_without_a_finished_row_nothing_is_left(tmp_path):
    with opened(tmp_path / "out.jsonl") as kept:
        kept.expect(LinesSlice([{"row": 0}]))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("when", ["part", "merge"])
def test_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch, when):
    out = tmp_path / "out.jsonl"

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with opened(out) as kept:
        score_all(kept, [], until=8)
        monkeypatch.setattr(LinesFormat, "write" if when == "part" else "merge", full)
        with pytest.raises(CannotWrite, match=r"cannot be written: No space left on device .*make room and run"):
            score_all(kept, []) if when == "part" else kept.finish()
    monkeypatch.undo()
    monkeypatch.setattr(output, "PART_ROWS", 3)
    with opened(out) as kept:
        assert kept.done == (6 if when == "part" else 8)
        score_all(kept, [])
        kept.finish()
    assert lines(out) == WHOLE


def test_a_part_is_finished_when_it_is_large_or_old(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "PART_ROWS", 1000)
    with opened(tmp_path / "large.jsonl") as kept:
        monkeypatch.setattr(output, "PART_BYTES", 60)  # of 27 each
        score_all(kept, [], until=9)
        assert kept.done == 9
    monkeypatch.setattr(output, "PART_BYTES", 1 << 20)
    with opened(tmp_path / "old.jsonl") as kept:
        score_all(kept, [], until=2)
        assert kept.done == 0
        monkeypatch.setattr(output, "PART_SECONDS", 0.0)
        kept.expect(LinesSlice([{"row": 2}]))
        kept.add({"score": [1.0]})
        assert kept.done == 3


def test_scores_may_come_in_other_pieces_than_rows(tmp_path):
    out = tmp_path / "out.jsonl"
    with opened(out) as kept:
        kept.expect(LinesSlice([{"row": row} for row in range(4)]))
        kept.expect(LinesSlice([{"row": row} for row in range(4, 10)]))
        for some in ([0, 1], [2, 3, 4, 5, 6], [7], [8, 9]):
            kept.add({"score": [row / 2 for row in some]})
        kept.finish()
    assert lines(out) == WHOLE


def test_scores_of_finished_parts_are_given_back(tmp_path):
    out = tmp_path / "out.jsonl"
    with opened(out) as kept:
        score_all(kept, [])
        assert list(kept.scores(["score"])) == [{"score": [row / 2 for row in range(a, a + 3)]} for a in (0, 3, 6)]


def test_gzipped_parts_are_one_gzipped_file(tmp_path):
    out = tmp_path / "out.jsonl.gz"
    with opened(out) as kept:
        score_all(kept, [])
        kept.finish()
    assert [json.loads(line) for line in gzip.decompress(out.read_bytes()).splitlines()] == WHOLE


def test_lines_keep_what_they_have_and_text_that_is_no_unicode(tmp_path):
    form, path = LinesFormat("b.", gzipped=False), tmp_path / "part.jsonl"
    given = [{"z": 1, "a": "\ud800"}, {"a": "é"}]
    form.write(path, [form.rows([LinesSlice(given)], {"score": [0.5, None]})])
    assert lines(path) == [{**given[0], "b.score": 0.5}, {**given[1], "b.score": None}]
    assert "é" in path.read_text(encoding="utf-8")
    assert form.read(path, ["score"]) == {"score": [0.5, None]}


def test_parquet_parts_have_one_schema_and_become_large_row_groups(tmp_path, monkeypatch):
    schema = pa.schema([pa.field("row", pa.int32(), nullable=False)], metadata={"made by": "me"})
    out = tmp_path / "out.parquet"
    with Output(out, TableFormat(schema, SCORES, "b."), RUN) as kept:
        for row in range(ROWS):
            kept.expect(TableSlice(pa.record_batch([pa.array([row], pa.int32())], schema=schema)))
            kept.add({"score": [None if row < 5 else row / 2], "details": [{} if row % 2 else {"why": [row, "x"]}]})
        first = next(kept.scores(["details"]))
        assert first["details"] == [{"why": [0, "x"]}, {}, {"why": [2, "x"]}]
        monkeypatch.setattr(output, "PART_ROWS", 4)
        kept.finish()
    file = pq.ParquetFile(out)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [6, 4]
    assert file.schema_arrow.field("row").equals(schema.field("row"))
    assert file.schema_arrow.metadata == schema.metadata
    read = tables.read_parquet(out)
    assert read["b.score"] == [None] * 5 + [2.5, 3.0, 3.5, 4.0, 4.5]
    assert read["b.details"][:2] == [{"why": [0, "x"]}, {}]
