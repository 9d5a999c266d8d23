"""Data sets that torchvision does not have, on fakes in their real on-disk formats."""

import json
import sys

import fakes
import numpy as np
import pytest
import torch

import vpkit
from vpkit.datasets import DATASETS
from vpkit.datasets.abide import abide_free_cells, connectivity_image
from vpkit.datasets.paper_sets import IMAGENET_FOLDERS

SPLITS = ("train", "val", "test")
ON_DISK_ELSEWHERE = [name for name, row in DATASETS.items() if row.on_disk and row.source != "torchvision"]


def load(name, split, root, **options):
    return vpkit.load_dataset(name, split, size=fakes.SIDE, root=root, **options)


def told_labels(images):
    return images[:, 0, 0, 0].long() + 256 * images[:, 1, 0, 0].long()


def write_ucf101(root, split_file: bool):
    folder, actions = root / "ucf101", [f"Do{chr(65 + k // 26)}{chr(97 + k % 26)}Thing" for k in range(101)]
    spelt = [f"Do_{a[2:4]}_Thing" for a in actions]
    videos = {(k, g): f"v_{actions[k]}_g{g:02}_c01" for k in range(101) for g in range(1, 17)}
    frames = {key: folder / "UCF-101-midframes" / spelt[key[0]] / f"{name}.jpg" for key, name in videos.items()}
    fakes.write_images((path, key[0]) for key, path in frames.items())
    if split_file:
        parts = {"test": (1, 2), "val": (3,), "train": range(4, 17)}
        rows = {
            part: [[f"{spelt[k]}/{videos[k, g]}.jpg", k, spelt[k]] for k in range(101) for g in groups]
            for part, groups in parts.items()
        }
        (folder / "split_zhou_UCF101.json").write_text(json.dumps(rows))
    else:
        lists = folder / "ucfTrainTestlist"
        lists.mkdir()
        (lists / "classInd.txt").write_text("".join(f"{k + 1} {a}\n" for k, a in enumerate(actions)))
        train = "".join(f"{actions[k]}/{videos[k, g]}.avi {k + 1}\n" for k in range(101) for g in range(3, 17))
        (lists / "trainlist01.txt").write_text(train)
        test = "".join(f"{actions[k]}/{videos[k, g]}.avi\n" for k in range(101) for g in (1, 2))
        (lists / "testlist01.txt").write_text(test)


@pytest.mark.parametrize("split_file", [True, False])
def test_ucf101_by_coops_file_and_by_the_official_lists(tmp_path, split_file):
    write_ucf101(tmp_path, split_file)
    parts = {split: load("ucf101", split, tmp_path) for split in SPLITS}
    for part in parts.values():
        assert torch.equal(told_labels(part.images), part.labels)
        assert part.class_names[0] == "Do Aa Thing"
        assert torch.bincount(part.labels, minlength=101).min() >= 1
    assert len(parts["test"]) == 202
    assert len(parts["train"]) + len(parts["val"]) == 14 * 101


def test_resisc45_by_lists_and_by_seed(tmp_path):
    base = tmp_path / "resisc45" / "NWPU-RESISC45"
    names = [f"scene_{k:02}" for k in range(45)]
    fakes.write_images((base / n / f"{n}_{i:03}.jpg", k) for k, n in enumerate(names) for i in range(1, 11))
    seeded = {split: load("resisc45", split, tmp_path) for split in SPLITS}
    assert [len(seeded[split]) for split in SPLITS] == [270, 90, 90]
    assert all(torch.equal(told_labels(part.images), part.labels) for part in seeded.values())
    (tmp_path / "resisc45" / "resisc45-test.txt").write_text("".join(f"{n}_001.jpg\n" for n in names))
    assert len(load("resisc45", "test", tmp_path)) == 45
    (tmp_path / "resisc45" / "resisc45-val.txt").write_text("nowhere_001.jpg\n")
    with pytest.raises(ValueError, match=r"names nowhere_001\.jpg"):
        load("resisc45", "val", tmp_path)


def write_imagenet_variant(root, variant):
    from timm.data import ImageNetInfo

    synsets = ImageNetInfo("imagenet-1k").label_names()
    labels = range(1000) if variant in ("v2", "sketch") else range(3, 1000, 5)  # -A and -R have 200 of them
    folder = root / IMAGENET_FOLDERS[variant]
    ending = {"v2": "jpeg", "sketch": "JPEG"}.get(variant, "jpg")
    fakes.write_images(
        (folder / (str(k) if variant == "v2" else synsets[k]) / f"{i}.{ending}", k) for k in labels for i in range(10)
    )
    return list(labels)


@pytest.mark.slow
@pytest.mark.parametrize("variant", IMAGENET_FOLDERS)
def test_imagenets_relatives_as_domains_and_on_their_own(tmp_path, variant):
    labels = write_imagenet_variant(tmp_path, variant)
    domain = load(f"imagenet:{variant}", "test", tmp_path)
    assert len(domain.class_names) == 1000
    assert domain.class_names[207] == "Golden Retriever"  # as CLIP calls it
    assert torch.equal(told_labels(domain.images), domain.labels)
    assert domain.labels.unique().tolist() == labels
    own = {split: load(f"imagenet_{variant}", split, tmp_path) for split in SPLITS}
    assert (
        {len(part.class_names) for part in own.values()} == {len(labels)} == {DATASETS[f"imagenet_{variant}"].classes}
    )
    assert sum(map(len, own.values())) == len(domain)
    for part in own.values():
        assert torch.equal(told_labels(part.images), torch.tensor(labels)[part.labels])
        assert part.class_names[0] == domain.class_names[labels[0]]


def test_imagenets_relatives_refuse_what_they_are_not(tmp_path):
    write_imagenet_variant(tmp_path, "a")
    with pytest.raises(ValueError, match="has test images only, not 'train'"):
        load("imagenet:a", "train", tmp_path)
    with pytest.raises(ValueError, match="unknown domain imagenet:x: expected one of v2, sketch, a, r"):
        load("imagenet:x", "test", tmp_path)
    fakes.write_images([(tmp_path / IMAGENET_FOLDERS["a"] / "strange" / "0.jpg", 0)])
    with pytest.raises(ValueError, match="has a folder 'strange': expected ImageNet classes"):
        load("imagenet:a", "test", tmp_path)


def write_abide(root, subjects=40):
    folder = root / "abide"
    series = folder / "Outputs/cpac/filt_global/rois_cc200"
    series.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["SUB_ID,FILE_ID,DX_GROUP,SITE_ID"]
    for k in range(subjects):
        lines.append(f"{k},Site_{k:07},{1 + k % 2},Site")
        values = rng.normal(size=(30, 200))
        values[:, 7] = 0.0  # a region without a signal: its correlations are undefined
        np.savetxt(series / f"Site_{k:07}_rois_cc200.1D", values, header="\t".join(f"#{i}" for i in range(200)))
    lines.append("99,no_filename,1,Site")
    (folder / "Phenotypic_V1_0b_preprocessed1.csv").write_text("\n".join(lines) + "\n")
    return series


def test_abide_is_split_as_in_ilm_vp(tmp_path):
    write_abide(tmp_path)
    parts = {split: vpkit.load_dataset("abide", split, root=tmp_path) for split in SPLITS}
    assert [len(parts[split]) for split in SPLITS] == [32, 4, 4]
    assert parts["test"].class_names == ("non ASD", "ASD")
    assert parts["test"].labels.bincount().tolist() == [2, 2]
    assert parts["test"].images.shape == (4, 3, 200, 200)
    again = vpkit.load_dataset("abide", "test", root=tmp_path, seed=5)
    assert torch.equal(parts["test"].images, again.images)


def test_abides_layouts(tmp_path):
    path = next(write_abide(tmp_path, 4).iterdir())
    full, upper, scrambled = (connectivity_image(path, layout)[..., 0] for layout in ("", "upper", "scrambled"))
    correlations = np.nan_to_num(np.corrcoef(np.loadtxt(path).T))
    pairs = correlations[np.triu_indices(200, 1)]
    expected = np.round(255 * (pairs - pairs.min()) / (pairs.max() - pairs.min()))
    assert np.array_equal(upper[np.triu_indices(200, 1)], expected)
    assert np.array_equal(full, full.T)
    assert np.array_equal(np.triu(full, 1), np.triu(upper, 1))
    free = abide_free_cells()
    for image in (upper, scrambled):
        assert (image[free] == 0).all()
    assert sorted(scrambled[~free]) == sorted(upper[~free])
    assert free.sum() == 20_100
    # Where each layout puts a pair of regions: the released order keeps 10 of 19,900 in place.
    names = np.arange(40_000).reshape(200, 200)
    right, released = np.zeros((200, 200), int), np.zeros((200, 200), int)
    row, column = np.tril_indices(200, -1)
    right[column, row] = released[np.triu_indices(200, 1)] = names[row, column]
    assert (right == released)[np.triu_indices(200, 1)].sum() == 10


def test_abides_free_cells_are_prompt():
    prompt = vpkit.prompts.ExpandPrompt(200, 224, free=abide_free_cells())
    assert prompt.pixels.numel() == 3 * 30_276
    images = torch.zeros(1, 3, 200, 200)
    images[..., 0, 1] = 0.3
    shown = prompt(images)[0, 0, 12:-12, 12:-12].detach()
    assert shown[0, 1] == pytest.approx(0.3)
    assert shown[1, 0] == shown[5, 5] == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"free is \(3, 3\)"):
        vpkit.prompts.ExpandPrompt(200, 224, free=np.zeros((3, 3), bool))


def test_abides_bad_files_are_named(tmp_path):
    path = next(write_abide(tmp_path, 4).iterdir())
    path.write_text("1 2 3\n4 5 6\n")
    with pytest.raises(ValueError, match=r"3 columns, 2 rows: expected 200"):
        connectivity_image(path)
    path.write_text("not numbers\n")
    with pytest.raises(ValueError, match=f"{path.name}: not a table of numbers"):
        connectivity_image(path)
    with pytest.raises(ValueError, match="unknown layout abide:lower"):
        vpkit.load_dataset("abide:lower", "train", root=tmp_path)


def iwildcam(root):
    base = root / "iwildcam_v2.0"
    rows = ["split,filename,y,location_remapped,sequence_remapped,datetime"]
    for split, classes in {"train": 182, "val": 182, "test": 181, "id_val": 2, "id_test": 2}.items():
        for y in range(classes):
            rows.append(f"{split},{split}_{y}.jpg,{y},{y % 3},{y % 5},2013-01-0{1 + y % 9} 10:20:30.500000")
            fakes.write_images([(base / "train" / f"{split}_{y}.jpg", y)])
    (base / "metadata.csv").write_text("\n".join(rows))
    animals = "".join(f"{k},{k},animal {k}\n" for k in range(182))
    (base / "categories.csv").write_text(f"y,category_id,name\n{animals}99999,900,unused\n")
    return base


def fmow(root):
    from wilds.datasets.fmow_dataset import categories

    base, rows, images = root / "fmow_v1.1", ["split,category,country_code,timestamp"], []
    base.mkdir(parents=True)
    for split, year in {"train": 2010, "val": 2014, "test": 2017, "seq": 2010}.items():
        for y, category in enumerate(categories):
            fraction = ".123" if y % 2 else ""  # both forms occur
            images.append((base / "images" / f"rgb_img_{len(rows) - 1}.png", y))
            rows.append(f"{split},{category},DEU,{year}-05-06T07:08:09{fraction}Z")
    fakes.write_images(images)
    (base / "rgb_metadata.csv").write_text("\n".join(rows))
    (base / "country_code_mapping.csv").write_text("alpha-3,region\nDEU,Europe\n")
    return base


def camelyon17(root):
    base, rows, images = root / "camelyon17_v1.0", [",patient,node,x_coord,y_coord,tumor,center,slide,split"], []
    for center in range(5):
        for y in (0, 1):
            patches = base / "patches" / f"patient_00{center}_node_0"
            images.append((patches / f"patch_patient_00{center}_node_0_x_{y}_y_0.png", y))
            rows.append(f"{len(rows) - 1},00{center},0,{y},0,{y},{center},{center},0")
    fakes.write_images(images)
    (base / "metadata.csv").write_text("\n".join(rows))
    return base


@pytest.mark.parametrize("make", [iwildcam, fmow, camelyon17])
def test_wilds_sets_come_through_their_package(tmp_path, make):
    """The real package, over files laid out as it expects them."""
    name = make.__name__
    with pytest.raises(FileNotFoundError, match=f"{name} is not complete under .*`vpkit fetch {name}`"):
        load(name, "train", tmp_path)
    folder = make(tmp_path / "wilds")
    (folder / f"RELEASE_{folder.name.rpartition('_')[2]}.txt").touch()
    for split in ("train", "val", "test"):
        part = load(name, split, tmp_path)
        assert len(part.class_names) == DATASETS[name].classes
        assert torch.equal(told_labels(part.images), part.labels)
    expected = {"iwildcam": "animal 1", "fmow": "airport hangar", "camelyon17": "containing"}
    assert part.class_names[1] == expected[name]


def test_wilds_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wilds", None)
    with pytest.raises(ImportError, match=r"pip install wilds"):
        load("fmow", "train", tmp_path)


@pytest.mark.parametrize("name", [n for n in ON_DISK_ELSEWHERE if n not in ("iwildcam", "fmow", "camelyon17")])
def test_missing_files_say_where_they_belong(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="is not complete") as caught:
        load(name, "train", tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_every_name_of_the_papers_has_a_row():
    assert {"ucf101", "resisc45", "abide", "imagenet_v2", "iwildcam", "fmow", "camelyon17"} <= set(ON_DISK_ELSEWHERE)
