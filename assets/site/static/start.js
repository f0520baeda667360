'use strict';
/* Starts the page that this is, in the reader's language. */
(function () {
  const R = window.Ronghe;
  R.setLanguage(R.firstLanguage());
  document.getElementById('language').addEventListener('click', () => {
    const top = window.scrollY;
    R.setLanguage(R.language === 'zh' ? 'en' : 'zh');
    window.scrollTo(0, top);
  });
  for (const input of document.querySelectorAll('input[data-filter]')) {
    const status = input.closest('.tools').querySelector('[role=status]');
    R.filterRows(input, document.getElementById(input.dataset.filter), status);
  }
  const kinds = document.getElementById('kinds');
  if (kinds) {
    kinds.addEventListener('change', () => {
      const wanted = new Set([...kinds.querySelectorAll(':checked')].map((box) => box.value));
      for (const each of document.querySelectorAll('.changes li')) {
        each.hidden = !wanted.has(each.dataset.kind);
      }
      for (const week of document.querySelectorAll('.week')) {
        week.hidden = !week.querySelector('li:not([hidden])');
      }
    });
  }
  const run = R.pages[document.body.dataset.page];
  if (!run) return;
  const start = () => run().catch((error) => {
    R.show(R.say('p', 'not_there', undefined, { class: 'note' }), R.el('p', {}, String(error)));
  });
  window.addEventListener('hashchange', () => {
    if (location.hash !== '#main') start();
  });
  start();
})();
