"""PPD's attention to a user beside that to the text, in plain torch and in a U-Net of diffusers."""

import math

import pytest
import torch

from guerdon.models import UserAttention, drop_users, personalize


def test_ppd_second_attention_is_its_equation():
    attention = UserAttention(3, 4, heads=2)
    torch.nn.init.normal_(attention.value.weight)
    queries, user = torch.randn(1, 2, 4), torch.randn(1, 5, 3)
    k, v = user[0] @ attention.key.weight.T, user[0] @ attention.value.weight.T
    for q in range(2):
        heads = []
        for part in (slice(0, 2), slice(2, 4)):
            logits = [(queries[0, q, part] @ row[part]).item() / math.sqrt(2) for row in k]
            total = sum(math.exp(x) for x in logits)
            heads.append(sum(math.exp(x) / total * row[part] for x, row in zip(logits, v, strict=True)))
        assert torch.allclose(attention(queries, user)[0, q], torch.cat(heads), atol=1e-5)


def test_ppd_nobody_and_the_untrained_change_nothing():
    attention = UserAttention(3, 4)
    assert (attention(torch.randn(2, 2, 4), torch.randn(2, 5, 3)) == 0).all()
    torch.nn.init.normal_(attention.value.weight)
    assert (attention(torch.randn(2, 2, 4), torch.zeros(2, 5, 3)) == 0).all()


def unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, in_channels=2, out_channels=2, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=6, attention_head_dim=4, norm_num_groups=4,
    ).eval()  # fmt: skip


def test_ppd_in_a_unet_starts_as_the_base_and_only_the_user_learns():
    model = unet()
    x, text, times = torch.randn(2, 2, 8, 8), torch.randn(2, 3, 6), torch.tensor([5, 700])
    base = model(x, times, text).sample.detach()
    learned = personalize(model, 5, tokens=4)
    users = torch.randn(2, 1, 4, 5)

    def drawn(users):
        return model(x, times, text, added_cond_kwargs={"image_embeds": [users]}).sample

    assert torch.allclose(drawn(users), base, atol=1e-6)
    drawn(users).square().sum().backward()
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in learned}
    assert any(p.grad.abs().sum() > 0 for p in learned)
    with torch.no_grad():
        for weight in learned:
            weight += 0.5 * torch.randn(weight.shape)
        assert not torch.allclose(drawn(users), base, atol=1e-3)
        assert torch.allclose(drawn(torch.zeros_like(users)), base, atol=1e-6)


def test_ppd_attention_is_that_of_diffusers():
    """The processor's output less that of the text alone is ours, through the same output projection."""
    model = unet()
    learned = personalize(model, 5, tokens=4)
    name = next(n for n in model.attn_processors if n.endswith("attn2.processor"))
    attention = model.get_submodule(name.removesuffix(".processor"))
    processor = attention.processor
    with torch.no_grad():
        for weight in learned:
            weight += torch.randn(weight.shape)
    ours = UserAttention(5, attention.inner_dim, heads=attention.heads)
    ours.key.weight.data, ours.value.weight.data = processor.to_k_ip[0].weight, processor.to_v_ip[0].weight
    hidden, text, users = torch.randn(2, 7, attention.query_dim), torch.randn(2, 3, 6), torch.randn(2, 4, 5)
    with torch.no_grad():
        theirs = attention(hidden, encoder_hidden_states=(text, [users[:, None]]))
        nobody = attention(hidden, encoder_hidden_states=(text, [torch.zeros(2, 1, 4, 5)]))
        added = ours(attention.to_q(hidden), users) @ attention.to_out[0].weight.T
    assert torch.allclose(theirs - nobody, added, atol=1e-5)


def test_ppd_users_are_dropped_whole():
    users, kept = drop_users(torch.ones(4000, 2, 3), generator=torch.Generator().manual_seed(0))
    assert torch.equal(users[:, 0, 0] == 1, kept)
    assert torch.equal(users.sum((1, 2)) == 6, kept)
    assert 1 - kept.float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert drop_users(torch.ones(3, 1, 1), rate=1.0)[0].sum() == 0
    with pytest.raises(ValueError, match="rate"):
        drop_users(users, rate=1.5)


def test_ppd_a_model_without_text_is_refused():
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8,), layers_per_block=1, down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",), mid_block_type=None, norm_num_groups=4,
    )  # fmt: skip
    with pytest.raises(ValueError, match="attention"):
        personalize(model, 5)
