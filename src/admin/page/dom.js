// Elements of the page. Whatever comes from the API is set as text, never as markup.
'use strict';

export const byId = id => document.getElementById(id);

// Whether there is room for little: the same width as in the style.
export const isNarrow = () => matchMedia('(max-width: 48rem)').matches;

// Elements: `make('td', { class: 'number' }, 'text', child)`.
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter(child => child !== null && child !== ''));
  return node;
}

// A name that breaks behind its slashes and dots, if it has to.
export const breakable = text => (text.match(/[^/.:@]+[/.:@]?|[/.:@]/g) || [])
  .flatMap((part, n) => (n === 0 ? [part] : [make('wbr'), part]));

// A row and its cells. The roles are spelled out for where the style lays them out as no table.
export const row = (attributes, ...cells) => make('tr', { role: 'row', ...attributes }, ...cells);
export const cell = (style, ...children) => make('td', { role: 'cell', class: style }, ...children);
export const head = (text, ...more) => make('th', { role: 'rowheader', scope: 'row' }, ...breakable(text), ...more);
export const small = (...children) => make('small', {}, ...children);

export function setText(id, text) {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
}

// A line that is there only while there is something to say.
export function tell(id, words) {
  setText(id, words);
  byId(id).hidden = words === '';
}

// Puts a question, or says what is to be done elsewhere. Whether the answer was yes.
export function ask({ title, words, lines = '', yes = null, no }) {
  const dialog = byId('ask');
  setText('ask-title', title);
  setText('ask-words', words);
  tell('ask-lines', lines);
  setText('ask-yes', yes || '');
  byId('ask-yes').hidden = yes === null;
  setText('ask-no', no);
  dialog.returnValue = '';
  dialog.showModal();
  // What changes nothing is what Enter does.
  byId('ask-no').focus();
  return new Promise(answered => {
    dialog.addEventListener('close', () => answered(dialog.returnValue === 'yes'), { once: true });
  });
}

byId('ask-yes').addEventListener('click', () => byId('ask').close('yes'));
byId('ask-no').addEventListener('click', () => byId('ask').close('no'));
