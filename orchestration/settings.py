"""How to run: the one place where environment variables are read.

    RONGHE_CATALOG   folder with models.yaml, recipes/ and suites/      ./catalog
    RONGHE_CATALOG_NAME  what the catalog is called in the store         `name:` in models.yaml,
                     (its refs lie below that name)                   or one made of its folder
    RONGHE_STORE     artifact store, file:///path or s3://bucket/prefix  ./.ronghe/store
    RONGHE_THREADS   worker threads of a merge, 0 for one a core         0
    RONGHE_DEVICE    auto, cpu or cuda                                   auto
    RONGHE_MEMORY    bound of a merge's buffers, such as 512MiB          512MiB
                     (these three also of `ronghe merge`, extract-lora and merge-adapters; an
                     option of the command line goes before)
    RONGHE_RAY       a Ray cluster's dashboard, http://host:8265;        (none)
                     steps then run as its jobs
    RONGHE_STEPS     processes, or pods: a Kubernetes job for each step  processes
    RONGHE_WEBHOOK   http(s) address that is told of promotions,         (none)
                     rollbacks and refusals, and the secret that
    RONGHE_WEBHOOK_SECRET  each POST is signed with, of 16 characters or more
    RONGHE_LANG      en or zh: what --help speaks, and the comments      LC_ALL, LC_MESSAGES, LANG
                     that `ronghe init` writes
    DAGSTER_HOME     Dagster's instance                                  ./.ronghe/dagster

Credentials (AWS_*, AWS_ENDPOINT_URL, HF_TOKEN, OPENAI_API_KEY of judges and served models) are
found by the clients themselves.
"""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from merge_ops.errors import Fault, SettingsError, did_you_mean
from orchestration.options import IN_ENVIRONMENT, collect, device, read, size, threads

STEPS = ("processes", "pods")
NAMES = (
    "RONGHE_CATALOG", "RONGHE_STORE", "RONGHE_THREADS", "RONGHE_DEVICE", "RONGHE_MEMORY",
    "RONGHE_RAY", "RONGHE_STEPS", "RONGHE_CATALOG_NAME", "RONGHE_WEBHOOK", "RONGHE_WEBHOOK_SECRET",
    "RONGHE_LANG",
)  # fmt: skip
LANGUAGES = ("en", "zh")
LEAST_SECRET = 16
"""Characters of a webhook's secret: fewer can be guessed from one signed body."""
_CATALOG_NAME = re.compile(r"\w[\w.-]{0,99}")
_CATALOG_NAME_RULE = "it may have 1 to 100 letters, digits, '_', '-' and '.', and no mark in front"
FOR_TESTS = ("RONGHE_REQUIRE_BROWSER", "RONGHE_REQUIRE_POSTGRES", "RONGHE_TEST_DATA")


_FILES_OF_HOME = (
    "dagster.yaml",
    "refresh.lock",
    "known-refs.json",
    "logs/refresh.log",
    "history/runs.db",
    "history/runs/index.db",
    "schedules/schedules.db",
)
"""What Ronghe and Dagster open in DAGSTER_HOME by its name."""


@dataclass(frozen=True)
class Settings:
    """Settings say how to run. `memory` is in bytes; `threads` 0 is one a core, `ray` None no Ray.

    `pods` is for runs that are pods of Kubernetes themselves: each step becomes a pod beside them.
    `catalog_name` is None where the catalog names itself (orchestration.catalogs.catalog_name).
    """

    catalog: Path
    store: str
    threads: int
    device: str
    memory: int
    ray: str | None
    dagster_home: Path
    pods: bool = False
    catalog_name: str | None = None

    def as_environment(self) -> dict[str, str]:
        """Return the variables that give a process on another machine the same settings."""
        return {
            "RONGHE_CATALOG": str(self.catalog),
            "RONGHE_STORE": self.store,
            "RONGHE_THREADS": str(self.threads),
            "RONGHE_DEVICE": self.device,
            "RONGHE_MEMORY": str(self.memory),
            **({"RONGHE_RAY": self.ray} if self.ray else {}),
            **({"RONGHE_CATALOG_NAME": self.catalog_name} if self.catalog_name else {}),
        }


@dataclass(frozen=True)
class Computing:
    """How to compute: worker threads (0: one a core), the device, bytes of a merge's buffers."""

    threads: int = 0
    device: str = "auto"
    memory: int = 512 << 20


def how_to_compute(
    command: str,
    threads_option: str | None = None,
    device_option: str | None = None,
    memory_option: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Computing:
    """Read how a command without a catalog computes: by its options, then by the environment.

    Raises SettingsError, also for a variable of Ronghe's that is none.
    """
    given = os.environ if environment is None else environment
    faults = _unknown(given)
    usual = _how_to_compute(given, faults)
    if faults:
        raise SettingsError("the environment", faults)
    options = {"--threads": threads_option, "--device": device_option, "--memory": memory_option}
    given_here = {name: text for name, text in options.items() if text is not None}
    readers: dict[str, Any] = {
        "--threads": threads,
        "--device": device,
        "--memory": size,
    }
    values = {name: read(command, name, text, readers[name]) for name, text in given_here.items()}
    return replace(usual, **{name.removeprefix("--"): value for name, value in values.items()})


def language(environment: Mapping[str, str] | None = None) -> str:
    """Return the language that --help speaks, of LANGUAGES: what RONGHE_LANG or the locale says.

    A RONGHE_LANG that is none of them counts as nothing here; `load_settings` refuses it.
    """
    given = os.environ if environment is None else environment
    asked = given.get("RONGHE_LANG") or ""
    if asked in LANGUAGES:
        return asked
    locale = given.get("LC_ALL") or given.get("LC_MESSAGES") or given.get("LANG") or ""
    return "zh" if locale.lower().startswith("zh") else "en"


def share_dagster_home(settings: Settings) -> None:
    """Tell this process's children where Dagster's instance is."""
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environment` (default: the process's), with every fault at once.

    Raises SettingsError.
    """
    given = os.environ if environment is None else environment
    faults = [
        *_unknown(given),
        *_ray_faults(given),
        *_steps_faults(given),
        *_name_faults(given),
        *_webhook_faults(given),
        *_language_faults(given),
    ]
    how = _how_to_compute(given, faults)
    if faults:
        raise SettingsError("the environment", faults)
    here = Path.cwd()
    store = given.get("RONGHE_STORE") or str(here / ".ronghe" / "store")
    return Settings(
        catalog=Path(given.get("RONGHE_CATALOG") or here / "catalog").absolute(),
        store=store if "://" in store else Path(store).absolute().as_uri(),
        threads=how.threads,
        device=how.device,
        memory=how.memory,
        ray=given.get("RONGHE_RAY") or None,
        dagster_home=Path(given.get("DAGSTER_HOME") or here / ".ronghe" / "dagster").absolute(),
        pods=given.get("RONGHE_STEPS") == "pods",
        catalog_name=given.get("RONGHE_CATALOG_NAME") or None,
    )


def webhook_address(environment: Mapping[str, str] | None = None) -> tuple[str, bytes] | None:
    """Read the webhook's address and secret; None where there is none. Raises SettingsError.

    They are no part of the Settings, so that nothing shows them or passes them on.
    """
    given = os.environ if environment is None else environment
    faults = _webhook_faults(given)
    if faults:
        raise SettingsError("the environment", faults)
    url = given.get("RONGHE_WEBHOOK")
    return (url, given["RONGHE_WEBHOOK_SECRET"].encode()) if url else None


def first_set(names: Sequence[str], environment: Mapping[str, str] | None = None) -> str | None:
    """Return the first of these variables that is set, by its name: values may be secrets."""
    given = os.environ if environment is None else environment
    return next((name for name in names if given.get(name)), None)


def check_dagster_home(home: Path) -> None:
    """Raise SettingsError where Dagster cannot read this folder, or keep its SQLite files in it.

    It puts the path into an address as it is, and takes some characters of it for parts of that.
    """
    bad = sorted({each for each in str(home) if each in "%?#"})
    configuration = home / "dagster.yaml"
    faults: list[Fault] = []
    if os.path.lexists(home) and not home.is_dir():
        problem = f"is {home}, which is no folder, or a link to none; name another"
        faults.append(Fault("DAGSTER_HOME", problem))
    else:
        named = [home / name for name in _FILES_OF_HOME]
        for path in (each for each in named if os.path.lexists(each) and not each.is_file()):
            problem = f"holds {path}, which is no file; remove or replace it"
            faults.append(Fault("DAGSTER_HOME", problem))  # a pipe would be waited for
    if faults:
        raise SettingsError("the environment", faults)
    elsewhere = configuration.is_file() and b"storage:" in configuration.read_bytes()
    if bad and not elsewhere:
        problem = (
            f"is {str(home)!r}, and Dagster's SQLite cannot be in a folder with {' or '.join(bad)}"
            " in its path; name another folder, or move this one"
        )
        raise SettingsError("the environment", [Fault("DAGSTER_HOME", problem)])


def _unknown(given: Mapping[str, str]) -> list[Fault]:
    return [
        Fault(name, f"is no setting.{did_you_mean(name, NAMES)} Known: {', '.join(NAMES)}")
        for name in sorted(given)
        if name.startswith("RONGHE_") and name not in (*NAMES, *FOR_TESTS)
    ]


def _language_faults(given: Mapping[str, str]) -> list[Fault]:
    asked = given.get("RONGHE_LANG")
    if not asked or asked in LANGUAGES:
        return []
    return [Fault("RONGHE_LANG", f"is {asked!r}; it must be one of {', '.join(LANGUAGES)}")]


def _steps_faults(given: Mapping[str, str]) -> list[Fault]:
    steps = given.get("RONGHE_STEPS") or "processes"
    if steps not in STEPS:
        return [Fault("RONGHE_STEPS", f"is {steps!r}; it must be one of {', '.join(STEPS)}")]
    if steps == "pods" and given.get("RONGHE_RAY"):
        problem = (
            "is 'pods', and RONGHE_RAY names a Ray cluster; steps run here or there: unset one"
        )
        return [Fault("RONGHE_STEPS", problem)]
    return []


def catalog_name_fault(name: object) -> str | None:
    """Say why a catalog cannot be called `name`, or None."""
    if not isinstance(name, str) or not _CATALOG_NAME.fullmatch(name):
        return f"is {name!r}; {_CATALOG_NAME_RULE}"
    if unicodedata.normalize("NFC", name) != name:
        return f"is {name!r}, whose letters are written apart; write it composed (NFC)"
    return None


def _name_faults(given: Mapping[str, str]) -> list[Fault]:
    name = given.get("RONGHE_CATALOG_NAME")
    problem = catalog_name_fault(name) if name else None
    return [Fault("RONGHE_CATALOG_NAME", problem)] if problem else []


def _webhook_faults(given: Mapping[str, str]) -> list[Fault]:
    """No message shows the address, whose path is often a password, or the secret."""
    url, secret = given.get("RONGHE_WEBHOOK"), given.get("RONGHE_WEBHOOK_SECRET") or ""
    if not url:
        return []
    faults: list[Fault] = []
    if not re.fullmatch(r"https?://[^\s/@]+(/[^\s]*)?", url):
        problem = "is no http:// or https:// address without a user and a password in it"
        faults.append(Fault("RONGHE_WEBHOOK", problem))
    if len(secret) < LEAST_SECRET:
        problem = "is not set" if not secret else f"has fewer than {LEAST_SECRET} characters"
        told = f"{problem}; each POST to RONGHE_WEBHOOK is signed with it, and the receiver has it"
        faults.append(Fault("RONGHE_WEBHOOK_SECRET", f"{told} too"))
    return faults


def _ray_faults(given: Mapping[str, str]) -> list[Fault]:
    """The address is told to every step and shown by Ray, so it may hold no password."""
    address = given.get("RONGHE_RAY")
    if not address:
        return []
    if "@" in address:
        return [Fault("RONGHE_RAY", "holds a user or a password; give the address alone")]
    if re.fullmatch(r"https?://[^\s/]+(/\S*)?", address):
        return []
    problem = f"is {address!r}; it must be the address of a Ray cluster's dashboard, which takes"
    return [Fault("RONGHE_RAY", f"{problem} jobs, such as http://127.0.0.1:8265")]


def _how_to_compute(given: Mapping[str, str], faults: list[Fault]) -> Computing:
    usual = Computing()
    asked = {name: given.get(name) or "" for name in IN_ENVIRONMENT}
    count = collect("RONGHE_THREADS", asked["RONGHE_THREADS"] or "0", threads, faults)
    where = collect("RONGHE_DEVICE", asked["RONGHE_DEVICE"] or "auto", device, faults)
    held = asked["RONGHE_MEMORY"]
    memory = collect("RONGHE_MEMORY", held, size, faults) if held else usual.memory
    return Computing(count or 0, where or usual.device, memory or usual.memory)
