import numpy as np
import pytest
from matplotlib.ft2font import FT2Font
from scipy.ndimage import center_of_mass

from vpkit.datasets.icons import _LUMA, ICONS, IMAGES_PER_CLASS, _font_and_box, draw_icon, load_icons


def test_there_are_at_least_64_distinct_pictographs_and_the_font_has_them_all():
    path = _font_and_box("⌂")[0].path
    charmap = FT2Font(str(path)).get_charmap()
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
    images, labels = load_icons("val", 12, seed=3)
    per_class = IMAGES_PER_CLASS["val"]
    assert np.bincount(labels).tolist() == [per_class] * len(ICONS)
    assert np.array_equal(images[4 * per_class + 2], draw_icon(12, 3, "val", 4, 2))


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
