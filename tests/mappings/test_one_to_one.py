import subprocess
import sys

import pytest
import torch
from torch import nn

import vpkit
from vpkit.mappings import LabelMapping, count_predictions, frequency_mapping, optimal_mapping, random_mapping


def scan_everything(counts):
    """The released code's way: the largest cell of the whole table, once per target class."""
    left, index = counts.clone().double(), [0] * counts.shape[1]
    for _ in index:
        source, target = divmod(int(left.argmax()), left.shape[1])
        index[target] = source
        left[source], left[:, target] = -torch.inf, -torch.inf
    return index


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[9, 1, 0], [8, 7, 2], [1, 6, 5], [0, 3, 4]], [0, 1, 2]),
        ([[10, 9, 8], [7, 1, 0], [0, 6, 2], [3, 0, 5]], [0, 2, 3]),
        ([[5, 5, 0], [5, 5, 0], [0, 0, 5], [0, 0, 5]], [0, 1, 2]),  # ties
        ([[4, 0, 0], [3, 0, 0], [2, 1, 0], [0, 0, 0]], [0, 2, 1]),  # a target class nobody voted for
        ([[0, 0, 0]] * 4, [0, 1, 2]),
        ([[10, 9, 0], [9, 0, 0], [0, 0, 5], [0, 1, 0]], [0, 3, 2]),  # greedy is not optimal
    ],
)
def test_frequency_mapping_agrees_with_the_reference(counts, expected):
    assert frequency_mapping(torch.tensor(counts)).index.tolist() == expected


def test_frequency_mapping_equals_a_scan_of_the_whole_table():
    generator = torch.Generator().manual_seed(0)
    for most in (1, 2, 4, 50):
        for _ in range(100):
            num_target = int(torch.randint(1, 12, (1,), generator=generator))
            num_source = num_target + int(torch.randint(0, 8, (1,), generator=generator))
            counts = torch.randint(0, most, (num_source, num_target), generator=generator)
            assert frequency_mapping(counts).index.tolist() == scan_everything(counts)
            scores = counts.double() - most / 2  # scores below zero take the other way through the function
            assert frequency_mapping(scores).index.tolist() == scan_everything(scores)


def test_a_diagonal_gives_the_identity():
    assert torch.equal(frequency_mapping(torch.eye(6)).index, torch.arange(6))


def test_optimal_keeps_at_least_as_many_votes():
    table = torch.tensor([[10, 9, 0], [9, 0, 0], [0, 0, 5], [0, 1, 0]])
    assert optimal_mapping(table).index.tolist() == [1, 0, 2]
    for seed in range(50):
        counts = torch.randint(0, 9, (9, 6), generator=torch.Generator().manual_seed(seed))
        kept = [counts[m.index, torch.arange(6)].sum() for m in (frequency_mapping(counts), optimal_mapping(counts))]
        assert kept[1] >= kept[0]
        assert len(optimal_mapping(counts).index.unique()) == 6


@pytest.mark.parametrize("assign", [frequency_mapping, optimal_mapping])
def test_probability_ranks_ties_and_never_outvotes(assign):
    counts = torch.tensor([[3, 0], [0, 0], [0, 0], [0, 0]])
    probability = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.0, 0.3], [0.0, 0.2]])
    assert assign(counts).index.tolist()[0] == 0
    assert assign(counts, probability).index.tolist() == [0, 2]  # 0 is taken by a vote; then 0.3 is the most likely
    one_vote = torch.tensor([[1, 0], [0, 1]])
    assert assign(one_vote, torch.tensor([[0.0, 1.0], [1.0, 0.0]])).index.tolist() == [0, 1]


def test_random_mapping_is_seeded_distinct_and_in_range():
    first = random_mapping(50, 20, seed=1).index
    assert torch.equal(first, random_mapping(50, 20, seed=1).index)
    assert not torch.equal(first, random_mapping(50, 20, seed=2).index)
    assert len(first.unique()) == 20
    assert 0 <= first.min() <= first.max() < 50


def test_a_mapping_selects_columns_and_passes_gradients_to_them_only():
    logits = torch.randn(3, 5, requires_grad=True)
    mapped = LabelMapping([4, 0])(logits)
    assert torch.equal(mapped, logits[:, [4, 0]])
    mapped.sum().backward()
    assert logits.grad.sum(0).tolist() == [3, 0, 0, 0, 3]
    assert torch.equal(vpkit.mappings.identity_mapping(3)(logits), logits[:, :3])


class SaysWhatItSees(nn.Module):
    """The first pixel of an image is the class it is called."""

    def forward(self, images):
        called = (images[:, 0, 0, 0] * 255).round().long()
        return 5 * nn.functional.one_hot(called, 4).float()


def images_called(called, labels, names):
    images = torch.tensor(called, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()
    return vpkit.ImageSet(images, torch.tensor(labels), names)


def test_counts_agree_with_the_reference():
    image_set = images_called([1, 2, 1, 3, 0, 2], [0, 0, 1, 1, 2, 2], ("a", "b", "c"))
    expected = torch.tensor([[0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 0]])
    for batch_size in (1, 4, 6):
        counts = count_predictions(SaysWhatItSees(), nn.Identity(), image_set.batches(batch_size))
        assert torch.equal(counts, expected)


def test_a_class_without_images_keeps_its_column():
    image_set = images_called([1, 2, 1, 3, 0, 2], [0, 0, 2, 2, 2, 2], ("a", "b", "c"))
    counts, probability = count_predictions(
        SaysWhatItSees(), nn.Identity(), image_set.batches(4), with_probability=True
    )
    assert torch.equal(counts, torch.tensor([[0, 0, 1], [1, 0, 1], [1, 0, 1], [0, 0, 1]]))
    assert torch.allclose(probability.sum(0), torch.tensor([1.0, 0, 1]))
    assert frequency_mapping(counts).index.tolist() == [1, 2, 0]


def test_probabilities_are_means_over_the_images_of_a_class(model, image_set):
    counts, probability = count_predictions(model, nn.Identity(), image_set.batches(7), with_probability=True)
    images = image_set.images.float() / 255
    with torch.no_grad():
        logits = model(images)
    for target in range(4):
        of_class = image_set.labels == target
        assert torch.allclose(probability[:, target], logits[of_class].softmax(1).mean(0), atol=1e-5)
        assert torch.equal(counts[:, target], torch.bincount(logits[of_class].argmax(1), minlength=12))


def test_hamming_distance():
    assert vpkit.mappings.hamming_distance(LabelMapping([0, 1, 2]), LabelMapping([0, 1, 2])) == 0
    assert vpkit.mappings.hamming_distance(LabelMapping([0, 1, 2]), LabelMapping([0, 2, 1])) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frequency_mapping(torch.zeros(2, 3)), "3 target classes cannot each have one of 2 source classes"),
        (lambda: optimal_mapping(torch.zeros(2, 3)), "3 target classes cannot each"),
        (lambda: random_mapping(2, 3), "3 target classes cannot each"),
        (lambda: frequency_mapping(torch.zeros(4)), r"counts are \(4,\)"),
        (lambda: frequency_mapping(torch.zeros(4, 2), torch.zeros(2, 4)), r"probability is \(2, 4\)"),
        (lambda: LabelMapping([1, 1]), r"index=\[1, 1\]: expected distinct"),
        (lambda: LabelMapping([]), "expected distinct"),
        (lambda: LabelMapping([-1, 2]), "expected distinct"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_images_is_an_error(model, image_set):
    with pytest.raises(ValueError, match="the batches are empty"):
        count_predictions(model, nn.Identity(), image_set[:0].batches(4))


def test_a_mapping_for_a_larger_model_is_refused(model):
    with pytest.raises(ValueError, match=r"source class 12, the model has 12 \(0..11\)"):
        vpkit.PromptedClassifier(nn.Identity(), model, LabelMapping([3, 12]))


@pytest.mark.slow
def test_counts_of_every_sentence_of_sun397_stay_small():
    """81 templates of 397 classes: mapped in a process that grows by less than 700 MB, whatever the images."""
    code = """
import resource, torch
from vpkit.mappings import PredictionCounts, frequency_mapping
sentences, classes = 81 * 397, 397
torch.manual_seed(0)
gathered = PredictionCounts(classes)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(40):
    labels = torch.randint(classes, (64,))
    logits = torch.randn(64, sentences)
    logits[torch.arange(64), 81 * labels] += 50  # sentence 81 t is the answer for class t
    gathered.add(logits, labels)
mapping = frequency_mapping(gathered.counts)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
seen = gathered.counts.sum(0) > 0
assert int(gathered.counts.sum()) == 2560
assert torch.equal(mapping.index[seen], 81 * torch.arange(classes)[seen])
assert grown < 700_000, f"{grown} kB"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
