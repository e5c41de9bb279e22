"""Videos and what is seen in them, by their geometry: positions and never brightness.

    part           compares
    reprojection   points that were tracked with where the geometry of the scene puts them
    consistency    the depth of each view with that of the others
    tracking       a simulated body and object with what a video shows of them

Depth, poses and tracks come from models that the user brings, as columns; where they cannot be used the row abstains.
A video that does not move keeps its geometry perfectly: `reprojection` and `consistency` want some motion.
`project`, `back_project`, `reprojection_error`, `view_agreement`, `attended` and the terms of `tracking` are functions
of arrays.
"""

from guerdon.rewards.video.geometry import (
    attended,
    back_project,
    moving,
    project,
    reprojection_error,
    view_agreement,
)
from guerdon.rewards.video.imitation import joints_term, lost, pixels_term, rotations_term, tracking
from guerdon.rewards.video.scenes import consistency, reprojection

__all__ = [
    "attended",
    "back_project",
    "consistency",
    "joints_term",
    "lost",
    "moving",
    "pixels_term",
    "project",
    "reprojection",
    "reprojection_error",
    "rotations_term",
    "tracking",
    "view_agreement",
]
