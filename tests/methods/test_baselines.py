import numpy as np
import open_clip
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from small_clip import SMALL
from torch import nn

import vpkit
from vpkit import evaluate
from vpkit.methods import CLAP, FineTuned, TipAdapter, baselines, gaussian_discriminant, linear_probe, tune_votes
from vpkit.methods.baselines import (
    REGULARISATION,
    _logistic_regression,
    _logistic_regression_there,
    augmented,
    feature_controls,
    fine_tune,
)
from vpkit.models import FrozenCLIP


def test_a_probe_is_logistic_regression_on_standardised_features(model, image_set):
    train, val = image_set[:48], image_set[48:]
    probe = linear_probe(model, train.batches(10), val.batches(10))
    assert probe.chosen in REGULARISATION
    with torch.no_grad():
        features = model.features(train.images.float() / 255).double().numpy()
        ours = probe(train.images.float() / 255)
    standardised = (features - features.mean(0)) / (features.std(0) + 1e-6)
    expected = LogisticRegression(C=probe.chosen, max_iter=500, tol=1e-3).fit(standardised, train.labels.numpy())
    assert np.allclose(ours.numpy(), expected.decision_function(standardised), atol=1e-2)
    assert evaluate(probe, train.batches(16)).accuracy > 0.9


@pytest.mark.parametrize("num_classes", [2, 3, 12])
@pytest.mark.parametrize("c", [REGULARISATION[0], REGULARISATION[2], REGULARISATION[-1]])
def test_a_gpu_finds_the_probe_that_scikit_learn_finds(num_classes, c):
    torch.manual_seed(0)
    centres, labels = torch.randn(num_classes, 40), torch.arange(600) % num_classes
    x = centres[labels] + 2.5 * torch.randn(600, 40)
    x = (x - x.mean(0)) / x.std(0)
    held_out, truth = x[400:], labels[400:]
    here = _logistic_regression(x[:400].double(), labels[:400], num_classes, c)
    there = _logistic_regression_there(x[:400], labels[:400], num_classes, c)
    logits = [held_out @ weight.float().T + bias.float() for weight, bias in (here, there)]
    accuracies = [float((found.argmax(1) == truth).float().mean()) for found in logits]
    assert 0.5 < accuracies[0] < 1
    assert abs(accuracies[0] - accuracies[1]) <= 0.02  # four of 200 images; the standard error is 3.5 points

    def objective(weight, bias):
        penalty = 0.5 * weight.square().sum() * (2 if num_classes == 2 else 1)  # one row for both, as scikit-learn's
        loss = torch.nn.functional.cross_entropy(x[:400].double() @ weight.double().T + bias, labels[:400])
        return float(loss + penalty / (c * 400))

    assert objective(*there) <= objective(*here) * 1.001
    assert there[0].shape == (num_classes, 40)
    assert torch.get_float32_matmul_precision() == "highest"


def test_two_classes_give_two_logits(model, image_set):
    pair = image_set.select_classes("red", "blue")
    probe = linear_probe(model, pair.batches(16), pair.batches(16))
    assert probe(torch.rand(3, 3, 16, 16)).shape == (3, 2)
    assert evaluate(probe, pair.batches(16)).accuracy == 1.0


def test_a_class_without_training_images_is_named(model, image_set):
    with pytest.raises(ValueError, match="no training image of: white"):
        linear_probe(model, image_set[image_set.labels < 3].batches(16), image_set.batches(16))


def test_fine_tuning_trains_a_copy_with_a_new_head_and_leaves_the_frozen_model_alone(model, image_set):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tuned = FineTuned(model, 4)
    copied = tuned.model.network.state_dict()
    assert copied["8.weight"].shape == (4, 64)
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 12)
    assert all(torch.equal(copied[n], model.network.state_dict()[n]) for n in copied if not n.startswith("8."))
    assert vpkit.count_parameters(tuned) == sum(p.numel() for p in model.parameters()) - 12 * 65 + 4 * 65
    optimizer = torch.optim.Adam(tuned.parameters(), lr=1e-3)
    history = vpkit.fit(tuned, image_set.batches(16, shuffle=True), image_set.batches(16), optimizer, 8)
    assert history["val_accuracy"][-1] > 0.9
    assert not torch.equal(tuned.model.network[1].running_mean, before["network.1.running_mean"])  # BatchNorm moves
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_only_training_images_are_moved(model):
    images = torch.rand(3, 3, 16, 16)
    tuned = FineTuned(model, 4).eval()
    assert torch.equal(tuned(images), tuned.model(images))
    tuned.model.network.eval()  # no dropout, so that only the moved images can differ
    tuned.training = True
    assert not torch.allclose(tuned(images), tuned.model(images))


def test_fine_tuning_starts_a_new_head_or_keeps_the_old_one(model, image_set):
    tuned, history = fine_tune(model, image_set, image_set[:16], 6, 16, 1e-3, flip=False)
    assert evaluate(tuned, image_set.batches(64)).accuracy > 0.9
    assert len(history) == 6
    kept, _ = fine_tune(model, image_set, image_set[:16], 1, 16, new_head=False)
    assert kept(torch.rand(1, 3, 16, 16)).shape == (1, 12)


def test_an_augmented_image_is_a_shifted_or_mirrored_window_of_the_reflected_one():
    images = torch.rand(40, 3, 16, 24)
    padded = torch.nn.functional.pad(images, (3, 3, 2, 2), mode="reflect")
    seen = set()
    for image, original in zip(augmented(images), padded, strict=True):
        places = [
            (top, left, mirrored)
            for top in range(5)
            for left in range(7)
            for mirrored in (False, True)
            if torch.equal(image.flip(2) if mirrored else image, original[:, top : top + 16, left : left + 24])
        ]
        assert len(places) == 1
        seen.update(places)
    assert {mirrored for *_, mirrored in seen} == {False, True}
    assert {(top, left) for top, left, _ in seen} <= {(t, w) for t in range(5) for w in range(7)}
    assert len({top for top, *_ in seen}) > 3
    assert len({left for _, left, _ in seen}) > 5
    small = images[:, :, :4, :4]  # an eighth of it is no pixel
    assert all((a == b).all() for a, b in zip(augmented(small, flip=False), small, strict=True))


def test_a_head_that_is_a_convolution_is_replaced_too():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 12, 1), nn.Flatten())
    model = vpkit.models.FrozenModel(network, [f"source {s}" for s in range(12)], head=network[2])
    tuned = FineTuned(model, 5)
    assert tuned(torch.rand(2, 3, 16, 16)).shape == (2, 5)
    assert vpkit.count_parameters(tuned) == 3 * 8 * 9 + 8 + 8 * 5 + 5


def test_fine_tuning_may_start_from_the_head_there_is(model):
    """As of zero-shot CLIP: before a step both give the same logits."""
    tuned, images = FineTuned(model, None).eval(), torch.rand(3, 3, 16, 16)
    assert torch.allclose(tuned(images), model(images))
    assert vpkit.count_parameters(tuned) == sum(p.numel() for p in model.parameters())


def test_fine_tuning_without_new_statistics_moves_only_weights(model, image_set):
    """Frozen batch statistics: at a learning rate of nothing it stays the frozen model, which it does not otherwise."""
    for batch_statistics in (False, True):
        tuned = FineTuned(model, None, flip=False, batch_statistics=batch_statistics)
        nothing = torch.optim.SGD(tuned.parameters(), lr=0.0)
        vpkit.fit(tuned, image_set.batches(16), None, nothing, 1, show=False)
        images = torch.rand(3, 3, 16, 16)
        assert torch.allclose(tuned.eval()(images), model(images)) is not batch_statistics


def test_votes_of_tip_adapter_are_those_of_a_loop():
    torch.manual_seed(0)
    features, keys = (torch.nn.functional.normalize(torch.randn(n, 6), dim=1) for n in (4, 5))
    labels = torch.tensor([0, 2, 2, 1, 0])
    adapter = TipAdapter(keys, labels, torch.zeros(3, 6), torch.tensor(1.0), sharpness=2.0)
    found = adapter.votes(features)
    for i, feature in enumerate(features):
        expected = [0.0, 0.0, 0.0]
        for key, label in zip(keys, labels.tolist(), strict=True):
            expected[label] += float(torch.exp(-2 * (1 - feature @ key)))
        assert found[i].tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(adapter.votes(features[:, None])[:, 0], found)
    text = torch.nn.functional.normalize(torch.randn(3, 6), dim=1)
    whole = TipAdapter(keys, labels, text, torch.tensor(10.0), sharpness=50.0)
    assert torch.allclose(whole(features), 10 * features @ text.T + whole.votes(features))
    assert whole.votes(keys).argmax(1).equal(labels)


def test_tip_adapter_f_moves_its_keys():
    features = torch.nn.functional.normalize(torch.randn(12, 6), dim=1)
    split = vpkit.datasets.EncodedSet(features, torch.arange(12) % 3, ("a", "b", "c"))
    text = torch.nn.functional.normalize(torch.randn(3, 6), dim=1)
    adapter = TipAdapter(features, split.labels, text, torch.tensor(10.0))
    history = vpkit.fit(adapter, split.batches(4, shuffle=True), None, torch.optim.SGD(adapter.parameters(), lr=0.1), 5)
    assert vpkit.count_parameters(adapter) == 72
    assert not torch.equal(adapter.keys, features)
    assert history["train_loss"][-1] < history["train_loss"][0]


def test_gda_compares_gaussians_with_one_covariance(model, image_set):
    train, val = image_set[:48], image_set[48:]
    probe = gaussian_discriminant(model, train.batches(10), val.batches(10))
    with torch.no_grad():
        x = torch.nn.functional.normalize(model.features(train.images.float() / 255).double(), dim=1)
        logits = probe(train.images.float() / 255).double()
    means = torch.stack([x[train.labels == t].mean(0) for t in range(4)])
    scatter = sum(torch.outer(v, v) for v in x - means[train.labels])
    inverse = scatter + scatter.trace() / 47 * torch.eye(x.shape[1], dtype=x.dtype)
    precision = x.shape[1] * torch.linalg.inv(inverse)
    found = [torch.distributions.MultivariateNormal(m, precision_matrix=precision).log_prob(x) for m in means]
    expected = probe.chosen * torch.stack(found, 1)
    assert torch.allclose(logits - logits[:, :1], expected - expected[:, :1], atol=1e-3 * float(expected.std()))
    assert evaluate(probe, val.batches(16)).accuracy > 0.9
    with pytest.raises(ValueError, match="no training image of: white"):
        gaussian_discriminant(model, train[train.labels < 3].batches(16), val.batches(16))


def test_gda_starts_from_zero_shot_on_a_clip(image_set):
    clip = FrozenCLIP(open_clip.CLIP(**SMALL))
    train, val = (part.resized(32) for part in (image_set[:48], image_set[48:]))
    text = clip.encode_text([f"a {name}." for name in train.class_names])
    zero_shot = clip.zero_shot([f"a {name}." for name in train.class_names])
    probe = gaussian_discriminant(zero_shot, train.batches(16), val.batches(16), clip.logit_scale * text)
    own = gaussian_discriminant(zero_shot, train.batches(16), val.batches(16))
    images = val.images.float() / 255
    scaled = own(images) / own.chosen * probe.chosen
    assert torch.allclose(probe(images), zero_shot(images) + scaled, atol=1e-3)


def directions(*counts, length=6):
    torch.manual_seed(0)
    return [nn.functional.normalize(torch.randn(n, length), dim=1) for n in counts]


def test_alpha_and_beta_of_tip_adapter_are_those_that_are_best_on_validation():
    """Where the text is wrong and the keys are right, votes count; where it is the other way round, they do not."""
    (centres, text) = directions(3, 3)
    labels = torch.arange(30) % 3
    features = nn.functional.normalize(centres[labels] + 0.05 * torch.randn(30, 6), dim=1)
    adapter = TipAdapter(features[:15], labels[:15], text, torch.tensor(10.0))
    before = float((adapter(features[15:]).argmax(1) == labels[15:]).float().mean())
    accuracy = tune_votes(adapter, features[15:], labels[15:])
    assert accuracy == float((adapter(features[15:]).argmax(1) == labels[15:]).float().mean())
    assert accuracy == 1.0 > before
    assert adapter.share > 0.1
    useless = TipAdapter(features[:15], labels[:15].roll(1), centres, torch.tensor(10.0))
    assert tune_votes(useless, features[15:], labels[15:]) == 1.0
    assert useless.share == pytest.approx(0.01)


def test_clap_starts_as_zero_shot_and_stays_near_where_zero_shot_is_right():
    (text,) = directions(3)
    labels = torch.arange(30) % 3
    features = nn.functional.normalize(text[labels] + 0.6 * torch.randn(30, 6), dim=1)
    scale = torch.tensor(10.0)
    held, free = CLAP(features, labels, text, scale), CLAP(features, labels, text, scale, held=False)
    assert torch.allclose(held(features), 10 * features @ text.T, atol=1e-5)
    likely = (10 * features @ text.T).softmax(1)
    assert held.penalties.tolist() == pytest.approx([float(likely[labels == t, t].mean()) for t in range(3)], rel=1e-5)
    with torch.no_grad():
        for classifier in (held, free):
            classifier.weight.add_(0.5)
    away = float((held.penalties * (6 * 0.25)).mean())
    with torch.no_grad():
        difference = held.loss(features, labels)[0] - free.loss(features, labels)[0]
    assert float(difference) == pytest.approx(away, rel=1e-4)
    data = vpkit.datasets.EncodedSet(features, labels, ("a", "b", "c"))
    for classifier in (held, free):
        classifier.weight.data.copy_(text)
        vpkit.fit(classifier, data.batches(30), None, torch.optim.SGD(classifier.parameters(), 0.5), 100, show=False)
    moved = [float((classifier.weight - text).norm()) for classifier in (held, free)]
    assert 0 < moved[0] < 0.7 * moved[1]


def test_the_controls_of_few_images_are_each_fitted_as_alone():
    text, centres = directions(3, 3)
    labels = torch.arange(30) % 3
    features = nn.functional.normalize(centres[labels] + 0.05 * torch.randn(30, 6), dim=1)
    train, val = (
        vpkit.datasets.EncodedSet(features[rows], labels[rows], ("a", "b", "c")) for rows in (slice(15), slice(15, 30))
    )
    scale = torch.tensor(10.0)
    found = feature_controls(train, lambda: val, text, scale)
    assert tuple(found) == baselines.CONTROLS
    assert all(vpkit.evaluate(classifier, val.batches()).accuracy == 1.0 for classifier in found.values())
    adapter = TipAdapter(features[:15], labels[:15], text, scale)
    tune_votes(adapter, features[15:], labels[15:])
    assert (found["Tip-Adapter"].share, found["Tip-Adapter"].sharpness) == (adapter.share, adapter.sharpness)
    assert torch.equal(found["Tip-Adapter"].keys, adapter.keys)
    assert not torch.equal(found["Tip-Adapter-F"].keys, adapter.keys)
    assert (found["ZS-LP"].held, found["CLAP"].held) == (False, True)
    assert list(feature_controls(train, lambda: val, text, scale, without=baselines.CONTROLS[1:])) == ["linear probe"]
    assert feature_controls(train, pytest.fail, text, scale, without=baselines.CONTROLS) == {}  # nothing is loaded
