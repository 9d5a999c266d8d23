from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn

import vpkit
from vpkit import PromptedClassifier, evaluate
from vpkit.mappings import count_predictions, frequency_mapping, identity_mapping
from vpkit.methods.black_box import SPSAGC, BudgetSpent, ScoresOnly, cma_es, fit_by_scores, linear_on_scores
from vpkit.prompts import CoarsePrompt, PadPrompt

ROOT = Path(__file__).resolve().parents[2]


def test_answers_are_those_of_the_model_for_a_file_and_images_are_counted(model):
    interface, images = ScoresOnly(model), torch.rand(4, 3, 16, 16)
    assert torch.allclose(interface(images), model(images.mul(255).round().div(255)).log_softmax(1), atol=1e-6)
    beyond = 2 * images - 0.5
    assert torch.equal(interface(beyond), interface(beyond.clamp(0, 1)))
    assert interface.sent == 12
    assert interface.class_names == model.class_names
    assert not list(interface.parameters())
    assert not interface.state_dict()


def test_no_gradient_goes_through_and_asking_for_one_is_refused(model):
    interface, prompt = ScoresOnly(model), PadPrompt(16, 4)
    classifier = PromptedClassifier(prompt, interface, identity_mapping(4))
    with pytest.raises(RuntimeError, match="images that take gradients cannot be sent"):
        classifier.loss(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]))
    with pytest.raises(RuntimeError, match="cannot be sent"):
        vpkit.train_epoch(
            classifier, [(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]))], torch.optim.SGD(prompt.parameters(), lr=1.0)
        )
    assert interface.sent == 0
    told = interface(torch.rand(2, 3, 16, 16))
    assert not told.requires_grad
    assert told.grad_fn is None
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # even of a model that could be trained
    assert not ScoresOnly(model)(torch.rand(2, 3, 16, 16)).requires_grad
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def test_a_budget_is_never_exceeded(model):
    interface = ScoresOnly(model, budget=10)
    interface(torch.rand(8, 3, 16, 16))
    with pytest.raises(BudgetSpent, match="8 of 10 images are sent, 3 more do not fit"):
        interface(torch.rand(3, 3, 16, 16))
    assert interface.sent == 8
    interface(torch.rand(2, 3, 16, 16))
    assert interface.sent == 10


def test_a_service_may_tell_only_its_best_classes_or_only_the_best(model):
    images = torch.rand(5, 3, 16, 16)
    full = ScoresOnly(model)(images)
    best = ScoresOnly(model, top=3)(images)
    assert torch.allclose(best.exp().sum(1), torch.ones(5), atol=1e-5)
    top = full.topk(3)
    assert torch.allclose(best.gather(1, top.indices), top.values)
    others = torch.ones_like(best, dtype=torch.bool).scatter(1, top.indices, False)
    assert all(len(row[keep].unique()) == 1 for row, keep in zip(best, others, strict=True))
    label = ScoresOnly(model, labels_only=True)(images)
    assert label.argmax(1).equal(full.argmax(1))
    assert len(label.unique()) == 2
    with pytest.raises(ValueError, match="top=0"):
        ScoresOnly(model, top=0)
    with pytest.raises(ValueError, match="top=3, labels_only=True"):
        ScoresOnly(model, top=3, labels_only=True)
    with pytest.raises(ValueError, match="class_names: not given"):
        ScoresOnly(lambda x: x.flatten(1))


def test_a_step_is_the_papers_formula():
    """Of a quadratic whose gradient is known, against the formula written out."""
    torch.manual_seed(3)
    phi, target = nn.Parameter(torch.zeros(6)), torch.arange(6.0)
    optimizer = SPSAGC([phi], lr=0.05, beta=0.9, draws=2, spread=0.01)

    def loss():
        return (phi - target).square().sum()

    expected, momentum = torch.zeros(6), torch.zeros(6)
    for t in range(3):
        state = torch.get_rng_state()
        optimizer.step(loss)
        torch.set_rng_state(state)
        c, a = 0.01 / (t + 1) ** 0.1, 0.05 / (t + 1) ** 0.5
        gradient = torch.zeros(6)
        for _ in range(2):
            delta = (torch.randint(2, (6,)) * 2 - 1) * (0.5 + 0.5 * torch.rand(6))
            ahead, behind = ((expected + s * c * delta - target).square().sum() for s in (1, -1))
            gradient += (ahead - behind) / (2 * c * delta) / 2
        momentum = 0.9 * momentum + gradient
        expected = expected - a * (gradient + 0.9 * momentum)
        assert torch.allclose(phi.detach(), expected, atol=2e-2, rtol=1e-3)
    with pytest.raises(ValueError, match="draws=0"):
        SPSAGC([phi], draws=0)


def test_spsa_finds_a_minimum_and_leaves_the_point_in_place_when_the_budget_ends():
    torch.manual_seed(0)
    phi, target, left = nn.Parameter(torch.zeros(4)), torch.tensor([1.0, -1.0, 0.5, 0.0]), [401]
    optimizer = SPSAGC([phi], lr=0.02, draws=2)

    def loss():
        left[0] -= 1
        if left[0] < 0:
            raise BudgetSpent
        return (phi - target).square().sum()

    before = []
    with suppress(BudgetSpent):
        while True:
            before.append(phi.detach().clone())
            optimizer.step(loss)
    assert left == [-1]
    assert (phi - target).abs().max() < 0.15
    assert torch.equal(phi.detach(), before[-1])  # not a perturbed one


def test_a_prompt_learns_behind_the_interface(model, image_set):
    torch.manual_seed(0)
    budget = 64 * 4 * 12
    interface = ScoresOnly(model, budget=budget)
    classifier = PromptedClassifier(CoarsePrompt(16, 3), interface, identity_mapping(4))
    start = evaluate(PromptedClassifier(nn.Identity(), model, identity_mapping(4)), image_set.batches(64))

    def remap(classifier, epoch):
        counts = count_predictions(interface, classifier.prompt, image_set.batches(64))
        classifier.mapping = frequency_mapping(counts)

    history = fit_by_scores(
        classifier,
        image_set.batches(32, shuffle=True),
        SPSAGC(classifier.prompt.parameters(), lr=0.1, draws=2),
        remap,
        image_set[:16].batches(16),
    )
    assert interface.sent <= budget
    assert history["queries"][0] == len(image_set) * (1 + 2 * 2)  # the mapping, and two answers a draw
    assert history["queries"][1] == 2 * history["queries"][0] + 16  # validation is sent after the row is made
    assert history["queries"] == sorted(history["queries"])
    assert 0 <= history.rows[0]["val_accuracy"] <= 1
    interface.budget = None
    found = evaluate(classifier, image_set.batches(64))
    assert found.accuracy > start.accuracy
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="ends when a budget is spent"):
        fit_by_scores(classifier, image_set.batches(32), SPSAGC(classifier.prompt.parameters()))


def test_cma_es_keeps_the_best_point_it_met(model, image_set):
    interface = ScoresOnly(model, budget=64 * 60)
    classifier = PromptedClassifier(CoarsePrompt(16, 1), interface, identity_mapping(4))
    (images, labels), losses = next(iter(image_set.batches(64))), []

    def loss():
        losses.append(float(classifier.loss(images, labels)[0]))
        return losses[-1]

    with torch.no_grad():
        first = float(loss())
    tried = cma_es(loss, classifier.prompt.parameters(), spread=0.2)
    assert tried == 59
    assert interface.sent == 64 * 60
    interface.budget = None
    with torch.no_grad():
        assert float(classifier.loss(images, labels)[0]) == pytest.approx(min(losses[1:]), abs=1e-6)
    assert min(losses) < first


def test_a_linear_map_on_plain_scores_sends_each_image_once(model, image_set):
    interface = ScoresOnly(model, budget=len(image_set) + 16)
    probe = linear_on_scores(interface, image_set.batches(16), image_set[:16].batches(16))
    assert interface.sent == len(image_set) + 16
    with pytest.raises(BudgetSpent):
        evaluate(probe, image_set.batches(16))
    interface.budget = None
    assert evaluate(probe, image_set.batches(16)).accuracy > 0.9


def test_the_lines_of_the_chapter_are_the_optimizer():
    cells = nbformat.read(ROOT / "notebooks" / "07_behind_an_interface.ipynb", as_version=4).cells
    (source,) = (cell.source for cell in cells if "def spsa_gc(" in cell.source)
    names = {"torch": torch, "lr": 0.3, "spread": 0.2}
    exec(source, names)
    aim = torch.linspace(-1, 1, 5)

    def loss(phi):
        return (phi - aim).square().sum() + phi.prod()

    phi, m = torch.zeros(5), torch.zeros(5)
    learned = nn.Parameter(torch.zeros(5))
    optimizer = SPSAGC([learned], lr=0.3, draws=3, spread=0.2)
    for step in range(4):
        torch.manual_seed(step)
        phi, m = names["spsa_gc"](loss, phi, m, step, draws=3)
        torch.manual_seed(step)
        optimizer.step(lambda: loss(learned.detach()))
    assert torch.allclose(phi, learned.detach(), atol=1e-5)
    assert float(loss(phi)) < float(loss(torch.zeros(5)))


def test_a_linear_map_on_prompted_images_puts_the_prompt_on_by_itself(model, image_set):
    train, val = image_set[:48], image_set[48:]
    prompt = CoarsePrompt(16, 2)
    with torch.no_grad():
        prompt.grid.add_(torch.rand(3, 2, 2))
    interface = ScoresOnly(model, budget=64)
    found = linear_on_scores(interface, train.batches(16), val.batches(16), prompt)
    assert interface.sent == 64
    interface.budget = None
    images = val.images.float() / 255
    with torch.no_grad():
        told = interface(prompt(images))
        assert torch.allclose(found(images), told @ found.weight.T + found.bias, atol=1e-4)
    assert evaluate(found, val.batches(16)).accuracy > 0.8
    assert vpkit.count_parameters(found) == 4 * 13  # the prompt is not learned any more
    plain = linear_on_scores(ScoresOnly(model), train.batches(16), val.batches(16))
    assert not torch.allclose(found(images), plain(images), atol=1e-3)
