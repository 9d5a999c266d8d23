"""ILM-VP: chapter 3's loop is the package's function, and both keep what Algorithm 1 promises."""

import json
from pathlib import Path

import pytest
import torch

import vpkit
from vpkit import PromptedClassifier, fit
from vpkit.mappings import (
    bayesian_mapping,
    count_predictions,
    frequency_mapping,
    identity_mapping,
    optimal_mapping,
    probability_mass,
    random_mapping,
)
from vpkit.methods import ilm_vp
from vpkit.prompts import ExpandPrompt
from vpkit.training import schedules

CHAPTER = Path(__file__).resolve().parents[2] / "notebooks" / "03_ilm_vp.ipynb"


def run(model, image_set, epochs, interval=1):
    torch.manual_seed(0)
    classifier = PromptedClassifier(ExpandPrompt(16, 24), model, random_mapping(12, 4, seed=3))
    remap, mappings = ilm_vp.remap(image_set.batches(16), interval=interval), []

    def before_epoch(trained, epoch):
        remap(trained, epoch)
        mappings.append(trained.mapping.index.clone())

    batches = image_set.batches(16, shuffle=True), image_set.batches(16)
    optimizer = torch.optim.Adam(classifier.prompt.parameters(), lr=0.05)
    history = fit(classifier, *batches, optimizer, epochs, before_epoch, schedule=schedules.multistep)
    return classifier, mappings, history


@pytest.mark.parametrize("interval", [1, 2])
def test_the_open_loop_of_chapter_3_is_fit_with_remap(model, image_set, interval, monkeypatch):
    monkeypatch.setattr(vpkit, "load_frozen", lambda name, device: model)
    code = ["".join(c["source"]) for c in json.loads(CHAPTER.read_text())["cells"] if c["cell_type"] == "code"]
    chapter = {}
    exec(code[0] + "\n" + code[1].replace("%pip", "pass  #"), chapter)
    chapter |= {"train": image_set, "val": image_set, "class_names": image_set.class_names}
    chapter |= {"image_size": 16, "canvas_size": 24, "mapping_interval": interval, "device": torch.device("cpu")}
    for cell in code:
        if "frozen = vpkit.load_frozen" in cell or "vpkit.train_epoch(" in cell:
            exec(cell, chapter)

    torch.manual_seed(chapter["seed"])
    ours = PromptedClassifier(ExpandPrompt(16, 24), model, identity_mapping(4))
    history = fit(
        ours, image_set.batches(chapter["batch_size"], shuffle=True), image_set.batches(64),
        torch.optim.Adam(ours.prompt.parameters(), lr=chapter["lr"]), chapter["epochs"],
        ilm_vp.remap(image_set.batches(64), interval=interval), schedule=schedules.multistep,
    )  # fmt: skip
    assert torch.equal(ours.prompt.pixels, chapter["prompt"].pixels)
    assert torch.equal(ours.mapping.index, chapter["classifier"].mapping.index)
    assert history["train_loss"] == chapter["ilm"]["train_loss"]
    assert history["val_accuracy"] == chapter["ilm"]["val_accuracy"]
    assert len(chapter["seen"]) == 4


def test_the_first_mapping_of_ilm_is_that_of_flm_and_so_is_its_first_epoch(model, image_set):
    *_, flm, flm_history = run(model, image_set, 4, interval=None)
    *_, ilm, ilm_history = run(model, image_set, 4)
    assert torch.equal(ilm[0], flm[0])
    assert ilm_history.rows[0] == flm_history.rows[0]
    assert all(torch.equal(index, flm[0]) for index in flm)


def test_every_mapping_is_the_frequency_mapping_at_the_prompt_of_its_epoch(model, image_set):
    torch.manual_seed(0)
    classifier = PromptedClassifier(ExpandPrompt(16, 24), model, random_mapping(12, 4, seed=3))
    remap, wanted, met = ilm_vp.remap(image_set.batches(16), interval=2), [], []

    def before_epoch(trained, epoch):
        wanted.append(frequency_mapping(count_predictions(model, trained.prompt, image_set.batches(64))).index)
        remap(trained, epoch)
        met.append(trained.mapping.index)

    optimizer = torch.optim.Adam(classifier.prompt.parameters(), lr=0.5)
    fit(classifier, image_set.batches(16), None, optimizer, 4, before_epoch)
    assert not torch.equal(wanted[0], wanted[1])  # so that the next lines say something
    assert torch.equal(met[0], wanted[0])
    assert torch.equal(met[1], met[0])  # an epoch in between keeps the mapping
    assert torch.equal(met[2], wanted[2])
    assert torch.equal(classifier.mapping.index, met[-1])  # read through the mapping it was trained with


def test_the_frozen_model_is_bit_identical_after_training(model, image_set):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    classifier, *_ = run(model, image_set, 3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not torch.equal(classifier.prompt.pixels, ExpandPrompt(16, 24).pixels)


@pytest.mark.parametrize("interval", [0, -1])
def test_an_interval_below_one_epoch_is_refused(image_set, interval):
    with pytest.raises(ValueError, match=f"interval={interval}: expected at least 1 epoch"):
        ilm_vp.remap(image_set.batches(16), interval=interval)
    with pytest.raises(ValueError, match=f"interval={interval}: expected at least 1 epoch"):
        ilm_vp.remap_from_training(image_set.batches(16), interval=interval)


def test_each_method_maps_as_its_name_says_and_when(model, image_set):
    prompt, batches = ExpandPrompt(16, 24), image_set.batches(16)
    counts, probability = count_predictions(model, prompt, batches, with_probability=True)
    wanted = {
        "FLM": frequency_mapping(counts),
        "FLM soft": frequency_mapping(counts, probability),
        "ILM": frequency_mapping(counts),
        "ILM soft": frequency_mapping(counts, probability),
        "ILM soft + Hungarian": optimal_mapping(counts, probability),
        "BLM": bayesian_mapping(counts),
        "BLM+": bayesian_mapping(probability_mass(model, prompt, batches)),
    }
    assert set(wanted) == set(ilm_vp.MAPPINGS)
    for method, options in ilm_vp.MAPPINGS.items():
        classifier = PromptedClassifier(prompt, model, identity_mapping(4))
        before_epoch = ilm_vp.remap(batches, **options)
        for epoch in (1, 2):
            classifier.mapping = unmapped = identity_mapping(4)
            before_epoch(classifier, epoch)
            if epoch == 2 and method.startswith("FLM"):
                assert classifier.mapping is unmapped
            else:
                found, expected = classifier.mapping.state_dict(), wanted[method].state_dict()
                assert found.keys() == expected.keys()
                assert all(torch.equal(found[name], expected[name]) for name in expected), (method, epoch)


def test_mapping_from_the_training_pass_counts_the_epoch_just_trained(model, image_set):
    """With a rate of zero the prompt stays, and both ways of counting see the same."""
    classifier = ilm_vp.CountingClassifier(ExpandPrompt(16, 24), model, random_mapping(12, 4, seed=3))
    expected = frequency_mapping(count_predictions(model, classifier.prompt, image_set.batches(16))).index
    before_epoch = ilm_vp.remap_from_training(image_set.batches(16), interval=2)
    optimizer = torch.optim.Adam(classifier.prompt.parameters(), lr=0.0)
    for epoch, mapped in ((1, True), (2, False), (3, True)):
        classifier.mapping = random_mapping(12, 4, seed=3)
        before_epoch(classifier, epoch)
        assert torch.equal(classifier.mapping.index, expected) == mapped
        vpkit.train_epoch(classifier, image_set.batches(16, shuffle=True), optimizer)
        assert classifier.counter.counts.sum() == len(image_set)  # of this epoch alone


def met(model, image_set, counts, **options):
    """The source classes of the mapping of each epoch, given the (S, T) counts of each."""
    queue = [torch.tensor(table) for table in counts]
    remap = ilm_vp.remap(image_set.batches(16), count=lambda *_: queue.pop(0), **options)
    classifier = PromptedClassifier(ExpandPrompt(16, 24), model, random_mapping(12, 2, seed=3))
    mappings = []
    for epoch in range(1, len(counts) + 1):
        remap(classifier, epoch)
        mappings.append(classifier.mapping.index.tolist())
    return mappings


FIRST, AHEAD, FAR_AHEAD = [[6, 0], [4, 0], [0, 10]], [[4, 0], [6, 0], [0, 10]], [[1, 0], [9, 0], [0, 10]]


def test_with_inertia_a_mapping_stays_until_another_has_more_votes_by_the_margin(model, image_set):
    tables = [FIRST, AHEAD, FAR_AHEAD, FIRST]  # of 20 images, 2 more vote for the new mapping, then 8, then 2
    assert met(model, image_set, tables) == [[0, 2], [1, 2], [1, 2], [0, 2]]
    assert met(model, image_set, tables, margin=0.0) == [[0, 2], [1, 2], [1, 2], [0, 2]]
    assert met(model, image_set, tables, margin=0.2) == [[0, 2], [0, 2], [1, 2], [1, 2]]
    assert met(model, image_set, tables, margin=0.4) == [[0, 2]] * 4  # 8 of 20 are not more than 0.4


def test_after_the_last_epoch_to_map_for_the_mapping_stays(model, image_set):
    assert met(model, image_set, [FIRST, AHEAD, FIRST], last=2) == [[0, 2], [1, 2], [1, 2]]


@pytest.mark.parametrize("options", [{"margin": -0.1}, {"margin": 1.5}, {"last": 0}])
def test_a_margin_or_a_last_epoch_that_cannot_be_is_refused(image_set, options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}={value}: expected"):
        ilm_vp.remap(image_set.batches(16), **options)


def test_inertia_needs_one_to_one_mappings(model, image_set):
    remap = ilm_vp.remap(image_set.batches(16), margin=0.1, assign=bayesian_mapping)
    classifier = PromptedClassifier(ExpandPrompt(16, 24), model, random_mapping(12, 4, seed=3))
    remap(classifier, 1)
    with pytest.raises(ValueError, match="one-to-one"):
        remap(classifier, 2)


@pytest.mark.parametrize("method", ["RLM", "linear mapping", "ILM from training", *ilm_vp.MAPPINGS])
def test_a_border_is_trained_under_every_mapping_as_chapter_3_writes_it_out(method, model, image_set):
    torch.manual_seed(3)
    found, history = ilm_vp.train_border(
        method, model, ExpandPrompt(16, 24), image_set, image_set[:16], 3, 0.1, 16, interval=2, seed=1
    )
    torch.manual_seed(3)
    prompt = ExpandPrompt(16, 24)
    classifier = ilm_vp.CountingClassifier(
        prompt, model, ilm_vp.first_mapping(method, model, prompt, image_set.batches(), 1)
    )
    optimizer = torch.optim.Adam(
        [{"params": prompt.parameters()}, {"params": classifier.mapping.parameters(), "lr": 1e-3}], lr=0.1
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    again = None
    if method == "ILM from training":
        again = ilm_vp.remap_from_training(image_set.batches(), interval=2)
    elif method in ilm_vp.MAPPINGS:
        again = ilm_vp.remap(image_set.batches(), **{"interval": 2} | ilm_vp.MAPPINGS[method])
    losses, batches = [], image_set.batches(16, shuffle=True)
    for epoch in (1, 2, 3):
        if again is not None:
            again(classifier, epoch)
        losses.append(vpkit.train_epoch(classifier, batches, optimizer).loss)
        schedule.step()
    assert history["train_loss"] == pytest.approx(losses)
    assert torch.allclose(found.prompt.pixels, prompt.pixels)
