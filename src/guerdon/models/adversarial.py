"""A reward that is trained beside the policy to tell its samples from references."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from guerdon.algebra import Learned
from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.errors import GuerdonError
from guerdon.core.protocols import Range
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores

Loss = Literal["hinge", "preference"]
Encoder = Callable[[Sequence[Any]], Any]


class TokenHead(nn.Module):
    """Linear, GELU, linear: whether what an encoder's token shows is real.

    Args:
        width: of the tokens.
        hidden: width inside; 0 for a single linear layer.

    Source: showlab/Adv-GRPO.
    """

    def __init__(self, width: int, *, hidden: int = 512) -> None:
        super().__init__()
        if width < 1 or hidden < 0:
            raise ValueError(f"width must be at least 1 and hidden not negative, got {width} and {hidden}")
        wide = hidden or width
        first: list[nn.Module] = [nn.Linear(width, wide), nn.GELU()] if hidden else []
        self.layers = nn.Sequential(*first, nn.Linear(wide, 1))

    def forward(self, tokens: Float[Tensor, "n k d"], condition: Tensor | None = None) -> Float[Tensor, "n k"]:
        """One number for each token; a condition is not read."""
        found: Tensor = self.layers(tokens)[..., 0]
        return found


class MatchHead(nn.Module):
    """The last layer of a model for pictures and texts: scale · cos(W x, c), for the class token x and the text c.

    Args:
        weight: W, the projection that the model has.
        scale: exp of its logit scale.

    Source: the PickScore reward of showlab/Adv-GRPO, which trains the last layer only.
    """

    def __init__(self, weight: Float[Tensor, "e d"], *, scale: float = 100.0) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(weight.detach().clone()), scale

    def forward(self, tokens: Float[Tensor, "n k d"], condition: Float[Tensor, "n e"] | None) -> Float[Tensor, "n 1"]:
        """One number for each sample.

        Raises:
            ValueError: without a condition.
        """
        if condition is None:
            raise ValueError("MatchHead compares with a text's vector: name the column of it as `condition`")
        return self.scale * torch.cosine_similarity(tokens[:, 0] @ self.weight.mT, condition, dim=-1)[:, None]


def hinge_loss(real: Float[Tensor, "*n"], fake: Float[Tensor, "*m"]) -> Float[Tensor, ""]:
    """½ [E relu(1 − real) + E relu(1 + fake)]: 0, without a gradient, once both are beyond the margin.

    >>> round(hinge_loss(torch.tensor([0.5, 2.0]), torch.tensor([-0.5, 0.3])).item(), 4)
    0.575

    Source: geometric GAN (arXiv 1705.02894); showlab/Adv-GRPO.
    """
    return 0.5 * (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean())


def preference_loss(real: Float[Tensor, "n"], fake: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """−log σ(real − fake), the mean over pairs.

    >>> round(preference_loss(torch.tensor([1.0]), torch.tensor([1.0])).item(), 4)
    0.6931

    Source: Bradley-Terry; the PickScore reward of showlab/Adv-GRPO.
    """
    return -torch.nn.functional.logsigmoid(real - fake).mean()


def realism(logits: Float[Tensor, "n k"], *, patch: float = 0.3, chosen: Tensor | None = None) -> Float[Tensor, "n"]:
    """(1 − patch) · class token + patch · mean of the patches; without patches, of the class token alone.

    Args:
        logits: of the class token and behind it the patches.
        patch: in [0, 1].
        chosen: Int["c"] or Int["n c"], which patches count, from 0. Default: all.

    >>> realism(torch.tensor([[1.0, 0.0, 2.0]]), patch=0.5, chosen=torch.tensor([1]))
    tensor([1.5000])

    Source: showlab/Adv-GRPO: 0.7 and 0.3, of 64 patches drawn for each picture.
    """
    if logits.shape[1] == 1 or not patch:
        return logits[:, 0]
    rest = _taken(logits, chosen)
    return (1 - patch) * logits[:, 0] + patch * rest.mean(1)


@dataclass(frozen=True)
class adversarial_reward(Learned):
    """How real a head takes a sample to be, that learns to tell samples of the policy from references.

        hinge        D = ½ E relu(1 − h(real)) + ½ E relu(1 + h(fake)), plus `patch_loss` times the same of the patches
        preference   D = −log σ(h(reference) − h(sample)) of each rollout and its own reference

    A reward that stands still is soon exploited where it is wrong; this one learns from the very samples that exploit
    it, and pays nothing for them once they can be told apart. The encoder stays as it is. A recipe is to let the
    policy follow slowly: many of these updates for one of its own.

    Args:
        encoder: from entries of a column to tokens, "n k d", the class token first, or to vectors, "n d". None where
            the columns hold them.
        references: the column of what is real: one entry for each row, None for a row without.
        head: a module from (tokens, condition) to logits "n k". Default: a `TokenHead` of `hidden`, by `seed`.
        condition: the column of a vector for each row that a head such as `MatchHead` reads.
        loss: hinge or preference.
        gate: learn only while references score below samples, on average, before each update.
        normalize: tokens are brought to length 1, here and while learning: the release does it here only.
        patches: so many of them are drawn, for each sample and time anew; 0 for all.
        patch, patch_loss: weights of patches in the reward and in the loss.
        updates: steps on each batch.
        learning_rate: of AdamW.
        hidden: of the default head; 0 for a linear one.
        seed: of its weights, and with the training step of the patches that are drawn.
        column: of the samples.

    Raises:
        ValueError: if a number is out of range.

    Source: Adv-GRPO (showlab/Adv-GRPO; arXiv 2511.20256): hinge with DINOv2 at rate 1e-4, nine epochs for each of the
    policy's; preference with `gate` and PickScore's last layer at 5e-6.
    """

    encoder: Encoder | None = None
    references: str = "reference"
    head: nn.Module | None = None
    condition: str = ""
    loss: Loss = "hinge"
    gate: bool = False
    normalize: bool = True
    patches: int = 64
    patch: float = 0.3
    patch_loss: float = 0.3
    updates: int = 9
    learning_rate: float = 1e-4
    hidden: int = 512
    seed: int = 0
    column: str = "completion"
    _state: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    lane = "batch"
    floor = 0.0

    def __post_init__(self) -> None:
        if self.loss not in ("hinge", "preference"):
            raise ValueError(f"loss is 'hinge' or 'preference', got {self.loss!r}")
        if not (0 <= self.patch <= 1 and self.patch_loss >= 0 and self.patches >= 0):
            raise ValueError(
                "patch is a share in [0, 1], patch_loss and patches are not negative, got "
                f"{self.patch}, {self.patch_loss} and {self.patches}"
            )
        if not (self.updates >= 1 and self.learning_rate > 0):
            raise ValueError(f"updates and learning_rate must be positive, got {self.updates}, {self.learning_rate}")

    def __hash__(self) -> int:
        return hash((self.references, self.column, self.loss, self.seed))

    @property
    def name(self) -> str:
        return "models.adversarial_reward"

    @property
    def range(self) -> Range:
        return (-math.inf, math.inf)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column, self.references, *([self.condition] if self.condition else []))

    @property
    def version(self) -> str:
        return str(self._state.get("updates", 0))

    def measure(self, rollouts: Rollouts, context: Context) -> Scores:
        """How real each sample is taken to be; one that cannot be read abstains."""
        tokens, read, reasons = self._tokens(list(rollouts.column(self.column)))
        values = np.zeros(len(rollouts))
        if len(tokens):
            condition, known = self._condition(rollouts, read)
            for row in read[~known]:
                reasons[int(row)] = f"{self.condition}: no finite vector"
            tokens, read = tokens[torch.as_tensor(known)], read[known]
        if len(tokens):
            head = self._head(tokens)
            with torch.no_grad():
                found = realism(head(tokens, condition), patch=self.patch, chosen=self._chosen(tokens, context, 0))
            values[read] = to_numpy(found)
        return Scores.of(values.tolist(), reasons=reasons)

    def update(self, rollouts: Rollouts, scores: Scores, context: Context) -> Mapping[str, float]:
        """Learn to tell these rollouts from their references; rows without one are samples all the same, for hinge."""
        fake, made, _ = self._tokens(list(rollouts.column(self.column)))
        entries = list(rollouts.column(self.references))
        there = [i for i, entry in enumerate(entries) if entry is not None]
        real, rows, _ = self._tokens([entries[i] for i in there])
        rows = np.array(there, np.int64)[rows]
        if self.loss == "preference" or self.condition:
            both = np.intersect1d(made, rows)
            _, known = self._condition(rollouts, both)
            both = both[known]
            fake, real = fake[np.isin(made, both)], real[np.isin(rows, both)]
            made = rows = both
        if not (len(fake) and len(real)):
            return {"loss": math.nan, "steps": 0.0}
        condition, _ = self._condition(rollouts, made)
        head, optimizer = self._head(fake), self._optimizer(fake)
        steps, losses, gap = 0, [], math.nan
        for turn in range(self.updates):
            chosen = [self._chosen(x, context, 1 + 2 * turn + i) for i, x in enumerate((real, fake))]
            with torch.enable_grad():
                of_real, of_fake = (head(x, condition) for x in (real, fake))
                gap = float(
                    realism(of_real.detach(), patch=self.patch, chosen=chosen[0]).mean()
                    - realism(of_fake.detach(), patch=self.patch, chosen=chosen[1]).mean()
                )
                if self.gate and gap >= 0:
                    break
                loss = self._loss(of_real, of_fake, chosen)
                if not math.isfinite(loss.item()):
                    raise GuerdonError(f"adversarial_reward: the loss is {loss.item()}: lower learning_rate")
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
            steps += 1
        self._state["updates"] = self._state.get("updates", 0) + steps
        return {"loss": losses[-1] if losses else math.nan, "gap": gap, "steps": float(steps)}

    def state_dict(self) -> dict[str, Any]:
        """The head's weights and the optimiser's state; nothing before samples were seen."""
        if "head" not in self._state:
            return dict(self._state.get("pending", {}))
        optimizer = self._state.get("optimizer")
        return {
            "weights": {k: v.detach().cpu().clone() for k, v in self._state["head"].state_dict().items()},
            "optimizer": None if optimizer is None else copy.deepcopy(optimizer.state_dict()),
            "updates": self._state.get("updates", 0),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if state:
            self._state.clear()
            self._state.update(pending=dict(state), updates=state.get("updates", 0))

    def _loss(self, real: Tensor, fake: Tensor, chosen: Sequence[Tensor | None]) -> Tensor:
        if self.loss == "preference":
            pair = (realism(x, patch=self.patch, chosen=c) for x, c in zip((real, fake), chosen, strict=True))
            return preference_loss(*pair)
        loss = hinge_loss(real[:, 0], fake[:, 0])
        if real.shape[1] > 1 and self.patch_loss:
            loss = loss + self.patch_loss * hinge_loss(_taken(real, chosen[0]), _taken(fake, chosen[1]))
        return loss

    def _tokens(self, entries: list[Any]) -> tuple[Float[Tensor, "m k d"], np.ndarray[Any, Any], dict[int, str]]:
        """The tokens of what can be read, which rows these are, and why the others cannot."""
        reasons = {row: "nothing to encode" for row, entry in enumerate(entries) if entry is None}
        read = [row for row in range(len(entries)) if row not in reasons]
        some = [entries[row] for row in read]
        if not some:
            return torch.zeros(0, 1, 1), np.zeros(0, np.int64), reasons
        with torch.no_grad():
            found = self.encoder(some) if self.encoder is not None else torch.as_tensor(np.stack(_alike(some)))
        tokens = torch.as_tensor(found)
        tokens = (tokens[:, None] if tokens.ndim == 2 else tokens).float()
        if tokens.ndim != 3 or len(tokens) != len(read):
            raise GuerdonError(f"the encoder gave {tuple(tokens.shape)} for {len(read)} entries: (n, k, d) or (n, d)")
        finite = torch.isfinite(tokens).flatten(1).all(1).cpu().numpy()
        reasons |= {read[i]: "the tokens are not finite" for i in np.flatnonzero(~finite)}
        tokens = tokens[torch.as_tensor(finite)]
        if self.normalize:
            tokens = torch.nn.functional.normalize(tokens, dim=-1)
        return tokens, np.array(read, np.int64)[finite], reasons

    def _condition(
        self, rollouts: Rollouts, rows: np.ndarray[Any, Any]
    ) -> tuple[Float[Tensor, "m e"] | None, Bool[np.ndarray[Any, Any], "m"]]:
        """The vectors of the condition at those of the rows that have one."""
        if not self.condition:
            return None, np.ones(len(rows), bool)
        column = rollouts.column(self.condition)
        found = [np.asarray(column[int(row)], np.float64) for row in rows if column[int(row)] is not None]
        known = np.array([column[int(row)] is not None for row in rows], bool)
        return (torch.as_tensor(np.stack(_alike(found))).float() if found else None), known

    def _head(self, tokens: Tensor) -> nn.Module:
        if "head" not in self._state:
            if self.head is not None:
                made = copy.deepcopy(self.head)
            else:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(self.seed)
                    made = TokenHead(tokens.shape[-1], hidden=self.hidden)
            self._state["head"] = made.to(tokens.device)
            pending = self._state.pop("pending", None)
            if pending is not None:
                made.load_state_dict(pending["weights"])
                if pending.get("optimizer") is not None:
                    self._optimizer(tokens).load_state_dict(pending["optimizer"])
        return cast(nn.Module, self._state["head"])

    def _optimizer(self, tokens: Tensor) -> torch.optim.Optimizer:
        if "optimizer" not in self._state:
            weights = self._head(tokens).parameters()
            self._state["optimizer"] = torch.optim.AdamW(weights, lr=self.learning_rate)
        return cast(torch.optim.Optimizer, self._state["optimizer"])

    def _chosen(self, tokens: Tensor, context: Context, turn: int) -> Tensor | None:
        """Which patches of each sample count."""
        n, count = len(tokens), tokens.shape[1] - 1
        if not 0 < self.patches < count:
            return None
        seed = int(np.random.SeedSequence([self.seed, context.step, turn]).generate_state(1)[0])
        dice = torch.Generator().manual_seed(seed)
        return torch.rand(n, count, generator=dice).argsort(1)[:, : self.patches].to(tokens.device)


def _taken(logits: Float[Tensor, "n k"], chosen: Tensor | None) -> Float[Tensor, "n c"]:
    """The logits of the patches that count."""
    patches = logits[:, 1:]
    if chosen is None:
        return patches
    return patches.gather(1, chosen.expand(len(patches), -1))


def _alike(arrays: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
    """Arrays of one shape.

    Raises:
        GuerdonError: if they have several.
    """
    found = [np.asarray(to_numpy(array), np.float64) for array in arrays]
    if len({x.shape for x in found}) != 1 or found[0].ndim not in (1, 2):
        raise GuerdonError(f"tokens of one encoder have one shape, these have {sorted({x.shape for x in found})}")
    return found
