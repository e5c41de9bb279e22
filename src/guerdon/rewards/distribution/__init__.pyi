from .measures import (
    Gaussian as Gaussian,
    fitted as fitted,
    frechet_distance as frechet_distance,
    gaussian as gaussian,
    kernel_distance as kernel_distance,
    likeness as likeness,
    transport_distance as transport_distance,
    vendi_score as vendi_score,
)
from .sets import batch as batch, exemplar as exemplar, group as group, own as own, set_value as set_value
from .transport import (
    sinkhorn as sinkhorn,
    token_cost as token_cost,
    transported_attention as transported_attention,
    transported_match as transported_match,
)
