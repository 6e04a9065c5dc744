// Registries, those in trouble first; the tiles of quota and of what is slow.
'use strict';

import { byId, cell, head, isNarrow, make, row, setText, small } from './dom.js';
import { ago, bytes, listed, plural, soon, took, when } from './words.js';

// Rows that are shown at once, beside those in trouble.
const FEW = 8;
const FEWER = 3;
// How long a registry may take for its first byte before that is a warning.
const SLOW_MS = 1000;

// Each state in the order in which it is told, its colour and its word.
const STATES = {
  'credentials-refused': ['bad', 'credentials refused'], away: ['bad', 'can’t be reached'],
  unwell: ['bad', 'answers with errors'], limited: ['warn', 'rate limited'], slow: ['warn', 'slow'],
  well: ['good', 'reachable'], unknown: ['quiet', 'not used yet'],
};
const ORDER = Object.keys(STATES);
const isTroubled = one => ORDER.indexOf(stateOf(one)) < ORDER.indexOf('well');
const state = { registries: [], showsAll: false, floor: null };

// A proxy that knows no states says in another field whether it is well.
function stateOf(one) {
  const older = { unreachable: 'away', limited: 'limited', well: 'well' };
  const told = one.state || older[one.health] || 'unknown';
  return told in STATES ? told : 'unknown';
}

const requests = one => Object.values(one.requests).reduce((sum, count) => sum + count, 0);
const isUsed = one => requests(one) > 0 || one.quota || one.outage || one.last_error || isTroubled(one);

export function begin(about) {
  state.floor = about.quota_floor ?? null;
}

export function draw({ registries }) {
  const used = registries.filter(isUsed);
  const place = one => ORDER.indexOf(isTroubled(one) ? stateOf(one) : 'well');
  used.sort((a, b) => place(a) - place(b) || requests(b) - requests(a));
  state.registries = used;
  drawTable();
  drawQuota(used);
  drawSlow(used);
  const rest = registries.length - used.length;
  setText('unasked', rest > 0 ? `${used.length > 0 ? 'And ' : ''}${rest} not used yet.` : '');
}

function drawTable() {
  const used = state.registries;
  const few = Math.max(isNarrow() ? FEWER : FEW, used.filter(isTroubled).length);
  const shown = state.showsAll ? used : used.slice(0, few);
  byId('registries').replaceChildren(...shown.map(tableRow));
  const more = byId('more-registries');
  more.hidden = used.length <= few;
  more.textContent = state.showsAll ? 'Show fewer' : `Show all ${used.length}`;
}

function tableRow(one) {
  const [style, word] = STATES[stateOf(one)];
  const through = `${plural(requests(one), 'request', 'requests')}, ${bytes(one.sent_bytes)} served`;
  const label = one.identity ? small('with ', one.identity) : null;
  return row({},
    head(one.registry, label, make('small', { class: 'narrow' }, through)),
    cell('', make('span', { class: `state ${style}` }, word), trouble(one)),
    quota(one),
    cell('number wide', one.first_byte_ms ? took(one.first_byte_ms.p95) : '–'),
    cell('number wide', requests(one).toLocaleString('en')),
    cell('number wide', bytes(one.sent_bytes)),
    cell('number wide', bytes(one.received_bytes)),
    cell('number wide', one.saved_bytes === undefined ? '–' : bytes(one.saved_bytes)));
}

// Why a registry is not well, since when and until when; or when it last was not.
function trouble(one) {
  const since = one.since ?? one.outage?.since;
  const until = one.until ?? one.outage?.next_try ?? one.limit?.next_try;
  const why = one.why ?? one.outage?.reason ?? (one.limit ? `it answered ${one.limit.status}` : null);
  if (isTroubled(one)) {
    const times = listed([since && `since ${when(since)} (${ago(since)})`, until && `asked again ${soon(until)}`]);
    return small(times, times && why ? ': ' : '', why || '');
  }
  return one.last_error ? small(`last trouble ${ago(one.last_error.at)}: ${one.last_error.reason}`) : null;
}

const left = told => (told.limit === null ? `${told.remaining}` : `${told.remaining} of ${told.limit}`);
const isLow = told => state.floor !== null && told.remaining <= state.floor;

function quota(one) {
  const told = one.quota;
  if (!told) return cell('quiet wide', '–');
  const there = cell('', make('span', { class: 'narrow' }, 'Pulls left: '), make('span', isLow(told) ? { class: 'bad' } : {}, left(told)));
  if (told.limit) {
    const bar = make('progress', { 'aria-label': `Pulls left at ${one.registry}` });
    bar.max = told.limit;
    bar.value = told.remaining;
    there.append(bar);
  }
  const whole = told.whole_again && told.remaining !== told.limit ? `whole ${soon(told.whole_again)}` : '';
  there.append(small(listed([whole, told.source && `for ${told.source}`])));
  return there;
}

const called = one => (one.registry === 'docker.io' ? 'Docker Hub' : one.registry);

// The quota of which least is left.
function drawQuota(registries) {
  const share = one => one.quota.remaining / (one.quota.limit || Infinity);
  const counted = registries.filter(one => one.quota).sort((a, b) => share(a) - share(b));
  byId('quota-tile').hidden = counted.length === 0;
  if (counted.length === 0) return;
  const [least, ...others] = counted;
  const told = least.quota;
  const whole = told.whole_again && told.remaining !== told.limit ? `whole at ${when(told.whole_again)}` : '';
  const floor = isLow(told) ? `kept tags are served as they were (quota-floor ${state.floor})` : '';
  setText('quota-label', `Pulls left at ${called(least)}`);
  setText('quota', left(told));
  byId('quota').className = isLow(told) ? 'bad' : '';
  const next = others.slice(0, 2).map(one => `${called(one)} ${left(one.quota)}`);
  setText('quota-of', [whole, floor, listed(next)].filter(Boolean).join('\n'));
}

function drawSlow(registries) {
  const timed = registries.filter(one => one.first_byte_ms).sort((a, b) => b.first_byte_ms.p95 - a.first_byte_ms.p95);
  byId('slow-tile').hidden = timed.length === 0;
  if (timed.length === 0) return;
  const [slowest, ...others] = timed;
  setText('slow-label', 'Slowest registry (first byte, p95)');
  setText('slow', took(slowest.first_byte_ms.p95));
  byId('slow').className = slowest.first_byte_ms.p95 > SLOW_MS ? 'warn' : '';
  const then = others.slice(0, 1).map(one => `${one.registry} ${took(one.first_byte_ms.p95)}`);
  setText('slow-of', [slowest.registry, listed(then) && `then ${listed(then)}`].filter(Boolean).join('\n'));
}

byId('more-registries').addEventListener('click', () => {
  state.showsAll = !state.showsAll;
  drawTable();
});
