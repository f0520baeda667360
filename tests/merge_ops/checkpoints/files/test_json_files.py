"""JSON beside the weights: read once a model, parsed once for equal bytes, bounded."""

from collections import Counter
from dataclasses import replace

import pytest

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.files.json_files import Kept
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.checkpoints.vocabulary import vocabulary
from merge_ops.errors import CheckpointError
from merge_ops.plans import side_files
from merge_ops.plans.agreement.vocabulary_agreement import equal_vocabularies
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.vocabularies.tokenizers import read_tokenizer
from tests.models import checkpoint_factory as factory

SHAPE = replace(factory.QWEN2, layers=1)
EXPERTS = 6
NAMES = [f"e{number}" for number in range(EXPERTS)]
RECIPE = "merge_method: linear\nparameters: {weight: 1}\nmodels:\n"
RECIPE += "".join(f"- model: {name}\n" for name in ("base", *NAMES))


class CountingSource(FolderSource):
    """A folder that counts how often each of its files is read, but for looks at its ends."""

    def __init__(self, folder):
        super().__init__(folder)
        self.reads = Counter()

    def read_into(self, file, offset, buffer):
        self.reads[file] += len(buffer) > side_files.ENDS
        super().read_into(file, offset, buffer)


@pytest.fixture
def models(tmp_path):
    family = factory.write_family(tmp_path, SHAPE, experts=EXPERTS)
    folders = (family.base, *family.experts)
    names = ("base", *NAMES)
    return {n: open_checkpoint(n, CountingSource(f)) for n, f in zip(names, folders, strict=True)}


def test_a_plan_reads_each_tokenizer_once_and_parses_equal_ones_once(models):
    plan_merge(parse_recipe(RECIPE, "r", "r.yaml"), models)
    for model in models.values():
        assert model.source.reads["tokenizer.json"] == 1
    found = [vocabulary(model) for model in models.values()]
    assert all(each is found[0] for each in found)
    read = [read_tokenizer(model) for model in models.values()]
    assert all(each is read[0] for each in read)


def test_other_tokens_are_another_vocabulary(models, tmp_path):
    base = models["base"]
    factory.swap_tokens(tmp_path / models["e1"].source.path.name)
    changed = open_checkpoint("e1", FolderSource(models["e1"].source.path))
    assert equal_vocabularies(base, models["e0"])
    assert not equal_vocabularies(base, changed)
    assert vocabulary(changed) is not vocabulary(base)
    assert read_tokenizer(changed).tokens != read_tokenizer(base).tokens


def test_a_file_that_is_no_json_is_refused_each_time(models):
    path = models["e0"].source.path
    (path / "tokenizer.json").write_text("{")
    broken = open_checkpoint("e0", FolderSource(path))
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"tokenizer\.json: not valid JSON"):
            broken.json_files.read("tokenizer.json")


def test_what_is_kept_is_bounded_and_the_least_used_goes_first():
    kept = Kept[str](10)
    kept.keep("a", "A", 4)
    kept.keep("b", "B", 4)
    assert kept.get("a") == "A"
    kept.keep("c", "C", 4)
    assert [kept.get(key) for key in "abc"] == ["A", None, "C"]
    assert kept.keep("d", "D", 11) == "D"
    assert kept.get("d") is None
    assert kept.get("a") == "A"
