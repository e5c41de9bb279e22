from .anchored import anchored as anchored, balance as balance
from .detection import Detection as Detection, detect as detect, gate as gate, green_share as green_share
from .marking import biased as biased, green_lists as green_lists, token_dimensions as token_dimensions
