"""What is wrong between a recipe's file and the rest of the catalog, all of it at once.

In a file of several documents those with `experts` take the experts of the partition's set, and
must all ask for the same sets; the others merge the models of the catalog that they list and the
results of other documents. All experts of a file have one base model.
"""

from collections.abc import Iterable, Iterator

from merge_ops.errors import Fault, did_you_mean
from merge_ops.recipes import ALL, ALL_PAIRS, Recipe, Steps
from orchestration.catalogs.catalog import Catalog
from orchestration.catalogs.names import BANNED, RECIPE_NAME, name_rule
from orchestration.catalogs.structure_faults import structure_faults

LEAST_EXPERTS, LEAST_BENCHMARKS = 3, 2
"""What correlations of benchmarks over experts are worked out from
(eval_ops.scores.matrices.soups).
"""


def recipe_faults(catalog: Catalog, steps: Steps) -> Iterator[Fault]:
    """Yield every fault of one file of `recipes/`."""
    recipe, file = steps.result, f"recipes/{steps.result.name}.yaml"
    takers = [each for each in steps.recipes if each.experts]
    if not takers and not any(each.structure for each in steps.recipes):
        where = " in every document" if steps.earlier else ""
        problem = f"is missing{where}; allowed: {ALL_PAIRS}, {ALL}, lists of names"
        yield Fault(f"{file}: experts", problem)
    yield from _step_name_faults(catalog, steps, file)
    for document in steps.recipes:
        place = f"{file}: document {document.name}" if steps.earlier else file
        yield from structure_faults(catalog, steps, document, place)
        for name in document.missing_parameters:
            problem = f"has no value, and {document.merge_method} requires it"
            yield Fault(f"{place}: parameters.{name}", problem)
    one_base = list(_base_faults(catalog, steps, file))
    yield from one_base
    if not one_base:
        base = catalog.base_of(recipe)
        for document in steps.recipes:
            place = f"{file}: document {document.name}" if steps.earlier else file
            if document.structure is None:
                yield from _name_faults(catalog, steps, document, base, place)
            yield from _router_faults(catalog, document, base, place)
        yield from _set_faults(catalog, takers, base, file)
    for coefficient in recipe.coefficients():
        if BANNED.search(coefficient.id.replace("+", "")):
            problem = f"gives the coefficient {coefficient.id!r}; {name_rule()}"
            yield Fault(f"{file}: sweep", problem)
    yield from _gate_faults(recipe, file)
    if recipe.search:
        yield from _search_faults(catalog, recipe, file)
    if recipe.soup == "soce":
        yield from _category_faults(catalog, recipe, file)


def suite_fault(catalog: Catalog, steps: Steps) -> Fault | None:
    """Say that the suite of a file is not there; its checkpoints can be merged, not scored."""
    suite, file = steps.result.suite, f"recipes/{steps.result.name}.yaml"
    if suite is None or suite in catalog.suites:
        return None
    hint = did_you_mean(suite, catalog.suites)
    known = ", ".join(catalog.suites) or "none"
    return Fault(f"{file}: suite", f"is '{suite}', not in suites/.{hint} Known: {known}")


def _router_faults(catalog: Catalog, document: Recipe, base: str, place: str) -> Iterator[Fault]:
    """What `router` takes must take part in every set of experts."""
    policy = document.router
    if policy is None or not document.experts:
        return
    listed = {entry.model for entry in document.models}
    if policy.kind == "base" and not document.on_task_vectors:
        problem = f"is 'base', and {document.merge_method} with `experts` has none; write"
        yield Fault(f"{place}: router", f"{problem} `router: expert:NAME` for one of `models`")
    elif policy.expert is not None and policy.expert not in listed:
        for each in catalog.sets_asked(document, base):
            if policy.expert not in each.split("+"):
                problem = f"takes routers from '{policy.expert}', which is not in the set {each}"
                yield Fault(f"{place}: router", f"{problem}; choose sets that all have it")
                return


def _step_name_faults(catalog: Catalog, steps: Steps, file: str) -> Iterator[Fault]:
    for step in steps.earlier:
        where = f"{file}: document {step.name}: name"
        if step.name in catalog.models:
            yield Fault(where, "is the name of a model of the catalog; call the result otherwise")
        elif not RECIPE_NAME.fullmatch(step.name):
            yield Fault(where, "may hold letters, digits and '_' (it names an asset)")


def _base_faults(catalog: Catalog, steps: Steps, file: str) -> Iterator[Fault]:
    """There is one base model whose experts the file merges, and it can be told which."""
    made, known = {each.name for each in steps.earlier}, ", ".join(catalog.bases) or "none"
    named: dict[str, None] = {}
    merges = [each for each in steps.recipes if each.structure is None]
    for document in merges:
        place = f"{file}: document {document.name}" if steps.earlier else file
        base = document.base_model
        if base is not None and base not in made:
            model = catalog.models.get(base)
            expert = model is not None and model.base is not None
            if base not in catalog.bases and not (expert and not document.experts):
                hint = did_you_mean(base, catalog.bases)
                problem = f"is '{base}', which is the base of no expert.{hint} Known: {known}"
                yield Fault(f"{place}: base_model", problem)
                return
            named[(model and model.base) or base] = None
    if len(named) > 1:
        problem = f"has experts of several base models, and a file has one: {', '.join(named)}"
        yield Fault(f"{file}: base_model", problem)
    elif merges and not named and len(catalog.bases) != 1 and _names_models(catalog, merges):
        yield Fault(f"{file}: base_model", f"is missing; the catalog's base models: {known}")


def _names_models(catalog: Catalog, merges: Iterable[Recipe]) -> bool:
    """Whether merges take experts, or models of the catalog, and not results of steps alone."""
    return any(
        each.experts or any(name in catalog.models for name in each.referenced_models)
        for each in merges
    )


def _name_faults(
    catalog: Catalog, steps: Steps, document: Recipe, base: str, place: str
) -> Iterator[Fault]:
    """What one document names: the base model, experts of it, and results of other documents."""
    experts = catalog.experts_of(base)
    made = [each.name for each in steps.earlier]
    named = [name for entry in document.experts if not isinstance(entry, str) for name in entry]
    for name in dict.fromkeys(named):
        if name not in experts:
            hint = did_you_mean(name, experts)
            problem = f"names '{name}', which is no expert of '{base}'.{hint}"
            yield Fault(f"{place}: experts", f"{problem} Known: {', '.join(experts)}")
    if document.experts and document.base_model in made and not document.on_task_vectors:
        problem = f"is the result of another document, but {document.merge_method} with `experts`"
        yield Fault(f"{place}: base_model", f"{problem} starts at the first; list it in `models`")
    known = (base, *experts, *made)
    neither = f"which is neither '{base}' nor an expert of it{' nor a document' if made else ''}."
    for where, name in _named(document):
        if name not in known:
            hint = did_you_mean(name, known)
            yield Fault(f"{place}: {where}", f"is '{name}', {neither}{hint}")
    for name in document.tokenizer.model_names if document.tokenizer else ():
        if name not in known:
            hint = did_you_mean(name, known)
            yield Fault(f"{place}: tokenizer", f"names '{name}', {neither}{hint}")


def _named(document: Recipe) -> Iterator[tuple[str, str]]:
    """The models that a document lists, each with its place."""
    for position, entry in enumerate(document.models):
        yield f"models[{position}].model", entry.model
    if not document.merges_whole_models:
        for section in document.sections:
            where = f"{section.where}slices" if section.slices else f"{section.where}models"
            for name in dict.fromkeys(section.model_names):
                yield where, name


def _set_faults(
    catalog: Catalog, takers: Iterable[Recipe], base: str, file: str
) -> Iterator[Fault]:
    """Every document with `experts` gives sets, and all the same."""
    asked = {document.name: catalog.sets_asked(document, base) for document in takers}
    for document in takers:
        if not asked[document.name]:
            problem = f"gives no expert set that {document.merge_method} can merge"
            where = f"document {document.name}: " if len(asked) > 1 else ""
            yield Fault(f"{file}: {where}experts", problem)
    if len(set(asked.values())) > 1:
        told = "; ".join(f"{name} gives {', '.join(sets)}" for name, sets in asked.items() if sets)
        problem = f"must ask for the same sets in every document that has it; {told}"
        yield Fault(f"{file}: experts", problem)


def _search_faults(catalog: Catalog, recipe: Recipe, file: str) -> Iterator[Fault]:
    from eval_ops.errors import SearchError
    from eval_ops.search import MEAN, check_search, space_of

    try:
        settings = check_search(recipe.search)
        for each in catalog.sets_of(recipe)[-1:]:
            space_of(settings, each.split("+"))
    except SearchError as error:
        for fault in error.faults:
            yield Fault(f"{file}: search", fault)
        return
    known = catalog.suite_benchmarks.get(recipe.suite or "")
    for name in settings.objectives if known is not None else ():
        if name != MEAN and name not in (known or ()):
            told = f"is no benchmark of suite {recipe.suite}.{did_you_mean(name, known or ())}"
            allowed = ", ".join((MEAN, *(known or ())))
            yield Fault(f"{file}: search.objective", f"'{name}' {told} Allowed: {allowed}")


def _category_faults(catalog: Catalog, recipe: Recipe, file: str) -> Iterator[Fault]:
    """What SoCE lacks: of two experts, or on one benchmark, nothing correlates."""
    for each in catalog.sets_of(recipe):
        if len(each.split("+")) < LEAST_EXPERTS:
            problem = f"needs {LEAST_EXPERTS} experts in each set, and one is '{each}'"
            yield Fault(f"{file}: soup", f"is 'soce', which {problem}; or use `soup: greedy`")
            break
    known = catalog.suite_benchmarks.get(recipe.suite or "")
    if known is not None and len(known) < LEAST_BENCHMARKS:
        problem = f"needs {LEAST_BENCHMARKS} benchmarks, and suite '{recipe.suite}' has one"
        yield Fault(f"{file}: soup", f"is 'soce', which {problem}; or use `soup: greedy`")


def _gate_faults(recipe: Recipe, file: str) -> Iterator[Fault]:
    from eval_ops.errors import GateError
    from eval_ops.scores.gates import parse_gate

    try:
        parse_gate(recipe.gate)
    except GateError as error:
        for fault in error.faults:
            yield Fault(f"{file}: gate", fault)
