"""A first job file, for a corpus that nobody has described yet."""

from typing import Annotated

import typer


def init(
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="Labelled texts: file, folder or glob.")
    ],
    output: Annotated[
        str | None, typer.Option(metavar="JOB.yaml", help="A new file. Default: NAME.yaml.")
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the text.")] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the label.")
    ] = None,
    id: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the row's name, if any.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The database's. Default: after the input.")
    ] = None,
    store: Annotated[
        str, typer.Option(metavar="URI", help="Where databases will lie.")
    ] = "./store",
    model: Annotated[
        str, typer.Option(metavar="NAME", help="A sentence encoder: hub name or local folder.")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
) -> None:
    """Look at labelled texts and write a commented job file for them; prints what to do next."""
    from flows.cli.first_job import write_first_job

    write_first_job(input, output, text, label, id, name, store, model)
