"""Base classes to new ones, and shifted domains."""

import pandas as pd
import pytest
import torch
from small_clip import SMALL

import vpkit
from vpkit import ImageSet
from vpkit.methods import (
    TextPromptedClassifier,
    base_to_new,
    evaluate_domains,
    harmonic_mean,
    join_tables,
    shifted_domains,
)
from vpkit.models import FrozenCLIP
from vpkit.prompts import ContextPrompt

NAMES = ("cat", "dog", "cow", "sheep", "hen")


@pytest.fixture(scope="module")
def clip():
    import open_clip

    torch.manual_seed(0)
    return FrozenCLIP(open_clip.CLIP(**SMALL))


@pytest.fixture
def halves(clip):
    images = ImageSet(torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8), torch.arange(20) % 5, NAMES)
    base, new = (vpkit.datasets.cache_features(clip.encode_image, half) for half in images.base_new_split())
    return {"base": base, "new": new}


def make(clip, class_names, **options):
    torch.manual_seed(0)
    return TextPromptedClassifier(ContextPrompt(clip, class_names, 2, **options), clip.logit_scale)


def test_what_is_learned_on_base_classes_is_tested_on_both_halves(clip, halves):
    trained = []

    def learn(classifier):
        assert classifier.prompt.class_names == NAMES[:3]
        optimizer = torch.optim.SGD(classifier.parameters(), lr=0.5)
        vpkit.fit(classifier, halves["base"].batches(4, shuffle=True), None, optimizer, 3)
        trained.append(classifier.prompt.context.detach().clone())

    found = base_to_new(lambda names: make(clip, names), learn, halves)
    for half, split in halves.items():
        by_hand = make(clip, split.class_names)
        with torch.no_grad():
            by_hand.prompt.context.copy_(trained[0])
        assert found[half] == vpkit.evaluate(by_hand, split.batches(7)).accuracy
    assert found["H"] == harmonic_mean(found["base"], found["new"])


def test_contexts_of_the_base_classes_are_refused_on_new_ones(clip, halves):
    with pytest.raises(ValueError, match="class-specific"):
        base_to_new(lambda names: make(clip, names, class_specific=True), lambda classifier: None, halves)


def test_domains_of_another_data_set_are_left_out():
    asked = []

    def load(name, split, subset):
        asked.append((name, split, subset))
        return name

    found = shifted_domains(load, "icons", ["icons:sketch", "digits:noisy", "icons:noisy"], 50)
    assert found == {"sketch": "icons:sketch", "noisy": "icons:noisy"}
    assert asked == [("icons:sketch", "test", 50), ("icons:noisy", "test", 50)]


def test_each_method_is_tested_on_each_split(model, image_set):
    classifier = vpkit.PromptedClassifier(torch.nn.Identity(), model, vpkit.mappings.identity_mapping(4))
    found = evaluate_domains({"plain": classifier}, {"test_accuracy": image_set, "half": image_set[:32]})
    assert found.columns.tolist() == ["method", "parameters", "test_accuracy", "half"]
    assert found.test_accuracy[0] == vpkit.evaluate(classifier, image_set.batches(16)).accuracy
    assert found.half[0] == vpkit.evaluate(classifier, image_set[:32].batches(16)).accuracy


def test_harmonic_mean():
    assert harmonic_mean(0.4, 0.4) == pytest.approx(0.4)
    assert harmonic_mean(0.952, 0.1722) == pytest.approx(0.2916, abs=1e-4)  # DPT on Flowers102, corrected
    assert harmonic_mean(0, 0) == 0


def test_predictions_on_imagenet_a_and_r_are_among_the_classes_that_have_images(clip):
    """A text that is always nearest to a class without images is right on none of them, but for these two."""
    images = ImageSet(torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1] * 3), NAMES)
    split = vpkit.datasets.cache_features(clip.encode_image, images)

    class Says(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.text = torch.nn.Parameter(torch.eye(5))

        def loss(self, features, labels):
            logits = torch.tensor([0.0, 0.0, 0.0, 0.0, 9.0]).repeat(len(labels), 1)
            logits[torch.arange(len(labels)), labels] = 1.0
            return logits.mean(), logits

    found = evaluate_domains({"says": Says()}, {"sketch": split, "a": split, "r": split})
    assert found.loc[0, ["sketch", "a", "r"]].tolist() == [0.0, 1.0, 1.0]


def test_joined_tables_have_a_row_for_each_method_and_none_where_it_has_no_number():
    one = pd.DataFrame({"method": ["CoOp", "DPT"], "test_accuracy": [0.5, 0.25]})
    joined = join_tables(one, pd.DataFrame({"method": ["DPT", "new"], "H": [0.1, 0.2]}))
    assert joined.to_dict("records") == [
        {"method": "CoOp", "test_accuracy": 0.5, "H": None},
        {"method": "DPT", "test_accuracy": 0.25, "H": 0.1},
        {"method": "new", "test_accuracy": None, "H": 0.2},
    ]
