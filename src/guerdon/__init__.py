"""Everything between a generation and a gradient: rewards that compose, cannot lie and train policies."""

from importlib.metadata import version

import lazy_loader

__version__ = version("guerdon")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__.append("__version__")
