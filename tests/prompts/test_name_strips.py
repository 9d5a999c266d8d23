"""Names as pictures: legible, pasted exactly, and encoded once."""

import numpy as np
import pytest
import torch

from vpkit.prompts import paste, render_class_names, strip_offsets
from vpkit.prompts.name_strips import CONTRAST, _luminance

# As long as the longest of SUN397's 397 names, and longer.
LONGEST = (
    "interior subway station platform",
    "outdoor electrical substation",
    "interior bus passenger compartment",
    "outdoor recreational vehicle parking lot",
)


def colours_of(strip):
    pixels, counts = np.unique(strip.permute(1, 2, 0).reshape(-1, 3).numpy(), axis=0, return_counts=True)
    background = pixels[counts.argmax()]
    others = np.abs(pixels.astype(int) - background.astype(int)).sum(1)
    return background, pixels[others.argmax()]


def test_strips_are_legible_and_repeatable():
    names = ["cat", "hot spring", "W" * 12]
    strips = render_class_names(names, 224, 32, seed=3)
    assert strips.shape == (3, 3, 32, 224)
    assert strips.dtype == torch.uint8
    assert torch.equal(strips, render_class_names(names, 224, 32, seed=3))
    assert not torch.equal(strips, render_class_names(names, 224, 32, seed=4))
    for strip in strips:
        dark, light = sorted(_luminance(colour) for colour in colours_of(strip))
        assert (light + 0.05) / (dark + 0.05) >= CONTRAST
        inked = (strip != strip[:, :1, :1]).any(0)
        assert inked.any(1).sum() >= 12  # rows of type


@pytest.mark.parametrize("name", LONGEST)
def test_the_longest_names_fit_and_stay_legible(name):
    strip = render_class_names([name], 224, 32)[0]
    inked = (strip != strip[:, :1, :1]).any(0)
    assert inked.any(1).sum() >= 8
    assert not inked[:, [0, -1]].any()  # nothing is cut off at the sides


def test_more_lines_are_used_when_they_make_the_type_larger():
    from vpkit.prompts.name_strips import _broken, _default_font, _largest_size

    ways = _broken("interior subway station platform")
    assert ways[0] == ["interior subway station platform"]
    assert ways[1] == ["interior subway", "station platform"]
    sizes = [_largest_size(lines, 60, 40, _default_font()) for lines in ways]
    assert sizes[1] > sizes[0]


def test_lines_stand_below_each_other():
    strip = render_class_names(["subway platform"], 40, 30)[0]
    rows = (strip != strip[:, :1, :1]).any(0).any(1)
    assert rows[:14].any()
    assert rows[16:].any()
    middle = rows.nonzero().double().mean()
    assert 12 < middle < 18  # and the block of lines in the middle of the strip


def test_luminance_is_that_of_wcag():
    # worked examples of the definition: white, the greys of contrast 4.5 on white, and pure colours
    values = {(255, 255, 255): 1.0, (0, 0, 0): 0.0, (118, 118, 118): 0.1812, (8, 8, 8): 0.00243, (255, 0, 0): 0.2126}
    for colour, expected in values.items():
        assert _luminance(np.array(colour, dtype=np.uint8)) == pytest.approx(expected, abs=1e-4)


def test_pasting_changes_one_strip_and_nothing_else():
    torch.manual_seed(0)
    images, strips = torch.rand(4, 3, 20, 16), torch.rand(4, 3, 5, 16)
    top = torch.tensor([0, 15, 7, 3])
    pasted = paste(images, strips, top)
    for i, row in enumerate(top.tolist()):
        assert torch.equal(pasted[i, :, row : row + 5], strips[i])
        kept = torch.ones(20, dtype=torch.bool)
        kept[row : row + 5] = False
        assert torch.equal(pasted[i, :, kept], images[i, :, kept])


def test_gradients_reach_a_tunable_strip():
    strip = torch.rand(2, 3, 4, 8, requires_grad=True)
    paste(torch.rand(2, 3, 8, 8), strip, torch.tensor([0, 4])).sum().backward()
    assert torch.equal(strip.grad, torch.ones_like(strip))


def test_places():
    assert strip_offsets(3, 96, 14, "top").tolist() == [0, 0, 0]
    assert strip_offsets(3, 96, 14, "bottom").tolist() == [82, 82, 82]
    drawn = strip_offsets(500, 96, 14, seed=1)
    assert torch.equal(drawn, strip_offsets(500, 96, 14, seed=1))
    assert (int(drawn.min()), int(drawn.max())) == (0, 82)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: render_class_names(["cat", "  "], 96, 14), "renders empty"),
        (lambda: render_class_names(["\u732b"], 96, 14), "has no letters"),
        (lambda: render_class_names(["vehicle interior bus passenger compartment"], 24, 8), "nobody can read"),
        (lambda: strip_offsets(1, 96, 97), "does not fit"),
        (lambda: strip_offsets(1, 96, 14, "left"), "expected one of random, top, bottom"),
        (lambda: paste(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 9, 8), torch.tensor([0])), "do not fit"),
        (lambda: paste(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 2, 8), torch.tensor([7])), "expected rows in 0..6"),
    ],
)
def test_what_cannot_be_rendered_or_pasted(action, message):
    with pytest.raises(ValueError, match=message):
        action()
