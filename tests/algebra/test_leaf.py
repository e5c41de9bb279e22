from __future__ import annotations

import math
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import cloudpickle
import numpy as np
import pytest
import torch

from guerdon import Abstain, Context, Learned, Rollouts, Scores, reward
from guerdon.algebra import FunctionLeaf
from guerdon.core import GuerdonError
from guerdon.rewards import math as maths, tools
from guerdon.shaping import bound, center

if TYPE_CHECKING:
    from nowhere import Completion


@reward(range=(0, 1))
def exact(completion: Completion, answer: str, *, case: bool = True, strip: Literal["both", "none"] = "both") -> float:
    """1 if the completion is the answer."""
    text = completion.strip() if strip == "both" else completion
    return float(text == answer if case else text.lower() == answer.lower())


@reward(range=(0, 1))
def any_of(completion, *words: str, least: int = 1):
    return float(sum(word in completion for word in words) >= least)


@reward(range=lambda *, top: (0, top), floor=None)
def capped(completion, *, top: float):
    return top


@reward(range=(-1, 1), lane="batch", floor=-0.5, requires=frozenset({"model:policy"}), deadline=3.0)
def vector(rollouts, answer, *, kind="list"):
    values = [float("nan") if a is None else float(a) for a in answer]
    return {"list": list, "array": np.array, "tensor": torch.tensor, "scores": Scores.of}[kind](values)


@reward(range=(0, 1), unit="group")
async def rank(completion, context):
    raise Abstain("no judge")


# What a signature means


def test_a_leaf_is_a_function_and_its_options():
    leaf = exact(case=False)
    assert leaf.reads == ("completion", "answer")
    assert leaf.requires == {"completion", "answer"}
    assert leaf.options == {"case": False, "strip": "both"}
    assert leaf.evaluate(" A ", "a") == 1.0
    assert exact(strip="none").evaluate(" A ", "A") == 0.0
    assert (leaf.lane, leaf.unit, leaf.scope, leaf.level) == ("process", "row", "row", "rollout")
    assert (leaf.range, leaf.floor, leaf.deadline, leaf.differentiable) == ((0.0, 1.0), 0.0, None, False)
    assert exact.__doc__ == "1 if the completion is the answer."


def test_settings_reach_the_leaf():
    assert (vector().lane, vector().floor, vector().deadline) == ("batch", -0.5, 3.0)
    assert vector().requires == {"answer", "model:policy"}, "the batch itself is not a column"
    assert (rank().lane, rank().unit, rank().scope) == ("async", "group", "group")
    assert rank().requires == {"completion"}, "nor is the context"
    assert reward(range=(0, 1), unit="task")(lambda completion: 1)().scope == "batch"
    assert capped(top=3).range == (0.0, 3.0)


def test_positional_options():
    assert any_of("a", "b", least=2).evaluate("ab") == 1.0
    assert any_of("a", "b", least=2).evaluate("a") == 0.0
    assert any_of("a", "b") == any_of(words=("a", "b"))
    assert repr(any_of("a", least=2)).endswith("any_of('a', least=2)")
    with pytest.raises(TypeError, match="got 'words' twice"):
        any_of("a", words=("b",))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: exact(True), "takes its options by name: case, strip"),
        (lambda: exact(cases=True), "has no option 'cases': did you mean 'case'?"),
        (lambda: capped(), "needs the option 'top'"),
        (lambda: reward(range=(0, 1))(lambda completion, **options: 1), "options are named"),
        (lambda: reward(range=(0, 1))(lambda completion, *, weight=1: 1), "'weight' cannot be an option"),
        (lambda: reward(range=(0, 1), lane="process")(rank.function), "the async lane is for coroutine functions"),
        (lambda: reward(range=(0, 1), lane="async")(lambda completion: 1), "the async lane is for coroutine functions"),
        (lambda: reward(range=(0, 1), lane="thread"), "lane is 'process', 'batch' or 'async'"),
        (lambda: reward(range=(0, 1), level="step")(lambda completion: 1), "come from the batch lane"),
        (lambda: reward(range=(0, 1), differentiable=True)(lambda completion: 1), "come from the batch lane"),
        (lambda: reward(range=(0, 1))(lambda rollouts: 1), "only the batch lane is given the rollouts"),
        (
            lambda: reward(range=(0, 1), rate=5)(lambda completion: 1),
            "rate, retries and retry_on are for the async lane",
        ),
        (lambda: reward(range=(0, 1), retries=1)(lambda completion: 1), "are for the async lane"),
        (lambda: reward(range=(0, 1), retry_on=())(lambda completion: 1), "are for the async lane"),
        (
            lambda: reward(range=(0, 1), retry_on=KeyError)(rank.function),
            "retry_on is a tuple of exceptions, got <class",
        ),
        (lambda: reward(range=(0, 1), retry_on=(429,))(rank.function), "retry_on is a tuple of exceptions, got (429,)"),
        (lambda: reward(range=(0, 1), rate=0.0)(rank.function), "a rate is positive"),
        (lambda: reward(range=(0, 1), retries=-1)(rank.function), "retries are 0 or more"),
        (lambda: reward(range=(1, 0))(lambda completion: 1)(), "a range goes from low to high"),
        (lambda: reward(range=(0, math.nan))(lambda completion: 1)(), "a range goes from low to high"),
        (lambda: reward(range=(0, 1), floor=-1)(lambda completion: 1)(), "with the floor in it"),
    ],
)
def test_a_signature_that_cannot_be_a_reward_is_refused(build, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        build()
    assert message in str(caught.value)


def test_options_know_their_types_though_columns_are_annotated_for_type_checkers_only():
    assert exact.annotations == {"case": bool, "strip": Literal["both", "none"]}
    assert any_of.annotations == {"words": tuple[str, ...], "least": int}


# Equality and pickling


def test_leaves_are_equal_if_their_function_and_options_are():
    assert exact() == exact(case=True)
    assert hash(exact()) == hash(exact(strip="both"))
    assert exact() != exact(case=False)
    assert exact() != any_of("a")
    box = reward(range=(0, 1))(lambda completion, *, box=None: 1)
    assert box(box=[1, [2]]) == box(box=(1, (2,)))
    assert box(box={"a": 1, "b": 2}) == box(box={"b": 2, "a": 1})
    assert box(box=np.zeros(2)) == box(box=np.zeros(2))
    assert box(box=np.zeros(2)) != box(box=np.zeros(2, np.int64))
    assert len({box(box=[1]), box(box=[1]), box(box=[2])}) == 2


def test_leaves_pickle_by_import_path():
    leaf = maths.answer()
    assert pickle.loads(pickle.dumps(leaf)) == leaf
    assert b"is_correct" not in pickle.dumps(leaf)
    assert len(pickle.dumps(leaf)) < 400, "options and a name, not code"
    assert pickle.loads(pickle.dumps(maths.answer)) is maths.answer
    whole = 0.5 * leaf + (leaf >> bound("tanh"))
    assert pickle.loads(pickle.dumps(whole)) == whole


def test_a_function_that_cannot_be_imported_pickles_by_value():
    factor = 3

    @reward(range=(0, 9), floor=1, deadline=2.0, requires=frozenset({"answer"}))
    def local(completion, *, plus=0):
        return factor * len(completion) + plus

    there = cloudpickle.loads(cloudpickle.dumps(local(plus=1)))
    assert isinstance(there, FunctionLeaf)
    assert there.evaluate("ab") == 7
    assert (there.range, there.floor, there.deadline) == ((0.0, 9.0), 1.0, 2.0)
    assert there.requires == {"completion", "answer"}
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(local())


def test_an_awaited_leaf_keeps_its_rate_and_retries_when_it_travels_by_value():
    @reward(range=(0, 1), rate=2.5, retries=3, retry_on=(KeyError, TimeoutError))
    async def judge(completion):
        return 1.0

    there = cloudpickle.loads(cloudpickle.dumps(judge()))
    for leaf in (judge(), there):
        assert (leaf.rate, leaf.retries, leaf.retry_on) == (2.5, 3, (KeyError, TimeoutError))
    assert (rank().rate, rank().retries, rank().retry_on) == (None, 0, None)


def test_a_reward_of_a_script_pickles_by_value():
    """As the engine sends it to a worker that cannot import the script."""
    program = (
        "import cloudpickle, sys\n"
        "from guerdon import reward\n"
        "OFFSET = 2\n"
        "@reward(range=(0, 9))\n"
        "def plus(completion, *, by=1):\n"
        "    return len(completion) + by + OFFSET\n"
        "assert plus.name == 'plus'\n"
        "sys.stdout.write(cloudpickle.dumps(plus(by=3)).hex())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    leaf = pickle.loads(bytes.fromhex(done.stdout))
    assert leaf.evaluate("ab") == 7
    assert leaf.name == "plus"


# Measuring


def batch(**columns: Any) -> Rollouts:
    n = len(next(iter(columns.values())))
    return Rollouts(["?"] * n, ["!"] * n, columns)


@pytest.mark.parametrize("kind", ["list", "array", "tensor", "scores"])
def test_what_a_batch_function_returns_becomes_scores(kind):
    """One number that is none costs its own row only."""
    scores = vector(kind=kind).measure(batch(answer=["0.5", None, "-1"]), Context())
    assert scores.to_columns()["score"] == [0.5, None, -1.0]
    assert scores.reasons == {1: "the score was nan, not a finite number"}
    assert isinstance(scores.read(0.0), torch.Tensor) == (kind == "tensor")


@pytest.mark.parametrize("level", ["rollout", "step"])
def test_tensors_of_a_batch_function_keep_their_gradients(level):
    weight = torch.tensor(2.0, requires_grad=True)
    model = reward(range=(-9, 9), lane="batch", level=level, differentiable=True)(lambda x: weight + torch.tensor(x))
    x = [1.0, float("inf")] if level == "rollout" else [[1.0, float("nan")], [0.0, 0.0]]
    scores = model().measure(batch(x=x), Context())
    scores.read(0.0).sum().backward()
    assert scores.level == level
    assert weight.grad == scores.valid.sum() == (1.0 if level == "rollout" else 3.0)


@pytest.mark.parametrize("result", [{0: 0.5}, 0.5, "5", None, iter([0.5])], ids=lambda result: type(result).__name__)
def test_what_is_no_list_of_numbers_is_an_error_that_says_so(result):
    leaf = reward(range=(0, 9), lane="batch")(lambda completion: result)()
    with pytest.raises(TypeError, match=f"returned {type(result).__name__}, expected Scores"):
        leaf.measure(batch(x=[1]), Context())


def test_a_batch_function_reads_the_context():
    step = reward(range=(0, 9), lane="batch")(lambda completion, context: [context.step] * len(completion))
    assert step().measure(batch(x=[1]), Context(step=4)).read(0.0).tolist() == [4.0]


def test_what_a_leaf_has_not_written_says_so():
    class Empty(Learned):
        lane = "process"

    with pytest.raises(NotImplementedError, match="process lane and has no measure"):
        Empty().measure(batch(x=[1]), Context())


# Completions as models write them


WEIRD = ["", "x" * 100_000, "\ud800 42", [], [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
         [{"role": "tool", "content": "7"}, {"role": "assistant", "content": [{"type": "text", "text": "So 42"}]}],
         [{"role": "assistant"}]]  # fmt: skip


def test_no_completion_stops_a_batch():
    """Each is a score in the range, or an abstention with a reason; the right one is right."""
    n = len(WEIRD)
    answers = maths.answer()([[{"role": "user", "content": "6 · 7 = "}]] * n, WEIRD, answer=["42"] * n)
    assert answers == [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]


def test_a_group_of_one_and_a_function_that_abstains():
    assert rank()(["?"], ["!"]) == [None]
    assert (maths.answer() >> center("group"))(["?"], ["\\boxed{4}"], answer=["4"]) == [0.0]
    with pytest.raises(GuerdonError, match="column 'answer' is missing"):
        maths.answer()(["?"], ["a"])


# Learned rewards


@dataclass(eq=False)
class Scorer(Learned):
    """The simplest reward model: a bias."""

    weights: list[float] = field(default_factory=lambda: [0.0])
    name = "scorer"
    range = (-math.inf, math.inf)

    @property
    def version(self) -> str:
        return str(self.weights)

    def measure(self, rollouts, context):
        return Scores(np.full(len(rollouts), self.weights[0]))

    def update(self, rollouts, scores, context):
        self.weights[0] += 1.0
        return {"bias": self.weights[0]}

    def state_dict(self):
        return {"weights": list(self.weights)}

    def load_state_dict(self, state):
        self.weights[:] = state["weights"]


def test_the_state_of_a_reward_is_that_of_its_learned_leaves():
    model = Scorer()
    whole = 0.5 * exact() + (model >> bound("tanh")) * model
    before = model.version
    model.update(batch(x=[1]), Scores.of([1.0]), Context())
    assert model.version != before
    (state,) = whole.state_dict().values()
    assert state == {"weights": [1.0]}
    model.weights[:] = [7.0]
    whole.load_state_dict(dict.fromkeys(whole.state_dict(), state))
    assert model.weights == [1.0]
    assert model.state_dict() == {"weights": [1.0]}


def test_a_leaf_without_state_says_so():
    assert exact().state_dict() == {}
    assert (exact() + 1).state_dict() == {}
    exact().load_state_dict({})
    with pytest.raises(ValueError, match="has no state"):
        exact().load_state_dict({"weights": 1})
    with pytest.raises(NotImplementedError):
        Learned().state_dict()


def test_an_option_that_is_none_of_its_choices_is_refused_at_once():
    with pytest.raises(ValueError, match=r"tools\.calls: credit is one of 'all', 'share', got 'Share'"):
        tools.calls(credit="Share")
    assert tools.calls(credit="share").options["credit"] == "share"
