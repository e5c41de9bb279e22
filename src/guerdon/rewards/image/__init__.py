"""Pictures that were generated, and charts and tables that were read.

    part          says
    composition   whether the objects asked for are there: how many, in which colour, where; from detections
    palette       how far the colours are those of a reference
    artifacts     how far it is free of noise, blur and the seams of blocks
    table         how far a table in the reply is the reference's, cell by cell
    digit         how sure a classifier is of the handwritten digit that was asked for
    compactness   how close together the ink is

A picture is the completion itself, or a column: an array, a PIL image, the bytes of a file or a `data:` text. One that
cannot be read gets the floor, and the detail `problem` says why; where the reference is unusable the row abstains.
"""

from guerdon.rewards.image.artifacts import artifacts, blocking, blur, noise
from guerdon.rewards.image.colors import color_name, palette
from guerdon.rewards.image.composition import composition, relations
from guerdon.rewards.image.digits import compactness, digit
from guerdon.rewards.image.reading import picture
from guerdon.rewards.image.tables import read_table, table

__all__ = [
    "artifacts",
    "blocking",
    "blur",
    "color_name",
    "compactness",
    "composition",
    "digit",
    "noise",
    "palette",
    "picture",
    "read_table",
    "relations",
    "table",
]
