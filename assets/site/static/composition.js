'use strict';
/* What is made in several steps, of mixtures, soups and windows; and the course of a run. */
(function () {
  const R = window.Ronghe;
  const { section, facts, note } = R.parts;

  R.further.composition = async (index, [name, experts]) => {
    const entry = index.compositions.find((each) => each[0] === name && each[1] === (experts || ''));
    if (!entry) throw new Error(R.place().join('/'));
    const chunk = await R.load('compositions-' + entry[2]);
    const record = chunk.find((each) => each.recipe === name && each.experts === (experts || ''));
    const names = new Set(record.parts.map((part) => part.name));
    const models = new Set(index.models.map((each) => each[0]));
    R.title([name, record.experts].filter(Boolean).join(' '));
    const source = (each) => (models.has(each) ? R.link(each, R.to('model', each)) : each);
    const weight = (part, each) => (part.weights.find(([of]) => of === each) || [])[1];
    const listed = (part) => part.sources.flatMap((each, place) => {
      const share = weight(part, each);
      return [place ? ', ' : '', source(each), share === undefined ? '' : ' ' + Number(share.toFixed(4))];
    });
    R.show(
      facts([['recipe', R.link(name, R.to('recipe', name))], ['experts', record.experts], ['steps', String(record.parts.length)]]),
      section('ancestry', R.scroll('ancestry', drawn(record, names, models))),
      section('parts', R.scroll('parts', R.table([['name'], ['form'], ['method'], ['inputs'], ['digest'], ['made_at']],
        record.parts.map((part) => [part.name, R.say('span', 'step_' + part.kind), R.el('code', {}, part.method), listed(part),
          part.digest ? R.el('code', {}, part.digest.slice(0, 12)) : R.say('span', 'nothing_yet'), R.moment(part.at)])))),
      section('checkpoints', record.made.length > 0 && R.el('ul', {}, record.made.map(([point, digest]) =>
        R.el('li', {}, R.link([name, record.experts, point === 'default' ? '' : point].filter(Boolean).join(' '), R.to('checkpoint', digest.slice(0, 12))),
          ' ', R.el('code', {}, digest.slice(0, 12)))))));
  };

  /* Models on the left, each step behind what goes into it, the result on the right. */
  function drawn(record, names, models) {
    const column = new Map(), digests = new Map(record.parts.map((part) => [part.name, part.digest]));
    for (const part of record.parts) {
      column.set(part.name, 1 + Math.max(0, ...part.sources.map((each) => column.get(each) || 0)));
    }
    const outside = [...new Set(record.parts.flatMap((part) => part.sources))].filter((each) => !names.has(each));
    const last = record.parts[record.parts.length - 1].name;
    const nodes = outside.map((each) => ({ id: 'm ' + each, label: each, note: '', column: 0,
      href: models.has(each) ? R.to('model', each) : undefined }));
    for (const part of record.parts) {
      nodes.push({ id: 's ' + part.name, label: part.name, note: (digests.get(part.name) || '').slice(0, 12), column: column.get(part.name),
        href: part.name === last ? R.to('recipe', record.recipe) : undefined });
    }
    const edges = record.parts.flatMap((part) => part.sources.map((each) => {
      const share = (part.weights.find(([of]) => of === each) || [])[1];
      return { from: (names.has(each) ? 's ' : 'm ') + each, to: 's ' + part.name, label: share === undefined ? '' : 'w ' + Number(share.toFixed(3)) };
    }));
    return R.graph(R.t('ancestry') + ': ' + record.recipe, nodes, edges);
  }

  /* Merged against raw score over steps: a line each, with bands of 95 %. */
  R.courseOf = (course) => {
    const lines = [[R.t('raw_steps'), course.raw], ...course.merged].filter(([, points]) => points.length);
    if (!lines.length) return R.say('p', 'nothing_yet', undefined, { class: 'note' });
    const rows = lines.flatMap(([name, points]) => points.map(([step, ...cell]) => [step, name, cell])).sort((a, b) => a[0] - b[0]);
    return [facts([['run', course.run]]), R.scroll('course_of_run', R.lines(R.t('course_of_run') + ': ' + course.run, lines)),
      R.el('details', {}, R.say('summary', 'as_table'), R.table([['newest_step', 'number'], ['name'], ['mean', 'number']],
        rows.map(([step, name, cell]) => [String(step), name, R.interval([...cell, 1])])))];
  };

  R.lines = (label, lines) => {
    const width = 680, height = 260, left = 46, bottom = 44, right = 14, top = 12;
    const points = lines.flatMap(([, of]) => of), steps = points.map(([step]) => step);
    const low = Math.min(...points.map((each) => each[2])), high = Math.max(...points.map((each) => each[3]));
    const first = Math.min(...steps), last = Math.max(...steps);
    const x = (step) => left + ((step - first) / Math.max(last - first, 1)) * (width - left - right);
    const y = (share) => top + (1 - (share - low) / Math.max(high - low, 1e-9)) * (height - bottom - top);
    const text = (at, words, anchor, row) => R.svg('text', { x: at, y: row, class: 'tick', 'text-anchor': anchor }, words);
    const kind = (place) => 'line s' + (place % 5);
    return R.svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', class: 'chart', 'aria-label': label },
      [low, (low + high) / 2, high].map((share) => [R.svg('line', { x1: left, x2: width - right, y1: y(share), y2: y(share), class: 'grid' }),
        text(left - 6, R.points(share), 'end', y(share) + 4)]),
      lines.map(([, of], place) => [
        of.length > 1 && R.svg('polygon', { class: 'band s' + (place % 5), points: [...of.map(([step, , , above]) => x(step) + ',' + y(above)),
          ...[...of].reverse().map(([step, , below]) => x(step) + ',' + y(below))].join(' ') }),
        R.svg('polyline', { class: kind(place), points: of.map(([step, mean]) => x(step) + ',' + y(mean)).join(' ') }),
        of.map(([step, mean, below, above]) => R.svg('circle', { cx: x(step), cy: y(mean), r: 3.5, class: 'dot s' + (place % 5) },
          R.svg('title', {}, `${lines[place][0]} · ${step}: ${R.points(mean)} (${R.points(below)}–${R.points(above)})`)))]),
      text(left, String(first), 'start', height - 26), text(width - right, String(last), 'end', height - 26),
      lines.map(([name], place) => [R.svg('rect', { x: left + place * 150, y: height - 14, width: 10, height: 10, class: 'bar s' + (place % 5) }),
        text(left + place * 150 + 15, [...name].length > 18 ? [...name].slice(0, 17).join('') + '…' : name, 'start', height - 5)]));
  };
})();
