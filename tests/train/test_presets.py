import math

import pytest
import torch
import yaml

from guerdon.core.errors import RecipeError
from guerdon.credit import group_relative, whiten
from guerdon.objectives import clip, policy_gradient
from guerdon.train import presets
from guerdon.train.method import KL, Method, options
from guerdon.train.sampling import Sampling

NAMES = ["grpo", "dr_grpo", "dapo", "bnpo", "gspo", "luspo", "cispo", "sapo", "reinforce", "rloo"]
NAMES += ["w_reinforce", "psr", "nsr", "grpo_n", "gspo_n", "wgrpo", "tempo", "pure", "dler"]
NAMES += ["prime", "istar", "igpo", "spae", "vsrm", "rlfr", "mrt", "prof", "pf_ppo"]
NAMES += ["real", "drpo", "opd", "exopd", "aligndistil", "rl_plus", "gflownet_tb", "b_coder", "ppo", "vl_dac"]
NAMES += ["gflownet_db", "gflownet_subtb"]


@pytest.mark.parametrize("name", NAMES)
def test_a_dumped_method_is_plain_data_that_gives_the_method_back(name):
    method = presets.load(name)
    data = yaml.safe_load(yaml.safe_dump(method.dump()))
    assert data == method.dump()
    for other in NAMES:
        assert presets.load(other, **data) == method
        assert (presets.load(other) == method) == (other == name)


def test_a_dump_names_parts_and_writes_defaults_out():
    assert presets.load("dapo").dump() == {
        "credit": {
            "part": "credit.group_relative",
            "pool": "rollout",
            "baseline": "mean",
            "scale": "std",
            "ddof": 1,
            "eps": 1e-4,
            "ended": "absent",
        },
        "objective": {
            "part": "objectives.policy_gradient",
            "ratio": "token",
            "clip": {"part": "objectives.clip.ppo", "low": 0.2, "high": 0.28},
            "positive": 1.0,
            "negative": 1.0,
            "aggregate": "token-mean",
            "length": None,
        },
        "kl": {"coefficient": 0.0, "kind": "k3", "place": "loss", "corrected": False},
        "sampling": {
            "group": 16,
            "dynamic": True,
            "rounds": 10,
            "pace": None,
            "filter": None,
            "begin": None,
            "external": None,
            "steps": None,
            "guided": None,
        },
        "shaping": [{"part": "shaping.overlong", "limit": 20480, "buffer": 4096}],
        "reads": {},
        "constraint": None,
        "entropy": 0.0,
        "denominator": "batch",
        "blend": None,
        "answer": None,
    }


def test_an_override_changes_what_it_names_and_nothing_else():
    method = presets.load(
        "gspo",
        credit={"scale": "none"},
        objective={"clip": {"high": 0.5}},
        kl={"coefficient": 1, "kind": "k2"},
        sampling={"group": 4},
        shaping=[],
    )
    expected = presets.load("gspo").dump()
    expected["credit"]["scale"] = "none"
    expected["objective"]["clip"]["high"] = 0.5
    expected["kl"] |= {"coefficient": 1.0, "kind": "k2"}
    expected["sampling"]["group"] = 4
    assert method.dump() == expected
    assert presets.load("gspo") == presets.gspo
    assert presets.load("grpo", kl={"kind": "k2"}).kl == KL(0.04, kind="k2")
    assert presets.load("dapo", sampling={"group": 4}).sampling == Sampling(group=4, dynamic=True)


def test_a_credit_of_several_parts_is_written_as_their_list():
    method = presets.load("grpo", credit=[{"part": "credit.min_form", "temperature": "0.5"}, "credit.returns", whiten])
    assert [part["part"] for part in method.dump()["credit"]] == ["credit.min_form", "credit.returns", "credit.whiten"]
    assert method.dump()["credit"][0] == {"part": "credit.min_form", "temperature": 0.5}
    assert presets.load("pure", credit="credit.group_relative").credit.func is group_relative


def test_naming_a_part_begins_from_its_own_defaults():
    for name in ("clip.ppo", "objectives.clip.ppo"):
        chosen = options(presets.load("gspo", objective={"clip": {"part": name, "high": 0.28}}).objective)
        assert options(chosen["clip"]) == {"low": 0.2, "high": 0.28}
        assert chosen["ratio"] == "sequence"
    chosen = options(presets.load("grpo", objective={"clip": "clip.soft"}).objective)
    assert options(chosen["clip"]) == {"positive": 1.0, "negative": 1.05}


def test_numbers_are_read_as_yaml_writes_them():
    recipe = yaml.safe_load("{eps: 1e-6, ddof: 0}")
    found = options(presets.load("grpo", credit=recipe).credit)
    assert (found["eps"], found["ddof"]) == (1e-6, 0)
    assert options(presets.load("dr_grpo", objective={"length": "1e3"}).objective)["length"] == 1000


def test_functions_and_records_are_taken_as_they_are():
    method = presets.load(
        "grpo", credit=group_relative, objective={"clip": clip.none}, kl=KL(0.5), sampling=Sampling(2)
    )
    assert options(method.objective)["clip"] is clip.none
    assert (method.kl.coefficient, method.sampling.group) == (0.5, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "dappo"}, "no preset 'dappo': did you mean 'dapo'"),
        ({"credits": {}}, "a method has no 'credits': did you mean 'credit'"),
        ({"credit": {"scal": 1}}, "credit: credit.group_relative has no option 'scal': did you mean 'scale'"),
        ({"credit": {"mask": None}}, "no option 'mask'"),
        ({"credit": {"scale": "stdd"}}, "credit.scale: 'stdd' is not a choice: did you mean 'std'"),
        ({"credit": {"eps": "small"}}, "credit.eps: expected a number, got 'small'"),
        ({"credit": {"ddof": 0.5}}, "credit.ddof: expected a whole number, got 0.5"),
        ({"credit": {"ddof": True}}, "credit.ddof: expected a number, got True"),
        ({"credit": 3}, "credit: expected a mapping, got 3"),
        ({"credit": []}, "credit: the list is empty"),
        ({"credit": ["credit.min_form", {"gamma": 0.5}]}, "credit[1]: of several parts, each is named"),
        ({"credit": ["credit.min_from"]}, "credit[0]: there is no part 'credit.min_from': did you mean"),
        ({"name": "pure", "credit": {"temperature": 1}}, "credit: of several parts, each is named: {part: credit.…}"),
        ({"credit": {"part": "objectives.policy_gradient"}}, "credit: there is no part 'objectives.policy_gradient'"),
        ({"objective": {"clip": {"part": "clip.pop"}}}, "objective.clip: there is no part 'clip.pop'"),
        ({"objective": {"clip": {"part": "NamedTuple"}}}, "there is no part 'NamedTuple'"),
        ({"objective": {"clip": {"hi": 1}}}, "objective.clip: objectives.clip.ppo has no option 'hi'"),
        ({"objective": {"length": "long"}}, "objective.length: expected a number, got 'long'"),
        ({"kl": {"coeficient": 1}}, "kl.coeficient: there is no such setting: did you mean 'coefficient'"),
        ({"kl": {"corrected": "yes"}}, "kl.corrected: expected true or false, got 'yes'"),
        ({"sampling": {"dynamic": 1}}, "sampling.dynamic: expected true or false, got 1"),
        ({"kl": {"coefficient": -1}}, "kl: coefficient must not be negative, got -1.0"),
        ({"sampling": {"group": 0}}, "sampling: group and rounds must be at least 1, got 0 and 10"),
        ({"denominator": "microbatch"}, "denominator: 'microbatch' is not a choice: did you mean 'micro-batch'"),
    ],
)
def test_mistakes_are_named_with_their_place_and_the_nearest_valid_name(changes, message):
    with pytest.raises(RecipeError) as error:
        presets.load(**{"name": "grpo"} | changes)
    assert message in str(error.value)


def test_a_lambda_cannot_be_dumped():
    with pytest.raises(RecipeError, match="cannot be written as data"):
        Method(credit=lambda rewards, groups: rewards, objective=policy_gradient).dump()


def test_equal_methods_are_one_key():
    assert len({presets.load("grpo"), presets.load("grpo", credit={}), presets.load("dapo")}) == 2


REWARDS, GROUPS = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("name", "advantages"),
    [
        ("grpo", [0.75 / 0.5001, *[-0.25 / 0.5001] * 3]),
        ("dr_grpo", [0.75, -0.25, -0.25, -0.25]),
        ("rloo", [1.0, -1 / 3, -1 / 3, -1 / 3]),
        ("reinforce", [1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_grpo_dr_grpo_rloo_and_reinforce_differ_in_credit(name, advantages):
    torch.testing.assert_close(presets.load(name).credit(REWARDS, GROUPS), torch.tensor(advantages))


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        # Two rows of two tokens and one, A = 1 and −2, token ratios (e, e) and 1/e.
        ("dapo", -(1.28 + 1.28 - 1.6) / 3),
        ("bnpo", -(1.2 + 1.2 - 1.6) / 3),
        ("grpo", -(1.2 - 1.6) / 2),
        ("gspo", -(1.0004 - 2 * 0.9997) / 2),
        ("luspo", -(2 * 1.0025 - 2 * 0.998) / 2),
        ("cispo", -(-2 * math.e + 2 * math.exp(-1)) / 3),
        ("sapo", -(4 / (1 + math.exp(1 - math.e)) - 8 / 1.05 / (1 + math.exp(1.05 * (1 - math.exp(-1))))) / 2),
        ("reinforce", -(-2.0 + 2.0) / 2),
        ("rloo", -(1.2 - 1.6) / 2),
    ],
)
def test_objectives_on_a_worked_batch(name, loss):
    logp = torch.full((2, 2), -1.0, dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    old_logp = torch.tensor([[-2.0, -2.0], [0.0, 0.0]])
    found, _ = presets.load(name).objective(logp, old_logp, torch.tensor([1.0, -2.0]), mask)
    assert float(found) == pytest.approx(loss, rel=1e-5)


def test_dr_grpo_divides_by_rows_times_the_limit_on_tokens():
    logp, mask = torch.full((2, 2), -1.0), torch.tensor([[True, True], [True, False]])
    method = presets.load("dr_grpo", objective={"length": 10})
    found, _ = method.objective(logp, logp, torch.tensor([1.0, -3.0]), mask)
    assert float(found) == pytest.approx(-(2.0 - 3.0) / 20)
