"""`vpkit fetch` from a server on the loopback: weights and archives in their published formats, cut off and resumed."""

import json

import fakes
import open_clip
import pytest
import timm
import torch
from internet import internet, published
from safetensors.torch import save_file
from torchvision import datasets as tv
from torchvision import models
from typer.testing import CliRunner

import vpkit
from vpkit import downloads
from vpkit.book.cli import app
from vpkit.datasets.archives import BY_HAND, archives_of
from vpkit.datasets.torchvision_sets import TORCHVISION_SETS
from vpkit.models import FROZEN_MODELS
from vpkit.models.clip import open_clip_file

FETCHED = [name for name, row in TORCHVISION_SETS.items() if row.takes_download and name != "sun397"]
SIZE = {"cifar10": 32, "cifar100": 32}
sum_of = downloads.sum_of


@pytest.fixture
def web(monkeypatch, tmp_path):
    monkeypatch.setenv("VPKIT_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with internet(monkeypatch) as found:
        yield found


def fetch(*words):
    return CliRunner().invoke(app, ["fetch", *map(str, words)])


def test_what_is_cut_off_goes_on_where_it_stopped(web, tmp_path):
    web.files["https://somewhere/file"] = content = bytes(range(256)) * 1000
    web.cuts = 2
    path = downloads.download("https://somewhere/file", tmp_path / "folder" / "file")
    assert path.read_bytes() == content
    assert [start for _, _, start in web.asked] == [0, len(content) // 2, len(content) * 3 // 4]
    assert downloads.download("https://nowhere", path) == path  # it is there
    web.cuts = 99
    with pytest.raises(OSError, match="https://somewhere/file: cut off 4 times; the same command goes on"):
        downloads.download("https://somewhere/file", tmp_path / "again")
    web.cuts = 0
    assert downloads.download("https://somewhere/file", tmp_path / "again").read_bytes() == content
    assert web.asked[-1][2] > len(content) * 0.9


def test_sums_are_checked(web, tmp_path, monkeypatch):
    monkeypatch.undo()
    with internet(monkeypatch) as own:
        monkeypatch.setattr(downloads, "sum_of", sum_of)
        own.files["https://somewhere/file"] = b"abc"
        with pytest.raises(ValueError, match="its md5 sum is 900150983cd24fb0d6963f7d28e17f72, expected 1234"):
            downloads.download("https://somewhere/file", tmp_path / "file", md5="1234")
        assert not list(tmp_path.iterdir())
        assert downloads.download("https://somewhere/file", tmp_path / "file", sha256="ba7816bf").read_bytes() == b"abc"


def below(image, name):
    """The folder that the paths of a split file start from."""
    return image.parent if name in ("flowers102", "oxford_pets") else image.parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("name", FETCHED)
def test_a_data_set_is_fetched_and_read(name, web, tmp_path, monkeypatch):
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    getattr(fakes, name)(there, monkeypatch, tv)
    wanted = archives_of(name, here)
    assert wanted
    web.files |= published(name, there, wanted)
    missing = [archive for archive in wanted if archive.url not in web.files]
    assert all("drive.google" in archive.url for archive in missing)  # a split file, below
    if missing:
        images = sorted(path for path in there.rglob("*") if path.suffix in (".jpg", ".png"))[:5]
        rows = [[str(path.relative_to(below(images[0], name))), k, f"class {k}"] for k, path in enumerate(images)]
        web.files[missing[0].url] = json.dumps(dict.fromkeys(("train", "val", "test"), rows)).encode()
    said = fetch("--list", name, "--root", here)
    assert said.exit_code == 0, said.output
    assert "MB" in said.output
    assert not list(here.rglob("*"))
    done = fetch(name, "--root", here)
    assert done.exit_code == 0, done.output
    assert f"{name}: " in done.output
    assert " train, " in done.output
    size = SIZE.get(name, fakes.SIDE)
    found = vpkit.load_dataset(name, "test", size=size, root=here)
    if not missing:
        assert torch.equal(found.images, vpkit.load_dataset(name, "test", size=size, root=there).images)
    asked = len(web.asked)
    assert "is here" in fetch("--list", name, "--root", here).output
    assert len(web.asked) == asked


@pytest.mark.slow
def test_weights_are_fetched_and_load(web, tmp_path):
    network = models.resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "file")
    web.files[FROZEN_MODELS["resnet18"].weight_file().url] = (tmp_path / "file").read_bytes()
    bit = timm.create_model("resnetv2_50x1_bit.goog_in21k", pretrained=False)
    torch.nn.init.normal_(bit.head.fc.weight, std=0.01)
    save_file(bit.state_dict(), tmp_path / "file")
    web.files["https://huggingface.co/timm/resnetv2_50x1_bit.goog_in21k/resolve/main/model.safetensors"] = (
        tmp_path / "file"
    ).read_bytes()
    clip = open_clip.create_model("RN50", pretrained=None, force_quick_gelu=True)
    save_file(clip.state_dict(), tmp_path / "file")
    url = open_clip_file("RN50", "openai").url.replace(web.address, "https://huggingface.co")
    web.files[url] = (tmp_path / "file").read_bytes()
    done = fetch("resnet18", "bit_m_r50x1", "RN50", "efficientnet_lite0", "tiny")
    assert done.exit_code == 0, done.output
    assert "comes with vpkit" in done.output
    assert torch.equal(vpkit.load_frozen("resnet18").network.fc.weight, network.fc.weight)
    assert vpkit.load_frozen("bit_m_r50x1").class_names
    assert torch.equal(vpkit.load_clip("RN50").network.text_projection, clip.text_projection)


def test_a_dead_address_is_named_with_what_to_do(web, tmp_path):
    done = fetch("cifar10", "sun397", "stanford_cars", "--root", tmp_path)
    assert done.exit_code == 1
    assert "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz: the server says 404" in done.output
    assert BY_HAND["sun397"] in done.output
    assert BY_HAND["stanford_cars"] in done.output
    assert "not complete: cifar10, sun397, stanford_cars" in done.output


def test_a_grid_names_what_it_needs(web):
    said = fetch("--list", "--grid", "grids/dpt_table3.yaml")
    assert said.exit_code == 0, said.output
    for name in ("ViT-B-32", "imagenet", "imagenet:sketch", "imagenet:a"):
        assert f"\n{name} " in f"\n{said.output}"
    assert "image-net.org" in said.output


def test_a_name_that_is_nothing_is_refused(web):
    done = fetch("resnet19")
    assert done.exit_code == 1
    assert "'resnet19' is neither a model nor a data set: expected some of efficientnet_lite0" in done.output
    assert "nothing to fetch" in fetch().output


@pytest.mark.slow
def test_a_chapter_may_fetch_for_itself(web, tmp_path, monkeypatch):
    """load_dataset(..., download=True) and load_frozen(..., download=True)."""
    fakes.cifar10(tmp_path, monkeypatch, tv)
    web.files |= published("cifar10", tmp_path, archives_of("cifar10", tmp_path / "here"))
    found = vpkit.load_dataset("cifar10", "test", root=tmp_path / "here", download=True)
    assert len(found) == 20
