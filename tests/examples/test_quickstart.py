"""The quickstart: facts, items, tokenizer, training, and folders that are whole or absent."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from assets.work.suite_files import load_suite
from examples.quickstart import training, workers
from examples.quickstart.facts import HERB_CLASSES, HERB_TABLE, herb_facts, numeral
from examples.quickstart.folders import RECORD, STAGING, Record, exclusive, read_record, replaced
from examples.quickstart.items import benchmark_items, to_lines
from examples.quickstart.recipe import (
    BASE,
    Recipe,
    Schedule,
    Shape,
    all_text,
    base_rows,
    fact_rows,
    fingerprint,
)
from examples.quickstart.skills import SPLITS, Skill, quickstart_skills
from examples.quickstart.tokenizer import build_tokenizer
from examples.quickstart.train import EXPERTS, prepare
from merge_ops.kernels.cores import torch_threads
from tests.forks import FORKS
from tests.servers.waiting import HANG_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
SKILLS = quickstart_skills()
SHORT = Recipe(
    shape=Shape(hidden=32, intermediate=48, layers=1, heads=2, kv_heads=1),
    base=Schedule(steps=3, rate=3e-3, batch=8),
    experts={
        name: Schedule(steps=2, rate=2e-3, batch=8, replay=0.5, epsilon=1e-3) for name in EXPERTS
    },
)
each_skill = pytest.mark.parametrize("skill", SKILLS, ids=lambda skill: skill.expert)


def test_herb_table_is_well_formed() -> None:
    facts = herb_facts()
    names = [fact.key for fact in facts]
    assert len(facts) >= 100
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\u4e00-\u9fa5]{2,5}", name) for name in names)
    assert {fact.answer for fact in facts} == set(HERB_CLASSES)
    assert all(fact.answer not in fact.rivals for fact in facts)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("人参\t补气药", "line 2 has 2 columns; it must have three"),
        ("人参\t补气\t", "line 2: '补气' is no class of ours; it must be one of 解表药"),
        ("人参\t补气药\t补血", "line 2: '补血' is no class of ours"),
    ],
)
def test_faulty_herb_row_is_refused(tmp_path: Path, row: str, message: str) -> None:
    table = tmp_path / HERB_TABLE.name
    table.write_text(f"herb\tclass\talso\n{row}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        herb_facts(table)


def test_numerals() -> None:
    numbers = (1, 9, 10, 12, 20, 56, 81)
    assert "、".join(map(numeral, numbers)) == "一、九、十、十二、二十、五十六、八十一"


@each_skill
def test_sets_share_no_fact(skill: Skill) -> None:
    sets = [skill.shared, *(skill.own[split] for split in SPLITS)]
    keys = [{fact.key for fact in facts} for facts in sets]
    subjects = [frozenset(fact.subject) for facts in sets for fact in facts]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert len(skill.own["validation"]) >= 20
    assert len(skill.own["test"]) >= 40
    if skill.expert != "times-table":  # there 3 x 7 and 7 x 3 have one key, on purpose
        assert len(set(subjects)) == len(subjects)


@each_skill
def test_exam_wording_and_facts_are_held_out(skill: Skill) -> None:
    items = benchmark_items(skill)
    trained = {question for other in SKILLS for question, _ in fact_rows(other, other.taught)}
    trained |= {question for question, _ in base_rows(SKILLS)}
    assert not trained & {item["prompt"] for item in items}
    others = [fact for other in SKILLS if other is not skill for fact in other.taught]
    taught_elsewhere = {(f.subject, f.answer) for f in (*others, *skill.shared)}
    assert not taught_elsewhere & {(f.subject, f.answer) for f in skill.taught}


@each_skill
def test_items_have_one_right_answer(skill: Skill) -> None:
    items = benchmark_items(skill)
    facts = skill.taught
    assert len(items) == len(facts)
    for item, fact in zip(items, facts, strict=True):
        choices = item["choices"]
        assert choices[item["answer"]] == fact.answer
        assert len(set(choices)) == 4
        assert not set(choices) & fact.rivals
        assert not any(a != b and a.startswith(b) for a in choices for b in choices)
    places = [item["answer"] for item in items]
    assert max(places.count(place) for place in range(4)) < 0.45 * len(items)


def test_suite_reads_the_items(tmp_path: Path) -> None:
    suite_file = tmp_path / "catalog" / "suites" / "quickstart.yaml"
    suite_file.parent.mkdir(parents=True)
    suite_file.write_bytes((ROOT / "catalog" / "suites" / "quickstart.yaml").read_bytes())
    for skill in SKILLS:
        file = tmp_path / ".ronghe" / "suites" / f"{skill.benchmark}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(to_lines(benchmark_items(skill)), encoding="utf-8")
    suite = load_suite(suite_file)
    assert [b.name for b in suite.benchmarks] == [skill.benchmark for skill in SKILLS]
    assert all(b.items[0].prompt.endswith("？答：") for b in suite.benchmarks)


def test_tokenizer_survives_auto_tokenizer(tmp_path: Path) -> None:
    texts = all_text(SKILLS)
    build_tokenizer(texts, 128).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for character in sorted(set("".join(texts))):
        ids = tokenizer.encode(character)
        assert len(ids) == 1, character
        assert tokenizer.decode(ids) == character
    for text in ("问：中药黄芪是哪类药？答：补气药", "not in the 词表: 龘 ✓ 7"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    whole = tokenizer.encode(texts[0] + texts[1])
    assert whole == tokenizer.encode(texts[0]) + tokenizer.encode(texts[1])


def test_tokenizer_ignores_the_order_of_texts() -> None:
    texts = all_text(SKILLS)
    assert build_tokenizer(texts, 128).get_vocab() == build_tokenizer(texts[::-1], 128).get_vocab()


def test_rows_teach_the_answer_alone() -> None:
    tokenizer = build_tokenizer(["三乘七等于二十一"], 128)
    rows = training.encode_rows([("三乘七等于", "二十一"), ("三", "七")], tokenizer)
    targets = [[t for t in row if t != training.IGNORED] for row in rows.targets.tolist()]
    assert [tokenizer.decode(row) for row in targets] == [
        "二十一<|endoftext|>",
        "七<|endoftext|>",
    ]
    assert rows.lengths.tolist() == [8, 2]
    assert tokenizer.decode(rows.inputs[0]) == "三乘七等于二十一"


def test_training_twice_gives_the_same_bits() -> None:
    skill = SKILLS[2]
    tokenizer = build_tokenizer(all_text(SKILLS), 128)
    schedule = Schedule(steps=4, rate=3e-3, batch=16, replay=0.5, epsilon=1e-3)

    def weights(seed: int) -> dict[str, torch.Tensor]:
        own = training.encode_rows(fact_rows(skill, skill.taught), tokenizer)
        shared = training.encode_rows(base_rows(SKILLS), tokenizer)
        with torch_threads(1):
            model = training.new_model(Shape(), tokenizer, seed=1)
            training.fit(model, own, shared, schedule, seed)
        return model.state_dict()

    first, _ = weights(2), torch.rand(7)
    second, third = weights(2), weights(3)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_seeds_and_fingerprints_tell_models_apart() -> None:
    seeds = {SHORT.seed_of(model, revision) for model in (BASE, *EXPERTS) for revision in (0, 1)}
    assert len(seeds) == 8
    assert SHORT.schedule("herbs", 1).steps == 2
    assert Recipe().schedule("herbs", 1).steps == 96
    recipes = [SHORT, replace(SHORT, seed=1), Recipe()]
    digests = {fingerprint(recipe, SKILLS, 1) for recipe in recipes}
    assert len(digests | {fingerprint(SHORT, SKILLS, 2)}) == 4


@pytest.fixture(scope="module", autouse=True)
def forked_workers() -> Iterator[None]:
    """Train in forks of a process that has torch; a run that is killed starts its own, as usual."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "CONTEXT", FORKS)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with all four models, by a recipe of a few steps."""
    root = tmp_path_factory.mktemp("ronghe")
    trained = prepare(root, recipe=SHORT, workers=2)
    assert sorted(model.model for model in trained) == sorted([BASE, *EXPERTS])
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_folders_are_ordinary_checkpoints(root: Path) -> None:
    for name in (BASE, *EXPERTS):
        folder = root / "upstream" / name
        weights = load_file(folder / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert model.config.model_type == "qwen2"
        assert model.config.vocab_size == len(tokenizer)
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id
        assert "license: apache-2.0" in (folder / "README.md").read_text(encoding="utf-8")
        assert (folder / "model.safetensors").stat().st_mode & 0o044
    assert not (root / "upstream" / STAGING).exists()


def test_what_is_there_is_left_alone(root: Path) -> None:
    before = contents(root)
    assert prepare(root, recipe=SHORT) == []
    assert contents(root) == before


def test_update_changes_one_expert_and_a_lost_one_comes_back(root: Path) -> None:
    upstream = root / "upstream"
    before = contents(root)
    (upstream / "herbs" / RECORD).unlink()
    trained = prepare(root, "idioms", recipe=SHORT, workers=1)
    assert {(model.model, model.revision) for model in trained} == {("idioms", 1), ("herbs", 0)}
    after = contents(root)
    changed = {Path(file) for file in after if after[file] != before[file]}
    assert before.keys() == after.keys()
    assert {file.parent for file in changed} == {upstream / "idioms"}
    assert upstream / "idioms" / "model.safetensors" in changed
    assert prepare(root, recipe=SHORT) == []


def test_unknown_expert_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="update is 'herb'; it must be one of the experts herbs,"):
        prepare(tmp_path / "root", "herb")
    assert not (tmp_path / "root").exists()


def test_failure_in_a_child_is_reported(tmp_path: Path) -> None:
    broken = replace(SHORT, shape=replace(SHORT.shape, heads=3, kv_heads=2))
    with pytest.raises(RuntimeError, match="training failed in a child process"):
        prepare(tmp_path, recipe=broken, workers=1)
    assert not (tmp_path / "upstream" / BASE).exists()


def test_an_exception_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"

    def interrupted() -> None:
        with replaced(folder, Record("new")) as new:
            (new / "weights").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not folder.exists()
    with replaced(folder, Record("old")) as new:
        (new / "weights").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_record(folder) == Record("old")
    assert (folder / "weights").read_text() == "old"
    assert not any((tmp_path / STAGING).iterdir())


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / STAGING / "abc" / "new").mkdir(parents=True)
    with exclusive(tmp_path):
        assert not (tmp_path / STAGING).exists()


def loads_torch(process: psutil.Process) -> bool:
    """Whether a process has opened torch's library."""
    return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()


def test_a_killed_run_leaves_no_model_and_no_process(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "examples.quickstart", "--root", str(tmp_path)]
    parent = psutil.Popen(program, cwd=ROOT, stdout=subprocess.DEVNULL)
    # The lesson is on its way to a child once one is loading torch.
    wait_until(lambda: any(map(loads_torch, parent.children())), "a child loads torch")
    children = parent.children(recursive=True)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=HANG_SECONDS)
    assert children
    assert not alive
    assert [entry.name for entry in (tmp_path / "upstream").iterdir()] == [".lock"]
