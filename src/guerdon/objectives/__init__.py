"""Objectives: from log-probabilities and advantages to a loss. Pure functions of torch tensors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
