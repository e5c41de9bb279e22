"""Pictures as the tokens of a vision transformer: one for the whole and one for each patch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from guerdon.core.errors import GuerdonError
from guerdon.rewards.image.reading import picture

if TYPE_CHECKING:
    from torch import Tensor


@lru_cache(maxsize=2)
def token_encoder(path: str, *, batch: int = 64) -> Callable[[Sequence[Any]], Float[Tensor, "n k d"]]:
    """A vision transformer of `transformers` such as DINOv2, frozen: from pictures to its tokens.

    Args:
        path: a folder, or a name on the Hugging Face hub.
        batch: pictures that pass through it at once.

    Returns:
        A function from pictures, as `image.reading.picture` takes them, to the last states: the class token first,
        registers left out, then the patches.

    Raises:
        GuerdonError: if it cannot be loaded, or gives no tokens; of the function, if an entry is no picture.

    Source: DINOv2 (arXiv 2304.07193), whose ViT-B/14 at 518 pixels Adv-GRPO (2511.20256) reads.
    """
    import torch
    from transformers import AutoImageProcessor, AutoModel

    try:
        model = AutoModel.from_pretrained(path).eval().requires_grad_(False)
        processor = AutoImageProcessor.from_pretrained(path)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, ImportError) as error:
        raise GuerdonError(f"the encoder {path!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    registers = int(getattr(model.config, "num_register_tokens", 0))

    def encode(entries: Sequence[Any]) -> Float[Tensor, "n k d"]:
        try:
            pictures = [picture(entry) for entry in entries]
        except ValueError as problem:
            raise GuerdonError(f"an entry is no picture: {problem}") from problem
        rows = []
        with torch.no_grad():
            for start in range(0, len(pictures), batch):
                some = [np.asarray(one) for one in pictures[start : start + batch]]
                found = model(**processor(images=some, return_tensors="pt"))
                states = getattr(found, "last_hidden_state", None)
                if states is None or states.ndim != 3:
                    raise GuerdonError(f"the encoder {path!r} is a {type(model).__name__}, which gives no tokens")
                rows.append(torch.cat([states[:, :1], states[:, 1 + registers :]], 1))
        return torch.cat(rows)

    return encode
