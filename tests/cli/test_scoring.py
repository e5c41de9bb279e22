import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon import Engine, Rollouts, gate, reward, shaping, weigh
from guerdon.cli import scoring
from guerdon.core.errors import MissingInput, SpecError
from guerdon.rewards import math, text


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=60), st.sampled_from(["row", "group", "batch"]))
def test_batches_hold_each_row_once_and_never_split_what_belongs_together(groups, scope):
    rollouts = Rollouts([""] * len(groups), [""] * len(groups), groups=groups)
    batches = [batch.tolist() for batch in scoring.batches(rollouts, scope)]
    assert sorted(row for batch in batches for row in batch) == list(range(len(groups)))
    if scope == "batch":
        assert len(batches) == 1
    if scope == "row":
        assert [row for batch in batches for row in batch] == list(range(len(groups)))
    if scope == "group":
        homes = [{groups[row] for row in batch} for batch in batches]
        assert sum(map(len, homes)) == len(set(groups))


def test_batches_are_small_at_first_and_grow():
    rollouts = Rollouts([""] * 1000, [""] * 1000)
    sizes = [len(batch) for batch in scoring.batches(rollouts, "row")]
    assert sizes[:4] == [8, 32, 128, 512]


def test_batches_of_slow_rows_keep_enough_in_flight(monkeypatch):
    moments = itertools.count(0.0, 100.0)
    monkeypatch.setattr("guerdon.cli.scoring.time.monotonic", lambda: next(moments))
    rollouts = Rollouts([""] * 100, [""] * 100)
    assert [len(batch) for batch in scoring.batches(rollouts, "row", least=40)] == [8, 40, 40, 12]


@reward(range=(0, 1))
async def judged(completion):
    return 1.0


def test_what_waits_elsewhere_has_larger_batches():
    with Engine(workers=5, concurrency=16) as engine:
        assert scoring._in_flight(math.answer(), engine) == 20
        assert scoring._in_flight(math.answer() + judged(), engine) == 64


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("math.answer", math.answer()),
        ("{part: text.length, unit: words}", text.length(unit="words")),
        ("[{part: math.answer, weight: 0.5}, {part: text.length, unit: words, weight: 1e-3}]",
         0.5 * math.answer() + 0.001 * text.length(unit="words")),
    ],
)  # fmt: skip
def test_a_spec_is_a_name_yaml_or_a_file_of_it(tmp_path, spec, expected):
    assert scoring.read_reward(spec) == expected
    (tmp_path / "reward.yaml").write_text(spec)
    assert scoring.read_reward(str(tmp_path / "reward.yaml")) == expected
    (tmp_path / "recipe.yml").write_text(f"steps: 3\nreward: {spec}\n")
    assert scoring.read_reward(str(tmp_path / "recipe.yml")) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("math.anser", "did you mean 'math.answer'"),
        ("{part: text.length, units: words}", "no option 'units': did you mean 'unit'?"),
        ("{part: text.length", "is not YAML: line 1, column 19: "),
        ("{part: \x01}", "is not YAML: unacceptable character"),
        ("no.yaml", "no.yaml cannot be read: No such file"),
        ("", "expected a part's name"),
    ],
)
def test_a_spec_that_is_wrong_says_where(spec, message):
    with pytest.raises(SpecError) as error:
        scoring.read_reward(spec)
    assert message in str(error.value)


def test_an_error_in_a_file_names_the_file(tmp_path):
    (tmp_path / "reward.yaml").write_text("- part: math.answer\n- part: text.lenght\n")
    with pytest.raises(SpecError, match=r"reward\.yaml: reward\[1\]: .* 'text\.length'"):
        scoring.read_reward(str(tmp_path / "reward.yaml"))


@reward(range=(0, 1), lane="batch")
def styled(prompt, completion, style):
    return [1.0] * len(prompt)


def test_readers_say_which_part_reads_what():
    graded = weigh(math.answer() >> shaping.brevity(), by="difficulty")
    expression = gate(styled(), then=graded)
    assert scoring.readers(expression) == {
        "completion": [styled.name, "math.answer"],
        "prompt": [styled.name],
        "style": [styled.name],
        "difficulty": ["weighed"],
        "tokens": ["shaping.brevity"],
        "answer": ["math.answer"],
    }


def test_all_that_is_missing_is_named_with_a_remedy(tmp_path):
    rollouts = Rollouts(["p"], ["c"], {"style": ["s"]})
    with pytest.raises(MissingInput) as error:
        scoring.require(styled() + (math.answer() >> shaping.brevity()), rollouts, tmp_path / "f.jsonl")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("'tokens' is missing: shaping.brevity reads it; a file has none")
    assert lines[1].startswith("'answer' is missing: math.answer reads it; ")
    assert lines[1].endswith("f.jsonl has: prompt, completion, style")


def test_numbers_of_rows_and_of_steps():
    assert scoring.numbers([1.0, None, 0.5]).tolist() == [1.0, 0.5]
    assert scoring.numbers([[1.0, None], [], None, [0.5]]).tolist() == [1.0, 0.5]


def test_time_per_row_leaves_out_the_start():
    assert scoring._steady([(0, 0.0), (10, 5.0), (110, 7.0)]) == pytest.approx(0.02)
    assert scoring._steady([(0, 0.0), (10, 5.0)]) == pytest.approx(0.5)
    assert np.isfinite(scoring._steady([(0, 0.0)]))
