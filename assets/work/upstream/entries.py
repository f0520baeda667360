"""What the catalog says of one model, or of a training run, in the form the assets use."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class UpstreamModel:
    """An upstream model is one entry of models.yaml.

    `source` is a URI or a path relative to the catalog's folder; `base` is the base model's name
    for an expert and None for a base model itself. `store` says how a full expert is kept; None:
    packed where that saves enough, full otherwise. `follow_links` lets the links of a folder of
    one's own lead out of it. With `faults` the entry is broken: the name is kept for what hangs on
    it, and the model can be neither looked at nor pulled. `title` and `description` are for people.
    A download of more than `max_size` bytes is refused.
    """

    name: str
    source: str
    base: str | None = None
    kind: Literal["full", "lora"] = "full"
    licence: str | None = None
    description: str | None = None
    store: Literal["full", "packed"] | None = None
    follow_links: bool = False
    faults: tuple[str, ...] = ()
    title: str | None = None
    max_size: int | None = None


@dataclass(frozen=True)
class TrainingRun:
    """A training run is one entry of `runs:` in models.yaml; each of its steps is a model.

    `steps` says where they are: a folder with a sub-folder for each step, or a reference with
    `{step}` in it. The other fields are those of every step, as `UpstreamModel` has them.
    """

    name: str
    steps: str
    licence: str | None = None
    title: str | None = None
    description: str | None = None
    follow_links: bool = False
    max_size: int | None = None

    def model_of(self, step: int, reference: str) -> UpstreamModel:
        """Return a step as a model: `NAME@STEP`, which lies at `reference`."""
        return UpstreamModel(
            name=step_name(self.name, step),
            source=reference,
            licence=self.licence,
            store="full",
            follow_links=self.follow_links,
            max_size=self.max_size,
        )


def step_name(run: str, step: int) -> str:
    """Return what the model of a run's step is called: `NAME@STEP`."""
    return f"{run}@{step}"


def run_and_step(name: str) -> tuple[str, int]:
    """Return the run and the step of a model that `step_name` has named."""
    run, _, step = name.rpartition("@")
    return run, int(step)
