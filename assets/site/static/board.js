'use strict';
/* The leaderboard: rows are sorted, filtered and searched as data; so many are drawn as are seen. */
(function () {
  const R = window.Ronghe;
  const AT_ONCE = 50;
  const SIDES = [['base', 'vs_base'], ['best', 'vs_best'], ['average', 'vs_average']];

  R.pages.index = async () => {
    const site = R.have('site');
    const elsewhere = site.imported ? R.importedTable(await R.load('imported')) : [];
    if (!site.suites.length) {
      R.show(R.say('p', 'nothing_scored', undefined, { class: 'note' }), elsewhere);
      return;
    }
    const asked = new URLSearchParams(location.hash.slice(1));
    let number = site.suites.findIndex((suite) => suite.name === asked.get('suite'));
    if (number < 0) number = 0;
    const state = {
      suite: number, sort: asked.get('sort') || 'mean', down: asked.get('down') !== '0',
      words: asked.get('q') || '', kind: asked.get('kind') || '', recipe: asked.get('recipe') || '',
      shown: AT_ONCE, chosen: [],
    };
    const board = await open(state.suite);
    draw(site, state, board, elsewhere);
  };

  async function open(number) {
    const rows = await R.load('board-' + number);
    return rows.map((row, place) => ({
      row, place, text: [row.label, row.kind, row.digest.slice(0, 12), row.stale, title(row)].join(' ').toLowerCase(),
    }));
  }

  const title = (row) => (row.recipe ? R.titleOf('recipes', row.recipe) : R.titleOf('models', row.label));

  function value(entry, sort) {
    const row = entry.row;
    if (sort === 'mean') return row.mean[0];
    if (sort === 'name') return row.label;
    if (sort === 'validation') return row.validation ?? -1;
    if (sort.startsWith('cell-')) return row.cells[Number(sort.slice(5))]?.[0] ?? -1;
    return row.against[sort] ? row.against[sort][1] : -9;
  }

  /* Return the entries that the state asks for, in its order. */
  function select(board, state) {
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const found = board.filter(({ row, text }) =>
      (!state.kind || (state.kind === 'champion' ? row.champion : row.kind === state.kind)) &&
      (!state.recipe || row.recipe === state.recipe) &&
      words.every((word) => text.includes(word)));
    const sign = state.down ? -1 : 1;
    const order = found.map((entry) => [value(entry, state.sort), entry]);
    order.sort(([a, first], [b, second]) => {
      const less = typeof a === 'string' ? a.localeCompare(b) : a - b;
      return sign * less || first.place - second.place;
    });
    return order.map(([, entry]) => entry);
  }

  function draw(site, state, board, elsewhere) {
    const suite = site.suites[state.suite];
    const status = R.el('span', { class: 'count', role: 'status' });
    const body = R.el('tbody', {});
    const more = R.say('button', 'show_more', { count: AT_ONCE }, { type: 'button' });
    const all = R.say('button', 'show_all', undefined, { type: 'button' });
    const compare = R.el('p', { class: 'chosen', hidden: true });
    const heads = columns(suite);
    const header = R.el('tr', {}, R.el('th', { scope: 'col', class: 'number' }, '#'),
      heads.map(([key, name, kind]) => headOf(key, name, kind, state, () => update())),
      R.el('th', { scope: 'col' }, R.say('span', 'pick')));
    const update = () => {
      keep(site, state);
      const found = select(board, state);
      for (const head of header.querySelectorAll('th[data-sort]')) {
        const mine = head.dataset.sort === state.sort;
        if (mine) head.setAttribute('aria-sort', state.down ? 'descending' : 'ascending');
        else head.removeAttribute('aria-sort');
      }
      const part = found.slice(0, state.shown);
      body.replaceChildren(...part.map((entry) => rowOf(entry, suite, state, pick)));
      status.replaceChildren(R.say('span', 'count_of', { count: found.length, all: board.length }));
      more.hidden = all.hidden = found.length <= state.shown;
    };
    const pick = (digest, on) => {
      state.chosen = state.chosen.filter((each) => each !== digest);
      if (on) state.chosen.push(digest);
      state.chosen = state.chosen.slice(-2);
      for (const box of body.querySelectorAll('input')) box.checked = state.chosen.includes(box.value);
      compare.hidden = state.chosen.length < 2;
      compare.replaceChildren(state.chosen.length < 2 ? ''
        : R.el('a', { href: R.href('compare', ...state.chosen), class: 'button' }, R.say('span', 'compare_chosen')));
    };
    more.addEventListener('click', () => { state.shown += AT_ONCE; update(); });
    all.addEventListener('click', () => { state.shown = Infinity; update(); });
    R.show(
      suite.description ? R.el('p', {}, suite.description) : '',
      tools(site, state, board, update, status, elsewhere),
      compare,
      R.scroll('page_index', R.el('table', { id: 'board' }, R.el('thead', {}, header), body)),
      R.el('p', { class: 'tools' }, more, all),
      R.say('p', 'board_notes', undefined, { class: 'note' }),
      elsewhere);
    update();
  }

  /* Scores from elsewhere, which stand on no table of ours. */
  R.importedTable = (rows) => rows.length ? [
    R.say('h2', 'imported_scores'),
    R.scroll('imported_scores', R.table(
      [['benchmark'], ['name'], ['score', 'number'], ['items', 'number'], ['source']],
      rows.map((row) => [row.benchmark, row.model,
        R.interval([row.score, row.low, row.high, row.n]), row.n, row.source]))),
    R.say('p', 'imported_notes', undefined, { class: 'note' })] : [];

  function columns(suite) {
    return [['name', R.say('span', 'name'), ''], ['kind', R.say('span', 'kind'), ''],
      ['mean', R.say('span', 'mean'), 'number'],
      ...suite.benchmarks.map(([name, title], place) =>
        ['cell-' + place, R.el('span', { title: name }, title || name), 'number']),
      ...SIDES.map(([side, key]) => [side, R.say('span', key), ''])];
  }

  function headOf(key, name, kind, state, update) {
    if (key === 'kind') return R.el('th', { scope: 'col' }, name);
    const button = R.el('button', { type: 'button', class: 'sort', onclick: () => {
      state.down = state.sort === key ? !state.down : key !== 'name';
      state.sort = key;
      update();
    } }, name);
    return R.el('th', { scope: 'col', class: kind, 'data-sort': key }, button);
  }

  function rowOf({ row, place }, suite, state, pick) {
    const short = row.digest.slice(0, 12);
    const box = R.el('input', { type: 'checkbox', value: short, 'aria-label': row.label,
      onchange: (event) => pick(short, event.target.checked) });
    box.checked = state.chosen.includes(short);
    return R.el('tr', { class: row.champion ? 'champion' : null },
      R.el('td', { class: 'number' }, place + 1),
      R.el('th', { scope: 'row' }, R.named(row),
        title(row) && [' ', R.el('small', { class: 'why' }, title(row))],
        row.champion && [' ', R.mark('champion', 'good')],
        row.withdrawn && [' ', R.mark('withdrawn', 'bad')],
        row.stale && [' ', R.mark('stale', 'warn'), R.el('small', { class: 'why' }, ' ', R.own(row.stale))]),
      R.el('td', {}, R.say('span', 'kind_' + row.kind)),
      R.el('td', { class: 'number' }, R.interval([...row.mean, 1])),
      suite.benchmarks.map((_, column) => R.el('td', { class: 'number' }, R.interval(row.cells[column]))),
      SIDES.map(([side]) => R.el('td', {}, R.verdict(row.against[side]))),
      R.el('td', {}, box));
  }

  R.verdict = (side) => {
    if (!side) return '–';
    const kind = { better: 'good', worse: 'bad' }[side[0]] || '';
    return [R.mark('verdict_' + side[0], kind), ' ', R.el('small', {}, R.signed(side[1]))];
  };

  function tools(site, state, board, update, status, elsewhere) {
    const again = (change) => (event) => { change(event.target.value); state.shown = AT_ONCE; update(); };
    const choice = (key, options, chosen, change) => R.el('label', {}, R.say('span', key), ' ',
      R.el('select', { onchange: again(change) }, options.map(([id, words]) =>
        R.el('option', { value: id, selected: id === chosen }, words))));
    const recipes = [...new Set(board.map(({ row }) => row.recipe).filter(Boolean))].sort();
    const kinds = ['base', 'expert', 'average', 'candidate', 'champion'];
    const any = () => R.say('option', 'any', undefined, { value: '' });
    const kindChoice = choice('kind', [], state.kind, (id) => { state.kind = id; });
    kindChoice.querySelector('select').append(any(), ...kinds.map((id) =>
      R.say('option', id === 'champion' ? 'champion' : 'kind_' + id, undefined, { value: id, selected: id === state.kind })));
    const recipeChoice = choice('recipe', recipes.map((name) => [name, name]), state.recipe,
      (id) => { state.recipe = id; });
    recipeChoice.querySelector('select').prepend(any());
    recipeChoice.querySelector('select').value = state.recipe;
    return R.el('div', { class: 'tools' },
      site.suites.length > 1 && choice('suite', site.suites.map((suite, place) => [String(place), suite.name]),
        String(state.suite), async (place) => {
          state.suite = Number(place); state.sort = 'mean'; state.recipe = '';
          draw(site, state, await open(state.suite), elsewhere);
        }),
      R.el('label', {}, R.say('span', 'search'), ' ', R.el('input', { type: 'search', id: 'search',
        value: state.words, oninput: again((words) => { state.words = words; }) })),
      kindChoice, recipeChoice, status);
  }

  function keep(site, state) {
    const kept = new URLSearchParams();
    if (state.suite) kept.set('suite', site.suites[state.suite].name);
    if (state.words) kept.set('q', state.words);
    if (state.kind) kept.set('kind', state.kind);
    if (state.recipe) kept.set('recipe', state.recipe);
    if (state.sort !== 'mean' || !state.down) { kept.set('sort', state.sort); kept.set('down', state.down ? '1' : '0'); }
    const hash = kept.toString();
    try { history.replaceState(null, '', hash ? '#' + hash : location.pathname + location.search); }
    catch (error) { /* some browsers forbid it for files: the place is not kept then */ }
  }
})();
