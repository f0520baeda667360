'use strict';
/* What Ronghe itself said as a reason or an error, in the reader's language. Strangers' words stay. */
(function () {
  const R = window.Ronghe;
  const escaped = (words) => words.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  let patterns = null;
  const prepared = () => R.have('texts').reasons.map(([english, chinese]) => {
    const names = [...english.matchAll(/\{(\w)\}/g)].map((match) => match[1]);
    const parts = english.split(/\{\w\}/).map(escaped);
    return [new RegExp('^' + parts.join('([^]*?)') + '$'), names, chinese];
  });
  const LONGEST = 3000, DEEPEST = 4;
  const told = (words, depth) => {
    if (!words || words.length > LONGEST || depth > DEEPEST) return words;
    patterns = patterns || prepared();
    for (const [pattern, names, chinese] of patterns) {
      const match = pattern.exec(words);
      if (match) {
        const values = Object.fromEntries(names.map((name, place) => [name, told(match[place + 1], depth + 1)]));
        return chinese.replace(/\{(\w)\}/g, (whole, name) => values[name]);
      }
    }
    for (const [between, written, once] of [['\n', '\n'], ['; ', '；'], [': ', '：', true]]) {
      const at = words.indexOf(between);
      if (at < 0) continue;
      const parts = once ? [words.slice(0, at), words.slice(at + between.length)] : words.split(between);
      const known = parts.map((part) => told(part, depth + 1));
      if (known.some((each, place) => each !== parts[place])) return known.join(written);
    }
    return words;
  };
  R.inOwnWords = (words) => (R.language === 'zh' ? told(words, 0) : words);
  /* An element of what was said, which changes with the language. */
  R.own = (words) => (words ? R.el('span', { 'data-own': words }, R.inOwnWords(words)) : '');
  R.translateOwn = (root) => {
    for (const each of root.querySelectorAll('[data-own]')) {
      if (!each.dataset.own) each.dataset.own = each.textContent;
      each.textContent = R.inOwnWords(each.dataset.own);
    }
  };
})();
