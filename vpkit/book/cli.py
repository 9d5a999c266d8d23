"""The command `vpkit`, with what grids need beside what one's own pictures need."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from vpkit.tasks.cli import app, errors_told


@app.command()
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Models and data sets: resnet18 ViT-B-32 cifar10 flowers102 ...", show_default=False),
    ] = None,
    grid: Annotated[list[Path] | None, typer.Option(help="All that a grid file needs; may be given again.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Where data sets belong; default: $VPKIT_DATA, else the cache folder.")
    ] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="Say what is missing and how large it is, no more.")
    ] = False,
) -> None:
    """Download the weights and data sets that a run needs, once: chapters and sweeps then need no network.

    Sizes are told first. What was cut off goes on when the same command is given again; sums are checked. Where a file
    has to be got by hand, it is said from where and where to put it.
    """
    from vpkit.book.fetch import fetch as fetch_one
    from vpkit.book.fetch import names_in, needs_of

    with errors_told():
        wanted = list(dict.fromkeys([*(names or []), *names_in(grid or [])]))
        if not wanted:
            raise ValueError("nothing to fetch: name models and data sets, or give --grid FILE")
        needs = needs_of(wanted, root)
    for need in needs:
        typer.echo(f"{need.name:<24} {_state(need)}")
    if list_only:
        return
    failed = []
    for need in needs:
        try:
            typer.echo(fetch_one(need, root))
        except (OSError, ValueError) as error:
            failed.append(need.name)
            typer.secho(str(error), err=True, fg="red")
    if failed:
        typer.secho(f"not complete: {', '.join(failed)}; what was fetched is kept", err=True, fg="red")
        raise typer.Exit(1)


def _state(need) -> str:
    try:
        size = need.size()
        known = "size unknown" if size is None else f"{size / 1e6:,.1f} MB"
        files = f"{len(need.missing)} file{'s' * (len(need.missing) > 1)}, {known}"
    except OSError as error:
        files = str(error)
    by_hand = f"by hand: {need.by_hand}" if need.by_hand else ""
    return "; ".join(filter(None, [files if need.missing else "", by_hand])) or "is here"


if __name__ == "__main__":
    sys.exit(app())
