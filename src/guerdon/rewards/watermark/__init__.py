"""Marks in a text that a detector finds: green lists, how they bias what is written, and rewards for choosing them.

A green list says of every token of a vocabulary whether it is green. Text written with the green tokens made likelier
has more of them than chance; how many more is the detection score. Whoever chooses the lists is paid by how far the
score of marked text is from that of other text, and never for a high score by itself: a list of all tokens has that.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
