// The status page: the admin API, drawn. Whatever comes from there is set as text, never as markup.
'use strict';

import { Refused, ask, asked, askedIfThere, follow, token } from './api.js';
import * as charts from './charts.js';
import { breakable, byId, cell, head, make, row, setText, small, tell } from './dom.js';
import * as images from './images.js';
import * as pulls from './pulls.js';
import * as registries from './registries.js';
import { drawErrors, drawStatus } from './troubles.js';
import { bytes, clock, day, listed, money, percent, plural, short, span, took } from './words.js';

const MOST_ROWS = 100;
const MOST_FETCHES = 8;
const TOP_REPOSITORIES = 10;
const DAY = 86400;

const state = { about: null, stats: null, status: null, savings: null, requests: [], isPaused: false };

// --- sums, disk, warnings ----------------------------------------------------------------------

function drawStats(stats) {
  state.stats = stats;
  setText('version', `${stats.version}, up ${span(stats.uptime_secs)}`);
  setText('ratio', percent(stats.hits, stats.cacheable_requests));
  const kinds = [['manifests', stats.manifests], ['layers', stats.blobs]].filter(([, kind]) => kind && kind.requests > 0);
  const of = `of ${plural(stats.cacheable_requests, 'request', 'requests')} for content`;
  setText('ratio-of', [listed(kinds.map(([word, kind]) => `${word} ${percent(kind.hits, kind.requests)}`)), of].filter(Boolean).join('\n'));
  if (!state.savings) drawSaved({ saved_bytes: stats.saved_bytes }, '', null);
  setText('since-start', `Since the start: ${bytes(stats.sent_bytes)} served, ${bytes(stats.received_bytes)} fetched, ${plural(stats.requests, 'request', 'requests')}.`);
  drawDisk(stats.store);
  tell('bucket', stats.bucket ? `Bucket: ${stats.bucket.words}` : '');
  drawWarnings();
  const isEmpty = stats.requests === 0 && stats.store.objects === 0;
  if (isEmpty && byId('empty').hidden) byId('client').open = true;
  if (!isEmpty && !byId('empty').hidden) byId('client').open = false;
  byId('empty').hidden = !isEmpty;
}

function drawSavings(savings) {
  state.savings = savings;
  const { total, currency, since } = savings;
  const month = savings.this_month;
  const worth = total.money === null || total.money === undefined ? '' : `, ${money(total.money, currency)}`;
  drawSaved(month, ' this month', currency, since ? `${bytes(total.saved_bytes)}${worth} since ${day(since)}` : '');
}

function drawSaved(sum, when, currency, more = '') {
  const worth = sum.money === null || sum.money === undefined ? '' : `≈ ${money(sum.money, currency)}`;
  const pulls = sum.quota_pulls_saved > 0 ? plural(sum.quota_pulls_saved, 'pull of quotas', 'pulls of quotas') : '';
  setText('saved-label', `Saved${when || ' since the start'}`);
  setText('saved', bytes(sum.saved_bytes));
  byId('saved').className = sum.saved_bytes < 0 ? 'quiet' : 'good';
  const ahead = sum.saved_bytes < 0 ? 'more was fetched than served so far' : '';
  setText('saved-of', [listed([pulls, worth, ahead]), more].filter(Boolean).join('\n') || 'not fetched again');
}

function drawDisk(store) {
  const most = store.max_bytes;
  setText('kept-words', most === null ? bytes(store.bytes) : `${bytes(store.bytes)} of ${bytes(most)} (max-size)`);
  const meter = byId('kept');
  meter.hidden = most === null;
  meter.max = most || 1;
  meter.value = store.bytes;
  meter.textContent = percent(store.bytes, most);
  const least = store.min_free_bytes === null ? '' : `, ${bytes(store.min_free_bytes)} stay free (min-free)`;
  setText('free', store.free_bytes === null ? '' : `${bytes(store.free_bytes)} left on the disk${least}`);
  const gone = store.evicted_objects > 0
    ? `; ${plural(store.evicted_objects, 'object', 'objects')} (${bytes(store.evicted_bytes)}) evicted since the start`
    : '';
  setText('objects', `${plural(store.objects, 'object', 'objects')}${gone}`);
}

// A proxy that knows of no others says nothing of them.
function drawReplicas(peers) {
  const away = peers.members.filter(one => one.state === 'away');
  byId('replicas').hidden = !peers.is_configured;
  const who = away.map(one => ` ${one.address}: ${one.why}.`).join('');
  setText('replicas', `Replicas: ${peers.present} of ${peers.present + away.length} fetch for each other.${who}`);
}

function drawWarnings() {
  const { store } = state.stats;
  const warnings = [];
  // What the first line says is not said again.
  const isTold = state.status?.troubles?.some(one => one.state === 'store');
  const isShort = store.free_bytes !== null && store.min_free_bytes !== null && store.free_bytes < store.min_free_bytes;
  if (!isTold) {
    if (store.is_troubled) warnings.push('The disk fails: downloads are passed on and not kept.');
    if (store.index === 'in_memory') warnings.push('The index of the store is given up until the next start.');
    if (isShort) warnings.push('The disk has less room than min-free: nothing more is kept.');
  }
  if (store.quarantined_objects > 0) {
    warnings.push(`The disk has damaged ${plural(store.quarantined_objects, 'object', 'objects')}: set aside, to be fetched again.`);
  }
  const left = state.about ? state.about.ca_expires - Date.now() / 1000 : Infinity;
  if (left < 30 * DAY) warnings.push(`The CA's certificate ends in ${span(left)}: entrepot ca renew.`);
  const list = byId('warnings');
  list.hidden = warnings.length === 0;
  if (list.dataset.shown !== warnings.join()) {
    list.dataset.shown = warnings.join();
    list.replaceChildren(...warnings.map(text => make('li', {}, text)));
  }
}

function drawAbout(about) {
  state.about = about;
  setText('set-up', about.set_up);
  const link = byId('proxy-url');
  link.href = `${about.proxy_url}/`;
  link.textContent = `${about.proxy_url}/`;
  const end = new Date(about.ca_expires * 1000).toISOString().slice(0, 10);
  setText('ca', `CA valid until ${end}, SHA-256 ${about.ca_sha256}`);
  registries.begin(about);
}

function noteStatus(status) {
  state.status = status;
  drawStatus(status);
  if (state.stats) drawWarnings();
}

// --- what is under way, and what there was -----------------------------------------------------

// The objects of an image are one line.
function byImage(fetches) {
  const images = new Map();
  for (const one of fetches) {
    const name = one.image || `${one.registry} ${short(one.digest)}`;
    const sum = images.get(name) || { name, objects: 0, bytes: 0, total: 0, rate: 0, waiting: 0, whose: new Set() };
    sum.objects += 1;
    sum.bytes += one.bytes;
    // One of unknown length leaves the whole unknown.
    sum.total = one.total_bytes === null || sum.total === null ? null : sum.total + one.total_bytes;
    sum.rate += one.bytes_per_sec || 0;
    sum.waiting = Math.max(sum.waiting, one.waiting || 0);
    for (const client of one.for || []) sum.whose.add(client);
    images.set(name, sum);
  }
  return [...images.values()];
}

function fetchItem(one) {
  const bar = make('progress', { 'aria-label': `How much of ${one.name} has come` });
  if (one.total) { bar.max = one.total; bar.value = one.bytes; }
  const of = one.total ? ` of ${bytes(one.total)}` : '';
  const left = one.total && one.rate > 0 ? `${span(Math.ceil((one.total - one.bytes) / one.rate))} left` : '';
  const whose = [...one.whose];
  const clients = whose.length > 3 ? `${whose.slice(0, 3).join(', ')} and ${whose.length - 3} more` : whose.join(', ');
  const waiting = one.waiting > 1 ? `${one.waiting} wait` : '';
  return make('li', {},
    make('span', { class: 'share' }, make('span', {}, ...breakable(one.name)), make('span', { class: 'number' }, `${bytes(one.bytes)}${of}`)),
    bar,
    small(listed([one.rate > 0 ? `${bytes(one.rate)}/s` : 'nothing comes now', left, plural(one.objects, 'object', 'objects'),
      clients && `for ${clients}`, waiting])));
}

function drawFetches({ fetches }) {
  const coming = byImage(fetches);
  byId('no-fetches').hidden = coming.length > 0;
  const beyond = coming.length > MOST_FETCHES ? [make('li', { class: 'quiet' }, `and ${coming.length - MOST_FETCHES} more`)] : [];
  byId('fetches').replaceChildren(...coming.slice(0, MOST_FETCHES).map(fetchItem), ...beyond);
}

function drawRepositories({ repositories }) {
  byId('no-repositories').hidden = repositories.length > 0;
  byId('repositories').replaceChildren(...repositories.slice(0, TOP_REPOSITORIES).map(one => row({},
    head(`${one.registry}/${one.repository}`),
    cell('number', percent(one.hits, one.requests)),
    cell('number', bytes(one.sent_bytes)))));
}

const OUTCOMES = {
  hit: 'good', joined: 'good', revalidated: 'good', stale: 'warn', denied: 'bad', error: 'bad',
};

function requestRow(one) {
  const where = [one.registry, one.repository].filter(Boolean).join('/');
  const size = bytes(one.body_bytes);
  // What was refused at the registry looks like any other answer but for this.
  const status = one.status >= 400 ? ` ${one.status}` : '';
  const what = cell('', make('span', {}, ...breakable(`${one.method === 'GET' ? '' : `${one.method} `}${where} ${one.object}`)),
    status ? make('span', { class: 'bad' }, status) : null,
    make('small', { class: 'narrow' }, `${size}, ${took(one.elapsed_ms)}, ${one.client}`),
    one.reason ? small(one.reason) : null);
  return row({ title: `id ${one.id}` },
    cell('', make('time', { datetime: new Date(one.at_ms).toISOString() }, clock(one.at_ms, true))),
    cell('', make('span', { class: `outcome ${OUTCOMES[one.outcome] || 'quiet'}` }, one.outcome.toUpperCase())),
    what,
    cell('number wide', size),
    cell('number wide', took(one.elapsed_ms)),
    cell('wide', one.client));
}

function noteRequests({ requests }) {
  const newest = requests.slice().reverse();
  state.requests = newest.concat(state.requests).slice(0, MOST_ROWS);
  if (state.isPaused || !byId('requests-card').open) return;
  const rows = byId('requests');
  rows.prepend(...newest.slice(0, MOST_ROWS).map(requestRow));
  while (rows.rows.length > MOST_ROWS) rows.lastElementChild.remove();
  byId('no-requests').hidden = state.requests.length > 0;
}

function drawRequests() {
  if (state.isPaused || !byId('requests-card').open) return;
  byId('requests').replaceChildren(...state.requests.map(requestRow));
  byId('no-requests').hidden = state.requests.length > 0;
}

// --- the stream ---------------------------------------------------------------------------------

const HANDLERS = {
  status: noteStatus, stats: drawStats, savings: drawSavings, point: charts.note, fetches: drawFetches, registries: registries.draw,
  repositories: drawRepositories, errors: drawErrors, pulls: pulls.note, requests: noteRequests,
  peers: drawReplicas,
};

function tellLive(words, style) {
  const live = byId('live');
  if (live.textContent !== words) live.textContent = words;
  live.className = style;
}

function show(id) {
  for (const one of ['login', 'refused', 'all']) byId(one).hidden = one !== id;
}

// Watches until the stream ends; what was known before is told anew.
async function watch() {
  const aborted = new AbortController();
  const { signal } = aborted;
  try {
    const [about, history, errors, status, savings] = await Promise.all([
      asked('/api/v1/about', { signal }), asked('/api/v1/history', { signal }), asked('/api/v1/errors', { signal }),
      askedIfThere('/api/v1/status', { signal }), askedIfThere('/api/v1/savings', { signal }),
    ]);
    await pulls.begin(signal);
    const answer = await ask('/api/v1/events', { signal });
    state.requests = [];
    drawAbout(about);
    drawErrors(errors);
    if (status) noteStatus(status);
    if (savings) drawSavings(savings);
    charts.begin(history.points);
    drawRequests();
    images.begin(about);
    show('all');
    tellLive('Live', 'on');
    await follow(answer.body, HANDLERS);
  } finally {
    aborted.abort();
  }
}

// A page that shows what was is not well, whatever it said last.
function tellGone() {
  tellLive('Not connected: trying again', 'off');
  if (state.status) document.title = ['not connected', state.status.name, 'entrepot'].filter(Boolean).join(' – ');
  byId('verdict').className = 'card gone';
}

async function run() {
  for (let wait = 1; ; wait = Math.min(wait * 2, 15)) {
    const began = Date.now();
    try {
      await watch();
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        byId('login-wrong').hidden = token.get() === null;
        token.forget();
        show('login');
        byId('token').focus();
        tellLive('Waiting for the token', '');
        return;
      }
      if (error instanceof Refused && error.status === 403) {
        setText('refused', error.message);
        show('refused');
      }
    }
    if (Date.now() - began > 30000) wait = 1;
    tellGone();
    await new Promise(resolve => setTimeout(resolve, wait * 1000));
  }
}

// --- what can be clicked -----------------------------------------------------------------------

byId('login').addEventListener('submit', event => {
  event.preventDefault();
  token.set(byId('token').value.trim());
  byId('token').value = '';
  run();
});

byId('requests-card').addEventListener('toggle', drawRequests);

byId('pause').addEventListener('click', () => {
  state.isPaused = !state.isPaused;
  byId('pause').setAttribute('aria-pressed', String(state.isPaused));
  drawRequests();
});

byId('copy').addEventListener('click', async () => {
  const words = byId('set-up').textContent;
  try {
    await navigator.clipboard.writeText(words);
  } catch {
    // Plain HTTP from elsewhere has no clipboard: it is marked, to be copied by hand.
    getSelection().selectAllChildren(byId('set-up'));
    return;
  }
  byId('copy').textContent = 'Copied';
  setTimeout(() => { byId('copy').textContent = 'Copy'; }, 2000);
});

run();
