"""What holds for every command: --help with an example, --json, no colours, 80 columns, names."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main
from rich.cells import cell_len

from orchestration.commands import cli
from orchestration.commands.help_texts import _PANELS as PANELS
from orchestration.commands.help_texts import EXAMPLE, commands_of, with_help
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import lora_tensors, modules_of, write_adapter
from tests.orchestration.projects.tiny_project import (
    SHAPE,
    TASK_ARITHMETIC,
    TinyProject,
    make_project,
)

COMMANDS = dict(commands_of(typer.main.get_command(cli.app)))
NOT_WALKED = {
    "gates": "runs a base model: test_gates_command",
    "moe-saliency": "runs a mixture: test_gates_command's neighbours",
    "score": "asks a server: test_score_command",
    "ui": "serves until it is stopped: test_web_and_daemon",
    "restore-expert": "needs the masks of a merge by emr: test_emr",
}
"""Commands that do their work elsewhere; their --json is of the same writer."""
WALK = """
init mine --base upstream/base --expert upstream/e1 --no-look
add upstream/e3
check
doctor
refresh --dry-run
refresh
adopt-refs --dry-run
ls
ls --kind all
promote OTHER --because first
promote DIGEST --because better
show ties/champion
path ties/champion
leaderboard
leaderboard --evidence
champion ties --history
lineage ties/champion
impact e1
compare ties/champion e1
routing
refs ties/champion
report
site --out pages
rollback ties --because worse
materialize SHORT
pull SHORT pulled
restore e1 --out e1-again
push ties/champion our-team/ties --dry-run
export champion/ties --oci oci
protection-key key.json
plan merge.yaml
merge merge.yaml merged
merge sweep.yaml swept
diff merged e1
inspect merged
inspect merged --against e1 --base base
verify-merge merged --recipe merge.yaml
reproduce ties/champion
extract-lora upstream/e1 upstream/base lora --rank 4
merge-adapters adapters.yaml lora-average
sign champion/ties --key private.pem
verify
verify ties/champion
verify SHORT
verify champion/ties --signed --public-key public.pem
prune --dry-run
gc --dry-run
withdraw e2 --because leaked --warn-only
ls --withdrawn
"""
"""Every command once at least, in an order in which each finds what it needs."""
STATUS = {"diff merged e1": 1, "inspect merged --against e1 --base base": 1}
"""Status of those of them whose answer is a difference or a part that is found."""
READING = (
    "check", "doctor", "ls", "show", "path", "leaderboard", "champion", "lineage", "impact",
    "compare", "routing", "refs", "report", "plan", "diff", "inspect", "verify-merge", "reproduce",
    "verify", "prune", "gc", "push", "adopt-refs", "refresh",
)  # fmt: skip
"""Commands that can be called twice."""


@dataclass
class Program:
    """The command line, in this process, in the folder of a project."""

    project: TinyProject
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Run one command; returns its status, and what it wrote on both outputs."""
        self.capture.readouterr()
        self.patch.setattr("sys.argv", ["ronghe", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = self.capture.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err


@pytest.fixture
def program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    project = make_project(tmp_path, {"ties": TASK_ARITHMETIC}, experts=2)
    for name, value in {**project.environment, "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return Program(project, monkeypatch, capsys)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_and_help_with_examples(name: str) -> None:
    options = {option for each in COMMANDS[name].params for option in each.opts}
    assert "--json" in options


@pytest.mark.parametrize("language", ["en", "zh"])
def test_help_of_every_command_fits_and_ends_with_an_example(
    language: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer import rich_utils

    for name in (*PANELS, "Table"):  # what the help in Chinese sets is taken back
        monkeypatch.setattr(rich_utils, name, getattr(rich_utils, name))
    monkeypatch.setenv("COLUMNS", "80")
    group = with_help(cli.app, language)
    for name in COMMANDS:
        with pytest.raises(SystemExit, match="0"):
            group([name, "--help"])
        told = capsys.readouterr().out
        assert "\x1b" not in told
        assert max(map(cell_len, told.splitlines())) <= 80, told
        assert f"{EXAMPLE[language].strip()} " in told, name
        assert f"ronghe {name}" in told.rpartition(EXAMPLE[language].strip())[2], told


def keys(folder: Path) -> None:
    """Write a pair of keys, private.pem and public.pem."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem, plain = forms.Encoding.PEM, forms.NoEncryption()
    private = key.private_bytes(pem, forms.PrivateFormat.PKCS8, plain)
    public = key.public_key().public_bytes(pem, forms.PublicFormat.SubjectPublicKeyInfo)
    (folder / "private.pem").write_bytes(private)
    (folder / "public.pem").write_bytes(public)


def inputs(folder: Path) -> None:
    """Write what the walk takes from a folder: recipes, adapters, keys, one model more."""
    base = factory.base_tensors(SHAPE)
    factory.write_checkpoint(
        folder / "upstream" / "e3", factory.expert_tensors(base, seed=9), SHAPE
    )
    lines = "merge_method: linear\nmodels:\n"
    lines += "".join(f"- model: upstream/{name}\n" for name in ("e1", "e2"))
    weighted = lines.replace("linear", "task_arithmetic") + "base_model: upstream/base\n"
    (folder / "merge.yaml").write_text(lines + "parameters: {weight: 1}\n", encoding="utf-8")
    (folder / "sweep.yaml").write_text(
        weighted + "parameters: {weight: 1}\nsweep: {lambda: [0.5, 1]}\n", encoding="utf-8"
    )
    for number in (1, 2):
        tensors = lora_tensors(base, modules_of(base, "q_proj"), rank=2, seed=number)
        (folder / f"lora{number}").mkdir()
        write_adapter(folder / f"lora{number}", tensors, r=2, lora_alpha=2)
    adapters = lines.replace("upstream/e", "lora") + "parameters: {weight: 1}\n"
    (folder / "adapters.yaml").write_text(adapters, encoding="utf-8")
    keys(folder)


def test_every_command_speaks_json_and_its_tables_fit(program: Program) -> None:
    """Each line twice: as JSON, which is all of the output, and as text where that changes nothing.

    Names, whole digests and their first characters stand for the same content everywhere.
    """
    inputs(program.project.root)
    lines = [shlex.split(line) for line in WALK.split("\n") if line]
    assert {words[0] for words in lines} | set(NOT_WALKED) == set(COMMANDS)
    given: dict[str, str] = {}
    for words in lines:
        if not given and "OTHER" in words:
            rows = json.loads(program("ls", "--kind", "checkpoint", "--json")[1])
            given = {"OTHER": rows[1]["digest"], "DIGEST": rows[0]["digest"]}
            given["SHORT"] = rows[0]["digest"][:8]
        words = [given.get(word, word) for word in words]
        expected = STATUS.get(" ".join(words), 0)
        if words[0] in READING:
            status, out, err = program(*words)
            assert status == expected, (words, out, err)
            assert "\x1b" not in out + err, words
            rules = [line for line in out.splitlines() if line.startswith(("─", " ─", "━", "┏"))]
            assert all(cell_len(line.rstrip()) <= 80 for line in rules), out
        status, out, err = program(*words, "--json")
        assert status == expected, (words, out, err)
        assert isinstance(json.loads(out), dict | list), words
