"""FlowSE-GRPO with the metrics themselves: PESQ, STOI and SI-SDR of short recordings at the end of a flow."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from flows import Mixture

from guerdon import Context, Engine, Rollouts
from guerdon.credit import group_relative
from guerdon.objectives import policy_gradient
from guerdon.objectives.denoising.steps import action_logp, gaussian_kl, step
from guerdon.rewards import speech
from guerdon.shaping import normalize

RATE = 8000


def recording(seconds=0.5):
    """A buzz under an envelope of syllables, and a hiss beside it."""
    t = np.arange(int(seconds * RATE)) / RATE
    rng = np.random.default_rng(0)
    tone = sum(np.sin(2 * np.pi * 140 * k * t + rng.uniform(0, 6)) / k for k in range(1, 28))
    return tone * (0.15 + np.sin(2 * np.pi * 3 * t) ** 2), 0.3 * rng.normal(size=len(t))


CLEAN, HISS = recording()
BAND_OF = np.digitize(np.fft.rfftfreq(len(HISS), 1 / RATE), (800, 2000))
BANDS = [np.fft.irfft(np.where(band == BAND_OF, np.fft.rfft(HISS), 0), len(HISS)) for band in range(3)]


def enhanced(x):
    """What is left of a noisy recording when each band of its hiss is taken off 2σ(x) times: once is right."""
    return CLEAN + HISS - 2 * torch.sigmoid(x).numpy() @ np.stack(BANDS)


METRICS = {
    "pesq": speech.pesq(rate=RATE, mode="nb", column="out"),
    "stoi": speech.intelligibility(rate=RATE, column="out"),
    "si_sdr": speech.si_sdr(column="out"),
}


def measured(x):
    return {name: part.evaluate(enhanced(x), CLEAN)[0] for name, part in METRICS.items()}


def test_flowse_grpo_raises_pesq_stoi_and_si_sdr_together():
    """Flow-GRPO over how much of each band's hiss to take off, from too little; its reward R = Σ m/std(m)."""
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    reward = sum((part.named(name) >> normalize(kind="unit") for name, part in METRICS.items()), 0.0)
    generator = torch.Generator().manual_seed(0)
    mean = torch.full((3,), -1.5, dtype=torch.float64, requires_grad=True)
    spread, weight = torch.full((1,), 0.25, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    base, optimizer = Mixture(mean.detach().clone()[None], spread, weight), torch.optim.Adam([mean], lr=0.5)
    start = measured(mean.detach())
    n, times = 16, [0.9, 0.6, 0.3, 0.0]
    groups = torch.arange(n) // 8
    with Engine(workers=1) as engine:
        for _ in range(4):
            x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
            policy, logps, kls = Mixture(mean[None], spread, weight), [], []
            for here, there in pairwise(times):
                taken = step(x, policy.velocity(x, here), here, there, a=0.4)
                kls.append(gaussian_kl(taken.mean, step(x, base.velocity(x, here), here, there, a=0.4).mean, taken.std))
                x = taken.draw(torch.randn(n, 3, generator=generator, dtype=torch.float64)).detach()
                logps.append(action_logp(x, taken, reduce="sum"))
            batch = Rollouts(
                [str(g) for g in groups.tolist()], [""] * n, {"out": list(enhanced(x)), "clean": [CLEAN] * n}
            )
            scores = reward.score(batch, Context(batch), engine=engine)
            assert scores.valid.all()
            logp = torch.stack(logps, 1)
            advantages = group_relative(torch.as_tensor(scores.read(0.0)), groups)
            loss, _ = policy_gradient(
                logp, logp.detach(), advantages, torch.ones(n, 3, dtype=torch.bool), kl=0.001 * torch.stack(kls, 1)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    end = measured(mean.detach())
    assert end["pesq"] > start["pesq"] + 0.3
    assert end["stoi"] > start["stoi"] + 0.06
    assert end["si_sdr"] > start["si_sdr"] + 4
