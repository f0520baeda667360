'use strict';
/* Every question with every answer, and those on which two candidates differ. */
(function () {
  const R = window.Ronghe;
  const AT_ONCE = 30;

  R.pages.answers = async () => {
    const site = R.have('site');
    if (!site.answers.length) { R.show(R.say('p', 'no_answers', undefined, { class: 'note' })); return; }
    const [suite, benchmark, first, second, which] = R.place();
    let number = site.answers.findIndex((each) => each[0] === suite && each[1] === benchmark);
    if (number < 0) number = 0;
    const answers = await R.load('answers-' + number);
    const digests = answers.models.map((each) => each[1].slice(0, 12));
    const state = {
      number, a: Math.max(0, digests.indexOf(first)), which: which || 'all', words: '', shown: AT_ONCE,
      b: digests.includes(second) ? digests.indexOf(second) : Math.min(1, digests.length - 1),
    };
    draw(site, answers, digests, state);
  };

  function draw(site, answers, digests, state) {
    const status = R.el('span', { class: 'count', role: 'status' });
    const list = R.el('ol', { class: 'questions' });
    const more = R.say('button', 'show_more', { count: AT_ONCE }, { type: 'button', onclick: () => { state.shown += AT_ONCE; update(); } });
    const counts = R.el('p', {});
    let turn = 0;
    const update = async () => {
      const own = (turn += 1);
      const [, benchmark] = site.answers[state.number];
      R.setPlace(site.answers[state.number][0], benchmark, digests[state.a], digests[state.b], state.which);
      const a = answers.values[state.a], b = answers.values[state.b];
      const { onlyA, onlyB, both, neither } = R.paired(a, b);
      counts.replaceChildren(R.say('span', 'pair_counts', { onlyA, onlyB, both, neither }));
      const tests = { all: () => true, flipped: (x, y) => x !== y, only_a: (x, y) => x > y, only_b: (x, y) => x < y, both_wrong: (x, y) => x < 1 && y < 1 };
      let places = answers.ids.map((_, place) => place).filter((place) => (tests[state.which] || tests.all)(a[place], b[place]));
      const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
      if (words.length) {
        const texts = await Promise.all(places.map((place) => textOf(state.number, answers, place)));
        if (own !== turn) return;
        places = places.filter((place, order) => {
          const text = (answers.ids[place] + ' ' + texts[order].item.flat().join(' ')).toLowerCase();
          return words.every((word) => text.includes(word));
        });
      }
      const seen = places.slice(0, state.shown);
      const texts = await Promise.all(seen.map((place) => textOf(state.number, answers, place)));
      if (own !== turn) return;
      list.replaceChildren(...seen.map((place, order) => question(answers, place, texts[order], state)));
      status.replaceChildren(R.say('span', 'count_of', { count: places.length, all: answers.ids.length }));
      more.hidden = places.length <= state.shown;
    };
    const again = (change) => (event) => { change(event.target.value); state.shown = AT_ONCE; update(); };
    const choice = (key, options, chosen, change) => R.el('label', {}, R.say('span', key), ' ', R.el('select', { onchange: again(change) },
      options.map(([id, words]) => (words === null
        ? R.say('option', 'which_' + id, undefined, { value: id, selected: id === chosen })
        : R.el('option', { value: id, selected: id === chosen }, words)))));
    const models = answers.models.map(([label], place) => [String(place), label]);
    R.show(
      R.el('div', { class: 'tools' },
        R.el('label', {}, R.say('span', 'benchmark'), ' ', R.el('select', { onchange: async (event) => {
          const [suite, benchmark] = site.answers[Number(event.target.value)];
          location.hash = '#' + [suite, benchmark, digests[state.a], digests[state.b], state.which].map(encodeURIComponent).join('/');
        } }, site.answers.map(([suite, name, title], place) => R.el('option', { value: String(place), selected: place === state.number }, suite + ': ' + (title || name))))),
        choice('answers_a', models, String(state.a), (id) => { state.a = Number(id); }),
        choice('answers_b', models, String(state.b), (id) => { state.b = Number(id); }),
        choice('show', ['all', 'flipped', 'only_a', 'only_b', 'both_wrong'].map((id) => [id, null]), state.which, (id) => { state.which = id; }),
        R.el('label', {}, R.say('span', 'search'), ' ', R.el('input', { type: 'search', oninput: again((words) => { state.words = words; }) })),
        status),
      counts, list, R.el('p', { class: 'tools' }, more),
      answers.hidden > 0 && R.say('p', 'hidden_items', { count: answers.hidden }, { class: 'note' }),
      R.say('p', 'answers_notes', undefined, { class: 'note' }));
    update();
  }

  async function textOf(number, answers, place) {
    const part = Math.floor(place / answers.at_once), within = place % answers.at_once;
    const texts = await R.load('answers-' + number + '-' + part);
    return { item: texts.items[within], written: texts.texts.map((each) => each[within]) };
  }

  function question(answers, place, text, state) {
    const [words, choices] = text.item;
    const right = answers.right[place];
    const said = (model) => answers.choices[model][place];
    const value = (model) => answers.values[model][place];
    const verdict = (model) => (value(model) < 0 ? '–' : value(model) === 1 ? '✓' : value(model) === 0 ? '✗' : R.points(value(model)));
    const both = state.a === state.b ? [['A', state.a]] : [['A', state.a], ['B', state.b]];
    return R.el('li', {},
      R.el('p', { class: 'question' }, R.el('small', {}, answers.ids[place]), ' ', words),
      choices.length > 0 && R.el('ul', { class: 'options' }, choices.map((each, which) => R.el('li', { class: which === right ? 'right' : null }, each,
        which === right && [' ', R.mark('right', 'good')],
        both.filter(([, model]) => said(model) === which).map(([name]) => [' ', R.el('span', { class: 'mark' }, name)])))),
      R.el('p', { class: 'verdicts' }, both.map(([name, model]) => R.el('span', { class: value(model) === 1 ? 'yes' : 'no' }, name + ' ' + verdict(model)))),
      text.written.length > 0 && both.map(([name, model]) => text.written[model] && R.el('p', { class: 'written' }, R.el('b', {}, name + ': '), text.written[model])),
      R.el('details', {}, R.say('summary', 'all_answers'), R.el('ul', {}, answers.models.map(([label], model) => R.el('li', {}, verdict(model), ' ', label,
        choices.length > 0 && said(model) >= 0 ? ': ' + choices[said(model)] : '', text.written.length > 0 && text.written[model] ? ': ' + text.written[model] : '')))));
  }
})();
