"""Captions: precision, recall and language, each with its say (BalCapRL)."""

import asyncio
import math

import numpy as np
import pytest
import torch

from guerdon import Rollouts
from guerdon.algebra import harmonic, product
from guerdon.core.errors import Abstain
from guerdon.credit import group_relative
from guerdon.rewards import caption, recorded, text
from guerdon.shaping import normalize

SCENE = {"boat": True, "pier": True, "gull": True, "moon": False}


def assertions(said, prompt):
    """A programmatic judge: each word of the scene is an assertion; a mood is true and nothing shows it."""
    found = [{"true": SCENE[word], "visible": True} for word in said.split() if word in SCENE]
    return found + [{"true": True, "visible": False} for word in said.split() if word == "calm"]


def covers(said, units):
    return [unit in said.split() for unit in units]


def test_balcaprl_precision_and_recall_are_shares():
    precise = caption.precision(judge=assertions)
    said = ["boat pier", "boat moon", "boat calm calm calm", "nice", ""]
    assert precise(["?"] * 5, said) == [1.0, 0.5, 0.25, 0.0, 0.0]
    full = caption.recall(judge=covers)
    assert full(["?"] * 2, ["boat gull", ""], units=[["boat", "pier", "gull", "house"]] * 2) == [0.5, 0.0]
    scores = full.score(Rollouts(["?"], ["boat"], {"units": [["boat", "pier"]]}))
    assert scores.details["missing"] == [["pier"]]


def test_captions_abstain_where_judge_or_reference_fail():
    for verdicts in ("true", {"a": True}, [1], [None], [{}], 3):
        with pytest.raises(Abstain, match="verdict"):
            asyncio.run(caption.precision(judge=lambda *_, v=verdicts: v).evaluate("?", "boat"))
    with pytest.raises(Abstain, match="1 of 2"):
        asyncio.run(caption.recall(judge=lambda *_: [True]).evaluate("boat", ["boat", "pier"]))
    for units in (None, [], "boat"):
        with pytest.raises(Abstain, match="units missing"):
            asyncio.run(caption.recall(judge=covers).evaluate("boat", units))


def test_balcaprl_advantages_worked_numbers():
    """z per reward, the sum of them, and again over the batch; by the sum alone two profiles collapse."""
    z, batch = normalize(over="group", ddof=1), normalize(over="batch", ddof=1)

    def reward(scale):
        first, second = (recorded.value(column=c).named(c) for c in "ab")
        return (first >> z) + (scale * second >> z)

    def score(part, **columns):
        return part.score(Rollouts(["q"] * len(columns["a"]), [""] * len(columns["a"]), columns)).read(math.nan)

    rows = {"a": [1, 0, 1, 0], "b": [0, 1, 1, 0]}
    assert score(reward(0.1), **rows) == pytest.approx([0.0, 0.0, 1.732, -1.732], abs=1e-3)
    assert score(reward(0.1), **rows) == pytest.approx(score(reward(1.0), **rows))
    collapsed = group_relative(torch.tensor([1.0, 0.1, 1.1, 0.0]), torch.zeros(4, dtype=torch.long), eps=1e-8)
    assert collapsed.tolist() == pytest.approx([0.775, -0.775, 0.948, -0.948], abs=1e-3)
    twice = score(reward(1.0) >> batch, **rows)
    assert twice == pytest.approx(np.array([0, 0, 1, -1]) * math.sqrt(3 / 2))


def test_balcaprl_metric_is_the_harmonic_mean():
    parts = [recorded.value(column=c).named(c) for c in "prl"]
    metric = harmonic(*parts)
    assert metric(["?"] * 2, [""] * 2, p=[0.9, 0.9], r=[0.9, 0.9], l=[0.1, 0.0]) == pytest.approx(
        [0.2455, 0.0], abs=1e-4
    )


def balanced(judge=lambda question: "8"):
    z = normalize(over="group", ddof=1)
    style = [
        text.verdict(judge=judge, reads="ten", within="reply", exact="ask").named(name)
        for name in ("clarity", "fluency", "coherence")
    ]
    language = product(sum(style[1:], style[0]) * (1 / 3), text.proportion())
    return (
        (caption.precision(judge=assertions) >> z) + (caption.recall(judge=covers) >> z) + (language >> z)
    ) >> normalize(over="batch", ddof=1)


def test_balcaprl_joined_the_balanced_caption_wins_and_no_hack_pays():
    """One safe word (precision), every word there is (recall), vague praise (language): all below the balanced one."""
    units, reference = ["boat", "pier", "gull"], "a boat at the pier and a gull above the water"
    said = [
        "a boat near a pier with a gull over it",
        "boat",
        "boat pier gull moon moon moon moon moon moon moon",
        "calm calm a very nice calm picture of calm",
    ]
    batch = Rollouts(["q"] * 4, said, {"units": [units] * 4, "answer": [reference] * 4})
    scores = balanced().score(batch)
    paid = scores.read(math.nan)
    assert paid.argmax() == 0
    assert paid.mean() == pytest.approx(0.0)
    assert paid.std(ddof=1) == pytest.approx(1.0)
    assert scores.parts["text.proportion"].read(0.0).tolist() == [1.0, 0.0, 1.0, 1.0]
