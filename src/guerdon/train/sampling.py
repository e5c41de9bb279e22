"""Which rollouts a batch is made of: where they begin, who writes them, and which are learned from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from guerdon.data import Filter, load_filter
from guerdon.rewards.probe import Cut


@dataclass(frozen=True)
class Begin:
    """Rollouts of a group that go on from one place: the end of a step, drawn by chance, of a rollout written before.

    What they begin with is part of their completions and is not learned from: the policy did not choose it there.

    Args:
        cut: where the steps end, as `probe.Cut` has it; turns of a chat are none of these.
        stops: so many of the group, the last, do not go on: `stop` is put behind the beginning, and the policy answers.
            Credit that compares within the group (`group_relative`) compares with these.
        stop: ends the reasoning.
        prior: for a cut at budgets, how likely each of them is the one, as weights; what is shorter is taken whole.
            None: the begin, and the end of every step but the last, by equal chance.
        share: of the prompts; the groups of the others are written from the prompt.

    Raises:
        ValueError: for a cut that cannot be, or a number out of range.
    """

    cut: Any = "markers"
    stops: int = 0
    stop: str = "</think>"
    prior: tuple[float, ...] | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        cut = Cut.of(self.cut)
        if cut.at == "turns" or self.stops < 0:
            raise ValueError(f"texts are cut, not at turns; stops is at least 0, got {self.cut} and {self.stops}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is of the prompts, above 0 and at most 1, got {self.share}")
        if self.prior is not None and (
            cut.at != "budgets" or len(self.prior) != len(cut.budgets) or min(self.prior) < 0 or not sum(self.prior) > 0
        ):
            raise ValueError(f"prior is one weight for each budget of the cut, at least 0, not all 0, got {self.prior}")

    def asks(self, number: int) -> bool:
        """Whether a prompt is one of those that begin, by its number in the run: they are spread evenly."""
        return math.floor((number + 1) * self.share) > math.floor(number * self.share)


@dataclass(frozen=True)
class Steps:
    """Rollouts that are written step by step: a group of candidates for each next step, one of which is taken.

    The candidates for a step go on from one place. They are scored, compared and learned from as a group, all of them;
    what they go on from, the steps taken before, is part of their completions and is not learned from there.

    Args:
        end: texts that end a step, and belong to it.
        most: steps of a prompt; the last of so many goes on to the end of the completion.
        temperature: the step that is taken is drawn from softmax(advantage / temperature); 0: the best is.

    Raises:
        ValueError: if there is nothing to end a step with, or a number is out of range.
    """

    end: tuple[str, ...] = ("\n\n",)
    most: int = 4
    temperature: float = 0.7

    def __post_init__(self) -> None:
        if not self.end or "" in self.end:
            raise ValueError(f"end is the texts that end a step, none of them empty, got {self.end}")
        if self.most < 1 or not self.temperature >= 0:
            raise ValueError(f"most is at least 1, temperature at least 0, got {self.most} and {self.temperature}")


@dataclass(frozen=True)
class Guided:
    """Rollouts of a group that are written with guidance in the prompt: a plan, where to look, what went wrong before.

    They are scored and compared with the others of their group. What is learned is to write them without guidance,
    unless it is kept.

    Args:
        column: of the prompts, with guidance as a text. Prompts without (None, or empty) are answered as they are.
        rollouts: so many of those that the policy writes for a prompt, the last.
        template: of the prompt with guidance, `{prompt}` and `{guidance}` in their places; other fields are columns. Of
            chat messages, the user's last is the prompt.
        keep: learn them with the guidance in the prompt. Otherwise every probability that is learned from is that of
            the rollout behind the plain prompt, and the tokens are another's than the policy's: it would not often
            have written them there.

    Raises:
        ValueError: if rollouts is below 1, or the template leaves out the prompt or the guidance.
    """

    column: str
    rollouts: int = 4
    template: str = "{prompt}\n\n{guidance}"
    keep: bool = False

    def __post_init__(self) -> None:
        if self.rollouts < 1:
            raise ValueError(f"rollouts must be at least 1, got {self.rollouts}")
        if not all(field in self.template for field in ("{prompt}", "{guidance}")):
            raise ValueError(f"template has a {{prompt}} and a {{guidance}}, got {self.template!r}")


@dataclass(frozen=True)
class Sampling:
    """Which rollouts a batch is made of.

    Args:
        group: rollouts per prompt; TRL's default is 8.
        dynamic: leave out prompts that teach nothing, and draw others in their place.
        rounds: with `dynamic`, the batch is taken as it is after this many rounds of drawing.
        pace: with `dynamic`, a round draws as many prompts as it will take to fill the batch, by what was kept before,
            and at most this many: see `data.Pace`. None: each draws a batch.
        filter: which prompts are kept, or which of their rollouts, as `guerdon.data.load_filter` reads it. With
            `dynamic`, others are drawn in the place of prompts; without, what is left out is not learned from. None:
            all, with `dynamic` those of which a rollout has an advantage; a credit that centres over the whole batch
            gives every prompt one, and needs a filter.
        begin: rollouts of a group go on from one place; None: from the prompt.
        external: a column of the prompts with a completion that another has written, or a list of them: the last of
            each group's rollouts are those, scored like the others; the policy writes the rest. Of more than a group
            has rollouts, each step draws as many.
        steps: groups of candidates for each next step; None: groups of whole rollouts.
        guided: some of the rollouts are written with guidance in the prompt; None: none.

    Raises:
        ValueError: if a number is below 1, or some settings exclude each other.
    """

    group: int = 8
    dynamic: bool = False
    rounds: int = 10
    pace: int | None = None
    filter: Any = None
    begin: Begin | None = None
    external: str | None = None
    steps: Steps | None = None
    guided: Guided | None = None

    def __post_init__(self) -> None:
        if self.group < 1 or self.rounds < 1:
            raise ValueError(f"group and rounds must be at least 1, got {self.group} and {self.rounds}")
        if self.pace is not None and (not self.dynamic or self.pace < 1):
            raise ValueError("pace is the most prompts of a round of dynamic sampling, at least 1: set dynamic: true")
        if self.begin is not None and (self.begin.stops > self.group or self.external is not None):
            raise ValueError("begin: the policy writes the whole group: no external, and stops is at most group")
        if self.steps is not None and (self.dynamic or self.begin or self.external is not None or self.guided):
            raise ValueError(
                "steps: every group goes on from the steps taken before: no begin, external, guided or dynamic"
            )
        if self.guided is not None and (self.begin is not None or self.guided.rollouts > self.group):
            raise ValueError(
                f"guided: at most the {self.group} rollouts of a group, which begin at the prompt: leave out begin"
            )

    @property
    def mixed(self) -> bool:
        """Whether some tokens are not what the policy wrote at the prompt that they are learned from."""
        return self.external is not None or (self.guided is not None and not self.guided.keep)

    def load_filter(self, *, allow_import: bool = False) -> Filter | None:
        """The filter, if there is one.

        Raises:
            SpecError: for an unknown part or option, or a wrong type.
        """
        if self.filter is None:
            return None
        return load_filter(self.filter, where="method.sampling.filter", allow_import=allow_import)
