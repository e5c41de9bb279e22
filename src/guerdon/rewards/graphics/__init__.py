"""Drawings as code: SVG rendered by resvg and compared with a picture.

    part         compares
    match        the drawing with the reference, by colours, edges and structure, and the length of its code
    perceptual   the same for an image encoder
    judged       the drawing with the prompt, by CLIP or a vision-language model
    length       the code with the reference's

An answer that cannot be drawn gets the floor, and the detail `problem` says why; where the reference is unusable the
row abstains. Drawing happens in a process that is bounded in time and memory: a drawing that never ends is an answer
like any other. `l2`, `edge_map`, `ssim` and `brevity` are the measures, as functions of pictures.
"""

from guerdon.rewards.graphics.likeness import brevity, edge_map, l2, ssim
from guerdon.rewards.graphics.matching import judged, length, match, perceptual
from guerdon.rewards.graphics.source import read_svg, svg_in

__all__ = [
    "brevity",
    "edge_map",
    "judged",
    "l2",
    "length",
    "match",
    "perceptual",
    "read_svg",
    "ssim",
    "svg_in",
]
