"""Parity with open_clip itself, on the architectures of the papers with random weights."""

import open_clip
import pytest
import torch
from small_clip import SMALL
from torch.nn.functional import normalize

from vpkit.models.clip import OPENAI_MEAN, OPENAI_STD, FrozenCLIP


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return FrozenCLIP(open_clip.CLIP(**SMALL))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["ViT-B-32", "ViT-B-16", "RN50"])
def test_features_are_those_of_open_clip(architecture):
    torch.manual_seed(0)
    network = open_clip.create_model(architecture, pretrained=None, force_quick_gelu=True).eval()
    tokenizer = open_clip.get_tokenizer(architecture)
    clip = FrozenCLIP(network)
    images, texts = torch.rand(2, 3, 224, 224), ["This is a photo of a cat", "a hard-leaved pocket orchid."]
    mean, std = (torch.tensor(v)[:, None, None] for v in (OPENAI_MEAN, OPENAI_STD))
    with torch.no_grad():
        expected_image = network.encode_image((images - mean) / std, normalize=True)
        expected_text = network.encode_text(tokenizer(texts), normalize=True)
        image, text = clip.encode_image(images), clip.encode_text(texts)
        logits = clip.zero_shot(texts)(images)
    assert torch.allclose(image, expected_image, atol=1e-5)
    assert torch.allclose(text, expected_text, atol=1e-5)
    assert torch.allclose(logits, network.logit_scale.exp() * expected_image @ expected_text.T, atol=1e-3)
    assert clip.image_size == 224
    assert clip.context_length == 77


def test_tokens_are_clips(clip):
    tokens = clip.tokenize(["a photo of a cat."])[0]
    assert tokens[:8].tolist() == [49406, 320, 1125, 539, 320, 2368, 269, 49407]
    assert tokens[8:].eq(0).all()


def test_embedded_text_is_the_same_text_and_lets_gradients_through(clip):
    texts = ["a photo of a cat.", "a much longer sentence about a pixelated dog."]
    tokens = clip.tokenize(texts)
    embedded = clip.embed(tokens).requires_grad_()
    features = clip.encode_embedded(embedded, tokens.argmax(1))
    assert torch.allclose(features, clip.encode_text(texts), atol=1e-6)
    features[0, 0].backward()
    assert embedded.grad[0, :8].abs().sum() > 0
    assert embedded.grad[0, 8:].eq(0).all()  # after the end token nothing is read
    assert embedded.grad[1].eq(0).all()
    assert torch.allclose(clip.encode_text(texts, batch_size=1), clip.encode_text(texts), atol=1e-6)


def test_zero_shot_is_a_frozen_model_over_sentences(clip):
    texts = ["a cat", "a dog", "a house"]
    model = clip.zero_shot(texts, class_names=("cat", "dog", "house"))
    images = torch.rand(4, 3, 32, 32, requires_grad=True)
    logits = model(images)
    cosine = normalize(clip.encode_image(images), dim=1) @ clip.encode_text(texts).T
    assert torch.allclose(logits, clip.logit_scale * cosine, atol=1e-4)
    assert torch.allclose(model.features(images), clip.encode_image(images))
    assert model.class_names == ("cat", "dog", "house")
    towers = sum(p.numel() for p in clip.network.visual.parameters())
    assert sum(p.numel() for p in model.parameters()) == towers + 3 * 32  # no text tower along with it
    logits.sum().backward()
    assert images.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in (*model.parameters(), *clip.parameters()))


def test_it_stays_frozen_in_eval_mode(clip):
    assert not any(module.training for module in clip.train().modules())


def test_words_the_model_never_met_are_warned_of(clip):
    known = torch.ones(49408, dtype=torch.bool)
    known[2368] = False  # cat
    unsure = FrozenCLIP(clip.network, known_tokens=known)
    with pytest.warns(UserWarning, match=r"1 of 2 sentences .* 'a cat'"):
        unsure.encode_text(["a cat", "a dog"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda clip: clip.encode_text([]), "expected sentences"),
        (lambda clip: clip.encode_text(["a cat", " "]), "none of them empty"),
        (lambda clip: clip.encode_text(["word " * 30]), "has 32 tokens with start and end, this model reads 24"),
        (lambda clip: clip.encode_image(torch.rand(1, 3, 48, 48)), r"takes \(B, 3, 32, 32\).*size=32"),
        (lambda clip: clip.encode_image(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)), "floats in"),
        (lambda clip: FrozenCLIP(torch.nn.Linear(2, 2)), r"Linear is not open_clip\.CLIP"),
    ],
)
def test_bad_input_is_refused(clip, call, message):
    with pytest.raises(ValueError, match=message):
        call(clip)
