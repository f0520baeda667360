"""Statistics of a mixture's moe_experts, measured in the child that runs models, and kept.

    <cache>/<key>.safetensors   statistics by what they were measured from (merge_ops.calibration)

Knows no Dagster. What is kept is checked when it is read; what is damaged is measured again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assets.work.measuring.kept_numbers import file_of, remove_oldest, unless_damaged
from assets.work.measuring.model_child import Base, Running, ask_model
from merge_ops.calibration.moe_statistics import (
    LayerStatistics,
    MoeStatistics,
    moe_key,
    read_moe_statistics,
    write_moe_statistics,
)

if TYPE_CHECKING:
    from merge_ops.progress import Progress

WAY_OUT = "Where it is out of memory: measure on a machine with more, or on shorter texts"
_MODULE = "eval_ops.running.mixtures.saliency_child"


def moe_statistics_of(
    model: Base,
    texts: Sequence[str],
    running: Running,
    progress: "Progress | None" = None,
    cache: Path | None = None,
) -> tuple[MoeStatistics, bool]:
    """Return the statistics of a mixture on texts, and whether they had been measured before.

    They are kept in `cache`, or in ~/.cache/ronghe/moe-statistics. Raises EvalError.
    """
    from eval_ops.running.mixtures.moe_saliency import check_texts, unpacked

    check_texts(texts)
    key = key_of_statistics(model, texts)
    kept = file_of("moe-statistics", key, cache)
    known = unless_damaged(lambda: read_moe_statistics(kept, key))
    if known is not None:
        return known, True

    doing = f"measures the moe_experts of {model.called}"
    asked = {"texts": list(texts)}
    answer = ask_model(_MODULE, model, asked, running, doing, WAY_OUT, progress)
    layers = {
        layer: LayerStatistics(**arrays) for layer, arrays in unpacked(answer["layers"]).items()
    }
    measured = MoeStatistics(layers, model.digest, key, int(answer["total"]), int(answer["chosen"]))
    write_moe_statistics(kept, measured)
    remove_oldest(kept.parent)
    return measured, False


def key_of_statistics(model: Base, texts: Sequence[str]) -> str:
    """Return the digest of what a mixture's statistics on texts are measured from."""
    from eval_ops.running.mixtures.gates import tokenizer_digest

    return moe_key(model.digest, tokenizer_digest(model.folder), texts)
