"""Models you train, reward and value models and planners; and judges that you bring, as rewards."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
