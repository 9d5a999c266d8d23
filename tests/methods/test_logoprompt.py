"""LoGoPrompt: its loss, its selection, the classifiers, and the names pasted on images."""

from functools import partial
from pathlib import Path

import nbformat
import open_clip
import pytest
import torch
from small_clip import SMALL
from torch import nn
from torch.nn.functional import cross_entropy, normalize

import vpkit
from vpkit import ImageSet, fit
from vpkit.methods import LoGoPromptClassifier, NamePastedImages, TextPromptedClassifier, TipAdapter, train_text
from vpkit.methods.logoprompt import (
    NamesAsDataClassifier,
    PastedFeatureCache,
    PastedImages,
    TunableLoGoPromptClassifier,
    attack_table,
    base_to_new_table,
    classifier_for,
    hard_negatives,
    min_max_loss,
    reselect,
    variants,
)
from vpkit.models import FrozenCLIP
from vpkit.prompts import ContextPrompt, paste, strip_offsets

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("cat", "dog", "cow", "sheep")


class Says(nn.Module):
    """A prompt with text features of its own."""

    def __init__(self, text):
        super().__init__()
        self.text = nn.Parameter(text)

    def forward(self):
        return self.text


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return FrozenCLIP(open_clip.CLIP(**SMALL))


@pytest.fixture
def split(clip):
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    return NamePastedImages(clip, ImageSet(images, torch.arange(8) % 4, NAMES), ratio=0.3, seed=3)


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


def test_loss_forms_agree_with_their_definition():
    torch.manual_seed(0)
    plain, with_name = torch.rand(7, 9).log(), torch.rand(7, 4).log()
    named = torch.stack([torch.randperm(9)[:4] for _ in range(7)])
    without, pasted = plain.exp().gather(1, named), with_name.exp()
    printed = min_max_loss(plain, with_name, named, include_positive=False)
    positive = torch.minimum(without[:, 0], pasted[:, 0])
    negative = torch.maximum(without[:, 1:], pasted[:, 1:]).sum(1)
    assert torch.allclose(printed, -(positive / negative).log().mean())
    with_positive = min_max_loss(plain, with_name, named)
    assert torch.allclose(with_positive, -(positive / (positive + negative)).log().mean())
    assert with_positive > 0
    sure = torch.tensor([[0.9, 0.01, 0.02]]).log()
    classes = torch.tensor([[0, 1, 2]])
    assert min_max_loss(sure, sure, classes, include_positive=False) < 0  # not bounded below, as the spec warns


def test_hard_negatives_are_the_most_probable_wrong_classes():
    logits = torch.tensor([[3.0, 9.0, 5.0, 1.0], [4.0, 2.0, 3.0, 1.0]], requires_grad=True)
    found = hard_negatives(logits, torch.tensor([1, 3]), 2)
    assert found.tolist() == [[2, 0], [0, 2]]
    assert hard_negatives(logits, torch.tensor([1, 3]), 9).shape == (2, 3)  # K is cut to T - 1
    for count, columns in ((0, 4), (2, 1)):
        with pytest.raises(ValueError, match="at least 1 negative" if count == 0 else "no wrong one"):
            hard_negatives(logits[:, :columns], torch.zeros(2, dtype=torch.long), count)


def test_reselection_oracles():
    torch.manual_seed(0)
    plain = torch.randn(6, 5).log_softmax(1)
    same = reselect(plain, lambda c: plain.gather(1, c), 3)
    assert torch.equal(same.prediction, plain.argmax(1))  # strips equal to what they cover
    assert not same.changed.any()
    one = reselect(plain, lambda c: torch.zeros(c.shape), 1)
    assert torch.equal(one.prediction, plain.argmax(1))  # K = 1
    second = plain.topk(2, 1).indices[:, 1]
    turned = reselect(plain, lambda c: torch.where(c == second[:, None], 0.0, -9.0), 9)
    assert torch.equal(turned.prediction, second)
    assert turned.changed.all()
    assert turned.candidates.shape == (6, 5)
    with pytest.raises(ValueError, match="at least 1 candidate"):
        reselect(plain, lambda c: c, 0)


def test_named_images_select_what_a_loop_selects():
    torch.manual_seed(0)
    clip, names = FrozenCLIP(open_clip.CLIP(**SMALL)), ("cat", "dog", "cow")
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    split = NamePastedImages(clip, ImageSet(images, torch.tensor([0, 1, 2, 0, 1]), names), ratio=0.3, seed=3)
    text = torch.nn.functional.normalize(torch.randn(3, clip.embed_dim), dim=1)
    classifier = LoGoPromptClassifier(Says(text), torch.tensor(20.0), 2).eval()
    found = classifier.select(split.inputs)
    assert torch.equal(classifier(split.inputs).argmax(1), found.prediction)
    for i in range(5):
        scores = {}
        plain = (20 * clip.encode_image(images[i : i + 1] / 255) @ text.T).log_softmax(-1)[0]
        for c in plain.topk(2).indices.tolist():
            top = split.pairs.tops[i : i + 1]
            shown = paste(images[i : i + 1] / 255, split.strips[c : c + 1], top)
            scores[c] = max(plain[c], (20 * clip.encode_image(shown) @ text.T).log_softmax(-1)[0, c])
        assert int(found.prediction[i]) == max(scores, key=scores.get)
    assert split.strips.shape == (3, 3, 10, 32)
    shuffled = torch.cat([images.positions for images, _ in split.batches(2, shuffle=True)])
    assert sorted(shuffled.tolist()) == list(range(5))
    assert torch.cat([images.positions for images, _ in split.batches(2)]).tolist() == list(range(5))
    again = NamePastedImages(clip, split.images, ratio=0.3, seed=4)
    assert torch.equal(again.strips, split.strips)  # one colour a class, whatever the seed of the places
    assert not torch.equal(again.pairs.tops, split.pairs.tops)


def test_strips_take_a_seventh_of_the_side_unless_told_otherwise():
    clip = FrozenCLIP(open_clip.CLIP(**{**SMALL, "vision_cfg": {**SMALL["vision_cfg"], "image_size": 56}}))
    images = torch.zeros(2, 3, 56, 56, dtype=torch.uint8)
    split = NamePastedImages(clip, ImageSet(images, torch.tensor([0, 1]), ("cat", "dog")))
    assert split.strips.shape == (2, 3, 8, 56)


def test_pairs_that_are_all_known_are_not_encoded_again():
    """An image transformer does not take a batch without images."""
    clip = FrozenCLIP(open_clip.CLIP(**SMALL))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    split = NamePastedImages(clip, ImageSet(images, torch.tensor([0, 1]), ("cat", "dog")), ratio=0.3)
    wanted = torch.tensor([0, 1]), torch.tensor([[0, 1], [1, 0]])
    first = split.pairs(*wanted)
    assert split.pairs.encoded == 4
    assert torch.equal(split.pairs(*wanted), first)
    assert split.pairs.encoded == 4


def test_an_attack_counts_who_follows_the_writing():
    """The stand-in reads: an image with a strip has the feature of the name, one without that of its own class."""
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    images = ImageSet(images, torch.arange(4), tuple("abcd"))
    split = NamePastedImages(FrozenCLIP(open_clip.CLIP(**SMALL)), images, ratio=0.3)
    text = torch.eye(4)
    plain = 0.9 * text[[0, 1, 2, 2]]  # the last one is wrong even when plain
    split.inputs = PastedImages(plain, torch.arange(4), lambda image, target: text[target])
    found = split.attacked(text, torch.tensor([1, 2, 3, 2]))
    assert list(found["plain"]) == [0.75, 0.0, 0.25]
    assert list(found["true name"]) == [1.0, 1.0, 0.0]
    assert list(found["wrong name"]) == [0.0, 0.0, 1.0]


def test_the_loss_is_that_of_a_loop_over_images(clip, split):
    text = normalize(torch.randn(4, clip.embed_dim), dim=1)
    classifier, scale = LoGoPromptClassifier(Says(text), torch.tensor(20.0), 2), 20.0
    images, labels = next(iter(split.batches(8)))
    losses = []
    for i in range(8):
        plain = (scale * clip.encode_image(split.images.images[i : i + 1] / 255) @ text.T).log_softmax(-1)[0]

        def with_name(c, i=i):
            shown = paste(split.images.images[i : i + 1] / 255, split.strips[c : c + 1], split.pairs.tops[i : i + 1])
            return (scale * clip.encode_image(shown) @ text.T).log_softmax(-1)[0, c]

        true = int(labels[i])
        wrong = [c for c in plain.argsort(descending=True).tolist() if c != true][:2]
        positive = min(plain[true], with_name(true))
        negative = torch.stack([torch.maximum(plain[c], with_name(c)) for c in wrong]).logsumexp(0)
        losses.append((1 + (negative - positive).exp()).log())
    found, logits = classifier.loss(images, labels)
    assert torch.allclose(found, torch.stack(losses).mean(), atol=1e-5)
    assert torch.allclose(logits.exp().sum(1), torch.ones(8), atol=1e-5)


def test_images_with_names_can_be_looked_at(clip, split):
    images, classes = split.inputs[[1, 5]], torch.tensor([[0, 3], [2, 1]])
    shown = images.pixels_with_names(classes)
    assert torch.allclose(clip.encode_image(shown.flatten(0, 1)).unflatten(0, (2, 2)), images.with_names(classes))
    assert torch.equal(shown[0, 0], paste(images.pixels[:1], split.strips[:1], split.pairs.tops[[1]])[0])


def test_what_is_asked_of_an_image_is_what_decides_it(clip, split):
    classifier = LoGoPromptClassifier(Says(normalize(torch.randn(4, clip.embed_dim), dim=1)), clip.logit_scale, 3)
    for row in range(8):
        one = split.inputs[[row]]
        table, chosen = classifier.asked(one), classifier.select(one)
        assert table["class"].tolist() == chosen.candidates[0].tolist()
        assert table["class"][table["chosen"]].tolist() == chosen.prediction.tolist()
        assert torch.allclose(torch.tensor(table["larger"].tolist()), chosen.scores[0].exp(), atol=1e-6)
        assert (table["smaller"] == table[["plain", "with its name"]].min(axis=1)).all()
        assert table["plain"].is_monotonic_decreasing
    assert len(classifier.asked(split.inputs, 2)) == 2


def test_training_pastes_names_and_a_test_selects(clip, split):
    torch.manual_seed(0)
    classifier = LoGoPromptClassifier(ContextPrompt(clip, NAMES, 2, class_specific=True), clip.logit_scale, 2)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1)
    before = classifier.loss(*next(iter(split.batches(8))))[0].item()
    history = fit(classifier, split.batches(4, shuffle=True), None, optimizer, 5)
    assert history["train_loss"][-1] < before
    assert "val_loss" not in history.rows[0]
    found = vpkit.evaluate(classifier, split.batches(3))
    chosen = classifier.select(split.inputs)
    assert found.accuracy == (chosen.prediction == split.labels).float().mean().item()


def test_of_equally_sure_names_the_class_wins_that_was_likelier_without():
    plain = torch.eye(3)[[1]] * 0.9 + 0.1 * torch.eye(3)[[0]]
    images = PastedImages(normalize(plain, dim=1), torch.tensor([0]), lambda image, target: torch.eye(3)[target])
    classifier = LoGoPromptClassifier(Says(torch.eye(3)), torch.tensor(500.0), 3).eval()
    scores = classifier.select(images).scores
    assert (scores == 0).sum() > 1  # all of them certain in float32
    assert classifier(images).argmax(1).tolist() == classifier.select(images).prediction.tolist() == [1]


def test_votes_of_an_adapter_join_the_logits(clip, split):
    text = normalize(torch.randn(4, clip.embed_dim), dim=1)
    adapter = TipAdapter(split.inputs.features, split.labels, text, torch.tensor(1.0), sharpness=50.0)
    classifier = LoGoPromptClassifier(Says(text), torch.tensor(1e-3), 1, adapter=adapter).eval()
    assert torch.equal(classifier(split.inputs).argmax(1), split.labels)  # every image votes for itself


def test_tunable_strips_start_as_the_rendered_ones_and_learn(clip, split):
    prompt = ContextPrompt(clip, NAMES, 2)
    usual = LoGoPromptClassifier(prompt, clip.logit_scale, 2).eval()
    tunable = TunableLoGoPromptClassifier(prompt, clip.logit_scale, split.strips, num_candidates=2).eval()
    assert torch.allclose(tunable(split.inputs), usual(split.inputs), atol=1e-4)
    images, labels = next(iter(split.batches(8)))
    tunable.train().loss(images, labels)[0].backward()
    assert tunable.strips.grad.abs().sum() > 0


def test_names_as_data_are_more_training_images(clip, split):
    prompt, (images, labels) = ContextPrompt(clip, NAMES, 2), next(iter(split.batches(8)))
    coop = TextPromptedClassifier(prompt, clip.logit_scale)
    plain = coop(images)
    named = NamesAsDataClassifier(prompt, clip.logit_scale)
    expected = cross_entropy(torch.cat([plain, coop(images.with_names(labels[:, None])[:, 0])]), labels.repeat(2))
    assert torch.allclose(named.loss(images, labels)[0], expected)
    only_names = normalize(torch.randn(4, clip.embed_dim), dim=1)
    drawn = NamesAsDataClassifier(prompt, clip.logit_scale, only_names)
    expected = cross_entropy(torch.cat([plain, coop(only_names)]), torch.cat([labels, torch.arange(4)]))
    assert torch.allclose(drawn.loss(images, labels)[0], expected)
    assert torch.allclose(drawn.eval().loss(images, labels)[0], cross_entropy(plain, labels))


def test_the_loss_of_the_chapter_is_the_packages(clip, split):
    cells = nbformat.read(ROOT / "notebooks" / "05_logoprompt.ipynb", as_version=4).cells
    (source,) = (cell.source for cell in cells if "def logoprompt_loss" in cell.source)
    names = {"torch": torch, "logoprompt": vpkit.methods.logoprompt, "clip": clip, "num_candidates": 2}
    exec(source, names)
    text = normalize(torch.randn(4, clip.embed_dim), dim=1)
    images, labels = next(iter(split.batches(8)))
    expected, _ = LoGoPromptClassifier(Says(text), clip.logit_scale, 2).loss(images, labels)
    assert torch.allclose(names["logoprompt_loss"](text, images, labels), expected, atol=1e-6)


def test_each_variant_is_trained_and_tested(clip, split):
    make, seen = partial(classifier_for, clip=clip, context_length=2, num_candidates=2), []

    def learn(classifier, train, epochs, name, **options):
        before = [parameter.clone() for parameter in classifier.parameters()]
        train_text(classifier, train, epochs, name, **{"lr": 0.1, "batch_size": 4} | options)
        assert any(not torch.equal(a, b) for a, b in zip(before, classifier.parameters(), strict=True)), name
        seen.append((name, epochs))
        return classifier

    methods = ["Table 4a", "two stages", "CoCoOp", "VP+TP", "tunable"]
    found = variants(methods, clip, split, make, learn, 6)
    assert seen == [
        ("CoCoOp", 1),
        ("VP+TP", 6),
        ("LoGoPrompt, first stage", 12),
        ("LoGoPrompt, two stages", 6),
        ("LoGoPrompt tunable", 1),
        ("names as images", 6),
        ("names pasted", 6),
    ]
    assert list(found) == [name for name, _ in seen]
    assert all(vpkit.evaluate(classifier, split.batches(8)).n == 8 for classifier in found.values())
    assert variants([], clip, split, make, learn, 6) == {}
    learned = make("LoGoPrompt", split.class_names)
    assert list(variants([], clip, split, make, learn, 6, learned=learned)) == [
        "LoGoPrompt, name not pasted",
        "LoGoPrompt + adapter",
    ]


def test_the_second_stage_starts_from_what_the_first_has_learned(clip, split):
    make, stages = partial(classifier_for, clip=clip, context_length=2, num_candidates=2), []

    def learn(classifier, train, epochs, name):
        stages.append(classifier.prompt().detach().clone())
        with torch.no_grad():
            for parameter in classifier.parameters():
                parameter.add_(torch.randn_like(parameter))
        return classifier

    found = variants(["two stages"], clip, split, make, learn, 1)
    assert torch.allclose(stages[1], found["LoGoPrompt, first stage"].prompt(), atol=1e-6)
    assert not torch.allclose(stages[0], stages[1], atol=1e-3)


def test_a_method_is_made_by_its_name_the_same_each_time(clip, split):
    methods = ["zero-shot", "zero-shot, names pasted", "CoOp", "CoOp, class-specific", "CoCoOp", "KgCoOp", "LoGoPrompt",
               "LoGoPrompt, shared", "LoGoPrompt, first stage", "LoGoPrompt, first stage, not pasted"]  # fmt: skip
    for method in methods:
        one, two = (classifier_for(method, split.class_names, clip, context_length=3, seed=2) for _ in range(2))
        assert isinstance(one, LoGoPromptClassifier) == ("LoGo" in method or "pasted" in method) - ("not" in method)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        assert one.prompt().shape == (4, clip.embed_dim)
    specific = classifier_for("LoGoPrompt", split.class_names, clip, context_length=3).prompt.context
    assert specific.shape[:2] == (4, 3)
    with pytest.raises(ValueError, match="method='Logo': expected one of zero-shot, "):
        classifier_for("Logo", split.class_names, clip)


def test_rates_of_text_are_a_fifth_where_it_is_shared(clip, split, monkeypatch):
    rates = []
    monkeypatch.setattr("vpkit.methods.coop.fit", lambda *args, **options: rates.append(args[3].param_groups[0]["lr"]))
    for method in ("CoOp", "CoOp, class-specific", "LoGoPrompt, first stage"):
        train_text(classifier_for(method, split.class_names, clip), split, 1, method, lr=0.2)
    train_text(classifier_for("CoOp", split.class_names, clip), split, 1, "CoOp, base", lr=0.2, lrs={"CoOp, base": 0.5})
    assert rates == pytest.approx([0.04, 0.2, 0.2, 0.5])


def test_new_classes_are_tested_with_what_the_base_classes_taught(clip, split):
    make, names = partial(classifier_for, clip=clip, context_length=2, num_candidates=2), []

    def learn(classifier, split, epochs, name):
        names.append((name, epochs, split.class_names))
        return train_text(classifier, split, epochs, name, lr=0.1)

    def named(images, augment=False):
        return NamePastedImages(clip, images, 0.5, augment=augment)

    images = split.images, split.images
    table = base_to_new_table(make, learn, named, images, 6, ["base to new", "KgCoOp", "CoCoOp"])
    assert list(table.index) == [
        "zero-shot", "zero-shot, names pasted", "CoOp", "LoGoPrompt, shared", "KgCoOp", "CoCoOp",
        "LoGoPrompt, first stage", "LoGoPrompt, first stage, not pasted",
    ]  # fmt: skip
    assert {(epochs, classes) for _, epochs, classes in names} == {
        (6, split.class_names[:2]),
        (1, split.class_names[:2]),
    }
    assert ((table >= 0) & (table <= 1)).all(axis=None)
    without = base_to_new_table(make, learn, named, images, 6, without=["CoOp", "LoGoPrompt, first stage"])
    assert list(without.index) == ["zero-shot", "zero-shot, names pasted", "LoGoPrompt, shared"]
    assert base_to_new_table(make, learn, named, images, 6, []).empty


def test_the_attack_table_is_that_of_each_text(clip, split):
    texts = {name: Says(normalize(torch.randn(4, clip.embed_dim), dim=1)) for name in ("zero-shot", "LoGoPrompt")}
    classifiers = {name: TextPromptedClassifier(prompt, clip.logit_scale) for name, prompt in texts.items()}
    wrong = (split.labels + 1) % 4
    found = attack_table(classifiers, split, wrong)
    assert found.method.tolist() == ["zero-shot", "LoGoPrompt"]
    for row in found.itertuples():
        expected = split.attacked(texts[row.method](), wrong)["wrong name"]
        assert (row.right_if_misnamed, row.called_as_written) == (
            expected["right"],
            expected["called by the wrong name"],
        )


def test_names_as_images_are_one_more_image_a_class(clip, split, monkeypatch):
    """Of four classes and eight images a batch of four has two names, whatever the number of classes."""
    names = normalize(torch.randn(4, clip.embed_dim), dim=1)
    classifier, seen = NamesAsDataClassifier(Says(names), clip.logit_scale, names, num_images=8).train(), []
    original = NamesAsDataClassifier.forward
    monkeypatch.setattr(NamesAsDataClassifier, "forward", lambda self, x: seen.append(x) or original(self, x))
    for images, labels in split.batches(4):
        classifier.loss(images, labels)
    assert [len(part) for part in seen] == [4, 2, 4, 2]
