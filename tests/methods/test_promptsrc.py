"""PromptSRC: its loss beside the formula, and its average over epochs."""

import math

import open_clip
import pytest
import torch
from small_clip import NAMES, SMALL_VIT, dpt
from torch import nn
from torch.nn.functional import cross_entropy

import vpkit
from vpkit.methods import GaussianAverage, PromptSRC
from vpkit.models import FrozenCLIP
from vpkit.prompts import ContextPrompt, TokenPrompt, cache_patches


def made(clip):
    torch.manual_seed(1)
    written = clip.encode_text([f"a photo of a {name}." for name in NAMES])
    return PromptSRC(clip, TokenPrompt(clip, 2), written, ContextPrompt(clip, NAMES, 3))


def test_the_loss_holds_features_and_logits_near_those_without_prompts():
    torch.manual_seed(0)
    clip = FrozenCLIP(open_clip.CLIP(**SMALL_VIT))
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % 4
    classifier = made(clip)
    loss, logits = classifier.loss(images, labels)
    features, text, *_ = classifier._features(images)
    plain = clip.encode_image(images)
    usual, prompted = (clip.logit_scale * f @ t.T for f, t in ((plain, classifier.written), (features, text)))
    divergence = (usual.softmax(1) * (usual.log_softmax(1) - prompted.log_softmax(1))).mean()
    expected = cross_entropy(logits, labels) + 25 * (text - classifier.written).abs().mean()
    expected = expected + 10 * (features - plain).abs().mean() + divergence
    assert torch.allclose(loss, expected, atol=1e-4)
    assert torch.allclose(classifier.eval().loss(images, labels)[0], cross_entropy(logits, labels), atol=1e-5)


def test_it_needs_text_and_plain_tokens():
    clip = FrozenCLIP(open_clip.CLIP(**SMALL_VIT))
    with pytest.raises(ValueError, match="give text= and tokens="):
        PromptSRC(clip, None, clip.encode_text(["a cat"]), ContextPrompt(clip, NAMES, 3))
    aware = dpt(clip)
    with pytest.raises(ValueError, match="without class-aware blocks"):
        PromptSRC(clip, aware.tokens, aware.written, aware.text)


def test_the_average_over_epochs_is_weighed_by_a_bell():
    clip = FrozenCLIP(open_clip.CLIP(**SMALL_VIT))
    images = vpkit.ImageSet(torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8), torch.arange(8) % 4, NAMES)
    train, classifier, average, states = cache_patches(clip, images), made(clip), GaussianAverage(2, 1.0), []

    def before_epoch(trained, epoch):
        average(trained, epoch)
        states.append(nn.utils.parameters_to_vector(trained.parameters()).detach().clone())

    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.05)
    vpkit.fit(classifier, train.batches(4, shuffle=True), None, optimizer, 3, before_epoch, show=False)
    states.append(nn.utils.parameters_to_vector(classifier.parameters()).detach().clone())
    average.load(classifier)
    weights = torch.tensor([math.exp(-0.5 * (epoch - 2) ** 2) for epoch in (1, 2, 3)])
    expected = (weights[:, None] * torch.stack(states[1:])).sum(0) / weights.sum()
    assert torch.allclose(nn.utils.parameters_to_vector(classifier.parameters()), expected, atol=1e-6)
    assert not torch.allclose(expected, states[-1], atol=1e-6)
