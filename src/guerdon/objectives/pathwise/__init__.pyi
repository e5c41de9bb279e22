from .chains import (
    denoise as denoise,
    last_part as last_part,
    noised as noised,
    one_step as one_step,
    recovered as recovered,
    truncation as truncation,
)
from .consistency import (
    condition_error as condition_error,
    consistency_loss as consistency_loss,
    disagreement as disagreement,
)
from .corrections import directional as directional, self_correction as self_correction
from .discrete import (
    masked_chain as masked_chain,
    rate_kl as rate_kl,
    soft_step as soft_step,
    straight_through as straight_through,
)
from .drifts import absorbing as absorbing, drift as drift
from .gradient import (
    parameter_drift as parameter_drift,
    pathwise_gradient as pathwise_gradient,
    reward_loss as reward_loss,
)
from .rewards import (
    balanced as balanced,
    check_differentiable as check_differentiable,
    guidance as guidance,
    of_rollouts as of_rollouts,
    segmental as segmental,
    spsa as spsa,
)
