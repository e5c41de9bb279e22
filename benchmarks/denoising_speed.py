"""What a denoising step and a Flow-GRPO update cost beside the model's own passes; prints one line of JSON.

    python benchmarks/denoising_speed.py [--repeats 3] [--threads 1] [--rows 4] [--layers 4] [--width 256] [--size 32]
    python benchmarks/denoising_speed.py --device cuda --dtype bfloat16 --size 128 --layers 24 --width 1536 --rows 2
                                         --text 333 --text-width 4096

The model is Stable Diffusion 3's transformer with random weights: small by default, and yet so large that its forward
takes 50 ms on a core. The second line is SD 3 medium at 1024 × 1024 pixels, where it is the times that are read.

step     mean, standard deviation, next sample and log-probability of one denoising step of all rows, against the
         model's forward on them.
update   the loop's learning, as `guerdon train` does it: replay under policy and reference, KL, objective, backward,
         clipping, AdamW; against the same forwards and backwards of the model by themselves.

Each is timed in turn with what it is held against; the median of the ratios counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from bandwidth import name_of, seconds
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor

from guerdon.core.arrays import to_numpy
from guerdon.objectives.denoising import action_logp, sample, step
from guerdon.train.denoising.denoiser import Denoiser
from guerdon.train.denoising.job import rollouts
from guerdon.train.denoising.learning import Lessons, learn
from guerdon.train.denoising.sampling import Batch
from guerdon.train.recipe import from_data

STEPS, HEAD = 4, 64


def model(options: argparse.Namespace, device: torch.device) -> Denoiser:
    torch.manual_seed(0)
    network = SD3Transformer2DModel(
        sample_size=options.size,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=options.layers,
        attention_head_dim=HEAD,
        num_attention_heads=options.width // HEAD,
        caption_projection_dim=options.width,
        joint_attention_dim=options.text_width,
        pooled_projection_dim=options.text_width // 2,
        pos_embed_max_size=options.size,
    ).to(device, getattr(torch, options.dtype))
    if options.checkpointing:
        network.enable_gradient_checkpointing()
    return Denoiser(network, FlowMatchEulerDiscreteScheduler(shift=3.0))


def passes(network: torch.nn.Module, calls: list[tuple[tuple[Any, ...], dict[str, Any], bool]]) -> None:
    """The same forwards, and a backward of each that had one."""
    for given, named, learns in calls:
        with torch.set_grad_enabled(learns):
            found = network(*given, **named)[0]
        if learns:
            found.backward(torch.ones_like(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"repeats": 3, "threads": 1, "rows": 4, "layers": 4, "width": 256, "size": 32}
    sizes |= {"text": 77, "text-width": 512}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--checkpointing", action="store_true", help="compute blocks again in the backward pass")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device, n = torch.device(options.device), options.rows
    denoiser = model(options, device)
    network, dtype = denoiser.network, getattr(torch, options.dtype)

    noise = torch.randn(n, *denoiser.size, device=device)
    condition = {
        "encoder_hidden_states": torch.randn(n, options.text, options.text_width, device=device, dtype=dtype),
        "pooled_projections": torch.randn(n, options.text_width // 2, device=device, dtype=dtype),
    }
    chain = denoiser.chain(STEPS)
    with torch.no_grad():
        trajectory = sample(denoiser, noise, chain, condition=condition)
        here, there = (float(x) for x in chain.levels[1:3])
        output, fresh = denoiser(noise, torch.full((n,), 1000 * here, device=device), **condition), noise.flip(0)

    def forward() -> None:
        with torch.no_grad():
            denoiser(noise, torch.full((n,), 1000 * here, device=device), **condition)

    def one_step() -> Tensor:
        taken = step(noise, output, here, there)
        return action_logp(taken.draw(fresh), taken)

    recipe: Any = from_data(
        {
            "name": "speed", "denoiser": {"from_config": {}}, "reward": "image.compactness", "steps": 1,
            "method": {"preset": "flow_grpo", "sampling": {"group": n}},
            "batch": {"prompts": 1, "micro": n}, "sampling": {"steps": STEPS},
        }
    )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)
    job: Any = SimpleNamespace(
        recipe=recipe,
        method=recipe.load_method(),
        denoiser=denoiser,
        network=network,
        accelerator=Accelerator(cpu=device.type == "cpu"),
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0),
        reference={name: value.detach().clone() for name, value in network.named_parameters()},
    )
    made = rollouts([{"prompt": "0"}] * n, [None] * n, [0] * n, to_numpy(trajectory.mask), to_numpy(trajectory.logp))
    sound = np.ones(n, bool)
    batch = Batch(trajectory, chain, condition, made, sound, slice(0, n))
    lessons = Lessons(torch.linspace(-1, 1, n), torch.zeros(n), torch.as_tensor(sound))

    def update() -> None:
        learn(job, batch, lessons, 1)

    calls: list[tuple[tuple[Any, ...], dict[str, Any], bool]] = []
    hook = network.register_forward_pre_hook(
        lambda _, given, named: calls.append((given, named, torch.is_grad_enabled())), with_kwargs=True
    )
    update()  # also what the first one sets up: AdamW's moments
    hook.remove()

    times: dict[str, list[float]] = {"forward": [], "step": [], "update": [], "passes": []}
    forward()
    one_step()
    for _ in range(options.repeats):
        times["forward"].append(seconds(forward, device))
        times["step"].append(seconds(one_step, device))
        times["passes"].append(seconds(lambda: passes(network, calls), device))
        optimizer.zero_grad()
        times["update"].append(seconds(update, device))

    def ratio(of: str, to: str) -> float:
        return statistics.median(x / y for x, y in zip(times[of], times[to], strict=True))

    line = {
        "device": name_of(device),
        "dtype": options.dtype,
        "weights_m": round(sum(p.numel() for p in network.parameters()) / 1e6, 1),
        "rows": n,
        "forwards": len(calls),
        "backwards": sum(learns for *_, learns in calls),
        **{f"{name}_ms": round(1e3 * statistics.median(values), 3) for name, values in times.items()},
        "step_ratio": round(ratio("step", "forward"), 4),
        "update_ratio": round(ratio("update", "passes"), 3),
    }
    if device.type == "cuda":
        line["peak_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
