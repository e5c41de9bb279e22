"""Credit: from scores and the structure of a batch to advantages. Pure functions of torch tensors.

`credit.rank`, which turns comparisons into scores, has a door of its own and needs no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
