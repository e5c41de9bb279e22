"""A denoiser that knows whom it draws for: attention to a user beside that to the text."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class UserAttention(nn.Module):
    r"""Attention to a user, beside one to the text, with the text's queries.

        Z = softmax(Q Kᵀ/√d) V + s · softmax(Q (u W_k)ᵀ/√d) (u W_v)

    What is added to the text's attention, the second term, is 0 where a user is all 0, and for every user before
    anything was learned: W_v begins at 0. Only W_k and W_v learn; the base is frozen.

    Args:
        width: of the user's states.
        inner: of the queries, all heads together.
        heads: of attention.

    Raises:
        ValueError: if the heads do not divide the queries.

    Source: PPD (arXiv 2501.06655); decoupled cross-attention: IP-Adapter (2308.06721).
    """

    def __init__(self, width: int, inner: int, *, heads: int = 1) -> None:
        super().__init__()
        if inner % heads:
            raise ValueError(f"{heads} heads do not divide queries of {inner}")
        self.heads = heads
        self.key, self.value = (nn.Linear(width, inner, bias=False) for _ in range(2))
        nn.init.zeros_(self.value.weight)

    def forward(self, queries: Float[Tensor, "n q d"], user: Float[Tensor, "n k w"]) -> Float[Tensor, "n q d"]:
        """The second term, at s = 1, for one user per row."""

        def split(x: Tensor) -> Tensor:
            return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

        q, k, v = split(queries), split(self.key(user)), split(self.value(user))
        seen = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(3) @ v
        return seen.transpose(1, 2).flatten(2)


def personalize(denoiser: Any, width: int, *, tokens: int = 1) -> list[nn.Parameter]:
    """Give each attention of a diffusers U-Net to the text a `UserAttention`, by diffusers' own IP-Adapter.

    In place. The base is frozen. The user is passed as `added_cond_kwargs={"image_embeds": [users]}`, users "n 1 k w";
    all 0 for nobody in particular.

    Args:
        denoiser: a `UNet2DConditionModel`, or another model of diffusers whose attentions can be replaced.
        width: w of the user's states.
        tokens: k of them.

    Returns:
        The weights that learn: W_k and W_v of each attention.

    Raises:
        MissingExtra: without diffusers.
        ValueError: if the model has no attention to a text.

    Source: PPD (arXiv 2501.06655).
    """
    from guerdon.core.extras import needs

    needs("models.personalize", "diffusers", extra="diffusion")()
    from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0

    denoiser.requires_grad_(False)
    processors: dict[str, Any] = {}
    learned: list[nn.Parameter] = []
    for name in denoiser.attn_processors:
        attention = denoiser.get_submodule(name.removesuffix(".processor"))
        if not attention.is_cross_attention:
            processors[name] = AttnProcessor2_0()  # type: ignore[no-untyped-call]
            continue
        processor: Any = IPAdapterAttnProcessor2_0(  # type: ignore[no-untyped-call]
            hidden_size=attention.inner_dim, cross_attention_dim=width, num_tokens=(tokens,), scale=1.0
        ).to(attention.to_q.weight)
        for projection in processor.to_v_ip:
            nn.init.zeros_(projection.weight)
        learned += processor.parameters()
        processors[name] = processor
    if not learned:
        raise ValueError("the model has no attention to a text, beside which a user could stand")
    denoiser.set_attn_processor(processors)
    denoiser.encoder_hid_proj = _AsGiven()
    denoiser.register_to_config(encoder_hid_dim_type="ip_image_proj")
    return learned


class _AsGiven(nn.Module):
    """The user's states are the keys' input themselves."""

    image_projection_layers: tuple[nn.Module, ...] = ()

    def forward(self, users: Any) -> Any:
        return users


def drop_users(
    users: Float[Tensor, "n k w"], *, rate: float = 0.1, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "n k w"], Bool[Tensor, "n"]]:
    """Some users replaced by nobody, all 0: the model then also learns what people like in general.

    Args:
        users: one per row.
        rate: the share that is dropped.
        generator: of the choice.

    Returns:
        The users, and which rows kept theirs.

    Raises:
        ValueError: unless 0 ≤ rate ≤ 1.

    Source: PPD (arXiv 2501.06655), which does not say the rate; classifier-free guidance (2207.12598).
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate}")
    kept = torch.rand(len(users), generator=generator, device=users.device) >= rate
    return users * kept.reshape(-1, *(1,) * (users.ndim - 1)), kept
