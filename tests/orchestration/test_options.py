"""Options and variables are checked in one place, and heeded by every command they name."""

import os

import pytest

from merge_ops.errors import SettingsError
from orchestration import options
from orchestration.options import read
from orchestration.settings import check_dagster_home, how_to_compute, load_settings
from tests.merges.merging import ronghe
from tests.models import checkpoint_factory as factory

BAD_SIZES = (
    "", " ", "1.2.3", "0", "0GB", "-1", "+1", "1e999", "1e3", "9" * 5000, "５GB", "٣", "inf", "nan",
    "0x10", "1_000", "5 G B", "5GBB", "GB", "1.", ".5GB", "5EB", "2048PiB", "1,5GB", "5\nGB", "½GB",
)  # fmt: skip


@pytest.mark.parametrize("text", BAD_SIZES)
def test_bad_sizes_are_one_line(text):
    with pytest.raises(SettingsError, match=r"^ronghe merge: --memory is .*; give a num") as caught:
        read("ronghe merge", "--memory", text, options.size)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("1", 1),
        ("1000000", 10**6),
        ("5GB", 5 * 10**9),
        ("5gb", 5 * 10**9),
        (" 512 MiB ", 512 << 20),
        ("1.5G", 1_500_000_000),
        ("0.1GB", 10**8),
        ("2T", 2 * 10**12),
        ("1TiB", 1 << 40),
        ("3kib", 3072),
        ("7B", 7),
    ],
)
def test_sizes_are_exact(text, nbytes):
    assert options.size(text) == nbytes


@pytest.mark.parametrize("text", ["", "-1", "1.5", "two", "９", "²", "1e2", "9" * 5000, "5000"])
def test_bad_numbers_of_threads(text):
    with pytest.raises(SettingsError, match=r"--threads is .*; give a whole number from 0 to 4096"):
        read("ronghe merge", "--threads", text, options.threads)


@pytest.mark.parametrize(
    "text", ["", "0", "24", "1h2m", "-1h", "1e9d", "９h", "9" * 5000 + "s", "h"]
)
def test_bad_periods(text):
    with pytest.raises(SettingsError, match=r"--grace is .*; give a number and a unit"):
        read("ronghe gc", "--grace", text, options.period)


def test_periods():
    assert [options.period(each) for each in ("0s", "90s", "1.5m", "24h", "7d")] == [
        0, 90, 90, 86_400, 604_800,
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "CUDA", "gpu", "cuda:", "cuda:x", "cuda:0:1", "cpu ", "mps"])
def test_bad_devices(text):
    with pytest.raises(SettingsError, match=r"--device is .*; give one of auto, cpu, cuda"):
        read("ronghe merge", "--device", text, options.device)


def test_an_option_goes_before_its_variable():
    given = {"RONGHE_THREADS": "3", "RONGHE_MEMORY": "1GiB", "RONGHE_DEVICE": "cpu"}
    usual = how_to_compute("ronghe merge", environment=given)
    assert (usual.threads, usual.device, usual.memory) == (3, "cpu", 1 << 30)
    asked = how_to_compute("ronghe merge", "1", "auto", "2GiB", environment=given)
    assert (asked.threads, asked.device, asked.memory) == (1, "auto", 2 << 30)
    settings = load_settings(given)
    assert (settings.threads, settings.device, settings.memory) == (3, "cpu", 1 << 30)


def test_empty_variables_are_none():
    given = {"RONGHE_THREADS": "", "RONGHE_MEMORY": "", "RONGHE_DEVICE": ""}
    assert how_to_compute("ronghe merge", environment=given) == how_to_compute("x", environment={})


@pytest.mark.parametrize("command", [["merge"], ["extract-lora"], ["merge-adapters"]])
def test_variables_are_heeded_by_every_command(command, tmp_path):
    """Bad ones are told before anything else is looked at."""
    paths = [tmp_path / "absent"] * (2 if command[0] == "extract-lora" else 1)
    environment = {
        "RONGHE_THREADS": "９",
        "RONGHE_MEMORY": "lots",
        "RONGHE_DEVICE": "tpu",
        "RONGHE_MEMROY": "1GB",
    }
    done = ronghe(*command, *paths, tmp_path / "out", environment=environment)
    assert done.returncode == 2
    for name in environment:
        assert f"{name} is" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_merge_takes_its_memory_from_the_variable(tmp_path):
    family = factory.write_family(tmp_path / "models", factory.LLAMA, experts=1)
    recipe = tmp_path / "recipe.yaml"
    text = "merge_method: linear\nmodels: [{{model: {}}}, {{model: {}}}]\nparameters: {{weight: 1}}"
    recipe.write_text(text.format(family.base, family.experts[0]))
    few = {"RONGHE_MEMORY": "1kB", "RONGHE_THREADS": "1"}
    refused = ronghe("merge", recipe, tmp_path / "out", environment=few)
    assert refused.returncode == 2
    assert "memory is 0 MiB; 2 inputs, 1 coefficient(s) and 1 threads need at" in refused.stderr
    assert ronghe("merge", "--memory", "64MiB", recipe, tmp_path / "out", environment=few).stderr
    assert (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("name", ["a%20b", "what?", "number#1"])
def test_folders_that_dagster_cannot_use_are_told(name, tmp_path):
    home = tmp_path / name
    with pytest.raises(
        SettingsError, match=r"DAGSTER_HOME is .* SQLite cannot be in a folder with"
    ):
        check_dagster_home(home)
    home.mkdir()
    (home / "dagster.yaml").write_text("storage:\n  postgres: {}\n")
    check_dagster_home(home)


@pytest.mark.parametrize("name", ["dagster.yaml", "refresh.lock", "known-refs.json"])
def test_what_is_no_file_in_dagsters_folder_is_told(name, tmp_path):
    os.mkfifo(tmp_path / name)  # it would be waited for
    (tmp_path / "logs" / "refresh.log").mkdir(parents=True)
    told = rf"(?s)DAGSTER_HOME holds .*{name}, which is no file.*refresh.log, which is no file"
    with pytest.raises(SettingsError, match=told):
        check_dagster_home(tmp_path)


@pytest.mark.parametrize("kind", ["file", "dead link"])
def test_dagsters_folder_is_a_folder(kind, tmp_path):
    home = tmp_path / "dagster"
    home.touch() if kind == "file" else home.symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match=r"DAGSTER_HOME is .*, which is no folder"):
        check_dagster_home(home)


@pytest.mark.parametrize("name", ["with space", "融合 家", "a:b@c", "quo'te"])
def test_other_names_are_fine(name, tmp_path):
    check_dagster_home(tmp_path / name)
