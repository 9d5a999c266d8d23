"""Same seed, same machine: the same bits, for every method. Of whole chapters, `make smoke colab` says so."""

from functools import partial

import open_clip
import pytest
import torch
from conftest import small_network
from small_clip import NAMES, SMALL_VIT, dpt

import vpkit
from vpkit import PromptedClassifier
from vpkit.methods import TextPromptedClassifier
from vpkit.models.clip import FrozenCLIP
from vpkit.prompts import ContextPrompt, MetaNet

MAPPINGS = {
    "FLM": lambda *seen: vpkit.mappings.frequency_mapping(vpkit.mappings.count_predictions(*seen)),
    "soft + Hungarian": lambda *seen: vpkit.mappings.optimal_mapping(
        *vpkit.mappings.count_predictions(*seen, with_probability=True)
    ),
    "BLM": lambda *seen: vpkit.mappings.bayesian_mapping(vpkit.mappings.count_predictions(*seen)),
    "BLM+": lambda *seen: vpkit.mappings.bayesian_mapping(vpkit.mappings.probability_mass(*seen)),
}
PROMPTS = {
    "frame": partial(vpkit.prompts.PadPrompt, 16, 3),
    "random patch": partial(vpkit.prompts.PatchPrompt, 16, 5, "random"),
    "border": partial(vpkit.prompts.ExpandPrompt, 16, 24),
}


def colours():
    labels = torch.arange(64) % 4
    base = torch.tensor([[200, 40, 40], [40, 200, 40], [40, 40, 200], [180, 180, 180]])[labels]
    noise = torch.randint(-40, 41, (64, 3, 16, 16), generator=torch.Generator().manual_seed(3))
    images = (base[:, :, None, None] + noise).clamp(0, 255).byte()
    return vpkit.ImageSet(images, labels, NAMES)


def pixel_run(prompt: str, mapping: str):
    torch.manual_seed(5)
    model = vpkit.models.FrozenModel(small_network(), [f"source {s}" for s in range(12)], image_size=16)
    data = colours()
    trained = PromptedClassifier(PROMPTS[prompt](), model, vpkit.mappings.random_mapping(12, 4))

    def remap(classifier, epoch):
        classifier.mapping = MAPPINGS[mapping](model, classifier.prompt, data.batches(16))

    optimizer = torch.optim.Adam(trained.prompt.parameters(), lr=0.05)
    rows = vpkit.fit(trained, data.batches(16, shuffle=True), data.batches(64), optimizer, 3, remap).rows
    return rows, trained.prompt.pixels.tolist()


def other_run(method: str):
    torch.manual_seed(5)
    data = colours()
    if method in ("linear probe", "full fine-tuning"):
        model = vpkit.models.FrozenModel(small_network(), [f"source {s}" for s in range(12)], image_size=16)
        if method == "linear probe":
            probe = vpkit.methods.linear_probe(model, data.batches(64), data.batches(64))
            return [value.tolist() for value in probe.state_dict().values()]
        tuned = vpkit.methods.FineTuned(model, 4)
        optimizer = torch.optim.Adam(tuned.parameters(), lr=1e-3)
        return vpkit.fit(tuned, data.batches(16, shuffle=True), data.batches(64), optimizer, 3).rows
    clip = FrozenCLIP(open_clip.CLIP(**SMALL_VIT))
    images = vpkit.ImageSet(data.resized(32).images[:16], data.labels[:16], NAMES)
    if method in ("VPT shallow", "VPT deep", "DPT"):
        written = clip.encode_text([f"a photo of a {name}." for name in NAMES])
        trained = dpt(clip)
        if method != "DPT":
            tokens = vpkit.prompts.TokenPrompt(clip, 2, deep=method == "VPT deep")
            trained = vpkit.methods.DualPromptClassifier(clip, tokens, written, ContextPrompt(clip, NAMES, 2))
        embedded = vpkit.prompts.cache_patches(clip, images)
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.05, momentum=0.9)
        return vpkit.fit(trained, embedded.batches(8, shuffle=True), embedded.batches(16), optimizer, 3).rows
    split = vpkit.methods.NamePastedImages(clip, images, ratio=0.3, seed=3)
    shift = MetaNet(clip.embed_dim, clip.text_width) if method == "CoCoOp" else None
    context = ContextPrompt(clip, NAMES, 2, class_specific=method == "LoGoPrompt")
    if method == "LoGoPrompt":
        trained = vpkit.methods.LoGoPromptClassifier(context, clip.logit_scale, 2)
    else:
        trained = TextPromptedClassifier(context, clip.logit_scale, shift)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.05, momentum=0.9)
    return vpkit.fit(trained, split.batches(8, shuffle=True), split.batches(16), optimizer, 3).rows


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("mapping", MAPPINGS)
def test_a_pixel_prompt_is_learned_the_same_way_twice(prompt, mapping):
    first = pixel_run(prompt, mapping)
    assert first == pixel_run(prompt, mapping)
    assert len({row["train_loss"] for row in first[0]}) == 3  # it did learn something


@pytest.mark.parametrize(
    "method",
    ["linear probe", "full fine-tuning", "CoOp", "CoCoOp", "LoGoPrompt", "VPT shallow", "VPT deep", "DPT"],
)
def test_other_methods_too(method):
    first = other_run(method)
    assert first == other_run(method)
    assert len(set(map(str, first))) > 1


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_number_of_threads_changes_rounding_only(prompt):
    """The tolerance that the page on the protocol states: a thousandth of the loss, after three epochs."""
    threads, losses = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            losses.append([row["train_loss"] for row in pixel_run(prompt, "FLM")[0]])
    finally:
        torch.set_num_threads(threads)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
