// What is kept, as images: found, pinned, removed, pulled. They are asked for once somebody looks.
'use strict';

import { Refused, ask, asked, lines, token } from './api.js';
import { ask as question, byId, cell, head, isNarrow, make, row, setText, small, tell } from './dom.js';
import { ago, bytes, listed, plural } from './words.js';

// Images that are looked through at most: those beyond are found by their registry or repository.
const MOST = 1000;
const FEW = 25;
const FEWER = 10;
const TYPING = 250;

const state = { images: null, hasMore: false, shown: 0, typing: null, canAct: false, isPulling: false };

// Where there is no token whoever looks here may look alone: the admin socket's users act.
export function begin(about) {
  state.canAct = about.has_token ?? token.get() !== null;
  const how = 'This page can only look, since no admin-token-file is set. On the proxy’s machine it is docker exec entrepot '
    + 'entrepot rm IMAGE (or pin, unpin, pull) with the container, and sudo entrepot rm IMAGE without.';
  tell('looking-alone', state.canAct ? '' : how);
  if (byId('images-card').open) load();
}

const typed = () => byId('images-filter').value.trim();

// A whole registry, organisation, repository or image is the proxy's to find; else all are looked
// through here.
const isPrecise = text => text.endsWith('/') || /[:@]/.test(text);

async function load() {
  const text = typed();
  const name = isPrecise(text) ? `&name=${encodeURIComponent(text)}` : '';
  try {
    const told = await asked(`/api/v1/images?limit=${MOST}${name}`);
    if (text !== typed()) return;
    state.images = told.images;
    state.hasMore = told.next !== null;
  } catch (error) {
    // Half of a name is none yet.
    if (!(error instanceof Refused && error.status === 400)) wrong(error.message);
    state.images = state.images || [];
  }
  draw();
}

function wrong(words) {
  tell('images-wrong', words);
}

function draw() {
  const text = typed().toLowerCase();
  const found = state.images.filter(one => isPrecise(text) || one.name.toLowerCase().includes(text));
  const shown = Math.max(state.shown, isNarrow() ? FEWER : FEW);
  byId('images').replaceChildren(...found.slice(0, shown).map(imageRow));
  const beyond = state.hasMore ? ` of the first ${MOST.toLocaleString('en')}: end a name with / to look beyond` : '';
  setText('images-count', `${plural(found.length, 'image', 'images')}${beyond}`);
  byId('no-images').hidden = found.length > 0;
  byId('more-images').hidden = found.length <= shown;
}

function imageRow(one) {
  const platforms = one.platforms.join(', ');
  const badges = listed([one.is_pinned && 'pinned', !one.is_complete && 'not whole']);
  const all = listed([`used ${ago(one.last_use)}`, plural(one.hits, 'hit', 'hits')]);
  return row({ title: one.digest },
    head(one.name, badges ? small(badges) : null, make('small', { class: 'narrow' }, all)),
    cell('number', bytes(one.bytes)),
    cell('wide', platforms),
    cell('wide', ago(one.last_use)),
    cell('number wide', one.hits.toLocaleString('en')),
    cell('actions',
      action(one.is_pinned ? 'Unpin' : 'Pin', one, () => pin(one)),
      action('Remove', one, () => remove(one))));
}

function action(word, one, act) {
  const button = make('button', { type: 'button', 'aria-label': `${word} ${one.name}` }, word);
  button.addEventListener('click', act);
  return button;
}

// Names of images hold nothing that a path could not.
const path = one => `/api/v1/images/${one.name}`;

function commands(words) {
  return question({
    title: 'This page may only look', no: 'Close',
    words: 'No admin-token-file is set, so that nobody knows who is here. Run one of these on the proxy’s machine, the first with the container:',
    lines: `docker exec entrepot entrepot ${words}\nsudo entrepot ${words}`,
  });
}

async function send(method, path) {
  wrong('');
  try {
    await ask(path, { method });
  } catch (error) {
    wrong(error.message);
  }
  await load();
}

async function pin(one) {
  if (!state.canAct) return commands(`${one.is_pinned ? 'unpin' : 'pin'} ${one.name}`);
  return send(one.is_pinned ? 'DELETE' : 'PUT', `${path(one)}/pin`);
}

async function remove(one) {
  if (!state.canAct) return commands(`rm ${one.name}`);
  const isMeant = await question({
    title: `Remove ${one.name}?`, yes: 'Remove', no: 'Keep it',
    words: 'Its tag goes, and what no other image needs: the next pull fetches it again.',
  });
  return isMeant ? send('DELETE', path(one)) : null;
}

// --- pulling ------------------------------------------------------------------------------------

// What a line of a pull's progress says.
function noteLine(line, sum) {
  if (line.image) sum.objects = new Map(line.image.objects.map(one => [one.digest, { bytes: 0, total: one.total_bytes }]));
  const came = line.progress || line.done;
  const object = came && sum.objects.get(came.digest);
  if (object) object.bytes = line.done ? object.total : Math.max(object.bytes, came.bytes);
  if (line.summary) {
    const { image, objects, fetched_bytes: fetched } = line.summary;
    return `${image} is here: ${plural(objects, 'object', 'objects')}, ${fetched > 0 ? `${bytes(fetched)} fetched` : 'all were kept already'}.`;
  }
  if (line.error) throw new Error(line.error.message);
  const all = [...sum.objects.values()];
  const total = name => all.reduce((count, one) => count + one[name], 0);
  return `Pulling: ${bytes(total('bytes'))} of ${bytes(total('total'))}`;
}

async function pull(name) {
  const sum = { objects: new Map() };
  wrong('');
  tell('pull-told', `Pulling ${name}…`);
  try {
    const answer = await ask(`/api/v1/pull?image=${encodeURIComponent(name)}`, { method: 'POST' });
    await lines(answer.body, line => setText('pull-told', noteLine(line, sum)));
    byId('pull-name').value = '';
  } catch (error) {
    tell('pull-told', '');
    wrong(error.message);
  }
  await load();
}

byId('pull-form').addEventListener('submit', async event => {
  event.preventDefault();
  const name = byId('pull-name').value.trim();
  if (!name || state.isPulling) return;
  if (!state.canAct) { await commands(`pull ${name}`); return; }
  state.isPulling = true;
  await pull(name);
  state.isPulling = false;
});

byId('images-card').addEventListener('toggle', event => { if (event.target.open) load(); });

byId('images-filter').addEventListener('input', () => {
  wrong('');
  state.shown = 0;
  clearTimeout(state.typing);
  state.typing = setTimeout(load, TYPING);
});

byId('more-images').addEventListener('click', () => {
  state.shown = byId('images').rows.length * 2;
  draw();
});

// Nothing is asked of the registry for it.
byId('explain-form').addEventListener('submit', async event => {
  event.preventDefault();
  const name = byId('explain-name').value.trim();
  const list = byId('explained');
  try {
    const { words } = await asked(`/api/v1/explain?image=${encodeURIComponent(name)}`);
    list.replaceChildren(...words.map(one => make('li', {}, one)));
    wrong('');
  } catch (error) {
    list.replaceChildren();
    wrong(error.message);
  }
  list.hidden = list.children.length === 0;
});
