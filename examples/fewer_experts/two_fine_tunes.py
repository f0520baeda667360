"""`python -m examples.fewer_experts.two_fine_tunes DIR`: two fine-tunes of one mixture, merged.

The mixture of this example is trained further on two documents, one each, and the two are averaged
with their routers merged, the base's, and fitted on stretches of the two documents that are not
scored. For each document the loss on its other stretches is printed, how much of its fine-tune's
choice of moe_experts the merged model makes too, and how far its odds are from the fine-tune's.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.fewer_experts.__main__ import (
    CHOSEN,
    LENGTH,
    RATE,
    command,
    fit,
    stretches,
    tokenizer,
    train,
)

DOCUMENTS = {"one": "evaluation.md", "other": "decisions.md"}
UPDATES = 150
PARTS = 3
"""Of three stretches one is trained on, one fitted on, and one scored."""
TEXTS = 48  # stretches that are fitted on, and as many that are scored


def main() -> None:
    """Train two fine-tunes, merge them by each policy and print one table."""
    parser = argparse.ArgumentParser(prog="python -m examples.fewer_experts.two_fine_tunes")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    base = folder / "whole"
    if not (base / "config.json").is_file():
        train(base)
    scored: dict[str, list[str]] = {}
    for name, document in DOCUMENTS.items():
        parts = [stretches(document)[part::PARTS] for part in range(PARTS)]
        tune(base, folder / name, parts[0])
        lines = "".join(json.dumps({"text": text}) + "\n" for text in parts[1][:TEXTS])
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        scored[name] = parts[2][:TEXTS]
    wished = {name: seen(folder / name, texts) for name, texts in scored.items()}
    print("| model | loss | of the fine-tune's choice | KL of the odds, nats |")
    print("|---|---|---|---|")
    row("each fine-tune", {name: folder / name for name in DOCUMENTS}, scored, wished)
    for router in ("merge", "base", "calibrate"):
        made = merged(folder, base, router)
        row(f"`router: {router}`", dict.fromkeys(DOCUMENTS, made), scored, wished)


def tune(base: Path, folder: Path, texts: Sequence[str]) -> None:
    """Train the mixture further on texts, and write what came of it."""
    import shutil

    import torch
    from transformers import MixtralForCausalLM

    torch.manual_seed(1)
    torch.set_num_threads(1)
    model: Any = MixtralForCausalLM.from_pretrained(base)  # pyright: ignore
    fit(model, tokenizer().encode("".join(texts)).ids, UPDATES, RATE / 3)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, folder / name)


def merged(folder: Path, base: Path, router: str) -> Path:
    """Average the two with a policy for routers, and return the folder that was written."""
    document: dict[str, Any] = {
        "merge_method": "task_arithmetic",
        "base_model": str(base),
        "models": [{"model": str(folder / name)} for name in DOCUMENTS],
        "parameters": {"weight": 0.7},
        "router": router,
    }
    if router == "calibrate":
        texts = {name: str(folder / f"{name}.jsonl") for name in DOCUMENTS}
        document["texts"] = {str(folder / name): file for name, file in texts.items()}
    path, out = folder / f"by-{router}.yaml", folder / f"by-{router}"
    path.write_text(json.dumps(document))
    command(["merge", path, out, "--threads", "1", "--no-verify", "--force"])
    return out


def seen(folder: Path, texts: Sequence[str]) -> tuple[float, list[Any]]:
    """Return the mean loss on texts, and the router's logits by text and layer."""
    import torch
    from transformers import MixtralForCausalLM

    model: Any = MixtralForCausalLM.from_pretrained(folder).eval()  # pyright: ignore
    losses: list[float] = []
    routed: list[Any] = []
    with torch.inference_mode():
        for text in texts:
            tokens = torch.tensor([tokenizer().encode(text).ids[:LENGTH]])
            answer = model(input_ids=tokens, labels=tokens, output_router_logits=True)
            own = model(input_ids=tokens, labels=tokens, output_router_logits=False)
            losses.append(float(own.loss))
            routed.append(torch.stack(answer.router_logits))
    return statistics.fmean(losses), routed


def row(
    words: str,
    models: dict[str, Path],
    scored: dict[str, list[str]],
    wished: dict[str, tuple[float, list[Any]]],
) -> None:
    """Print a row of the table: for each document loss, agreement and divergence."""
    cells: list[list[str]] = [[], [], []]
    for name, texts in scored.items():
        loss, routed = seen(models[name], texts)
        chosen: list[float] = []
        apart: list[float] = []
        for own, wanted in zip(routed, wished[name][1], strict=True):
            first = own.topk(CHOSEN).indices[..., :, None]
            same = first == wanted.topk(CHOSEN).indices[..., None, :]
            chosen.append(float(same.any(-1).float().mean()))
            p, q = wanted.log_softmax(-1), own.log_softmax(-1)
            apart.append(float((p.exp() * (p - q)).sum(-1).mean()))
        cells[0].append(f"{loss:.3f}")
        cells[1].append(f"{100 * statistics.fmean(chosen):.1f} %")
        cells[2].append(f"{statistics.fmean(apart):.4f}")
    print(f"| {words} | {' | '.join(', '.join(each) for each in cells)} |", flush=True)


if __name__ == "__main__":
    main()
