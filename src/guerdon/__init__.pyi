from . import (
    algebra as algebra,
    core as core,
    credit as credit,
    engine as engine,
    objectives as objectives,
    rewards as rewards,
    shaping as shaping,
    train as train,
)
from .algebra import (
    Leaf as Leaf,
    Learned as Learned,
    Reward as Reward,
    available as available,
    gate as gate,
    geometric as geometric,
    harmonic as harmonic,
    lexicographic as lexicographic,
    product as product,
    reduce as reduce,
    reward as reward,
    route as route,
    tiers as tiers,
    weigh as weigh,
)
from .core import (
    Abstain as Abstain,
    Context as Context,
    GuerdonError as GuerdonError,
    Rollouts as Rollouts,
    Scores as Scores,
)
from .engine import Engine as Engine

__version__: str
