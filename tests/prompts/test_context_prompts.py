"""CoOp and CoCoOp, checked against open_clip's own sentences and against a plain loop."""

import open_clip
import pytest
import torch

import vpkit
from vpkit.datasets import EncodedSet
from vpkit.methods import TextPromptedClassifier
from vpkit.models.clip import FrozenCLIP
from vpkit.prompts import ContextPrompt, GeneratedContext, MetaNet

SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32},
    "text_cfg": {"context_length": 28, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
NAMES = ["cat", "hard-leaved pocket orchid", "etc."]


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return FrozenCLIP(open_clip.CLIP(**SMALL))


def test_a_worded_start_is_that_sentence(clip):
    prompt = ContextPrompt(clip, NAMES, words="a photo of a")
    expected = clip.encode_text([f"a photo of a {name}." for name in NAMES])
    assert torch.allclose(prompt(), expected, atol=1e-6)
    assert prompt.context.shape == (4, 32)


@pytest.mark.parametrize(("position", "sentence"), [("front", "{} a photo of a ."), ("middle", "a photo {} of a .")])
def test_the_name_may_stand_elsewhere(clip, position, sentence):
    prompt = ContextPrompt(clip, ["cat", "dog"], words="a photo of a", position=position)
    expected = clip.encode_text([sentence.format(name) for name in ("cat", "dog")])
    assert torch.allclose(prompt(), expected, atol=1e-6)


def test_layouts_of_the_released_code(clip):
    """First index of the name and of the end token for 16 learned tokens (a name of one token)."""
    ends = {position: ContextPrompt(clip, ["cat"], 16, position=position) for position in ("end", "middle", "front")}
    first = {"end": 17, "middle": 9, "front": 1}
    for position, prompt in ends.items():
        free = set(range(1, 20)) - set(prompt.slots[0].tolist())
        assert min(free) == first[position]
        assert prompt.end.tolist() == [19]


def test_only_the_context_is_learned_and_gradients_reach_it(clip):
    prompt = ContextPrompt(clip, NAMES, 4, class_specific=True)
    assert vpkit.count_parameters(prompt) == 3 * 4 * 32
    assert list(prompt.state_dict()) == ["context"]
    prompt()[0].sum().backward()
    assert prompt.context.grad[0].abs().sum() > 0
    assert prompt.context.grad[1:].abs().sum() == 0  # each class has its own
    assert vpkit.count_parameters(ContextPrompt(clip, NAMES, 16)) == 16 * 32


def test_cocoop_equals_a_loop_over_images(clip):
    torch.manual_seed(0)
    prompt, shift = ContextPrompt(clip, NAMES, 4), MetaNet(32, 32)
    features = torch.nn.functional.normalize(torch.randn(5, 32), dim=1)
    classifier = TextPromptedClassifier(prompt, clip.logit_scale, shift, texts_at_once=6)  # two images at a time
    texts = []  # how many go through the text tower at a time
    handle = clip.network.transformer.register_forward_pre_hook(lambda _, given: texts.append(len(given[0])))
    loss, logits = classifier.loss(features, torch.tensor([0, 1, 2, 0, 1]))
    loss.backward()
    handle.remove()
    found = {name: p.grad.clone() for name, p in classifier.named_parameters()}
    classifier.zero_grad()
    rows = [clip.logit_scale * f @ prompt(prompt.context + shift(f[None])[0]).T for f in features]
    expected = torch.stack(rows)
    torch.nn.functional.cross_entropy(expected, torch.tensor([0, 1, 2, 0, 1])).backward()
    assert torch.allclose(logits, expected, atol=1e-4)
    assert 1 <= max(texts, default=0) <= 6
    for name, parameter in classifier.named_parameters():
        assert torch.allclose(found[name], parameter.grad, atol=1e-5), name


def test_parameters_of_cocoop_on_vit_b():
    assert vpkit.count_parameters(MetaNet(512, 512)) == 33_312


def test_features_are_cached_in_the_order_of_the_images(clip):
    images = vpkit.load_dataset("digits", "train", size=32, subset=100)
    features = vpkit.datasets.cache_features(clip.encode_image, images)
    assert torch.allclose(features.inputs[:3], clip.encode_image(images.images[:3].float() / 255), atol=1e-6)
    assert torch.equal(features.labels, images.labels)
    assert not features.inputs.requires_grad


def test_coop_learns_what_separates_three_clusters(clip):
    torch.manual_seed(0)
    labels = torch.arange(3).repeat(20)
    centres = torch.nn.functional.normalize(torch.randn(3, 32), dim=1)
    images = torch.nn.functional.normalize(centres[labels] + 0.05 * torch.randn(60, 32), dim=1)
    features = EncodedSet(images, labels, ("cat", "dog", "cow"))
    prompt = ContextPrompt(clip, features.class_names, 4, class_specific=True)
    classifier = TextPromptedClassifier(prompt, clip.logit_scale)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=0.03)
    history = vpkit.fit(classifier, features.batches(20, shuffle=True), features.batches(50), optimizer, 12)
    assert history["val_accuracy"][-1] > 0.95


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": ["cat", " "]}, "expected words"),
        ({"class_names": ["{}"]}, "without braces"),
        ({"class_names": []}, "at least one name"),
        ({"position": "behind"}, "expected one of end, middle, front"),
        ({"context_length": 0}, "at least 1"),
        ({"context_length": 26}, "fewer context tokens"),
    ],
)
def test_what_cannot_be_a_prompt(clip, options, message):
    with pytest.raises(ValueError, match=message):
        ContextPrompt(clip, **({"class_names": ["cat"]} | options))


def test_a_generated_context_starts_its_second_stage_where_the_first_ended(clip):
    torch.manual_seed(0)
    written = clip.encode_text([f"a photo of a {name}." for name in NAMES])
    generated = GeneratedContext(ContextPrompt(clip, NAMES, 4), written)
    assert generated.contexts().shape == (3, 4, 32)
    assert {name.partition(".")[0] for name in generated.state_dict()} == {"layers", "start"}
    fixed = generated.fixed()
    assert torch.allclose(fixed(), generated())
    assert vpkit.count_parameters(fixed) == 3 * 4 * 32
    fixed()[0].sum().backward()
    assert fixed.context.grad[0].abs().sum() > 0
    assert generated.prompt.context.grad is None  # the shared start is another tensor
    generated().sum().backward()
    assert all(p.grad is not None for p in generated.parameters())


def test_a_generated_context_starts_as_the_words_it_is_added_to(clip):
    """Started as noise it forgot all that the model knows of a class, and never got it back for new ones."""
    torch.manual_seed(0)
    sentences = [f"a photo of a {name}." for name in NAMES]
    written = clip.encode_text(sentences)
    prompt = ContextPrompt(clip, NAMES, words="a photo of a")
    generated = GeneratedContext(prompt, written)
    assert torch.allclose(generated(), written, atol=1e-6)
    (written[1] - generated()[0]).sum().backward()
    assert generated.layers[-1].weight.grad.abs().sum() > 0  # zero, but it learns
    with torch.no_grad():
        prompt.context += 1
    assert torch.allclose(generated(), written, atol=1e-6)
    assert not torch.allclose(GeneratedContext(prompt, written, residual=False)(), written, atol=1e-2)
    with pytest.raises(ValueError, match="new classes have none"):
        GeneratedContext(ContextPrompt(clip, NAMES, 4, class_specific=True), written)


def test_a_generated_context_reaches_names_it_was_not_trained_on(clip):
    names, others = ["cat", "dog"], ["cow", "dog", "sheep"]
    written = {tuple(n): clip.encode_text([f"a {x}." for x in n]) for n in (names, others)}
    base, new = (GeneratedContext(ContextPrompt(clip, n, 4), written[tuple(n)]) for n in (names, others))
    new.load_state_dict(base.state_dict())
    assert torch.allclose(new()[1], base()[1], atol=1e-6)  # the same class in another set
    with pytest.raises(ValueError, match="2 text features for 3 class names"):
        GeneratedContext(ContextPrompt(clip, others, 4), written[tuple(names)])
