"""Scores to scores: bounding, centring, normalising, length, gates over groups, schedules, steps.

A shaper is a frozen dataclass of options; calling it is pure. `reward >> shaper` applies it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
