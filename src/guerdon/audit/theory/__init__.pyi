from .curation import Curated as Curated, curated_retraining as curated_retraining, curation_gain as curation_gain
from .dynamics import (
    flow_direction as flow_direction,
    mass_flow as mass_flow,
    sampled_dynamics as sampled_dynamics,
    softmax_flow as softmax_flow,
    stages as stages,
)
from .passes import (
    accuracy_histogram as accuracy_histogram,
    bootstrap as bootstrap,
    coverage as coverage,
    crossover as crossover,
    efficiency_gap as efficiency_gap,
    pass_at_k as pass_at_k,
    pass_curve as pass_curve,
)
from .tilting import (
    Tilt as Tilt,
    best_of_n as best_of_n,
    best_of_n_kl_bound as best_of_n_kl_bound,
    divergence as divergence,
    frontier as frontier,
    regret as regret,
    tilt as tilt,
)
from .traces import (
    anti_concentration as anti_concentration,
    bilevel_reward as bilevel_reward,
    planted_rewards as planted_rewards,
    q_variance as q_variance,
    trace_variance as trace_variance,
    verification_gap as verification_gap,
)
