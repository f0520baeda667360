"""What is not installed everywhere, and the extra of the package `ronghe` that brings it."""

import importlib.util

EXTRAS = {
    "torch": ("torch",),
    "hub": ("huggingface_hub",),
    "signing": ("cryptography", "model_signing"),
    "lineage": ("openlineage",),
    "platform": (
        "absl", "accelerate", "botocore", "cma", "dagster", "dagster_shared", "dagster_webserver",
        "datasets", "jinja2", "lm_eval", "markupsafe", "matplotlib", "optuna", "pyarrow",
        "pydantic", "pylopdf_fonts_zh_cn", "rouge_score", "s3fs", "scipy", "sqlalchemy",
        "tokenizers", "transformers", "urllib3", "uvicorn",
    ),
    "ray": ("dagster_ray", "ray"),
    "team": ("dagster_postgres", "psycopg2"),
    "kubernetes": ("dagster_k8s", "kubernetes"),
}  # fmt: skip
"""An extra of pyproject.toml → modules that come with it and may be missing without it."""


def extra_of(module: str) -> str | None:
    """The extra that brings a module, None where none does."""
    top = module.partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if top in modules), None)


def advice(command: str, error: ModuleNotFoundError) -> str | None:
    """One line that says what to install for a missing module; None where no extra has it."""
    extra = extra_of(error.name or "")
    if extra is None:
        return None
    return (
        f"{command} needs the package {error.name} here, which is not installed; run: "
        f"pip install 'ronghe[{extra}]'"
    )


def require(module: str) -> None:
    """Say now that a module is missing, before work that would be lost.

    Raises ModuleNotFoundError, of which `advice` makes a line.
    """
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
