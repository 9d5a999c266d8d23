import pytest
import torch
from torch import nn

import vpkit
from vpkit.mappings.weighted import (
    LinearMapping,
    WeightedMapping,
    bayesian_mapping,
    grouped_mapping,
    probability_mass,
)

COUNTS = torch.tensor([[2, 0], [1, 1], [0, 3]])


def test_blm_agrees_with_the_worked_example():
    expected = torch.tensor([[2 / 3, 0], [1 / 3, 4 / 13], [0, 9 / 13]])
    assert torch.allclose(bayesian_mapping(COUNTS, laplace=1).matrix, expected)


def test_columns_sum_to_one_whatever_the_counts():
    for laplace in (0.0, 1.0, 7.0):
        counts = torch.randint(0, 4, (30, 8), generator=torch.Generator().manual_seed(1))
        counts[:10] = 0  # source classes without a vote
        counts[:, 3] = 0  # a target class without images
        matrix = bayesian_mapping(counts, laplace).matrix
        assert torch.allclose(matrix.sum(0), torch.ones(8))
        assert (matrix[:10, [0, 1, 2, 4]] == 0).all()
        assert torch.allclose(matrix[:, 3], torch.full((30,), 1 / 30))


def test_sources_that_vote_for_one_target_only_share_its_column():
    counts = torch.tensor([[5, 0], [1, 0], [0, 2], [0, 0]])
    matrix = bayesian_mapping(counts, laplace=1e-12).matrix
    assert torch.allclose(matrix, torch.tensor([[0.5, 0], [0.5, 0], [0, 1], [0, 0]]))


def test_blm_plus_with_all_mass_on_the_first_is_blm(image_set):
    class Certain(nn.Module):
        def forward(self, images):
            return 1e4 * nn.functional.one_hot(images.mean((2, 3)).argmax(1) + images.std((2, 3)).argmax(1), 6).float()

    batches = image_set.batches(10)
    counts = vpkit.mappings.count_predictions(Certain(), nn.Identity(), batches)
    mass = probability_mass(Certain(), nn.Identity(), batches, top_k=6)
    assert torch.allclose(bayesian_mapping(mass).matrix, bayesian_mapping(counts).matrix)


def test_mass_is_the_sum_of_the_largest_probabilities(model, image_set):
    images = image_set.images.float() / 255
    with torch.no_grad():
        probability = model(images).softmax(1)
    kept = torch.where(probability >= probability.topk(3).values[:, 2:], probability, 0.0)
    expected = torch.stack([kept[image_set.labels == t].sum(0) for t in range(4)], 1)
    mass = probability_mass(model, nn.Identity(), image_set.batches(9), top_k=3)
    assert torch.allclose(mass.float(), expected, atol=1e-5)
    one = probability_mass(model, nn.Identity(), image_set.batches(9))  # 15 % of four classes: at least one
    assert one.sum().item() == pytest.approx(probability.max(1).values.sum().item(), rel=1e-5)


def test_several_sources_for_a_target_as_in_the_reference():
    counts = torch.tensor([[9, 1], [8, 7], [1, 6], [0, 3], [2, 2]])
    matrix = grouped_mapping(counts, sources_per_target=2).matrix
    assert matrix[:, 0].tolist() == [0.5, 0.5, 0, 0, 0]
    assert matrix[:, 1].tolist() == [0, 0, 0.5, 0.5, 0]
    tied = torch.tensor([[1, 0], [1, 0], [1, 0], [0, 1], [0, 0]])
    likely = torch.tensor([[0.1, 0], [0.2, 0], [0.3, 0], [0, 0.9], [0, 0.2]])
    assert grouped_mapping(tied, likely, sources_per_target=2).matrix[:, 0].tolist() == [0, 0.5, 0.5, 0, 0]
    single = grouped_mapping(counts, sources_per_target=1).matrix.argmax(0)
    assert torch.equal(single, vpkit.mappings.frequency_mapping(counts).index)


def test_weights_are_applied_to_raw_logits():
    logits = torch.randn(4, 3)
    mapping = bayesian_mapping(COUNTS)
    assert torch.allclose(mapping(logits), logits @ mapping.matrix)
    start = vpkit.mappings.LabelMapping([2, 0])
    assert torch.equal(LinearMapping(3, start)(logits), start(logits))
    assert vpkit.count_parameters(LinearMapping(3, start)) == 6
    assert vpkit.count_parameters(mapping) == 0


def test_every_mapping_fits_the_classifier(model, image_set):
    counts = vpkit.mappings.count_predictions(model, nn.Identity(), image_set.batches(16))
    for mapping in (
        bayesian_mapping(counts),
        grouped_mapping(counts, sources_per_target=3),
        LinearMapping(12, vpkit.mappings.identity_mapping(4)),
    ):
        found = vpkit.evaluate(vpkit.PromptedClassifier(nn.Identity(), model, mapping), image_set.batches(16))
        assert found.n == 64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bayesian_mapping(torch.tensor([[-1, 2]])), "nothing negative"),
        (lambda: bayesian_mapping(COUNTS, laplace=-1), "laplace=-1"),
        (lambda: grouped_mapping(COUNTS, sources_per_target=2), "4 target classes cannot each have one of 3"),
        (lambda: grouped_mapping(COUNTS, sources_per_target=0), "sources_per_target=0"),
        (lambda: WeightedMapping(torch.tensor([[float("nan")]])), "expected finite numbers"),
        (lambda: WeightedMapping(torch.ones(2)), r"matrix is \(2,\)"),
        (lambda: WeightedMapping(torch.ones(2, 2, 2)), r"matrix is \(2, 2, 2\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("top_k", [0, -1])
def test_an_image_gives_at_least_one_probability(model, image_set, top_k):
    with pytest.raises(ValueError, match=f"top_k={top_k}: expected at least 1"):
        probability_mass(model, nn.Identity(), image_set.batches(9), top_k)
