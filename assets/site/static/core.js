'use strict';
/* What every page of the site has: data, words in two languages, elements, links, the place.
   Text of strangers becomes text nodes and attributes of our own; no markup is ever parsed. */
(function () {
  const R = (window.Ronghe = { pages: {} });
  const data = new Map(), waiting = new Map();
  const SVG = 'http://www.w3.org/2000/svg';

  /* ---- data: each file calls take ---- */
  R.take = (name, text) => { data.set(name, JSON.parse(text)); };
  R.have = (name) => data.get(name);
  R.load = (name) => {
    if (data.has(name)) return Promise.resolve(data.get(name));
    if (!waiting.has(name)) {
      waiting.set(name, new Promise((done, fail) => {
        const script = document.createElement('script');
        script.src = 'data/' + name + '.js';
        script.onload = () => (data.has(name) ? done(data.get(name)) : fail(new Error(name)));
        script.onerror = () => fail(new Error(name));
        document.head.append(script);
      }));
    }
    return waiting.get(name);
  };
  R.record = async (kind, number, matches) =>
    (await R.load(kind + '-' + number)).filter(matches);

  /* ---- words ---- */
  R.language = 'en';
  R.t = (key, values) => {
    const words = R.have('texts')[R.language][key];
    if (words === undefined) return key;
    return values ? words.replace(/\{(\w+)\}/g, (all, name) => String(values[name] ?? all)) : words;
  };
  /* An element whose words follow the reader's language. */
  R.say = (tag, key, values, attributes) => {
    const element = R.el(tag, attributes || {}, R.t(key, values));
    element.dataset.t = key;
    if (values) element.dataset.values = JSON.stringify(values);
    return element;
  };
  R.label = (element, key) => {
    element.setAttribute('aria-label', R.t(key));
    element.dataset.tLabel = key;
    return element;
  };
  R.translate = (root) => {
    for (const each of root.querySelectorAll('[data-t]')) {
      const values = each.dataset.values ? JSON.parse(each.dataset.values) : undefined;
      each.textContent = R.t(each.dataset.t, values);
    }
    for (const each of root.querySelectorAll('[data-t-label]')) {
      each.setAttribute('aria-label', R.t(each.dataset.tLabel));
    }
    R.translateOwn(root);
  };
  R.setLanguage = (language) => {
    R.language = language;
    document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
    const button = document.getElementById('language');
    button.textContent = language === 'zh' ? 'English' : '中文';
    button.lang = language === 'zh' ? 'en' : 'zh-CN';
    R.translate(document);
    R.title();
    try { localStorage.setItem('ronghe-language', language); } catch (error) { /* not kept */ }
  };
  R.firstLanguage = () => {
    try {
      const kept = localStorage.getItem('ronghe-language');
      if (kept === 'en' || kept === 'zh') return kept;
    } catch (error) { /* no memory: the browser's own */ }
    return /^zh/i.test(navigator.language || '') ? 'zh' : 'en';
  };
  let heading = null;
  R.title = (name) => {
    if (name !== undefined) heading = name;
    const page = R.t('page_' + document.body.dataset.page);
    const parts = [heading || page, document.body.dataset.catalog, 'Ronghe'];
    document.title = parts.filter(Boolean).join(' · ');
    if (heading) {
      const title = document.getElementById('title');
      delete title.dataset.t;
      title.textContent = heading;
    }
  };

  /* ---- elements ---- */
  const fill = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? '' : String(value));
    }
    for (const child of children.flat(Infinity)) {
      if (child !== null && child !== undefined && child !== false) {
        element.append(child instanceof Node ? child : String(child));
      }
    }
    return element;
  };
  R.el = (tag, attributes, ...children) =>
    fill(document.createElement(tag), attributes, children);
  R.svg = (tag, attributes, ...children) =>
    fill(document.createElementNS(SVG, tag), attributes, children);
  R.scroll = (key, content) =>
    R.label(R.el('div', { class: 'scroll', tabindex: '0', role: 'region' }, content), key);
  R.mark = (key, kind) => R.say('span', key, undefined, { class: 'mark ' + (kind || '') });
  /* A table: heads are [key or element, class]; rows are arrays of cells. */
  R.table = (heads, rows) => R.el('table', {},
    R.el('thead', {}, R.el('tr', {}, heads.map(([head, kind]) => {
      const cell = R.el('th', { scope: 'col', class: kind });
      cell.append(typeof head === 'string' ? R.say('span', head) : head);
      return cell;
    }))),
    R.el('tbody', {}, rows.map((row) => R.el('tr', {}, row.map((cell, column) =>
      R.el(column ? 'td' : 'th', { scope: column ? null : 'row', class: heads[column][1] }, cell)
    )))));

  /* ---- numbers ---- */
  R.points = (share) => (share === null || share === undefined ? '–' : (100 * share).toFixed(1));
  R.signed = (share) => (share >= 0 ? '+' : '−') + Math.abs(100 * share).toFixed(1);
  R.interval = (cell) => {
    if (!cell || cell[3] === 0) return '–';
    const tell = R.points(cell[1]) + '–' + R.points(cell[2]);
    return R.el('span', { class: 'score' }, R.points(cell[0]), ' ', R.el('small', {}, tell));
  };
  R.bytes = (count) => {
    for (const [least, unit] of [[1e12, 'TB'], [1e9, 'GB'], [1e6, 'MB']]) {
      if (count >= least) return (count / least).toFixed(2) + ' ' + unit;
    }
    return (count / 1e3).toFixed(1) + ' kB';
  };
  R.moment = (at) => (at ? at.slice(0, 16).replace('T', ' ') : '–');

  /* ---- places: what is behind the # ---- */
  R.href = (page, ...parts) => page + '.html#' + parts.map(encodeURIComponent).join('/');
  R.to = (kind, ...parts) => R.href('artifact', kind, ...parts);
  R.link = (text, href) => R.el('a', { href }, text);
  R.place = () => {
    try { return location.hash.slice(1).split('/').filter(Boolean).map(decodeURIComponent); }
    catch (error) { return []; }
  };
  R.setPlace = (...parts) => {
    const hash = '#' + parts.map(encodeURIComponent).join('/');
    try { history.replaceState(null, '', hash); } catch (error) { location.replace(hash); }
  };
  R.show = (...children) => {
    const view = document.getElementById('view');
    view.replaceChildren();
    fill(view, {}, children);
  };
  /* What a recipe or a model is called for people, in its file; '' where nothing is said. */
  R.titleOf = (kind, name) => {
    const found = R.have('site').titles[kind].find(([of]) => of === name);
    return found ? found[1] : '';
  };
  R.named = (row) => (row.kind === 'candidate' || row.kind === 'average' || row.recipe)
    ? R.link(row.label, R.to('checkpoint', row.digest.slice(0, 12)))
    : R.link(row.label, R.to('model', row.label));
  /* Rows of a static table that hold all words of the search; tells how many. */
  R.filterRows = (input, table, status) => {
    const rows = [...table.tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]);
    const run = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const [row, text] of rows) {
        row.hidden = !words.every((word) => text.includes(word));
        count += row.hidden ? 0 : 1;
      }
      const values = { count, all: rows.length };
      status.replaceChildren(R.say('span', 'count_of', values));
    };
    input.addEventListener('input', run);
    run();
  };
})();
