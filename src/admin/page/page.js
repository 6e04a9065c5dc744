// The status page: the admin API, drawn. Whatever comes from there is set as text, never as markup.
'use strict';

const MOST_ROWS = 100;
const MOST_ERRORS = 8;
const MOST_POINTS = 24 * 60 + 1;
const LONGEST_EVENT = 8 * 1024 * 1024;
const TOKEN = 'entrepot-token';
const DAY = 86400;

const state = { about: null, stats: null, points: [], requests: [], errors: [], minutes: 60, paused: false };
const byId = id => document.getElementById(id);

// Elements: `make('td', { class: 'number' }, 'text', child)`.
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter(child => child !== null));
  return node;
}

// A name that breaks behind its slashes, if it has to.
const breakable = text => (text.match(/[^/]+\/?|\//g) || []).flatMap((part, n) => (n === 0 ? [part] : [make('wbr'), part]));

// A row and its cells. The roles are spelled out for where the style lays them out as no table.
const row = (attributes, ...cells) => make('tr', { role: 'row', ...attributes }, ...cells);
const cell = (style, ...children) => make('td', { role: 'cell', class: style }, ...children);
const head = text => make('th', { role: 'rowheader', scope: 'row' }, ...breakable(text));

function setText(id, text) {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
}

// --- words -------------------------------------------------------------------------------------

function bytes(count) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let unit = 0;
  while (count >= 999.95 && unit < units.length - 1) { count /= 1000; unit += 1; }
  return `${unit === 0 ? count : count.toFixed(1)} ${units[unit]}`;
}

function took(millis) {
  if (millis < 10000) return `${millis} ms`;
  return millis < 600000 ? `${(millis / 1000).toFixed(1)} s` : `${Math.round(millis / 60000)} min`;
}

function span(seconds) {
  const steps = [[DAY, 'd'], [3600, 'h'], [60, 'min']];
  const step = steps.find(([length]) => seconds >= length);
  return step ? `${Math.floor(seconds / step[0])} ${step[1]}` : `${Math.max(0, Math.floor(seconds))} s`;
}

const ago = at => `${span(Date.now() / 1000 - at)} ago`;
const percent = (part, whole) => (whole > 0 ? `${Math.round(100 * part / whole)} %` : '–');
const plural = (count, one, many) => `${count.toLocaleString('en')} ${count === 1 ? one : many}`;
const clock = (millis, withSeconds) => new Date(millis).toLocaleTimeString([], {
  hour: '2-digit', minute: '2-digit', second: withSeconds ? '2-digit' : undefined, hour12: false,
});

// --- sums, disk, warnings ----------------------------------------------------------------------

function drawStats(stats) {
  state.stats = stats;
  setText('version', `${stats.version}, up ${span(stats.uptime_secs)}`);
  setText('ratio', percent(stats.hits, stats.cacheable_requests));
  setText('ratio-of', `of ${plural(stats.cacheable_requests, 'request', 'requests')} that can be kept`);
  setText('saved', bytes(stats.saved_bytes));
  setText('sent', bytes(stats.sent_bytes));
  setText('requests-count', plural(stats.requests, 'request', 'requests'));
  setText('received', bytes(stats.received_bytes));
  drawDisk(stats.store);
  drawWarnings(stats.store);
  byId('empty').hidden = stats.requests > 0 || stats.store.objects > 0;
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
    ? `; ${plural(store.evicted_objects, 'object', 'objects')} (${bytes(store.evicted_bytes)}) made room`
    : '';
  setText('objects', `${plural(store.objects, 'object', 'objects')}${gone}`);
}

function drawWarnings(store) {
  const warnings = [];
  if (store.is_troubled) warnings.push('The disk fails: downloads are passed on and not kept.');
  if (store.index === 'in_memory') warnings.push('The index of the store is given up until the next start.');
  if (store.quarantined_objects > 0) {
    warnings.push(`The disk has damaged ${plural(store.quarantined_objects, 'object', 'objects')}: set aside, to be fetched again.`);
  }
  if (store.free_bytes !== null && store.min_free_bytes !== null && store.free_bytes < store.min_free_bytes) {
    warnings.push('The disk has less room than min-free: nothing more is kept.');
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
}

// --- over time ---------------------------------------------------------------------------------

function notePoint(point) {
  const points = state.points;
  if (points.length > 0 && points[points.length - 1].at === point.at) points.pop();
  points.push(point);
  points.splice(0, points.length - MOST_POINTS);
  drawHistory();
}

// So many minutes up to now in at most 120 columns; minutes before the start are empty.
function columns() {
  const count = Math.min(state.minutes, 120);
  const width = state.minutes * 60 / count;
  const end = Date.now() / 1000;
  const empty = () => ({ cacheable: 0, hits: 0, sent: 0, saved: 0 });
  const sums = Array.from({ length: count }, empty);
  for (const point of state.points) {
    const back = Math.floor((end - point.at) / width);
    const sum = sums[count - 1 - Math.max(0, back)];
    if (!sum) continue;
    sum.cacheable += point.cacheable_requests;
    sum.hits += point.hits;
    sum.sent += point.sent_bytes;
    sum.saved += point.saved_bytes;
  }
  return sums;
}

function shape(tag, attributes) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function drawHistory() {
  const sums = columns();
  const total = name => sums.reduce((sum, column) => sum + column[name], 0);
  drawRatio(sums, total('hits'), total('cacheable'));
  drawBytes(sums, total('saved'), total('sent'));
  const from = clock(Date.now() - state.minutes * 60000, false);
  for (const node of document.querySelectorAll('.axis .from')) node.textContent = from;
}

function drawRatio(sums, hits, cacheable) {
  const step = 600 / sums.length;
  const chart = byId('ratio-chart');
  const lines = [0.5, 50].map(y => shape('line', { class: 'grid', x1: 0, x2: 600, y1: y, y2: y }));
  // Columns without requests are left out: the line goes on behind them.
  const known = sums.map((sum, n) => [n, sum]).filter(([, sum]) => sum.cacheable > 0);
  const at = ([n, sum]) => `${(n * step).toFixed(1)},${(98 - 96 * sum.hits / sum.cacheable).toFixed(1)}`;
  // A column is drawn as wide as it is, so that a single one shows.
  const points = known.flatMap(one => [at(one), at([one[0] + 1, one[1]])]);
  const drawn = [];
  if (points.length > 0) {
    const [first, last] = [known[0][0] * step, (known[known.length - 1][0] + 1) * step];
    drawn.push(shape('polygon', { class: 'area', points: `${first},100 ${points.join(' ')} ${last},100` }));
    drawn.push(shape('polyline', { class: 'curve', points: points.join(' ') }));
  }
  chart.replaceChildren(...lines, ...drawn);
  const share = percent(hits, cacheable);
  chart.setAttribute('aria-label', `In this time ${share} of requests were served from the cache`);
  setText('ratio-top', cacheable > 0 ? share : '');
}

function drawBytes(sums, saved, sent) {
  const step = 600 / sums.length;
  const most = Math.max(1, ...sums.map(sum => sum.sent));
  const bars = sums.flatMap((sum, n) => {
    if (sum.sent === 0) return [];
    const bar = (name, from, size) => shape('rect', {
      class: name, x: n * step + step * 0.1, width: step * 0.8,
      y: 100 - 98 * (from + size) / most, height: 98 * size / most,
    });
    return [bar('saved', 0, sum.saved), bar('fetched', sum.saved, sum.sent - sum.saved)];
  });
  const chart = byId('bytes-chart');
  chart.replaceChildren(shape('line', { class: 'grid', x1: 0, x2: 600, y1: 0.5, y2: 0.5 }), ...bars);
  chart.setAttribute('aria-label', `In this time ${bytes(sent)} went to clients, ${bytes(saved)} of it saved`);
  setText('bytes-top', sent > 0 ? `most ${bytes(most)} in ${span(state.minutes * 60 / sums.length)}` : '');
}

// --- what is under way, and what there was -----------------------------------------------------

function drawFetches({ fetches }) {
  byId('no-fetches').hidden = fetches.length > 0;
  byId('fetches').replaceChildren(...fetches.map(one => {
    const name = `${one.digest.slice(0, 19)}…`;
    const bar = make('progress', { 'aria-label': `${name} of ${one.registry}` });
    if (one.total_bytes) { bar.max = one.total_bytes; bar.value = one.bytes; }
    const of = one.total_bytes ? ` of ${bytes(one.total_bytes)}` : '';
    const words = make('span', { class: 'number' }, `${bytes(one.bytes)}${of}`);
    const share = make('span', { class: 'share' }, make('span', {}, `${one.registry} ${name}`), words);
    return make('li', {}, share, bar);
  }));
}

const STATES = {
  well: ['good', 'well'], away: ['bad', 'unreachable'],
  'credentials-refused': ['bad', 'credentials refused'], limited: ['warn', 'limited'],
  unwell: ['warn', 'unwell'], slow: ['warn', 'slow'], unknown: ['quiet', 'not asked yet'],
};

function drawRegistries({ registries }) {
  const all = one => Object.values(one.requests).reduce((sum, count) => sum + count, 0);
  const seen = registries.filter(one => all(one) > 0 || one.quota || one.outage || one.last_error);
  seen.sort((a, b) => all(b) - all(a));
  byId('registries').replaceChildren(...seen.map(one => {
    const [style, word] = STATES[one.state] || STATES.unknown;
    const health = cell('', make('span', { class: style }, word), trouble(one));
    return row({},
      head(one.registry), health, quota(one),
      cell('number wide', all(one).toLocaleString('en')),
      cell('number wide', bytes(one.sent_bytes)),
      cell('number wide', bytes(one.received_bytes)));
  }));
  const rest = registries.length - seen.length;
  setText('unasked', rest > 0 ? `${seen.length > 0 ? 'And ' : ''}${rest} that nobody has asked for.` : '');
}

// Why a registry is not well, or when it last was not.
function trouble(one) {
  if (one.outage) return make('small', {}, `for ${span(Date.now() / 1000 - one.outage.since)}: ${one.outage.reason}`);
  if (one.limit) return make('small', {}, `it answered ${one.limit.status}`);
  return one.last_error ? make('small', {}, `${ago(one.last_error.at)}: ${one.last_error.reason}`) : null;
}

function quota(one) {
  const told = one.quota;
  if (!told) return cell('quiet wide', '–');
  const left = cell('', told.limit === null ? `${told.remaining}` : `${told.remaining} of ${told.limit}`);
  if (told.limit) {
    const bar = make('progress', { 'aria-label': `Pulls left at ${one.registry}` });
    bar.max = told.limit;
    bar.value = told.remaining;
    left.append(bar);
  }
  const hours = told.window_secs ? `in ${span(told.window_secs)}` : '';
  const whose = told.source ? ` for ${told.source}` : '';
  left.append(make('small', {}, `${hours}${whose}`));
  return left;
}

function drawRepositories({ repositories }) {
  byId('no-repositories').hidden = repositories.length > 0;
  byId('repositories').replaceChildren(...repositories.slice(0, 10).map(one => row({},
    head(`${one.registry}/${one.repository}`),
    cell('number', percent(one.hits, one.requests)),
    cell('number', bytes(one.sent_bytes)))));
}

function drawErrors() {
  byId('no-errors').hidden = state.errors.length > 0;
  byId('errors').replaceChildren(...state.errors.slice(0, MOST_ERRORS).map(one => {
    const where = [one.registry, one.repository, one.object].filter(Boolean).join(' ');
    const status = one.status ? ` (${one.status})` : '';
    return make('li', {}, one.reason || `${one.outcome}${status}`,
      make('small', {}, `${clock(one.at_ms, true)} ${one.method} ${where}, from ${one.client}`));
  }));
}

const OUTCOMES = {
  hit: 'good', joined: 'good', revalidated: 'good', stale: 'warn', denied: 'bad', error: 'bad',
};

function requestRow(one) {
  const where = [one.registry, one.repository].filter(Boolean).join('/');
  const size = bytes(one.body_bytes);
  const what = cell('', make('span', {}, ...breakable(`${one.method === 'GET' ? '' : `${one.method} `}${where} ${one.object}`)),
    make('small', { class: 'narrow' }, `${size}, ${took(one.elapsed_ms)}, ${one.client}`),
    one.reason ? make('small', {}, one.reason) : null);
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
  const failed = newest.filter(one => one.outcome === 'error' || one.outcome === 'denied');
  if (failed.length > 0) {
    const known = state.errors.length > 0 ? state.errors[0].number : -1;
    state.errors = failed.filter(one => one.number > known).concat(state.errors).slice(0, MOST_ERRORS);
    drawErrors();
  }
  if (state.paused) return;
  const rows = byId('requests');
  rows.prepend(...newest.slice(0, MOST_ROWS).map(requestRow));
  while (rows.rows.length > MOST_ROWS) rows.lastElementChild.remove();
  byId('no-requests').hidden = state.requests.length > 0;
}

function drawRequests() {
  byId('requests').replaceChildren(...state.requests.map(requestRow));
  byId('no-requests').hidden = state.requests.length > 0;
}

// --- the way to the API ------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, words) { super(words); this.status = status; }
}

async function ask(path, signal) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, signal, cache: 'no-store' });
  if (answer.ok) return answer;
  let words = `the proxy answered ${answer.status}`;
  try { words = (await answer.json()).errors[0].message; } catch { /* the number has to do */ }
  throw new Refused(answer.status, words);
}

const asked = async (path, signal) => (await ask(path, signal)).json();

const HANDLERS = {
  stats: drawStats, point: notePoint, fetches: drawFetches,
  registries: drawRegistries, repositories: drawRepositories, requests: noteRequests,
};

// One event of the stream: `event: NAME`, `data: JSON`.
function handle(text) {
  const field = name => text.split('\n').find(line => line.startsWith(`${name}: `))?.slice(name.length + 2);
  const draw = HANDLERS[field('event')];
  if (draw) draw(JSON.parse(field('data')));
}

async function follow(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split('\n\n');
    rest = events.pop();
    if (rest.length > LONGEST_EVENT) throw new Error('an event without an end');
    events.forEach(handle);
  }
}

function tell(words, style) {
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
  try {
    const [about, history, errors] = await Promise.all(['about', 'history', 'errors']
      .map(name => asked(`/api/v1/${name}`, aborted.signal)));
    const answer = await ask('/api/v1/events', aborted.signal);
    state.points = history.points;
    state.errors = errors.errors.slice(0, MOST_ERRORS);
    state.requests = [];
    byId('requests').replaceChildren();
    drawAbout(about);
    drawErrors();
    drawHistory();
    show('all');
    tell('Live', 'on');
    await follow(answer.body);
  } finally {
    aborted.abort();
  }
}

async function run() {
  for (let wait = 1; ; wait = Math.min(wait * 2, 15)) {
    const began = Date.now();
    try {
      await watch();
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        byId('login-wrong').hidden = sessionStorage.getItem(TOKEN) === null;
        sessionStorage.removeItem(TOKEN);
        show('login');
        byId('token').focus();
        tell('Waiting for the token', '');
        return;
      }
      if (error instanceof Refused && error.status === 403) {
        setText('refused', error.message);
        show('refused');
      }
    }
    if (Date.now() - began > 30000) wait = 1;
    tell('Not connected: trying again', 'off');
    await new Promise(resolve => setTimeout(resolve, wait * 1000));
  }
}

// --- what can be clicked -----------------------------------------------------------------------

byId('login').addEventListener('submit', event => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, byId('token').value.trim());
  byId('token').value = '';
  run();
});

byId('ranges').addEventListener('click', event => {
  const minutes = Number(event.target.dataset.minutes);
  if (!minutes) return;
  state.minutes = minutes;
  for (const button of byId('ranges').children) button.setAttribute('aria-pressed', String(button === event.target));
  drawHistory();
});

byId('pause').addEventListener('click', () => {
  state.paused = !state.paused;
  byId('pause').setAttribute('aria-pressed', String(state.paused));
  if (!state.paused) drawRequests();
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
