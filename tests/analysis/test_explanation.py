import pytest
import torch

import vpkit
from vpkit import PromptedClassifier
from vpkit.analysis import explain_by_example
from vpkit.mappings import LabelMapping
from vpkit.mappings.weighted import bayesian_mapping
from vpkit.prompts import ExpandPrompt


@pytest.fixture
def classifier(model):
    return PromptedClassifier(ExpandPrompt(8, 16), model, LabelMapping([7, 2, 9, 4]))


def planted(classifier, images):
    """Source images of every class: noise, and for each target image the prompted image itself in its mapped class."""
    with torch.no_grad():
        prompted = (classifier.prompt(images) * 255).round().byte()
        mapped = classifier.mapping.index[classifier(images).argmax(1)]
    noise = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8)
    labels = torch.cat([torch.arange(24) % 12, mapped])
    return vpkit.ImageSet(torch.cat([noise, prompted]), labels, classifier.model.class_names)


def test_the_planted_neighbour_is_found(classifier):
    images = torch.rand(6, 3, 8, 8)
    source = planted(classifier, images)
    for i, found in enumerate(explain_by_example(classifier, images, source)):
        assert found.nearest[0] == 24 + i
        assert found.similarity[0] > 0.999
        assert found.similarity == sorted(found.similarity, reverse=True)
        assert found.source_class == classifier.mapping.index[found.target_class]
        assert (source.labels[found.nearest] == found.source_class).all()
        assert len(found.nearest) == 3


def test_similarity_is_the_cosine_of_penultimate_features(classifier, model):
    images = torch.rand(3, 3, 8, 8)
    source = planted(classifier, images)
    with torch.no_grad():
        ours, theirs = model.features(classifier.prompt(images)), model.features(source.images.float() / 255)
    for i, found in enumerate(explain_by_example(classifier, images, source, count=2)):
        expected = torch.cosine_similarity(ours[i : i + 1], theirs[found.nearest])
        assert torch.allclose(torch.tensor(found.similarity), expected, atol=1e-4)


def test_a_class_without_source_images_has_no_example(classifier):
    images = torch.rand(4, 3, 8, 8)
    source = planted(classifier, images)
    few = source[source.labels == 0]
    assert all(found.nearest == [] == found.similarity for found in explain_by_example(classifier, images, few))


def test_source_classes_may_come_in_any_order(classifier):
    images = torch.rand(4, 3, 8, 8)
    source = planted(classifier, images)
    turned = source.select_classes(*reversed(source.class_names))
    for first, second in zip(
        explain_by_example(classifier, images, source), explain_by_example(classifier, images, turned), strict=True
    ):
        assert torch.equal(source.images[first.nearest], turned.images[second.nearest])


def test_what_cannot_be_explained_is_refused(classifier, model, image_set):
    images = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="4 classes of the source set are not the model's: red, green, blue, white"):
        explain_by_example(classifier, images, image_set)
    with pytest.raises(ValueError, match="count=0"):
        explain_by_example(classifier, images, planted(classifier, images), count=0)
    weighted = PromptedClassifier(ExpandPrompt(8, 16), model, bayesian_mapping(torch.ones(12, 4)))
    with pytest.raises(ValueError, match="WeightedMapping is not one-to-one"):
        explain_by_example(weighted, images, planted(classifier, images))
