"""Pipelines of `diffusers`, tiny and with random weights: what is sampled is what they sample; it can be trained."""

import json

import pytest
import torch

from guerdon.core.errors import RecipeError
from guerdon.objectives.denoising import sample
from guerdon.train import recipe as recipes
from guerdon.train.denoiser import DenoiserConfig, build
from guerdon.train.denoising import train
from guerdon.train.run import Run

diffusers = pytest.importorskip("diffusers")

WORDS = ["a", "cat", "dog", "red", "blue", "<|startoftext|>", "<|endoftext|>"]
PROMPTS = ["a cat", "a dog", "a red cat", "a blue dog"]


def clip_tokenizer(folder):
    from transformers import CLIPTokenizer

    letters = sorted(set("".join(WORDS[:5])))
    tokens = [*letters, *(letter + "</w>" for letter in letters), *WORDS[5:]]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)


def clip_config(tokenizer, **changes):
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8, eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.eos_token_id, **changes,
    )  # fmt: skip


def vae(channels):
    return diffusers.AutoencoderKL(
        block_out_channels=(8,), down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
        latent_channels=channels, norm_num_groups=4, sample_size=8, layers_per_block=1,
    )  # fmt: skip


def sd1(folder, scheduler=None):
    from transformers import CLIPTextModel

    tokenizer = clip_tokenizer(folder)
    torch.manual_seed(0)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae(4), tokenizer=tokenizer, text_encoder=CLIPTextModel(clip_config(tokenizer)).eval(),
        unet=diffusers.UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8, norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=4,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        scheduler=scheduler or diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder / "model")
    return pipeline


def sd3(folder):
    from transformers import CLIPTextModelWithProjection

    tokenizer = clip_tokenizer(folder)
    torch.manual_seed(0)
    encoders = [CLIPTextModelWithProjection(clip_config(tokenizer, projection_dim=8)).eval() for _ in range(2)]
    pipeline = diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=4,
            num_attention_heads=2, caption_projection_dim=8, joint_attention_dim=16, pooled_projection_dim=16,
            pos_embed_max_size=8,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae(4),
        text_encoder=encoders[0], tokenizer=tokenizer, text_encoder_2=encoders[1], tokenizer_2=tokenizer,
        text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip
    pipeline.save_pretrained(folder / "model")
    return pipeline


def recipe_of(folder, **changes):
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return recipes.from_data(
        {
            "name": "pictures",
            "denoiser": {"path": str(folder / "model"), "lora": {"rank": 2, "alpha": 4}},
            "prompts": {"file": str(prompts), "held_out": 0.4},
            "reward": "image.compactness",
            "method": {"preset": "flow_grpo", "sampling": {"group": 3}},
            "sampling": {"steps": 3, "guidance": 2.0},
            "batch": {"prompts": 2, "micro": 16},
            "optimizer": {"learning_rate": 1e-2},
            "evaluation": {"prompts": 1},
            "steps": 1,
            "device": "cpu",
            "threads": 1,
            **changes,
        }
    )


@pytest.mark.parametrize("kind", ["sd1", "sd3"])
def test_without_noise_a_chain_is_what_the_pipeline_samples(tmp_path, kind):
    pipeline = {"sd1": sd1, "sd3": sd3}[kind](tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    denoiser = build(DenoiserConfig(path=str(tmp_path / "model")), 0)
    denoiser.guidance = 3.0
    noise = torch.randn(2, *denoiser.size, generator=torch.Generator().manual_seed(0))
    given = {"prompt": PROMPTS[:2], "negative_prompt": [""] * 2, "guidance_scale": 3.0, "output_type": "latent"}
    given |= {"height": 8, "width": 8, "latents": noise.clone()}
    extra = {"num_inference_steps": 4} if kind == "sd1" else {"num_inference_steps": 4, "sigmas": [1, 0.75, 0.5, 0.25]}
    expected = pipeline(**given, **extra).images
    chain = denoiser.chain(4).deterministic()
    found = sample(denoiser, noise, chain, condition=denoiser.encode(PROMPTS[:2])).states[:, -1]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["sd1", "sd3"])
def test_adapters_of_a_pipeline_are_trained_and_the_rest_is_not(tmp_path, kind):
    pipeline = {"sd1": sd1, "sd3": sd3}[kind](tmp_path)
    summary = train(recipe_of(tmp_path), tmp_path / "run")
    assert summary["abstained"] == 0.0
    from guerdon.train import checkpoint as checkpoints

    saved = checkpoints.latest(tmp_path / "run" / "checkpoints")[0].weights
    assert saved
    assert all("lora" in name for name in saved)
    [record] = Run(tmp_path / "run").metrics()
    assert record["grad_norm"] > 0
    assert list((tmp_path / "run" / "policy").glob("*.safetensors"))
    pipeline.load_lora_weights(tmp_path / "run" / "policy")
    own = getattr(pipeline, "transformer", None) or pipeline.unet
    loaded = {name: value for name, value in own.state_dict().items() if "lora_B" in name}
    assert any(bool(value.any()) for value in loaded.values())


def test_the_whole_of_a_pipeline_is_trained_and_saved_as_one(tmp_path):
    sd3(tmp_path)
    recipe = recipe_of(tmp_path, denoiser={"path": str(tmp_path / "model")}, sampling={"steps": 3})
    train(recipe, tmp_path / "run")
    again = build(DenoiserConfig(path=str(tmp_path / "run" / "policy")), 0)
    first = build(DenoiserConfig(path=str(tmp_path / "model")), 0)
    changed = [n for n, p in again.network.named_parameters() if not torch.equal(p, first.network.state_dict()[n])]
    assert changed


def test_a_scheduler_without_a_stochastic_form_is_refused_and_can_be_exchanged(tmp_path):
    sd1(tmp_path, diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1))
    with pytest.raises(RecipeError, match=r"PNDMScheduler has no stochastic form here.*DDIMScheduler"):
        build(DenoiserConfig(path=str(tmp_path / "model")), 0)
    settings = {"class": "DDIMScheduler", "clip_sample": False}
    denoiser = build(DenoiserConfig(path=str(tmp_path / "model"), scheduler=settings), 0)
    chain = denoiser.chain(5)
    assert (chain.kind, len(chain)) == ("ddim", 5)
    with pytest.raises(RecipeError, match="with clip_sample a step is not the Gaussian"):
        build(DenoiserConfig(path=str(tmp_path / "model"), scheduler=settings | {"clip_sample": True}), 0)


def test_a_noise_of_v_prediction_is_the_noise(tmp_path):
    sd1(tmp_path)
    settings = {"prediction_type": "v_prediction"}
    denoiser = build(DenoiserConfig(path=str(tmp_path / "model"), scheduler=settings), 0)
    own = build(DenoiserConfig(path=str(tmp_path / "model")), 0)
    x, time = torch.randn(2, *denoiser.size), torch.tensor([500, 20])
    condition = {k: v for k, v in denoiser.encode(PROMPTS[:2]).items() if not k.startswith("free_")}
    signal = denoiser.scheduler.alphas_cumprod[time].reshape(2, 1, 1, 1)
    with torch.no_grad():
        v = own.predict(x, time, **condition)
        expected = (1 - signal).sqrt() * x + signal.sqrt() * v
        torch.testing.assert_close(denoiser.predict(x, time, **condition), expected)


def test_prompts_are_needed_where_texts_are_read(tmp_path):
    sd3(tmp_path)
    with pytest.raises(RecipeError, match="prompts is missing"):
        train(recipe_of(tmp_path, prompts=None), tmp_path / "run")
