"""`ronghe promote`, `rollback` and `champion`: who is champion, since when, and why."""

from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.ranking.collecting import Contest, RankedRecipe
from assets.work.ranking.crowning import Crowning, promote_by_hand, roll_back
from assets.work.ranking.named_checkpoints import find_checkpoint, recipes_of
from assets.work.records.champion_history import (
    BY_HAND,
    ROLLBACK,
    WITHDRAWAL,
    champion_state,
    history_rows,
)
from assets.work.records.noted_changes import note_change
from merge_ops.errors import Fault, SettingsError, did_you_mean
from orchestration.announcements import announce
from orchestration.catalogs.catalog_name import named_settings
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, marked, print_json, say
from orchestration.commands.pages.site_command import renew_site
from orchestration.commands.store_tables import SHORT, make_console, print_table
from orchestration.settings import Settings, load_settings
from resources.errors import MissingArtifactError

if TYPE_CHECKING:
    from eval_ops.scores.gates import Decision
    from merge_ops.stream import StreamSettings
    from resources.store import ArtifactStore, Ref

LONGEST_REASON = 2000
"""Characters of a reason; every change of a ref is kept for ever."""


def run_promote(name: str, because: str, recipe: str | None, as_json: bool = False) -> None:
    """Make a checkpoint the champion of the recipe that made it, with a reason on record."""
    because, settings = checked_reason("promote", because), load_settings()
    store, contest = open_store(settings), contest_of(settings)
    candidate = find_checkpoint(store, contest, name, recipe)
    made_by = [recipe] if recipe else recipes_of(store, contest, candidate.digest)
    if candidate.recipe is None or (recipe is None and len(made_by) > 1):
        told = ", ".join(made_by) or "none"
        problem = f"is needed: {candidate.label} is made by these recipes: {told}"
        raise SettingsError("ronghe promote", [Fault("--recipe", problem)])
    ranked = _recipe(contest, candidate.recipe, "promote")
    done = promote_by_hand(store, contest, ranked, candidate, because, stream_of(settings))
    verb = "is" if done.changed else "was already, and is,"
    told = f"{candidate.label} {verb} the champion of {ranked.name} ({done.champion.digest})"
    _finish(told, settings, store, ranked, done, as_json)


def run_rollback(recipe: str, because: str, as_json: bool = False) -> None:
    """Make the champion before the present one the champion again, with a reason on record."""
    because, settings = checked_reason("rollback", because), load_settings()
    store, contest = open_store(settings), contest_of(settings)
    ranked = _recipe(contest, recipe, "rollback")
    done = roll_back(store, contest, ranked, because, stream_of(settings))
    before = str(done.before)[:SHORT]
    told = f"the champion of {recipe} is again {done.champion.digest}, and no more {before}"
    _finish(told, settings, store, ranked, done, as_json)


def show_champion(recipe: str, history: bool, as_json: bool = False) -> None:
    """Print a recipe's champion, whether it is stale, and with `history` every change of it."""
    console, store = make_console(), open_store()
    state = champion_state(store, recipe)
    if state is None:
        ref = names.history_of(store, names.champion(recipe))
        if ref is not None and ref.vacant:
            if as_json:
                _print_state(recipe, ref, None, None, history)
            else:
                _print_vacant(console, recipe, ref, history)
            return
        raise MissingArtifactError(
            f"recipe '{recipe}' has no champion in artifact store {store.uri}: no candidate of it"
            " passed its gate yet, or there is no such recipe"
        )
    missing = store.find(state.ref.kind, state.digest) is None
    if as_json:
        _print_state(recipe, state.ref, state.stale, missing, history)
        return
    rows = history_rows(state.ref)
    last = rows[0]
    say(console, f"champion of {recipe}  {state.digest}")
    for key in ("what", "at", "how", "by", "because"):
        say(console, f"  {key:<8} {last[key]}")
    if state.stale:
        say(console, marked("stale:", "yellow", state.stale))
    if history:
        _print_history(console, state.ref)
    if missing:
        say(console, marked("missing:", "red", "the store lacks it; run `ronghe refresh`"))


def _print_state(
    recipe: str, ref: "Ref", stale: str | None, missing: bool | None, history: bool
) -> None:
    """Print a champion as JSON; `missing` is None where there is none."""
    rows = history_rows(ref)
    champion = None if missing is None else ref.digest
    told: dict[str, Any] = {"recipe": recipe, "champion": champion, **_without_champion(rows[0])}
    told |= {"stale": stale, "missing": bool(missing)}
    print_json({**told, "history": rows} if history else told)


def _without_champion(row: dict[str, str]) -> dict[str, str]:
    """A change without the short digest that tables show."""
    return {key: value for key, value in row.items() if key != "champion"}


def _print_vacant(console: PlainConsole, recipe: str, ref: "Ref", history: bool) -> None:
    """Say that a recipe has no champion any more, since when and why."""
    last = history_rows(ref)[0]
    say(console, marked("no champion:", "red", f"{recipe} has none since {last['at']}"))
    say(console, f"  because  {last['because']}")
    say(console, "`ronghe refresh` puts clean candidates before the gate")
    if history:
        _print_history(console, ref)


def _print_history(console: PlainConsole, ref: "Ref") -> None:
    rows = history_rows(ref)
    columns = list(rows[0])
    print_table(console, "history", columns, [[row[key] for key in columns] for row in rows])


def contest_of(settings: Settings) -> Contest:
    """Read what competes from the catalog."""
    from orchestration.catalogs import load_catalog
    from orchestration.definitions import contest_of as of_catalog

    return of_catalog(load_catalog(settings.catalog))


def stream_of(settings: Settings) -> "StreamSettings":
    """Return how to merge, by the settings."""
    from merge_ops.stream import StreamSettings

    return StreamSettings(settings.threads, settings.device, settings.memory)


def _recipe(contest: Contest, name: str, command: str) -> RankedRecipe:
    known = [each.name for each in contest.recipes]
    if name not in known:
        problem = f"is {name!r}.{did_you_mean(name, known)} Recipes with a suite:"
        told = f"{problem} {', '.join(known) or 'none'}"
        raise SettingsError(f"ronghe {command}", [Fault("RECIPE", told)])
    return contest.recipe(name)


def checked_reason(command: str, because: str) -> str:
    """Return a reason on one line. Raises SettingsError where it is empty or too long."""
    text = " ".join(because.split())
    if not text or len(text) > LONGEST_REASON:
        problem = f"is {'empty' if not text else 'too long'}; say why in 1 to {LONGEST_REASON}"
        raise SettingsError(f"ronghe {command}", [Fault("--because", f"{problem} characters")])
    return text


def _finish(
    told: str,
    settings: Settings,
    store: "ArtifactStore",
    recipe: RankedRecipe,
    done: Crowning,
    as_json: bool,
) -> None:
    """Say what was done and what the gate says, and tell the webhook and Dagster's page."""
    state = champion_state(store, recipe.name)
    stale = state.stale if state is not None else None
    told_to = [announce(done.event), note_change(store, done.event)]
    told_to += [tell_dagster(settings, store, recipe.name), renew_site(settings)]
    problems = [each for each in told_to if each is not None]
    undo = _undo(recipe.name, done)
    if as_json:
        gate = done.decision
        print_json(
            {
                "recipe": recipe.name, "champion": done.champion.digest, "before": done.before,
                "changed": done.changed, "because": done.event["because"],
                "by": done.event.get("by"), "stale": stale, "undo": undo, "warnings": problems,
                "gate": gate and {"promote": gate.promote, "reasons": list(gate.reasons)},
            }
        )  # fmt: skip
        return
    console = make_console()
    say(console, told)
    if done.decision is not None:
        _print_gate(console, done.decision)
    say(console, f"on record: by {done.event.get('by')}, because {done.event['because']}")
    if stale:
        say(console, marked("stale:", "yellow", stale))
    for problem in problems:
        say(console, marked("warning:", "yellow", problem))
    other = f"{recipe.name} had no champion before; `ronghe promote NAME` names another one"
    say(console, f"to undo it: {undo}" if undo else other)


def _undo(recipe: str, done: Crowning) -> str | None:
    """The command that takes a change back; None after the first champion: none was before."""
    if done.before is None:
        return None
    rolled_back = done.event["event"] == ROLLBACK
    back = f"promote {done.before[:SHORT]} --recipe" if rolled_back else "rollback"
    return f"ronghe {back} {recipe} --because …"


def _print_gate(console: PlainConsole, decision: "Decision") -> None:
    verdict = "would promote it too" if decision.promote else "would not promote it"
    say(console, f"the gate {verdict}:")
    failed = [check.told for check in decision.checks if check.judged and not check.passed]
    for reason in failed if failed and not decision.promote else decision.reasons:
        say(console, f"  {reason}")


def tell_dagster(settings: Settings, store: "ArtifactStore", recipe: str) -> str | None:
    """Show a change on the champion's page of Dagster, where there is an instance.

    Returns a warning where that was not possible.
    """
    ref = names.history_of(store, names.champion(recipe))
    if ref is None or not (settings.dagster_home / "dagster.yaml").is_file():
        return None
    import dagster as dg

    from assets.evidence.champions import metadata_of_state
    from assets.frame.data_versions import DATA_VERSION
    from orchestration.refreshing.instance import open_instance

    entry, champion = ref.current, "none" if ref.vacant else ref.digest
    how = entry.fields.get(BY_HAND) or WITHDRAWAL
    metadata: dict[str, Any] = {
        "decision": f"{how} by {entry.by}: {entry.fields['because']}",
        "champion": champion,
        **metadata_of_state(champion_state(store, recipe)),
    }
    try:
        with open_instance(named_settings(settings)) as instance:
            event = dg.AssetMaterialization(
                names.champion(recipe).split("/"),
                description="changed by hand, outside a Dagster run",
                metadata=metadata,
                tags={DATA_VERSION: champion},
            )
            instance.report_runless_asset_event(event)
    except Exception as error:  # it is on record in the store all the same
        return f"Dagster's page does not show this yet ({type(error).__name__}: {error})"
    return None
