"""Options of the commands, and the codes with which they end."""

from pathlib import Path
from typing import Annotated

import typer

from storage.alias_names import DEFAULT_ALIAS

BROKEN = 1
BAD_INPUT = 2
INTERRUPTED = 130
NOBODY_READS = 141
"""The code that a shell reports for a program that a closed pipe has stopped."""

JobFile = Annotated[str, typer.Argument(metavar="JOB.yaml", help="The job file.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The database's name.")]
NameAt = Annotated[
    str,
    typer.Argument(metavar="NAME[@VERSION]", help="The database, and a version or alias of it."),
]
Store = Annotated[
    str, typer.Option(envvar="RAEE_STORE", help="Where databases lie: a folder or a URI.")
]
Credentials = Annotated[
    str | None,
    typer.Option(
        metavar="BLOCK", help="An AWS Credentials block that reaches the store, as a job names it."
    ),
]
Input = Annotated[str, typer.Option(metavar="URI", help="File, folder or glob.")]
Version = Annotated[
    str | None,
    typer.Option(
        metavar="ID|ALIAS",
        help=f"Default: what the alias `{DEFAULT_ALIAS}` points at, or the newest version.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PolicyName = Annotated[str | None, typer.Option(metavar="NAME", help="Default: the job's policy.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there, too.")
]
Alias = Annotated[str, typer.Option(help="The alias.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Delete nothing; say what would go.")]
Days = Annotated[
    int,
    typer.Option(
        min=0,
        max=36_500,
        metavar="DAYS",
        help="How long a dead build's leftovers stay; 0 is safe only while no build runs.",
    ),
]
IfCurrent = Annotated[
    str | None,
    typer.Option(
        metavar="VERSION",
        help="Only if the alias points at this id now; an empty one: only if it is not set.",
    ),
]
