import pytest
import torch

import vpkit
from vpkit.prompts import CoarsePrompt, CosinePrompt, LowRankPrompt, MaskedPrompt


@pytest.mark.parametrize(
    ("prompt", "numbers"),
    [(LowRankPrompt(32, 4), 6 * 4 * 32), (CoarsePrompt(32, 5), 75), (CosinePrompt(32, 3), 27)],
)
def test_few_numbers_make_a_picture_that_is_added_and_starts_at_zero(prompt, numbers):
    images = torch.rand(2, 3, 32, 32)
    assert vpkit.count_parameters(prompt) == numbers
    assert torch.equal(prompt(images), images)
    with torch.no_grad():
        for values in prompt.parameters():
            values.normal_()
    assert prompt.picture().shape == (3, 32, 32)
    assert torch.allclose(prompt(images), images + prompt.picture())
    assert prompt.picture().std() > 0.1
    doubled = type(prompt)(32, *({LowRankPrompt: [4], CoarsePrompt: [5], CosinePrompt: [3]}[type(prompt)]), scale=2.0)
    doubled.load_state_dict(prompt.state_dict())
    assert torch.allclose(doubled.picture(), 2 * prompt.picture())
    with pytest.raises(ValueError, match="32"):
        prompt(torch.rand(2, 3, 31, 31))


def test_a_low_rank_prompt_has_that_rank():
    prompt = LowRankPrompt(24, 3)
    torch.nn.init.normal_(prompt.left)
    assert torch.linalg.matrix_rank(prompt.picture()).tolist() == [3, 3, 3]
    with pytest.raises(ValueError, match=r"rank=25: expected 1\.\.24"):
        LowRankPrompt(24, 25)


def test_waves_are_cosines_and_cells_are_flat_inside():
    prompt = CosinePrompt(16, 4)
    with torch.no_grad():
        prompt.coefficients[0, 0, 0], prompt.coefficients[1, 2, 0], prompt.coefficients[2, 0, 1] = 0.5, 1.0, 1.0
    red, green, blue = prompt.picture()
    assert torch.allclose(red, torch.full((16, 16), 0.5))
    place = (torch.arange(16) + 0.5) / 16
    assert torch.allclose(green, torch.cos(2 * torch.pi * place)[:, None].expand(16, 16), atol=1e-6)
    assert torch.allclose(blue, torch.cos(torch.pi * place).expand(16, 16), atol=1e-6)
    coarse = CoarsePrompt(16, 2)
    with torch.no_grad():
        coarse.grid[:, 0, 0] = 1.0
    picture = coarse.picture()
    assert torch.allclose(picture[:, :4, :4], torch.ones(3, 4, 4))
    assert torch.allclose(picture[:, 12:, 12:], torch.zeros(3, 4, 4))


def test_a_mask_is_made_for_each_image_and_scales_the_pattern():
    torch.manual_seed(0)
    prompt, images = MaskedPrompt(32).eval(), torch.rand(3, 3, 32, 32)
    assert torch.equal(prompt(images), images)  # the pattern starts at zero
    torch.nn.init.normal_(prompt.pattern)
    masks = prompt.masks(images)
    assert masks.shape == images.shape
    assert not torch.allclose(masks[0], masks[1])
    assert torch.allclose(masks[:, :, :8, :8], masks[:, :, :1, :1].expand(-1, -1, 8, 8))  # one value for 8 x 8 pixels
    assert torch.allclose(prompt(images), images + prompt.picture() * masks)
    with pytest.raises(ValueError, match="image_size=4: expected at least 8"):
        MaskedPrompt(4)
