"""What every refusal of bad input keeps to."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from raee.errors import InputError


@contextmanager
def refused(match: str) -> Iterator[None]:
    """An InputError whose message matches and is one line: the command line prints it as it is."""
    with pytest.raises(InputError, match=match) as caught:
        yield
    assert str(caught.value).strip()
    assert len(str(caught.value).splitlines()) == 1
