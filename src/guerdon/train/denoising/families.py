"""Families of denoising networks: what they read of prompts, how samples are put to them, how guidance enters.

A condition is a table of tensors with one entry per row; what stands in a tensor's place without a prompt has its name
behind `FREE`. A family is one class here: all that `Denoiser` must know of a network beyond its scheduler.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.core.errors import RecipeError

FREE = "free_"
Condition = Mapping[str, Tensor]
Size = tuple[int, int, int]


class Family:
    """A network that is asked with samples as they are.

    Args:
        network: of `diffusers`; its first parameter is the sample.
        pipeline: the one it is from, if any: it reads prompts.
        side: height and width of what is denoised; None: the network's own.

    Raises:
        RecipeError: if the size does not suit the network.
    """

    def __init__(self, network: Any, pipeline: Any, side: int | None) -> None:
        self.network, self.pipeline = network, pipeline
        own = side or network.config.sample_size
        height, width = (own, own) if isinstance(own, int) else own
        self.size: Size = (int(network.config.in_channels), int(height), int(width))

    @property
    def told(self) -> bool:
        """Whether guidance is told to the network, in place of asking it without the prompt, too."""
        return bool(self.network.config.get("time_cond_proj_dim"))

    @property
    def tokens(self) -> int:
        """How many a sample is to the network, by which some schedulers shift their times."""
        patch = int(self.network.config.get("patch_size") or 1)
        return (self.size[1] // patch) * (self.size[2] // patch)

    def encode(self, prompt: str, device: torch.device) -> dict[str, Tensor]:
        """What the network reads of one prompt, and of none: tables of one row.

        Raises:
            RecipeError: if it is none that the network knows.
        """
        raise NotImplementedError

    def ask(self, x: Float[Tensor, "n *d"], time: Float[Tensor, "n"], condition: Condition, guidance: float) -> Tensor:
        """What the network says of samples; of the guidance it is told where `told`."""
        said: Tensor = self.network(x, timestep=time, **condition, **self._told(x, guidance), return_dict=False)[0]
        return said

    def _told(self, x: Tensor, guidance: float) -> dict[str, Tensor]:
        """The guidance, for a network that was distilled to be told it: that of a latent consistency model."""
        if not self.told:
            return {}
        scale = torch.full((len(x),), guidance - 1, dtype=torch.float32)
        size = self.network.config.time_cond_proj_dim
        return {"timestep_cond": self.pipeline.get_guidance_scale_embedding(scale, embedding_dim=size).to(x)}


class ByClass(Family):
    """A class in place of a prompt: DiT, or a U-Net with class embeddings."""

    @property
    def classes(self) -> int:
        """How many there are."""
        return _classes(self.network)

    def encode(self, prompt: str, device: torch.device) -> dict[str, Tensor]:
        if not prompt.isdecimal() or int(prompt) >= self.classes:
            raise RecipeError(f"prompts: {prompt!r} is not a class: they are 0 to {self.classes - 1}")
        return {"class_labels": torch.tensor([int(prompt)]), f"{FREE}class_labels": torch.tensor([self.classes])}


class ByText(Family):
    """Embeddings of texts, and maybe a pooled one: Stable Diffusion 1 to 3."""

    def encode(self, prompt: str, device: torch.device) -> dict[str, Tensor]:
        encode = self.pipeline.encode_prompt
        known = {"prompt": [prompt], "device": device, "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
        required = [x.name for x in inspect.signature(encode).parameters.values() if x.default is x.empty]
        names = ["encoder_hidden_states", f"{FREE}encoder_hidden_states"]
        if "pooled_projections" in _parameters(self.network):
            names += ["pooled_projections", f"{FREE}pooled_projections"]
        return dict(zip(names, encode(**{**dict.fromkeys(required), **known}), strict=False))


class XL(Family):
    """Stable Diffusion XL: embeddings of texts, a pooled one, and the size of the picture."""

    def encode(self, prompt: str, device: torch.device) -> dict[str, Tensor]:
        text, no_text, pooled, not_pooled = self.pipeline.encode_prompt(
            [prompt], device=device, num_images_per_prompt=1, do_classifier_free_guidance=True
        )
        height, width = (side * self.pipeline.vae_scale_factor for side in self.size[1:])
        # The picture as if it had been seen in its own size and whole.
        ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=text.dtype)
        table = {"encoder_hidden_states": (text, no_text), "text_embeds": (pooled, not_pooled), "time_ids": (ids, ids)}
        return {prefix + name: pair[i] for name, pair in table.items() for i, prefix in enumerate(("", FREE))}

    def ask(self, x: Float[Tensor, "n *d"], time: Float[Tensor, "n"], condition: Condition, guidance: float) -> Tensor:
        added = {name: condition[name] for name in ("text_embeds", "time_ids")}
        said: Tensor = self.network(
            x, time, condition["encoder_hidden_states"], added_cond_kwargs=added, **self._told(x, guidance),
            return_dict=False,
        )[0]  # fmt: skip
        return said


class Flux(Family):
    """Flux: latents packed two by two into tokens, whose places it is told; if it was distilled, so is the guidance."""

    def __init__(self, network: Any, pipeline: Any, side: int | None) -> None:
        self.network, self.pipeline = network, pipeline
        side = side or int(pipeline.default_sample_size)
        if side % 2:
            raise RecipeError(f"denoiser.size: Flux packs latents two by two, got {side}")
        self.size = (int(network.config.in_channels) // 4, side, side)

    @property
    def told(self) -> bool:
        """Flux-dev is, Flux-schnell is not."""
        return bool(self.network.config.guidance_embeds)

    @property
    def tokens(self) -> int:
        """One of each two by two latents."""
        return (self.size[1] // 2) * (self.size[2] // 2)

    def encode(self, prompt: str, device: torch.device) -> dict[str, Tensor]:
        table: dict[str, Tensor] = {}
        for prefix, text in (("", prompt), (FREE, "")):
            embeds, pooled, _ = self.pipeline.encode_prompt([text], None, device=device, num_images_per_prompt=1)
            table |= {f"{prefix}encoder_hidden_states": embeds, f"{prefix}pooled_projections": pooled}
        return table

    def ask(self, x: Float[Tensor, "n *d"], time: Float[Tensor, "n"], condition: Condition, guidance: float) -> Tensor:
        n, channels, height, width = x.shape
        rows, columns = height // 2, width // 2
        packed = x.reshape(n, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, rows * columns, -1)
        grid = torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns)).to(x)
        texts = condition["encoder_hidden_states"]
        said = self.network(
            packed, timestep=time / 1000, guidance=time.new_full((n,), guidance) if self.told else None, **condition,
            txt_ids=texts.new_zeros(texts.shape[1], 3), img_ids=grid, return_dict=False,
        )[0]  # fmt: skip
        return said.reshape(n, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)  # type: ignore[no-any-return]


def family_of(network: Any, pipeline: Any, side: int | None) -> Family:
    """The family of a network, by what it reads.

    Raises:
        RecipeError: if it reads what none of them gives it.
    """
    reads, extra = _parameters(network), getattr(network.config, "addition_embed_type", None)
    if _classes(network) and "class_labels" in reads:
        return ByClass(network, pipeline, side)
    if {"img_ids", "txt_ids", "pooled_projections"} <= set(reads):
        return Flux(network, pipeline, side)
    if extra == "text_time":
        return XL(network, pipeline, side)
    if "encoder_hidden_states" in reads and extra is None and "img_ids" not in reads:
        return ByText(network, pipeline, side)
    raise RecipeError(
        f"denoiser: {type(network).__name__} is of no known family: those of Stable Diffusion 1 to 3 and XL, Flux and "
        "DiT are"
    )


def _classes(network: Any) -> int:
    config = network.config
    return int(config.get("num_embeds_ada_norm") or config.get("num_class_embeds") or 0)


def _parameters(network: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(network.forward).parameters
