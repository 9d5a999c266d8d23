"""The CLIP models that ship: that they are there, small, and know something."""

import warnings
from importlib import resources

import pytest
import torch

import vpkit

FOLDER = resources.files("vpkit") / "data" / "clip"
TEMPLATE = "This is a photo of a {}."


@pytest.fixture(scope="module", params=["tiny", "tiny-vit"])
def clip(request):
    return vpkit.load_clip(request.param)


@pytest.fixture(scope="module")
def icons():
    return vpkit.load_dataset("icons", "test", size=96, subset=264)


def accuracy(clip, images, template=TEMPLATE):
    model = clip.zero_shot(vpkit.prompts.fill_templates(template, images.class_names))
    with torch.no_grad():
        return sum(int((model(x).argmax(1) == y).sum()) for x, y in images.batches(64)) / len(images)


def test_the_files_of_an_edition_are_small():
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sum(size for name, size in sizes.items() if "-2." not in name) <= 16 * 2**20
    assert sum(size for name, size in sizes.items() if "-2." in name) <= 24 * 2**20


@pytest.mark.slow
def test_zero_shot_is_far_above_chance_on_pictographs_of_a_font_never_trained_on(clip, icons):
    assert accuracy(clip, icons) > 10 / 66


@pytest.mark.slow
def test_names_of_the_offline_sets_are_known_but_textile_words_are_not(clip):
    for dataset in ("icons", "mnist5k"):
        names = vpkit.load_dataset(dataset, "test", subset=100).class_names
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clip.zero_shot(vpkit.prompts.fill_templates(vpkit.prompts.clip_templates(), names))
    with pytest.warns(UserWarning, match="never met"):
        clip.encode_text(["a photo of a marsupial."])


@pytest.mark.slow
@pytest.mark.parametrize("edition", ["tiny", "tiny-2"])
def test_it_reads_a_name_pasted_on_the_picture(edition, icons):
    """LoGoPrompt's Figure 1b: the score of the true class rises."""
    tiny = vpkit.load_clip(edition)
    text = tiny.encode_text(vpkit.prompts.fill_templates(TEMPLATE, icons.class_names))
    strips = vpkit.prompts.render_class_names(icons.class_names, 96, 19)
    tops = vpkit.prompts.strip_offsets(len(icons), 96, 19, seed=0)
    with torch.no_grad():
        plain = vpkit.datasets.cache_features(tiny.encode_image, icons).inputs
        pasted = vpkit.methods.logoprompt.PastedFeatureCache(tiny.encode_image, icons.images, strips, tops)
        named = pasted(torch.arange(len(icons)), icons.labels[:, None])[:, 0]
    own = text[icons.labels]
    assert ((named * own).sum(1) > (plain * own).sum(1)).float().mean() > 0.8


@pytest.mark.parametrize("names", [("tiny", "tiny-vit"), ("tiny-2", "tiny-vit-2")])
def test_the_towers_share_the_text(names):
    tiny, vit = (vpkit.load_clip(name) for name in names)
    sentences = ["a photo of a star.", "a sketch of a chess king."]
    assert torch.equal(tiny.encode_text(sentences), vit.encode_text(sentences))
    assert tiny.reference_features.shape == (512, tiny.embed_dim)
    assert torch.allclose(vit.reference_features.norm(dim=1), torch.ones(512), atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-2", "tiny-vit-2"])
def test_the_second_edition_names_designs_it_never_saw_but_hardly_things_it_never_saw(name):
    from test_tiny_training import HELD_OUT

    clip = vpkit.load_clip(name)
    images = vpkit.load_dataset("pictograms", "test", size=96, subset=488)
    model = clip.zero_shot(vpkit.prompts.fill_templates(TEMPLATE, images.class_names))
    with torch.no_grad():
        hits = torch.cat([model(x).argmax(1) == y for x, y in images.batches(64)]).float()
    unseen = torch.tensor([images.class_names[y] in HELD_OUT for y in images.labels])
    assert hits[~unseen].mean() > 0.6
    assert hits[unseen].mean() < 0.3  # else something was shown that should not have been
    assert clip.reference_features.shape == (512, clip.embed_dim)
