"""Small fakes of the papers' data sets in the real on-disk formats. An image's colour tells its class."""

import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

SIDE = 6


def colour(label: int) -> tuple[int, int, int]:
    return label % 256, label // 256, 77


def write_images(paths_and_labels) -> None:
    """One PNG per class (whatever the ending: readers go by content), linked to the other paths of the class."""
    first: dict[int, Path] = {}
    for path, label in paths_and_labels:
        path.parent.mkdir(parents=True, exist_ok=True)
        if label in first:
            os.link(first[label], path)
        else:
            Image.new("RGB", (SIDE, SIDE), colour(label)).save(path, format="PNG")
            first[label] = path


def arrays(labels) -> np.ndarray:
    return np.stack([np.full((SIDE, SIDE, 3), colour(label), np.uint8) for label in labels])


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def cifar(root, monkeypatch, dataset, folder, names, key, train_files, test_files, meta):
    base = root / folder
    base.mkdir(parents=True)

    def write(files, per_class):
        labels = np.tile(np.arange(len(names)), per_class)
        for file, part in zip(files, np.array_split(labels, len(files)), strict=True):
            # 32 x 32 is fixed in the class
            data = np.repeat(arrays(part)[:, :1, :1].transpose(0, 3, 1, 2).reshape(-1, 3), 1024, axis=1)
            (base / file).write_bytes(pickle.dumps({"data": data, key: part.tolist()}))
        return [[file, md5(base / file)] for file in files]

    monkeypatch.setattr(dataset, "train_list", write(train_files, 20))
    monkeypatch.setattr(dataset, "test_list", write(test_files, 2))
    file, name_key = meta
    (base / file).write_bytes(pickle.dumps({name_key: list(names)}))
    monkeypatch.setattr(dataset, "meta", {"filename": file, "key": name_key, "md5": md5(base / file)})


def cifar10(root, monkeypatch, tv):
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    files = [f"data_batch_{i}" for i in range(1, 6)]
    meta = ("batches.meta", "label_names")
    cifar(root, monkeypatch, tv.CIFAR10, "cifar-10-batches-py", names, "labels", files, ["test_batch"], meta)


def cifar100(root, monkeypatch, tv):
    names = [f"fine_{i}" for i in range(100)]
    meta = ("meta", "fine_label_names")
    cifar(root, monkeypatch, tv.CIFAR100, "cifar-100-python", names, "fine_labels", ["train"], ["test"], meta)


def svhn(root, monkeypatch, tv):
    base = root / "svhn"
    base.mkdir()
    splits = dict(tv.SVHN.split_list)
    for split, per_class in {"train": 20, "test": 2}.items():
        labels = np.tile(np.arange(10), per_class)
        stored = np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)  # the digit 0 is stored as 10
        path = base / f"{split}_32x32.mat"
        savemat(path, {"X": arrays(labels).transpose(1, 2, 3, 0), "y": stored})
        splits[split] = [splits[split][0], path.name, md5(path)]
    monkeypatch.setattr(tv.SVHN, "split_list", splits)


def gtsrb(root, monkeypatch, tv):
    base = root / "gtsrb" / "GTSRB"
    train = [(base / "Training" / f"{c:05}" / f"{i:05}.ppm", c) for c in range(43) for i in range(12)]
    test = [(base / "Final_Test" / "Images" / f"{i:05}.ppm", i % 43) for i in range(86)]
    write_images(train)
    write_images(test)
    rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    rows += [f"{path.name};6;6;0;0;6;6;{label}" for path, label in test]
    (root / "gtsrb" / "GT-final_test.csv").write_text("\n".join(rows))


def flowers102(root, monkeypatch, tv):
    base = root / "flowers-102"
    labels = np.tile(np.arange(102), 3)
    write_images((base / "jpg" / f"image_{i:05}.jpg", label) for i, label in enumerate(labels.tolist(), 1))
    ids = np.arange(1, len(labels) + 1).reshape(3, 102)
    savemat(base / "imagelabels.mat", {"labels": labels[None] + 1})
    savemat(base / "setid.mat", {"trnid": ids[:1], "valid": ids[1:2], "tstid": ids[2:]})
    files = dict(tv.Flowers102._file_dict)
    for key, name in {"label": "imagelabels.mat", "setid": "setid.mat"}.items():
        files[key] = (name, md5(base / name))
    monkeypatch.setattr(tv.Flowers102, "_file_dict", files)


def dtd(root, monkeypatch, tv):
    base = root / "dtd" / "dtd"
    names = [f"texture_{c:02}" for c in range(47)]
    (base / "labels").mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test")):
        files = [f"{name}/{name}_{number}{i}.jpg" for name in names for i in range(2)]
        write_images((base / "images" / file, names.index(file.split("/")[0])) for file in files)
        (base / "labels" / f"{split}1.txt").write_text("\n".join(files) + "\n")


def food101(root, monkeypatch, tv):
    base = root / "food-101"
    names = [f"food_{c:03}" for c in range(101)]
    (base / "meta").mkdir(parents=True)
    for split, count in {"train": 12, "test": 2}.items():
        files = {name: [f"{name}/{split}{i}" for i in range(count)] for name in names}
        write_images((base / "images" / f"{f}.jpg", c) for c, name in enumerate(names) for f in files[name])
        (base / "meta" / f"{split}.json").write_text(json.dumps(files))


def eurosat(root, monkeypatch, tv):
    base = root / "eurosat" / "2750"
    names = sorted("AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture River SeaLake Crop Home".split())
    write_images((base / name / f"{name}_{i}.jpg", c) for c, name in enumerate(names) for i in range(10))


def oxford_pets(root, monkeypatch, tv):
    base = root / "oxford-iiit-pet"
    (base / "annotations" / "trimaps").mkdir(parents=True)
    for split, count in {"trainval": 12, "test": 2}.items():
        files = [(f"pet_{chr(97 + c // 26)}{chr(97 + c % 26)}_{split}{i}", c) for c in range(37) for i in range(count)]
        # torchvision takes the name from everything before the last underscore
        write_images((base / "images" / f"{name}.jpg", c) for name, c in files)
        (base / "annotations" / f"{split}.txt").write_text("".join(f"{name} {c + 1} 1 1\n" for name, c in files))


def stanford_cars(root, monkeypatch, tv):
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    names = [f"Make Model{c} 2012" for c in range(196)]
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(names, dtype=object)})
    places = {"train": ("cars_train", base / "devkit" / "cars_train_annos.mat", 12)}
    places["test"] = ("cars_test", base / "cars_test_annos_withlabels.mat", 2)
    for folder, mat, count in places.values():
        labels = np.tile(np.arange(196), count)
        write_images((base / folder / f"{i:05}.jpg", label) for i, label in enumerate(labels.tolist(), 1))
        kinds = [("fname", "O"), ("class", "O")]
        rows = np.array([(f"{i:05}.jpg", label + 1) for i, label in enumerate(labels.tolist(), 1)], dtype=kinds)
        savemat(mat, {"annotations": rows})


def sun397(root, monkeypatch, tv):
    base = root / "SUN397"
    names = [f"/{'abcdefgh'[c % 8]}/place_{c:03}" for c in range(397)]
    names.sort()
    write_images((base / name[1:] / f"sun_{c:03}{i}.jpg", c) for c, name in enumerate(names) for i in range(6))
    (base / "ClassName.txt").write_text("\n".join(names) + "\n")


def caltech101(root, monkeypatch, tv):
    base = root / "caltech101" / "101_ObjectCategories"
    names = sorted(
        ["Faces", "Faces_easy", "Leopards", "Motorbikes", "airplanes", *(f"thing_{c:02}" for c in range(96))]
    )
    write_images((base / name / f"image_{i:04}.jpg", c) for c, name in enumerate(names) for i in range(1, 11))
    write_images([(base / "BACKGROUND_Google" / "image_0001.jpg", 250)])  # not a class
    (root / "caltech101" / "Annotations").mkdir()


def fgvc_aircraft(root, monkeypatch, tv):
    base = root / "fgvc-aircraft-2013b" / "data"
    names = [f"Type {c:03}" for c in range(100)]
    (base / "images").mkdir(parents=True)
    (base / "variants.txt").write_text("\n".join(names) + "\n")
    for number, split in enumerate(("train", "val", "test")):
        files = [(f"{number}{c:03}{i}", c) for c in range(100) for i in range(2)]
        write_images((base / "images" / f"{name}.jpg", c) for name, c in files)
        (base / f"images_variant_{split}.txt").write_text("\n".join(f"{n} {names[c]}" for n, c in files))


def clevr_count(root, monkeypatch, tv):
    base = root / "clevr" / "CLEVR_v1.0"
    for split, count in {"train": 12, "val": 2}.items():
        files = [(f"CLEVR_{split}_{c}{i:02}.png", c) for c in range(8) for i in range(count)]
        write_images((base / "images" / split / name, c) for name, c in files)
        scenes = [{"image_filename": name, "objects": [{}] * (c + 3)} for name, c in files]
        (base / "scenes").mkdir(exist_ok=True)
        (base / "scenes" / f"CLEVR_{split}_scenes.json").write_text(json.dumps({"scenes": scenes}))


def imagenet(root, monkeypatch, tv):
    base = root / "imagenet"
    wnids = [f"n{c:08}" for c in range(1000)]
    for split, count in {"train": 10, "val": 1}.items():
        write_images((base / split / wnid / f"{i}.JPEG", c) for c, wnid in enumerate(wnids) for i in range(count))
    names = {wnid: (f"name {c}", f"synonym {c}") for c, wnid in enumerate(wnids)}
    torch.save((names, wnids), base / "meta.bin")


def coop_split(folder: Path, file_name: str, names, images_below: str) -> None:
    """A CoOp split file over images of its own: 3 train, 2 val and 1 test image a class."""
    parts, counts = {}, {"train": 3, "val": 2, "test": 1}
    for split, count in counts.items():
        parts[split] = [[f"own/{split}_{c}_{i}.jpg", c, name] for c, name in enumerate(names) for i in range(count)]
        write_images((folder / images_below / path, c) for path, c, _ in parts[split])
    (folder / file_name).write_text(json.dumps(parts))
