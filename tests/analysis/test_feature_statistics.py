import pytest
import torch

import vpkit
from vpkit.analysis.feature_statistics import frechet_distance, mean_pairwise_distance


def test_frechet_distance_of_gaussians_in_closed_form():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(200_000, 3, generator=generator, dtype=torch.float64)
    second = 2 * torch.randn(200_000, 3, generator=generator, dtype=torch.float64) + torch.tensor([3.0, 0, 4.0])
    # |mu|^2 + sum over axes of (s1 - s2)^2 = 25 + 3
    assert frechet_distance(first, second) == pytest.approx(28, rel=0.01)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))


def test_fewer_images_than_features_are_no_problem():
    few = torch.randn(5, 64)
    assert frechet_distance(few, few) < 1e-4
    assert frechet_distance(few, few + 1) == pytest.approx(64, rel=1e-3)


def test_pairwise_distance_is_the_mean_over_pairs():
    features = torch.randn(7, 4)
    unit = torch.nn.functional.normalize(features, dim=1)
    pairs = [1 - float(unit[i] @ unit[j]) for i in range(7) for j in range(i)]
    assert mean_pairwise_distance(features) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    assert mean_pairwise_distance(features[:1].expand(3, 4)) == pytest.approx(0, abs=1e-12)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="N and M above 1"):
        frechet_distance(torch.randn(1, 4), torch.randn(3, 4))
    with pytest.raises(ValueError, match="N above 1"):
        mean_pairwise_distance(torch.randn(1, 4))


def test_distance_and_diversity_are_those_of_a_set_and_without_a_reference_only_the_second():
    torch.manual_seed(0)
    features, reference = torch.randn(20, 5), torch.randn(30, 5)
    found = vpkit.analysis.distance_and_diversity(features, reference)
    assert found == {
        "distance": vpkit.analysis.frechet_distance(features, reference),
        "diversity": vpkit.analysis.mean_pairwise_distance(features),
    }
    assert list(vpkit.analysis.distance_and_diversity(features)) == ["diversity"]
