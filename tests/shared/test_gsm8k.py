"""Real solutions with their true correctness: GSM8K, openai/grade-school-math."""

import gzip
import json
import os
from pathlib import Path

import pytest

from guerdon.rewards import math

SHARED = Path(os.environ.get("GUERDON_SHARED", Path(__file__).resolve().parents[3] / "shared"))
SOLUTIONS = SHARED / "data" / "gsm8k_solutions.jsonl.gz"

pytestmark = pytest.mark.skipif(
    not SOLUTIONS.exists(), reason=f"{SOLUTIONS} is not here; GUERDON_SHARED names its folder"
)


@pytest.fixture(scope="module")
def solutions():
    with gzip.open(SOLUTIONS, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("accept", ["bare", "marked"])
def test_every_solution_is_judged_as_its_authors_did(solutions, accept):
    grade = math.answer(accept=accept).evaluate
    judged = [grade(row["completion"], row["answer"])[0] for row in solutions]
    assert judged == [float(row["is_correct"]) for row in solutions]
    assert len(judged) == 2638


def test_the_copied_question_earns_nothing(solutions):
    grade = math.answer().evaluate
    assert not any(grade(row["prompt"], row["answer"])[0] for row in solutions)


def test_a_solution_cut_off_before_its_answer_earns_nothing_where_a_mark_is_wanted(solutions):
    grade = math.answer(accept="marked").evaluate
    assert not any(grade(row["completion"].rpartition("\nA:")[0], row["answer"])[0] for row in solutions)
