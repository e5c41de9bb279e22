"""PAR beside the reward models it is compared with: what each does when annotators also like something cheap."""

import numpy as np
import pytest
import torch

from guerdon import Context, Rollouts, Scores
from guerdon.data import average_weights
from guerdon.models import DisentangledHeads, LinearHead, bradley_terry, fit, length_bias
from guerdon.shaping import relative

WIDTH, PAIRS, POOL = 8, 400, 4000
LENGTH, STYLE = 1, 2  # places among the features; 0 is quality, seen through noise


def states(quality, cheap, at, rng):
    found = rng.normal(size=(len(quality), WIDTH))
    found[:, 0] += 2 * quality
    found[:, at] = cheap
    return torch.tensor(found, dtype=torch.float32)


def annotated(at, rng, pairs=PAIRS):
    """Pairs of answers; annotators like quality, and as much a feature that costs nothing to have."""
    quality, cheap = rng.normal(size=(2, 2, pairs))
    both = [states(quality[side], cheap[side], at, rng) for side in (0, 1)]
    liking = 2 * (quality[0] - quality[1] + 0.8 * (cheap[0] - cheap[1]))
    first = torch.tensor(rng.random(pairs) < 1 / (1 + np.exp(-liking)))[:, None]
    return torch.where(first, *both), torch.where(first, *both[::-1])


def trained(chosen, rejected, *, regularizer=0.0, seed=0):
    torch.manual_seed(seed)
    head = LinearHead(WIDTH)

    def loss(rows):
        return bradley_terry(head(chosen[rows]), head(rejected[rows]), regularizer=regularizer)

    fit(head.parameters(), loss, len(chosen), learning_rate=0.05, epochs=50, batch=400, seed=seed)
    return head


def disentangled(chosen, rejected):
    torch.manual_seed(0)
    heads = DisentangledHeads(WIDTH)

    def loss(rows):
        (quality, verbosity), (other, its) = heads(chosen[rows]), heads(rejected[rows])
        lengths = torch.cat([chosen[rows], rejected[rows]])[:, LENGTH]
        preference = bradley_terry(quality + verbosity, other + its)
        return (
            preference
            + length_bias(torch.cat([quality, other]), torch.cat([verbosity, its]), lengths)
            + heads.overlap()
        )

    fit(heads.parameters(), loss, len(chosen), learning_rate=0.05, epochs=70, batch=400)
    return heads


def optimised(rewards, gold, hacks, beta=0.3):
    """The true quality, and the share of hacks, of the policy that KL-regularised RL ends at."""
    odds = np.asarray(rewards, float) / beta
    policy = np.exp(odds - odds.max())
    policy /= policy.sum()
    return float(policy @ gold), float(policy @ hacks)


def shaped(rewards, references):
    """PAR, by the shaper itself."""
    n = len(rewards)
    batch = Context(Rollouts(["p"] * n, [""] * n, {"references": [references.tolist()] * n}))
    return relative(to="references")(Scores.of(rewards.tolist()), batch).read(0.0)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("at", [LENGTH, STYLE], ids=["length", "style"])
def test_par_beside_warm_odin_and_the_regulariser_where_a_reward_can_be_hacked(at, seed):
    """One answer in fifty is bad and extreme in what annotators like for free.

    All reward models learn that it is liked, and are optimised into it: the regulariser and WARM as much as the plain
    one, for their members share the annotators' bias; ODIN is not if it is length, and is if it is another thing. PAR
    shapes the plain reward and ends above where the policy began, whatever the hack.
    """
    rng = np.random.default_rng(seed)
    pairs = annotated(at, rng)
    plain, regular = trained(*pairs), trained(*pairs, regularizer=0.005)
    warm = LinearHead(WIDTH)
    warm.load_state_dict(average_weights([trained(*pairs, seed=s).state_dict() for s in range(3)]))
    odin = disentangled(*pairs)
    gold, cheap = rng.normal(size=(2, POOL))
    hacks = np.arange(POOL) < POOL // 50
    gold[hacks] -= 2
    cheap[hacks] += 8
    pool, references = states(gold, cheap, at, rng), states(*rng.normal(size=(2, 10)), at, rng)
    with torch.no_grad():
        rewards = {"plain": plain(pool), "regulariser": regular(pool), "warm": warm(pool), "odin": odin(pool)[0]}
        rewards["par"] = shaped(rewards["plain"], plain(references))
    ends = {name: optimised(values, gold, hacks) for name, values in rewards.items()}
    for name in ("plain", "regulariser", "warm"):
        assert ends[name][1] > 0.9
        assert ends[name][0] < ends["par"][0]
    assert ends["par"][1] < 0.2
    assert ends["par"][0] > gold.mean() + 0.1
    if at == LENGTH:
        assert ends["odin"][1] < 0.02
        assert ends["odin"][0] > ends["par"][0], "what is disentangled need not be bounded"
    else:
        assert ends["odin"][1] > 0.9


def test_odin_quality_forgets_length_and_verbosity_takes_it():
    chosen, rejected = annotated(LENGTH, np.random.default_rng(0))
    plain, odin = trained(chosen, rejected), disentangled(chosen, rejected)
    with torch.no_grad():
        quality, verbosity = odin(chosen)
        found = {"plain": plain(chosen), "quality": quality, "verbosity": verbosity}
    rho = {name: np.corrcoef(values, chosen[:, LENGTH])[0, 1] for name, values in found.items()}
    assert abs(rho["quality"]) < 0.25 < 0.4 < rho["plain"]
    assert rho["verbosity"] > 0.95
    assert odin.overlap() < 0.1


def test_warm_is_nearer_to_the_truth_than_the_reward_models_it_is_the_mean_of():
    """Five heads, each of forty pairs of its own: what they make of chance differs, and is averaged away."""
    truth = torch.tensor([1.0, 0.8, *[0.0] * (WIDTH - 2)])
    distances = []
    for world in range(4):
        heads = [trained(*annotated(LENGTH, np.random.default_rng([world, s]), pairs=40), seed=s) for s in range(5)]
        merged = average_weights([head.state_dict() for head in heads])

        def distance(weight):
            return 1 - torch.cosine_similarity(weight[0], truth, dim=0).item()

        distances.append((distance(merged["score.weight"]), np.mean([distance(h.score.weight) for h in heads])))
    ours, alone = np.mean(distances, 0)
    assert ours < 0.6 * alone
