"""A model card as the Hugging Face Hub has it: front matter, what went in, how to load it.

Conventions: https://huggingface.co/docs/hub/model-cards. Whoever writes a checkpoint out makes its
card then, for the names in it are that person's. A card says nothing of times or of places on a
machine: `base_model` holds ids of the Hub alone, and a model that has none is named in the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from merge_ops.provenance.licences import DISPLAY, NO_ADVICE, UNKNOWN, EffectiveLicence, Licence
from merge_ops.provenance.markdown import as_code, fenced, in_heading, in_markdown
from merge_ops.provenance.reproduction import Reproduction

TAGS = ("merge", "ronghe")
OTHER = "other"
"""The Hub's id for a licence that it has none for."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LONGEST_ID = 96
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
"""What strangers' cards say of languages is passed on where the Hub would take it."""


def hub_id(origin: str | None) -> str | None:
    """Return the Hub's id in a URI such as hf://org/name@commit; None where there is none.

    Old models of the Hub have no owner in their ids (`gpt2`).
    """
    scheme, _, rest = (origin or "").partition("://")
    found = rest.partition("@")[0]
    whole = found if "/" in found else f"models/{found}"
    return found if scheme == "hf" and is_hub_id(whole) else None


def is_hub_id(text: str) -> bool:
    """Tell whether a text may be `org/name` on the Hub, which refuses a card with another one."""
    bad = "--" in text or ".." in text or len(text) > _LONGEST_ID
    return _HUB_ID.fullmatch(text) is not None and not bad


@dataclass(frozen=True)
class CardInput:
    """A card input is one model that went in: role, name, digest, and the name others know it by.

    `origin` is a public URI such as hf://org/name@commit. `licence` is what it states.
    """

    role: str
    name: str
    digest: str | None
    origin: str | None = None
    weight: float | None = None
    licence: str | None = None

    @property
    def hub_id(self) -> str | None:
        """Return its id on the Hub; None where it has none."""
        return hub_id(self.origin)


@dataclass(frozen=True)
class CardResult:
    """A card result is one score of a suite: the metric over n test items, with its interval."""

    suite: str
    benchmark: str
    metric: str
    value: float
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from; see `write_card`. `excluded` holds tensors that are not written.

    `recipe` is the recipe's document, `called` the folder or the Hub's name that loads it. Where
    inputs are results of earlier steps, `sources` are the models that all is made of.
    """

    title: str
    method: str
    method_source: str
    inputs: Sequence[CardInput]
    coefficient: str
    digest: str | None
    recipe: Mapping[str, Any]
    config: Mapping[str, Any]
    licence: EffectiveLicence | None = None
    reproduction: Reproduction | None = None
    languages: Sequence[str] = ()
    results: Sequence[CardResult] = ()
    excluded: Mapping[str, str] = field(default_factory=dict[str, str])
    cautions: Sequence[str] = ()
    called: str | None = None
    sources: Sequence[CardInput] | None = None
    notes: Sequence[str] = ()


def write_card(facts: CardFacts) -> str:
    """Return a card: Markdown with front matter; strangers' words in it stay words."""
    lines = [
        "---",
        _yaml(front_matter(facts)),
        "---",
        "",
        in_heading(facts.title, list(dict.fromkeys(each.name for each in facts.inputs))),
        "",
        f"A merge by the method `{facts.method}` ({facts.method_source}), made with Ronghe.",
        *_displayed(facts.licence),
        "",
        "| role | model | digest (BLAKE3 of its content) | licence |",
        "|---|---|---|---|",
        *map(_row, facts.inputs),
        "",
        f"Coefficient: {as_code(facts.coefficient)}  ",
        f"Plan digest: `{facts.digest or 'not computed: inputs without digests'}`",
        "",
        "The recipe:",
        "",
        *fenced(_yaml(dict(facts.recipe)), "yaml"),
    ]
    for title, listed in (
        ("Not written:", [f"{as_code(n)}: {in_markdown(w)}" for n, w in _sorted(facts.excluded)]),
        ("Warnings:", [in_markdown(caution) for caution in facts.cautions]),
    ):
        lines += ["", title, "", *(f"- {each}" for each in listed)] if listed else []
    lines += [*_loading(facts), *_scores(facts.results), *_licence(facts.licence)]
    lines += [f"\n{in_markdown(note)}" for note in facts.notes]
    if facts.reproduction is not None:
        lines += ["", "## Make it again", "", *fenced(facts.reproduction.to_block(), "yaml")]
    return "\n".join(lines) + "\n"


def front_matter(facts: CardFacts) -> dict[str, Any]:
    """Return what stands between the dashes of a card."""
    front: dict[str, Any] = {}
    named = facts.inputs if facts.sources is None else facts.sources
    ids = list(dict.fromkeys(each.hub_id for each in named if each.hub_id is not None))
    if ids:
        front["base_model"] = ids
        front["base_model_relation"] = "merge"
    front["library_name"] = "diffusers" if "_class_name" in facts.config else "transformers"
    tag = pipeline_tag(facts.config)
    if tag is not None:
        front["pipeline_tag"] = tag
    front["tags"] = [*TAGS, facts.method]
    front |= licence_fields(facts.licence)
    if facts.languages and all(map(_LANGUAGE.fullmatch, facts.languages)):
        front["language"] = list(facts.languages)
    if facts.results:
        front["model-index"] = [_index(facts, tag)]
    return front


def pipeline_tag(config: Mapping[str, Any]) -> str | None:
    """Return the Hub's task of a model with this config; None where the config does not tell."""
    named = config.get("architectures")
    classes = list(map(str, cast("list[object]", named))) if isinstance(named, list) else []
    if any(each.endswith(("ForCausalLM", "LMHeadModel")) for each in classes):
        return "text-generation"
    if any(each.endswith("ForConditionalGeneration") for each in classes):
        return "image-text-to-text" if "vision_config" in config else "text2text-generation"
    return None


def licence_fields(licence: EffectiveLicence | None) -> dict[str, Any]:
    """Return `license` of a card, and `license_name` and `license_link` where the Hub has no id.

    Where several licences that ask for something hold at once it is `other`, named after all.
    """
    if licence is None or licence.licence.id == UNKNOWN:
        return {}
    holding = [each for each in licence.binding if each.rank_name not in _ASK_LITTLE]
    holding = holding or [licence.licence]
    first = holding[0]
    if len(holding) == 1 and first.on_hub:
        return {"license": first.id}
    name = "-and-".join(_slug(each) for each in sorted(holding, key=lambda each: each.id))
    link = {"license_link": first.link} if first.link is not None and len(holding) == 1 else {}
    return {"license": OTHER, "license_name": name, **link}


_ASK_LITTLE = frozenset(("public_domain", "permissive"))


def _slug(licence: Licence) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", licence.id.lower()).strip("-") or UNKNOWN


def _index(facts: CardFacts, tag: str | None) -> dict[str, Any]:
    task = {"type": tag or "text-generation"}
    return {
        "name": facts.title,
        "results": [
            {
                "task": task,
                "dataset": {"name": f"{each.suite}: {each.benchmark}", "type": each.benchmark},
                "metrics": [
                    {
                        "type": each.metric,
                        "value": each.value,
                        "name": f"{each.metric} of {each.n} items",
                    }
                ],
            }
            for each in facts.results
        ],
    }


def _row(each: CardInput) -> str:
    weight = "" if each.weight is None else f", weight {each.weight:g}"
    name = in_markdown(each.origin or each.name)
    licence = in_markdown(each.licence or "not stated")
    return f"| {each.role}{weight} | {name} | `{each.digest or 'unknown'}` | {licence} |"


def _displayed(licence: EffectiveLicence | None) -> list[str]:
    """What licences ask to be shown."""
    shown = [each.text for each in licence.duties if each.kind == DISPLAY] if licence else []
    return ["", *(f"**{in_markdown(text)}**  " for text in dict.fromkeys(shown))] if shown else []


def _loading(facts: CardFacts) -> list[str]:
    if pipeline_tag(facts.config) != "text-generation":
        return []
    name = facts.called or "FOLDER"
    code = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"model = AutoModelForCausalLM.from_pretrained({name!r})",
        f"tokenizer = AutoTokenizer.from_pretrained({name!r})",
    ]
    return ["", "## How to load it", "", *fenced("\n".join(code), "python")]


def _scores(results: Sequence[CardResult]) -> list[str]:
    if not results:
        return []
    rows = [
        f"| {in_markdown(each.suite)} | {in_markdown(each.benchmark)} | {in_markdown(each.metric)}"
        f" | {each.value:.4f} | {each.low:.4f} to {each.high:.4f} | {each.n} |"
        for each in results
    ]
    head = [
        "| suite | benchmark | metric | value | 95 % interval | items |",
        "|---|---|---|---|---|---|",
    ]
    return ["", "## Scores on test items", "", *head, *rows]


def _licence(licence: EffectiveLicence | None) -> list[str]:
    if licence is None:
        return []
    by = ", ".join(map(in_markdown, licence.decided_by))
    link = f" <{licence.licence.link}>" if licence.licence.link else ""
    lines = ["", "## Licence", ""]
    lines.append(f"{in_markdown(licence.licence.name)}, decided by {by}.{link}")
    if len(licence.binding) > 1:
        others = ", ".join(in_markdown(each.id) for each in licence.binding[1:])
        lines += ["", f"These hold too: {others}."]
    if licence.duties:
        lines += ["", "Whoever passes it on has to:", ""]
        lines += [f"- {in_markdown(duty)}" for duty in licence.duties]
    if licence.conflicts:
        lines += ["", "These licences do not go together:", ""]
        lines += [f"- {as_code(c.id)}: {in_markdown(c.because)}" for c in licence.conflicts]
    return [*lines, "", NO_ADVICE]


def _sorted(excluded: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(excluded.items())


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True).rstrip()
