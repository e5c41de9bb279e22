"""The named methods of policy optimisation, each a combination of credit, objective, KL and sampling.

What they share is written once: GRPO, Dr. GRPO, RLOO and REINFORCE differ in credit; GSPO, LUSPO, CISPO and SAPO in
the objective. Values are the papers' own where they state them; a recipe overrides any of them with `load`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from guerdon.core.errors import RecipeError, nearest
from guerdon.credit import (
    branch_extremes,
    branch_relative,
    group_relative,
    length_relative,
    min_form,
    potential_advantages,
    progress,
    renormalize,
    returns,
    spread,
    turning_points,
    unit_returns,
    whiten,
)
from guerdon.objectives import (
    adaptive_distillation,
    bellman_loss,
    clip,
    decoupled_reward,
    extrapolated_policy_gradient,
    group_preference,
    hybrid_policy_gradient,
    kl_hinge,
    policy_gradient,
    reward_balance,
    reward_edge_balance,
    reward_subtrajectory_balance,
    rewards_as_labels,
)
from guerdon.objectives.denoising import reward_difference, step_preference
from guerdon.train.method import KL, Method, Sum
from guerdon.train.sampling import Begin, Sampling

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
# the baseline, the KL of each token, what follows from it, 8 rollouts (of 4 to 8), β = 0.001. Its code gives the tokens
# that end a step no advantage, here they have their step's.
pure = Method(
    credit=(partial(min_form, temperature=0.1), length_relative, spread, returns),
    objective=policy_gradient,
    kl=KL(1e-3, kind="k1", place="token"),
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

# Source: REAL (arXiv 2602.05630): the rollouts of a prompt as right and wrong, told apart by their log-ratios, τ = 0.5;
# 8 rollouts, no KL. Its objective reads no advantages: the credit only says which groups vary.
real = Method(credit=group_relative, objective=rewards_as_labels)

# Source: DRPO (arXiv 2510.04474; Optimization-AI/DRPO): λ = 0.1 on how short a right rollout is, τ = 10, a squared
# hinge on the KL to the policy that wrote them, 8 rollouts. No credit, as for `real`.
drpo = Method(credit=group_relative, objective=decoupled_reward, constraint=kl_hinge)

# Source: DPO (arXiv 2305.18290), β = 0.1, on every pass with every failure of a prompt, as Agent-RLVR (2506.11425)
# pairs attempts; its attempts that were made under guidance are `sampling: {guided: {column: …}}`. 8 rollouts are
# TRL's. No credit, as for `real`.
group_dpo = Method(credit=group_relative, objective=group_preference)

# Source: G-OPD (arXiv 2602.12125): the teacher's log-probabilities in place of a reward, one rollout per prompt; and
# 1.25 times the way from the reference, which is the policy at its start (or `reads: {ref_logp: NAME}`).
opd = Method(credit=group_relative, objective=extrapolated_policy_gradient, sampling=Sampling(group=1))
exopd = replace(opd, objective=partial(extrapolated_policy_gradient, strength=1.25), reads={"ref_logp": "reference"})

# Source: AlignDistil (arXiv 2503.02832) on policy: contrast and adaptive strength (k = 15), reverse KL over the
# vocabulary, β = 0.1, one rollout per prompt. The models are `teacher` (tuned by DPO) and `anchor` (by DPO on swapped
# pairs).
aligndistil = Method(credit=group_relative, objective=adaptive_distillation, sampling=Sampling(group=1))

# Source: RL-PLUS (arXiv 2508.00222; YihongDong/RL-PLUS): 7 rollouts and one demonstration, no σ, no clip, the mixture
# ratio and the exploration-based advantage for what the policy did not write; entropy 0.001, no KL.
rl_plus = Method(
    credit=partial(group_relative, scale="none"),
    objective=hybrid_policy_gradient,
    sampling=Sampling(group=8, external="demonstration"),
    entropy=1e-3,
)

# Source: trajectory balance (arXiv 2201.13259): writes in proportion to exp(reward), with log Z of each prompt the
# value that a critic has before the first token. `reads: {}` is the variance form, as in GFlowVLM (2503.06514), without
# one. No credit, as for `real`.
gflownet_tb = Method(credit=group_relative, objective=reward_balance, reads={"values": "critic"})

# Source: detailed balance (arXiv 2111.09266) and SubTB(λ) (2209.12782) to the same end, the critic's value before each
# token being log F of that prefix; λ = 0.9 is ours. They compare no rollouts of a group, so one per prompt will do.
gflownet_db = Method(credit=group_relative, objective=reward_edge_balance)
gflownet_subtb = Method(credit=group_relative, objective=reward_subtrajectory_balance)

# Source: B-Coder (arXiv 2310.03173): the policy's logits are the advantages of programs that others wrote, a critic the
# values, the policy at its start the frozen model. The values are first fitted alone (`critic.warmup`). How many
# programs a problem has is not stated; a group with fewer is filled by the policy. No credit, as for `real`.
b_coder = Method(credit=group_relative, objective=bellman_loss, sampling=Sampling(external="programs"))

# Source: PPO (arXiv 1707.06347) as TRL's PPOTrainer has it for language: the reward at the last token, less the KL of
# each token, GAE over tokens with λ = 0.95 and γ = 1, advantages of one scale, clip 0.2, β = 0.05.
ppo = Method(
    credit=(spread, partial(returns, kind="gae", lam=0.95), whiten),
    objective=policy_gradient,
    kl=KL(0.05, kind="k1", place="token"),
    sampling=Sampling(group=1),
)

# Source: VSRM (arXiv 2508.10293; 1benwu1/VSRM-Efficient-LRMs) with PPO: what each stretch between marker words changed
# about the accuracy of answers forced there, at its last token (a stretch that changed nothing shares in the next
# change), and the outcome at the last of all; the KL of each token, β = 0.001, GAE, 1 rollout. λ is verl's 1.
vsrm = replace(
    ppo,
    credit=(
        Sum({"outcome": spread, "potentials": (partial(progress, tolerance=1e-5, lookahead=4, decay=0.7), spread)}),
        partial(returns, kind="gae"),
        whiten,
    ),
    kl=KL(1e-3, kind="k1", place="token"),
)

# Source: RLFR (Jinghaoleven/RLFR): the group's advantage at the last token, what each token strays from the flow
# (`models.flow_reward`, at a small negative weight), less the KL of each token, and what follows. Its estimator is any;
# this is GRPO's. β is not stated; 0.001 is ours.
rlfr = Method(
    credit=(Sum({"outcome": (group_relative, spread), "flow": spread}), returns),
    objective=policy_gradient,
    kl=KL(1e-3, kind="k1", place="token"),
)

# Source: MRT (arXiv 2503.07572; CMU-AIRe/MRT), its form for reinforcement: from the end of a random episode of a
# rollout of the policy, four go on and four stop and answer. Those that go on are compared with those that stop, and
# paid for what each further episode adds to the accuracy of answers forced there; the weight of that, not stated, is
# the recipe's. Whether the difference is divided by a deviation is not stated: here it is not.
mrt = Method(
    credit=Sum({"outcome": partial(group_relative, scale="none"), "potentials": (progress, returns)}),
    objective=partial(policy_gradient, aggregate="sequence-mean"),
    sampling=Sampling(begin=Begin(cut={"at": "markers", "markers": ["Wait", "Alternatively"]}, stops=4)),
)

# Source: PROF (arXiv 2509.03403): GRPO by outcome on half of the rollouts, right and wrong ones in equal numbers, those
# whose steps are judged as their outcome is. The numbers are not stated; 4 of 8 are ours.
prof = replace(grpo, kl=KL(), sampling=Sampling(filter={"part": "data.consistent", "process": "process", "count": 4}))

# Source: PF-PPO (arXiv 2409.06957): PPO on one of 8 rollouts of each prompt, the best or the worst by the reward model.
# N varies there.
pf_ppo = replace(ppo, sampling=Sampling(filter={"part": "data.by_rank", "weights": "best-worst", "count": 1}))

# Source: VL-DAC (arXiv 2508.04280; corl-team/VL-DAC), for rewards by steps: GAE over steps with γ = 0.9 and λ = 0.95,
# one scale for the buffer, a step's advantage on all its tokens, clip 0.1, KL 0.04. Its critic is the recipe's.
vl_dac = Method(
    credit=(partial(returns, kind="gae", gamma=0.9, lam=0.95), whiten),
    objective=partial(policy_gradient, clip=partial(clip.guarded, low=0.1, high=0.1, limit=10.0)),
    kl=KL(0.04),
    sampling=Sampling(group=1),
)

# Source: PRIME (arXiv 2502.01456; PRIME-RL/PRIME): the verifier and the implicit rewards of tokens (`models.
# implicit_reward`), each against the other rollouts, as returns; the sum whitened over the batch. Implicit rewards are
# first brought to returns in [−1, 1]. 4 rollouts of prompts with an accuracy of 0.2 to 0.8, clip 0.2, no KL.
prime = Method(
    credit=(
        Sum(
            {
                "outcome": partial(group_relative, baseline="loo", scale="none"),
                "process": (
                    unit_returns,
                    partial(group_relative, baseline="unbiased", scale="none"),
                    returns,
                ),
            }
        ),
        whiten,
    ),
    objective=policy_gradient,
    sampling=Sampling(group=4, dynamic=True, filter={"part": "data.within", "of": "outcome", "low": 0.2, "high": 0.8}),
)

# Source: iStar (arXiv 2509.19199; Tongyi-ConvAI/Tongyi-Character): an episode against the other episodes, plus each of
# its steps against the steps of the group, w = 1. Its objective is not stated beyond PPO's clip, nor how many rollouts.
istar = Method(
    credit=Sum(
        {
            "outcome": partial(group_relative, baseline="loo", scale="none"),
            "process": partial(group_relative, pool="all", baseline="unbiased", scale="none"),
        }
    ),
    objective=policy_gradient,
)

# Source: IGPO (arXiv 2510.14967), the paper's form: what each turn adds to the probability of the answer
# (`probe.likelihood`), the outcome in place of the last turn's, all normalised together, what follows from each turn;
# γ = 1. The objective is GRPO's.
igpo = Method(
    credit=Sum(
        {
            "potentials": (
                progress,
                partial(renormalize, center=None),
                partial(group_relative, pool="all", eps=0.0),
                returns,
            )
        }
    ),
    objective=partial(policy_gradient, aggregate="sequence-mean"),
)

# Source: SPAE (arXiv 2601.03823) on DAPO: the group's advantage, halved in steps behind a potential of 0.9 and
# corrected by half of each step's progress. Its training code is not released: see `credit.potential_advantages`.
# DAPO's punishment of length is left to the reward.
spae = replace(
    dapo,
    credit=Sum({"outcome": (group_relative, potential_advantages)}),
    sampling=replace(dapo.sampling, filter={"part": "data.varied", "of": "outcome"}),
    shaping=(),
)

# Source: Flow-GRPO (arXiv 2505.05470; yifan123/flow_grpo), for denoising policies: a step is a token. 24 pictures per
# prompt, clip 1e-4 on log-probabilities that are means over elements, and the exact KL of each step, β = 0.04.
flow_grpo = Method(
    credit=group_relative,
    objective=partial(policy_gradient, clip=partial(clip.ppo, low=1e-4, high=1e-4)),
    kl=KL(0.04),
    sampling=Sampling(group=24),
)

# Source: DenseGRPO (arXiv 2601.20218): each step by what it adds to the reward of the picture that the ODE would make
# of the sample, compared within the group at that step. Its noise is calibrated: `sampling: {calibration: {}}`.
dense_grpo = replace(flow_grpo, credit=(progress, partial(group_relative, pool="position")))

# Source: TurningPoint-GRPO (arXiv 2602.06422; YunzeTong/TurningPoint-GRPO): as DenseGRPO, a step that turns a
# trajectory being paid all that it led to; clip 1e-5, KL 1e-4, noise 0.7 of kind cps. Advantages of 24 pictures are
# below 4.7, and its bound of 5 holds none.
turningpoint_grpo = Method(
    credit=(turning_points, partial(group_relative, pool="position")),
    objective=partial(policy_gradient, clip=partial(clip.ppo, low=1e-5, high=1e-5)),
    kl=KL(1e-4),
    sampling=Sampling(group=24),
)

# Source: G²RPO (arXiv 2510.01982; bcmi/Granular-GRPO): pictures that differ by the noise of one step, 12 for each of
# the first 8 of 16 steps, compared at that step; no KL. For `sampling: {steps: 16, window: [0, 8], singular: true,
# granularities: [1, 2]}`. All steps are learned at once, and advantages are not bounded by 5.
g2rpo = replace(
    flow_grpo,
    credit=(spread, partial(group_relative, pool="position", eps=1e-8)),
    kl=KL(),
    sampling=Sampling(group=96),
)

# Source: B²-DiffuRL (arXiv 2503.11240; hu-zijing/B2-DiffuRL): of the branches of one trunk the best if it is good and
# the worst if it is bad, by z-scores over the prompt; clip 0.1. For DDIM and `sampling: {steps: 20, guidance: 5.0,
# branches: 5, interval: [14, 20]}`, two passes. Its z-scores are over earlier stages, too, and how many trunks a prompt
# has is left to chance; here 4 of one stage.
b2_diffurl = Method(
    credit=(partial(group_relative, ddof=0, eps=1e-8), branch_extremes),
    objective=partial(policy_gradient, clip=partial(clip.ppo, low=0.1, high=0.1)),
    sampling=Sampling(group=20),
)

# Source: RLCM (arXiv 2404.03673; Owen-Oertell/rlcm) by PPO, for a latent consistency model and `sampling: {steps: 8,
# guidance: 8.0}`: clip 1e-4, no KL. Its statistics are of the last 16 to 32 pictures of a prompt, here of 16 at once,
# whose advantages are below 4 and its bound of 10.
rlcm = replace(flow_grpo, kl=KL(), sampling=Sampling(group=16))

# Source: D3PO (arXiv 2311.13231; yk7333/d3po): every step of the better of two pictures is preferred, in all pairs of
# 7; β = ε = 0.1. For DDIM with 20 steps and guidance 5. No credit, as for `real`.
d3po = Method(credit=group_relative, objective=step_preference, sampling=Sampling(group=7))

# Source: PRDP (arXiv 2402.08714): differences of summed log-ratios are regressed on differences of rewards, in all
# pairs of 16, and held to 1e-4 per step of where the batch's policy had them. β is not known: 1 is ours, in the
# unit of the rewards. For `sampling: {steps: 50, guidance: 5.0}` and several passes. No credit, as for `real`.
prdp = Method(credit=group_relative, objective=partial(reward_difference, clip=1e-4), sampling=Sampling(group=16))


def load(name: str, **changes: Any) -> Method:
    """The named method, with a recipe's changes.

    Args:
        name: of a preset: grpo, dr_grpo, dapo, bnpo, gspo, luspo, cispo, sapo, reinforce, rloo, w_reinforce, psr, nsr,
            grpo_n, gspo_n, wgrpo, tempo, pure, dler, prime, istar, igpo, spae, real, drpo, opd, exopd, aligndistil,
            rl_plus, gflownet_tb, gflownet_db, gflownet_subtb, b_coder, ppo, vsrm, rlfr, mrt, prof, pf_ppo, vl_dac or
            group_dpo; for denoising policies flow_grpo, dense_grpo or g2rpo.
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
