"""What a model says of a given text, as a reward: no answer is sampled, one is read.

Every part asks a model of the context, by its name ('policy', 'reference', a name of your own), for the
log-probabilities of a target after a context, one forward pass each. The target is turned into tokens by
itself, so it has the same tokens after every context and its tokens can be compared between contexts.

    part             target                  context
    answer           the reference           the prompt and the completion's reasoning
    bound            the reference           the same, pooled over the group
    reflection       the reference           the same, its tokens weighed by how much the group's reasonings move them
    completion       the completion          the prompt, or nothing
    self_aligned     the completion          the prompt, against nothing
    density_ratio    the completion          the prompt, under two models
    endogenous       the completion          the prompt, logits read as soft values
    follow_up        what a user says next   the prompt and the completion
"""

from guerdon.rewards.likelihood.completion import completion, density_ratio, endogenous, inverse_bellman, self_aligned
from guerdon.rewards.likelihood.follow_up import follow_up
from guerdon.rewards.likelihood.forced import forced, reduce
from guerdon.rewards.likelihood.reference import answer, bound, log_mean_exp, placed, reflection
from guerdon.rewards.likelihood.reflecting import propagated, reflect, teachable, token_weights

__all__ = [
    "answer",
    "bound",
    "completion",
    "density_ratio",
    "endogenous",
    "follow_up",
    "forced",
    "inverse_bellman",
    "log_mean_exp",
    "placed",
    "propagated",
    "reduce",
    "reflect",
    "reflection",
    "self_aligned",
    "teachable",
    "token_weights",
]
