"""The pictures of the front page and of each chapter's opening, from stored outputs and a stored prompt."""

import base64
import json
from html import escape
from io import BytesIO
from pathlib import Path

import nbformat
import torch
import yaml
from book_tables import ROOT, parsed
from docutils import nodes
from docutils.parsers.rst import Directive
from PIL import Image

import vpkit
from vpkit.book.session import declared_values
from vpkit.prompts import PadPrompt, study_prompts

WIDTH = 560  # of a card's picture, in pixels: twice what a card is wide
CHAPTER = "01_visual_prompting"  # whose prompt the front page shows
SHOWN = 3  # a three, which the hard-coded mapping reads from the tiger shark


def figure_of(notebook, alt: str | None) -> dict[str, str]:
    """The stored figure whose alternative text begins so, or the first with a caption: its png, alt and caption.

    Raises:
        ValueError: there is none.
    """
    for cell in notebook.cells:
        shown = cell.metadata.get("mystnb", {})
        found = shown.get("image", {}).get("alt", "")
        if found.startswith(alt) if alt else "figure" in shown:
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    caption = shown.get("figure", {}).get("caption", "")
                    return {"png": "".join(output.data["image/png"].split()), "alt": found, "caption": caption}
    raise ValueError(f"no stored figure has an alternative text that begins with {alt!r}")


def chosen_figures(source: Path) -> dict[str, dict]:
    """What `chapters.yml` says of each chapter."""
    return yaml.safe_load((source / "chapters.yml").read_text(encoding="utf-8"))


def small(png: str) -> str:
    """A figure as small as a card needs it."""
    image = Image.open(BytesIO(base64.b64decode(png))).convert("RGB")
    image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    kept = BytesIO()
    image.quantize(128).save(kept, "PNG", optimize=True)
    return base64.b64encode(kept.getvalue()).decode()


class ChapterCards(Directive):
    """A card for each chapter: a figure of its own, its title, and a sentence."""

    def run(self):
        source = Path(self.state.document.settings.env.srcdir)
        lines = ["::::{grid} 1 2 2 3", ":gutter: 3", ""]
        for number, (chapter, about) in enumerate(chosen_figures(source).items(), 1):
            notebook = nbformat.read(source / "notebooks" / f"{chapter}.ipynb", as_version=4)
            figure = figure_of(notebook, about.get("card"))
            title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
            lines += [
                f":::{{grid-item-card}} {number}. {title}", f":link: notebooks/{chapter}", ":link-type: doc",
                f":img-top: data:image/png;base64,{small(figure['png'])}", f":img-alt: {figure['alt']}",
                ":class-item: vpkit-card", about["text"], ":::", "",
            ]  # fmt: skip
        return parsed(self, [*lines, "::::"])


def openings(app, docname, source):
    """Puts the figure that matters behind the first paragraph of a chapter, in the book only."""
    about = chosen_figures(Path(app.srcdir)).get(docname.removeprefix("notebooks/"), {})
    if "opens" not in about:
        return
    notebook = nbformat.reads(source[0], as_version=4)
    figure = figure_of(notebook, about["opens"])
    title, objectives, *rest = notebook.cells[0].source.split("\n\n")
    image = f"```{{image}} data:image/png;base64,{figure['png']}\n:alt: {figure['alt']}\n```"
    # no `figure`, which would be numbered: it has its number where it stands
    opening = f"::::{{div}} vpkit-opening\n{image}\n\n{figure['caption']}\n::::"
    notebook.cells[0].source = "\n\n".join([title, objectives, opening, *rest])
    source[0] = json.dumps(notebook)


def asked() -> dict:
    """A test image, the stored prompt of chapter 1, and what the model says without it and with it.

    The image is the first three of the test split that the prompt turns from a wrong answer to the right one.
    """
    cell = declared_values(nbformat.read(ROOT / "notebooks" / f"{CHAPTER}.ipynb", as_version=4))
    model = vpkit.load_frozen(cell["model"])
    blank = PadPrompt(cell["canvas_size"], cell["prompt_size"], model.std)
    prompt = study_prompts(CHAPTER, blank)[cell["dataset"]]
    test = vpkit.load_dataset(cell["dataset"], "test", size=cell["image_size"], seed=0)
    classes = len(test.class_names)  # which the mapping reads from the first so many source classes
    threes = test.select_classes(test.class_names[SHOWN])[:32]  # more than enough to find one
    images = threes.resized(cell["canvas_size"]).images.float() / 255
    with torch.no_grad():
        before, after = (model(shown)[:, :classes] for shown in (images, prompt(images)))
    turned = (before.argmax(1) != SHOWN) & (after.argmax(1) == SHOWN)
    first = int(turned.nonzero()[0])
    picture = prompt.picture().detach()
    return {
        "image": images[first],
        "prompt": (0.5 + picture).clamp(0, 1),  # zero is grey
        "prompted": (images[first] + picture).clamp(0, 1),
        "answers": [_said(logits[first], model, test) for logits in (before, after)],
        "class": test.class_names[SHOWN],
        "parameters": vpkit.count_parameters(prompt),
    }


def _said(logits, model, task) -> tuple[str, str, float]:
    """The source class of the largest of the mapped logits, the target class it stands for, and its probability."""
    best = int(logits.argmax())
    return model.class_names[best].split(", ")[0], task.class_names[best], float(logits.softmax(0)[best])


class PromptedImage(Directive):
    """Image, prompt and prompted image, and the answer before and after; the body is the caption."""

    has_content = True

    def run(self):
        found = asked()
        before, after = found["answers"]
        tiles = [
            ("image", f"A handwritten {found['class']}, enlarged", _answer("Without the prompt", *before)),
            ("prompt", "The learned prompt: a frame of coloured noise",
             f"The prompt: {found['parameters']:,} numbers, the only thing that was learned."),
            ("prompted", f"The same {found['class']} with the frame added onto it", _answer("With the prompt", *after)),
        ]  # fmt: skip
        parts = [
            f'<div class="vpkit-tile"><img src="data:image/png;base64,{_png(found[key])}" alt="{escape(alt)}"/>'
            f"<p>{said}</p></div>"
            for key, alt, said in tiles
        ]
        row = f'<span aria-hidden="true">+</span>{parts[1]}<span aria-hidden="true">=</span>'
        drawing = f'<div class="vpkit-prompting">{parts[0]}{row}{parts[2]}</div>'
        caption = nodes.container(classes=["vpkit-caption"])
        caption += parsed(self, list(self.content))
        return [nodes.raw("", drawing, format="html"), caption]


def _answer(when: str, source: str, target: str, probability: float) -> str:
    return f"{when}: <strong>{escape(source)}</strong> ({probability:.0%}), read as {escape(target)}."


def _png(image) -> str:
    """An image of 96 pixels, four times as large so that its pixels stay sharp."""
    pixels = Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy())
    kept = BytesIO()
    pixels.resize((4 * pixels.width, 4 * pixels.height), Image.Resampling.NEAREST).save(kept, "PNG", optimize=True)
    return base64.b64encode(kept.getvalue()).decode()


def setup(app):
    app.add_directive("chapter-cards", ChapterCards)
    app.add_directive("prompted-image", PromptedImage)
    app.connect("source-read", openings)
    return {"parallel_read_safe": True}
