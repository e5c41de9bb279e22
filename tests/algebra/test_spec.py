from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pytest
import yaml

from guerdon import Leaf, Reward, available, gate, harmonic, lexicographic, product, reduce, reward, route, weigh
from guerdon.algebra import spec
from guerdon.core import SpecError
from guerdon.rewards import format, math as maths, text
from guerdon.shaping import Shaper, bound, center, clip

HERE = __name__


@reward(range=(0, 1))
def plain(completion, *, scale: float = 1.0, mode: Literal["a", "b"] = "a", cuts: tuple[int, ...] = (), table=None):
    return 0.0


@reward(range=(0, 1))
def needy(completion, *, key: str):
    return 0.0


@reward(range=(0, 1), lane="batch", level="step")
def steps(completion):
    raise NotImplementedError


@dataclass(frozen=True)
class Model(Leaf):
    """A leaf that is a dataclass of plain options."""

    path: str
    layers: tuple[int, ...] = (1,)
    name = "model"
    range = (0.0, 1.0)


@dataclass(frozen=True)
class Weighty(Leaf):
    weight: float = 1.0
    name = "weighty"
    range = (0.0, 1.0)


@dataclass(frozen=True)
class offset(Shaper):
    """A shaper from outside guerdon, with a field that is not an option."""

    by: float = 0.0

    def __call__(self, scores, context):
        return scores.with_values(scores.read(0.0) + self.by)


@dataclass(frozen=True)
class running(Shaper):
    """A shaper with state."""

    rate: float = 0.1
    state: dict[str, float] = field(default_factory=dict, init=False, compare=False)

    def __call__(self, scores, context):
        return scores


def load(text: str) -> Reward:
    return spec.load(yaml.safe_load(text))


LENGTH = text.length(unit="words")
ANSWER = maths.answer()


# The grammar


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("math.answer", ANSWER),
        ("{part: math.answer}", ANSWER),
        ("{part: text.length, unit: words}", LENGTH),
        ("{part: format.tags, names: [think, answer], credit: each}", format.tags("think", "answer", credit="each")),
        ("{part: math.answer, weight: 0.5}", 0.5 * ANSWER),
        ("{part: math.answer, weight: '1e-3'}", 1e-3 * ANSWER),
        ("{part: math.answer, weight: 1e-3}", 1e-3 * ANSWER),
        ("{part: math.answer, name: correct}", ANSWER.named("correct")),
        ("{part: math.answer, shape: shaping.center}", ANSWER >> center()),
        ("{part: math.answer, shape: [shaping.center, {part: shaping.bound, kind: tanh}]}",
         ANSWER >> center() >> bound("tanh")),
        ("{part: math.answer, shape: {part: shaping.center, at: group}}", ANSWER >> center("group")),
        ("{part: math.answer, shape: {part: shaping.clip, high: 1e-1}}", ANSWER >> clip(high=0.1)),
        ("{part: math.answer, weight: 2, name: n, shape: [shaping.center]}", 2 * (ANSWER >> center()).named("n")),
        ("{of: {part: math.answer, name: n}, shape: shaping.center}", ANSWER.named("n") >> center()),
        ("{of: {part: math.answer, weight: 2}, name: n}", (2 * ANSWER).named("n")),
        ("[math.answer]", 1.0 * ANSWER),
        ("[math.answer, {part: text.length, unit: words, weight: -0.1}]", ANSWER - 0.1 * LENGTH),
        ("{sum: [math.answer, math.answer], bias: 1}", ANSWER + ANSWER + 1),
        ("{sum: [math.answer], bias: 1, weight: 2, name: n}", 2 * (ANSWER + 1).named("n")),
        ("{product: [math.answer, {part: text.length, unit: words}]}", product(ANSWER, LENGTH)),
        ("{harmonic: [math.answer, {part: text.length, unit: words}], weights: [1, 3]}",
         harmonic(ANSWER, LENGTH, weights=[1, 3])),
        ("{available: [math.answer]}", available(ANSWER)),
        ("{available: [math.answer], weights: ['2']}", available(ANSWER, weights=[2])),
        ("{lexicographic: [math.answer, {part: text.length, unit: words}], tolerance: 0.1}",
         lexicographic(ANSWER, LENGTH, tolerance=0.1)),
        ("{gate: math.answer, then: {part: text.length, unit: words}}", gate(ANSWER, then=LENGTH)),
        ("{gate: math.answer, then: [math.answer], above: 0.9, otherwise: -1}",
         gate(ANSWER, then=1.0 * ANSWER, above=0.9, otherwise=-1)),
        ("{weigh: math.answer, by: difficulty}", weigh(ANSWER, by="difficulty")),
        ("{route: task, to: {sum: math.answer, 2: {part: text.length, unit: words}}}",
         route("task", {"sum": ANSWER, "2": LENGTH})),
        ("{route: task, to: {sum: math.answer}, otherwise: {part: text.length, unit: words}}",
         route("task", {"sum": ANSWER}, otherwise=LENGTH)),
    ],
)  # fmt: skip
def test_every_way_to_write_a_reward(written, meant):
    assert load(written) == meant
    dumped = spec.dump(meant)
    assert spec.load(yaml.safe_load(yaml.safe_dump(dumped))) == meant


def test_reduce_is_written_too():
    meant = reduce(steps(), "min")
    data = {"reduce": f"{HERE}.steps", "how": "min"}
    assert spec.load(data, allow_import=True) == meant
    assert spec.load(spec.dump(meant), allow_import=True) == meant


def test_dump_writes_every_default_out():
    assert spec.dump(ANSWER >> center())["shape"] == [{"part": "shaping.center", "at": "batch"}]
    assert spec.dump(LENGTH) == {"part": "text.length", "unit": "words", "within": "completion"}
    assert spec.dump(plain()) == {"part": f"{HERE}.plain", "scale": 1.0, "mode": "a", "cuts": [], "table": None}
    assert spec.dump(gate(LENGTH, then=LENGTH)) == {
        "gate": spec.dump(LENGTH), "then": spec.dump(LENGTH), "above": 0.5, "otherwise": 0.0, "inclusive": False,
    }  # fmt: skip
    assert spec.dump(0.5 * LENGTH + 1) == {"sum": [{**spec.dump(LENGTH), "weight": 0.5}], "bias": 1.0}
    assert spec.dump(0.5 * LENGTH) == [{**spec.dump(LENGTH), "weight": 0.5}]


def test_loading_leaves_the_data_as_they_were():
    data = {
        "gate": "math.answer",
        "then": {"part": "text.length", "unit": "words", "name": "n", "weight": 2.0},
        "above": 1,
    }
    before = yaml.safe_dump(data)
    assert spec.load(data) == spec.load(data)
    assert yaml.safe_dump(data) == before


def test_state_is_not_part_of_a_spec():
    shaper = running()
    shaper.state["mean"] = 3.0
    data = spec.dump(ANSWER >> shaper)
    assert data["shape"] == [{"part": f"{HERE}.running", "rate": 0.1}]
    assert spec.load(data, allow_import=True).shaper.state == {}


@pytest.mark.parametrize(
    "meant",
    [
        plain(table={"a": [1, {"b": None}], 2: 0.5}, cuts=(1, 2)),
        plain(scale=math.inf, table=["yes", "1e-3", "null", "~", "0x1", "\n: - #", "é\u2028"]),
        plain(scale=np.float64(0.25), cuts=(np.int64(3),)),
        Model("runs/rm", layers=(1, 2)) >> offset(by=-1),
        0.1 * (0.3 * (ANSWER + LENGTH).named("x") >> offset()),
        ((ANSWER.named("a") >> center()).named("b") >> clip(high=0) >> clip(low=0)).named("c"),
        gate(ANSWER, then=ANSWER + 1) * (0.5 * ANSWER),
        weigh(weigh(1 * ANSWER, by="w"), by="v") >> clip(),
        route("t", {"yes": ANSWER, "1.0": product(ANSWER, ANSWER), "": ANSWER}, otherwise=lexicographic(ANSWER)),
    ],
    ids=repr,
)
def test_specs_of_parts_from_outside_and_odd_values_come_back(meant):
    data = spec.dump(meant)
    assert spec.load(yaml.safe_load(yaml.safe_dump(data, allow_unicode=True)), allow_import=True) == meant


# What cannot be written


def test_what_data_cannot_hold_refuses_to_be_dumped():
    lambda_leaf = reward(range=(0, 1))(lambda completion: 0.0)

    @reward(range=(0, 1))
    def local(completion):
        return 0.0

    def script(completion):
        return 0.0

    script.__module__, script.__qualname__ = "__main__", "script"
    another = reward(range=(0, 1))(needy.function)  # this module shows another factory by its name
    for leaf, message in [
        (lambda_leaf(), "nothing can import it"),
        (local(), "nothing can import it"),
        (reward(range=(0, 1))(script)(), "it is defined in '__main__'"),
        (another(key="k"), "it is not what"),
        (plain(table=open), "plain.table cannot be written as data: <built-in function open>"),
        (plain(table={"client": object()}), "plain.table cannot be written as data: <object"),
        (Weighty(weight=0.5), "a spec uses 'weight', which is one of its options"),
    ]:
        with pytest.raises(SpecError, match=re.escape(message)):
            spec.dump(0.5 * leaf >> center())
    with pytest.raises(SpecError, match="it is not a dataclass of plain options"):
        spec.dump(ANSWER >> Loose())


class Loose(Shaper):
    def __init__(self) -> None:
        self.client = object()


# What cannot be read


def test_parts_from_outside_load_only_when_allowed():
    data = [{"part": f"{HERE}.plain"}]
    with pytest.raises(SpecError, match=r"reward\[0\]: there is no part .*--allow-import"):
        spec.load(data)
    assert spec.load(data, allow_import=True) == 1.0 * plain()
    with pytest.raises(SpecError, match="--allow-import"):
        spec.load({"part": "math.answer", "shape": f"{HERE}.offset"})
    with pytest.raises(SpecError, match=r"'subprocess\.run' is not a reward"):
        spec.load("subprocess.run", allow_import=True)
    with pytest.raises(SpecError, match=r"'os\.remove' is not a shaper"):
        spec.load({"part": "math.answer", "shape": "os.remove"}, allow_import=True)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("math.anwser", "reward: there is no part 'math.anwser': did you mean 'math.answer'?"),
        ("[math.answer, {part: text.lengt}]", "reward[1]: there is no part 'text.lengt': did you mean 'text.length'?"),
        ("{part: text.length, unti: words}", "reward: text.length has no option 'unti': did you mean 'unit'?"),
        ("{part: text.length, unit: word}", "reward: text.length.unit: 'word' is not a choice: did you mean 'words'?"),
        ("{part: text.length, unit: 3}", "reward: text.length.unit: 3 is not a choice"),
        ("{part: format.tags, names: think}", "reward: format.tags.names: expected a list, got 'think'"),
        ("{part: format.tags, names: [a, 1]}", "reward: format.tags.names[1]: expected text, got 1"),
        ("{part: 3}", "reward: part: expected text, got 3"),
        ("{part: math.Abstain}", "reward: 'math.Abstain' is not a reward"),
        ("{part: shaping.center}", "reward: 'shaping.center' is not a reward"),
        ("{part: math.answer, of: math.answer}", "reward: math.answer has no option 'of'"),
        ("{part: math.answer, weight: heavy}", "reward.weight: expected a number, got 'heavy'"),
        ("{part: math.answer, weight: true}", "reward.weight: expected a number, got True"),
        ("{part: math.answer, weight: .inf}", "reward: weights and bias must be finite"),
        ("{part: math.answer, name: 3}", "reward.name: expected text, got 3"),
        ("{part: math.answer, name: ''}", "reward: a name must not be empty"),
        ("{part: math.answer, shape: center}", "reward.shape[0]: there is no part 'center'"),
        ("{part: math.answer, shape: [shaping.center, shaping.boun]}",
         "reward.shape[1]: there is no part 'shaping.boun': did you mean 'shaping.bound'?"),
        ("{part: math.answer, shape: {part: shaping.bound, knd: tanh}}",
         "reward.shape[0]: shaping.bound has no option 'knd': did you mean 'kind'?"),
        ("{part: math.answer, shape: {part: shaping.bound, scale: -1}}", "reward.shape[0]: scale must be positive"),
        ("{part: math.answer, shape: {part: shaping.center, at: grp}}", "'grp' is not a choice: did you mean 'group'?"),
        ("{part: math.answer, shape: {at: group}}", "reward.shape[0]: a shaper is written {part: shaping.…}"),
        ("{part: math.answer, shape: [null]}", "reward.shape[0]: a shaper is written"),
        ("{part: math.answer, shape: math.answer}", "reward.shape[0]: 'math.answer' is not a shaper"),
        ("{part: math.answer, shape: shaping.Shaper}", "reward.shape[0]: 'shaping.Shaper' is not a shaper"),
        ("3", "reward: expected a part's name, a mapping or a list, got 3"),
        ("[]", "reward: sum of nothing"),
        ("{sum: []}", "reward: sum of nothing"),
        ("{product: []}", "reward: product of nothing"),
        ("{product: math.answer}", "reward.product: expected a list, got 'math.answer'"),
        ("{product: [math.answer], weights: [1]}", "reward: product has no option 'weights': valid: none"),
        ("{harmonic: [math.answer], weigts: []}", "reward: harmonic has no option 'weigts': did you mean 'weights'?"),
        ("{harmonic: [math.answer], weights: [1, 2]}", "reward: 2 weights for 1 rewards"),
        ("{available: [math.answer], weights: [a]}", "reward.weights[0]: expected a number, got 'a'"),
        ("{lexicographic: [math.answer, 4]}", "reward.lexicographic[1]: expected a part's name"),
        ("{gate: math.answer}", "reward: a gate needs 'then'"),
        ("{gate: math.answer, then: math.answer, abov: 1}", "reward: gate has no option 'abov': did you mean 'above'?"),
        ("{gate: math.answer, then: {part: math.anser}}", "reward.then: there is no part 'math.anser'"),
        ("{gate: math.answer, then: math.answer, above: x}", "reward.above: expected a number, got 'x'"),
        ("{reduce: math.answer, how: min}", "reward: math.answer() gives one score per rollout already"),
        ("{reduce: math.answer, how: mni}", "reward.how: 'mni' is not a choice: did you mean 'min'?"),
        ("{reduce: math.answer}", "reward.how: None is not a choice"),
        ("{weigh: math.answer}", "reward.by: expected text, got None"),
        ("{weigh: math.answer, by: w, bye: x}", "reward: weigh has no option 'bye': did you mean 'by'?"),
        ("{route: task}", "reward: a route needs 'to', a mapping from values of 'task' to rewards"),
        ("{route: task, to: {}}", "reward: route needs at least one branch"),
        ("{route: task, to: {a: math.anser}}", "reward.to.a: there is no part 'math.anser'"),
        ("{route: task, to: {1: math.answer, '1': math.answer}}", "reward: route has two branches of one name"),
        ("{route: task, to: {a: math.answer}, otherwse: math.answer}", "route has no option 'otherwse'"),
        ("{weigt: 1}", "reward: a mapping has one of part, of, gate,"),
        ("{}", "this one has nothing"),
        ("[{part: text.length, unit: words}, {part: text.length, unit: characters}]",
         "reward: two different parts are called 'text.length'"),
    ],
)  # fmt: skip
def test_what_is_no_reward_is_an_error_that_says_where(written, message):
    with pytest.raises(SpecError) as caught:
        load(written)
    assert message in str(caught.value)


def test_a_missing_option_is_named():
    with pytest.raises(SpecError, match=r"reward: .*needy needs the option 'key'"):
        spec.load({"part": f"{HERE}.needy"}, allow_import=True)
    with pytest.raises(SpecError, match=r"reward: .*path"):
        spec.load({"part": f"{HERE}.Model"}, allow_import=True)


def test_chain_puts_shapers_behind_a_reward():
    assert spec.chain(ANSWER, ["shaping.center", {"part": "shaping.clip", "low": 0}]) == ANSWER >> center() >> clip(
        low=0
    )
    with pytest.raises(SpecError, match=r"where\[0\]: there is no part 'shaping.no'"):
        spec.chain(ANSWER, ["shaping.no"], where="where")
