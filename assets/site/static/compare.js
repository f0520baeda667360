'use strict';
/* Two artifacts side by side: scores on the same questions, parameters, recipes, layers. */
(function () {
  const R = window.Ronghe;

  R.pages.compare = async () => {
    const index = await R.load('index');
    const ids = R.place();
    const sides = await Promise.all([0, 1].map((side) => open(ids[side])));
    const view = [R.el('div', { class: 'pair' }, [0, 1].map((side) => chooser(index, side, ids, sides[side])))];
    if (sides[0] && sides[1]) view.push(...(await compared(sides[0], sides[1])));
    else view.push(R.say('p', 'choose_two', undefined, { class: 'note' }));
    R.show(view);
  };

  /* What a name or a short digest stands for: a model or a checkpoint. */
  async function open(id) {
    if (!id) return null;
    const index = await R.load('index');
    const model = index.models.find((each) => each[0] === id || each[1] === id);
    if (model) {
      const record = await R.model(model[0]);
      return { kind: 'model', id, label: model[0], digest: record.digest, record, page: R.to('model', model[0]), scores: record.scores };
    }
    const [record] = await R.checkpoints(id);
    if (!record) return null;
    const recipe = await R.recipeOf(record.recipe);
    const scores = recipe && record.test ? { [recipe.suite]: record.test } : {};
    return { kind: 'checkpoint', id, label: R.labelOf(record), digest: record.digest, record, recipe, page: R.to('checkpoint', id), scores };
  }

  function chooser(index, side, ids, chosen) {
    const every = [...index.models.map(([name, digest]) => [name, name, digest]), ...index.checkpoints.map(([digest, words]) => [digest, words, digest])];
    const list = R.el('ul', { class: 'choices' });
    const input = R.el('input', { type: 'search', id: 'side' + side, autocomplete: 'off', oninput: () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = words.length ? every.filter(([, name, digest]) => words.every((word) => (name + ' ' + digest).toLowerCase().includes(word))) : [];
      list.replaceChildren(...found.slice(0, 20).map(([id, name]) => R.el('li', {}, R.el('button', { type: 'button', onclick: () => {
        const next = [ids[0] || '', ids[1] || ''];
        next[side] = id;
        location.hash = '#' + next.map((each) => encodeURIComponent(each || '-')).join('/');
      } }, name))));
    } });
    return R.el('div', { class: 'side' },
      R.el('p', { class: 'chosen-name' }, side ? 'B: ' : 'A: ', chosen ? R.link(chosen.label, chosen.page) : '–'),
      R.el('label', {}, R.say('span', 'search'), ' ', input), list);
  }

  async function compared(a, b) {
    const parts = [];
    for (const suite of R.have('site').suites) {
      if (a.scores[suite.name] && b.scores[suite.name]) {
        parts.push(R.el('h2', {}, R.say('span', 'scores'), ': ', suite.name), await scores(suite, a, b));
      }
    }
    if (!parts.length) parts.push(R.say('p', 'no_common_suite', undefined, { class: 'note' }));
    parts.push(R.say('h2', 'differences'), differences(a, b));
    parts.push(...(await layers(a, b)));
    return parts;
  }

  async function scores(suite, a, b) {
    const ours = a.scores[suite.name], theirs = b.scores[suite.name];
    const rows = [], links = [];
    for (const [place, [name, title]] of suite.benchmarks.entries()) {
      const paired = await pair(suite.name, name, a, b);
      const first = ours.cells[place], second = theirs.cells[place];
      rows.push([title || name, R.interval(first), R.interval(second), first && second ? R.signed(first[0] - second[0]) : '–',
        paired ? String(paired.onlyA) : '–', paired ? String(paired.onlyB) : '–', paired && paired.p !== null ? paired.p.toPrecision(2) : '–']);
      if (paired) links.push(R.link(title || name, R.href('answers', suite.name, name, a.digest.slice(0, 12), b.digest.slice(0, 12), 'flipped')));
    }
    if (ours.mean && theirs.mean) rows.push([R.say('b', 'mean'), R.interval([...ours.mean, 1]), R.interval([...theirs.mean, 1]), R.signed(ours.mean[0] - theirs.mean[0]), '', '', '']);
    return [
      R.scroll('scores', R.table([['benchmark'], [R.el('span', {}, 'A'), 'number'], [R.el('span', {}, 'B'), 'number'], ['difference', 'number'], ['only_a', 'number'], ['only_b', 'number'], ['mcnemar', 'number']], rows)),
      R.say('p', links.length ? 'paired_notes' : 'unpaired_notes', undefined, { class: 'note' }),
      R.el('p', {}, R.el('code', {}, `ronghe compare ${a.digest.slice(0, 12)} ${b.digest.slice(0, 12)}`)),
      links.length > 0 && R.el('p', {}, R.say('span', 'flipped'), ': ', links.flatMap((link, place) => (place ? [', ', link] : [link])))];
  }

  /* Right answers of just one of the two, and McNemar's exact test; null where not all are known. */
  async function pair(suite, benchmark, a, b) {
    const number = R.have('site').answers.findIndex((each) => each[0] === suite && each[1] === benchmark);
    if (number < 0) return null;
    const answers = await R.load('answers-' + number);
    const first = R.valuesOf(answers, a.digest), second = R.valuesOf(answers, b.digest);
    if (!first || !second || answers.hidden) return null;
    return R.paired(first, second);
  }
  R.valuesOf = (answers, digest) => answers.values[answers.models.findIndex((each) => each[1].startsWith(digest) || (digest && digest.startsWith(each[1])))];

  R.paired = (first, second) => {
    let onlyA = 0, onlyB = 0, both = 0, neither = 0, partial = false;
    first.forEach((value, place) => {
      const other = second[place];
      if (value < 0 || other < 0) return;
      if ((value !== 0 && value !== 1) || (other !== 0 && other !== 1)) partial = true;
      if (value > other) onlyA += 1; else if (value < other) onlyB += 1; else if (value === 1) both += 1; else neither += 1;
    });
    return { onlyA, onlyB, both, neither, p: partial ? null : R.mcnemar(onlyA, onlyB) };
  };
  /* Two-sided and exact: twice the binomial tail of the smaller count, at most 1. */
  R.mcnemar = (onlyA, onlyB) => {
    const n = onlyA + onlyB, few = Math.min(onlyA, onlyB);
    if (n === 0) return 1;
    let logTerm = -n * Math.LN2, tail = Math.exp(logTerm);
    for (let k = 1; k <= few; k += 1) {
      logTerm += Math.log(n - k + 1) - Math.log(k);
      tail += Math.exp(logTerm);
    }
    return Math.min(1, 2 * tail);
  };

  const facts = (side) => {
    if (side.kind === 'model') {
      const { name, base, kind, source, licence, revision } = side.record;
      return { name, base, kind, source, licence, revision, digest: side.digest.slice(0, 12) };
    }
    const made = { recipe: side.record.recipe, experts: side.record.experts, digest: side.digest.slice(0, 12) };
    for (const [name, digest] of Object.entries(side.record.models)) made['model ' + name] = digest.slice(0, 12);
    for (const [name, value] of R.flat(R.parameters(side.recipe, side.record))) made[name] = value;
    return made;
  };

  function differences(a, b) {
    const first = new Map(Object.entries(facts(a))), second = new Map(Object.entries(facts(b)));
    const names = [...new Set([...first.keys(), ...second.keys()])];
    const unlike = names.filter((name) => first.get(name) !== second.get(name));
    const rows = unlike.map((name) => [R.el('code', {}, name), first.get(name) ?? '–', second.get(name) ?? '–']);
    const same = names.length - unlike.length;
    return [rows.length ? R.scroll('differences', R.table([['name'], [R.el('span', {}, 'A')], [R.el('span', {}, 'B')]], rows)) : '',
      R.say('p', 'same_facts', { count: same }, { class: 'note' })];
  }

  async function layers(a, b) {
    const series = [a, b].filter((side) => side.kind === 'model' && side.record.layers.length).map((side) => [side.label, side.record.layers]);
    const parts = [];
    if (series.length === 2) {
      parts.push(R.say('h2', 'norm_by_layer'),
        R.scroll('norm_by_layer', R.layers(R.t('norm_by_layer') + ': ' + a.label + ', ' + b.label, series)));
      const related = await cosineOf(a.label, b.label);
      if (related) {
        parts.push(R.el('p', {}, R.say('span', 'cosine'), ': ', related.whole.toFixed(4)));
        if (related.layers.length) {
          parts.push(R.say('h2', 'cosine_by_layer'),
            R.scroll('cosine_by_layer', R.cosines(R.t('cosine_by_layer') + ': ' + a.label + ', ' + b.label, related.layers)));
        }
      }
      parts.push(asTable(series, related ? related.layers : []));
    }
    parts.push(R.el('p', { class: 'note' }, R.say('span', 'more_by'), ' ', R.el('code', {}, `ronghe diff ${a.digest.slice(0, 12)} ${b.digest.slice(0, 12)}`)));
    return parts;
  }

  /* The numbers of both pictures, for whoever cannot see them. */
  function asTable(series, cosines) {
    const [first, second] = series.map(([, layers]) => new Map(layers));
    const alike = new Map(cosines);
    const places = [...new Set([...first.keys(), ...second.keys()])];
    const number = (value) => (value === undefined ? '–' : Number(value.toPrecision(4)));
    return R.el('details', {}, R.say('summary', 'as_table'), R.scroll('norm_by_layer', R.table(
      [['layer', 'number'], ...series.map(([name]) => [R.el('span', {}, name), 'number']), ['cosine', 'number']],
      places.map((layer) => [layer === null ? R.say('span', 'no_layer') : String(layer),
        String(number(first.get(layer))), String(number(second.get(layer))), String(number(alike.get(layer)))]))));
  }

  /* How the task vectors of two models relate, as a plan of a set with both says it. */
  async function cosineOf(first, second) {
    const index = await R.load('index');
    let kept = null;
    for (const place of new Set(index.recipes.map((each) => each[1]))) {
      for (const recipe of await R.load('recipes-' + place)) {
        for (const [names, rows, layers] of recipe.cosines) {
          const [x, y] = [names.indexOf(first), names.indexOf(second)];
          if (x >= 0 && y >= 0) {
            const found = { whole: rows[x][y], layers: layers.map(([layer, each]) => [layer, each[x][y]]) };
            if (found.layers.length) return found;
            kept = kept || found;
          }
        }
      }
    }
    return kept;
  }
})();
