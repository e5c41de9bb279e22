"""What can be checked or measured: one module per domain, imported when it is first named."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
