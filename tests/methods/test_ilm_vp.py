"""ILM-VP as chapter 3 writes it: the properties that Algorithm 1 promises."""

import torch

import vpkit
from vpkit import PromptedClassifier
from vpkit.mappings import count_predictions, frequency_mapping
from vpkit.prompts import ExpandPrompt


def run(model, image_set, epochs, when):
    torch.manual_seed(0)
    classifier = PromptedClassifier(ExpandPrompt(16, 24), model, vpkit.mappings.random_mapping(12, 4, seed=3))
    mappings = []

    def before_epoch(trained, epoch):
        if when == "always" or epoch == 1:
            counts = count_predictions(model, trained.prompt, image_set.batches(16))
            trained.mapping = frequency_mapping(counts)
        mappings.append(trained.mapping.index.clone())

    batches = image_set.batches(16, shuffle=True), image_set.batches(16)
    optimizer = torch.optim.Adam(classifier.prompt.parameters(), lr=0.05)
    history = vpkit.fit(classifier, *batches, optimizer, epochs, before_epoch)
    return classifier, mappings, history


def test_the_first_mapping_of_ilm_is_that_of_flm_and_so_is_its_first_epoch(model, image_set):
    *_, flm, flm_history = run(model, image_set, 4, "once")
    *_, ilm, ilm_history = run(model, image_set, 4, "always")
    assert torch.equal(ilm[0], flm[0])
    assert ilm_history.rows[0] == flm_history.rows[0]
    assert all(torch.equal(index, flm[0]) for index in flm)


def test_every_mapping_is_the_frequency_mapping_at_the_prompt_of_its_epoch(model, image_set):
    for epochs in (1, 3):
        classifier, mappings, _ = run(model, image_set, epochs, "always")
        trained_longer, longer, _ = run(model, image_set, epochs + 1, "always")
        at_this_prompt = frequency_mapping(count_predictions(model, classifier.prompt, image_set.batches(16)))
        assert torch.equal(longer[epochs], at_this_prompt.index)
        assert torch.equal(longer[epochs - 1], mappings[-1])
        assert torch.equal(trained_longer.mapping.index, longer[-1])  # read through the mapping it was trained with


def test_the_frozen_model_is_bit_identical_after_training(model, image_set):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    classifier, *_ = run(model, image_set, 3, "always")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not torch.equal(classifier.prompt.pixels, ExpandPrompt(16, 24).pixels)
