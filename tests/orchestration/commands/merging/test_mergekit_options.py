"""Options of mergekit's commands: taken, told to change nothing, or refused with the way out."""

import pytest

from merge_ops.errors import SettingsError
from orchestration.commands.mergekit_options import translated
from tests.merges.merging import ronghe
from tests.models.checkpoint_factory import LLAMA, read_tensors, write_family


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("a b", "a b"),
        ("--cuda a b", "--device cuda a b"),
        ("a --no-cuda b", "a b"),
        ("--gpu-rich a b", "--device cuda a b"),
        ("--device cuda:1 a b", "--device cuda:1 a b"),
        ("-j 4 a b", "--threads 4 a b"),
        ("-j4 a b", "--threads 4 a b"),
        ("--num-threads=4 a b", "--threads 4 a b"),
        ("--out-shard-size 5B a b", "--shard-size=5000000000 a b"),
        ("--out-shard-size=500M a b", "--shard-size=500000000 a b"),
        ("--out-shard-size 50k a b", "--shard-size=50000 a b"),
        ("--out-shard-size 123 a b", "--shard-size=123 a b"),
        ("--out-shard-size 2GiB a b", "--shard-size=2GiB a b"),
        ("--random-seed 7 a b", "--seed=7 a b"),
        ("--lora-merge-cache /x a --transformers-cache=/y b", "a b"),
        ("--lora-merge-dtype float32 --write-threads 3 a b", "a b"),
        ("-v -vv --quiet -q a b", "a b"),
        ("--copy-tokenizer --no-copy-tokenizer --lazy-unpickle --no-lazy-unpickle a b", "a b"),
        ("--allow-crimes --no-allow-crimes --trust-remote-code --clone-tensors a b", "a b"),
        (
            "--low-cpu-memory --read-to-gpu --multi-gpu --async-write --safe-serialization a b",
            "a b",
        ),
        ("a -I work --out-path b --lazy", "a b"),
        ("--force a b --memory 1GiB", "--force a b --memory 1GiB"),
        ("a -- --cuda", "a -- --cuda"),
    ],
)
def test_translation(given, ours):
    assert translated(given.split())[0] == ours.split()


def test_every_option_of_mergekit_is_known():
    """mergekit 0.1.5's own list of fields, each as an option."""
    fields = (
        "allow_crimes unsafe_truncate_embeddings cuda low_cpu_memory copy_tokenizer clone_tensors"
        " trust_remote_code lazy_unpickle write_model_card safe_serialization quiet read_to_gpu"
        " multi_gpu gpu_rich async_write"
    )
    for field in fields.split():
        ours, notes = translated([f"--{field.replace('_', '-')}"])
        assert ours in ([], ["--device", "cuda"])
        assert notes or ours
        if field not in ("safe_serialization", "gpu_rich"):
            assert translated([f"--no-{field.replace('_', '-')}"])[0] == []


def test_what_changes_nothing_says_so_once():
    notes = translated(["--lazy-unpickle", "-v", "-vv", "--lazy-unpickle"])[1]
    assert notes == [
        "--lazy-unpickle: weights are read in blocks",
        "-v: `ronghe plan` shows what will be done",
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("--no-safe-serialization", "is not taken: pickles are not written"),
        ("--tensor-union", "is not taken: a tensor that one model lacks is a fault"),
        ("--out-shard-size five", r"--out-shard-size is 'five'; give bytes as 5B \(5 billion\)"),
        (f"--out-shard-size {'9' * 5000}", r"--out-shard-size is '9{40}'; give bytes as 5B"),
        ("r.yaml out --out-shard-size", "--out-shard-size is given without its value"),
        ("r.yaml out --random-seed", "--random-seed is given without its value"),
        ("--lora-merge-cache", "--lora-merge-cache is given without its value"),
        ("--out-shard-size 1.5B", r"--out-shard-size is '1.5B'; give bytes as 5B"),
    ],
)
def test_refused(given, told):
    with pytest.raises(SettingsError, match=told):
        translated(given.split())


def test_a_command_line_of_mergekit_merges(tmp_path):
    family = write_family(tmp_path / "models", LLAMA, experts=2)
    recipe = tmp_path / "study.yaml"
    experts = ", ".join(
        f"{{model: {each}, parameters: {{weight: 0.5, density: 0.5}}}}" for each in family.experts
    )
    recipe.write_text(f"merge_method: dare_ties\nbase_model: {family.base}\nmodels: [{experts}]")
    old = ("--copy-tokenizer", "--lazy-unpickle", "--allow-crimes", "-v", "-j", 2)
    first = ronghe("merge", recipe, tmp_path / "a", *old, "--out-shard-size", "30K")
    assert first.returncode == 0, first.stderr
    assert "note: --lazy-unpickle: weights are read in blocks" in first.stderr
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 1
    seeded = ronghe("merge", "--random-seed", 7, recipe, tmp_path / "b")
    assert seeded.returncode == 0, seeded.stderr
    recipe.write_text(f"{recipe.read_text()}\nseed: 7")
    assert ronghe("merge", recipe, tmp_path / "c").returncode == 0
    a, b, c = (read_tensors(tmp_path / each) for each in "abc")
    assert all(tensor.equal(b[name]) for name, tensor in c.items())
    assert not all(tensor.equal(a[name]) for name, tensor in b.items())
