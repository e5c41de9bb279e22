"""The differentiable path: a reward's gradient goes back through the samples into the model that made them.

pathwise_gradient            chain, reward and loss in one
denoise · one_step           samples with a graph: of the last steps of a chain, of one estimate
balanced · guidance · spsa · segmental · of_rollouts     rewards: functions of samples with a gradient
consistency_loss             a condition read back from one-step estimates: masked, weighed by how sure it is
masked_chain                 tokens instead of pixels, by Gumbel-softmax
directional                  a reward of embeddings, corrected along one learned direction
self_correction              a chain gone astray, without a reward
drift · absorbing            a reward's gradient while sampling, and its distillation into the policy
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
