"""How to run: the one place where environment variables are read.

    RONGHE_CATALOG   folder with models.yaml, recipes/ and suites/      ./catalog
    RONGHE_CATALOG_NAME  what the catalog is called in the store         `name:` in models.yaml,
                     (its refs lie below that name)                   or one made of its folder
    RONGHE_STORE     artifact store, file:///path or s3://bucket/prefix  ./.ronghe/store
    RONGHE_THREADS   worker threads of a merge, 0 for one a core         0
    RONGHE_DEVICE    auto, cpu or cuda                                   auto
    RONGHE_MEMORY    bound of a merge's buffers, such as 512MiB          512MiB
    RONGHE_RAY       a Ray cluster's dashboard, http://host:8265;        (none)
                     steps then run as its jobs
    RONGHE_STEPS     processes, or pods: a Kubernetes job for each step  processes
    DAGSTER_HOME     Dagster's instance                                  ./.ronghe/dagster

Credentials (AWS_*, AWS_ENDPOINT_URL, HF_TOKEN) are found by the clients themselves.
"""

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from merge_ops.errors import Fault, SettingsError, did_you_mean
from orchestration.sizes import parse_size

DEVICES = ("auto", "cpu", "cuda")
STEPS = ("processes", "pods")
NAMES = (
    "RONGHE_CATALOG", "RONGHE_STORE", "RONGHE_THREADS", "RONGHE_DEVICE", "RONGHE_MEMORY",
    "RONGHE_RAY", "RONGHE_STEPS", "RONGHE_CATALOG_NAME",
)  # fmt: skip
_CATALOG_NAME = re.compile(r"\w[\w.-]{0,99}")
_CATALOG_NAME_RULE = "it may have 1 to 100 letters, digits, '_', '-' and '.', and no mark in front"
FOR_TESTS = ("RONGHE_REQUIRE_BROWSER", "RONGHE_REQUIRE_POSTGRES")


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


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environment` (default: the process's), with every fault at once.

    Raises SettingsError.
    """
    given = os.environ if environment is None else environment
    faults = [
        *_unknown(given),
        *_device_faults(given),
        *_ray_faults(given),
        *_steps_faults(given),
        *_name_faults(given),
    ]
    threads = _threads(given, faults)
    memory = _memory(given, faults)
    if faults:
        raise SettingsError("the environment", faults)
    here = Path.cwd()
    store = given.get("RONGHE_STORE") or str(here / ".ronghe" / "store")
    return Settings(
        catalog=Path(given.get("RONGHE_CATALOG") or here / "catalog").absolute(),
        store=store if "://" in store else Path(store).absolute().as_uri(),
        threads=threads,
        device=given.get("RONGHE_DEVICE") or "auto",
        memory=memory,
        ray=given.get("RONGHE_RAY") or None,
        dagster_home=Path(given.get("DAGSTER_HOME") or here / ".ronghe" / "dagster").absolute(),
        pods=given.get("RONGHE_STEPS") == "pods",
        catalog_name=given.get("RONGHE_CATALOG_NAME") or None,
    )


def _unknown(given: Mapping[str, str]) -> list[Fault]:
    return [
        Fault(name, f"is no setting.{did_you_mean(name, NAMES)} Known: {', '.join(NAMES)}")
        for name in sorted(given)
        if name.startswith("RONGHE_") and name not in (*NAMES, *FOR_TESTS)
    ]


def _device_faults(given: Mapping[str, str]) -> list[Fault]:
    device = given.get("RONGHE_DEVICE")
    if not device or device in DEVICES:
        return []
    return [Fault("RONGHE_DEVICE", f"is {device!r}; it must be one of {', '.join(DEVICES)}")]


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


def _threads(given: Mapping[str, str], faults: list[Fault]) -> int:
    text = given.get("RONGHE_THREADS") or "0"
    if text.isascii() and text.isdigit():
        return int(text)
    faults.append(
        Fault("RONGHE_THREADS", f"is {text!r}; it must be a whole number, 0 for one thread a core")
    )
    return 0


def _memory(given: Mapping[str, str], faults: list[Fault]) -> int:
    text = given.get("RONGHE_MEMORY")
    if not text:
        return 512 << 20
    try:
        return parse_size("RONGHE_MEMORY", text)
    except SettingsError:
        problem = f"is {text!r}; it must be a number of bytes such as 512MiB or 2GiB"
        faults.append(Fault("RONGHE_MEMORY", problem))
        return 0
