"""The presets against TRL's own trainers: advantages, losses and gradients on random batches."""

import pytest
import torch

from guerdon.objectives import denominator, importance_ratio, kl_penalty
from guerdon.train import presets
from guerdon.train.method import options

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

ROWS, WIDTH, PARTS = 12, 9, 3
TRL_LOSS = {
    "grpo": "grpo",
    "dr_grpo": "dr_grpo",
    "dapo": "dapo",
    "bnpo": "bnpo",
    "gspo": "grpo",
    "luspo": "luspo",
    "cispo": "cispo",
    "sapo": "sapo",
}


def tiny_trainer(trainer, config, folder, **settings):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", "a", "b", "c"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return trainer(
        model=LlamaForCausalLM(LlamaConfig(vocab_size=len(words), pad_token_id=0, eos_token_id=1, **shape)),
        reward_funcs=lambda completions, **columns: [0.0] * len(completions),
        args=config(
            output_dir=str(folder),
            report_to="none",
            use_cpu=True,
            bf16=False,
            beta=0.0,
            per_device_train_batch_size=ROWS,
            num_generations=4,
            max_completion_length=WIDTH,
            **settings,
        ),
        train_dataset=datasets.Dataset.from_dict({"prompt": ["a b", "c"] * ROWS}),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"),
    )


def batch(seed):
    """Rows of unequal lengths; the policy has moved a little in some rows, and far beyond every bound in others."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    lengths = torch.randint(1, WIDTH + 1, (ROWS,), generator=generator)
    moved = torch.tensor([1e-4, 0.1, 2.0], dtype=torch.float64).repeat(ROWS // 3)[:, None]
    logp = -normal(ROWS, WIDTH).abs()
    return {
        "logp": logp,
        "old_logp": logp + moved * normal(ROWS, WIDTH),
        "ref_logp": logp + normal(ROWS, WIDTH),
        "advantages": normal(ROWS),
        "mask": torch.arange(WIDTH) < lengths[:, None],
        "off_policy": normal(ROWS, WIDTH).abs(),
    }


def in_parts(data):
    """The batch cut into micro-batches, as the loss of each is taken in turn."""
    columns = zip(*(column.chunk(PARTS) for column in data.values()), strict=True)
    return [dict(zip(data, part, strict=True)) for part in columns]


def trl_loss(trainer, data):
    """TRL's loss of one optimiser step: the micro-batches' losses, each divided as its trainer divides."""
    leaf = data["logp"].clone().requires_grad_()
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = PARTS
    loss = torch.zeros(())
    for part, logp in zip(in_parts(data), leaf.chunk(PARTS), strict=True):
        trainer._get_per_token_logps_and_entropies = lambda *_, logp=logp, **__: (logp, torch.zeros_like(logp), None)
        ids = torch.zeros_like(part["mask"], dtype=torch.long)
        loss = loss + trainer._compute_loss(
            trainer.model,
            {
                "prompt_ids": ids[:, :1],
                "prompt_mask": ids[:, :1] + 1,
                "completion_ids": ids,
                "completion_mask": part["mask"].long(),
                "advantages": part["advantages"],
                "old_per_token_logps": part["old_logp"],
                "old_logps": (part["old_logp"] * part["mask"]).sum(1),
                "ref_per_token_logps": part["ref_logp"],
                "importance_sampling_ratio": part["off_policy"],
                "num_items_in_batch": data["mask"].sum(),
            },
        )
    loss.backward()
    return loss.detach(), leaf.grad


def guerdon_loss(method, data, *, corrected_for_sampler=False):
    """The same step with guerdon's parts, as a training loop puts them together."""
    leaf = data["logp"].clone().requires_grad_()
    chosen = options(method.objective)
    whole = {"rows": data["mask"].any(1).sum(), "tokens": data["mask"].sum()}
    losses = []
    for part, logp in zip(in_parts(data), leaf.chunk(PARTS), strict=True):
        old_logp, mask = part["old_logp"], part["mask"]
        if method.denominator == "batch":
            divisor = denominator(mask, chosen["aggregate"], length=WIDTH, **whole)
        else:
            divisor = denominator(mask, chosen["aggregate"]) * PARTS
        kl = None
        if method.kl.coefficient and method.kl.place == "loss":
            ratio = importance_ratio(logp, old_logp, mask, ratio=chosen["ratio"]) if method.kl.corrected else None
            kl = kl_penalty(logp, part["ref_logp"], kind=method.kl.kind, mask=mask, ratio=ratio) * method.kl.coefficient
        given = {"kl": kl, "denominator": divisor, "off_policy": part["off_policy"] if corrected_for_sampler else None}
        losses.append(method.objective(logp, old_logp, part["advantages"], mask, **given)[0])
    loss = torch.stack(losses).sum()
    loss.backward()
    return loss.detach(), leaf.grad


def assert_same(ours, theirs):
    assert theirs[1].abs().max() > 1e-3
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9, check_dtype=False)


@pytest.mark.parametrize("kl", [(0.0, False), (0.04, False), (0.04, True)], ids=["no KL", "KL", "KL times ratio"])
@pytest.mark.parametrize("level", ["preset", "token", "sequence"])
@pytest.mark.parametrize("name", TRL_LOSS)
def test_presets_have_trls_loss_and_gradient(name, level, kl, tmp_path):
    objective = {} if level == "preset" else {"ratio": level}
    method = presets.load(name, kl=dict(zip(("coefficient", "corrected"), kl, strict=True)), objective=objective)
    trainer = tiny_trainer(trl.GRPOTrainer, trl.GRPOConfig, tmp_path)
    chosen = options(method.objective)
    bounds = options(chosen["clip"])
    trainer.loss_type, trainer.importance_sampling_level, trainer.beta = (
        TRL_LOSS[name],
        chosen["ratio"],
        method.kl.coefficient,
    )
    trainer.args.use_bias_correction_kl = method.kl.corrected
    trainer.epsilon_low, trainer.epsilon_high = bounds.get("low"), bounds.get("high", bounds.get("cap"))
    data = batch(seed=len(name))
    assert_same(guerdon_loss(method, data), trl_loss(trainer, data))


def test_dual_clip_is_trls_delta(tmp_path):
    method = presets.load("dapo", objective={"clip": {"part": "clip.dual", "high": 0.28, "delta": 1.5}})
    trainer = tiny_trainer(trl.GRPOTrainer, trl.GRPOConfig, tmp_path, delta=1.5, epsilon_high=0.28)
    data = batch(seed=3)
    theirs = trl_loss(trainer, data)
    assert_same(guerdon_loss(method, data), theirs)
    assert not torch.allclose(guerdon_loss(presets.dapo, data)[1], theirs[1])


def test_off_policy_weights_are_trls_correction_for_its_sampler(tmp_path):
    method = presets.load("dapo", kl={"coefficient": 0.04, "corrected": True})
    trainer = tiny_trainer(trl.GRPOTrainer, trl.GRPOConfig, tmp_path, epsilon_high=0.28)
    trainer.use_vllm, trainer.beta = True, 0.04
    data = batch(seed=5)
    assert_same(guerdon_loss(method, data, corrected_for_sampler=True), trl_loss(trainer, data))


def test_rloo_has_trls_loss_and_gradient(tmp_path):
    trainer = tiny_trainer(trl.RLOOTrainer, trl.RLOOConfig, tmp_path)
    data = batch(seed=4)
    loss, gradient = trl_loss(trainer, data)
    # RLOOTrainer leaves the division by the number of micro-batches to transformers' Trainer.
    assert_same(guerdon_loss(presets.rloo, data), (loss / PARTS, gradient / PARTS))


REWARDS = torch.tensor([0.0, 1.0, 1.0, 0.25, 0.3, 0.3, 0.3, 0.3, -2.0, float("nan"), 5.0, 0.5])
GROUPS = torch.arange(3).repeat_interleave(4)


def trl_advantages(trainer):
    trainer.model.train()
    trainer._calculate_rewards = lambda *_: REWARDS[:, None]
    prompts = [{"prompt": prompt} for prompt in ("a", "b", "c") for _ in range(4)]
    return trainer._generate_and_score_completions(prompts)["advantages"]


@pytest.mark.parametrize(
    ("name", "scale_rewards", "scale"),
    [("grpo", "group", "std"), ("grpo", "batch", "batch"), ("dr_grpo", "none", "none"), ("dapo", "group", "std")],
)
def test_presets_have_trls_advantages(name, scale_rewards, scale, tmp_path):
    trainer = tiny_trainer(trl.GRPOTrainer, trl.GRPOConfig, tmp_path, scale_rewards=scale_rewards)
    credit = presets.load(name, credit={"scale": scale}).credit
    ours = credit(REWARDS, GROUPS, mask=~REWARDS.isnan())
    torch.testing.assert_close(ours, trl_advantages(trainer), rtol=1e-5, atol=1e-6)


def test_rloo_has_trls_advantages(tmp_path):
    trainer = tiny_trainer(trl.RLOOTrainer, trl.RLOOConfig, tmp_path)
    ours = presets.rloo.credit(REWARDS, GROUPS, mask=~REWARDS.isnan())
    torch.testing.assert_close(ours, trl_advantages(trainer), rtol=1e-5, atol=1e-6)
