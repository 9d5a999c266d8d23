"""VPT, VLP and DPT against open_clip itself, and the parameter counts of the paper's Table VI."""

import open_clip
import pytest
import torch
from small_clip import NAMES, SMALL_VIT, TEXT, dpt
from torch.nn.functional import cross_entropy, normalize

import vpkit
from vpkit import ImageSet
from vpkit.methods import DualPromptClassifier, TextPromptedClassifier
from vpkit.methods.dpt import class_aware_loss
from vpkit.models.clip import FrozenCLIP
from vpkit.models.tiny_clip import convolutional_stem
from vpkit.prompts import ClassAwareTokens, ContextPrompt, GeneratedContext, TokenPrompt


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    network = open_clip.CLIP(**SMALL_VIT)
    network.visual.conv1 = convolutional_stem(width=32, patch_size=8)  # as tiny-vit
    return FrozenCLIP(network)


@pytest.fixture(scope="module")
def vit_b32():
    torch.manual_seed(0)
    return FrozenCLIP(open_clip.create_model("ViT-B-32", pretrained=None, force_quick_gelu=True))


def test_no_tokens_is_open_clip(clip):
    images = torch.rand(3, 3, 32, 32)
    assert torch.allclose(TokenPrompt(clip, 0)(images).features, clip.encode_image(images), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["ViT-B-32", "ViT-B-16"])
def test_no_tokens_is_open_clip_on_the_papers_models(architecture):
    """Also the guard of the internals of open_clip that `TokenPrompt` leans on: `_embeds`, resblocks, `_pool`."""
    torch.manual_seed(0)
    network = open_clip.create_model(architecture, pretrained=None, force_quick_gelu=True).eval()
    clip, images = FrozenCLIP(network), torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        expected = network.encode_image((images - clip.mean[:, None, None]) / clip.std[:, None, None], normalize=True)
        assert torch.allclose(TokenPrompt(clip, 0)(images).features, expected, atol=1e-5)


def test_deep_tokens_are_thrown_away_and_shallow_ones_are_not(clip):
    lengths = []
    handles = [
        block.register_forward_hook(lambda _, given, made: lengths.append((given[0].shape[1], made.shape[1])))
        for block in clip.network.visual.transformer.resblocks
    ]
    TokenPrompt(clip, 5)(torch.rand(1, 3, 32, 32))
    TokenPrompt(clip, 5, deep=False)(torch.rand(1, 3, 32, 32))
    for handle in handles:
        handle.remove()
    assert lengths == [(22, 22)] * 6  # 17 tokens and 5 more
    deep, shallow = TokenPrompt(clip, 5), TokenPrompt(clip, 5, deep=False)
    assert vpkit.count_parameters(deep) == 3 * 5 * 32
    assert vpkit.count_parameters(shallow) == 5 * 32


def test_table_vi_of_the_paper(vit_b32):
    """VPT 92,160 and 1,105,920; VLP 100,352; DPT 1,136,384 without its auxiliary classifier."""
    count = vpkit.count_parameters
    vpt, long_vpt = TokenPrompt(vit_b32, 10), TokenPrompt(vit_b32, 120)
    text = ContextPrompt(vit_b32, NAMES, 16)
    aware = ClassAwareTokens(512, 768, len(NAMES))
    tokens = TokenPrompt(vit_b32, 10, class_aware={12: aware})
    assert count(vpt) == 92_160
    assert count(long_vpt) == 1_105_920
    assert count(vpt) + count(text) == 100_352
    assert count(tokens) + count(text) - count(aware.classifier) == 1_136_384


def test_the_order_of_candidates_does_not_matter_to_the_image(clip):
    model = dpt(clip)
    images, raw = torch.rand(2, 3, 32, 32), model.text(unit=False)
    first = model.tokens(images, raw[torch.tensor([[0, 2], [1, 3]])])
    second = model.tokens(images, raw[torch.tensor([[2, 0], [3, 1]])])
    assert torch.allclose(first.features, second.features, atol=1e-5)
    assert torch.allclose(first.class_logits[0], second.class_logits[0].flip(1), atol=1e-5)


def test_attention_of_one_candidate_is_written_out(clip):
    torch.manual_seed(0)
    aware, hidden, query = ClassAwareTokens(24, 32, 4), torch.randn(2, 17, 32), torch.randn(2, 1, 24)
    keys = torch.cat([hidden, aware.bank.expand(2, -1, -1)], 1)
    asked = aware.query(query)
    weights = torch.softmax(aware.to_query(asked) @ aware.to_key(keys).mT / 32**0.5, -1)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 1))
    found = weights @ aware.to_value(keys)
    made = aware(hidden, query)
    assert torch.allclose(made.tokens, aware.token_norm(found + asked), atol=1e-5)
    assert torch.allclose(made.class_logits, aware.classifier(aware.class_norm(found)), atol=1e-5)


def test_gradients_stop_at_the_keys_but_reach_text_and_tokens(clip):
    model = dpt(clip)
    hidden = torch.randn(1, 17, 32, requires_grad=True)
    aware = model.tokens.class_aware[0]
    aware(hidden, torch.randn(1, 2, 24)).tokens.sum().backward()
    assert hidden.grad is None
    model.zero_grad()
    model.loss(torch.rand(4, 3, 32, 32), torch.arange(4))[0].backward()
    assert model.text.context.grad.abs().sum() > 0
    assert all(token.grad.abs().sum() > 0 for token in model.tokens.tokens.values())
    assert aware.bank.grad.abs().sum() > 0
    assert all(p.grad is None for p in clip.parameters())


def test_the_auxiliary_loss_counts_only_rows_with_the_true_class():
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 4, requires_grad=True)
    chosen, labels = torch.tensor([[0, 1], [2, 3], [1, 0]]), torch.tensor([1, 0, 1])
    expected = cross_entropy(logits[[0, 2], [1, 0]], torch.tensor([1, 1]))
    assert torch.allclose(class_aware_loss(logits, chosen, labels), expected)
    none = class_aware_loss(logits, chosen, torch.tensor([3, 1, 2]))
    assert none.item() == 0  # and not NaN
    none.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_both_losses_are_those_of_the_paper(clip):
    model, images, labels = dpt(clip, candidates=9, alpha=0.3, beta=0.1), torch.rand(4, 3, 32, 32), torch.arange(4)
    assert model.candidates == 4  # cut to the classes there are
    model.train()
    text, scale = model.text(), clip.logit_scale
    plain = clip.encode_image(images)
    chosen = (plain @ model.written.T).topk(4, dim=1).indices
    features, class_logits = model.tokens(images, model.text(unit=False)[chosen])
    main = cross_entropy(scale * features @ text.T, labels)
    aware = class_aware_loss(class_logits[0], chosen, labels)
    assert torch.allclose(model.loss(images, labels)[0], main + 0.3 * aware, atol=1e-5)
    model.guided = True
    coop = cross_entropy(scale * plain @ text.T, labels)
    vpt = cross_entropy(scale * features @ model.written.T, labels)
    assert torch.allclose(model.loss(images, labels)[0], coop + vpt + 0.1 * main + 0.3 * aware, atol=1e-5)
    logits = model.loss(images, labels)[1]
    assert torch.allclose(logits, scale * features @ text.T, atol=1e-5)  # predictions are of the full model


def test_vpt_and_vlp_are_dpt_without_parts(clip):
    images = torch.rand(2, 3, 32, 32)
    written = clip.encode_text([f"a photo of a {name}." for name in NAMES])
    tokens = TokenPrompt(clip, 2)
    vpt = DualPromptClassifier(clip, tokens, written)
    features = normalize(tokens(images).features, dim=1)
    assert torch.allclose(vpt(images), clip.logit_scale * features @ written.T, atol=1e-5)
    text = ContextPrompt(clip, NAMES, 3)
    vlp = DualPromptClassifier(clip, tokens, written, text)
    assert torch.allclose(vlp(images), clip.logit_scale * features @ text().T, atol=1e-5)


def test_shared_weights_count_once(clip):
    aware = ClassAwareTokens(24, 32, 4)
    one, two = (TokenPrompt(clip, 2, class_aware=dict.fromkeys(blocks, aware)) for blocks in ((3,), (2, 3)))
    assert vpkit.count_parameters(one) - vpkit.count_parameters(two) == 2 * 32  # one block's own tokens


def test_tokens_start_small_and_around_zero(clip):
    tokens = torch.stack(list(TokenPrompt(clip, 60).tokens.values()))
    assert tokens.std().item() == pytest.approx(0.02, rel=0.05)
    assert tokens.mean().abs().item() < 0.002


def test_every_block_may_have_class_aware_tokens(clip):
    aware = ClassAwareTokens(24, 32, 4)
    prompt = TokenPrompt(clip, 2, class_aware=dict.fromkeys((1, 2, 3), aware))
    assert len(prompt.tokens) == 0
    images, queries = torch.rand(2, 3, 32, 32), torch.randn(2, 2, 24)
    first = prompt(images, queries).features
    assert first.shape == (2, 24)
    assert not torch.allclose(first, prompt(images, -queries).features, atol=1e-4)


def resnet():
    return FrozenCLIP(
        open_clip.CLIP(
            24,
            {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 32, "patch_size": None},
            TEXT,
        )
    )


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda clip: TokenPrompt(resnet()), "is a ModifiedResNet: tokens need a transformer"),
        (lambda clip: TokenPrompt(clip, 65), "expected 0..64 tokens"),
        (lambda clip: TokenPrompt(clip, class_aware={4: ClassAwareTokens(24, 32, 4)}), "has blocks 1..3"),
        (lambda clip: TokenPrompt(clip, class_aware={0: ClassAwareTokens(24, 32, 4)}), "has blocks 1..3"),
        (lambda clip: TokenPrompt(clip, deep=False, class_aware={3: ClassAwareTokens(24, 32, 4)}), "deep=True"),
        (lambda clip: dpt(clip, candidates=0), "at least 1 class-aware token"),
        (lambda clip: DualPromptClassifier(clip, dpt(clip).tokens, torch.rand(4, 24)), "give text="),
    ],
)
def test_what_cannot_be_prompted(clip, action, message):
    with pytest.raises(ValueError, match=message):
        action(clip)


@pytest.mark.parametrize("deep", [True, False])
def test_embedded_images_give_what_images_give(clip, deep):
    images = ImageSet(torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1, 2, 3, 0]), NAMES)
    embedded = vpkit.prompts.cache_patches(clip, images, batch_size=2)
    prompt = TokenPrompt(clip, 3, deep=deep)
    expected = torch.cat([prompt(x).features for x, _ in images.batches(5)])
    found = [(prompt(x).features, y) for x, y in embedded.batches(2)]
    assert torch.allclose(torch.cat([features for features, _ in found]), expected, atol=1e-6)
    assert torch.cat([labels for _, labels in found]).equal(images.labels)
    plain = torch.cat([clip.encode_image(x) for x, _ in images.batches(5)])
    assert torch.allclose(embedded.inputs.plain, plain, atol=1e-6)


def test_dpt_on_embedded_images_is_dpt(clip):
    model = dpt(clip)
    images = ImageSet(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1, 2, 3]), NAMES)
    model.guided = True  # which also reads the plain features
    for model.training in (True, False):
        losses = [
            model.loss(*next(iter(batches)))[0]
            for batches in (images.batches(4), vpkit.prompts.cache_patches(clip, images).batches(4))
        ]
        assert torch.allclose(*losses, atol=1e-5)


def counted_passes(clip, monkeypatch):
    passes, encode = [], clip.encode_embedded
    monkeypatch.setattr(clip, "encode_embedded", lambda *args: passes.append(1) or encode(*args))
    return passes


def test_the_text_tower_runs_once_for_a_test_and_again_after_a_step(clip, monkeypatch):
    model, images = dpt(clip), torch.rand(2, 3, 32, 32)
    passes = counted_passes(clip, monkeypatch)
    with torch.no_grad():
        first = model(images), model(images)
        assert len(passes) == 1
        model.text.context += torch.randn_like(model.text.context)
        changed = model(images)
    assert len(passes) == 2
    assert torch.equal(*first)
    assert not torch.allclose(changed, first[0])
    model(images)  # with gradients it always runs
    assert len(passes) == 3


@pytest.mark.parametrize("kind", ["CoOp", "first stage"])
def test_a_classifier_of_texts_encodes_them_once_for_a_test(clip, monkeypatch, kind):
    prompt = ContextPrompt(clip, NAMES, 3)
    if kind == "first stage":
        prompt = GeneratedContext(prompt, torch.randn(4, clip.embed_dim))
    classifier = TextPromptedClassifier(prompt, clip.logit_scale)
    features = vpkit.datasets.EncodedSet(torch.randn(12, clip.embed_dim), torch.arange(12) % 4, NAMES)
    passes = counted_passes(clip, monkeypatch)
    before = vpkit.evaluate(classifier, features.batches(3))
    assert len(passes) == 1
    optimizer = torch.optim.SGD(prompt.parameters(), lr=1.0)
    vpkit.train_epoch(classifier, features.batches(12), optimizer)
    after = vpkit.evaluate(classifier, features.batches(3))
    assert len(passes) == 3  # one with gradients, and one for the second test
    assert after.loss != before.loss
    state = {name: value + 1 for name, value in prompt.state_dict().items()}
    prompt.load_state_dict(state)
    assert vpkit.evaluate(classifier, features.batches(3)).loss != after.loss
    with torch.no_grad():
        plain = ContextPrompt(clip, NAMES, 3)
        assert not torch.equal(plain(), plain(unit=False))
        assert not torch.equal(plain(plain.context + 1), plain())  # another context is never remembered


def test_without_tokens_it_is_coop_and_without_either_zero_shot(clip):
    torch.manual_seed(0)
    written = clip.encode_text([f"a photo of a {name}." for name in NAMES])
    images, labels = torch.rand(3, 3, 32, 32), torch.tensor([0, 1, 2])
    plain = clip.encode_image(images)
    zero_shot = DualPromptClassifier(clip, None, written)
    assert torch.allclose(zero_shot(images), clip.logit_scale * plain @ written.T, atol=1e-5)
    assert vpkit.count_parameters(zero_shot) == 0
    text = ContextPrompt(clip, NAMES, 3)
    coop = DualPromptClassifier(clip, None, written, text)
    assert torch.allclose(coop(images), clip.logit_scale * plain @ text().T, atol=1e-5)
    coop.guided = True  # there is no other side to be guided by
    assert torch.allclose(coop.loss(images, labels)[0], cross_entropy(coop(images), labels), atol=1e-6)
