"""Boxes, points, masks, grids and meshes: what they have in common, as pure functions of arrays.

All are batched, take what is broken (NaN, high below low) for the worst there can be, and never give NaN; but what is
no mesh is an error.
`grounding` reads replies and scores them with these.

    part                                 compares
    iou                                  boxes in time, pictures and space; generalised; whole pixels
    gaussian · inside                    a point and a box
    coverage · edge_agreement            the sizes of two boxes
    Sets · pair_up · average_precision   sets of boxes
    mask_iou · fill · follow             masks, of boxes too, over frames
    frame_worth · view_worth             which frame, which views
    block_match                          grids
    surface_points · rendered            meshes, to points and pictures
    size_weights                         how hard a target is to hit
"""

from guerdon.rewards.geometry.boxes import (
    centers,
    coverage,
    edge_agreement,
    fill,
    gaussian,
    inside,
    iou,
    size_weights,
    usable,
)
from guerdon.rewards.geometry.grids import block_match
from guerdon.rewards.geometry.masks import follow, frame_worth, mask_iou
from guerdon.rewards.geometry.meshes import SurfacePoints, rendered, surface_points
from guerdon.rewards.geometry.sets import Pairs, Sets, average_precision, pair_up
from guerdon.rewards.geometry.views import top_views, view_anchor, view_worth

__all__ = [
    "Pairs",
    "Sets",
    "SurfacePoints",
    "average_precision",
    "block_match",
    "centers",
    "coverage",
    "edge_agreement",
    "fill",
    "follow",
    "frame_worth",
    "gaussian",
    "inside",
    "iou",
    "mask_iou",
    "pair_up",
    "rendered",
    "size_weights",
    "surface_points",
    "top_views",
    "usable",
    "view_anchor",
    "view_worth",
]
