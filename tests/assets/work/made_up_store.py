"""A store with made-up checkpoints and scores: ranking, champions and routing without any model."""

import contextlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from assets.work import names
from assets.work.ranking.collecting import Contest, RankedRecipe
from assets.work.suite_files import load_suite
from eval_ops.scores import scores_digest
from eval_ops.scores.scores import Sample, SuiteScores, summarize
from resources.errors import ContentConflictError
from resources.store import ArtifactStore

EXPERTS = ("e1", "e2")
POINTS = {f"x={n}|e1+e2": ("e1+e2", f"x={n}") for n in range(3)}


@dataclass
class ScoredStore:
    """A store of the catalog `team`, one suite `one` with one benchmark, one recipe `ties`."""

    root: Path
    items: int = 60
    digests: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        self.store = ArtifactStore.open((self.root / "store").as_uri(), catalog="team")
        self.write_suite()
        recipe = RankedRecipe("ties", "one", False, POINTS, {"minimum_samples": 5})
        self.contest = Contest(["base"], EXPERTS, [recipe], {"one": self.root / "one.yaml"})

    @property
    def recipe(self) -> RankedRecipe:
        return self.contest.recipes[0]

    def write_suite(self, prompt: str = "question") -> None:
        """The suite's file; another `prompt` makes it another suite."""
        lines = [
            json.dumps(
                {
                    "id": f"{split}{n}",
                    "split": split,
                    "prompt": f"{prompt} {n} {split}",
                    "choices": ["red", "blue"],
                    "answer": n % 2,
                }
            )
            for split in ("validation", "test")
            for n in range(self.items)
        ]
        (self.root / "items.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        text = "name: one\nbenchmarks: [{name: b, items: items.jsonl}]\n"
        (self.root / "one.yaml").write_text(text, encoding="utf-8")

    def model(self, name: str, share: float) -> str:
        """A model with scores: so large a share of its answers is right."""
        self.store_model(name)
        return self.model_scores(name, share)

    def model_scores(self, name: str, share: float) -> str:
        """Scores of what a model's name stands for now."""
        return self._score("model", "model_scores/one", name, share, self.digests[name])

    def store_model(self, name: str, release: int = 1) -> None:
        """A model as it was pulled; another release is other content."""
        self.digests[name] = self._publish("model", f"{name} {release}")
        self.store.point("model", name, "model", self.digests[name])

    def candidate(self, partition: str, share: float, release: int = 1) -> str:
        """What `ties` made for a partition, with scores; its ref says which models went in."""
        digest = self._publish("checkpoint", f"{partition} {release}")
        models = {name: self.digests[name] for name in ("base", *EXPERTS) if name in self.digests}
        merged = names.merged_checkpoint("ties")
        return self._score(merged, names.scores("ties"), partition, share, digest, models)

    def everything(self, candidates: Mapping[str, float]) -> None:
        """Base, experts and candidates by coefficient (`x=0`), each with the share it has right."""
        for name, share in (("base", 0.3), ("e1", 0.5), ("e2", 0.45)):
            self.model(name, share)
        for coefficient, share in candidates.items():
            self.candidate(f"{coefficient}|e1+e2", share)

    def _publish(self, kind: str, content: str) -> str:
        digest = blake3(content.encode()).hexdigest()
        with self.store.attempt(kind) as attempt:
            attempt.write_bytes("config.json", json.dumps(content).encode())
            attempt.publish(digest)
        return digest

    def _score(
        self,
        named: str,
        scored: str,
        key: str,
        share: float,
        digest: str,
        models: Mapping[str, str] | None = None,
    ) -> str:
        suite = load_suite(self.root / "one.yaml")
        draw = random.Random(f"{digest} {suite.digest}")
        samples: list[Sample] = []
        for split in ("validation", "test"):
            right = [n < round(share * self.items) for n in range(self.items)]
            draw.shuffle(right)
            for n, good in enumerate(right):
                choice = n % 2 if good else 1 - n % 2
                likely = tuple(-1.0 if c == choice else -2.0 - draw.random() for c in (0, 1))
                samples.append(
                    Sample("b", split, f"{split}{n}", float(good), choice, n % 2, likely)
                )
        made = SuiteScores("one", suite.digest, summarize(samples, "acc", "1"), tuple(samples))
        of_scores = scores_digest(digest, suite.digest)
        with self.store.attempt("scores") as attempt:
            attempt.write_bytes("scores.json", made.to_json().encode())
            attempt.write_bytes("samples.parquet", made.samples_to_parquet())
            said = {"checkpoint": {"digest": digest}, "suite": {"digest": suite.digest}}
            with contextlib.suppress(ContentConflictError):
                attempt.publish(of_scores, **said)
        fields = {"models": dict(models)} if models else {}
        if named != "model":
            self.store.point(named, key, "checkpoint", digest, **fields)
        self.store.point(scored, key, "scores", of_scores)
        return digest
