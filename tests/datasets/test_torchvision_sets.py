import json
import socket

import fakes
import pytest
import torch
from torchvision import datasets as tv

import vpkit
from vpkit.datasets import DATASETS, SPLITS
from vpkit.datasets.torchvision_sets import TORCHVISION_SETS

SIZE = {"cifar10": 32, "cifar100": 32}  # the class fixes the side


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a data set touched the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def load(name, split, root, **options):
    return vpkit.load_dataset(name, split, size=SIZE.get(name, fakes.SIDE), root=root, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_every_row_reads_its_real_format(name, tmp_path, monkeypatch):
    getattr(fakes, name)(tmp_path, monkeypatch, tv)
    row = DATASETS[name]
    parts = {split: load(name, split, tmp_path) for split in ("train", "val", "test")}
    for split, part in parts.items():
        assert len(part.class_names) == row.classes
        assert torch.bincount(part.labels, minlength=row.classes).min() >= 1, split
        told = part.images[:, 0, 0, 0].long() + 256 * part.images[:, 1, 0, 0].long()
        assert torch.equal(told, part.labels), split  # each image under its own label
        assert part.images[:, 2].unique().tolist() == [77]
    assert len(parts["train"]) >= len(parts["val"])


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_missing_files_say_where_they_belong(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{name} is not complete under"):
        load(name, "train", tmp_path)


def test_names_are_readable_and_in_order(tmp_path, monkeypatch):
    for name in ("gtsrb", "svhn", "clevr_count", "cifar10", "caltech101", "imagenet"):
        getattr(fakes, name)(tmp_path, monkeypatch, tv)
    names = {
        name: load(name, "test", tmp_path).class_names
        for name in ("gtsrb", "svhn", "clevr_count", "cifar10", "caltech101", "imagenet")
    }
    assert len(set(names["gtsrb"])) == 43
    assert names["gtsrb"][14] == "stop"
    assert names["svhn"] == tuple("0123456789")
    assert names["clevr_count"][0] == "three"
    assert names["cifar10"][3] == "cat"
    flowers = TORCHVISION_SETS["flowers102"].class_names(None)
    assert len(set(flowers)) == 102
    assert flowers[53] == "sunflower"
    assert "BACKGROUND Google" not in names["caltech101"]
    assert names["imagenet"][134] == "crane bird"
    assert names["imagenet"][517] == "construction crane"
    assert len(set(names["imagenet"])) == 1000


@pytest.mark.parametrize(
    ("name", "images_below"),
    [
        ("dtd", "images"),
        ("eurosat", "2750"),
        ("sun397", "."),
        ("caltech101", "101_ObjectCategories"),
    ],
)
def test_a_coop_split_file_takes_precedence(name, images_below, tmp_path):
    row = TORCHVISION_SETS[name]
    folder = tmp_path / row.folder
    folder.mkdir()
    names = ["class_a", "class_b", "class_c"]
    fakes.coop_split(folder, row.split_file, names, images_below)
    parts = [load(name, split, tmp_path) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [9, 6, 3]
    assert parts[0].class_names == ("class a", "class b", "class c")
    assert all(torch.equal(part.images[:, 0, 0, 0].long(), part.labels) for part in parts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a CoOp split file"),
        ('{"train": [["a.jpg", 0]]}', "not a CoOp split file"),
        (json.dumps({split: [["../../x.jpg", 0, "a"], ["b.jpg", 1, "b"]] for split in SPLITS}), "lies outside"),
        (
            json.dumps({split: [["a.jpg", 0, "a"], ["b.jpg", 7, "b"]] for split in SPLITS}),
            "labels are .0, 7. ..., expected 0..1",
        ),
    ],
)
def test_a_bad_split_file_is_refused(content, message, tmp_path):
    (tmp_path / "dtd").mkdir()
    (tmp_path / "dtd" / "split_zhou_DescribableTextures.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load("dtd", "train", tmp_path)


def test_downloads_happen_only_when_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("vpkit.datasets.archives.download", lambda url, path, md5: asked.append((url, path, md5)))
    for download in (False, True):
        with pytest.raises((FileNotFoundError, AssertionError)):  # torchvision then tries for itself
            load("cifar10", "train", tmp_path, download=download)
        assert len(asked) == download
    assert asked == [(tv.CIFAR10.url, tmp_path / tv.CIFAR10.filename, tv.CIFAR10.tgz_md5)]


def test_validation_without_an_official_split_is_disjoint_and_seeded(tmp_path, monkeypatch):
    fakes.cifar10(tmp_path, monkeypatch, tv)
    sizes = [len(load("cifar10", split, tmp_path)) for split in ("train", "val", "test")]
    assert sizes == [180, 20, 20]


def test_all_of_an_official_training_split_can_be_trained_on(tmp_path, monkeypatch):
    fakes.cifar10(tmp_path, monkeypatch, tv)
    whole = load("cifar10", "train", tmp_path, whole_train=True)
    assert len(whole) == 200
    assert len(load("cifar10", "val", tmp_path, whole_train=True)) == 20
    fakes.dtd(tmp_path, monkeypatch, tv)
    with pytest.warns(UserWarning, match="not the papers': `vpkit fetch dtd` gets the file"):
        few = load("dtd", "train", tmp_path)
    with pytest.warns(UserWarning, match="split_zhou_DescribableTextures.json is not under"):
        assert len(load("dtd", "train", tmp_path, whole_train=True)) == len(few)  # it has a validation split


def test_a_set_says_how_its_splits_came_about(tmp_path, monkeypatch):
    fakes.dtd(tmp_path, monkeypatch, tv)
    with pytest.warns(UserWarning, match="its splits are official"):
        assert load("dtd", "train", tmp_path).rule == "official"
    names = [f"t {c}" for c in range(47)]
    fakes.coop_split(tmp_path / "dtd", "split_zhou_DescribableTextures.json", names, "dtd/images")
    found = load("dtd", "train", tmp_path)  # CoOp's file over torchvision's layout
    assert (found.rule, len(found)) == ("split_zhou_DescribableTextures.json", 141)
    assert found[:5].few_shot(1).rule == found.rule
