"""Judges and rewards for recipes of the tests, by rule: what a user names with --allow-import."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from guerdon import Leaf, Learned, Scores


@dataclass(frozen=True)
class scheduled(Leaf):
    """As many rollouts of a group are right as the prompt's column `results` has for the step; None: no score."""

    name = "scheduled"
    range = (0.0, 1.0)
    reads = ("results",)

    def measure(self, rollouts, context):
        place = np.arange(len(rollouts)) - np.searchsorted(rollouts.groups, rollouts.groups)
        entries = [row[context.step - 1] for row in rollouts.column("results")]
        values = [None if right is None else float(i < right) for i, right in zip(place, entries, strict=True)]
        return Scores.of(values, reasons={i: "not asked" for i, value in enumerate(values) if value is None})


@dataclass(frozen=True)
class patient(Learned):
    """All rollouts of a prompt are right from its attempt number `needs` on, counted over the steps of a run."""

    seen: Counter = field(default_factory=Counter, compare=False)
    name = "patient"
    range = (0.0, 1.0)
    reads = ("needs",)

    @property
    def version(self):
        return str(self.seen.total())

    def measure(self, rollouts, context):
        pairs = zip(rollouts.prompts, rollouts.column("needs"), strict=True)
        return Scores.of([float(self.seen[prompt] + 1 >= needs) for prompt, needs in pairs])

    def update(self, rollouts, scores, context):
        self.seen.update(rollouts.prompts[::2])
        return {}

    def state_dict(self):
        return dict(self.seen)

    def load_state_dict(self, state):
        self.seen.update(state)


def longer(questions):
    """Of two completions, the longer wins."""
    return [(len(q["first"]), len(q["second"])) for q in questions]


def full_marks(questions):
    """Two points of two."""
    return ["<final_score>2,2</final_score>"] * len(questions)


def states(questions):
    """Whether a piece states the answer: where it has a digit."""
    return [float(any(c.isdigit() for c in str(q))) for q in questions]


def brief(questions):
    """A rating of 0.5 for everything."""
    return [0.5] * len(questions)


def achieved(questions):
    """A subgoal is achieved by a step in which it is written."""
    return [[goal in q["step"] for goal in q["subgoals"]] for q in questions]


def digits(steps):
    """Of each step, whether it has a 3, how many digits are even, and how long it is."""
    return [[float("3" in s["step"]), float(sum(c in "02468" for c in s["step"])), len(s["step"]) / 4] for s in steps]
