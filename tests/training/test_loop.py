import copy
import math
from time import perf_counter

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import vpkit
from vpkit import PromptedClassifier, evaluate, fit, train_epoch
from vpkit.methods.ilm_vp import CountingClassifier
from vpkit.prompts import ExpandPrompt, PadPrompt, PatchPrompt
from vpkit.training import History
from vpkit.training.loop import _autocast, _autocast_dtype, _number, _together


def make(model, prompt=None):
    return PromptedClassifier(prompt or ExpandPrompt(16, 24), model, vpkit.mappings.random_mapping(12, 4))


def adam(classifier, lr=0.1):
    return torch.optim.Adam([p for p in classifier.parameters() if p.requires_grad], lr=lr)


def shuffled(image_set, seed=0):
    return image_set.batches(16, shuffle=True, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "prompt",
    [
        lambda: PadPrompt(16, 4),
        lambda: PatchPrompt(16, 8),
        lambda: ExpandPrompt(16, 24),
        lambda: ExpandPrompt(16, 24, "zero"),
    ],
)
def test_every_prompt_learns_and_only_the_prompt_changes(model, image_set, prompt):
    classifier = make(model, prompt())
    before = copy.deepcopy(classifier.state_dict())
    history = fit(classifier, shuffled(image_set), image_set.batches(64), adam(classifier), 8)
    assert history["train_loss"][-1] < history["train_loss"][0] - 0.03
    assert history["val_accuracy"][-1] > 0.4  # chance is 0.25
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("prompt"), name


def test_an_epoch_is_the_plain_loop(model, image_set):
    ours, plain = make(model), make(model)
    result = train_epoch(ours, shuffled(image_set), adam(ours))
    optimizer, losses, correct = adam(plain), [], 0
    for images, labels in shuffled(image_set):
        logits = plain.mapping(model(plain.prompt(images)))
        loss = cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        correct += (logits.argmax(1) == labels).sum().item()
    assert torch.equal(ours.prompt.pixels, plain.prompt.pixels)
    assert result.loss == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert result.accuracy == correct / 64


def test_a_short_last_batch_counts_by_its_images(model, image_set):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def loss(self, images, labels):
            return len(labels) + 0 * self.w.sum(), nn.functional.one_hot(labels, 4).float()

    result = train_epoch(Fixed(), image_set[:20].batches(16), adam(Fixed()))
    assert result.loss == pytest.approx((16 * 16 + 4 * 4) / 20)


def test_equal_seeds_give_equal_histories_bit_for_bit(model, image_set):
    def run():
        torch.manual_seed(5)
        classifier = make(model, PadPrompt(16, 4))
        return fit(
            classifier, shuffled(image_set), image_set.batches(64), adam(classifier), 2
        ), classifier.prompt.pixels

    (first, pixels), (second, again) = run(), run()
    assert first == second
    assert torch.equal(pixels, again)


def test_fit_evaluates_validation_and_steps_the_schedule(model, image_set, capsys):
    classifier = make(model)
    val = image_set[:20]
    started = perf_counter()
    history = fit(
        classifier, shuffled(image_set), val.batches(8), adam(classifier, 0.5), 4,
        schedule=vpkit.training.schedules.multistep, name="mine",
    )  # fmt: skip
    assert history["epoch"] == [1, 2, 3, 4]
    assert history["lr"] == pytest.approx([0.5, 0.5, 0.005, 0.005])
    assert history["val_accuracy"][-1] == evaluate(classifier, val.batches(8)).accuracy
    assert 0 < history.seconds <= perf_counter() - started
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 4
    assert rows[0].startswith("mine")


def test_before_epoch_may_replace_the_mapping_and_add_to_the_history(model, image_set):
    classifier, seen = make(model), []

    def remap(trained, epoch):
        trained.mapping = vpkit.mappings.random_mapping(12, 4, seed=epoch)
        seen.append(epoch)
        return {"drawn": epoch * 10}

    history = fit(classifier, shuffled(image_set), image_set.batches(64), adam(classifier), 3, remap)
    assert seen == [1, 2, 3]
    assert history["drawn"] == [10, 20, 30]
    assert torch.equal(classifier.mapping.index, vpkit.mappings.random_mapping(12, 4, seed=3).index)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_epoch_step_and_rate(model, image_set, poison):
    class Breaks(PromptedClassifier):
        calls = 0

        def loss(self, images, labels):
            loss, logits = super().loss(images, labels)
            self.calls += self.training
            return loss * (poison if self.calls == 6 else 1), logits

    classifier = Breaks(ExpandPrompt(16, 24), model, vpkit.mappings.identity_mapping(4))
    with pytest.raises(FloatingPointError, match=r"epoch 2, step 2 of 4, at learning rate 0\.25"):
        fit(classifier, shuffled(image_set), image_set.batches(64), adam(classifier, 0.25), 3)


def test_evaluation_is_per_image_and_per_class(image_set):
    class AlwaysRed(nn.Module):
        def loss(self, images, labels):
            logits = torch.zeros(len(labels), 4)
            logits[:, 0] = 1
            return cross_entropy(logits, labels), logits

    uneven = image_set[torch.cat([torch.arange(0, 64, 4), torch.tensor([1, 2])])]  # 16 red, 1 green, 1 blue
    found = evaluate(AlwaysRed(), uneven.batches(5))
    assert found.accuracy == 16 / 18
    assert found.n == 18
    assert found.per_class[:3].tolist() == [1, 0, 0]
    assert math.isnan(found.per_class[3])
    assert found.confusion[:, 0].tolist() == [16, 1, 1, 0]
    expected = cross_entropy(torch.tensor([[1.0, 0, 0, 0]]).expand(18, 4), uneven.labels)
    assert found.loss == pytest.approx(expected.item(), rel=1e-6)


def test_loss_is_over_the_mapped_logits_only(model):
    classifier = make(model, nn.Identity())
    images, labels = torch.rand(5, 3, 16, 16), torch.tensor([0, 1, 2, 3, 0])
    loss, logits = classifier.loss(images, labels)
    source = model(images)
    assert torch.equal(logits, source[:, classifier.mapping.index])
    expected = -(logits.double().log_softmax(1)[torch.arange(5), labels]).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_bf16_autocast_stays_close_to_full_precision(model, image_set):
    classifier = make(model)
    images, labels = next(iter(image_set.batches(32)))
    full, _ = classifier.loss(images, labels)
    with _autocast(images.device, torch.bfloat16):
        half, logits = classifier.loss(images, labels)
    assert logits.dtype == torch.bfloat16
    assert half.item() == pytest.approx(full.item(), rel=0.02)


@pytest.mark.parametrize(("capability", "dtype"), [((9, 0), torch.bfloat16), ((7, 5), torch.float16)])
def test_a_gpu_computes_in_what_it_is_fast_in(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert _autocast_dtype(torch.device("cuda:0")) == dtype
    assert _autocast_dtype(torch.device("cpu")) is None


def test_nothing_to_do_is_an_error(model, image_set):
    classifier = make(model)
    with pytest.raises(ValueError, match="nothing to train on"):
        train_epoch(classifier, image_set[:0].batches(4), adam(classifier))
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(classifier, image_set[:0].batches(4))


def test_without_validation_nothing_is_evaluated_and_a_silent_run_prints_nothing(model, image_set, capsys):
    ours, silent = make(model), make(model)
    history = fit(ours, shuffled(image_set), None, adam(ours), 2)
    said = capsys.readouterr().out
    assert said.count("loss") == 2
    assert "val" not in said
    assert fit(silent, shuffled(image_set), None, adam(silent), 2, show=False) == history
    assert capsys.readouterr().out == ""
    assert "val_accuracy" not in history.rows[0]


def test_a_history_is_read_by_column():
    history = History([{"a": 1}])
    history.add(a=2)
    assert history["a"] == [1, 2]
    assert len(history) == 2


def test_counts_from_the_training_pass_are_those_of_the_prompts_met(model, image_set):
    classifier = CountingClassifier(ExpandPrompt(16, 24), model, vpkit.mappings.random_mapping(12, 4))
    before = vpkit.mappings.count_predictions(model, classifier.prompt, image_set.batches(16), with_probability=True)
    classifier.counter = vpkit.mappings.PredictionCounts(4, with_probability=True)
    train_epoch(classifier, shuffled(image_set), adam(classifier, lr=0.0))  # the prompt stays, so nothing may differ
    assert torch.equal(classifier.counter.counts, before[0])
    assert torch.allclose(classifier.counter.probability, before[1], atol=1e-6)
    evaluate(classifier, image_set.batches(16))  # does not count
    assert classifier.counter.counts.sum() == 64
    with pytest.raises(ValueError, match="no images to count"):
        _ = vpkit.mappings.PredictionCounts(4).counts


def test_numbers_of_the_steps_are_gathered_alike_from_a_cpu_and_from_a_gpu():
    values = torch.rand(5)
    of_a_gpu = _together(list(values))  # what `_number` keeps there
    of_a_cpu = _together([_number(value) for value in values])
    assert of_a_gpu.dtype == of_a_cpu.dtype == torch.float64
    assert torch.equal(of_a_gpu, of_a_cpu)


def gradients(classifier):
    return [p.grad.clone() for p in classifier.parameters() if p.requires_grad]


def test_a_batch_in_parts_has_the_gradients_of_the_whole(model, image_set):
    """Of unequal parts too: 16 images in 5."""
    batch, found = [next(iter(shuffled(image_set)))], []
    for parts in (1, 2, 5, 100):
        classifier = make(model)
        result = train_epoch(classifier, batch, torch.optim.SGD(classifier.prompt.parameters(), lr=0.0), None, 1, parts)
        found.append((gradients(classifier), result))
    (whole, result), *others = found
    assert any(g.abs().max() > 0 for g in whole)
    for split, again in others:
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(whole, split, strict=True))
        assert again.loss == pytest.approx(result.loss, rel=1e-5)
        assert again.accuracy == result.accuracy


class SmallGPU(nn.Module):
    """A classifier on a device that holds no more than `room` images at a time."""

    def __init__(self, classifier, room):
        super().__init__()
        self.classifier, self.room, self.tried = classifier, room, []

    def loss(self, images, labels):
        self.tried.append(len(images))
        if len(images) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self.classifier.loss(images, labels)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(model, image_set):
    small, whole = SmallGPU(make(model), room=5), make(model)
    with pytest.warns(UserWarning, match="a batch of 16 is too large for the GPU: from here on in 4 parts"):
        result = train_epoch(small, shuffled(image_set), adam(small))
    expected = train_epoch(whole, shuffled(image_set), adam(whole))
    assert small.tried[:3] == [16, 8, 4]
    assert max(small.tried[2:]) == 4  # learned once
    assert result.loss == pytest.approx(expected.loss, rel=1e-3)
    ours, theirs = small.classifier.prompt.state_dict(), whole.prompt.state_dict()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in ours)
    none = SmallGPU(make(model), room=0)
    with pytest.warns(UserWarning, match="in 16 parts"), pytest.raises(torch.cuda.OutOfMemoryError):
        train_epoch(none, shuffled(image_set), adam(none))


def test_an_evaluation_that_does_not_fit_is_halved_too(model, image_set):
    small = SmallGPU(make(model), room=5)
    found, expected = evaluate(small, image_set.batches(16)), evaluate(make(model), image_set.batches(16))
    assert small.tried[:3] == [16, 8, 4]
    assert max(small.tried[2:]) == 4
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    assert torch.equal(found.confusion, expected.confusion)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        evaluate(SmallGPU(make(model), room=0), image_set.batches(16))


def test_validation_may_be_rarer_and_never_misses_the_last_epoch(model, image_set):
    def run(epochs, **options):
        classifier, checked = make(model), image_set.batches(64)
        history = fit(classifier, image_set[:8].batches(8), checked, adam(classifier), epochs, show=False, **options)
        return [row["epoch"] for row in history.rows if row["val_accuracy"] is not None], history

    assert run(7, val_interval=3)[0] == [3, 6, 7]
    assert run(4)[0] == [1, 2, 3, 4]
    few, history = run(250)
    assert few == [*range(3, 250, 3), 250]
    assert history.rows[0]["val_loss"] is None
    assert len(vpkit.plots.plot_history({"VP": history}).axes[0].lines[0].get_xdata()) == len(few)
    with pytest.raises(ValueError, match="val_interval=0: expected at least 1 epoch"):
        run(1, val_interval=0)
