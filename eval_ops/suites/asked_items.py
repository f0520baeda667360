"""What one checkpoint was asked so far, item by item, when not all items are asked at once."""

from collections.abc import Mapping, Sequence

from eval_ops.scores import Sample, Score, SuiteScores, summarize


class AskedItems:
    """Holds the samples of one checkpoint by benchmark and place."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[int, list[Sample]]] = {}
        self._rated: dict[str, Score] = {}
        self._scores: SuiteScores | None = None

    def missing(
        self, items: Mapping[str, Sequence[int]], sizes: Mapping[str, int]
    ) -> dict[str, list[int]]:
        """Return, of each benchmark, the places among `items` that were not asked, in order.

        `sizes` says how many items each benchmark has. Raises ValueError for a place or a benchmark
        that is not there, and where nothing is asked.
        """
        for name, places in items.items():
            if name not in sizes:
                raise ValueError(f"the suite has no benchmark '{name}', but {', '.join(sizes)}")
            stray = [place for place in places if not 0 <= place < sizes[name]]
            if stray:
                raise ValueError(
                    f"benchmark '{name}' has {sizes[name]} items; there is none at place {stray[0]}"
                )
        if not any(items.values()):
            raise ValueError("no items are asked; name some of at least one benchmark")
        known = {name: self._samples.get(name, {}) for name in items}
        left = {name: sorted(set(places) - set(known[name])) for name, places in items.items()}
        return {name: places for name, places in left.items() if places}

    def add(self, items: Mapping[str, Sequence[int]], scores: SuiteScores) -> None:
        """Take the scores of exactly `items`; an item may have several samples, turn by turn."""
        self._scores = scores
        for name, places in items.items():
            samples = [sample for sample in scores.samples if sample.benchmark == name]
            held = self._samples.setdefault(name, {})
            for number, place in enumerate(places):
                held[place] = samples[number :: len(places)]
            rated = next((score for score in scores.scores if score.benchmark == name), None)
            if rated is not None:
                self._rated[name] = rated

    def scores(self, items: Mapping[str, Sequence[int]]) -> SuiteScores:
        """Return the scores of `items`, all of which were asked: samples in order of place."""
        assert self._scores is not None
        samples: list[Sample] = []
        scores: list[Score] = []
        for name, held in self._samples.items():
            chosen = [s for place in sorted(set(items.get(name, ()))) for s in held[place]]
            samples += chosen
            if chosen and name in self._rated:
                scores += summarize(chosen, self._rated[name].metric, self._rated[name].version)
        return SuiteScores(
            suite=self._scores.suite,
            suite_digest=self._scores.suite_digest,
            scores=tuple(scores),
            samples=tuple(samples),
            versions=self._scores.versions,
        )
