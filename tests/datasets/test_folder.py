import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import vpkit
from vpkit.datasets import SPLITS
from vpkit.datasets.source import read_image


def fill(folder, per_class, names=("cat", "big_dog"), side=9):
    for c, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            Image.fromarray(np.full((side, side + 4, 3), 20 * c + i, np.uint8)).save(folder / name / f"{i:03}.png")


def files_of(folder, seed=0):
    return {split: set(vpkit.load_dataset(f"folder:{folder}", split, size=4, seed=seed).files) for split in SPLITS}


def test_a_plain_folder_is_split_by_content(tmp_path):
    fill(tmp_path, 200)
    parts = [vpkit.load_dataset(f"folder:{tmp_path}", split, size=4) for split in SPLITS]
    assert all(part.class_names == ("big dog", "cat") for part in parts)
    assert len({file for part in parts for file in part.files}) == sum(map(len, parts)) == 400
    for part, share in zip(parts, (0.72, 0.08, 0.2), strict=True):  # of each class, to three standard deviations
        counts = torch.bincount(part.labels)
        assert ((counts - 200 * share).abs() < 3 * (200 * share * (1 - share)) ** 0.5).all()
    first, second = files_of(tmp_path), files_of(tmp_path, seed=1)
    assert first["test"] == second["test"]
    assert first["val"] != second["val"]


def test_a_file_stays_in_its_split_when_others_come_and_go(tmp_path):
    """Else a report after the folder has grown tests on what was trained on."""
    fill(tmp_path, 60)
    before = files_of(tmp_path)
    for i in range(50):
        Image.fromarray(np.full((9, 13, 3), 90 + i, np.uint8)).save(tmp_path / "cat" / f"a{i}.png")
    (tmp_path / "big_dog" / "007.png").unlink()
    (tmp_path / "cat" / "005.png").rename(tmp_path / "cat" / "zzz.png")
    after = files_of(tmp_path)
    for split in SPLITS:
        kept = {path for path in before[split] if path.exists()}
        assert kept <= after[split]
    where = [{path.name for path in found[split]} for split in SPLITS for found in (before, after)]
    assert all(("005.png" in old) == ("zzz.png" in new) for old, new in zip(where[::2], where[1::2], strict=True))


def test_copies_of_a_file_are_in_one_split(tmp_path):
    fill(tmp_path, 40)
    for path in list((tmp_path / "cat").iterdir()):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    for part in files_of(tmp_path).values():
        names = {path.name for path in part if path.parent.name == "cat"}
        assert {name.removeprefix("copy of ") for name in names} == {n for n in names if not n.startswith("copy")}


def test_three_images_a_class_are_enough_and_fewer_are_named(tmp_path):
    fill(tmp_path, 3)
    assert {split: len(found) for split, found in files_of(tmp_path).items()} == {"train": 2, "val": 2, "test": 2}
    (tmp_path / "cat" / "000.png").unlink()
    with pytest.raises(ValueError, match=r"too few images of cat \(2\): a class needs at least 3, one each to train"):
        vpkit.load_dataset(f"folder:{tmp_path}", "val")
    fill(tmp_path / "two" / "train", 1)
    fill(tmp_path / "two" / "test", 1)
    with pytest.raises(ValueError, match=r"big dog \(1\), cat \(1\): a class needs at least 2, one each to train and"):
        vpkit.load_dataset(f"folder:{tmp_path / 'two'}", "val")


def test_all_images_of_a_folder_of_classes(tmp_path):
    fill(tmp_path, 1)  # too few to split
    whole = vpkit.load_dataset(f"folder:{tmp_path}", "all", size=8)
    assert (whole.labels.tolist(), whole.class_names) == ([0, 1], ("big dog", "cat"))
    with pytest.raises(ValueError, match="unknown split 'all'"):
        vpkit.load_dataset("icons", "all")


def test_split_folders_are_taken_as_they_are(tmp_path):
    for split, count in {"train": 10, "val": 3, "test": 4}.items():
        fill(tmp_path / split, count)
    sizes = [len(vpkit.load_dataset(f"folder:{tmp_path}", split, size=4)) for split in ("train", "val", "test")]
    assert sizes == [20, 6, 8]


def test_without_val_a_tenth_of_train_is_held_out(tmp_path):
    fill(tmp_path / "train", 20)
    fill(tmp_path / "test", 4)
    train, val = (vpkit.load_dataset(f"folder:{tmp_path}", split, size=4) for split in ("train", "val"))
    assert len(train) + len(val) == 40
    assert torch.bincount(val.labels).min() >= 1
    assert not set(train.files) & set(val.files)


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_validation_has_other_names(name, tmp_path):
    for split, count in {"train": 10, name: 3, "test": 4}.items():
        fill(tmp_path / split, count)
    assert len(vpkit.load_dataset(f"folder:{tmp_path}", "val", size=4)) == 6
    fill(tmp_path / "val", 3)
    with pytest.raises(ValueError, match=f"has val and {name}: which is for validation"):
        vpkit.load_dataset(f"folder:{tmp_path}", "val")


def test_a_changed_file_is_decoded_again(tmp_path):
    fill(tmp_path, 10)
    before = vpkit.load_dataset(f"folder:{tmp_path}", "train", size=4).images.clone()
    for path in (tmp_path / "cat").iterdir():
        Image.fromarray(np.full((30, 30, 3), 250, np.uint8)).save(path)
    after = vpkit.load_dataset(f"folder:{tmp_path}", "train", size=4)
    assert (after.images[after.labels == 1] == 250).all()
    assert not torch.equal(before, after.images)


def test_what_is_read_and_passed_over_is_said_once(tmp_path, capfd):
    folder = tmp_path / "photos"
    fill(folder, 10)
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "cat" / ".hidden.png").write_text("x")
    (folder / "cat" / "phone.HEIC").write_text("x")
    (folder / "README.md").write_text("x")
    (folder / "cat" / "2021").mkdir()
    (folder / "cat" / "009.png").rename(folder / "cat" / "2021" / "nested.png")
    parts = [vpkit.load_dataset(f"folder:{folder}", split, size=4) for split in SPLITS]
    assert sum(map(len, parts)) == 20
    assert any("nested.png" in (path.name for path in part.files) for part in parts)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("photos: ")]
    assert line.startswith("photos: big_dog 10 .png; cat 10 .png (passed over: ")
    for kind in ("1 .txt", "1 hidden", "1 .heic", "pip install pillow-heif"):
        assert kind in line


def test_two_folders_for_one_class_are_refused(tmp_path):
    fill(tmp_path, 5, names=("a_b", "a b", "c"))
    with pytest.raises(ValueError, match="the folders a b, a_b are all the class 'a b': rename or merge them"):
        vpkit.load_dataset(f"folder:{tmp_path}", "train")


def read(image, tmp_path, ending="png", **options):
    image.save(tmp_path / f"image.{ending}", **options)
    return read_image(tmp_path / f"image.{ending}", 8)


def test_photos_are_read_upright(tmp_path):
    values = np.zeros((8, 8, 3), np.uint8)
    values[:4] = 255
    tag = Image.Exif()
    tag[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    found = read(Image.fromarray(values), tmp_path, exif=tag)
    assert found[:, 4:].min() == 255
    assert found[:, :4].max() == 0


@pytest.mark.parametrize("kind", ["16 bits", "32 bits", "float 0..1", "float 0..255"])
def test_deep_images_are_scaled_by_their_depth(kind, tmp_path):
    ramp = np.tile(np.linspace(0, 1, 8), (8, 1))
    values = {
        "16 bits": (65535 * ramp).astype(np.uint16), "32 bits": (65535 * ramp).astype(np.int32),
        "float 0..1": ramp.astype(np.float32), "float 0..255": (255 * ramp).astype(np.float32),
    }[kind]  # fmt: skip
    found = read(Image.fromarray(values), tmp_path, "tiff")
    assert np.abs(found.astype(float) - 255 * ramp[..., None]).max() <= 1


def test_numbers_without_a_known_range_are_refused(tmp_path):
    for values in (np.full((8, 8), 1000.0, np.float32), np.full((8, 8), -5, np.int32)):
        with pytest.raises(ValueError, match=r"image\.tiff: its pixels run from .*: expected .* save it with 8 bits"):
            read(Image.fromarray(values), tmp_path, "tiff")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode, tmp_path):
    image = Image.fromarray(np.full((8, 8, 4), 7, np.uint8))
    image.putalpha(Image.fromarray(np.repeat([0, 255], 4)[None].repeat(8, 0).astype(np.uint8)))
    found = read(image.convert(mode) if mode != "P" else image.quantize(4), tmp_path)
    assert found[:, :4].min() == 255
    assert found[:, 4:].max() <= 8


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        vpkit.load_dataset(f"folder:{tmp_path / 'none'}", "train")
    with pytest.raises(ValueError, match="has no images"):
        vpkit.load_dataset(f"folder:{tmp_path}", "train")
    fill(tmp_path / "one", 5, names=("cat",))
    with pytest.raises(ValueError, match=r"has one class \(cat\): a classifier needs at least two"):
        vpkit.load_dataset(f"folder:{tmp_path / 'one'}", "train")
    (tmp_path / "one" / "dog").mkdir()
    with pytest.raises(ValueError, match="has no image of: dog"):
        vpkit.load_dataset(f"folder:{tmp_path / 'one'}", "train")
    fill(tmp_path / "half" / "train", 3)
    with pytest.raises(ValueError, match="has train only: expected train and test"):
        vpkit.load_dataset(f"folder:{tmp_path / 'half'}", "train")
    fill(tmp_path / "half" / "test", 3, names=("cat", "cow"))
    with pytest.raises(ValueError, match="train and test differ in the classes big dog, cow"):
        vpkit.load_dataset(f"folder:{tmp_path / 'half'}", "train")


def test_unreadable_files_are_named(tmp_path):
    fill(tmp_path, 10)
    for i in range(10):
        (tmp_path / "cat" / f"{i:03}.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(ValueError, match=r"images cannot be decoded:\n.*cat/00\d\.png: not a readable image"):
        vpkit.load_dataset(f"folder:{tmp_path}", "train", size=4)
