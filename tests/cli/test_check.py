import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from guerdon import Rollouts
from guerdon.cli import findings
from guerdon.core.errors import GuerdonError

ROOT = Path(__file__).resolve().parents[2]
GSM8K = Path(os.environ.get("GUERDON_SHARED", ROOT.parent / "shared")) / "data" / "gsm8k_solutions.jsonl.gz"

RIGHT = ("--reward", "cli_parts.right", "--allow-import")
VALUE = ("--reward", "cli_parts.value", "--allow-import")

# score:       1     1     0     0     –        groups 0 0 1 1 1
# label:       true  false false true  true
ROWS = [
    {"group": group, "prompt": f"question {group}", "completion": completion, "answer": answer, "ok": ok, "source": "x"}
    for group, completion, answer, ok in [
        (0, "a", "a", True),
        (0, "b", "b", False),
        (1, "c", "x", False),
        (1, "d", "x", 1.0),
        (1, "e", None, 0.9),
    ]
]


@pytest.fixture
def check(guerdon):
    """Check a file and give the findings."""

    def run(*arguments):
        result = guerdon("check", *arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return run


def test_what_is_said_of_the_reward_and_the_file(check, jsonl):
    found = check(jsonl(ROWS), *RIGHT)
    assert found["range"] == [0, 1]
    assert (found["scope"], found["level"]) == ("row", "rollout")
    assert (found["rows"], found["groups"]) == (5, 2)
    assert found["columns"] == [
        {"name": "answer", "read_by": ["cli_parts.right"], "found": True, "empty": 1},
        {"name": "completion", "read_by": ["cli_parts.right"], "found": True, "empty": 0},
    ]
    assert found["unread"] == ["prompt", "ok", "source"]


def test_the_scores_are_counted(check, jsonl):
    scores = check(jsonl(ROWS), *RIGHT)["scores"]
    assert (scores["scored"], scores["mean"], scores["abstained"]) == (4, 0.5, 1)
    assert scores["counts"] == [[0.0, 2], [1.0, 2]]
    assert scores["quantiles"] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert [(entry["reason"], entry["rows"]) for entry in scores["reasons"]] == [("no score was returned", 1)]


def test_groups_of_equal_scores_are_counted(check, jsonl):
    # group 0: 1, 1; group 1: 0, 0, –; a group of one does not count, and one of two scores has signal
    rows = [*ROWS, ROWS[0] | {"group": 2}, ROWS[0] | {"group": 3}, ROWS[2] | {"group": 3}]
    assert check(jsonl(rows), *RIGHT)["signal"] == {"groups": 3, "equal": 2}


def test_agreement_with_a_label_is_tallied(check, jsonl):
    assert check(jsonl(ROWS), *RIGHT, "--label", "ok")["agreement"] == {
        "column": "ok",
        "labelled": 5,
        "agree": 2,
        "disagree": 2,
        "abstained": 1,
        "true_high": 1,
        "true_low": 1,
        "true_abstained": 1,
        "false_high": 1,
        "false_low": 1,
        "false_abstained": 0,
    }


def test_a_row_without_a_label_is_left_out(check, jsonl):
    rows = [ROWS[0] | {"ok": None}, *ROWS[1:3]]
    agreement = check(jsonl(rows), *RIGHT, "--label", "ok")["agreement"]
    assert (agreement["labelled"], agreement["agree"], agreement["disagree"]) == (2, 1, 1)


def test_a_score_of_one_half_is_not_high(check, jsonl):
    rows = [{"prompt": "p", "completion": c, "ok": True} for c in ("0.5", "0.51")]
    agreement = check(jsonl(rows), *VALUE, "--label", "ok")["agreement"]
    assert (agreement["true_low"], agreement["true_high"]) == (1, 1)


def test_examples_of_each_kind(check, jsonl):
    examples = check(jsonl(ROWS), *RIGHT, "--label", "ok", "--examples", "1")["examples"]
    assert [(example["kind"], example["row"], example["score"]) for example in examples] == [
        ("disagrees", 1, 1.0),
        ("high", 0, 1.0),
        ("low", 2, 0.0),
        ("abstained", 4, None),
    ]
    assert examples[3]["reason"] == "no score was returned"
    assert examples[0]["columns"] == {"prompt": "question 0", "completion": "b", "answer": "b"}
    assert examples[0]["label"] is False


def test_examples_come_from_different_groups_first(check, jsonl):
    rows = [{"group": g, "prompt": "p", "completion": c} for g, c in [(0, "9"), (0, "8"), (1, "7"), (1, "1"), (2, "0")]]
    examples = check(jsonl(rows), *VALUE, "--examples", "2")["examples"]
    assert [(e["kind"], e["row"]) for e in examples] == [("high", 0), ("high", 2), ("low", 4), ("low", 3)]


def test_the_cost_is_measured(check, jsonl):
    cost = check(jsonl(ROWS), *RIGHT)["cost"]
    assert cost["rows"] == 5
    assert 0 < cost["per_row"] < 1
    assert cost["whole"] == pytest.approx(5 * cost["per_row"])
    (leaf,) = cost["leaves"]
    assert leaf == {"name": "cli_parts.right", "lane": "batch", "deadline": None, "rows": 5, "per_row": cost["per_row"]}


def test_each_of_several_leaves_is_timed(check, jsonl):
    rows = [{"prompt": "p", "completion": "1", "answer": "1", "kind": "ab"[i % 2]} for i in range(6)]
    spec = "{route: kind, to: {a: cli_parts.value, b: math.answer}}"
    leaves = check(jsonl(rows), "-r", spec, "--allow-import", "--deadline", "3", "--workers", "1")["cost"]["leaves"]
    assert [(leaf["name"], leaf["lane"], leaf["rows"]) for leaf in leaves] == [
        ("cli_parts.value", "batch", 3),
        ("math.answer", "process", 3),
    ]
    assert leaves[0]["deadline"] is None
    assert leaves[0]["per_row"] != leaves[1]["per_row"]
    assert all(0 < leaf["per_row"] < 5 for leaf in leaves)


def test_what_is_missing_is_shown_and_exits_with_2(guerdon, jsonl):
    path = jsonl([{"prompt": "p", "completion": "c", "solution": "s"}])
    spec = ("--reward", "{part: cli_parts.right, shape: [{part: shaping.brevity}]}", "--allow-import")
    shown = guerdon("check", path, *spec)
    assert shown.exit_code == 2
    assert "'tokens' is missing: shaping.brevity reads it" in shown.stderr
    assert "'answer' is missing: cli_parts.right reads it" in shown.stderr
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["answer", "cli_parts.right", "missing"] in rows
    assert ["completion", "cli_parts.right", "yes"] in rows
    assert "not read: prompt, solution" in shown.stdout
    as_json = guerdon("check", path, *spec, "--json")
    assert as_json.exit_code == 2
    assert [c["name"] for c in json.loads(as_json.stdout)["columns"] if not c["found"]] == ["tokens", "answer"]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("source", "--label: row 0 of column 'source' is 'x': a label is true, false or a number"),
        ("truth", "--label: there is no column 'truth'; the file has: group, prompt"),
    ],
)
def test_a_label_must_be_there_and_be_one(guerdon, jsonl, label, message):
    result = guerdon("check", jsonl(ROWS), *RIGHT, "--label", label)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_label_is_not_about_steps(guerdon, jsonl):
    result = guerdon("check", jsonl(ROWS), "-r", "cli_parts.steps", "--allow-import", "--label", "ok")
    assert result.exit_code == 2
    assert "a label is about a rollout" in result.stderr


def test_scores_of_steps_are_checked_too(check, guerdon, jsonl):
    rows = [{"prompt": "p", "completion": "a"}, {"prompt": "p", "completion": "abc"}]
    found = check(jsonl(rows), "-r", "cli_parts.steps", "--allow-import")
    assert found["level"] == "step"
    assert (found["scores"]["scored"], found["scores"]["abstained"]) == (3, 1)
    assert [(e["kind"], e["row"], e["score"]) for e in found["examples"]] == [
        ("high", 0, [0.25]),
        ("abstained", 1, [0.25, None, 0.25]),
    ]
    assert "score 0.25, –, 0.25" in guerdon("check", jsonl(rows), "-r", "cli_parts.steps", "--allow-import").stdout


def test_a_sample_is_of_whole_groups_from_all_over():
    groups = np.repeat(np.arange(50), 4)[::-1]
    rollouts = Rollouts([""] * 200, [""] * 200, groups=groups)
    rows = findings.sample(rollouts, 40)
    assert len(rows) == 40
    assert (np.diff(rows) > 0).all()
    chosen, counts = np.unique(groups[rows], return_counts=True)
    assert set(counts.tolist()) == {4}
    assert {chosen.min(), chosen.max()} == {0, 49}
    assert findings.sample(rollouts, 0).tolist() == findings.sample(rollouts, 200).tolist() == list(range(200))


def test_how_much_is_scored(check, jsonl):
    path = jsonl([{"prompt": str(i), "completion": str(i), "ok": 1} for i in range(1200)])
    assert check(path, *VALUE)["cost"]["rows"] == 1000
    assert check(path, *VALUE, "--sample", "7")["cost"]["rows"] == 7
    assert check(path, *VALUE, "--sample", "0")["cost"]["rows"] == 1200
    assert check(path, *VALUE, "--label", "ok")["cost"]["rows"] == 1200
    assert check(path, *VALUE, "--label", "ok", "--sample", "5")["agreement"]["labelled"] == 5


def test_a_sampled_row_keeps_its_number_and_its_label(check, jsonl):
    path = jsonl([{"prompt": str(i), "completion": str(i % 2), "ok": i % 2 == 1} for i in range(40)])
    found = check(path, *VALUE, "--label", "ok", "--sample", "5", "--examples", "9")
    assert found["agreement"]["agree"] == found["agreement"]["labelled"] == 5
    rows = {example["row"]: example for example in found["examples"]}
    assert {0, 39} < set(rows)
    for row, example in rows.items():
        assert example["columns"]["prompt"] == str(row)
        assert (example["score"], example["label"]) == (row % 2, row % 2 == 1)


def test_many_different_scores_are_not_counted_one_by_one(check, jsonl):
    scores = check(jsonl([{"prompt": "p", "completion": str(i)} for i in range(9)]), *VALUE)["scores"]
    assert scores["counts"] is None
    assert scores["quantiles"] == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_what_is_printed(guerdon, jsonl):
    text = guerdon("check", jsonl(ROWS), *RIGHT, "--label", "ok").stdout
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "reward cli_parts.right()",
        "range 0 to 1",
        "gives one score per rollout; scores rows one by one",
        "answer cli_parts.right yes, empty in 1 rows",
        "scores mean 0.5; 0 × 2, 1 × 2",
        "abstained 1 (20 %)",
        "no signal 2 of 2 groups (100 %): all their scores are equal",
        "score > 0.5 1 1",
        "score ≤ 0.5 1 1",
        "abstained 1 0",
        "they agree on 2 of 5 rows (40 %)",
        "disagrees row 1: score 1, ok is false",
        "abstained row 4: no score, ok is true",
        "because no score was returned",
    ):
        assert line in lines, f"{line!r} is not in:\n{text}"


def test_when_all_abstain_there_are_no_scores(guerdon, jsonl):
    rows = [{"prompt": "p", "completion": "c", "answer": None}] * 3
    result = guerdon("check", jsonl(rows), *RIGHT)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "scores none abstained 3 (100 %)" in text


def test_an_interruption_still_says_what_was_found(guerdon, jsonl):
    rows = [{"prompt": "p", "completion": "stop" if i == 20 else str(i)} for i in range(30)]
    result = guerdon("check", jsonl(rows), "-r", "cli_parts.interrupted", "--allow-import")
    assert result.exit_code == 130
    assert "16 of 30 rows" in result.stdout


def test_labels_are_truth_values_or_numbers():
    assert findings.truths([True, 0, 1, 0.5, 0.51, None], "ok") == [True, False, True, False, True, None]
    with pytest.raises(GuerdonError, match="row 1 of column 'ok' is 'yes'"):
        findings.truths([True, "yes"], "ok")


@pytest.mark.processes
def test_no_text_breaks_the_installed_command_on_a_terminal_without_unicode(jsonl):
    rows = [{"prompt": "\u202e½\x1b[2J", "completion": "\ud800 数 [bold]x[/bold] " + "é" * 400, "answer": None}]
    here = Path(__file__).parent
    result = subprocess.run(
        [str(Path(sys.executable).with_name("guerdon")), "check", str(jsonl(rows)), *RIGHT],
        env={**os.environ, "PYTHONPATH": str(here), "PYTHONIOENCODING": "ascii", "COLUMNS": "200"},
        capture_output=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    text = result.stdout.decode("ascii")
    assert "\\u202e\\xbd\\x1b[2J" in text
    assert "\\ud800 \\u6570 [bold]x[/bold]" in text
    assert "\x1b" not in text


@pytest.mark.skipif(not GSM8K.is_file(), reason=f"{GSM8K} is not there")
def test_math_answer_agrees_with_the_labels_of_gsm8k(check):
    agreement = check(GSM8K, "--reward", "math.answer", "--label", "is_correct")["agreement"]
    assert (agreement["labelled"], agreement["agree"], agreement["disagree"], agreement["abstained"]) == (
        2638,
        2638,
        0,
        0,
    )
