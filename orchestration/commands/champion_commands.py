"""`ronghe compare`, `promote`, `rollback` and `champion`: who is champion, since when, and why."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.champion_history import (
    BY_HAND,
    ROLLBACK,
    WITHDRAWAL,
    champion_state,
    history_rows,
)
from assets.work.collecting import Contest, RankedRecipe
from assets.work.crowning import Crowning, promote_by_hand, roll_back
from assets.work.named_checkpoints import (
    NamedCheckpoint,
    find_checkpoint,
    recipes_of,
    scores_on,
)
from assets.work.suite_files import load_suite
from merge_ops.errors import Fault, SettingsError, did_you_mean
from orchestration.announcements import announce
from orchestration.catalogs.catalog_name import named_settings
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, marked, say
from orchestration.commands.site_command import renew_site
from orchestration.commands.store_tables import SHORT, make_console, print_table
from orchestration.settings import Settings, load_settings
from resources.errors import MissingArtifactError

if TYPE_CHECKING:
    from eval_ops.scores import SuiteScores
    from eval_ops.scores.gates import Decision
    from eval_ops.scores.leaderboard import Comparison
    from merge_ops.stream import StreamSettings
    from resources.store import ArtifactStore, Ref

LONGEST_REASON = 2000
"""Characters of a reason; every change of a ref is kept for ever."""


def run_compare(first: str, second: str, suite: str | None) -> None:
    """Print two checkpoints' scores side by side, by benchmark, and whether one is better."""
    settings, console = load_settings(), make_console()
    store, contest = open_store(settings), contest_of(settings)
    ours, theirs = (find_checkpoint(store, contest, name) for name in (first, second))
    if suite is not None and suite not in contest.suites:
        problem = f"is {suite!r}.{did_you_mean(suite, contest.suites)} The catalog's recipes are"
        told = f"{problem} scored on {', '.join(contest.suites) or 'none'}"
        raise SettingsError("ronghe compare", [Fault("--suite", told)])
    compared = False
    for name in [suite] if suite is not None else list(contest.suites):
        loaded = load_suite(contest.suites[name])
        pair = [scores_on(store, each.digest, loaded) for each in (ours, theirs)]
        if pair[0] is not None and pair[1] is not None:
            _print_comparison(console, name, (ours, theirs), (pair[0], pair[1]))
            compared = True
        elif suite is not None or any(pair):
            lacking = " and ".join(
                each.label
                for each, of_it in zip((ours, theirs), pair, strict=True)
                if of_it is None
            )
            say(console, f"suite {name}: no scores of {lacking}; `ronghe refresh` makes them")
    if not compared:
        raise SystemExit(1)


def run_promote(name: str, because: str, recipe: str | None) -> None:
    """Make a checkpoint the champion of the recipe that made it, with a reason on record."""
    because, settings, console = checked_reason("promote", because), load_settings(), make_console()
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
    say(console, f"{candidate.label} {verb} the champion of {ranked.name} ({done.champion.digest})")
    _finish(console, settings, store, ranked, done)


def run_rollback(recipe: str, because: str) -> None:
    """Make the champion before the present one the champion again, with a reason on record."""
    because, settings, console = (
        checked_reason("rollback", because),
        load_settings(),
        make_console(),
    )
    store, contest = open_store(settings), contest_of(settings)
    ranked = _recipe(contest, recipe, "rollback")
    done = roll_back(store, contest, ranked, because, stream_of(settings))
    before = str(done.before)[:SHORT]
    say(console, f"the champion of {recipe} is again {done.champion.digest}, and no more {before}")
    _finish(console, settings, store, ranked, done)


def show_champion(recipe: str, history: bool) -> None:
    """Print a recipe's champion, whether it is stale, and with `history` every change of it."""
    console, store = make_console(), open_store()
    state = champion_state(store, recipe)
    if state is None:
        ref = names.history_of(store, names.champion(recipe))
        if ref is not None and ref.vacant:
            _print_vacant(console, recipe, ref, history)
            return
        raise MissingArtifactError(
            f"recipe '{recipe}' has no champion in artifact store {store.uri}: no candidate of it"
            " passed its gate yet, or there is no such recipe"
        )
    rows = history_rows(state.ref)
    last = rows[0]
    say(console, f"champion of {recipe}  {state.digest}")
    for key in ("what", "at", "how", "by", "because"):
        say(console, f"  {key:<8} {last[key]}")
    if state.stale:
        say(console, marked("stale:", "yellow", state.stale))
    if history:
        _print_history(console, state.ref)
    kind = state.ref.kind
    if store.find(kind, state.digest) is None:
        say(console, marked("missing:", "red", "the store lacks it; run `ronghe refresh`"))


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
    console: PlainConsole,
    settings: Settings,
    store: "ArtifactStore",
    recipe: RankedRecipe,
    done: Crowning,
) -> None:
    """Say what the gate says, and tell the webhook and Dagster's page."""
    if done.decision is not None:
        _print_gate(console, done.decision)
    by = done.event.get("by")
    say(console, f"on record: by {by}, because {done.event['because']}")
    state = champion_state(store, recipe.name)
    if state is not None and state.stale:
        say(console, marked("stale:", "yellow", state.stale))
    told = tell_dagster(settings, store, recipe.name)
    problems = [announce(done.event), told, renew_site(settings)]
    for problem in problems:
        if problem is not None:
            say(console, marked("warning:", "yellow", problem))
    back = f"promote {str(done.before)[:SHORT]} --recipe" if _is_rollback(done) else "rollback"
    say(console, f"to undo it: ronghe {back} {recipe.name} --because …")


def _is_rollback(done: Crowning) -> bool:
    return done.event["event"] == ROLLBACK


def _print_gate(console: PlainConsole, decision: "Decision") -> None:
    verdict = "would promote it too" if decision.promote else "would not promote it"
    say(console, f"the gate {verdict}:")
    for reason in decision.reasons:
        say(console, f"  {reason}")


def tell_dagster(settings: Settings, store: "ArtifactStore", recipe: str) -> str | None:
    """Show a change on the champion's page of Dagster, where there is an instance.

    Returns a warning where that was not possible.
    """
    ref = names.history_of(store, names.champion(recipe))
    if ref is None or not (settings.dagster_home / "dagster.yaml").is_file():
        return None
    import dagster as dg

    from assets.champions import metadata_of_state
    from orchestration.refreshing.refresh import open_instance

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
                tags={"dagster/data_version": champion},
            )
            instance.report_runless_asset_event(event)
    except Exception as error:  # it is on record in the store all the same
        return f"Dagster's page does not show this yet ({type(error).__name__}: {error})"
    return None


def _print_comparison(
    console: PlainConsole,
    suite: str,
    both: tuple[NamedCheckpoint, NamedCheckpoint],
    scores: "tuple[SuiteScores, SuiteScores]",
) -> None:
    from eval_ops.scores import compare

    ours, theirs = scores
    parts = {name: compare(ours, theirs, benchmarks=[name]) for name in ours.benchmarks}
    whole = compare(ours, theirs)
    adjusted = _adjusted(parts)
    rows = [
        (
            name,
            f"{100 * ours.score(name).value:.1f}",
            f"{100 * theirs.score(name).value:.1f}",
            _difference(each),
            f"{each.low * 100:+.1f} to {each.high * 100:+.1f}",
            "–" if each.p_value is None else f"{each.p_value:.2g}",
            *([adjusted[name]] if adjusted else []),
            each.verdict,
            str(each.n),
        )
        for name, each in parts.items()
    ]
    rows.append(
        (
            "mean",
            f"{100 * ours.mean().value:.1f}",
            f"{100 * theirs.mean().value:.1f}",
            _difference(whole),
            f"{whole.low * 100:+.1f} to {whole.high * 100:+.1f}",
            "–" if whole.p_value is None else f"{whole.p_value:.2g}",
            *(["–"] if adjusted else []),
            whole.verdict,
            str(whole.n),
        )
    )
    say(console, f"A  {both[0].label}  {both[0].digest[:SHORT]}")
    say(console, f"B  {both[1].label}  {both[1].digest[:SHORT]}")
    level = f"{100 * whole.confidence:g} % interval"
    holm = ("p (Holm)",) if adjusted else ()
    columns = ("benchmark", "A", "B", "A - B", level, "p", *holm, "A is", "items")
    print_table(console, f"suite {suite}: points of the same test items", columns, rows)
    told = {"better": "A is better than B", "worse": "A is worse than B"}
    say(console, f"suite {suite}: {told.get(whole.verdict, 'undecided: the tests show no better')}")


def _difference(comparison: "Comparison") -> str:
    return f"{100 * comparison.difference:+.1f}"


def _adjusted(parts: "Mapping[str, Comparison]") -> dict[str, str]:
    """The benchmarks' p-values, adjusted for their number by Holm; empty where one has none."""
    from eval_ops.scores.gates import holm

    values = {name: each.p_value for name, each in parts.items() if each.p_value is not None}
    if len(values) < len(parts) or len(parts) < 2:
        return {}
    return {name: f"{value:.2g}" for name, value in holm(values).items()}
