// Pulls as they come, and who pulls most.
'use strict';

import { asked, askedIfThere } from './api.js';
import { breakable, byId, cell, isNarrow, make, row, setText, small } from './dom.js';
import { agent, bytes, clock, image, listed, percent, plural, took } from './words.js';

const FEW = 15;
const FEWER = 6;
const MOST = 100;
const TOP_CLIENTS = 8;
// How long somebody who types is waited for, and how often clients are asked for at most.
const TYPING = 250;
const SELDOM = 10000;

const state = { pulls: [], showsAll: false, filter: '', typing: null, counted: 0 };

// The pulls that there were; a proxy that tells of none has no such part.
export async function begin(signal) {
  const told = await askedIfThere(path(), { signal });
  byId('pulls-card').hidden = told === null;
  if (told) show(told.pulls);
  await drawClients(signal);
}

const path = () => `/api/v1/pulls?limit=${MOST}${state.filter ? `&filter=${encodeURIComponent(state.filter)}` : ''}`;

export function note({ pulls }) {
  const known = state.pulls.length > 0 ? state.pulls[0].number : -1;
  const news = pulls.filter(pull => pull.number > known && isMeant(pull)).sort((a, b) => b.number - a.number);
  byId('pulls-card').hidden = false;
  show(news.concat(state.pulls));
  if (Date.now() - state.counted > SELDOM) drawClients().catch(() => {});
}

const isMeant = pull => {
  const text = [pull.client, pull.user, agent(pull.user_agent), pull.user_agent, pull.registry, image(pull), pull.repository,
    pull.reference, pull.tag, pull.digest, pull.platform, pull.outcome].filter(Boolean).join(' ').toLowerCase();
  return text.includes(state.filter.toLowerCase());
};

function show(pulls) {
  state.pulls = pulls.slice(0, MOST);
  const few = isNarrow() ? FEWER : FEW;
  const shown = state.showsAll ? state.pulls : state.pulls.slice(0, few);
  byId('pulls').replaceChildren(...shown.map(pullRow));
  byId('no-pulls').hidden = state.pulls.length > 0;
  setText('no-pulls', state.filter ? 'None of the last pulls is like that.' : 'None yet.');
  const more = byId('more-pulls');
  more.hidden = state.pulls.length <= few;
  more.textContent = state.showsAll ? 'Show fewer' : `Show the last ${state.pulls.length}`;
  showSlowest();
}

// Of the last pulls, whatever is filtered, the one that took longest: most often a large one, and what
// it took is what somebody waited.
function showSlowest() {
  if (state.filter) return;
  const pulled = state.pulls.filter(pull => pull.bytes > 0 && !FAILED[pull.outcome] && !pull.ahead);
  const slowest = pulled.reduce((most, pull) => (most && most.duration_ms >= pull.duration_ms ? most : pull), null);
  setText('slow-pull', slowest ? `slowest of the last ${pulled.length} pulls: ${image(slowest)} in ${took(slowest.duration_ms)}` : '');
}

function fromCache(pull) {
  if (pull.bytes === 0) return 'nothing was sent';
  if (pull.bytes_from_cache >= pull.bytes) return 'all from the cache';
  if (pull.bytes_from_cache === 0) return 'nothing from the cache';
  return `${percent(pull.bytes_from_cache, pull.bytes)} from the cache`;
}

const FAILED = { failed: ['bad', 'FAILED '], abandoned: ['warn', 'GIVEN UP '] };
const DEEDS = { checked: 'looked at', 'manifest-only': 'pulled, nothing new of', failed: 'asked for', abandoned: 'began' };

function pullRow(pull) {
  const whose = pull.user ? `${pull.user} at ${pull.client}` : pull.client;
  const quota = pull.quota_pulls > 0 ? plural(pull.quota_pulls, 'pull of the quota', 'pulls of the quota') : '';
  const [style, word] = FAILED[pull.outcome] || [];
  const outcome = word ? make('span', { class: `outcome ${style}` }, word) : null;
  const deed = pull.ahead ? 'pulled ahead' : DEEDS[pull.outcome] || 'pulled';
  const all = listed([bytes(pull.bytes), fromCache(pull), took(pull.duration_ms)]);
  const more = listed([pull.platform, quota, pull.reason]);
  return row({ title: pull.digest || '' },
    cell('', make('time', { datetime: new Date(pull.at_ms).toISOString() }, clock(pull.at_ms, true))),
    cell('', whose, ' ', make('span', { class: 'quiet' }, [agent(pull.user_agent), deed].filter(Boolean).join(' '))),
    cell('', outcome, ...breakable(image(pull)), make('small', { class: 'narrow' }, all), more ? small(more) : null),
    cell('number wide', bytes(pull.bytes)),
    cell(`wide ${pull.bytes > 0 && pull.bytes_from_cache >= pull.bytes ? 'good' : ''}`, fromCache(pull)),
    cell('number wide', took(pull.duration_ms)));
}

async function drawClients(signal) {
  state.counted = Date.now();
  const told = await askedIfThere('/api/v1/clients', { signal });
  const clients = told ? told.clients : [];
  byId('clients-card').hidden = clients.length === 0;
  byId('clients').replaceChildren(...clients.slice(0, TOP_CLIENTS).map(one => row({},
    make('th', { role: 'rowheader', scope: 'row' }, one.user ? `${one.user} at ${one.client}` : one.client,
      one.quota_pulls > 0 ? small(plural(one.quota_pulls, 'pull of a quota', 'pulls of quotas')) : null),
    cell('number', one.pulls.toLocaleString('en')),
    cell('number', percent(one.bytes_from_cache, one.bytes)),
    cell('number', bytes(one.bytes)))));
}

async function find() {
  const filter = byId('pulls-filter').value.trim();
  if (filter === state.filter) return;
  state.filter = filter;
  const told = await asked(path());
  // Somebody may have typed on meanwhile.
  if (filter === state.filter) show(told.pulls);
}

byId('pulls-filter').addEventListener('input', () => {
  clearTimeout(state.typing);
  state.typing = setTimeout(() => { find().catch(() => {}); }, TYPING);
});

byId('more-pulls').addEventListener('click', () => {
  state.showsAll = !state.showsAll;
  show(state.pulls);
});
