// How it went, minute by minute.
'use strict';

import { byId, setText } from './dom.js';
import { bytes, clock, percent, span } from './words.js';

const MOST_POINTS = 24 * 60 + 1;
const state = { points: [], minutes: 60 };

export function begin(points) {
  state.points = points;
  draw();
}

export function note(point) {
  const points = state.points;
  if (points.length > 0 && points[points.length - 1].at === point.at) points.pop();
  points.push(point);
  points.splice(0, points.length - MOST_POINTS);
  draw();
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
    // What was fetched ahead is served later: of one minute neither part is less than nothing.
    sum.saved += Math.min(Math.max(0, point.saved_bytes), point.sent_bytes);
  }
  return sums;
}

function shape(tag, attributes) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function draw() {
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
  chart.setAttribute('aria-label', `In this time ${share} of requests for content were hits`);
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
  chart.setAttribute('aria-label', `In this time ${bytes(sent)} went to clients, ${bytes(saved)} of it from the cache`);
  setText('bytes-top', sent > 0 ? `most ${bytes(most)} in ${span(state.minutes * 60 / sums.length)}` : '');
}

byId('ranges').addEventListener('click', event => {
  const minutes = Number(event.target.dataset.minutes);
  if (!minutes) return;
  state.minutes = minutes;
  for (const button of byId('ranges').children) button.setAttribute('aria-pressed', String(button === event.target));
  draw();
});
