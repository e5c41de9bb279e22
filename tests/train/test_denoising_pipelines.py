"""Pipelines of `diffusers`, tiny and with random weights: what is sampled is what they sample; it can be trained."""

import json
from dataclasses import replace

import pytest
import torch

from guerdon.core.errors import RecipeError
from guerdon.objectives.denoising import sample
from guerdon.train import recipe as recipes
from guerdon.train.denoising.denoiser import DenoiserConfig, build
from guerdon.train.denoising.loop import train
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


def lcm(folder):
    """SD-1 as a latent consistency model, which is told the guidance."""
    one = sd1(folder)
    torch.manual_seed(0)
    pipeline = diffusers.LatentConsistencyModelPipeline(
        vae=one.vae, tokenizer=one.tokenizer, text_encoder=one.text_encoder,
        unet=diffusers.UNet2DConditionModel.from_config(one.unet.config, time_cond_proj_dim=8),
        scheduler=diffusers.LCMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", original_inference_steps=50,
            timestep_scaling=0.002,  # so that the clean sample is in part the sample itself
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


def sdxl(folder):
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_tokenizer(folder)
    torch.manual_seed(0)
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=vae(4), tokenizer=tokenizer, tokenizer_2=tokenizer,
        text_encoder=CLIPTextModel(clip_config(tokenizer)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer, projection_dim=8)).eval(),
        unet=diffusers.UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=16, norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=4,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), addition_embed_type="text_time",
            addition_time_embed_dim=4, projection_class_embeddings_input_dim=6 * 4 + 8,
        ),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        ),
        force_zeros_for_empty_prompt=True,
    )  # fmt: skip
    pipeline.save_pretrained(folder / "model")
    return pipeline


def flux(folder, *, distilled=True):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

    tokenizer = clip_tokenizer(folder)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<pad>", "<unk>", *WORDS[:5]])}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    pipeline = diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=8, pooled_projection_dim=8, guidance_embeds=distilled,
            axes_dims_rope=(4, 4, 8),
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=vae(4),
        text_encoder=CLIPTextModel(clip_config(tokenizer)).eval(), tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=7, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, tie_word_embeddings=False)
        ).eval(),
        tokenizer_2=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>"),
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


PIPELINES = {"sd1": sd1, "sdxl": sdxl, "sd3": sd3, "flux": flux}


def packed(latents):
    n, c, h, w = latents.shape
    return diffusers.FluxPipeline._pack_latents(latents, n, c, h, w)


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd3", "flux", "flux-undistilled"])
def test_without_noise_a_chain_is_what_the_pipeline_samples(tmp_path, kind):
    family, _, undistilled = kind.partition("-")
    pipeline = PIPELINES[family](tmp_path, **({"distilled": False} if undistilled else {}))
    pipeline.set_progress_bar_config(disable=True)
    denoiser = build(DenoiserConfig(path=str(tmp_path / "model"), size=8 if family == "flux" else None), 0)
    assert denoiser.size == (4, 8, 8)
    denoiser.guidance = 3.0
    noise = torch.randn(2, *denoiser.size, generator=torch.Generator().manual_seed(0))
    side = 8 * pipeline.vae_scale_factor
    given = {"prompt": PROMPTS[:2], "output_type": "latent", "height": side, "width": side, "num_inference_steps": 4}
    if family == "flux":
        given |= {"latents": packed(noise.clone())}
        given |= {"negative_prompt": [""] * 2, "true_cfg_scale": 3.0} if undistilled else {"guidance_scale": 3.0}
    else:
        # With no negative prompt at all XL has zeros in its place, where its pipeline says so.
        negative = {} if family == "sdxl" else {"negative_prompt": [""] * 2}
        given |= {"latents": noise.clone(), "guidance_scale": 3.0, **negative}
    if family == "sd3":
        given |= {"sigmas": [1, 0.75, 0.5, 0.25]}
    expected = pipeline(**given).images
    chain = denoiser.chain(4).deterministic()
    found = sample(denoiser, noise, chain, condition=denoiser.encode(PROMPTS[:2])).states[:, -1]
    torch.testing.assert_close(packed(found) if family == "flux" else found, expected, rtol=1e-3, atol=1e-4)


def test_a_consistency_chain_is_what_its_pipeline_samples(tmp_path):
    pipeline = lcm(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    denoiser = build(DenoiserConfig(path=str(tmp_path / "model")), 0)
    denoiser.guidance = 3.0
    noise, draws = (
        torch.randn(2, *more, generator=torch.Generator().manual_seed(3)) for more in ((4, 8, 8), (3, 4, 8, 8))
    )
    generator = torch.Generator().manual_seed(4)
    expected = pipeline(
        prompt=PROMPTS[:2], latents=noise.clone(), guidance_scale=3.0, num_inference_steps=3, height=8, width=8,
        generator=generator, output_type="latent",
    ).images  # fmt: skip
    generator.manual_seed(4)
    draws[:, :2] = torch.stack([torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2)], 1)
    chain = denoiser.chain(3)
    assert (chain.kind, (chain.std > 0).tolist()) == ("consistency", [True, True, False])
    found = sample(denoiser, noise, chain, condition=denoiser.encode(PROMPTS[:2]), draws=draws).states[:, -1]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_rlcm_trains_a_consistency_model_and_refuses_other_noise(tmp_path):
    lcm(tmp_path)
    method = {"preset": "rlcm", "sampling": {"group": 3}}
    summary = train(recipe_of(tmp_path, method=method), tmp_path / "run")
    assert summary["abstained"] == 0.0
    [record] = Run(tmp_path / "run").metrics()
    assert record["grad_norm"] > 0
    with pytest.raises(RecipeError, match="the noise of a consistency model is its own"):
        train(recipe_of(tmp_path, method=method, sampling={"steps": 3, "window": [0, 1]}), tmp_path / "other")


def test_flux_refuses_a_size_that_it_cannot_pack(tmp_path):
    flux(tmp_path)
    with pytest.raises(RecipeError, match="two by two, got 7"):
        build(DenoiserConfig(path=str(tmp_path / "model"), size=7), 0)


@pytest.mark.parametrize("kind", PIPELINES)
def test_adapters_of_a_pipeline_are_trained_and_the_rest_is_not(tmp_path, kind):
    pipeline = PIPELINES[kind](tmp_path)
    recipe = recipe_of(tmp_path)
    if kind == "flux":
        recipe = replace(recipe, denoiser=replace(recipe.denoiser, size=8))
    summary = train(recipe, tmp_path / "run")
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
