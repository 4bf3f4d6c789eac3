"""What benchmarks set for their whole process is not left to the tests that run in it later."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """PyTorch's threads: sums of another number of them differ in their last bits."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
