import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from small_clip import SMALL

import vpkit
from vpkit.models.clip import CLIP_MODELS, clip_image_size
from vpkit.models.tiny_clip import convolutional_stem, save_tiny_clip

ROWS = torch.tensor([269, 320, 539, 1125, 2368, 49406, 49407])


@pytest.fixture
def own(tmp_path):
    torch.manual_seed(0)
    network = open_clip.CLIP(**SMALL).eval()
    path = save_tiny_clip(tmp_path / "own.safetensors", network, SMALL, (0.5,) * 3, (0.25,) * 3, ROWS)
    return path, network


def test_our_own_files_come_back_in_half_precision(own):
    path, network = own
    clip = vpkit.load_clip("tiny", weights=path)
    with torch.no_grad():
        images = torch.rand(2, 3, 32, 32)
        expected = network.encode_image((images - 0.5) / 0.25, normalize=True)
        assert torch.allclose(clip.encode_image(images), expected, atol=5e-3)
        tokens = clip.tokenize(["a photo of a cat."])
        assert torch.allclose(clip.encode_text(["a photo of a cat."]), network.encode_text(tokens, True), atol=5e-3)
    assert path.stat().st_size < 600_000  # 49,408 token rows alone would be 3 MB
    with pytest.warns(UserWarning, match="never met"):
        clip.encode_text(["a photo of a dog."])


def test_an_image_tower_may_borrow_the_text_tower_of_a_neighbour(own):
    path, _ = own
    other = open_clip.CLIP(**SMALL).eval()
    other.visual.conv1 = convolutional_stem(32, 8).eval()
    stem = {"width": 32, "patch_size": 8}
    second = path.with_name("second.safetensors")
    save_tiny_clip(second, other, SMALL, (0.5,) * 3, (0.25,) * 3, None, text_from=path.name, stem=stem)
    clip, first = vpkit.load_clip("tiny-vit", weights=second), vpkit.load_clip("tiny", weights=path)
    assert torch.equal(clip.encode_text(["a cat"]), first.encode_text(["a cat"]))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = other.encode_image((images - 0.5) / 0.25, normalize=True)
        assert torch.allclose(clip.encode_image(images), expected, atol=5e-3)
        assert clip.network.visual.conv1((images - 0.5) / 0.25).shape == (2, 32, 4, 4)  # one token a patch


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32", "open_clip:ViT-B-32/laion2b_s34b_b79k"])
def test_hub_weights_load_from_a_file(name, tmp_path, monkeypatch):
    torch.manual_seed(1)
    quick = name == "ViT-B-32"
    network = open_clip.create_model("ViT-B-32", pretrained=None, force_quick_gelu=quick).eval()
    tag = "openai" if quick else "laion2b_s34b_b79k"
    save_file(network.state_dict(), tmp_path / f"ViT-B-32-{tag}.safetensors")
    monkeypatch.setenv("VPKIT_WEIGHTS", str(tmp_path))
    clip = vpkit.load_clip(name)
    tokens = clip.tokenize(["a cat"])
    with torch.no_grad():
        assert torch.allclose(clip.encode_text(["a cat"]), network.encode_text(tokens, normalize=True), atol=1e-5)


def test_missing_weights_say_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.setenv("VPKIT_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError, match=r"timm/resnet50_clip\.openai .*RN50-openai\.safetensors"):
        vpkit.load_clip("RN50")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="expected one of tiny, tiny-vit, tiny-2, tiny-vit-2, ViT-B-32"):
        vpkit.load_clip("ViT-B-23")
    with pytest.raises(ValueError, match=r"expected one of .*laion2b"):
        vpkit.load_clip("open_clip:ViT-B-32/nobody")


def test_broken_files_are_refused(own, tmp_path):
    path, network = own
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"cut\.safetensors: not a CLIP file of vpkit, or cut short"):
        vpkit.load_clip("tiny", weights=cut)
    wrong = SMALL | {"embed_dim": 48}
    other = save_tiny_clip(tmp_path / "wrong.safetensors", network, wrong, (0.5,) * 3, (0.25,) * 3, ROWS)
    with pytest.raises(ValueError, match=r"wrong\.safetensors does not fit VisionTransformer"):
        vpkit.load_clip("tiny", weights=other)
    save_file({"a": torch.zeros(1)}, tmp_path / "strange.safetensors", metadata={"config": json.dumps({})})
    with pytest.raises(ValueError, match="strange"):
        vpkit.load_clip("tiny", weights=tmp_path / "strange.safetensors")
    with pytest.raises(FileNotFoundError, match="no such CLIP file"):
        vpkit.load_clip("tiny", weights=tmp_path / "absent.safetensors")


def test_the_side_of_a_row_is_known_without_its_weights():
    own = [name for name, (target, _) in CLIP_MODELS.items() if not target.startswith("open_clip:")]
    assert {name: clip_image_size(name) for name in own} == {name: vpkit.load_clip(name).image_size for name in own}
    assert {clip_image_size(name) for name in CLIP_MODELS if name not in own} == {224}
