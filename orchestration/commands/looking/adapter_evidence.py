"""Is an adapter in a checkpoint? Its own tensors are asked, first byte by byte, then by weight."""

from dataclasses import replace
from typing import TYPE_CHECKING

from merge_ops.checkpoints import Checkpoint
from merge_ops.errors import CheckpointError
from merge_ops.stream import StreamSettings
from orchestration.commands.console import PlainConsole, print_json, say
from orchestration.commands.looking.compared_models import open_compared

if TYPE_CHECKING:
    from merge_ops.provenance.inspecting import CandidateEvidence

COMMAND = "ronghe verify-merge"


def show_adapter_evidence(
    checkpoint: Checkpoint,
    base: str,
    adapter: str,
    settings: StreamSettings,
    as_json: bool,
    follow_links: bool = False,
) -> bool:
    """Print whether `base+adapter` is in a checkpoint, and return it.

    Only tensors that the adapter changes are asked. Raises CheckpointError for an adapter that
    changes nothing, and what opening models raises.
    """
    from merge_ops.provenance.comparing import compare_checkpoints
    from merge_ops.provenance.inspecting import inspect_suspect

    both = f"{base}+{adapter}"
    opened = open_compared(COMMAND, [base, both], follow_links)
    with_it, without = opened[both], opened[base]
    changed = set(with_it.overlays)
    if not changed:
        raise CheckpointError(f"adapter '{adapter}' changes no tensor of '{base}'")
    limited = [
        replace(each, tensors={name: e for name, e in each.tensors.items() if name in changed})
        for each in (without, with_it, checkpoint)
    ]
    difference = compare_checkpoints(limited[1], limited[2], settings=settings)
    found = inspect_suspect(limited[2], [limited[1]], limited[0], settings)
    evidence = found.candidates[0]
    exact = difference.same_tensors
    if as_json:
        document = {"fused_exactly": exact, "tensors": len(changed), **found.to_json()}
        print_json(document)
    else:
        _print(checkpoint, adapter, exact, len(changed), evidence)
    return exact or evidence.answer == "in it"


def _print(
    checkpoint: Checkpoint, adapter: str, exact: bool, count: int, evidence: "CandidateEvidence"
) -> None:
    console = PlainConsole()
    if exact:
        say(console, f"{adapter} is in {checkpoint.name}: its {count} tensors have the very values")
    else:
        say(console, f"{adapter}: {evidence.answer} ({evidence.why}), over its {count} tensors")
    say(
        console,
        f"weight {evidence.plain_weight:.4f} by least squares"
        f" ({evidence.plain_low:.4f} … {evidence.plain_high:.4f}), by matrix {evidence.weight:.4f}",
    )
