"""The named methods of policy optimisation, each a combination of credit, objective, KL and sampling.

What they share is written once: GRPO, Dr. GRPO, RLOO and REINFORCE differ in credit; GSPO, LUSPO, CISPO and SAPO in
the objective. Values are the papers' own where they state them; a recipe overrides any of them with `load`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from guerdon.core.errors import RecipeError, nearest
from guerdon.credit import branch_relative, group_relative, length_relative, min_form, returns, spread, whiten
from guerdon.objectives import clip, policy_gradient
from guerdon.train.method import KL, Method, Sampling

# Source: DeepSeekMath (arXiv 2402.03300): β = 0.04, 64 rollouts; its ε is not stated, 0.2 is PPO's and TRL's.
grpo = Method(
    credit=group_relative,
    objective=partial(policy_gradient, aggregate="sequence-mean"),
    kl=KL(0.04),
    sampling=Sampling(group=64),
)

# Source: "Understanding R1-Zero-Like Training" (arXiv 2503.20783): no σ, no 1/|y|, no KL. The constant `length` is the
# limit on generated tokens, which the recipe knows.
dr_grpo = Method(
    credit=partial(group_relative, scale="none"),
    objective=partial(policy_gradient, aggregate="constant"),
)

# Source: DAPO (arXiv 2503.14476): clip-higher (§3.1), dynamic sampling (§3.2), token mean over the batch (§3.3), soft
# overlong punishment (§3.4: 0 up to limit − buffer tokens, falling to −1 at the limit); 16 rollouts, no KL (§4.1).
# Ten rounds of drawing are verl's `max_num_gen_batches` for it.
dapo = Method(
    credit=group_relative,
    objective=partial(policy_gradient, clip=partial(clip.ppo, low=0.2, high=0.28)),
    sampling=Sampling(group=16, dynamic=True, rounds=10),
    shaping=({"part": "shaping.overlong", "limit": 20480, "buffer": 4096},),
)

# Source: TRL's loss_type "bnpo", the token mean over each micro-batch by itself (the Beta-normalised method of
# arXiv 2506.02864 has the same letters and is another).
bnpo = Method(credit=group_relative, objective=policy_gradient, denominator="micro-batch")

# Source: GSPO (arXiv 2507.18071, §5.1): one ratio per sequence, clipped at 3e-4 and 4e-4; no KL.
gspo = Method(
    credit=group_relative,
    objective=partial(
        policy_gradient, ratio="sequence", clip=partial(clip.ppo, low=3e-4, high=4e-4), aggregate="sequence-mean"
    ),
)

# Source: LUSPO (arXiv 2602.05261, §5.1): GSPO with each sequence times its length, clipped at 2e-3 and 2.5e-3.
luspo = Method(
    credit=group_relative,
    objective=partial(
        policy_gradient, ratio="sequence", clip=partial(clip.ppo, low=2e-3, high=2.5e-3), aggregate="length-weighted"
    ),
)

# Source: CISPO, MiniMax-M1 (arXiv 2506.13585): the weight is bounded, not the update; cap 5 and 16 rollouts: ScaleRL
# (2510.13786).
cispo = Method(
    credit=group_relative,
    objective=partial(policy_gradient, clip=partial(clip.cispo, cap=5.0)),
    sampling=Sampling(group=16),
)

# Source: SAPO (arXiv 2511.20347): a soft gate per token, τ = 1 for A > 0 and 1.05 otherwise.
sapo = Method(
    credit=group_relative,
    objective=partial(policy_gradient, clip=partial(clip.soft, positive=1.0, negative=1.05), aggregate="sequence-mean"),
)

# Source: Williams (1992): ∇ log π(y) · r, without baseline.
reinforce = Method(
    credit=partial(group_relative, baseline="none", scale="none"),
    objective=partial(policy_gradient, clip=clip.reinforce, aggregate="length-weighted"),
)

# Source: RLOO (arXiv 2402.14740): REINFORCE on whole sequences with the other rollouts' mean as the baseline and the
# KL in the reward, β = 0.03 (appendix C), 2 or 4 rollouts; the clipped sequence ratio for reused batches is TRL's.
rloo = Method(
    credit=partial(group_relative, baseline="loo", scale="none"),
    objective=partial(policy_gradient, ratio="product", aggregate="sequence-mean"),
    kl=KL(0.03, kind="k1", place="reward"),
    sampling=Sampling(group=4),
)

# Source: "The Surprising Effectiveness of Negative Reinforcement" (arXiv 2506.01347): REINFORCE with rewards 1 and −1,
# λ = 0.1 on what was right, PPO's clip, 8 rollouts. A verifier's 1 and 0 are centred to ±1/2, so both weights are
# twice the paper's.
w_reinforce = Method(
    credit=partial(group_relative, baseline="none", scale="none"),
    objective=partial(policy_gradient, positive=0.2, negative=2.0),
    shaping=({"part": "shaping.center", "at": 0.5},),
)
psr = replace(w_reinforce, objective=partial(policy_gradient, positive=2.0, negative=0.0))
nsr = replace(w_reinforce, objective=partial(policy_gradient, positive=0.0, negative=2.0))

# Source: "The Debate on RLVR Reasoning Capability Boundary" (arXiv 2510.04028): only what did worse than its group.
grpo_n = replace(grpo, objective=partial(policy_gradient, positive=0.0, aggregate="sequence-mean"), kl=KL())
gspo_n = replace(gspo, objective=partial(gspo.objective, positive=0.0))

# Source: "Beyond Variance" (arXiv 2602.03452): failures weigh λ times as much, after normalisation (before it, an
# affine map of two values cancels). λ is not stated; 2 is ours.
wgrpo = Method(
    credit=partial(group_relative, ddof=0),
    objective=partial(policy_gradient, negative=2.0, aggregate="sequence-mean"),
)

# Source: TEMPO (arXiv 2509.18314; fatebreaker/tempo): the group's advantage, corrected at each token where rollouts
# part; clip 0.2 and 0.28, no KL, 7 rollouts. The mean over tokens is verl's default.
tempo = Method(
    credit=branch_relative,
    objective=partial(policy_gradient, clip=partial(clip.ppo, low=0.2, high=0.28)),
    sampling=Sampling(group=7),
)

# Source: PURE (arXiv 2504.15275; CJReinforce/PURE) with process rewards alone: T = 0.1, the others' reward per token as
# the baseline, what follows from each step, 8 rollouts (of 4 to 8), β = 0.001. Its KL is part of the return and here
# of the loss; its code gives the tokens that end a step no advantage, here they have their step's.
pure = Method(
    credit=(partial(min_form, temperature=0.1), length_relative, returns),
    objective=policy_gradient,
    kl=KL(1e-3),
    sampling=Sampling(group=8),
)

# Source: DLER (arXiv 2510.15110; NVlabs/DLER): the group's mean taken off, then one scale for all tokens of the batch;
# clip 0.2 and 0.28, dual clip 10, KL 5e-4, 16 rollouts of prompts that are neither all right nor all wrong. Meant for
# a reward of correctness that is 0 where the rollout was cut at `sampling.max_tokens`.
dler = Method(
    credit=(partial(group_relative, scale="none"), partial(spread, place="all"), whiten),
    objective=partial(policy_gradient, clip=partial(clip.dual, low=0.2, high=0.28, delta=10.0)),
    kl=KL(5e-4),
    sampling=Sampling(group=16, dynamic=True, filter="data.varied"),
)


def load(name: str, **changes: Any) -> Method:
    """The named method, with a recipe's changes.

    Args:
        name: of a preset: grpo, dr_grpo, dapo, bnpo, gspo, luspo, cispo, sapo, reinforce, rloo, w_reinforce, psr, nsr,
            grpo_n, gspo_n, wgrpo, tempo, pure or dler.
        changes: what differs, by field; see `Method.override`.

    Raises:
        RecipeError: if there is no such preset, field, part or option (the message has the nearest valid name), or a
            value has the wrong type.

    >>> method = load("grpo", credit={"scale": "none"}, objective={"clip": {"part": "clip.ppo", "high": 0.28}})
    >>> method.dump()["objective"]["clip"]
    {'part': 'objectives.clip.ppo', 'low': 0.2, 'high': 0.28}
    """
    presets = {key: value for key, value in globals().items() if isinstance(value, Method)}
    if name not in presets:
        raise RecipeError(f"there is no preset {name!r}: {nearest(name, presets)}")
    return presets[name].override(**changes)
