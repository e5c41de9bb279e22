from .bilevel import blend as blend, implicit_gradient as implicit_gradient, reinforce_update as reinforce_update
from .groups import curiosity as curiosity, pool as pool, top_groups as top_groups
from .kinds import onto as onto
from .length import brevity as brevity, overlong as overlong
from .length_group import group_length as group_length
from .length_history import history_length as history_length
from .length_target import monitored_length as monitored_length, target_length as target_length
from .noise import flip as flip
from .normalization import normalize as normalize, tilt as tilt
from .pointwise import bound as bound, center as center, clip as clip, quantize as quantize, threshold as threshold
from .reference import relative as relative
from .schedule import anneal as anneal
from .shaper import Shaper as Shaper
from .steps import delta as delta, gain as gain, needed as needed, pin_last as pin_last
from .teams import team_spirit as team_spirit
from .uncertainty import trust as trust
