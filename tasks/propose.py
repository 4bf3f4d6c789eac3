"""Which columns of a corpus are its texts, its labels and its ids, by what they hold.

No task: `raee init` asks it before there is a job.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from raee.errors import InputError, cut, listed
from storage.columns import Column, Look, Usable
from storage.corpus import CorpusSpec
from storage.values import Role
from tasks.job import Job

_FEW = 10
"""Rows that a label has on average, at least: with fewer the column is probably none of labels."""

_MOST_REJECTED = Job.model_fields["max_reject_fraction"].default

_CLEARLY = 2
"""So many times longer than the next column's are the texts of one that needs no question."""

_MOSTLY = 0.5
"""Share of a column's values from which they count as strings, words or numbers."""


@dataclass(frozen=True)
class Proposal:
    """The columns that may have a role."""

    role: Role
    candidates: tuple[Column, ...]
    """The best first; empty if none looks like it."""
    is_clear: bool
    """Whether the first one is the only sensible choice."""

    @property
    def reason(self) -> str:
        """Why it is the first one, in one line."""
        column = self.candidates[0]
        is_by_name = len(self.candidates) > 1 and _is_named(column, self.role)
        why = "its name says so" if is_by_name else _REASONS[self.role]
        if self.role == "id":
            why += "; texts to classify need it, too"
        return f"{self.role} column {cut(repr(column.name))}: {why} ({seen(column)})"


AS_UTF_8 = (
    "save the file as UTF-8 (Excel: `CSV UTF-8`), or write the job by hand with corpus.encoding, "
    "such as cp1252"
)
"""What to do about a file in an encoding that a look does not see."""

_REASONS: dict[Role, str] = {
    "text": "its values vary and are the longest",
    "label": "it has few different values, which repeat",
    "id": "every row has a value of its own",
}


def propose_text(look: Look) -> Proposal:
    """The columns that may be the text: strings that vary, the longest first."""
    varied = [
        column
        for column in look.columns
        if column.values > look.rows * _MOSTLY
        and column.different > column.values * _MOSTLY
        and column.strings > _MOSTLY
        and column.numbers < _MOSTLY
    ]
    # An address or a hash may be longer than the text, and has no words.
    found = [column for column in varied if column.words > _MOSTLY] or varied
    found.sort(key=lambda column: (not _is_named(column, "text"), -column.mean_characters))
    long = found[0].mean_characters / _CLEARLY if found else 0.0
    rivals = [column for column in found if column.mean_characters > long]
    return _proposal("text", rivals)


def propose_label(look: Look, text: str) -> Proposal:
    """The columns that may be the label: few values, not all the same, no dates; fewest first."""
    found = [
        column
        for column in look.columns
        if column.name != text
        and column.values > look.rows * _MOSTLY
        and column.times < _MOSTLY
        and 2 <= column.different <= column.values / 2
    ]
    few = [column for column in found if column.different <= column.values / _FEW] or found
    few.sort(key=lambda column: (not _is_named(column, "label"), column.different))
    return _proposal("label", few)


def propose_id(look: Look, text: str, label: str) -> Proposal:
    """The columns that may be the id: every row has its own; no words, fractions or dates."""
    found = [
        column
        for column in look.columns
        if column.name not in (text, label, "")
        and column.different == column.values == look.rows > 1
        and column.words < _MOSTLY
        and column.times < _MOSTLY
        and (column.numbers == 0 or column.whole == 1)
    ]
    found.sort(key=lambda column: not _is_named(column, "id"))
    return _proposal("id", found)


def _proposal(role: Role, candidates: Sequence[Column]) -> Proposal:
    """A proposal; the only column of several that is named after the role needs no question."""
    named = [column for column in candidates if _is_named(column, role)]
    return Proposal(role, tuple(candidates), len(candidates) == 1 or len(named) == 1)


def _is_named(column: Column, role: Role) -> bool:
    name = column.name.lower()
    return name.endswith("id") if role == "id" else name == role


def seen(column: Column) -> str:
    """What a column holds, in words."""
    return (
        f"{column.different:,} different in {column.values:,} rows, "
        f"{column.mean_characters:,.0f} characters on average"
    )


def check_column(look: Look, role: Role, name: str) -> None:
    """Raises InputError if a corpus has no column of a name, or several."""
    if name in look.repeated:
        raise InputError(f"--{role} {cut(repr(name))}: several columns have this name")
    names = [column.name for column in look.columns]
    if name not in names:
        raise InputError(
            f"--{role} {cut(repr(name))}: {look.spec.uri} has no such column; it has "
            f"{listed(map(repr, names))}"
        )


def warnings(look: Look, spec: CorpusSpec, usable: Usable) -> list[str]:
    """What would bite in a build, a line each.

    spec: with the columns chosen that `usable` is of.  Raises InputError if no row could be used.
    """
    rejected, rows = usable.rejected.total(), usable.labels.total()
    reasons = ", ".join(f"{reason}: {n:,}" for reason, n in usable.rejected.most_common(5))
    is_broken = any(c.broken for c in look.columns if c.name in (spec.text, spec.label))
    if not rows:
        help = AS_UTF_8 if is_broken else "choose other columns"
        raise InputError(f"{look.spec.uri}: no row can be used ({reasons}); {help}")
    of_all = f"{look.rows:,} rows" if look.is_complete else f"the {look.rows:,} rows looked at"
    found = []
    if spec.label in usable.labels:
        found.append(
            f"the label column is called {cut(repr(spec.label))}, as one of the labels is: if the "
            "first line is a row and no header, add a header"
        )
    if look.repeated:
        found.append(f"several columns have one name: {listed(map(repr, look.repeated))}")
    if rejected:
        line = f"{rejected:,} of {of_all} cannot be used ({reasons})"
        if rejected > _MOST_REJECTED * look.rows:
            line += f"; more than max_reject_fraction {_MOST_REJECTED:g}: a build stops"
        found.append(f"{line}; {AS_UTF_8}" if is_broken else line)
    columns = {column.name: column for column in look.columns}
    if columns[spec.text].numbers >= _MOSTLY:
        found.append(f"the text column {cut(repr(spec.text))} holds numbers")
    if spec.id is not None and columns[spec.id].different < columns[spec.id].values:
        found.append(f"values of the id column {cut(repr(spec.id))} repeat: a build stops")
    labels = usable.labels
    if len(labels) == 1:
        found.append(f"all of {of_all} have the label {cut(repr(*labels))}")
    elif len(labels) > rows / _FEW:
        found.append(
            f"{len(labels):,} labels in {of_all}: with fewer than {_FEW} rows a label it may be "
            "no column of labels"
        )
    single = sorted(name for name, n in labels.items() if n == 1)
    if single and look.is_complete:
        found.append(
            "labels with a single row, without which nothing can answer them: "
            f"{listed(map(repr, single))}"
        )
    return found
