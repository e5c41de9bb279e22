"""Where a reply says that something is: points, boxes, stretches of time, frames and cells, against a reference.

    part                                         reads the column
    iou · inside · gaussian · coverage · edges   box        one box or click
    detection · confidence · average_precision   boxes      a list of boxes, with labels and confidences
    span                                         span       a stretch of time
    key_frame · key_boxes · segmentation         frames …   a frame of a video, and boxes in it
    clicks                                       boxes      a click per step
    grid                                         solution   cells
    form · reasoned · repetition                            how the answer is written

What cannot be read gets the floor, and the detail `problem` says why; where the reference is unusable the row
abstains. The measures themselves are `geometry`'s.
"""

from guerdon.rewards.grounding.detection import average_precision, confidence, detection, repetition
from guerdon.rewards.grounding.forms import form, reasoned
from guerdon.rewards.grounding.frames import key_boxes, key_frame, segmentation, span
from guerdon.rewards.grounding.single import coverage, edges, gaussian, inside, iou
from guerdon.rewards.grounding.trails import clicks, grid

__all__ = [
    "average_precision",
    "clicks",
    "confidence",
    "coverage",
    "detection",
    "edges",
    "form",
    "gaussian",
    "grid",
    "inside",
    "iou",
    "key_boxes",
    "key_frame",
    "reasoned",
    "repetition",
    "segmentation",
    "span",
]
