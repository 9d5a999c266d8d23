"""The command `vpkit`: fit a prompt to a folder of images, ask it, report on it. A thin layer over chapter 8."""

from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Learn a visual prompt for your own images: the model stays frozen, only pixels around or on the image are "
    "learned.\n\nFirst `vpkit fit FOLDER`, then `vpkit predict` and `vpkit report` with the file it wrote. "
    "Chapter 8 of the book shows the same in Python.",
)
_TRIED = [{"mapping": m, "prompt": p} for m in ("ILM soft + Hungarian", "BLM+") for p in ("border", "frame")]


@contextmanager
def errors_told():
    """Report user errors in one line, without a traceback."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        typer.secho(f"vpkit: {error}", err=True, fg="red")
        raise typer.Exit(1) from error


def _device() -> str:
    import torch  # seconds to load: not for --help

    return "cuda" if torch.cuda.is_available() else "cpu"


@app.command()
def fit(
    folder: Annotated[
        Path, typer.Argument(help="FOLDER/<class>/*.jpg, or FOLDER/{train,val,test}/<class>/*.jpg", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Where the prompt goes; a card for people lands beside it.")] = Path(
        "prompt.safetensors"
    ),
    model: Annotated[
        str, typer.Option(help="A frozen model: efficientnet_lite0 comes along, others need weights.")
    ] = "efficientnet_lite0",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images, for each option tried.")] = 8,
    quick: Annotated[bool, typer.Option(help="Fit one prompt instead of choosing among four on validation.")] = False,
    seed: Annotated[int, typer.Option(help="Decides splits, batches and the start of the prompt.")] = 0,
) -> None:
    """Learn a prompt for the images in FOLDER.

    Without splits of your own, 72 % of each class are trained on, 8 % choose, 20 % are left for `vpkit report`. The
    test images are not looked at here.
    """
    from vpkit.datasets import load_dataset
    from vpkit.tasks.files import save_task
    from vpkit.tasks.task import choose_task, reading_size

    with errors_told():
        size = reading_size(model)
        train, val = (load_dataset(f"folder:{folder}", split, size=size, seed=seed) for split in ("train", "val"))
        options = _TRIED[:1] if quick else _TRIED
        task, tried = choose_task(train, val, options, model=model, epochs=epochs, seed=seed, device=_device())
        save_task(out, task, folder=str(folder.absolute()), seed=seed)
    print(tried.to_string(index=False, formatters={"val_accuracy": "{:.1%}".format}))
    print(f"\nchosen on {len(val)} validation images: {task.settings['mapping']}, {task.settings['prompt']}")
    print(f"written: {out} and {out.with_suffix('.json')}\nnext: vpkit report {out}")


@app.command()
def predict(
    prompt: Annotated[Path, typer.Argument(help="A file that `vpkit fit` wrote.", show_default=False)],
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
) -> None:
    """Name the class of each image, with its probability."""
    from vpkit.tasks.files import load_task
    from vpkit.tasks.task import predict_images

    with errors_told():
        task, _ = load_task(prompt, _device())
        found = predict_images(task, images)
    for row in found.itertuples():
        print(f"{row.probability:6.1%}  {row.predicted:<24} {row.image}")


@app.command()
def report(
    prompt: Annotated[Path, typer.Argument(help="A file that `vpkit fit` wrote.", show_default=False)],
    folder: Annotated[Path | None, typer.Option(help="The images, if they have moved since `vpkit fit`.")] = None,
    out: Annotated[Path, typer.Option(help="The HTML file; it needs no other file.")] = Path("report.html"),
) -> None:
    """Test the prompt on the images kept back, and write one HTML file about it."""
    from vpkit.datasets import load_dataset
    from vpkit.tasks.files import load_task
    from vpkit.tasks.report import write_report

    with errors_told():
        task, card = load_task(prompt, _device())
        size, seed = task.settings["read_size"], card.get("seed", 0)
        test = load_dataset(f"folder:{folder or card.get('folder')}", "test", size=size, seed=seed)
        write_report(out, task, test, card)
    print(f"written: {out}")


if __name__ == "__main__":
    app()
