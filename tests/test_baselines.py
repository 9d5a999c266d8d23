import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vpkit import evaluate, linear_probe
from vpkit.baselines import REGULARISATION


def test_a_probe_is_logistic_regression_on_standardised_features(model, image_set):
    train, val = image_set[:48], image_set[48:]
    probe = linear_probe(model, train.batches(10), val.batches(10))
    assert probe.chosen_c in REGULARISATION
    with torch.no_grad():
        features = model.features(train.images.float() / 255).double().numpy()
        ours = probe(train.images.float() / 255)
    standardised = (features - features.mean(0)) / (features.std(0) + 1e-6)
    expected = LogisticRegression(C=probe.chosen_c, max_iter=500, tol=1e-3).fit(standardised, train.labels.numpy())
    assert np.allclose(ours.numpy(), expected.decision_function(standardised), atol=1e-2)
    assert evaluate(probe, train.batches(16)).accuracy > 0.9


def test_two_classes_give_two_logits(model, image_set):
    pair = image_set.only("red", "blue")
    probe = linear_probe(model, pair.batches(16), pair.batches(16))
    assert probe(torch.rand(3, 3, 16, 16)).shape == (3, 2)
    assert evaluate(probe, pair.batches(16)).accuracy == 1.0


def test_a_class_without_training_images_is_named(model, image_set):
    with pytest.raises(ValueError, match="no training image of: white"):
        linear_probe(model, image_set[image_set.labels < 3].batches(16), image_set.batches(16))
