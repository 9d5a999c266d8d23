import json
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

import vpkit
from vpkit.datasets import pictograms
from vpkit.datasets.pictograms import (
    FAMILIES,
    IMAGES_PER_CLASS,
    TEST_FAMILIES,
    glyph,
    load_pictograms,
    pictogram_table,
)

TABLE = pictogram_table()


def designs_of(name, test):
    return [(f, icon) for f, icons in TABLE[name].items() for icon in icons if (f in TEST_FAMILIES) == test]


def ink(family, icon, side=64):
    """The design cut out and scaled to a square: (side, side) in [0, 1]."""
    path, character = glyph(family, icon)
    font = ImageFont.truetype(path, 200)
    left, top, right, bottom = font.getbbox(character)
    mask = Image.new("L", (right - left + 20, bottom - top + 20))
    ImageDraw.Draw(mask).text((10 - left, 10 - top), character, fill=255, font=font)
    mask = mask.crop(mask.getbbox())
    square = Image.new("L", (max(mask.size),) * 2)
    square.paste(mask, ((square.width - mask.width) // 2, (square.height - mask.height) // 2))
    return np.asarray(square.resize((side, side), Image.Resampling.BOX)) / 255


def test_every_class_has_three_designs_to_learn_from_and_two_others_to_be_tested_on():
    assert 120 <= len(TABLE) <= 200
    for name in TABLE:
        known, unknown = designs_of(name, test=False), designs_of(name, test=True)
        assert len(known) >= 3, name
        assert len({family for family, _ in known}) >= 2, name
        assert {family for family, _ in unknown} == set(TEST_FAMILIES), name
        assert len(set(known + unknown)) == len(known) + len(unknown), name
        assert all(ink(*design).max() == 1 for design in known + unknown), name  # no glyph is blank


def test_no_glyph_is_on_both_sides():
    for name in TABLE:
        known = [ink(*design) for design in designs_of(name, test=False)]
        for unknown, other in product(designs_of(name, test=True), known):
            new = ink(*unknown)
            shared = np.minimum(new, other).sum() / np.maximum(new, other).sum()
            assert shared < 0.9, (name, unknown)


def test_names_of_base_and_new_classes_share_no_word():
    images = vpkit.load_dataset("pictograms", "val", size=8, subset=len(TABLE))
    base, new = ({w.lower() for n in half.class_names for w in n.split()} for half in images.base_new_split())
    assert not base & new
    assert len(images.base_new_split()[0].class_names) == -(-len(TABLE) // 2)


def test_splits_draw_their_own_designs_in_turn():
    for split, per_class in IMAGES_PER_CLASS.items():
        source = load_pictograms(split, 0)
        assert np.bincount(source.labels).tolist() == [per_class] * len(TABLE)
        for label, name in enumerate(TABLE):
            counts = np.bincount(source.kinds[source.labels == label])
            assert len(counts) == min(len(designs_of(name, split == "test")), per_class)
            assert counts.max() - counts.min() <= 1


def test_an_image_is_a_pure_function_of_its_place():
    image = load_pictograms("train", 0).decode(100, 24)
    assert image.shape == (24, 24, 3)
    assert np.array_equal(image, load_pictograms("train", 0).decode(100, 24))
    for other in (("train", 1), ("val", 0), ("test", 0), ("train", 0, "sketch")):
        assert not np.array_equal(image, load_pictograms(*other).decode(100, 24))
    code = "from vpkit.datasets.pictograms import load_pictograms as load\n"
    code += "print(load('train', 0).decode(100, 24).tobytes().hex())"
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert again.stdout.strip() == image.tobytes().hex()


def test_a_family_is_a_domain_of_its_own():
    phosphor, remix = (vpkit.load_dataset(f"pictograms:{f}", "test", size=16, subset=122) for f in TEST_FAMILIES)
    plain = vpkit.load_dataset("pictograms", "test", size=16, subset=122)
    assert phosphor.class_names == remix.class_names == plain.class_names == tuple(TABLE)
    assert not torch.equal(phosphor.images, remix.images)
    source = load_pictograms("test", 0, "remix")
    assert source.kinds.max() + 1 == max(len(designs["remix"]) for designs in TABLE.values())
    assert load_pictograms("train", 0, "mdi").rule == "by designer: mdi"
    with pytest.raises(ValueError, match=r"unknown domain 'elusive' of pictograms: expected .*one of sketch, .*, mdi"):
        vpkit.load_dataset("pictograms:elusive", "test")


@pytest.mark.parametrize("style", ["sketch", "inverted", "noisy", "textured"])
def test_styles_are_those_of_icons(style):
    plain, shifted = (load_pictograms("test", 0, d).decode(50, 32).astype(float) for d in ("plain", style))
    assert np.abs(plain - shifted).mean() > 5


def test_few_shots_take_designs_in_turn():
    source = load_pictograms("train", 0)
    for shots in (1, 2, 3, 4):
        drawn = vpkit.datasets.sampling.few_shot_positions(source.labels, shots, 0, source.kinds)
        assert len(drawn) == shots * len(TABLE)
        for label, name in enumerate(TABLE):
            kinds = [source.kinds[p] for p in drawn if source.labels[p] == label]
            assert len(set(kinds)) == min(shots, len(designs_of(name, test=False)))
    first, second = (
        vpkit.load_dataset("pictograms", "train", size=8, shots=2, seed=seed, classes=["bed", "key"]).images
        for seed in (0, 1)
    )
    assert first.shape == (4, 3, 8, 8)
    assert not torch.equal(first, second)


def test_what_is_missing_is_named(monkeypatch):
    pictograms._font.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(pictograms, "find_spec", lambda name: None)
        with pytest.raises(ModuleNotFoundError, match="pip install QtAwesome"):
            load_pictograms("val", 0)
    other = json.loads(json.dumps(TABLE))
    other["bed"]["mdi"] = ["bed of roses"]
    monkeypatch.setattr(pictograms, "pictogram_table", lambda: other)
    with pytest.raises(ValueError, match=r"has no icon 'bed of roses' in mdi.*pip install 'QtAwesome>=1.4,<1.5'"):
        load_pictograms("val", 0)
    monkeypatch.setitem(FAMILIES, "remix", ("remixed",))
    pictograms._font.cache_clear()
    with pytest.raises(ValueError, match=r"QtAwesome has no remixed-.*\.ttf"):
        load_pictograms("test", 0)
    pictograms._font.cache_clear()
