'use strict';
/* Pictures as SVG whose words are text: they are read aloud, copied and printed like the page. */
(function () {
  const R = window.Ronghe;
  const picture = (width, height, label, ...children) =>
    R.svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label,
      class: 'chart', width, height }, ...children);
  const text = (x, y, words, attributes) => R.svg('text', { x, y, ...attributes }, words);
  const line = (x1, y1, x2, y2, kind) => R.svg('line', { x1, y1, x2, y2, class: kind });
  const cut = (words, most) => ([...words].length > most ? [...words].slice(0, most - 1).join('') + '…' : words);

  /* Values with intervals, one a line: rows are [label, [value, low, high], mark]. */
  R.intervals = (label, rows) => {
    const width = 640, left = 220, right = 60, step = 24, height = rows.length * step + 30;
    const lows = rows.map((row) => row[1][1]), highs = rows.map((row) => row[1][2]);
    const span = Math.max(...highs) - Math.min(...lows), every = span > 0.5 ? 0.2 : span > 0.2 ? 0.1 : span > 0.08 ? 0.05 : 0.01;
    const first = Math.floor(Math.min(...lows) / every + 1e-9), last = Math.ceil(Math.max(...highs) / every - 1e-9);
    const low = first * every, high = Math.max(last, first + 1) * every;
    const x = (share) => left + ((share - low) / Math.max(high - low, 1e-9)) * (width - left - right);
    const ticks = Array.from({ length: Math.max(last, first + 1) - first + 1 }, (_, place) => (first + place) * every);
    return picture(width, height, label,
      ticks.map((tick) => [line(x(tick), 4, x(tick), height - 22, 'grid'),
        text(x(tick), height - 6, String(Math.round(100 * tick)), { class: 'tick', 'text-anchor': 'middle' })]),
      rows.map(([name, cell, mark], place) => {
        const y = place * step + 16;
        return R.svg('g', { class: mark ? 'marked' : null }, R.svg('title', {}, name),
          text(left - 10, y + 4, cut(name, 30), { 'text-anchor': 'end' }),
          line(x(cell[1]), y, x(cell[2]), y, 'interval'),
          R.svg('circle', { cx: x(cell[0]), cy: y, r: 4.5, class: 'dot' }),
          text(width - right + 10, y + 4, R.points(cell[0])));
      }));
  };

  /* Norms by layer as bars, of one or two models: series are [name, [[layer, norm], …]]. */
  R.layers = (label, series) => {
    const places = [...new Set(series.flatMap(([, layers]) => layers.map(([layer]) => layer)))];
    places.sort((a, b) => (a === null) - (b === null) || a - b);
    const width = 640, height = 190, left = 46, bottom = 32, top = 22;
    const most = Math.max(...series.flatMap(([, layers]) => layers.map(([, norm]) => norm)), 1e-12);
    const step = (width - left - 8) / places.length, each = Math.max(1, (step * 0.8) / series.length);
    const y = (norm) => height - bottom - (norm / most) * (height - bottom - top);
    const every = Math.ceil(places.length / 16);
    return picture(width, height, label,
      [0, 0.5, 1].map((part) => [line(left, y(part * most), width - 8, y(part * most), 'grid'),
        text(left - 6, y(part * most) + 4, (part * most).toPrecision(3), { class: 'tick', 'text-anchor': 'end' })]),
      series.map(([name, layers], which) => layers.map(([layer, norm]) => R.svg('rect', {
        x: left + places.indexOf(layer) * step + step * 0.1 + which * each, width: Math.max(each - 0.5, 0.5),
        y: y(norm), height: height - bottom - y(norm), class: 'bar s' + which },
      R.svg('title', {}, name + ' · ' + (layer === null ? R.t('no_layer') : layer) + ': ' + norm)))),
      places.map((layer, place) => place % every === 0 && text(left + (place + 0.5) * step, height - 14,
        layer === null ? '–' : layer, { class: 'tick', 'text-anchor': 'middle' })),
      series.map(([name], which) => [R.svg('rect', { x: left + which * 290, y: 4, width: 10, height: 10, class: 'bar s' + which }),
        text(left + which * 290 + 15, 13, cut(name, 34))]));
  };

  /* Cosines by layer as bars from zero: layers are [layer, cosine]. */
  R.cosines = (label, layers) => {
    const width = 640, height = 170, left = 46, bottom = 30, top = 10;
    const low = Math.min(0, ...layers.map(([, value]) => value)) < 0 ? -1 : 0;
    const y = (value) => top + ((1 - value) / (1 - low)) * (height - bottom - top);
    const step = (width - left - 8) / layers.length, every = Math.ceil(layers.length / 16);
    return picture(width, height, label,
      (low < 0 ? [-1, 0, 1] : [0, 0.5, 1]).map((at) => [line(left, y(at), width - 8, y(at), 'grid'),
        text(left - 6, y(at) + 4, String(at), { class: 'tick', 'text-anchor': 'end' })]),
      layers.map(([layer, value], place) => [R.svg('rect', {
        x: left + place * step + step * 0.15, width: Math.max(step * 0.7, 0.5),
        y: y(Math.max(value, 0)), height: Math.max(Math.abs(y(value) - y(0)), 0.5), class: 'bar ' + (value < 0 ? 's1' : 's0') },
      R.svg('title', {}, (layer === null ? R.t('no_layer') : layer) + ': ' + value)),
      place % every === 0 && text(left + (place + 0.5) * step, height - 10, layer === null ? '–' : layer, { class: 'tick', 'text-anchor': 'middle' })]));
  };

  /* Numbers between -1 and 1 as a square of cells. */
  R.matrix = (label, names, rows) => {
    const side = names.length > 12 ? 30 : 52, left = 150, top = 26;
    const width = left + side * names.length + 10, height = top + side * names.length + 10;
    return picture(width, height, label,
      names.map((name, place) => [
        text(left - 8, top + (place + 0.5) * side + 4, cut(name, 20), { 'text-anchor': 'end' }),
        text(left + (place + 0.5) * side, top - 8, cut(name, names.length > 12 ? 3 : 7), { 'text-anchor': 'middle', class: 'tick' })]),
      rows.map((row, y) => row.map((value, x) => R.svg('g', {}, R.svg('title', {}, names[y] + ' · ' + names[x] + ': ' + value),
        R.svg('rect', { x: left + x * side, y: top + y * side, width: side - 2, height: side - 2,
          class: value < 0 ? 'cell negative' : 'cell', 'fill-opacity': (0.08 + 0.62 * Math.min(1, Math.abs(value))).toFixed(3) }),
        text(left + (x + 0.5) * side - 1, top + (y + 0.5) * side + 4, value.toFixed(2), { 'text-anchor': 'middle', class: 'in-cell' })))));
  };

  /* What something is made of: nodes {id, label, note, href, column}, edges {from, to, label}.
     Columns run from the sources on the left to the result on the right. */
  R.graph = (label, nodes, edges) => {
    const columns = Math.max(...nodes.map((node) => node.column)) + 1;
    const wide = 178, gap = 96, tall = 46, space = 16;
    const counts = Array(columns).fill(0);
    for (const node of nodes) { node.y = counts[node.column]; counts[node.column] += 1; }
    const most = Math.max(...counts), height = most * (tall + space) + 20;
    const width = columns * wide + (columns - 1) * gap + 4;
    const at = new Map();
    for (const node of nodes) {
      const free = (most - counts[node.column]) / 2;
      at.set(node.id, { x: 2 + node.column * (wide + gap), y: 10 + (node.y + free) * (tall + space) });
    }
    const drawing = picture(width, height, label,
      edges.map((edge) => {
        const from = at.get(edge.from), to = at.get(edge.to);
        const x1 = from.x + wide, y1 = from.y + tall / 2, x2 = to.x, y2 = to.y + tall / 2, middle = (x1 + x2) / 2;
        return R.svg('g', {},
          R.svg('path', { d: `M${x1},${y1} C${middle},${y1} ${middle},${y2} ${x2},${y2}`, class: 'edge' }),
          edge.label && text(x1 + (x2 - x1) * 0.35, y1 + (y2 - y1) * 0.2 - 5, cut(edge.label, 16), { class: 'tick', 'text-anchor': 'middle' }));
      }),
      nodes.map((node) => {
        const { x, y } = at.get(node.id);
        const box = [R.svg('title', {}, node.label + ' ' + node.note),
          R.svg('rect', { x, y, width: wide, height: tall, rx: 6, class: 'node' }),
          text(x + 10, y + 19, cut(node.label, 22)),
          text(x + 10, y + 36, node.note, { class: 'tick' })];
        return node.href ? R.svg('a', { href: node.href }, box) : R.svg('g', {}, box);
      }));
    drawing.setAttribute('role', 'group'); /* an image may hold no links */
    return drawing;
  };
})();
