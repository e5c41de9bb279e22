from .allocation import Allocator as Allocator, configuration_bound as configuration_bound
from .choosing import (
    Candidates as Candidates,
    drawn as drawn,
    effective_value as effective_value,
    forked as forked,
    highest as highest,
)
from .collapse import Collapse as Collapse, collapses as collapses
from .contrast import Contrast as Contrast, contrast_sets as contrast_sets
from .curriculum import (
    Batch as Batch,
    Curriculum as Curriculum,
    Pace as Pace,
    Shuffled as Shuffled,
    carry_over as carry_over,
    fill as fill,
)
from .difficulty import ranked as ranked
from .filter import Filter as Filter, chain as chain, dump_filter as dump_filter, load_filter as load_filter
from .filters import (
    adaptive as adaptive,
    measured as measured,
    mixed as mixed,
    upper as upper,
    varied as varied,
    within as within,
)
from .growing import Forest as Forest, Paths as Paths, grow as grow
from .guidance import (
    Attempt as Attempt,
    Task as Task,
    copied as copied,
    guided_attempts as guided_attempts,
    resolved as resolved,
)
from .history import (
    Pair as Pair,
    Saturation as Saturation,
    history_spread as history_spread,
    learning_impact as learning_impact,
    post_saturation as post_saturation,
    reflection_share as reflection_share,
    success_pair as success_pair,
)
from .merging import average_weights as average_weights, merge_updates as merge_updates
from .pairs import Pairs as Pairs, preference_labels as preference_labels, preference_pairs as preference_pairs
from .pool import Pool as Pool, Unsolved as Unsolved
from .prefixes import (
    PrefixValues as PrefixValues,
    cut_prefixes as cut_prefixes,
    first_drop as first_drop,
    prefix_values as prefix_values,
)
from .ranks import (
    draw_rows as draw_rows,
    fidelity_by_filter as fidelity_by_filter,
    linear_fidelity as linear_fidelity,
    rank_weights as rank_weights,
)
from .repair import Mended as Mended, mend as mend
from .rows import by_rank as by_rank, consistent as consistent
from .selection import (
    answer_support as answer_support,
    balanced as balanced,
    consistency as consistency,
    top_of_group as top_of_group,
)
from .stages import Staged as Staged
