"""The command `vpkit`: fit a classifier to a folder of images, ask it, report on it. A thin layer over chapter 9."""

import json
import sys
from collections.abc import Iterable
from contextlib import contextmanager, redirect_stdout
from glob import glob
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Classify your own images with a frozen model: by a visual prompt, pixels that are learned around or on the "
    "image, or by what is simpler, if that is not worse.\n\nFirst `vpkit fit FOLDER`, then `vpkit predict` and "
    "`vpkit report` with the file it wrote. Chapter 9 of the book shows the same in Python.",
)
PromptFile = Annotated[Path, typer.Argument(help="A file that `vpkit fit` wrote.", show_default=False)]
DeviceName = Annotated[str | None, typer.Option(help="cpu, cuda or mps; default: a GPU if there is one.")]
USUAL_MAPPING = "ILM soft + Hungarian"


@contextmanager
def errors_told():
    """Report user errors in one line, without a traceback."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        typer.secho(f"vpkit: {error}", err=True, fg="red")
        raise typer.Exit(1) from error


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"vpkit {version('vpkit')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    pass


def options_of(methods: Iterable[str], mapping: str, prompt: str) -> list[dict]:
    """What `fit_task` is given for each method that `--method` names, the simplest first.

    Raises:
        ValueError: an unknown method.
    """
    from vpkit.tasks.task import METHODS

    methods = list(methods)
    if unknown := [method for method in methods if method not in METHODS]:
        raise ValueError(f"unknown method {unknown[0]!r}: expected some of {', '.join(METHODS)}")
    ordered = sorted(dict.fromkeys(methods), key=METHODS.index)
    return [{"method": method, "mapping": mapping, "prompt": prompt} for method in ordered]


@app.command()
def fit(
    folder: Annotated[
        Path, typer.Argument(help="FOLDER/<class>/*.jpg, or FOLDER/{train,val,test}/<class>/*.jpg", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Where the result goes; a card for people lands beside it.")] = Path(
        "prompt.safetensors"
    ),
    model: Annotated[
        str, typer.Option(help="A frozen model: efficientnet_lite0, tiny and tiny-vit come along, others need weights.")
    ] = "efficientnet_lite0",
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Try this; may be given several times: unprompted, GDA, linear probe, prompt; "
            "on a CLIP also zero-shot, CoOp, LoGoPrompt, DPT."
        ),
    ] = None,
    mapping: Annotated[str, typer.Option(help="Of the prompt: FLM, ILM, BLM+, ...")] = USUAL_MAPPING,
    prompt: Annotated[str, typer.Option(help="border (the image shrinks) or frame (it keeps its size).")] = "border",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images, for the prompt.")] = 8,
    lr: Annotated[float, typer.Option(min=1e-9, help="Learning rate of the prompt.")] = 0.05,
    canvas: Annotated[int | None, typer.Option(min=8, help="Side of the model's input in pixels.")] = None,
    quick: Annotated[bool, typer.Option(help="Try only what takes seconds: no prompt is trained.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Decides validation, batches and the start of the prompt.")] = 0,
    device: DeviceName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Try several methods on the images in FOLDER and keep the simplest that is not worse on validation.

    Without splits of your own, about 72 % of each class are trained on, 8 % choose, 20 % are left for `vpkit report`.
    The test images are not looked at here. What is interrupted goes on when the same command is given again; Ctrl-C
    keeps what is finished.
    """
    from vpkit.datasets import load_dataset
    from vpkit.devices import choose_device
    from vpkit.files import check_writable
    from vpkit.models.clip import CLIP_MODELS
    from vpkit.tasks.files import folder_state, save_task
    from vpkit.tasks.task import choose, digests_of, fingerprint, fit_task, named, reading_size, table_of_tasks

    with errors_told():
        if out.suffix != ".safetensors":
            raise ValueError(f"--out {out}: expected a file name ending in .safetensors")
        check_writable(out.absolute().parent)
        usual = ["zero-shot" if model in CLIP_MODELS else "unprompted", "GDA", "linear probe"]
        options = options_of(method or (usual if quick else [*usual, "prompt"]), mapping, prompt)
        where, size = choose_device(device), reading_size(model, canvas)
        train, val = (load_dataset(f"folder:{folder}", split, size=size, seed=seed) for split in ("train", "val"))
        shared: dict[str, Any] = {"model": model, "canvas_size": canvas, "epochs": epochs, "lr": lr, "seed": seed}
        tasks, kept, seen = [], [], digests_of(train, val)
        try:
            for number, option in enumerate(options, 1):
                typer.echo(f"[{number}/{len(options)}] {named(option)}", err=True)
                run = fingerprint(shared | option, seen)
                kept.append(out.with_name(f".{out.stem}.{run}.safetensors"))
                with redirect_stdout(sys.stderr if as_json else sys.stdout):
                    tasks.append(fit_task(train, val, **shared, **option, device=where, checkpoint=kept[-1]))
        except KeyboardInterrupt:
            if not tasks:
                typer.echo("interrupted: nothing is finished; the same command goes on where this stopped", err=True)
                raise typer.Exit(130) from None
            typer.echo(f"interrupted: going on with {', '.join(task.name for task in tasks)}", err=True)
        task, tried = choose(tasks, len(val), within_error=True), table_of_tasks(tasks, len(val))
        about = {"folder": str(folder.absolute()), "seed": seed, "tried": tried.to_dict("records")}
        save_task(out, task, **about, files=folder_state(folder))
        if len(tasks) == len(options):
            for path in kept:
                path.unlink(missing_ok=True)
    if as_json:
        typer.echo(json.dumps(about | {"recommended": task.name, "n_val": len(val), "out": str(out)}, indent=1))
        return
    percent = "{:.1%}".format
    typer.echo(
        tried.to_string(
            index=False,
            formatters=dict.fromkeys(("val_accuracy", "low", "high"), percent)
            | {"learned": "{:,}".format, "seconds": "{:.1f}".format},
        )
    )
    chance = train.labels.bincount().max().item() / len(train)
    typer.echo(f"\n{len(val)} validation images; always naming the most frequent class: {chance:.1%}")
    typer.echo(f"recommended: {task.name}, the simplest within a standard error of the best")
    typer.echo(f"written: {out} and {out.with_suffix('.json')}\nnext: vpkit report {out}")


def _expanded(given: Path) -> list[Path]:
    """The files that a path stands for: those of a folder, those of a pattern, or itself."""
    from vpkit.datasets.folder import image_files

    if given.is_dir():
        return image_files(given)[0]
    found = [] if given.exists() else [Path(name) for name in sorted(glob(str(given)))]
    return found or [given]


@app.command()
def predict(
    prompt: PromptFile,
    images: Annotated[
        list[Path], typer.Argument(help="Image files, folders of them, or patterns.", show_default=False)
    ],
    csv: Annotated[Path | None, typer.Option(help="Write every class's probability there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every class's probability as JSON.")] = False,
    device: DeviceName = None,
) -> None:
    """Name the class of each image, with its probability. One that cannot be read is named, and the rest go on."""
    import pandas as pd

    from vpkit.devices import choose_device
    from vpkit.tasks.files import load_task
    from vpkit.tasks.task import predict_images

    with errors_told():
        task, _ = load_task(prompt, choose_device(device))
        paths = [path for given in images for path in _expanded(given)]
        if not paths:
            raise ValueError(f"there are no images in {', '.join(map(str, images))}")
        found = predict_images(task, paths)
        each = pd.DataFrame(found.attrs["probabilities"], columns=list(task.class_names))
        if csv is not None:
            pd.concat([found, each], axis=1).to_csv(csv, index=False)
    if as_json:
        rows = found.astype(object).where(found.notna(), None).to_dict("records")
        classes = each.astype(object).where(each.notna(), None).to_dict("records")
        typer.echo(json.dumps([row | {"probabilities": p} for row, p in zip(rows, classes, strict=True)], indent=1))
    else:
        for row in found.itertuples():
            known = f"{row.probability:6.1%}  {row.predicted:<24} {row.image}"
            typer.echo(f"   -    {row.error}" if row.error else known)
    if (found.error != "").any():
        typer.secho(f"{(found.error != '').sum()} of {len(found)} files could not be read", err=True, fg="red")
        raise typer.Exit(1)


@app.command()
def report(
    prompt: PromptFile,
    folder: Annotated[Path | None, typer.Option(help="The images, if they have moved since `vpkit fit`.")] = None,
    out: Annotated[Path, typer.Option(help="The HTML file; it needs no other file.")] = Path("report.html"),
    device: DeviceName = None,
) -> None:
    """Test on the images kept back, and write one HTML file about it. Images that were trained on are left out."""
    from vpkit.datasets import load_dataset
    from vpkit.devices import choose_device
    from vpkit.files import check_writable
    from vpkit.tasks.files import changes_since, folder_state, load_task
    from vpkit.tasks.report import write_report

    with errors_told():
        check_writable(out.absolute().parent)
        task, card = load_task(prompt, choose_device(device))
        if not task.trained_on:
            raise ValueError(
                f"{prompt} does not say which images it was trained on (vpkit 0.1 wrote it), so none can be said to be "
                "new: run vpkit fit again"
            )
        where = folder or Path(card["folder"])
        size, seed = task.settings["read_size"], card.get("seed", 0)
        test = load_dataset(f"folder:{where}", "test", size=size, seed=seed)
        note = changes_since(card.get("files", {}), folder_state(where))
        write_report(out, task, test, card | {"notes": [note] if note else []})
    if note:
        typer.echo(note, err=True)
    typer.echo(f"written: {out}")


@app.command()
def serve(
    prompt: PromptFile,
    host: Annotated[str, typer.Option(help="Where to listen; other than this machine's own, with a token only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="VPKIT_TOKEN", help="What requests must send: Authorization: Bearer TOKEN.")
    ] = None,
    most_bytes: Annotated[int, typer.Option(min=1, help="Of a request.")] = 10_000_000,
    device: DeviceName = None,
) -> None:
    """Answer over HTTP: POST /predict with an image, GET /health; a description and a form to try at /docs."""
    from vpkit.devices import choose_device
    from vpkit.tasks.files import load_task
    from vpkit.tasks.serve import check_exposed, service

    with errors_told():
        check_exposed(host, token)
        task, _ = load_task(prompt, choose_device(device))
        app = service(task, token, most_bytes)
        import uvicorn  # there, if FastAPI is: both come with vpkit[serve]
    uvicorn.run(app, host=host, port=port, log_level="info")


@app.command()
def cache(
    limit: Annotated[
        str | None, typer.Option(help="Remove what was used longest ago, until at most so much is left: 20GB, 0.")
    ] = None,
) -> None:
    """Say how large the cache of decoded images is, or make it smaller. VPKIT_CACHE_LIMIT does so by itself."""
    from vpkit.datasets.cache import cache_files, parse_size, prune
    from vpkit.files import cache_folder

    with errors_told():
        removed = prune(parse_size(limit)) if limit is not None else []
    for path in removed:
        typer.echo(f"removed {path.name}")
    files = cache_files()
    size = sum(path.stat().st_size for path in files)
    typer.echo(f"{len(files)} files, {size / 1e9:.2f} GB, in {cache_folder() / 'datasets'}")


@app.command()
def export(
    prompt: PromptFile,
    out: Annotated[Path, typer.Argument(help="The file to write, ending in .onnx.", show_default=False)],
) -> None:
    """Write prompt, model and mapping as one ONNX graph, for programs without PyTorch."""
    from vpkit.files import check_writable
    from vpkit.tasks.export import export_onnx
    from vpkit.tasks.files import load_task

    with errors_told():
        check_writable(out.absolute().parent)
        task, _ = load_task(prompt)
        export_onnx(out, task)
    side = task.settings["image_size"]
    typer.echo(f"written: {out}; images (B, 3, {side}, {side}) in [0, 1] to probabilities (B, {len(task.class_names)})")


if __name__ == "__main__":
    sys.exit(app())
