"""Weights that come from hubs, proven on random ones saved to disk in the real formats."""

import numpy as np
import pytest
import timm
import torch
from conftest import check_row
from safetensors.torch import save_file
from torchvision import models

import vpkit
from vpkit.imagenet_names import imagenet_class_names
from vpkit.models.frozen import FROZEN_MODELS

TORCHVISION = {  # row: architecture, the file name torchvision's own downloader gives it
    "resnet18": ("resnet18", "resnet18-f37072fd.pth"),
    "resnet50": ("resnet50", "resnet50-11ad3fa6.pth"),
    "resnet50_v1": ("resnet50", "resnet50-0676ba61.pth"),
    "resnet101": ("resnet101", "resnet101-63fe2227.pth"),
    "resnet152": ("resnet152", "resnet152-394f9c45.pth"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VPKIT_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def agree(model, network):
    images = torch.rand(2, 3, 64, 64)
    mean, std = model.mean[:, None, None], model.std[:, None, None]
    with torch.no_grad():
        ours, expected = model(images), network.eval()((images - mean) / std)
    return (ours - expected).abs().max() <= 1e-4 * expected.abs().max()  # deep random networks have huge outputs


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_rows_load_the_file_torchvision_publishes(name, folder):
    architecture, file_name = TORCHVISION[name]
    network = models.get_model(architecture, weights=None)
    torch.save(network.state_dict(), folder / file_name)
    model = vpkit.load_frozen(name)
    check_row(model, FROZEN_MODELS[name])
    assert agree(model, network)
    assert model.class_names == imagenet_class_names()
    assert model.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_torchs_own_cache_is_searched_too(tmp_path):
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    network = models.resnet18(weights=None)
    torch.save(network.state_dict(), checkpoints / "resnet18-f37072fd.pth")
    assert agree(vpkit.load_frozen("resnet18"), network)


@pytest.mark.slow
def test_the_instagram_resnext_loads_from_safetensors(folder):
    network = timm.create_model("resnext101_32x8d.fb_wsl_ig1b_ft_in1k", pretrained=False)
    save_file(network.state_dict(), folder / "resnext101_32x8d.fb_wsl_ig1b_ft_in1k.safetensors")
    model = vpkit.load_frozen("resnext101_instagram")
    check_row(model, FROZEN_MODELS["resnext101_instagram"])
    assert agree(model, network)
    assert model.class_names[281].startswith("tabby")


def google_npz(network) -> dict[str, np.ndarray]:
    """A BiT network under the names of Google's own files, kernels in (h, w, in, out) order."""

    def kernel(conv):
        return conv.weight.detach().permute(2, 3, 1, 0).numpy()

    def norm(place, module):
        return {f"{place}/gamma": module.weight.detach().numpy(), f"{place}/beta": module.bias.detach().numpy()}

    arrays = {"resnet/root_block/standardized_conv2d/kernel": kernel(network.stem.conv)}
    arrays |= norm("resnet/group_norm", network.norm)
    arrays["resnet/head/conv2d/kernel"] = kernel(network.head.fc)
    arrays["resnet/head/conv2d/bias"] = network.head.fc.bias.detach().numpy()
    for s, stage in enumerate(network.stages, 1):
        for b, block in enumerate(stage.blocks, 1):
            for letter, conv, group_norm in zip("abc", (1, 2, 3), (1, 2, 3), strict=True):
                place = f"resnet/block{s}/unit{b:02d}/{letter}"
                arrays[f"{place}/standardized_conv2d/kernel"] = kernel(getattr(block, f"conv{conv}"))
                arrays |= norm(f"{place}/group_norm", getattr(block, f"norm{group_norm}"))
            if block.downsample is not None:
                arrays[f"resnet/block{s}/unit{b:02d}/a/proj/standardized_conv2d/kernel"] = kernel(block.downsample.conv)
    return arrays


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_bit_m_loads_its_head_from_both_formats(folder, kind):
    network = timm.create_model("resnetv2_50x1_bit.goog_in21k", pretrained=False)
    torch.nn.init.normal_(network.head.fc.weight, std=0.01)
    path = folder / f"resnetv2_50x1_bit.goog_in21k.{kind}"
    if kind == "npz":
        np.savez(path, **google_npz(network))
    else:
        save_file(network.state_dict(), path)
    model = vpkit.load_frozen("bit_m_r50x1")
    check_row(model, FROZEN_MODELS["bit_m_r50x1"])
    assert agree(model, network)
    assert model(torch.rand(1, 3, 64, 64)).std() > 0


def test_a_zero_head_is_refused(folder):
    network = timm.create_model("resnetv2_50x1_bit.goog_in21k", pretrained=False)
    torch.nn.init.zeros_(network.head.fc.weight)
    save_file(network.state_dict(), folder / "zero.safetensors")
    with pytest.raises(ValueError, match="the classification head is all zeros"):
        vpkit.load_frozen("bit_m_r50x1", weights=folder / "zero.safetensors")


def test_any_timm_classifier_is_one_name(folder):
    network = timm.create_model("mobilenetv3_small_050.lamb_in1k", pretrained=False)
    torch.save(network.state_dict(), folder / "mine.pth")
    model = vpkit.load_frozen("timm:mobilenetv3_small_050.lamb_in1k", weights=folder / "mine.pth")
    assert agree(model, network)
    assert len(model.class_names) == 1000


def test_missing_weights_say_what_to_get_and_where_to_put_it(folder):
    with pytest.raises(FileNotFoundError) as caught:
        vpkit.load_frozen("resnet18")
    message = str(caught.value)
    assert "resnet18-f37072fd.pth" in message
    assert "https://" in message
    assert str(folder) in message
    assert "download=True" in message
    with pytest.raises(FileNotFoundError, match=r"timm/resnext101_32x8d\.fb_wsl_ig1b_ft_in1k on the Hugging Face hub"):
        vpkit.load_frozen("resnext101_instagram")
    with pytest.raises(FileNotFoundError, match="no such file"):
        vpkit.load_frozen("resnet18", weights=folder / "none.pth")


def test_files_that_do_not_fit_are_refused(folder):
    path = folder / "resnet18-f37072fd.pth"
    torch.save(models.resnet34(weights=None).state_dict(), path)
    with pytest.raises(ValueError, match=r"resnet18-f37072fd\.pth does not fit ResNet"):
        vpkit.load_frozen("resnet18")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="or is cut short"):
        vpkit.load_frozen("resnet18")


def test_a_pickle_that_would_run_code_is_not_unpickled(folder):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"fc.weight": Evil()}, folder / "resnet18-f37072fd.pth")
    with pytest.raises(ValueError, match="does not fit ResNet"):
        vpkit.load_frozen("resnet18")


def test_downloads_happen_only_when_asked_for(monkeypatch):
    asked = []

    def fetch(url, path, sha256):
        asked.append((url, sha256))
        raise OSError("no network")

    monkeypatch.setattr("vpkit.models.hub.fetch_file", fetch)
    with pytest.raises(FileNotFoundError, match="`vpkit fetch` and the model's name gets them"):
        vpkit.load_frozen("resnet18")
    assert not asked
    with pytest.raises(OSError, match="no network"):
        vpkit.load_frozen("resnet18", download=True)
    assert asked == [(models.ResNet18_Weights.IMAGENET1K_V1.url, "f37072fd")]


def test_unknown_timm_names_and_other_heads_are_refused():
    with pytest.raises(ValueError, match="timm has no model 'resnet_fifty'"):
        vpkit.load_frozen("timm:resnet_fifty")
    with pytest.raises(ValueError, match="which is no ImageNet head"):
        vpkit.load_frozen("timm:vit_base_patch16_siglip_224.webli")
