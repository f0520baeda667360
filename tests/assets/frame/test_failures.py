"""Which errors a step tries again."""

import dagster as dg
import pytest

from assets.frame.failures import clear_failures
from merge_ops.errors import CheckpointError
from resources.errors import (
    ArtifactReadError,
    ResourceError,
    StoreAccessError,
    StoreUnreachableError,
)


def read_checkpoint(fault: Exception) -> None:
    """As the merge library does: what a source cannot read is a fault of the checkpoint."""
    try:
        try:
            raise fault
        except (ResourceError, OSError) as error:
            raise ArtifactReadError("file 'model.safetensors', bytes 8") from error
    except OSError as error:
        raise CheckpointError("model.safetensors cannot be read") from error


def test_an_unreachable_store_is_tried_again_wherever_it_was_met() -> None:
    with pytest.raises(StoreUnreachableError, match="no answer"), clear_failures():
        raise StoreUnreachableError("no answer")
    with pytest.raises(CheckpointError, match="cannot be read"), clear_failures():
        read_checkpoint(StoreUnreachableError("no answer"))


@pytest.mark.parametrize("fault", [StoreAccessError("refused"), FileNotFoundError("gone")])
def test_what_would_fail_again_is_not_tried_again(fault: Exception) -> None:
    with pytest.raises(dg.Failure, match="cannot be read") as failure, clear_failures():
        read_checkpoint(fault)
    assert failure.value.allow_retries is False
