"""`ronghe withdraw`: a model is not to be used any more, and neither is what was made from it."""

from collections.abc import Sequence

from assets.work import names
from assets.work.records.noted_changes import note_change
from assets.work.records.withdrawal import told
from assets.work.records.withdrawing import Outcome, Touched, take_back, withdraw
from orchestration.announcements import announce
from orchestration.catalogs.catalog_name import named_settings
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, marked, print_json, say
from orchestration.commands.evidence.champion_commands import (
    checked_reason,
    stream_of,
    tell_dagster,
)
from orchestration.commands.list_command import quoted
from orchestration.commands.pages.site_command import renew_site
from orchestration.commands.store_tables import make_list_console
from orchestration.settings import Settings, load_settings
from resources.store import ArtifactStore

MOST_NAMED = 20
"""Names that a withdrawal touches and that are printed; `--json` prints all."""
CHECKED = ("model", names.MERGED_CHECKPOINT, names.STEP, names.CHAMPION)
"""Kinds of assets that Dagster shows the check of."""


def run_withdraw(
    name: str, because: str, warn_only: bool = False, undo: bool = False, as_json: bool = False
) -> None:
    """Withdraw a model or take that back, and say what rests on it and which champions went.

    Raises SettingsError for a reason that is none, and what `withdraw` and `take_back` raise.
    """
    because, settings = checked_reason("withdraw", because), load_settings()
    store, console = open_store(settings), make_list_console()
    aside = PlainConsole(stderr=True)
    if undo:
        outcome = take_back(store, name, because)
    else:
        suites = _suites(settings, aside)
        stream = stream_of(settings)
        outcome = withdraw(
            store, name, because, warn_only, stream, suites, lambda line: say(aside, line)
        )
    problems = [announce(event) for event in outcome.events]
    problems += [note_change(store, event) for event in outcome.events]
    problems += [tell_dagster(settings, store, each.recipe) for each in outcome.demotions]
    problems.append(_tell_dagster(settings, store, outcome.touched))
    problems.append(renew_site(settings))
    if as_json:
        print_json(outcome.to_json())
    else:
        _print(console, outcome, undo)
    for problem in problems:
        if problem is not None:
            say(aside, marked("warning:", "yellow", problem))


def _print(console: PlainConsole, outcome: Outcome, undo: bool) -> None:
    versions = ", ".join(digest[:12] for digest in outcome.digests)
    many = f" ({len(outcome.digests)} versions: {versions})"
    verb = "is withdrawn no more" if undo else "is withdrawn"
    before = "" if outcome.changed else "; it was before, for the same reason"
    say(console, f"{outcome.name} {verb}{many if len(outcome.digests) > 1 else ''}{before}")
    rest = "rested" if undo else "rest"
    say(console, f"{len(outcome.touched)} names of this catalog {rest} on it:")
    for each in outcome.touched[:MOST_NAMED]:
        left = f": still withdrawn: {told(each.left)}" if undo and each.left else ""
        say(console, f"  {each.name}  {each.digest[:12]}{left}")
    if len(outcome.touched) > MOST_NAMED:
        more = len(outcome.touched) - MOST_NAMED
        say(console, f"  and {more} more; `ronghe ls --withdrawn --kind all` lists them")
    for demotion in outcome.demotions:
        mark = "demoted:" if demotion.champion else "no champion:"
        say(console, marked(mark, "yellow" if demotion.champion else "red", demotion))
    for recipe in outcome.standing:
        say(
            console, marked("warning:", "yellow", f"the champion of {recipe} rests on it and stays")
        )
    if outcome.others:
        listed = ", ".join(outcome.others)
        say(console, f"champions of the store's other catalogs follow at their refresh: {listed}")
    if undo:
        say(console, "no champion changes by this; `ronghe refresh` asks the gate anew")
    else:
        say(console, f"to undo it: ronghe withdraw {quoted(outcome.name)} --undo --because …")


def _suites(settings: Settings, console: PlainConsole) -> dict[str, str]:
    """The suite of each recipe, for the events; a broken catalog stops no withdrawal."""
    from merge_ops.errors import RongheError
    from orchestration.commands.evidence import champion_commands

    try:
        contest = champion_commands.contest_of(settings)
    except (RongheError, OSError) as error:
        say(console, marked("warning:", "yellow", f"the catalog cannot be read: {error}"))
        return {}
    return {recipe.name: recipe.suite for recipe in contest.recipes}


def _tell_dagster(
    settings: Settings, store: ArtifactStore, touched: Sequence[Touched]
) -> str | None:
    """Fail, or pass, the check of everything that is touched, where there is an instance."""
    by_asset: dict[str, list[str | None]] = {}
    for each in touched:
        if names.kind_of(each.asset) in CHECKED:
            by_asset.setdefault(each.asset, []).append(each.partition)
    if not by_asset or not (settings.dagster_home / "dagster.yaml").is_file():
        return None
    import dagster as dg

    from assets.checks import evaluations
    from assets.withdrawal_checks import CHECK, found_in
    from orchestration.refreshing.instance import open_instance

    try:
        with open_instance(named_settings(settings)) as instance:
            # Of one partition Dagster keeps one evaluation a run, and one without any run.
            run = dg.DagsterRun("ronghe_withdraw", status=dg.DagsterRunStatus.SUCCESS)
            instance.add_run(run)
            for asset, partitions in by_asset.items():
                found = found_in(store, asset, partitions)  # as it is now, after any demotion
                problems = {each: told(found.get(each, ())) for each in partitions}
                key = dg.AssetKey(asset.split("/"))
                for event in evaluations(instance, key, CHECK, problems):
                    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION.value
                    told_event = dg.DagsterEvent(kind, run.job_name, event_specific_data=event)
                    instance.report_dagster_event(told_event, run.run_id)
    except Exception as error:  # it is on record in the store all the same
        return f"Dagster's page does not show this yet ({type(error).__name__}: {error})"
    return None
