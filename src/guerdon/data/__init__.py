"""Data: which prompts, rollouts and pairs are learned from, and who gets the next sample.

A `Filter` is a frozen dataclass of options that says which groups of a batch count, or which rollouts of them, and can
be written as data. What selects is a pure function of arrays, and takes its randomness as `rng`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
