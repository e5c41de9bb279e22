"""What rewards that learn from outcomes have in common."""

import pytest

from guerdon.core import Context, Rollouts
from guerdon.core.errors import MissingInput
from guerdon.models import decomposed_return, flow_reward, implicit_reward


def factors(steps):
    return [[1.0] for _ in steps]


MADE = {
    "decomposed_return": lambda **options: decomposed_return(factors, **options),
    "implicit_reward": implicit_reward,
    "flow_reward": flow_reward,
}


@pytest.mark.parametrize("name", MADE)
def test_it_needs_what_its_outcome_needs_and_is_named_as_it_is_imported(name):
    part = MADE[name](outcome="math.answer")
    assert part.name == f"models.{name}"
    assert {"prompt", "completion", "answer"} <= part.requires
    assert part.version == "0"


@pytest.mark.parametrize("name", MADE)
def test_an_outcome_of_steps_is_none(name):
    with pytest.raises(ValueError, match=r"one score per rollout: math\.steps.* gives one per step"):
        MADE[name](outcome="math.steps")


@pytest.mark.parametrize("name", ["implicit_reward", "flow_reward"])
def test_tokens_that_are_not_there_are_asked_for_by_name(name):
    batch = Rollouts(["?"], ["!"], {"answer": ["!"]})
    with pytest.raises(MissingInput, match=f"models.{name} reads 'tokens', which this batch does not have"):
        MADE[name]().measure(batch, Context())
