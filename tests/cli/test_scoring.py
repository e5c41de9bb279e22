import numpy as np
import pyarrow as pa
import pytest

from guerdon import Engine, Rollouts, Scores, gate, reduce, reward, route, shaping, weigh
from guerdon.algebra import Leaf
from guerdon.cli import scoring
from guerdon.core.errors import MissingInput, SpecError
from guerdon.rewards import math, text


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
    columns = ["prompt", "completion", "style"]
    with pytest.raises(MissingInput) as error:
        scoring.require(styled() + (math.answer() >> shaping.brevity()), columns, tmp_path / "f.jsonl")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("'tokens' is missing: shaping.brevity reads it; a file has none")
    assert lines[1].startswith("'answer' is missing: math.answer reads it; ")
    assert lines[1].endswith("f.jsonl has: prompt, completion, style")


@reward(range=(0, 1), lane="batch")
def sees_all(rollouts):
    return [1.0] * len(rollouts)


class Model(Leaf):
    name, range, floor = "model", (0.0, 1.0), 0.0

    def measure(self, rollouts, context):
        return Scores(np.zeros(len(rollouts)))


def test_columns_that_are_not_read_stay_in_the_file():
    columns = ["prompt", "completion", "answer", "style", "image"]
    assert scoring.read_columns(math.answer(), columns) == ["completion", "answer"]
    assert scoring.read_columns(weigh(styled(), by="image"), columns) == ["prompt", "completion", "style", "image"]
    assert scoring.read_columns(math.answer() + sees_all(), columns) == columns
    assert scoring.read_columns(Model(), columns) == columns, "what it reads is its own affair"


@reward(range=(0, 1), lane="batch", level="step")
def steps(completion):
    return Scores(np.zeros((len(completion), 1)))


def test_columns_that_are_added_have_types_before_there_are_scores():
    assert scoring.added(reduce(steps(), "min").named("worst")).types == [
        pa.float64(), pa.bool_(), pa.string(), pa.string(), pa.list_(pa.float64()), pa.float64(),
    ]  # fmt: skip
    assert scoring.added(steps()).field("score").type == pa.list_(pa.float64())
    assert scoring.added(math.answer() + 2 * styled()).names == [
        "score", "valid", "reason", "details", "part.math.answer", f"part.{styled.name}",
    ]  # fmt: skip


def test_a_part_that_no_row_was_routed_to_has_no_scores():
    expression = route("task", a=styled(), b=sees_all())
    rollouts = Rollouts(["p", "q"], ["c", "d"], {"task": ["a", "a"], "style": ["s", "s"]})
    with Engine(workers=1) as engine:
        found = scoring.columns(expression.score(rollouts, engine=engine), scoring.added(expression).names)
    assert found[f"part.{styled.name}"] == [1.0, 1.0]
    assert found[f"part.{sees_all.name}"] == [None, None]


def test_time_per_row_leaves_out_the_start():
    assert scoring._steady([(0, 0.0), (10, 5.0), (110, 7.0)]) == pytest.approx(0.02)
    assert scoring._steady([(0, 0.0), (10, 5.0)]) == pytest.approx(0.5)
    assert np.isfinite(scoring._steady([(0, 0.0)]))
