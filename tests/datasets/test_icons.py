import numpy as np
import pytest
import torch
from matplotlib.ft2font import FT2Font
from scipy.ndimage import center_of_mass

import vpkit
from vpkit.datasets.icons import _LUMA, DEJAVU, ICONS, IMAGES_PER_CLASS, STYLES, draw_icon, load_icons


def test_there_are_at_least_64_distinct_pictographs_and_the_font_has_them_all():
    charmap = FT2Font(str(DEJAVU)).get_charmap()
    assert len(ICONS) >= 64
    assert len(set(ICONS.values())) == len(ICONS)
    assert all(ord(character) in charmap for character in ICONS.values())


def test_an_image_is_a_pure_function_of_seed_split_class_and_index():
    image = draw_icon(40, 0, "train", 5, 7)
    assert image.shape == (40, 40, 3)
    assert np.array_equal(image, draw_icon(40, 0, "train", 5, 7))
    for other in [(40, 1, "train", 5, 7), (40, 0, "val", 5, 7), (40, 0, "train", 6, 7), (40, 0, "train", 5, 8)]:
        assert not np.array_equal(image, draw_icon(*other))


def test_a_whole_split_is_those_images_in_order():
    source = load_icons("val", seed=3)
    per_class = IMAGES_PER_CLASS["val"]
    assert np.bincount(source.labels).tolist() == [per_class] * len(ICONS)
    assert np.array_equal(source.decode(4 * per_class + 2, 12), draw_icon(12, 3, "val", 4, 2))


@pytest.mark.parametrize("class_index", range(len(ICONS)))
def test_the_glyph_is_there_with_contrast_size_and_place(class_index):
    for i in range(6):
        grey = draw_icon(64, 0, "train", class_index, i) @ _LUMA
        background = np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
        ink = abs(grey - background)
        assert ink.max() >= 65  # 70 grey levels, less what smoothing takes from thin strokes
        rows, columns = np.where(ink > 30)
        extent = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 0.45 * 64 <= extent <= 64
        assert all(abs(c - 32) < 16 for c in center_of_mass(ink > 30))


@pytest.mark.parametrize("style", STYLES[1:])
def test_a_shifted_domain_is_another_drawing_of_the_same_classes(style):
    plain, shifted = (vpkit.load_dataset(name, "val", size=12) for name in ("icons", f"icons:{style}"))
    assert torch.equal(plain.labels, shifted.labels)
    assert plain.class_names == shifted.class_names
    difference = (plain.images.float() - shifted.images.float()).abs().mean((1, 2, 3))
    assert (difference > 5).float().mean() > 0.95
    assert (shifted.images.float().std((1, 2, 3)) > 5).float().mean() > 0.95  # there is something to see


def test_each_style_is_what_its_name_says():
    arguments = (64, 0, "test", 7, 1)
    plain, sketch, inverted, noisy, textured = (draw_icon(*arguments, style).astype(float) for style in STYLES)
    assert np.median(sketch) == 250  # white paper
    assert np.ptp(sketch, axis=2).max() == 0  # no colour
    assert np.allclose(inverted[0, 0], plain[0, 0])  # the corner is outside the disc
    middle = np.abs(inverted - plain[0, 0]).sum(2) > 60
    assert 0.4 < middle.mean() < 0.8  # most of a disc
    assert 20 < (noisy - plain).std() < 60
    glyph = np.abs(plain - plain[0, 0]).sum(2) > 200
    assert np.abs(textured - plain)[~glyph].mean() > 5 > np.abs(textured - plain)[glyph].mean()


def test_an_unknown_style_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown style 'blue' of icons: expected icons:NAME with one of sketch, inv"):
        vpkit.load_dataset("icons:blue", "val")
