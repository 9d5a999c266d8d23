"""Learning rates, epochs and the like of chapter 5's methods, chosen on validation images of `pictograms`.

    python tools/choose_logoprompt.py new    # prompts that must reach new classes
    python tools/choose_logoprompt.py shots  # prompts for all classes

The test split is never read. For new classes the base half is cut in two: the first 31 classes are trained, the other
30 stand for new ones; the classes that are new in the chapter are not touched. Every method of a part gets the same
number of settings. Each training adds a line to `book/logoprompt_tried.csv`.
"""

import argparse
import csv
from functools import partial
from pathlib import Path

import torch

import vpkit
from vpkit.methods import KgCoOp, LoGoPromptClassifier, NamePastedImages, TextPromptedClassifier, harmonic_mean
from vpkit.methods.logoprompt import PastedImages
from vpkit.prompts import GeneratedContext, WrittenText, coop_context

ROOT = Path(__file__).resolve().parents[1]
TRIED = ROOT / "book" / "logoprompt_tried.csv"
COLUMNS = "part method seed lr epochs extra base new H base_plain new_plain H_plain".split()
SHOTS, TEMPLATE, DECAY = 4, "a photo of a {}.", 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["new", "shots"])
    parser.add_argument("--model", default="tiny-2")
    parser.add_argument("--methods", nargs="*", help="all by default")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    args = parser.parse_args()
    clip = vpkit.load_clip(args.model)
    for seed in args.seeds:
        {"new": new_classes, "shots": few_shots}[args.part](clip, seed, args.methods)


def new_classes(clip, seed: int, wanted: list[str] | None) -> None:
    """Twelve settings each: three rates, two lengths, and two values of what a method leaves open."""
    load = partial(vpkit.load_dataset, "pictograms", size=clip.image_size, seed=seed)
    train = load("train", shots=SHOTS).base_new_split()[0].base_new_split()[0]
    val = load("val").base_new_split()[0].base_new_split()
    named = partial(NamePastedImages, clip, ratio=1 / 7, seed=seed)
    split, halves = named(train), {"base": named(val[0]), "new": named(val[1])}
    written = partial(WrittenText, clip, template=TEMPLATE)
    redrawn = Redrawn(split, clip, train)
    methods = {
        "CoOp": (plain, context, (0.0, DECAY)),  # weight decay
        "KgCoOp": (known, context, (1.0, 8.0)),  # weight of the distance to the hand-written text
        "LoGoPrompt, shared": (pasted, context, ("fixed", "redrawn")),  # place of the strip on a training image
        "LoGoPrompt, first stage": (pasted, generated, ("fixed", "redrawn")),
        "LoGoPrompt, first stage from noise": (pasted, partial(generated, residual=False), ("fixed", "redrawn")),
    }
    add("new", "zero-shot", seed, 0, 0, 0, *scores(clip, lambda names: written(names), halves, {}))
    for method, (classify, prompt, extras) in methods.items():
        if wanted and method not in wanted:
            continue
        for extra in extras:
            for lr in (0.01, 0.05, 0.25):
                for epochs in (9, 36):
                    torch.manual_seed(seed)
                    classifier = classify(clip, prompt(clip, split.class_names), extra)
                    decay = extra if method == "CoOp" else 0.0 if method == "KgCoOp" else DECAY
                    learn(classifier, redrawn if extra == "redrawn" else split, lr, epochs, decay)
                    found = scores(clip, partial(prompt, clip), halves, classifier.prompt.state_dict())
                    add("new", method, seed, lr, epochs, extra, *found)


def few_shots(clip, seed: int, wanted: list[str] | None) -> None:
    """Four settings each: two rates, two lengths."""
    load = partial(vpkit.load_dataset, "pictograms", size=clip.image_size, seed=seed)
    named = partial(NamePastedImages, clip, ratio=1 / 7, seed=seed)
    split, val = named(load("train", shots=SHOTS)), named(load("val", subset=488))
    methods = {
        "CoOp": (plain, context),
        "CoOp, class-specific": (plain, partial(context, class_specific=True)),
        "LoGoPrompt, shared": (pasted, context),
        "LoGoPrompt": (pasted, partial(context, class_specific=True)),
    }
    for method, (classify, prompt) in methods.items():
        if wanted and method not in wanted:
            continue
        for lr in (0.02, 0.2):
            for epochs in (6, 18):
                torch.manual_seed(seed)
                classifier = classify(clip, prompt(clip, split.class_names), 0)
                learn(classifier, split, lr, epochs, DECAY)
                both = [
                    vpkit.evaluate(kind(clip, classifier.prompt, 0), val.batches()).accuracy for kind in (pasted, plain)
                ]
                add("shots", method, seed, lr, epochs, 0, both[0], "", "", both[1], "", "")


class Redrawn:
    """A split whose strips lie at one of four places on each image, another one from epoch to epoch."""

    def __init__(self, split, clip, images, draws: int = 4):
        self.split, self.epoch = split, 0
        drawn = (NamePastedImages(clip, images, seed=1000 + k).pairs for k in range(draws - 1))
        self.pairs = [split.pairs, *drawn]

    def batches(self, *args, **options):
        return Again(self, self.split.batches(*args, **options))


class Again:
    def __init__(self, redrawn, batches):
        self.redrawn, self.batches = redrawn, batches

    def __len__(self):
        return len(self.batches)

    def __getattr__(self, name):
        return getattr(self.batches, name)

    def __iter__(self):
        self.redrawn.epoch += 1
        pairs = self.redrawn.pairs[self.redrawn.epoch % len(self.redrawn.pairs)]
        for images, labels in self.batches:
            yield PastedImages(images.features, images.positions, pairs), labels


def context(clip, names, class_specific=False):
    return coop_context(clip, names, class_specific=class_specific)


def generated(clip, names, residual=True):
    return GeneratedContext(context(clip, names), WrittenText(clip, names, TEMPLATE)(), residual)


def plain(clip, prompt, _):
    return TextPromptedClassifier(prompt, clip.logit_scale)


def pasted(clip, prompt, _):
    return LoGoPromptClassifier(prompt, clip.logit_scale)


def known(clip, prompt, weight):
    return KgCoOp(prompt, clip.logit_scale, WrittenText(clip, prompt.class_names, TEMPLATE)(), weight)


def learn(classifier, split, lr, epochs, decay):
    optimizer = torch.optim.SGD(classifier.parameters(), lr=lr, momentum=0.9, weight_decay=decay)
    schedule = vpkit.training.schedules.cosine
    vpkit.fit(classifier, split.batches(32, shuffle=True), None, optimizer, epochs, schedule=schedule, show=False)


def scores(clip, prompt, halves, state) -> list[float]:
    """Base, new and H with the names of the five candidates pasted, and the three without."""
    found = []
    for kind in (pasted, plain):
        right = []
        for half in halves.values():
            text = prompt(half.class_names)
            text.load_state_dict(state, strict=False)
            right.append(vpkit.evaluate(kind(clip, text, 0), half.batches()).accuracy)
        found += [*right, harmonic_mean(*right)]
    return found


def add(*row) -> None:
    new = not TRIED.exists()
    with TRIED.open("a", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        if new:
            table.writerow(COLUMNS)
        table.writerow([f"{value:.4f}" if isinstance(value, float) and value > 0.003 else value for value in row])


if __name__ == "__main__":
    main()
