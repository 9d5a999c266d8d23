"""Names as pictures: legible, pasted exactly, and encoded once."""

import numpy as np
import open_clip
import pytest
import torch
from small_clip import SMALL

import vpkit
from vpkit.methods import PastedFeatureCache
from vpkit.models.clip import FrozenCLIP
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


def test_pairs_are_encoded_once_and_only_when_asked_for():
    calls = []

    def encode(images):
        calls.append(len(images))
        return images.flatten(1)

    images = torch.randint(0, 256, (6, 3, 10, 8), dtype=torch.uint8)
    strips = torch.randint(0, 256, (4, 3, 2, 8), dtype=torch.uint8)
    tops = strip_offsets(6, 10, 2, seed=0)
    pasted = PastedFeatureCache(encode, images, strips, tops, batch_size=4)
    asked = torch.tensor([5, 0]), torch.tensor([[1, 3], [3, 0]])
    found = pasted(*asked)
    assert found.shape == (2, 2, 240)
    for b in range(2):
        for k in range(2):
            i, c = int(asked[0][b]), int(asked[1][b, k])
            expected = paste(images[i : i + 1].float() / 255, strips[c : c + 1], tops[i : i + 1]).flatten()
            assert torch.equal(found[b, k], expected)
    assert (sum(calls), pasted.encoded) == (4, 4)
    assert torch.equal(pasted(*asked), found)
    pasted(torch.tensor([5]), torch.tensor([[1, 2]]))
    assert (sum(calls), pasted.encoded) == (5, 5)


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


def test_loss_forms_agree_with_their_definition():
    torch.manual_seed(0)
    plain, with_name = torch.rand(7, 9).log(), torch.rand(7, 4).log()
    named = torch.stack([torch.randperm(9)[:4] for _ in range(7)])
    without, pasted = plain.exp().gather(1, named), with_name.exp()
    printed = vpkit.methods.min_max_loss(plain, with_name, named, include_positive=False)
    positive = torch.minimum(without[:, 0], pasted[:, 0])
    negative = torch.maximum(without[:, 1:], pasted[:, 1:]).sum(1)
    assert torch.allclose(printed, -(positive / negative).log().mean())
    with_positive = vpkit.methods.min_max_loss(plain, with_name, named)
    assert torch.allclose(with_positive, -(positive / (positive + negative)).log().mean())
    assert with_positive > 0
    sure = torch.tensor([[0.9, 0.01, 0.02]]).log()
    classes = torch.tensor([[0, 1, 2]])
    assert (
        vpkit.methods.min_max_loss(sure, sure, classes, include_positive=False) < 0
    )  # not bounded below, as the spec warns


def test_hard_negatives_are_the_most_probable_wrong_classes():
    logits = torch.tensor([[3.0, 9.0, 5.0, 1.0], [4.0, 2.0, 3.0, 1.0]], requires_grad=True)
    found = vpkit.methods.hard_negatives(logits, torch.tensor([1, 3]), 2)
    assert found.tolist() == [[2, 0], [0, 2]]
    assert vpkit.methods.hard_negatives(logits, torch.tensor([1, 3]), 9).shape == (2, 3)  # K is cut to T - 1
    for count, columns in ((0, 4), (2, 1)):
        with pytest.raises(ValueError, match="at least 1 negative" if count == 0 else "no wrong one"):
            vpkit.methods.hard_negatives(logits[:, :columns], torch.zeros(2, dtype=torch.long), count)


def test_reselection_oracles():
    torch.manual_seed(0)
    plain = torch.randn(6, 5).log_softmax(1)
    same = vpkit.methods.reselect(plain, lambda c: plain.gather(1, c), 3)
    assert torch.equal(same.prediction, plain.argmax(1))  # strips equal to what they cover
    assert not same.changed.any()
    one = vpkit.methods.reselect(plain, lambda c: torch.zeros(c.shape), 1)
    assert torch.equal(one.prediction, plain.argmax(1))  # K = 1
    second = plain.topk(2, 1).indices[:, 1]
    turned = vpkit.methods.reselect(plain, lambda c: torch.where(c == second[:, None], 0.0, -9.0), 9)
    assert torch.equal(turned.prediction, second)
    assert turned.changed.all()
    assert turned.candidates.shape == (6, 5)
    with pytest.raises(ValueError, match="at least 1 candidate"):
        vpkit.methods.reselect(plain, lambda c: c, 0)


def test_harmonic_mean():
    assert vpkit.methods.harmonic_mean(0.4, 0.4) == pytest.approx(0.4)
    assert vpkit.methods.harmonic_mean(0.952, 0.1722) == pytest.approx(0.2916, abs=1e-4)  # DPT on Flowers102, corrected
    assert vpkit.methods.harmonic_mean(0, 0) == 0


def test_named_images_select_what_a_loop_selects():
    torch.manual_seed(0)
    clip, names = FrozenCLIP(open_clip.CLIP(**SMALL)), ("cat", "dog", "cow")
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    split = vpkit.methods.NamePastedImages(
        clip, vpkit.ImageSet(images, torch.tensor([0, 1, 2, 0, 1]), names), ratio=0.3, seed=3
    )
    text = torch.nn.functional.normalize(torch.randn(3, clip.embed_dim), dim=1)
    found = split.select(lambda features: (20 * features @ text.T).log_softmax(-1), 2)
    for i in range(5):
        scores = {}
        plain = (20 * clip.encode_image(images[i : i + 1] / 255) @ text.T).log_softmax(-1)[0]
        for c in plain.topk(2).indices.tolist():
            top = split.pairs.tops[i : i + 1]
            shown = vpkit.prompts.paste(images[i : i + 1] / 255, split.strips[c : c + 1], top)
            scores[c] = max(plain[c], (20 * clip.encode_image(shown) @ text.T).log_softmax(-1)[0, c])
        assert int(found.prediction[i]) == max(scores, key=scores.get)
    assert split.strips.shape == (3, 3, 10, 32)
    positions = torch.cat([index for index, _ in split.batches(2)])
    assert sorted(positions.tolist()) == list(range(5))
    again = vpkit.methods.NamePastedImages(clip, split.images, ratio=0.3, seed=4)
    assert torch.equal(again.strips, split.strips)  # one colour a class, whatever the seed of the places
    assert not torch.equal(again.pairs.tops, split.pairs.tops)


def test_strips_take_a_seventh_of_the_side_unless_told_otherwise():
    clip = FrozenCLIP(open_clip.CLIP(**{**SMALL, "vision_cfg": {**SMALL["vision_cfg"], "image_size": 56}}))
    images = torch.zeros(2, 3, 56, 56, dtype=torch.uint8)
    split = vpkit.methods.NamePastedImages(clip, vpkit.ImageSet(images, torch.tensor([0, 1]), ("cat", "dog")))
    assert split.strips.shape == (2, 3, 8, 56)


def test_pairs_that_are_all_known_are_not_encoded_again():
    """An image transformer does not take a batch without images."""
    clip = FrozenCLIP(open_clip.CLIP(**SMALL))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    split = vpkit.methods.NamePastedImages(
        clip, vpkit.ImageSet(images, torch.tensor([0, 1]), ("cat", "dog")), ratio=0.3
    )
    wanted = torch.tensor([0, 1]), torch.tensor([[0, 1], [1, 0]])
    first = split.pairs(*wanted)
    assert split.pairs.encoded == 4
    assert torch.equal(split.pairs(*wanted), first)
    assert split.pairs.encoded == 4


def test_an_attack_counts_who_follows_the_writing():
    """The stand-in reads: an image with a strip has the feature of the name, one without that of its own class."""
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    images = vpkit.ImageSet(images, torch.arange(4), tuple("abcd"))
    split = vpkit.methods.NamePastedImages(FrozenCLIP(open_clip.CLIP(**SMALL)), images, ratio=0.3)
    text = torch.eye(4)
    split.features = 0.9 * text[[0, 1, 2, 2]]  # the last one is wrong even when plain
    split.pairs = lambda image, target: text[target]
    found = split.attacked(text, torch.tensor([1, 2, 3, 2]))
    assert list(found["plain"].values()) == [0.75, 0.0, 0.25]
    assert list(found["true name"].values()) == [1.0, 1.0, 0.0]
    assert list(found["wrong name"].values()) == [0.0, 0.0, 1.0]
