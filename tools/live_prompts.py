"""What the page *Try it* needs of the chapters' own runs: the prompts they learned, from what training keeps.

A run is a folder with the states of `vpkit.training.checkpoint`, which a chapter writes where `$VPKIT_CHECKPOINTS`
says, and one with its results. `make book` and `make notebooks` leave both; what is missing is run here.
"""

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from side_by_side import Job, run_all

from vpkit.book.session import declared_values
from vpkit.datasets import icon_pairs
from vpkit.files import read_safetensors
from vpkit.methods import DualPromptClassifier
from vpkit.methods.sides import classifier_for
from vpkit.models import FrozenCLIP, load_clip
from vpkit.prompts import ExpandPrompt, PadPrompt, PatchPrompt

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"


@dataclass(frozen=True)
class Run:
    """A chapter's run, and which of its states are used.

    Attributes:
        states: names of methods, as the chapter gives them to `fit`.
        parameters: papermill's, if it is not the run at the defaults.
    """

    chapter: str
    states: tuple[str, ...]
    parameters: dict = field(default_factory=dict)


# Chapter 3 learns icons by default. On digits it is run as its study has it, on as many images: fewer are too few.
DIGITS = {
    "dataset": "mnist5k", "image_size": 48, "canvas_size": 96, "n_train": 990, "epochs": 6, "flip_images": False,
    "methods": [],
}  # fmt: skip
# The page's CLIP is `tiny`, whose file is the smaller one.
ON_TINY = {
    "dataset": "icons", "model": "tiny", "methods": ["VP+TP"], "shifted": [], "prompt_start": "normal", "lr": 3.0,
    "n_train": 396, "n_test": 264,
}  # fmt: skip
# Chapter 5 learns pictograms by default. The page's names are those of icons, and its network is `tiny`.
ICONS = {
    "dataset": "icons", "model": "tiny", "methods": [], "shifted": [], "shots": 4, "n_test": 264, "lr": 0.1,
    "weight_decay": 0.0, "epochs": 9,
    "without": ["CoOp", "CoOp, class-specific", "LoGoPrompt, shared", "Tip-Adapter", "Tip-Adapter-F"],
}  # fmt: skip
# Chapter 6 learns pictograms by default. The page's network is `tiny-vit`, its pictures show two icons.
TWO_ICONS = {
    "dataset": "icons", "model": "tiny-vit", "methods": [], "pair_methods": ["DPT"], "pairs_of": "icon_pairs",
    "shifted": [], "n_train": 1056, "n_test": 264, "lr": 0.03, "text_lr": 0.005, "guided_epochs": 1, "epochs": 3,
}  # fmt: skip
RUNS = {
    "01_visual_prompting": Run("01_visual_prompting", ("padding", "fixed_patch")),
    "03_on_digits": Run("03_ilm_vp", ("ILM",), DIGITS),
    "04_on_tiny": Run("04_clip_template_mapping", ("VP+TP",), ON_TINY),
    "05_on_icons": Run("05_logoprompt", ("LoGoPrompt",), ICONS),
    "06_on_icons": Run("06_dpt", ("DPT_pairs",), TWO_ICONS),
}


@dataclass(frozen=True)
class Found:
    """A finished run: its states by name, its results by method, and all of its parameters."""

    states: dict[str, dict[str, torch.Tensor]]
    results: dict[str, dict]
    parameters: dict


@dataclass(frozen=True)
class Place:
    """Where a run leaves its states and its results."""

    states: Path
    results: Path

    @property
    def environment(self) -> dict[str, str]:
        """What tells a chapter to leave them here."""
        return {"VPKIT_CHECKPOINTS": str(self.states), "VPKIT_RESULTS": str(self.results)}

    @property
    def finished_at(self) -> float:
        """When the last result was written; results are written after all states."""
        return max((path.stat().st_mtime for path in self.results.glob("*.json")), default=0.0)


def own_place(name: str) -> Place:
    """Of a run that is made for the page alone."""
    return Place(BUILD / "live" / "runs" / name / "checkpoints", BUILD / "live" / "runs" / name / "results")


def book_place(chapter: str) -> Place:
    """Where `make book` leaves a chapter's run at its defaults."""
    return Place(BUILD / "executed" / "checkpoints" / chapter, BUILD / "executed" / "results" / chapter)


def job_of(name: str) -> Job:
    """A run as a job, from nothing: a state that is there would be gone on with."""
    run, place = RUNS[name], own_place(name)
    shutil.rmtree(place.states.parent, ignore_errors=True)
    place.states.parent.mkdir(parents=True)
    notebook, out = ROOT / "notebooks" / f"{run.chapter}.ipynb", place.states.with_name(f"{name}.ipynb")
    return Job.of(name, notebook, out, parameters=run.parameters, environment=place.environment)


def missing_runs() -> list[str]:
    return [name for name in RUNS if _newest(name) is None]


def finished_runs(workers: int | None = None) -> dict[str, Found]:
    """Every run of `RUNS`: the newest that is there, or one made now.

    Raises:
        RuntimeError: a chapter that fails.
    """
    missing = missing_runs()
    if missing:
        print(f"the page's prompts: running {', '.join(missing)}", file=sys.stderr)
    errors = [outcome.error for outcome in run_all([job_of(name) for name in missing], workers) if outcome.error]
    if errors:
        raise RuntimeError("\n".join(errors))
    places = {name: _newest(name) for name in RUNS}
    unfinished = [name for name, place in places.items() if place is None]
    if unfinished:
        raise RuntimeError(f"{', '.join(unfinished)}: the run left no states or results where it was told to")
    return {name: _read(name, place) for name, place in places.items() if place is not None}


def _newest(name: str) -> Place | None:
    """Of the places where `make live`, `make book` and `make notebooks` leave a run, the newest that is whole."""
    run, places = RUNS[name], [own_place(name)]
    if not run.parameters:
        defaults = BUILD / "defaults"
        places += [book_place(run.chapter), Place(defaults / "checkpoints" / run.chapter, defaults / run.chapter)]
    whole = [place for place in places if _is_whole(run, place)]
    return max(whole, key=lambda place: place.finished_at, default=None)


def _is_whole(run: Run, place: Place) -> bool:
    """All states are there, results after them, and the chapter has not changed since."""
    needed = [place.states / f"{state}.safetensors" for state in run.states]
    needed.append(ROOT / "notebooks" / f"{run.chapter}.ipynb")
    return all(path.is_file() and path.stat().st_mtime <= place.finished_at for path in needed)


def _read(name: str, place: Place) -> Found:
    states = {}
    for state in RUNS[name].states:
        _, tensors = read_safetensors(place.states / f"{state}.safetensors", "checkpoint", "vpkit")
        kept = "classifier."
        states[state] = {key.removeprefix(kept): v for key, v in tensors.items() if key.startswith(kept)}
    runs = [json.loads(path.read_text()) for path in sorted(place.results.glob("*.json"))]
    notebook = json.loads((ROOT / "notebooks" / f"{RUNS[name].chapter}.ipynb").read_text(encoding="utf-8"))
    # Under nbval the results hold no parameters: nothing there tells a cell what its notebook declares.
    parameters = declared_values(notebook) | RUNS[name].parameters | runs[0]["parameters"]
    return Found(states, {run["method"]: run for run in runs}, parameters)


def pixel_prompt(state: dict, prompt: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """A pixel prompt's picture (3, H, H) and its mapping's index (T,), from the state of a `PromptedClassifier`."""
    prompt.load_state_dict({"pixels": state["prompt.pixels"]})
    return prompt.picture().detach(), state["mapping.index"]


def digit_prompts(runs: dict[str, Found], std: torch.Tensor) -> list[dict]:
    """The three prompts for digits: name, title, sides, picture, index and accuracy of each."""
    one, three = runs["01_visual_prompting"], runs["03_on_digits"]
    canvas, width = one.parameters["canvas_size"], one.parameters["prompt_size"]
    patch = one.states["fixed_patch"]["prompt.pixels"].shape[1]
    size = three.parameters["image_size"], three.parameters["canvas_size"]
    arbitrary = "Digit 0 is read from ImageNet's class 0, digit 1 from class 1, and so on."
    counted = "Each digit is read from the ImageNet class that the pictures of it were called most."
    rows = [
        ("fixed patch", "VP: a patch over the digit (chapter 1)", PatchPrompt(canvas, patch, "fixed", std), one,
         "fixed_patch", canvas, canvas, "torch", arbitrary),
        ("padding", "VP: a frame over the rim (chapter 1)", PadPrompt(canvas, width, std), one, "padding", canvas,
         canvas, "torch", arbitrary),
        ("ILM", "ILM-VP: a border around the digit (chapter 3)", ExpandPrompt(*size), three, "ILM", *size, "pillow",
         counted),
    ]  # fmt: skip
    found = []
    for name, title, prompt, run, state, image_size, canvas_size, resize, where in rows:
        picture, index = pixel_prompt(run.states[state], prompt)
        metrics = run.results[name]["metrics"]
        found.append({
            "name": name, "title": title, "image_size": image_size, "canvas_size": canvas_size, "resize": resize,
            "where": where, "accuracy": metrics["test_accuracy"], "n_test": metrics["n_test"], "picture": picture,
            "index": index,
        })  # fmt: skip
    return found


def clip_frame(run: Found, clip: FrozenCLIP) -> torch.Tensor:
    """Chapter 4's frame as what is added to a picture: (3, s, s)."""
    picture, _ = pixel_prompt(run.states["VP+TP"], PadPrompt(clip.image_size, run.parameters["prompt_size"], clip.std))
    return picture


def dual_prompt(run: Found) -> DualPromptClassifier:
    """Chapter 6's DPT for pictures of two icons, with what it learned."""
    chosen = run.parameters
    clip = load_clip(chosen["model"])
    names = icon_pairs("train", 1, clip.image_size, chosen["seed"]).images.class_names
    kept = ("template", "context_length", "num_tokens", "candidates", "alpha", "aware_blocks")
    made = classifier_for(clip, "DPT", names, **{name: chosen[name] for name in kept})
    made.load_state_dict(run.states["DPT_pairs"])
    return made.eval()
