"""The reward expression: leaves, and the arithmetic that combines them.

A reward is immutable data. Its leaves do work, run by the engine; everything else here is a pure
function of their scores. Abstention passes through: a combination abstains where it needs a score
that is not there.
"""

from guerdon.algebra.combine import available, harmonic, product
from guerdon.algebra.expression import Reward
from guerdon.algebra.function import FunctionLeaf, reward
from guerdon.algebra.gate import gate
from guerdon.algebra.geometric import geometric
from guerdon.algebra.leaf import Leaf, Learned
from guerdon.algebra.order import lexicographic
from guerdon.algebra.route import route
from guerdon.algebra.steps import broadcast, reduce
from guerdon.algebra.tiers import tiers
from guerdon.algebra.trust import trusted
from guerdon.algebra.weigh import weigh

__all__ = [
    "FunctionLeaf",
    "Leaf",
    "Learned",
    "Reward",
    "available",
    "broadcast",
    "gate",
    "geometric",
    "harmonic",
    "lexicographic",
    "product",
    "reduce",
    "reward",
    "route",
    "tiers",
    "trusted",
    "weigh",
]
