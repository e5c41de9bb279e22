"""Every system of shaping, credit and objectives as a recipe names it: a preset, a reward, a setting of the loop.

`RECIPES` has, by the system's number in the catalogue, what is different from a recipe of GRPO; `PLANNERS` has those
that are recipes of their own.
"""

import json
import math
import tomllib
from importlib import resources

import pytest
import walking

from guerdon.algebra import spec
from guerdon.core.errors import SpecError
from guerdon.models import MultiScalePlanner, tournament
from guerdon.train import control, recipe as recipes
from guerdon.train.language import loop
from guerdon.train.run import Run

OUTCOME = {"part": "math.answer", "name": "outcome"}
THINKING = {"at": "separator", "separator": "1", "until": None}
FORCED = {
    "grade": {"part": "format.regex", "pattern": "#.*[0-4].*"},
    "samples": 2,
    "max_tokens": 2,
    "cut": THINKING,
    "stop": "#",
}
ACCURACY = {"part": "probe.accuracy", **FORCED}
BUDGETS = {"at": "budgets", "budgets": [2, 4, 6], "until": None}
LIKELY = {"part": "probe.likelihood", "cut": THINKING, "stop": "#"}
STEPS = {"part": "math.steps", "separator": ";"}
IMPLICIT = {"part": "models.implicit_reward", "outcome": "math.answer", "learning_rate": 1e-3}
NO_KL = {"coefficient": 0.0}
CONTRIEVER = {"encoder": "models/contriever", "similarity": "dot"}


ROW = {
    "answer": "3", "references": [1.0, 4.0], "kind": "open", "mended": "12;#3", "demonstration": "#3",
    "programs": ["#3", "#4"], "points": ["is a number"], "plan": "1+2",
}  # fmt: skip


def beside(part, name):
    """A reward of steps that only credit and filters read: at no weight in the whole."""
    return {"of": {"reduce": {**part, "name": name}, "how": "last"}, "weight": 0}


def grpo(**changes):
    return {"preset": "grpo", "kl": NO_KL, **changes}


RECIPES = {
    # Likelihood and the like: rewards that ask a model.
    2: {
        "reward": {"part": "likelihood.answer", "how": "sum"},
        "method": {"preset": "rloo", "kl": NO_KL, "objective": "objectives.answer_policy_gradient", "answer": {}},
    },
    15: {"reward": {"part": "likelihood.follow_up", "bank": {"correct": {"positive": ["1"], "negative": ["0"]}}}},
    54: {"reward": ["math.answer", {"part": "likelihood.self_aligned", "weight": 0.2}]},
    146: {"reward": "likelihood.endogenous"},
    176: {
        "reward": [
            {
                "part": "likelihood.answer",
                "how": "mean-exp",
                "debias": "prompt",
                "shape": ["shaping.threshold"],
                "weight": 0.9,
            },
            {"part": "format.repetition", "weight": 0.1},
        ],
        "method": grpo(sampling={"filter": "data.adaptive"}),
    },
    189: {"reward": {"part": "likelihood.density_ratio", "weak": "base"}, "models": {"base": "policy"}},
    221: {
        "reward": [
            {"part": "likelihood.reflection", "masked": "#", "name": "reflection"},
            {"part": "math.answer", "shape": [{"part": "shaping.target_length", "target": 8}], "weight": 0.1},
        ],
        "method": grpo(
            sampling={
                "dynamic": True,
                "rounds": 2,
                "filter": [
                    {"part": "data.within", "of": "worst_rank", "statistic": "min", "high": 100},
                    {"part": "data.upper", "of": "spread"},
                ],
            }
        ),
    },
    244: {"reward": ["math.answer", {"part": "likelihood.completion", "query": False, "weight": 0.01}]},
    246: {
        "reward": {
            "product": [
                {
                    "route": "kind",
                    "to": {
                        "open": {
                            "product": [
                                {"part": "relevance.query", **CONTRIEVER},
                                {"part": "text.length", "unit": "words", "weight": 0.01},
                            ]
                        },
                        "closed": {"part": "relevance.reference", **CONTRIEVER},
                    },
                    "shape": [{"part": "shaping.onto", "target": "open", "by": "kind"}],
                },
                {"sum": ["format.repetition"], "bias": 1.0},
            ]
        }
    },
    # Potentials that are probed, and steps.
    56: {
        "reward": [OUTCOME, beside({**LIKELY, "how": "mean-exp", "start": False}, "potentials")],
        "method": {"preset": "spae", "sampling": {"rounds": 2}},
    },
    67: {"reward": [OUTCOME, beside(LIKELY, "potentials")], "method": {"preset": "igpo"}},
    94: {
        "reward": [OUTCOME, beside({**ACCURACY, "start": True}, "potentials")],
        "method": {"preset": "vsrm"},
        "critic": {"hidden": [8], "warmup": 0},
    },
    115: {
        "reward": [OUTCOME, beside({**ACCURACY, "start": True, "model": "prover"}, "potentials")],
        "models": {"prover": "policy"},
        "method": grpo(
            credit={
                "sum": {
                    "outcome": "credit.group_relative",
                    "potentials": ["credit.best_of", "credit.progress", "credit.returns"],
                }
            }
        ),
    },
    215: {
        "reward": [OUTCOME, beside({**ACCURACY, "start": True}, "potentials")],
        "method": {"preset": "mrt", "sampling": {"begin": {"cut": THINKING, "stops": 2, "stop": "#"}}},
    },
    232: {
        "reward": {
            "route": "stopped",
            "to": {"True": {**OUTCOME, "name": "summary"}},
            "otherwise": {"reduce": {**ACCURACY, "cut": BUDGETS, "name": "thought"}, "how": "last"},
        },
        "method": grpo(
            credit={
                "sum": {
                    "thought": {"part": "credit.budget_relative", "prior": [0.2, 0.3, 0.5]},
                    "summary": {"part": "credit.group_relative", "scale": "none"},
                }
            },
            sampling={
                "group": 4,
                "begin": {"cut": BUDGETS, "prior": [0.2, 0.3, 0.5], "stops": 4, "stop": "#", "share": 0.5},
            },
        ),
    },
    # Rewards of tokens from models that learn beside the policy.
    34: {
        "reward": [
            OUTCOME,
            {
                "of": {
                    "reduce": {
                        "of": {"part": "models.flow_reward", "blocks": 1, "hidden": 8, "weight": -0.01},
                        "name": "flow",
                    },
                    "how": "sum",
                },
                "weight": 0,
            },
        ],
        "method": {"preset": "rlfr"},
    },
    51: {
        "reward": [OUTCOME, beside(IMPLICIT, "process")],
        "models": {"prm": "policy"},
        "method": {"preset": "prime", "sampling": {"rounds": 2}},
    },
    57: {
        "reward": {"reduce": {**IMPLICIT, "granularity": "step", "separator": "1"}, "how": "min"},
        "models": {"prm": "policy"},
    },
    62: {
        "reward": [
            OUTCOME,
            beside({**IMPLICIT, "loss": "dpo", "granularity": "step", "separator": "1", "mean": True}, "process"),
        ],
        "models": {"prm": "policy"},
        "method": {"preset": "istar"},
    },
    # Shaping, of lengths above all.
    8: {
        "reward": [
            "math.answer",
            {"part": "math.answer", "shape": [{"part": "shaping.group_length", "statistic": "mean", "tolerance": 0.2}]},
        ],
        "method": "dr_grpo",
    },
    10: {
        "reward": [
            OUTCOME,
            beside({"part": "models.answered", "judge": "judging.states", "cut": THINKING}, "answered"),
            beside(
                {
                    "gate": "math.answer",
                    "then": {
                        "part": "models.answered",
                        "judge": "judging.states",
                        "cut": THINKING,
                        "shape": ["shaping.needed"],
                    },
                },
                "paid",
            ),
        ],
        "method": grpo(
            credit={
                "sum": {
                    "paid": ["credit.spread", {"part": "credit.group_relative", "pool": "position", "ended": "held"}]
                }
            },
            sampling={"filter": {"part": "data.mixed", "judged": "answered", "of": "outcome"}},
        ),
    },
    13: {
        "reward": {
            **STEPS,
            "shape": [{"part": "shaping.center", "at": 0.6}, {"part": "shaping.clip", "high": 0.0}, "shaping.delta"],
        },
        "method": grpo(credit="credit.returns"),
    },
    18: {"reward": "math.answer", "method": {"preset": "drpo"}},
    23: {
        "reward": {
            "product": [
                "math.answer",
                {
                    "sum": [
                        {
                            "part": "models.concise",
                            "scorer": "judging.brief",
                            "shape": ["shaping.anneal"],
                            "weight": 0.2,
                        }
                    ],
                    "bias": 1.0,
                },
            ]
        }
    },
    29: {
        "reward": {
            "gate": {"part": "math.answer", "shape": [{"part": "shaping.top_groups", "share": 0.2}]},
            "then": {"part": "math.answer", "shape": ["shaping.group_length"]},
            "otherwise": {"part": "math.answer"},
        }
    },
    30: {
        "reward": {
            "part": "text.length",
            "shape": [{"part": "shaping.relative", "to": "references", "kind": "log-sigmoid", "quantile": 0.85}],
        }
    },
    40: {
        "reward": {
            "gate": "math.answer",
            "then": {"reduce": {"product": ["turns.acts", "turns.succeeds"]}, "how": "sum"},
        }
    },
    84: {
        "reward": [
            OUTCOME,
            beside({"part": "models.judged_turns", "judge": "judging.full_marks", "last": "unasked"}, "process"),
        ],
        "method": {
            "preset": "ppo",
            "credit": [
                {"sum": {"process": ["credit.renormalize", "credit.spread"]}},
                {"part": "credit.returns", "kind": "gae"},
                "credit.whiten",
            ],
        },
        "critic": {"hidden": [8], "warmup": 0},
    },
    85: {
        "reward": [OUTCOME, {"part": "text.length", "name": "length"}],
        "method": {
            "preset": "dr_grpo",
            "credit": {"sum": {"outcome": "credit.group_relative", "length": "credit.group_relative"}},
            "blend": {"primary": "outcome"},
        },
    },
    108: {
        "reward": {
            "part": "math.answer",
            "shape": [{"part": "shaping.monitored_length", "target": 64, "grid": [8, 64, 4]}],
        }
    },
    163: {"reward": {"part": "text.length", "shape": [{"part": "shaping.relative", "to": "references"}]}},
    251: {
        "reward": {
            "part": "math.answer",
            "shape": [
                {"part": "shaping.target_length", "target": 26, "curve": "cut", "apply": "multiply", "weight": 1.0}
            ],
        },
        "method": {"preset": "dler", "sampling": {"rounds": 2}},
    },
    259: {"reward": {"part": "math.answer", "shape": ["shaping.history_length"]}},
    # Prompts.
    70: {"reward": "math.answer", "prompts": {"unsolved": {"order": "balance"}}},
    # Values of prefixes, by which answers are searched; what a reward costs in KL, and what a verifier is worth.
    31: {"reward": "math.answer", "evaluation": {"prompts": 4, "samples": 4, "frontier": True}},
    36: {
        "reward": "math.answer",
        "method": grpo(),
        "critic": {"targets": "prefix", "warmup": 1, "hidden": [8]},
        "evaluation": {"prompts": 4, "search": {"step": "1", "candidates": 4, "keep": 2}},
    },
    191: {"reward": "math.answer", "evaluation": {"prompts": 4, "samples": 4, "frontier": True}},
    # Credit.
    24: {
        "reward": [
            OUTCOME,
            beside({"part": "models.decomposed_return", "factors": "judging.digits", "cut": THINKING}, "steps"),
        ],
        "method": grpo(credit={"sum": {"steps": ["credit.spread", "credit.returns"]}}),
    },
    25: {"reward": {"part": "models.tournament", "judge": "judging.longer"}},
    26: {"reward": {"part": "models.tournament", "judge": "judging.longer", "schedule": "win_rate", "orders": "one"}},
    35: {
        "reward": [
            OUTCOME,
            beside(
                {
                    "part": "models.subgoal_rewards",
                    "judge": "judging.achieved",
                    "subgoals": ["3", "7"],
                    "cut": THINKING,
                },
                "subgoals",
            ),
        ],
        "method": grpo(credit={"sum": {"outcome": "credit.group_relative", "subgoals": "credit.returns"}}),
    },
    48: {"reward": STEPS, "method": {"preset": "pure"}},
    58: {"reward": "math.answer", "method": {"preset": "tempo"}},
    73: {
        "reward": [OUTCOME, beside(STEPS, "process"), beside(STEPS, "executed")],
        "method": grpo(credit={"sum": {"process": ["credit.grounded_rewards", "credit.spread", "credit.returns"]}}),
    },
    76: {
        "reward": ["math.answer", {"of": {"reduce": STEPS, "how": "last"}, "weight": 0.5}],
        "method": grpo(sampling={"group": 4, "steps": {"end": [";"], "most": 3}}),
    },
    92: {
        "reward": ["math.answer", beside({**LIKELY, "start": False}, "importance")],
        "method": grpo(credit=["credit.redistribute", {"part": "credit.spread", "place": "last"}, "credit.returns"]),
    },
    103: {"reward": "math.answer", "method": grpo(credit=["credit.tree_rewards", "credit.fork_relative"])},
    113: {
        "reward": [OUTCOME, beside(STEPS, "process")],
        "method": {
            "preset": "prof",
            "sampling": {"filter": {"part": "data.consistent", "process": "process", "count": 2}},
        },
    },
    204: {"reward": ["math.answer", {"reduce": "turns.data", "how": "mean"}]},
    230: {"reward": "text.cer", "method": {"preset": "pf_ppo"}, "critic": {"hidden": [8], "warmup": 0}},
    248: {
        "reward": "text.cer",
        "method": grpo(credit=["credit.group_relative", {"part": "credit.spread", "place": "all"}, "credit.smooth"]),
    },
    # Objectives.
    59: {"reward": "math.answer", "method": {"preset": "real"}},
    64: {
        "reward": "math.answer",
        "method": {"preset": "aligndistil"},
        "models": {"teacher": "policy", "anchor": "policy"},
    },
    69: {"reward": "math.answer", "method": {"preset": "gspo_n"}},
    71: {"reward": "math.answer", "method": {"preset": "wgrpo"}},
    82: {
        "reward": "math.answer",
        "method": {
            "preset": "rl_plus",
            "objective": {"external_clip": "clip.saturating"},
            "sampling": {"external": "mended"},
        },
    },
    87: {
        "reward": "math.answer",
        "teach": {"demonstrations": "column", "options": {"column": "mended"}, "ends": False, "steps": 2, "batch": 4},
        "method": "dr_grpo",
    },
    114: {"reward": "math.answer", "method": {"preset": "exopd"}, "models": {"teacher": "policy"}},
    151: {
        "reward": "text.exact",
        "method": {
            "preset": "gflownet_db",
            "objective": {"place": "edges", "kind": "floor", "floor": 1e-4},
            "sampling": {"group": 4, "external": "demonstration"},
        },
        "critic": {"hidden": [8], "start": "zero", "learning_rate": 0.01},
    },
    183: {"reward": STEPS, "method": {"preset": "vl_dac"}, "critic": {"hidden": [8], "warmup": 0}},
    196: {"reward": "math.answer", "evaluation": {"samples": 4, "prompts": 4}},
    206: {"reward": "math.answer", "method": {"preset": "grpo", "kl": {"coefficient": 1e-3}, "entropy": 1e-3}},
    209: {
        "reward": "math.answer",
        "method": {
            "preset": "group_dpo",
            "sampling": {"guided": {"column": "plan", "rollouts": 2, "template": "{guidance};{prompt}"}},
        },
    },
    222: {"reward": "math.answer", "method": {"preset": "b_coder"}, "critic": {"hidden": [8]}},
    225: {"reward": "math.answer", "method": {"preset": "nsr"}},
    227: {"reward": "math.answer", "method": {"preset": "gflownet_tb"}, "critic": {"hidden": [8]}},
    228: {"reward": "math.answer", "method": {"preset": "rl_plus"}},
    260: {"reward": "math.answer", "method": {"preset": "luspo"}},
}

PLANNERS = {150: walking.TINY}


# What their parts are for, the loop has as a setting: the order of prompts, learned weights of parts, pass@k of several
# samples, reward against KL, values of prefixes and search by them, a draw by rank, a balance of rewards.
BY_SETTING = {31, 36, 70, 85, 191, 196, 227, 230}


@pytest.fixture
def of(tiny, tmp_path):
    """`of(n)`: the recipe of a system, on the tiny policy and prompts with every column."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({**ROW, "prompt": f"{i}+{j}="}) + "\n" for i in range(6) for j in range(6)))

    def build(n):
        chat = {"chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}"}
        data = tiny(evaluation={"prompts": 4}, steps=1, max_abstain=1.0, policy=chat).data()
        prompts = {"file": str(path), "held_out": 0.3} | RECIPES[n].get("prompts", {})
        return recipes.from_data(data | RECIPES[n] | {"prompts": prompts}, allow_import=True)

    return build


def rows():
    text = resources.files("guerdon.catalog").joinpath("systems.toml").read_text(encoding="utf-8")
    return {row["n"]: row for row in tomllib.loads(text)["system"]}


def test_every_system_of_shaping_credit_and_objectives_is_named():
    named = [*RECIPES, *PLANNERS]
    assert len(set(named)) == len(named) == 69
    known = rows()
    assert all(known[n]["status"] == "complete" for n in named)


@pytest.mark.parametrize("n", RECIPES)
def test_a_system_is_a_recipe(of, n):
    """It loads, passes all checks before work, comes back from its data, and holds parts that the catalogue names."""
    recipe = of(n)
    assert recipes.from_data(recipe.data(), allow_import=True) == recipe
    reward, method = recipe.load_reward(allow_import=True), recipe.load_method()
    named = repr(recipe.data()) + repr(method.dump()) + repr(reward)
    parts = rows()[n]["parts"]
    assert n in BY_SETTING or any(part in named for part in parts), f"{n}: none of {parts}"


def test_the_planner_that_a_recipe_builds_is_the_catalogues(tmp_path):
    recipe = recipes.from_data(PLANNERS[150], allow_import=True)
    control.train(recipe, tmp_path / "run")
    assert (
        f"models.{type(MultiScalePlanner.from_pretrained(tmp_path / 'run' / 'policy')).__name__}"
        in rows()[150]["parts"]
    )


# The others are trained in tests of their own.
STEPS_HERE = [
    2, 8, 10, 13, 15, 18, 23, 25, 26, 29, 30, 31, 34, 36, 40, 54, 73, 82, 84, 87, 94, 115, 146, 151, 176, 189, 191, 204,
    209, 221, 244,
]  # fmt: skip


@pytest.mark.parametrize("n", STEPS_HERE)
def test_a_system_takes_a_step(of, n, tmp_path):
    summary = loop.train(of(n), tmp_path / "run", allow_import=True)
    assert summary["steps"] == 1
    [record] = Run(tmp_path / "run").metrics()
    assert math.isfinite(record["loss"])


def test_a_judge_is_named_by_its_import_path_and_only_where_imports_are_allowed(of):
    reward = of(25).load_reward(allow_import=True)
    data = spec.dump(reward)
    assert data["judge"] == "judging.longer"
    assert spec.load(data, allow_import=True) == reward
    with pytest.raises(SpecError, match=r"models\.tournament\.judge: there is no part 'judging\.longer'"):
        spec.load(data)
    with pytest.raises(SpecError, match="cannot be written as data"):
        spec.dump(tournament(judge=lambda questions: [0.0] * len(questions)))
