"""Running the leaves of a reward at speed: each unit under its own deadline, no failure ever a number.

The names are imported when they are first used: a worker process imports this package and needs none of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
