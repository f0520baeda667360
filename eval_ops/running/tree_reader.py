"""Reads the tree of many token sequences with a model, and looks up what it makes of answers.

Each part of the tree is one forward pass: a mask lets each token see its ancestors alone, and
positions are counted along its own path. Logits are made where answers are predicted and nowhere
else. On CPU cores several passes run at a time (side_by_side.py).
"""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

import inspect
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from eval_ops.running.prefix_tree import (
    Branch,
    Piece,
    Row,
    Tokens,
    branches,
    common_lengths,
    row_of,
    rows_of,
    tree_size,
)
from eval_ops.running.side_by_side import in_order, sides_for

if TYPE_CHECKING:
    from torch import Tensor

Request = tuple[Any, list[int], list[int]]
"""(lm-eval's name of the request, tokens of the prompt, tokens of the answer)."""
Answer = tuple[float, bool]
"""(log-likelihood, whether every token was the likeliest)."""

PASS_TOKENS = 2048
"""The most tokens of the passes that run at a time, if of several rows: it keeps cores busy."""
LEAST_TOKENS = 512
"""A pass of so many tokens takes no row that is much shorter than its longest: padding costs."""
PASS_LOGITS = 1 << 26
"""About the most logits of the passes that run at a time (places × vocabulary)."""
SHARED_TOKENS = 4096
"""The most tokens whose keys and values are kept at a time: 224 MiB for a 7 B Qwen2 in bfloat16."""
TABLE_ROWS = 16
"""Places whose probabilities over the vocabulary are made at a time, in float32: they should stay
in a processor's cache (3 MB for 49,000 tokens; 128 places take four times as long for each)."""


def read_tokens(request: Request) -> Tokens:
    """Return the tokens that the model reads: of the answer all but the last."""
    _, prompt, answer = request
    return (*prompt, *answer[:-1])


class TreeReader:
    """Reads the tree of some requests, part by part."""

    def __init__(self, model: Any, requests: Sequence[Request], rows: int) -> None:
        self._model = model
        self._requests = requests
        self._most_answers = rows
        members: dict[Tokens, list[int]] = {}
        for index, request in enumerate(requests):
            members.setdefault(read_tokens(request), []).append(index)
        self._sequences = sorted(members)
        self._members = [members[sequence] for sequence in self._sequences]
        self._shared = common_lengths(self._sequences)
        accepted = inspect.signature(model.forward).parameters
        self._no_cache = {"use_cache": False} if "use_cache" in accepted else {}
        self._vocabulary = model.config.get_text_config().vocab_size
        self._sides = sides_for(model)
        self._chosen = threading.local()  # the places that a thread's pass makes logits of

    def answers(self) -> Iterator[tuple[list[int], list[Answer]]]:
        """Yield the numbers of some requests and their answers, until all have come."""
        with self._logits_where_chosen():
            yield from in_order(self._readings(), self._sides)

    def _readings(self) -> Iterator[Callable[[], tuple[list[int], list[Answer]]]]:
        """Yield what reads the rows of one forward pass, for one pass after the other."""
        reach = [self._reach(number) for number in range(len(self._sequences))]
        for branch in branches(self._sequences, self._shared, reach):
            trunk = self._trunk(branch)
            for rows in self._passes(branch):
                yield partial(self._read_rows, rows, trunk, branch.trunk)

    def trial(self) -> Iterator[tuple[int, float]]:
        """Yield numbers of requests and their log-likelihoods, all in one row, then with trunks."""
        ends = range(1, len(self._sequences) + 1)
        alone = [
            Piece(end - 1, end, start, len(self._sequences[end - 1]) - start)
            for end in ends
            for start in (0, self._reach(end - 1))
        ]
        plans = [(0, alone[::2]), *((piece.start, [piece]) for piece in alone[1::2])]
        if len(self._sequences) > 1:
            shared = [Piece(0, len(ends), 0, tree_size(self._sequences, self._shared))]
            plans.append((0, shared))
        with self._logits_where_chosen():
            for trunk, pieces in plans:
                branch = Branch(pieces[0].first, trunk, pieces)
                row = row_of(self._sequences, self._shared, pieces)
                members, answers = self._read_rows([row], self._trunk(branch), trunk)
                yield from ((i, value) for i, (value, _) in zip(members, answers, strict=True))

    def _reach(self, sequence: int) -> int:
        """Tokens of a sequence before the first that predicts an answer."""
        return min(len(self._requests[index][1]) - 1 for index in self._members[sequence])

    def _trunk(self, branch: Branch) -> Any:
        """Return the keys and values of a branch's trunk, one row; None where it has none."""
        import torch

        if not branch.trunk:
            return None
        tokens = torch.tensor([self._sequences[branch.first][: branch.trunk]])
        tokens = tokens.to(self._model.device)
        return self._model(tokens, use_cache=True, logits_to_keep=1).past_key_values

    def _passes(self, branch: Branch) -> Iterator[list[Row]]:
        """Yield the rows of one forward pass after the other, within the limits."""
        most_tokens, most_logits = PASS_TOKENS // self._sides, PASS_LOGITS // self._sides
        batch: list[Row] = []
        answers = places = 0
        for pieces in rows_of(branch.pieces):
            more_answers, more_places = self._counts(pieces)
            length = len(batch[0].tokens) if batch else 0
            n = len(batch) + 1
            fits = (
                n * length <= most_tokens
                and (len(batch) * length < LEAST_TOKENS or 8 * _size(pieces) >= 7 * length)
                and answers + more_answers <= self._most_answers
                and (places + more_places) * self._vocabulary <= most_logits
                and (not branch.trunk or n * (branch.trunk + length) <= SHARED_TOKENS)
            )
            if batch and not fits:
                yield batch
                batch, answers, places = [], 0, 0
            batch.append(row_of(self._sequences, self._shared, pieces))
            answers += more_answers
            places += more_places
        yield batch

    def _counts(self, pieces: Sequence[Piece]) -> tuple[int, int]:
        """Return how many answers the pieces hold, and at how many places at most they end."""
        members = [i for p in pieces for n in range(p.first, p.end) for i in self._members[n]]
        return len(members), sum(len(self._requests[index][2]) for index in members)

    def _read_rows(
        self, rows: Sequence[Row], trunk: Any, start: int
    ) -> tuple[list[int], list[Answer]]:
        """Answer the requests of some rows, which continue `start` tokens of `trunk`.

        Inputs are [rows, longest row], padded on the right; a place of the padding sees itself.
        """
        longest = max(len(row.tokens) for row in rows)
        tokens = np.zeros((len(rows), longest), np.int64)
        depths = np.zeros((len(rows), longest), np.int64)
        sees = np.zeros((len(rows), 1, longest, start + longest), bool)
        sees[:, :, range(longest), range(start, start + longest)] = True
        members: list[int] = []
        wanted: list[np.ndarray] = []
        for number, row in enumerate(rows):
            n = len(row.tokens)
            tokens[number, :n], depths[number, :n] = row.tokens, row.depths
            sees[number, 0, :n, :start] = True
            sees[number, 0, :n, start : start + n] = row.sees
            for sequence, path in row.paths:
                for index in self._members[sequence]:
                    members.append(index)
                    wanted.append(number * longest + path[-len(self._requests[index][2]) :])
        places, order = np.unique(np.concatenate(wanted), return_inverse=True)
        logits = self._logits(tokens, depths, sees, places, trunk)
        targets = [token for index in members for token in self._requests[index][2]]
        values, likely = look_up(logits, order, np.array(targets))
        ends = np.cumsum([len(part) for part in wanted])[:-1]
        return members, [
            (float(value.sum()), bool(best.all()))
            for value, best in zip(np.split(values, ends), np.split(likely, ends), strict=True)
        ]

    def _logits(
        self, tokens: Any, depths: Any, sees: Any, places: np.ndarray, trunk: Any
    ) -> "Tensor":
        """Return the logits [places, vocabulary] at `places` of the flattened rows."""
        import torch

        device, dtype = self._model.device, self._model.dtype
        mask = torch.zeros(sees.shape, dtype=dtype, device=device)
        mask.masked_fill_(~torch.from_numpy(sees).to(device), torch.finfo(dtype).min)
        settings = dict(self._no_cache)
        if trunk is not None:
            settings = {"use_cache": True, "past_key_values": _rows_of_cache(trunk, len(tokens))}
        self._chosen.places = torch.from_numpy(places).to(device)
        try:
            logits = self._model(
                torch.from_numpy(tokens).to(device),
                attention_mask=mask,
                position_ids=torch.from_numpy(depths).to(device),
                **settings,
            ).logits
        finally:
            self._chosen.places = None
        return logits[0]

    @contextmanager
    def _logits_where_chosen(self) -> Generator[None]:
        """Have the head multiply the chosen places alone: [1, places, hidden] of all rows'."""

        def choose(_: Any, given: tuple["Tensor", ...]) -> tuple["Tensor", ...] | None:
            places = getattr(self._chosen, "places", None)
            if places is None:
                return None
            return (given[0].flatten(0, 1)[places].unsqueeze(0), *given[1:])

        hook = self._model.get_output_embeddings().register_forward_pre_hook(choose)
        try:
            yield
        finally:
            hook.remove()


def _size(pieces: Sequence[Piece]) -> int:
    return sum(piece.size for piece in pieces)


def _rows_of_cache(trunk: Any, rows: int) -> Any:
    """Return a cache of so many rows that all begin as the one row of `trunk` does."""
    from transformers.cache_utils import DynamicCache

    return DynamicCache(
        [
            (layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1))
            for layer in trunk.layers
        ]
    )


def look_up(
    logits: "Tensor", places: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities [targets], and whether each target is the likeliest of its place.

    `logits` are [places, vocabulary]; target t stands at place `places[t]`.
    """
    import torch

    order = np.argsort(places, kind="stable")  # the targets of a place side by side
    rows = torch.from_numpy(places[order]).to(logits.device)
    columns = torch.from_numpy(targets[order]).to(logits.device)
    cuts = np.searchsorted(places[order], np.arange(0, len(logits) + TABLE_ROWS, TABLE_ROWS))
    parts: list[Tensor] = []
    for number, part in enumerate(logits.split(TABLE_ROWS)):
        here = slice(cuts[number], cuts[number + 1])
        row, column = rows[here] - number * TABLE_ROWS, columns[here]
        table = part.log_softmax(dim=-1, dtype=torch.float32)
        best = table.argmax(dim=-1)[row] == column
        parts.append(torch.stack([table[row, column], best.float()]))
    found = torch.cat(parts, dim=1).cpu().numpy()
    values, likely = np.zeros(len(targets), np.float32), np.zeros(len(targets), bool)
    values[order], likely[order] = found[0], found[1] > 0
    return values, likely
