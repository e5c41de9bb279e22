from .adversarial import (
    MatchHead as MatchHead,
    TokenHead as TokenHead,
    adversarial_reward as adversarial_reward,
    hinge_loss as hinge_loss,
    preference_loss as preference_loss,
    realism as realism,
)
from .conciseness import (
    ConcisenessHead as ConcisenessHead,
    concise as concise,
    demonstrations as demonstrations,
    discriminative as discriminative,
    rated as rated,
)
from .decomposition import decomposed_return as decomposed_return
from .error_bound import ErrorBound as ErrorBound, FeatureReward as FeatureReward
from .feedback import listening as listening
from .fitting import fit as fit, language_loss as language_loss
from .flow_field import (
    FlowField as FlowField,
    flow_deviation as flow_deviation,
    flow_error as flow_error,
    flow_loss as flow_loss,
)
from .heads import (
    DisentangledHeads as DisentangledHeads,
    LinearHead as LinearHead,
    QueryHead as QueryHead,
    states_of as states_of,
    step_states as step_states,
)
from .implicit import (
    at_steps as at_steps,
    implicit_loss as implicit_loss,
    implicit_rewards as implicit_rewards,
    log_ratio as log_ratio,
    total as total,
    written_runs as written_runs,
)
from .list_judge import (
    Achieved as Achieved,
    Agreement as Agreement,
    achieved as achieved,
    agreement as agreement,
    checklist as checklist,
    listed as listed,
    marks as marks,
    tally as tally,
)
from .multiscale import MultiScalePlanner as MultiScalePlanner
from .necessary import answered as answered, chunk_states as chunk_states, detector as detector
from .online import implicit_reward as implicit_reward
from .online_flow import flow_reward as flow_reward
from .pair_judge import preferred as preferred, tournament as tournament
from .pairwise import (
    TieAccuracy as TieAccuracy,
    bradley_terry as bradley_terry,
    length_bias as length_bias,
    tie_accuracy as tie_accuracy,
)
from .personal import UserAttention as UserAttention, drop_users as drop_users, personalize as personalize
from .step_judge import judged_turns as judged_turns, points as points
from .steps import transitions as transitions
from .stopping import BestWeights as BestWeights
from .subgoals import subgoal_rewards as subgoal_rewards
from .transport_map import (
    TransportMap as TransportMap,
    fit_transport as fit_transport,
    map_loss as map_loss,
    potential_loss as potential_loss,
)
from .value import (
    TokenValues as TokenValues,
    allot as allot,
    beam_search as beam_search,
    beam_searches as beam_searches,
    fit_values as fit_values,
    value_loss as value_loss,
)
