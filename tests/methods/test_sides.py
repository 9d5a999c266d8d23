"""Prompts of two sides: each trained at its own rate, as by hand, and tested on new classes."""

import open_clip
import pytest
import torch
from small_clip import NAMES, SMALL_VIT

import vpkit
from vpkit.methods import DualPromptClassifier, GaussianAverage, KgCoOp, PromptSRC, sides
from vpkit.models import FrozenCLIP
from vpkit.prompts import ContextPrompt, TokenPrompt, cache_patches
from vpkit.training.schedules import cosine

HOW = {"epochs": 3, "lr": 0.1, "text_lr": 0.02, "batch_size": 4}


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return FrozenCLIP(open_clip.CLIP(**SMALL_VIT))


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return vpkit.ImageSet(torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8), torch.arange(16) % 4, NAMES)


def written(clip, names):
    return clip.encode_text([f"a {name}." for name in names])


def two_sided(clip, kind=DualPromptClassifier, names=NAMES):
    torch.manual_seed(2)
    return kind(clip, TokenPrompt(clip, 2), written(clip, names), ContextPrompt(clip, names, 2))


def test_each_side_has_the_rate_it_was_given(clip, images):
    data = cache_patches(clip, images)
    by_hand, trained = two_sided(clip), two_sided(clip)
    optimizer = torch.optim.SGD(
        [{"params": by_hand.tokens.parameters(), "lr": 0.1}, {"params": by_hand.text.parameters(), "lr": 0.02}],
        momentum=0.9,
    )
    torch.manual_seed(3)
    vpkit.fit(by_hand, data.batches(4, shuffle=True), data.batches(64), optimizer, 3, schedule=cosine, show=False)
    torch.manual_seed(3)
    assert sides.train_sides(trained, data, data, "both", **HOW) is trained
    for (name, ours), (_, theirs) in zip(trained.named_parameters(), by_hand.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_what_has_nothing_to_learn_is_left_as_it_is(clip):
    zero_shot = DualPromptClassifier(clip, None, written(clip, NAMES))
    assert sides.train_sides(zero_shot, None, None, **HOW) is zero_shot  # no data is asked for
    assert sides.train_sides(DualPromptClassifier(clip, TokenPrompt(clip, 0), zero_shot.written), None, None, **HOW)


def test_kgcoop_is_trained_at_the_rate_of_the_text(clip, images):
    data = cache_patches(clip, images)
    makes = [KgCoOp(ContextPrompt(clip, NAMES, 2), clip.logit_scale, written(clip, NAMES)) for _ in range(2)]
    makes[1].load_state_dict(makes[0].state_dict())
    before = makes[0].prompt.context.detach().clone()
    for made, lr in zip(makes, (0.1, 0.7), strict=True):
        torch.manual_seed(3)
        sides.train_sides(made, data, data, **(HOW | {"lr": lr}))
    assert torch.equal(makes[0].prompt.context, makes[1].prompt.context)
    assert not torch.equal(makes[0].prompt.context, before)


def test_promptsrc_ends_with_the_mean_over_its_epochs(clip, images):
    data, seen = cache_patches(clip, images), []
    made, by_hand = two_sided(clip, PromptSRC), two_sided(clip, PromptSRC)
    torch.manual_seed(3)
    sides.train_sides(made, data, data, **HOW)
    average = GaussianAverage(0.75 * 3, 1.0)
    optimizer = torch.optim.SGD(
        [{"params": by_hand.tokens.parameters(), "lr": 0.1}, {"params": by_hand.text.parameters(), "lr": 0.02}],
        momentum=0.9,
    )
    torch.manual_seed(3)
    batches = data.batches(4, shuffle=True)
    vpkit.fit(by_hand, batches, data.batches(64), optimizer, 3, average, schedule=cosine, show=False)
    seen.append(by_hand.text.context.detach().clone())
    average.load(by_hand)
    assert torch.equal(made.text.context, by_hand.text.context)
    assert not torch.equal(made.text.context, seen[0])


def test_new_classes_are_tested_with_what_the_base_classes_taught(clip, images):
    calls = []

    def make(method, names):
        if method == "zero-shot":
            return DualPromptClassifier(clip, None, written(clip, names))
        return two_sided(clip, names=names)

    def learn(made, train, val, name):
        calls.append((name, train.class_names, val.class_names))
        return sides.train_sides(made, train, val, name, **HOW)

    none = sides.base_to_new_rows(clip, [], make, learn, (None, None, None))  # nothing is asked for
    assert list(none) == ["method", "base", "new", "H"]
    assert none.empty
    found = sides.base_to_new_rows(clip, ["VLP"], make, learn, (images, images, images))
    base, new = (cache_patches(clip, half) for half in images.base_new_split())
    assert calls == [(f"{method}, base", NAMES[:2], NAMES[:2]) for method in ("zero-shot", "VLP")]
    assert found["method"].tolist() == ["zero-shot", "VLP"]
    for half, tested in (("base", base), ("new", new)):
        zero_shot = make("zero-shot", tested.class_names)
        assert found[half][0] == vpkit.evaluate(zero_shot, tested.batches(8)).accuracy


def test_each_method_has_its_prompts(clip):
    parts = {}
    for method in ("zero-shot", "CoOp", "VPT shallow", "VPT", "VLP", "DPT", "PromptSRC"):
        made = sides.classifier_for(clip, method, NAMES, num_tokens=2, candidates=3)
        assert type(made) is (PromptSRC if method == "PromptSRC" else DualPromptClassifier)
        blocks = () if made.tokens is None else tuple(made.tokens.tokens)
        parts[method] = (made.text is not None, blocks, len(made.tokens.class_aware) if made.tokens else 0)
    assert parts == {
        "zero-shot": (False, (), 0), "CoOp": (True, (), 0), "VPT shallow": (False, ("1",), 0),
        "VPT": (False, ("1", "2", "3"), 0), "VLP": (True, ("1", "2", "3"), 0), "DPT": (True, ("1", "2"), 1),
        "PromptSRC": (True, ("1", "2", "3"), 0),
    }  # fmt: skip
    assert isinstance(sides.classifier_for(clip, "KgCoOp", NAMES), KgCoOp)
    aware = sides.classifier_for(clip, "DPT", NAMES, aware_blocks=[1, 3])
    assert list(aware.tokens.tokens) == ["2"]
    with pytest.raises(ValueError, match="method='VPP': expected one of zero-shot, CoOp"):
        sides.classifier_for(clip, "VPP", NAMES)


def test_four_learned_words_start_as_a_photo_of_a_and_others_at_random(clip):
    written = clip.encode_text([f"a photo of a {name}." for name in NAMES])
    four, three, again, other = (
        sides.classifier_for(clip, "CoOp", NAMES, context_length=count, seed=seed).text()
        for count, seed in ((4, 0), (3, 0), (3, 0), (3, 1))
    )
    assert torch.allclose(four, written, atol=1e-5)
    assert torch.equal(three, again)
    assert not torch.allclose(three, other, atol=1e-3)
