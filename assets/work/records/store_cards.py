"""The card of a checkpoint as it leaves the store, and how it is made again. Knows no Dagster.

What lies in the store says no names, for content is common to all catalogs. Whoever takes a
checkpoint out gets a card that says what this catalog calls the models in it, their licences, the
scores that are known by then, and how to make it again.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.merging.manifests import MAKING
from assets.work.merging.virtual_checkpoints import CHECKPOINT
from assets.work.records.lineage import SHORT, licences_of, lineage
from assets.work.records.stored_names import Named, names_of
from assets.work.scoring.scoring import SCORES, open_scores
from assets.work.upstream.model_facts import facts_by_digest
from eval_ops.errors import EvalError
from merge_ops.errors import ReproductionError
from merge_ops.provenance.hub_card import (
    CARD_FILE,
    CardFacts,
    CardInput,
    CardResult,
    MakingStep,
    Part,
    Reproduction,
    write_card,
)
from merge_ops.provenance.licences import effective
from resources.errors import DamagedArtifactError

if TYPE_CHECKING:
    from eval_ops.scores import SuiteScores
    from merge_ops.provenance.ancestry import Ancestor, Ancestry
    from resources.store import Artifact, ArtifactStore, Ref


def card_of(store: "ArtifactStore", named: Named, called: str | None = None) -> str | None:
    """Return the README.md that a checkpoint leaves the store with; None of a model as pulled.

    `called` is what loads it, such as the folder that it is written to or its name on the Hub. Of a
    checkpoint whose manifest does not say how it is made, by an earlier release, it is None too.
    """
    artifact = store.get(named.kind, named.digest)
    if named.kind != CHECKPOINT or not isinstance(artifact.manifest.get(MAKING), dict):
        return None
    # By name, so that the ancestry says what the name's ref calls the models in it.
    ancestry = lineage(store, _saying(store, named) or named.digest)
    licences = licences_of(ancestry)
    making, plan = artifact.manifest[MAKING], artifact.manifest.get("plan") or {}
    method, recipe = _recipe_of(artifact, ancestry)
    facts = facts_by_digest(store, [each.digest for each in ancestry.sources])
    languages = {
        facts[each.digest].languages if each.digest in facts else () for each in ancestry.sources
    }
    notes: list[str] = []
    try:
        reproduction = reproduction_of(store, artifact, ancestry)
    except ReproductionError as error:
        reproduction = None
        notes.append(f"How to make it again is not known: {error}")
    return write_card(
        CardFacts(
            title=_title(named),
            method=str(plan.get("method")),
            method_source=method,
            inputs=[_input(each) for each in ancestry.parents(ancestry.root)],
            coefficient=str(making["coefficient"]),
            digest=named.digest,
            recipe=recipe,
            config=_config(artifact),
            licence=effective(licences),
            reproduction=reproduction,
            languages=next(iter(languages)) if len(languages) == 1 else (),
            results=list(_results(store, named, notes)),
            excluded=dict.fromkeys(plan.get("excluded") or (), "takes no part in the merge"),
            called=called,
            sources=[CardInput("", each.name, each.digest, each.uri) for each in ancestry.sources],
            notes=notes,
        )
    )


def reproduction_of(
    store: "ArtifactStore", artifact: "Artifact", ancestry: "Ancestry"
) -> Reproduction:
    """Return how a checkpoint is made again: its merges in order, and the digests of its files.

    Raises ReproductionError where a manifest does not say how.
    """
    steps: list[MakingStep] = []
    done: set[str] = set()
    for each in _made_first(ancestry):
        if each.digest in done or each.kind != CHECKPOINT or each.digest in ancestry.missing:
            continue
        done.add(each.digest)
        at = artifact if each.digest == artifact.digest else store.get(CHECKPOINT, each.digest)
        making = at.manifest.get(MAKING)
        if not isinstance(making, dict):
            raise ReproductionError(
                f"{at.uri}: its manifest does not say how it is made: an earlier release wrote it;"
                " `ronghe refresh` of its catalog, into an empty store, makes it anew"
            )
        _, recipe = _recipe_of(at, ancestry)
        called = _called(ancestry, making["models"])
        models: dict[str, tuple[Part, ...]] = {
            str(called.get(name, name)): tuple(
                Part(digest, ancestry.nodes[digest].uri if digest in ancestry.nodes else None)
                for digest in parts
            )
            for name, parts in making["models"].items()
        }
        arithmetic = (at.manifest.get("plan") or {}).get("arithmetic")
        steps.append(MakingStep(at.digest, recipe, models, arithmetic))
    release = (artifact.manifest.get("versions") or {}).get("ronghe")
    files = {path: each.blake3 for path, each in sorted(artifact.files.items())}
    files.pop(CARD_FILE, None)
    return Reproduction(tuple(steps), release, files)


def _made_first(ancestry: "Ancestry") -> Iterator["Ancestor"]:
    """Every content after what it is made of; the root comes last."""
    order: list[Ancestor] = []
    told: set[str] = set()
    waiting: list[tuple[str, bool]] = [(ancestry.root, False)]
    while waiting:
        digest, entered = waiting.pop()
        if entered:
            order.append(ancestry.nodes[digest])
        elif digest not in told:
            told.add(digest)
            waiting.append((digest, True))
            waiting += [(each.digest, False) for each in ancestry.parents(digest)]
    yield from order


def _recipe_of(artifact: "Artifact", ancestry: "Ancestry") -> tuple[str, dict[str, Any]]:
    """The source of the method, and the recipe with the names that the catalog has for models."""
    from merge_ops.recipes import check_recipe
    from merge_ops.recipes.document import recipe_document, with_names

    making = artifact.manifest[MAKING]
    subject = f"checkpoint {artifact.digest[:SHORT]}"
    recipe = check_recipe(dict(making["recipe"]), "made", subject)
    named = with_names(recipe, _called(ancestry, making["models"]))
    return recipe.method.source, recipe_document(named, {})


def _called(ancestry: "Ancestry", models: Mapping[str, Any]) -> dict[str, str]:
    """What numbered models of a recipe are called; numbers stay where names would be one."""
    names_by_number = {
        number: "+".join(
            ancestry.nodes[each].name if each in ancestry.nodes else each[:SHORT] for each in parts
        )
        for number, parts in models.items()
    }
    names_by_number = {n: name if n.startswith("#") else n for n, name in names_by_number.items()}
    if len(set(names_by_number.values())) < len(names_by_number):
        return {}
    return names_by_number


def _saying(store: "ArtifactStore", named: Named) -> str | None:
    """A name of the checkpoint whose ref says what the catalog calls the models in it."""
    if named.ref is not None and "models" in named.ref.fields:
        return named.name
    found = (each for each in names_of(store, named.digest) if each.ref is not None)
    return next((each.name for each in found if each.ref and "models" in each.ref.fields), None)


def _title(named: Named) -> str:
    recipe = named.asset.rpartition("/")[0] if named.asset and "/" in named.asset else named.name
    return recipe or named.name


def _input(each: "Ancestor") -> CardInput:
    return CardInput(each.relation, each.name, each.digest, each.uri, each.weight, each.licence)


def _config(artifact: "Artifact") -> Mapping[str, Any]:
    if artifact.virtual or "config.json" not in artifact.files:
        return {}
    found = artifact.read_json("config.json")
    return found if isinstance(found, dict) else {}


def _results(store: "ArtifactStore", named: Named, notes: list[str]) -> Iterator[CardResult]:
    """The scores on test items that belong to the checkpoint, by the names that point to it.

    Of scores that cannot be read a note says so.
    """
    seen: set[str] = set()
    for each in names_of(store, named.digest):
        if each.asset is None or names.kind_of(each.asset) != names.MERGED_CHECKPOINT:
            continue
        ref = names.ref_of(store, names.scores(each.asset.split("/")[0]), each.partition)
        artifact = store.find(SCORES, ref.digest) if ref is not None else None
        if artifact is None or artifact.digest in seen:
            continue
        seen.add(artifact.digest)
        scored = artifact.manifest.get("checkpoint")
        if isinstance(scored, dict) and scored.get("digest") == named.digest:
            try:
                yield from _of_suite(open_scores(artifact, checked=False))
            except (EvalError, DamagedArtifactError) as error:
                notes.append(f"Scores that are known could not be read: {error}")


def scores_of(store: "ArtifactStore", ref: "Ref | None") -> dict[str, str]:
    """Return the scores of what a name points to, their digests by suite, as its recipe has them.

    `ref` is that of a merged checkpoint's partition, or of a champion.
    """
    if ref is None or "/" not in ref.asset:
        return {}
    recipe, partition = ref.asset.split("/")[0], ref.partition
    if names.kind_of(ref.asset) == names.CHAMPION:
        experts, coefficient = (ref.fields.get(each) for each in ("experts", "coefficient"))
        partition = f"{coefficient}|{experts}" if experts else str(coefficient or "")
    found = names.ref_of(store, names.scores(recipe), partition)
    artifact = store.find(SCORES, found.digest) if found is not None else None
    said = artifact.manifest if artifact is not None else {}
    suite, scored = said.get("suite"), said.get("checkpoint")
    if not isinstance(suite, dict) or not isinstance(scored, dict):
        return {}
    if artifact is None or scored.get("digest") != ref.digest:
        return {}
    return {str(suite.get("name")): artifact.digest}


def _of_suite(scores: "SuiteScores") -> Iterator[CardResult]:
    for each in scores.scores:
        if each.split == "test":
            yield CardResult(
                scores.suite, each.benchmark, each.metric, each.value, each.n, each.low, each.high
            )
