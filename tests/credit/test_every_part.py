"""What holds for every part of the room: numbers under a mask are not read, nothing finite becomes NaN, and neither
padding nor the order of rows changes a result."""

import inspect

import pytest
import torch
from hypothesis import given, settings, strategies as st

import guerdon.credit as credit
from guerdon.core.spans import Spans


def tree(b, rewards="outcome"):
    return credit.prefix_tree(b["ids"], b["mask"], b[rewards], b["groups"], valid=b["rows"])


def nodes(b):
    return tree(b).nodes


def splice(b):
    spans = Spans(
        torch.arange(b["mask"].shape[1]) + 0 * b["ids"], 1 + torch.arange(b["mask"].shape[1]) + 0 * b["ids"], b["mask"]
    )
    first = credit.locate(b["values"], b["mask"], below=-1.0)
    found = credit.splice(b["ids"], b["mask"], spans, first, b["ids"][:, :1], b["mask"][:, :1])
    return torch.where(found.mask, found.ids + 100 * found.origin, 0)


def potentials(b):
    return torch.cat([torch.zeros_like(b["values"][:, :1]), b["values"]], 1)


# Each takes a batch and gives what has one entry per step, or one per row.
PARTS = {
    "group_relative": lambda b: credit.group_relative(b["values"], b["groups"], mask=b["mask"], pool="all"),
    "group_relative[held]": lambda b: credit.group_relative(
        b["values"], b["groups"], mask=b["mask"], pool="position", ended="held"
    ),
    "length_relative": lambda b: credit.length_relative(b["values"], b["ids"], b["groups"], mask=b["mask"]),
    "returns": lambda b: credit.returns(b["values"], b["mask"], gamma=0.9),
    "returns[gae]": lambda b: credit.returns(
        b["values"], b["mask"], kind="gae", lam=0.9, values=b["others"], bootstrap=b["known"]
    ),
    "returns[min]": lambda b: credit.returns(b["values"], b["mask"], kind="min"),
    "returns[softmin]": lambda b: credit.returns(b["values"], b["mask"], kind="softmin"),
    "returns[reset]": lambda b: credit.returns(b["values"], b["mask"], gaps="reset", ends=b["flags"], gamma=0.5),
    "min_form": lambda b: credit.min_form(b["values"], b["mask"], temperature=0.01),
    "whiten": lambda b: credit.whiten(b["values"], b["mask"]),
    "unit_returns": lambda b: credit.unit_returns(b["values"], b["mask"]),
    "rescale": lambda b: credit.rescale(b["values"], b["mask"], bilateral=True, power=0.5, threshold=0.1, top=2),
    "progress": lambda b: credit.progress(potentials(b), b["mask"], lookahead=2, limit=1.0),
    "delta_rewards": lambda b: credit.delta_rewards(b["values"], b["mask"]),
    "potential_advantages": lambda b: credit.potential_advantages(b["known"], b["values"], b["mask"]),
    "prover_quality": lambda b: sum(credit.prover_quality(b["values"], b["others"], b["mask"])),
    "locate": lambda b: credit.locate(b["values"], b["mask"], below=0.0),
    "redistribute": lambda b: credit.redistribute(b["known"], b["values"], b["mask"], temperature=0.01, gamma=0.9),
    "renormalize": lambda b: credit.renormalize(b["values"], b["known"], b["mask"]),
    "grounded_rewards": lambda b: credit.grounded_rewards(b["values"], b["flags"], b["mask"], remaining=True),
    "subgoal_bonus": lambda b: credit.subgoal_bonus(b["flags"][:, :, None], b["mask"]),
    "subgoal_potential": lambda b: credit.subgoal_potential(b["flags"][:, :, None], b["mask"])[:, 1:] * b["mask"],
    "prefix_tree": lambda b: tree(b).value,
    "branch_relative": lambda b: credit.branch_relative(b["outcome"], tree(b), b["groups"], valid=b["rows"]),
    "tree_rewards": lambda b: credit.tree_rewards(b["outcome"], nodes(b), formats=b["values"], valid=b["rows"]),
    "tree_rewards[max]": lambda b: credit.tree_rewards(b["outcome"], nodes(b), aggregate="max", valid=b["rows"]),
    "fork_relative": lambda b: credit.fork_relative(
        credit.tree_rewards(b["outcome"], nodes(b), valid=b["rows"]), nodes(b), b["groups"], eps=0.0
    ),
    "choose_fork": lambda b: credit.choose_fork(b["values"], torch.full((len(b["mask"]),), 0.6), mask=b["mask"]),
    "budget_relative": lambda b: credit.budget_relative(
        torch.stack([b["outcome"]] * 3, 1), b["groups"], valid=b["rows"], prior=(0.5, 0.25, 0.25)
    ),
    "window_credit": lambda b: credit.window_credit(b["values"], b["mask"], width=2, stride=1)[0],
    "smooth": lambda b: credit.smooth(b["values"], b["mask"], width=3, stride=2),
    "prefix_error_rates": lambda b: (
        credit.prefix_error_rates(b["ids"], b["mask"], b["ids"].flip(0), b["mask"].flip(0))[:, 1:] * b["mask"]
    ),
    "turning_points": lambda b: credit.turning_points(potentials(b), final=b["known"], mask=b["mask"], balance=False),
    "turning_steps": lambda b: credit.turning_steps(potentials(b), final=b["known"], mask=b["mask"], balance=False),
    "granular_relative": lambda b: credit.granular_relative(
        torch.stack([b["values"], b["others"]]), b["groups"], mask=torch.stack([b["mask"]] * 2)
    ),
    "branch_extremes": lambda b: credit.branch_extremes(b["outcome"], torch.arange(len(b["rows"])), mask=b["rows"]),
    "splice": splice,
    "sum_loss": lambda b: credit.sum_loss(b["values"], b["known"], b["mask"]),
    "sampled_loss": lambda b: credit.sampled_loss(b["values"], b["known"], b["mask"].sum(1), b["mask"], unbiased=True),
    "reinforce_success": lambda b: credit.reinforce_success(
        torch.where(b["mask"], b["values"], 0.0), b["known"], b["mask"], at_least=0.0
    ),
    "spread": lambda b: credit.spread(b["known"], b["mask"], place="share"),
}
# A row alone, or no row at all, is what these take; and what has no mask has nothing to hide behind it.
WITHOUT_ROWS = {
    "PrefixTree",
    "Spliced",
    "best_of",
    "branches",
    "cut_at",
    "diversity",
    "fit_steps",
    "keep_forks",
    "latent_factors",
    "leaks",
    "rank",
    "regret",
    "repairable",
    "repetition_slope",
    "sample_steps",
    "shared_once",
    "step_potential",
    "stretches",
}
every_part = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())


@st.composite
def batches(draw):
    n, t = draw(st.integers(1, 5)), draw(st.integers(1, 5))

    def table(entries):
        return torch.tensor(draw(st.lists(st.lists(entries, min_size=t, max_size=t), min_size=n, max_size=n)))

    def column(entries):
        return torch.tensor(draw(st.lists(entries, min_size=n, max_size=n)))

    mask = torch.arange(t) < column(st.integers(0, t))[:, None]
    rows = column(st.booleans())
    numbers = st.sampled_from([-1e6, -2.0, -0.5, 0.0, 1e-3, 0.5, 1.0, 1e6])
    outcome = column(st.sampled_from([0.0, 0.25, 1.0]))
    return {
        "values": torch.where(mask, table(numbers), torch.nan),
        "others": torch.where(mask, table(numbers), torch.nan),
        "flags": table(st.booleans()),
        "ids": torch.where(mask, table(st.integers(0, 2)), -7),
        "mask": mask,
        "groups": column(st.integers(0, 1)),
        "rows": rows,
        "outcome": torch.where(rows, outcome, torch.nan),
        "known": outcome,
    }


def doubled(batch):
    """In float64, where the order of a sum is not seen."""
    return {name: x.double() if x.is_floating_point() else x for name, x in batch.items()}


def test_every_public_part_is_held_to_it():
    assert {name.partition("[")[0] for name in PARTS} | WITHOUT_ROWS == set(credit.__all__)
    assert all(inspect.getdoc(getattr(credit, name)) for name in credit.__all__)


@every_part
@settings(max_examples=15, deadline=None)
@given(batch=batches())
def test_finite_numbers_stay_finite_whatever_stands_under_the_mask(part, batch):
    assert part(batch).isfinite().all()


@every_part
@settings(max_examples=15, deadline=None)
@given(batch=batches(), more=st.integers(1, 3))
def test_padding_changes_nothing(part, batch, more):
    batch = doubled(batch)
    fill = {torch.float64: torch.nan, torch.bool: False, torch.int64: -7}
    wider = {
        name: torch.nn.functional.pad(x, (0, more), value=fill[x.dtype]) if x.ndim == 2 else x
        for name, x in batch.items()
    }
    plain, padded = part(batch), part(wider)
    if plain.ndim == 2 and padded.shape != plain.shape:
        assert (padded[:, plain.shape[1] :] == 0).all()
        padded = padded[:, : plain.shape[1]]
    torch.testing.assert_close(padded, plain)


@every_part
@settings(max_examples=10, deadline=None)
@given(batch=batches(), seed=st.integers(0, 99))
def test_the_order_of_rows_does_not_matter(request, part, batch, seed):
    if request.node.callspec.id == "prefix_error_rates":
        return  # its batch pairs each row with its mirror image
    batch = doubled(batch)
    order = torch.randperm(len(batch["mask"]), generator=torch.Generator().manual_seed(seed))
    plain, shuffled = part(batch), part({name: x[order] for name, x in batch.items()})
    torch.testing.assert_close(shuffled, plain[order] if plain.ndim and len(plain) == len(order) else plain)
