"""Training of planners, which act in an environment, on recorded episodes: `loop` reads from top to bottom."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
