"""The denoising policy: a model of `diffusers` with its scheduler, or a small one built on the spot."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from guerdon.core.errors import MissingExtra, RecipeError, nearest
from guerdon.objectives.denoising import Chain
from guerdon.objectives.denoising.steps import Kind
from guerdon.train.denoising.families import FREE, ByClass, family_of
from guerdon.train.language.policy import Lora
from guerdon.train.run import disk

Picture: TypeAlias = UInt8[np.ndarray[Any, Any], "h w"] | UInt8[np.ndarray[Any, Any], "h w 3"]

FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
# The kinds of steps that a scheduler has; the first is taken where none is named.
KINDS: dict[str, tuple[Kind, ...]] = {
    **dict.fromkeys(FLOWS, ("flow_sde", "dance", "cps")),
    **dict.fromkeys(("DDIMScheduler", "DDPMScheduler"), ("ddim",)),
    "LCMScheduler": ("consistency",),
}
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


@dataclass(frozen=True)
class DenoiserShape:
    """A small diffusion transformer (DiT) over pixels, with classes for prompts and random weights.

    Args:
        size: height and width of a picture.
        channels: 1 for grey, 3 for colours.
        classes: how many there are.
        layers: transformer blocks.
        width: of the residual stream.
        heads: attention heads, which divide the width.
        patch: a token is a square of this many pixels a side.

    Raises:
        RecipeError: if a size is not positive, or does not divide.

    Source: DiT (arXiv 2212.09748), as `diffusers` has it.
    """

    size: int = 8
    channels: int = 1
    classes: int = 10
    layers: int = 4
    width: int = 64
    heads: int = 4
    patch: int = 2

    def __post_init__(self) -> None:
        for name in ("size", "channels", "classes", "layers", "width", "heads", "patch"):
            if getattr(self, name) < 1:
                raise RecipeError(f"from_config: {name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads or self.size % self.patch or self.channels not in (1, 3):
            raise RecipeError(
                f"from_config: heads ({self.heads}) divide the width ({self.width}), the patch ({self.patch}) divides "
                f"the size ({self.size}), and channels are 1 or 3, got {self.channels}"
            )


@dataclass(frozen=True)
class DenoiserConfig:
    """Which denoising policy is trained: exactly one of `from_config` and `path`.

    Args:
        from_config: build a small model on the spot, for flow matching.
        path: a folder written by `save_pretrained` of a pipeline, or a pipeline's name on the Hugging Face hub.
        revision: branch, tag or commit of a hub pipeline.
        scheduler: settings of the scheduler in place of its own (`{shift: 3.0}`); `class` names another, of the same
            settings, for a pipeline whose own has no stochastic form: `{class: DDIMScheduler}`.
        size: height and width of what is denoised, latents or pixels; None: the network's own.
        dtype: of the weights, and so of the arithmetic; steps are always taken in float32.
        lora: train low-rank adapters only; needs `guerdon[lora]`.
        gradient_checkpointing: compute activations again in the backward pass.

    Raises:
        RecipeError: if both or neither of `from_config` and `path` are given, or `revision` without `path`.
    """

    from_config: DenoiserShape | None = None
    path: str | None = None
    revision: str | None = None
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    lora: Lora | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if (self.from_config is None) == (self.path is None):
            given = "neither" if self.path is None else "both"
            raise RecipeError(f"the denoiser is either built (from_config) or loaded (path): {given} given")
        if self.path is None and (self.revision is not None or self.size is not None):
            raise RecipeError("revision and size belong to a path: a model built from_config has its own size")


class Denoiser:
    """A network, its scheduler, and what makes conditions of prompts and pictures of samples.

    Called as `objectives.denoising` calls a policy: with samples, one time per row and the condition; it says the
    velocity of a flow, the noise, or for a consistency model the clean sample.

    Args:
        network: of `diffusers`, of one of the `families`.
        scheduler: flow matching, DDIM, DDPM or LCM.
        pipeline: the pipeline they are from, if any: it reads prompts and holds the autoencoder.
        size: height and width of a sample; None: the network's.
        lora: whether only adapters learn.

    Raises:
        RecipeError: if the scheduler has no stochastic form, or the network is of no known family.
    """

    def __init__(
        self, network: Any, scheduler: Any, pipeline: Any = None, *, size: int | None = None, lora: bool = False
    ) -> None:
        self.network, self.scheduler, self.pipeline, self.lora = network, scheduler, pipeline, lora
        self.guidance = 1.0
        kind = type(scheduler).__name__
        if kind not in KINDS:
            raise RecipeError(
                f"denoiser.scheduler: {kind} has no stochastic form here: flow matching, DDIM, DDPM and LCM have; name "
                "one, such as {class: DDIMScheduler}"
            )
        self.kinds = KINDS[kind]
        _check_scheduler(scheduler)
        self.family = family_of(network, pipeline, size)
        self.size = self.family.size
        self.horizon = float(scheduler.config.num_train_timesteps)
        self._known: dict[str, dict[str, Tensor]] = {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        found: torch.device = next(self.network.parameters()).device
        return found

    @property
    def flow(self) -> bool:
        """Whether it says the velocity of a flow."""
        return self.kinds == KINDS[FLOWS[0]]

    @property
    def consistency(self) -> bool:
        """Whether it says the clean sample, from wherever it is."""
        return self.kinds == ("consistency",)

    @property
    def classes(self) -> int:
        """How many classes there are; 0 for a network that reads texts."""
        return self.family.classes if isinstance(self.family, ByClass) else 0

    def chain(self, steps: int, *, kind: str | None = None, a: Any = None, reduce: Any = "mean") -> Chain:
        """The levels that the scheduler gives for so many steps, and how much noise.

        The levels of a flow are spread as Flux's pipelines spread them, from 1 to 1/steps and then 0, before the
        scheduler shifts them; those of other schedulers are their own.

        Raises:
            RecipeError: if the kind is not one of the scheduler's, or a step is not defined.
        """
        kind = kind or self.kinds[0]
        if kind not in self.kinds:
            raise RecipeError(f"sampling.kind: {type(self.scheduler).__name__} has {', '.join(self.kinds)}, got {kind}")
        try:
            levels, times = self._levels(steps)
            a = (0.7 if self.flow else 1.0) if a is None else a
            return Chain(levels, kind, a, times=times, reduce=reduce)
        except ValueError as error:
            raise RecipeError(f"sampling: {error}") from error

    def _levels(self, steps: int) -> tuple[Tensor, Tensor]:
        if self.flow:
            shift = {"mu": self._shift()} if self.scheduler.config.get("use_dynamic_shifting") else {}
            self.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps), **shift)
            levels = self.scheduler.sigmas.float().cpu()
            if len(levels) != steps + 1:
                raise ValueError(f"the scheduler makes {len(levels) - 1} steps of {steps}")
            return levels, levels * self.horizon
        self.scheduler.set_timesteps(steps)
        told = self.scheduler.timesteps.cpu()
        signal = self.scheduler.alphas_cumprod[told].float()
        final = 1.0 if self.consistency else getattr(self.scheduler, "final_alpha_cumprod", 1.0)
        last = torch.as_tensor(final).float()
        last = last if last > signal[-1] else torch.ones(())
        return torch.cat([signal, last[None]]), torch.cat([told, told.new_zeros(1)])

    def _shift(self) -> float:
        """How far times are shifted towards the noise: linear in the size of the picture, as the pipelines have it."""
        config = self.scheduler.config
        least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        return float(low + (high - low) * (self.family.tokens - least) / (most - least))

    def encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the network reads of prompts: one entry per row, and with guidance also of no prompt.

        Raises:
            RecipeError: if a prompt is not a class, where classes are what is read.
        """
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._known:
                with torch.no_grad():
                    found = self.family.encode(prompt, self.device)
                self._known[prompt] = {name: value.cpu() for name, value in found.items()}
        names = self._known[prompts[0]] if prompts else {}
        return {name: torch.cat([self._known[p][name] for p in prompts]).to(self.device) for name in names}

    def __call__(self, x: Float[Tensor, "n *d"], time: Float[Tensor, "n"], **condition: Tensor) -> Tensor:
        """The velocity, the noise or the clean form of samples; guided where `guidance` is above 1.

        A network that was distilled to be told the guidance is; any other is asked with and without the prompt.
        """
        own = {name: value for name, value in condition.items() if not name.startswith(FREE)}
        if self.guidance == 1.0 or self.family.told:
            return self.predict(x, time, **own)
        both = {name: torch.cat([value, condition[FREE + name]]) for name, value in own.items()}
        said, free = self.predict(torch.cat([x, x]), torch.cat([time, time]), **both).chunk(2)
        return free + self.guidance * (said - free)

    def predict(self, x: Float[Tensor, "n *d"], time: Float[Tensor, "n"], **condition: Tensor) -> Tensor:
        """The same without asking for what is said without the prompt."""
        dtype = next(self.network.parameters()).dtype
        condition = {name: v.to(dtype) if v.is_floating_point() else v for name, v in condition.items()}
        said = self.family.ask(x.to(dtype), time, condition, self.guidance)
        output = said[:, : x.shape[1]].to(x.dtype)  # what follows is a learned variance
        if self.flow:
            return output
        signal: Tensor = self.scheduler.alphas_cumprod.to(x)[time.long()].reshape(-1, *[1] * (x.ndim - 1))
        if self.scheduler.config.prediction_type == "v_prediction":
            output = signal.sqrt() * output + (1 - signal).sqrt() * x
        elif self.scheduler.config.prediction_type == "sample":
            output = (x - signal.sqrt() * output) / (1 - signal).sqrt()
        if not self.consistency:
            return output
        skip, out = self.scheduler.get_scalings_for_boundary_condition_discrete(time.to(x))
        clean = (x - (1 - signal).sqrt() * output) / signal.sqrt()
        found: Tensor = skip.reshape(signal.shape) * x + out.reshape(signal.shape) * clean
        return found

    @torch.no_grad()
    def decode(self, samples: Float[Tensor, "n *d"], *, chunk: int = 64) -> list[Picture]:
        """Pictures, of bytes: samples in [−1, 1], through the autoencoder where there is one. NaN is black."""
        vae = getattr(self.pipeline, "vae", None)
        found: list[Picture] = []
        for part in torch.split(samples, chunk):
            if vae is not None:
                shift = getattr(vae.config, "shift_factor", None) or 0.0
                part = vae.decode((part / vae.config.scaling_factor + shift).to(vae.dtype), return_dict=False)[0]
            pixels = ((part.float() + 1) * 127.5).round().clamp(0, 255).nan_to_num(0.0).to(torch.uint8).cpu().numpy()
            found += [picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0) for picture in pixels]
        return found

    def save(self, folder: Path) -> None:
        """Write it by `save_pretrained`, whole or not at all: the pipeline, its adapters, or network and scheduler."""
        temporary = folder.with_name(f".{folder.name}.tmp")
        with disk(folder):
            shutil.rmtree(temporary, ignore_errors=True)
            if self.lora:
                self._save_adapters(temporary)
            elif self.pipeline is not None:
                self.pipeline.save_pretrained(temporary)
            else:
                self.network.save_pretrained(temporary / "transformer")
                self.scheduler.save_pretrained(temporary / "scheduler")
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)

    def _save_adapters(self, folder: Path) -> None:
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        weights = {name: value.contiguous() for name, value in get_peft_model_state_dict(self.network).items()}
        if hasattr(self.pipeline, "save_lora_weights"):
            name = "transformer" if getattr(self.pipeline, "transformer", None) is self.network else "unet"
            self.pipeline.save_lora_weights(folder, **{f"{name}_lora_layers": weights})
        else:
            folder.mkdir(parents=True)
            save_file(weights, folder / "adapters.safetensors")


def build(config: DenoiserConfig, seed: int) -> Denoiser:
    """The denoiser, on the CPU, in evaluation mode.

    All that is drawn at random depends on `seed` alone, and torch's global generator is left as it was.

    Raises:
        RecipeError: if it cannot be found, loaded or sampled from.
        MissingExtra: without diffusers, or with adapters and without peft.

    >>> denoiser = build(DenoiserConfig(DenoiserShape(layers=1, width=8, heads=2)), 0)
    >>> denoiser.size, denoiser.classes
    ((1, 8, 8), 10)
    """
    try:
        import diffusers  # noqa: F401
    except ImportError:
        raise MissingExtra("denoiser", "diffusion") from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, scheduler, pipeline = _built(config) if config.from_config else _loaded(config)
        scheduler = _changed(scheduler, dict(config.scheduler))
        for part in (getattr(pipeline, "components", None) or {}).values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False).eval()
        network.requires_grad_(True)
        if config.lora is not None:
            _adapt(network, config.lora)
    if pipeline is not None:
        pipeline.scheduler = scheduler
    if config.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    return Denoiser(network.eval(), scheduler, pipeline, size=config.size, lora=config.lora is not None)


def _built(config: DenoiserConfig) -> tuple[Any, Any, Any]:
    diffusers: Any = import_module("diffusers")
    shape = config.from_config
    assert shape is not None
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=shape.heads,
        attention_head_dim=shape.width // shape.heads,
        in_channels=shape.channels,
        out_channels=shape.channels,
        num_layers=shape.layers,
        sample_size=shape.size,
        patch_size=shape.patch,
        num_embeds_ada_norm=shape.classes,
        norm_num_groups=1,
    )
    if config.dtype != "float32":
        network = network.to(getattr(torch, config.dtype))
    return network, diffusers.FlowMatchEulerDiscreteScheduler(), None


def _loaded(config: DenoiserConfig) -> tuple[Any, Any, Any]:
    diffusers: Any = import_module("diffusers")
    diffusers.utils.logging.disable_progress_bar()
    assert config.path is not None
    folder = Path(config.path)
    settings: dict[str, Any] = {} if config.dtype == "float32" else {"torch_dtype": getattr(torch, config.dtype)}
    try:
        if (folder / "transformer").is_dir() and not (folder / "model_index.json").exists():
            network = diffusers.DiTTransformer2DModel.from_pretrained(folder, subfolder="transformer", **settings)
            scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
            return network, scheduler, None
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            config.path, revision=config.revision, **settings, **_left_out(folder / "model_index.json")
        )
    except (OSError, ValueError, ImportError) as error:
        place = "folder" if folder.is_dir() else "hub pipeline (there is no such folder)"
        first_line = str(error).strip().split("\n", 1)[0]
        raise RecipeError(f"denoiser {config.path!r} cannot be loaded as a {place}: {first_line}") from error
    pipeline.set_progress_bar_config(disable=True)
    network = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
    if network is None:
        raise RecipeError(f"denoiser {config.path!r}: a pipeline without transformer and unet: nothing to train")
    return network, pipeline.scheduler, pipeline


def _left_out(index: Path) -> dict[str, None]:
    """The parts that a pipeline was saved without, such as a third text encoder: it is to be loaded so, too."""
    parts = json.loads(index.read_text("utf-8")) if index.exists() else {}
    return {name: None for name, kind in parts.items() if kind == [None, None]}


def _changed(scheduler: Any, settings: dict[str, Any]) -> Any:
    """The scheduler with other settings, or as another class of the same settings."""
    import diffusers

    if not settings:
        return scheduler
    name = settings.pop("class", type(scheduler).__name__)
    if name not in (*KINDS, type(scheduler).__name__):
        raise RecipeError(f"denoiser.scheduler.class: {name!r} is not known: {nearest(name, KINDS)}")
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    for setting in settings:
        if setting not in known:
            raise RecipeError(f"denoiser.scheduler: {name} has no setting {setting!r}: {nearest(setting, known)}")
    return kind.from_config(scheduler.config, **settings)


def _check_scheduler(scheduler: Any) -> None:
    config = scheduler.config
    for setting in ("clip_sample", "thresholding"):
        if config.get(setting):
            raise RecipeError(
                f"denoiser.scheduler: with {setting} a step is not the Gaussian whose density is learned from: set "
                f"{{{setting}: false}}"
            )


def _adapt(network: Any, lora: Lora) -> None:
    try:
        import peft
    except ImportError:
        raise MissingExtra("denoiser.lora", "lora") from None
    targets = ATTENTION if lora.target_modules is None else list(lora.target_modules)
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, init_lora_weights=True
    )
    network.requires_grad_(False)
    try:
        if hasattr(network, "add_adapter"):
            network.add_adapter(config)
        else:
            peft.inject_adapter_in_model(config, network)
    except ValueError as error:
        raise RecipeError(f"denoiser.lora: {error}") from error
