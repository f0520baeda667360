'use strict';
/* The page of one thing: a model, a recipe, a checkpoint or a study, as the place says. */
(function () {
  const R = window.Ronghe;
  const section = (key, ...content) => {
    const kept = content.flat(Infinity).filter(Boolean);
    return kept.length ? R.el('section', {}, R.say('h2', key), kept) : '';
  };
  /* Facts as a list of names and values; those without a value are left out. */
  const facts = (rows) => R.el('dl', {}, rows.filter(([, value]) => value !== '' && value !== null && value !== undefined && value !== false)
    .map(([key, value]) => [R.say('dt', key), R.el('dd', {}, value)]));
  const code = (words) => R.el('pre', { tabindex: '0' }, R.el('code', {}, words));
  const note = (key, kind, ...more) => R.el('p', { class: 'note ' + (kind || '') }, R.mark(key, kind), ' ', ...more);
  const joined = (parts, between) => parts.flatMap((part, place) => (place ? [between, part] : [part]));

  R.pages.artifact = async () => {
    const [kind, ...id] = R.place();
    const index = await R.load('index');
    const show = { model, recipe, checkpoint, study, ...R.further }[kind];
    if (!show || !id.length) throw new Error(kind || 'artifact');
    await show(index, id);
    window.scrollTo(0, 0);
  };

  R.parts = { section, facts, code, note };
  R.further = {}; /* pages of further files, by kind */
  async function one(index, kind, matches, place) {
    const entry = index[kind].find(matches);
    if (!entry) throw new Error(R.place().join('/'));
    return R.load(kind + '-' + entry[place]);
  }

  R.model = async (name) => {
    const index = await R.load('index');
    const chunk = await one(index, 'models', (each) => each[0] === name, 2);
    return chunk.find((each) => each.name === name);
  };

  R.licenceOf = async (name) => {
    const licences = await R.load('licences');
    return licences.model.find((each) => each[0] === name);
  };

  async function model(index, [name]) {
    const record = await R.model(name);
    R.title(name);
    const licence = await R.licenceOf(name);
    const suites = R.have('site').suites.filter((suite) => record.scores[suite.name]);
    const children = index.models.filter(([other]) => other !== name).length ? await childrenOf(index, record) : [];
    R.show(
      record.broken && note('broken', 'bad', R.own(record.broken)),
      record.withdrawn && note('withdrawn', 'bad', R.own(record.withdrawn)),
      record.title && R.el('p', { class: 'lead' }, record.title),
      record.description && R.el('p', {}, record.description),
      facts([
        ['form', R.say('span', 'kind_' + record.kind)],
        ['based_on', record.base && R.link(record.base, R.to('model', record.base))],
        ['licence', licenceLine(licence, record.licence)],
        ['source', record.source && R.el('code', {}, record.source)],
        ['revision', record.revision && R.el('code', {}, record.revision)],
        ['digest', record.digest && R.el('code', {}, record.digest)],
        ['size', record.nbytes && R.bytes(record.nbytes)],
        ['updated', record.at && R.moment(record.at)], ['by', record.by],
        ['changed_entries', record.changed !== null && R.points(record.changed) + ' %'],
        ['task_vector_norm', record.norm]]),
      section('scores', suites.map((suite) => scoreTable(suite, record.scores[suite.name], null))),
      R.have('site').imported ? R.importedTable((await R.load('imported')).filter((row) => row.model === name)) : [],
      section('task_vector', record.layers.length > 0 && R.scroll('task_vector', R.layers(R.t('norm_by_layer') + ': ' + name, [[name, record.layers]])),
        record.layers.length > 0 && R.say('p', 'norm_by_layer', undefined, { class: 'note' })),
      section('ancestry', record.base && R.scroll('ancestry', graphOfModel(record, index))),
      section('used_by', children.length > 0 && R.el('ul', {}, children.map((recipe) => R.el('li', {}, R.link(recipe, R.to('recipe', recipe)))))),
      section('how_to_use', how(record.shell, record.python)),
      section('card', record.card && code(record.card)));
  }

  async function childrenOf(index, record) {
    const licences = await R.load('licences');
    const found = new Set();
    for (const [subject] of licences.merge) {
      const [recipe, experts] = [subject.split(' ')[0], subject.split(' ').slice(1).join(' ')];
      if (experts.split('+').includes(record.name)) found.add(recipe);
    }
    return [...found].sort();
  }

  function graphOfModel(record, index) {
    const known = index.models.find((each) => each[0] === record.base);
    const nodes = [
      { id: 'base', label: record.base, note: known ? known[1] : '', href: R.to('model', record.base), column: 0 },
      { id: 'own', label: record.name, note: record.digest.slice(0, 12), column: 1 }];
    return R.graph(R.t('ancestry'), nodes, [{ from: 'base', to: 'own', label: R.t(record.kind === 'lora' ? 'adapter' : 'fine_tuned') }]);
  }

  const licenceLine = (licence, written) => {
    if (!licence) return written || R.say('span', 'not_stated');
    return [licence[2], ' ', R.link(R.say('span', 'page_licences'), 'licences.html'),
      licence[4].map((duty) => R.el('p', { class: 'note' }, R.own(duty)))];
  };

  function scoreTable(suite, test, validation) {
    const rows = suite.benchmarks.map(([name, title], place) => [title || name, R.interval(test.cells[place]),
      String(test.cells[place] ? test.cells[place][3] : '–'), validation ? R.interval(validation.cells[place]) : '–']);
    if (test.mean) rows.push([R.say('b', 'mean'), R.interval([...test.mean, 1]), '', validation && validation.mean ? R.interval([...validation.mean, 1]) : '–']);
    const drawn = suite.benchmarks.map(([name, title], place) => [title || name, test.cells[place]]).filter(([, cell]) => cell);
    if (test.mean) drawn.push([R.t('mean'), test.mean, true]);
    return [R.el('h3', {}, suite.name),
      R.scroll('scores', R.table([['benchmark'], ['test_items', 'number'], ['items', 'number'], ['validation_items', 'number']], rows)),
      drawn.length > 0 && R.scroll('scores_drawn', R.intervals(R.t('scores') + ': ' + suite.name, drawn))];
  }

  function how(shell, python) {
    const serve = `ronghe pull ${shell} my-model\n\n` +
      `python - <<'EOF'\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n` +
      `model = AutoModelForCausalLM.from_pretrained("my-model")\n` +
      `tokenizer = AutoTokenizer.from_pretrained("my-model")\nEOF\n\n` +
      `vllm serve "$(ronghe path ${shell})"\nronghe lineage ${shell}`;
    return code(serve);
  }

  async function recipe(index, [name]) {
    const chunk = await one(index, 'recipes', (each) => each[0] === name, 1);
    const record = chunk.find((each) => each.name === name);
    R.title(name);
    const champion = record.champion;
    const made = index.checkpoints.filter(([, words]) => words === name || words.startsWith(name + ' '));
    made.sort((a, b) => (b[3] ?? -1) - (a[3] ?? -1));
    const studies = index.studies.filter((each) => each[0] === name);
    const composed = index.compositions.filter((each) => each[0] === name);
    R.show(
      record.broken && note('broken', 'bad', R.own(record.broken)),
      record.title && R.el('p', { class: 'lead' }, record.title),
      record.description && R.el('p', {}, record.description),
      facts([['method', record.method && R.el('code', {}, record.method)], ['suite', record.suite],
        ['checkpoints', String(record.checkpoints)], ['expert_sets', String(record.sets.length)]]),
      section('champion', champion ? [
        champion.stale && note('stale', 'warn', R.own(champion.stale)),
        facts([['point', R.link([champion.experts, champion.coefficient].filter(Boolean).join(' ') || name, R.to('checkpoint', champion.digest.slice(0, 12)))],
          ['digest', R.el('code', {}, champion.digest)], ['since', R.moment(champion.at)], ['because', R.own(champion.because)], ['by', champion.by],
          ['size', R.bytes(champion.nbytes)], ['cost', cost(champion.cost)], ['written', R.say('span', champion.written ? 'yes' : 'virtual')]])]
        : R.say('p', 'no_champion', undefined, { class: 'note' })),
      section('how_to_use', champion && how(record.shell, '')),
      section('course_of_run', record.course && R.courseOf(record.course)),
      section('compositions', composed.length > 0 && R.el('ul', {}, composed.map(([of, experts]) => R.el('li', {}, R.link(experts || of, R.to('composition', of, experts)))))),
      section('recipe_file', record.text && code(record.text)),
      section('studies', studies.length > 0 && R.el('ul', {}, studies.map(([of, experts]) => R.el('li', {}, R.link(experts || of, R.to('study', of, experts)))))),
      section('how_experts_relate', record.cosines.map(([names, rows]) => R.scroll('how_experts_relate',
        R.matrix(R.t('how_experts_relate') + ': ' + names.join('+'), names, rows)))),
      section('checkpoints', made.length > 0 && checkpointList(made)),
      section('card', champion && champion.card && code(champion.card)));
  }

  /* What a merge took, as its manifest says it; nothing where it was never written. */
  const cost = (told) => told && told.seconds !== undefined && [
    R.say('span', 'cost_seconds', { seconds: told.seconds, read: R.bytes(told.bytes_read || 0), written: R.bytes(told.bytes_written || 0) }),
    told.gpu_seconds ? [' ', R.say('span', 'cost_gpu', { seconds: told.gpu_seconds })] : '',
    told.outputs > 1 ? [' ', R.say('span', 'cost_shared', { count: told.outputs })] : ''];

  function checkpointList(made) {
    const AT_ONCE = 100;
    let shown = AT_ONCE;
    const holder = R.el('div', {});
    const draw = () => {
      holder.replaceChildren(R.scroll('checkpoints', R.table([['name'], ['mean', 'number'], ['digest']],
        made.slice(0, shown).map(([digest, words, , mean]) => [R.link(words, R.to('checkpoint', digest)), R.points(mean), R.el('code', {}, digest)]))));
      if (made.length > shown) {
        holder.append(R.say('button', 'show_more', { count: AT_ONCE }, { type: 'button', onclick: () => { shown += AT_ONCE; draw(); } }));
      }
    };
    draw();
    return holder;
  }

  /* Everything that is known of a checkpoint: a digest may have been made by several recipes. */
  R.checkpoints = async (short) => {
    const index = await R.load('index');
    const places = [...new Set(index.checkpoints.filter((each) => each[0] === short).map((each) => each[2]))];
    const chunks = await Promise.all(places.map((place) => R.load('checkpoints-' + place)));
    return chunks.flat().filter((each) => each.digest.startsWith(short));
  };
  R.recipeOf = async (name) => {
    const index = await R.load('index');
    const entry = index.recipes.find((each) => each[0] === name);
    return entry && (await R.load('recipes-' + entry[1])).find((each) => each.name === name);
  };
  R.labelOf = (record) => [record.recipe, record.experts, record.coefficient === 'default' ? '' : record.coefficient].filter(Boolean).join(' ');

  async function checkpoint(index, [short]) {
    const found = await R.checkpoints(short);
    if (!found.length) throw new Error(short);
    const record = found[0], of = await R.recipeOf(record.recipe);
    R.title(R.labelOf(record));
    const suite = R.have('site').suites.find((each) => of && each.name === of.suite);
    const licences = await R.load('licences');
    const licence = licences.merge.find((each) => each[0] === [record.recipe, record.experts].filter(Boolean).join(' '));
    const values = R.parameters(of, record);
    R.show(
      record.withdrawn && note('withdrawn', 'bad', R.own(record.withdrawn)),
      of && of.champion && of.champion.digest === record.digest && note('champion', 'good', R.own(of.champion.because)),
      of && of.title && R.el('p', { class: 'lead' }, of.title),
      R.el('p', {}, R.el('a', { class: 'button', href: R.href('compare', short) }, R.say('span', 'compare_with'))),
      facts([['digest', R.el('code', {}, record.digest)],
        ['made_by', joined(found.map((each) => [R.link(each.recipe, R.to('recipe', each.recipe)), ' ', each.experts, ' ', each.coefficient]), R.el('br', {}))],
        ['made_at', R.moment(record.at)], ['by', record.by],
        ['composition', index.compositions.some((each) => each[0] === record.recipe && each[1] === record.experts) &&
          R.link(R.say('span', 'how_it_is_composed'), R.to('composition', record.recipe, record.experts))],
        ['cost', of && of.champion && of.champion.digest === record.digest && cost(of.champion.cost)],
        ['licence', licence && [licence[2], ' (', R.say('span', 'decided_by'), ': ', licence[3].join(', '), ')',
          licence[5].map((conflict) => R.el('p', { class: 'note bad' }, R.mark('conflict', 'bad'), ' ', R.own(conflict))),
          licence[4].map((duty) => R.el('p', { class: 'note' }, R.own(duty)))]]]),
      section('scores', suite && record.test ? scoreTable(suite, record.test, record.validation) : R.say('p', 'no_scores', undefined, { class: 'note' })),
      section('ancestry', R.scroll('ancestry', await graphOfCheckpoint(index, record, of, values)),
        R.el('details', {}, R.say('summary', 'as_table'), R.table([['name'], ['weight'], ['digest']], Object.entries(record.models).map(([name, digest]) =>
          [known(index, name) ? R.link(name, R.to('model', name)) : name, R.weight(of, values, name) || '–', R.el('code', {}, digest)])))),
      section('parameters', R.table([['name'], ['value']], R.flat(values).map(([name, value]) => [R.el('code', {}, name), value]))),
      section('warnings', record.warnings.length > 0 && R.el('ul', {}, record.warnings.map((warning) => R.el('li', {}, warning)))),
      section('how_to_use', how(record.digest.slice(0, 12), '')),
      section('recipe_file', of && of.text && code(of.text)));
  }

  /* Steps of training runs, and of recipes, have no pages of their own. */
  const known = (index, name) => index.models.some(([own]) => own === name);

  async function graphOfCheckpoint(index, record, of, values) {
    const names = Object.keys(record.models);
    const models = await Promise.all(names.map((name) => R.model(name).catch(() => null)));
    const bases = new Set(models.filter((each) => each && names.includes(each.base)).map((each) => each.base));
    const node = (name, column) => ({ id: 'm ' + name, label: name, note: record.models[name].slice(0, 12), href: known(index, name) ? R.to('model', name) : undefined, column });
    const wide = bases.size > 0 && bases.size < names.length;
    const nodes = names.map((name) => node(name, bases.has(name) || !wide ? 0 : 1));
    const end = wide ? 2 : 1;
    nodes.push({ id: 'own', label: record.recipe, note: record.digest.slice(0, 12), href: R.to('recipe', record.recipe), column: end });
    const edges = [];
    names.forEach((name, place) => {
      const own = models[place];
      if (own && own.base && bases.has(own.base) && wide) edges.push({ from: 'm ' + own.base, to: 'm ' + name, label: own.kind === 'lora' ? 'LoRA' : '' });
      if (!bases.has(name) || !wide) edges.push({ from: 'm ' + name, to: 'own', label: R.weight(of, values, name) });
    });
    return R.graph(R.t('ancestry') + ': ' + R.labelOf(record), nodes, edges);
  }

  /* The parameters of a recipe at one of its points. */
  R.parameters = (of, record) => {
    const result = of && of.documents.length ? of.documents[of.documents.length - 1] : {};
    const point = of && of.coefficients.find(([id]) => id === record.coefficient);
    const { sweep, suite, gate, keep, experts, search, ...document } = result;
    return { ...document, parameters: { ...(document.parameters || {}), ...(point ? point[1] : {}) } };
  };
  /* The share that a recipe gives a model; what is no single number is called so. */
  R.weight = (of, values, name) => {
    const own = (values.models || []).find((each) => each.model === name);
    const weight = own && own.parameters && 'weight' in own.parameters ? own.parameters.weight : values.parameters.weight;
    if (weight === undefined || values.base_model === name) return '';
    return typeof weight === 'number' ? 'w ' + weight : R.t('by_layer');
  };
  /* A document as rows of a dotted name and a value. */
  R.flat = (value, name) => {
    if (Array.isArray(value) && value.some((each) => each !== null && typeof each === 'object')) {
      return value.flatMap((each, place) => R.flat(each, (name || '') + '[' + place + ']'));
    }
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) {
      return Object.entries(value).flatMap(([key, each]) => R.flat(each, name ? name + '.' + key : key));
    }
    return [[name, Array.isArray(value) ? JSON.stringify(value) : String(value)]];
  };

  async function study(index, [name, experts]) {
    const chunk = await one(index, 'studies', (each) => each[0] === name && each[1] === (experts || ''), 2);
    const record = chunk.find((each) => each.recipe === name && each.experts === (experts || ''));
    R.title(name + ' ' + record.experts);
    const front = new Set(record.front);
    const rows = [...record.trials].sort((a, b) => sum(b[2]) - sum(a[2]));
    const best = record.trials.find((trial) => trial[0] === record.best);
    const drawn = record.trials.filter((trial) => trial[2]);
    R.show(
      facts([['recipe', R.link(name, R.to('recipe', name))], ['experts', record.experts], ['sampler', record.sampler],
        ['seed', String(record.seed)], ['trials', String(record.trials.length)], ['ended', record.ended],
        ['best_point', best && R.el('code', {}, JSON.stringify(best[1]))], ['digest', R.el('code', {}, record.digest)]]),
      section('course', drawn.length > 1 && R.scroll('course', course(drawn, record.objectives))),
      section('trials', R.scroll('trials', R.table([['trial', 'number'], ...record.objectives.map((each) => [R.el('span', {}, each), 'number']), ['on_front'], ['parameters'], ['problem']],
        rows.map(([number, point, values, , problem]) => [String(number), ...record.objectives.map((_, place) => (values ? R.points(values[place]) : '–')),
          front.has(number) ? '●' : '', R.el('code', {}, Object.entries(point).map(([key, value]) => key + '=' + value).join(' ')), R.own(problem)])))));
  }
  const sum = (values) => (values ? values.reduce((all, each) => all + each, 0) : -1);

  /* The best so far, trial by trial. */
  function course(trials, objectives) {
    const width = 640, height = 200, left = 46, bottom = 28;
    const means = trials.map((trial) => sum(trial[2]) / objectives.length);
    const low = Math.min(...means), high = Math.max(...means);
    const x = (place) => left + (place / Math.max(1, trials.length - 1)) * (width - left - 12);
    const y = (mean) => 12 + (1 - (mean - low) / Math.max(high - low, 1e-9)) * (height - bottom - 20);
    let best = -Infinity;
    const line = means.map((mean, place) => { best = Math.max(best, mean); return x(place) + ',' + y(best); }).join(' ');
    const tick = (at, words, anchor, rest) => R.svg('text', { x: at, y: rest, class: 'tick', 'text-anchor': anchor }, words);
    return R.svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', class: 'chart', 'aria-label': R.t('course') },
      [low, high].map((mean) => [R.svg('line', { x1: left, y1: y(mean), x2: width - 12, y2: y(mean), class: 'grid' }), tick(left - 6, R.points(mean), 'end', y(mean) + 4)]),
      R.svg('polyline', { points: line, class: 'edge' }),
      means.map((mean, place) => R.svg('circle', { cx: x(place), cy: y(mean), r: 3.5, class: 'dot' }, R.svg('title', {}, trials[place][0] + ': ' + R.points(mean)))),
      tick(left, String(trials[0][0]), 'start', height - 8), tick(width - 12, String(trials[trials.length - 1][0]), 'end', height - 8));
  }
})();
