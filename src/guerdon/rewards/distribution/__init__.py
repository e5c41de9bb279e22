"""Sets of vectors: how far from a reference, how varied, how near to exemplars; and transport between tokens.

    reward      scores                                    against
    own         each rollout's own set (chunks, frames)   a reference set
    group       the rollouts of a group together          a reference set, or nothing
    batch       all rollouts of a batch together          a reference set, or nothing
    exemplar    each rollout's one vector                 exemplars

Each of the first three takes any `measure`: 'frechet', 'kernel', 'transport' or 'vendi'.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
