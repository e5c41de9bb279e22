"""Data: which prompts, rollouts and pairs are learned from, and who gets the next sample.

A `Filter` is a frozen dataclass of options that says which groups of a batch count, or which rollouts of them, and can
be written as data. What selects is a pure function of arrays, and takes its randomness as `rng`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.data.allocation import Allocator, configuration_bound
    from guerdon.data.choosing import Candidates, drawn, effective_value, forked, highest
    from guerdon.data.collapse import Collapse, collapses
    from guerdon.data.contrast import Contrast, contrast_sets
    from guerdon.data.curriculum import Batch, Curriculum, Pace, Shuffled, carry_over, fill
    from guerdon.data.difficulty import ranked
    from guerdon.data.filter import Filter, chain, dump_filter, load_filter
    from guerdon.data.filters import adaptive, measured, mixed, upper, varied, within
    from guerdon.data.growing import Forest, Paths, grow
    from guerdon.data.guidance import Attempt, Task, copied, guided_attempts, resolved
    from guerdon.data.history import (
        Pair,
        Saturation,
        history_spread,
        learning_impact,
        post_saturation,
        reflection_share,
        success_pair,
    )
    from guerdon.data.merging import average_weights, merge_updates
    from guerdon.data.pairs import Pairs, preference_labels, preference_pairs
    from guerdon.data.prefixes import PrefixValues, cut_prefixes, first_drop, prefix_values
    from guerdon.data.ranks import draw_rows, fidelity_by_filter, linear_fidelity, rank_weights
    from guerdon.data.repair import Mended, mend
    from guerdon.data.rows import by_rank, consistent
    from guerdon.data.selection import answer_support, balanced, consistency, top_of_group
    from guerdon.data.stages import Staged

__all__ = [
    "Allocator",
    "Attempt",
    "Batch",
    "Candidates",
    "Collapse",
    "Contrast",
    "Curriculum",
    "Filter",
    "Forest",
    "Mended",
    "Pace",
    "Pair",
    "Pairs",
    "Paths",
    "PrefixValues",
    "Saturation",
    "Shuffled",
    "Staged",
    "Task",
    "adaptive",
    "answer_support",
    "average_weights",
    "balanced",
    "by_rank",
    "carry_over",
    "chain",
    "collapses",
    "configuration_bound",
    "consistency",
    "consistent",
    "contrast_sets",
    "copied",
    "cut_prefixes",
    "draw_rows",
    "drawn",
    "dump_filter",
    "effective_value",
    "fidelity_by_filter",
    "fill",
    "first_drop",
    "forked",
    "grow",
    "guided_attempts",
    "highest",
    "history_spread",
    "learning_impact",
    "linear_fidelity",
    "load_filter",
    "measured",
    "mend",
    "merge_updates",
    "mixed",
    "post_saturation",
    "preference_labels",
    "preference_pairs",
    "prefix_values",
    "rank_weights",
    "ranked",
    "reflection_share",
    "resolved",
    "success_pair",
    "top_of_group",
    "upper",
    "varied",
    "within",
]

_HOMES = {
    "Allocator": "allocation",
    "Attempt": "guidance",
    "Batch": "curriculum",
    "Candidates": "choosing",
    "Collapse": "collapse",
    "Contrast": "contrast",
    "Curriculum": "curriculum",
    "Filter": "filter",
    "Forest": "growing",
    "Mended": "repair",
    "Pace": "curriculum",
    "Pair": "history",
    "Pairs": "pairs",
    "Paths": "growing",
    "PrefixValues": "prefixes",
    "Saturation": "history",
    "Shuffled": "curriculum",
    "Staged": "stages",
    "Task": "guidance",
    "adaptive": "filters",
    "answer_support": "selection",
    "average_weights": "merging",
    "balanced": "selection",
    "by_rank": "rows",
    "carry_over": "curriculum",
    "chain": "filter",
    "collapses": "collapse",
    "configuration_bound": "allocation",
    "consistency": "selection",
    "consistent": "rows",
    "contrast_sets": "contrast",
    "copied": "guidance",
    "cut_prefixes": "prefixes",
    "draw_rows": "ranks",
    "drawn": "choosing",
    "dump_filter": "filter",
    "effective_value": "choosing",
    "fidelity_by_filter": "ranks",
    "fill": "curriculum",
    "first_drop": "prefixes",
    "forked": "choosing",
    "grow": "growing",
    "guided_attempts": "guidance",
    "highest": "choosing",
    "history_spread": "history",
    "learning_impact": "history",
    "linear_fidelity": "ranks",
    "load_filter": "filter",
    "measured": "filters",
    "mend": "repair",
    "merge_updates": "merging",
    "mixed": "filters",
    "post_saturation": "history",
    "preference_labels": "pairs",
    "preference_pairs": "pairs",
    "prefix_values": "prefixes",
    "rank_weights": "ranks",
    "ranked": "difficulty",
    "reflection_share": "history",
    "resolved": "guidance",
    "success_pair": "history",
    "top_of_group": "selection",
    "upper": "filters",
    "varied": "filters",
    "within": "filters",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
