"""What a reasoning is worth so far: cut it, make the model stop and answer there, and see.

Each part gives one potential per boundary, as scores of steps: what a step is worth is the difference of the
potentials at its two ends, `credit.progress`. The boundaries are said by `cut` (see `Cut`), as plain data:
`cut={"at": "separator", "separator": ".\\n\\n"}`. What makes the model stop is `stop`, text put behind the cut.

    part          the potential at a boundary
    likelihood    how likely the reference is there
    accuracy      how often answers sampled there are right
    confidence    how sure the model is of answers sampled there
"""

from guerdon.rewards.probe.cut import Cut, cuts
from guerdon.rewards.probe.potential import accuracy, confidence, likelihood

__all__ = ["Cut", "accuracy", "confidence", "cuts", "likelihood"]
