// What is wrong: the first line, and what goes wrong, each kind of it once.
'use strict';

import { breakable, byId, make, setText, small } from './dom.js';
import { ago, clock, listed, plural, soon, when, whenUtc } from './words.js';

const MOST_GROUPS = 8;
const VERDICTS = ['well', 'troubled', 'draining'];

export function drawStatus(status) {
  const { name = '', troubles = [], contact = null } = status;
  byId('verdict').hidden = false;
  byId('verdict').className = `card ${VERDICTS.includes(status.verdict) ? status.verdict : 'troubled'}`;
  setText('sentence', status.sentence);
  // One trouble is what the sentence says.
  const told = troubles.length > 1 ? troubles : [];
  byId('troubles').replaceChildren(...told.map(one => {
    const since = one.since && `since ${whenUtc(one.since)} (${ago(one.since)})`;
    const times = listed([since, one.until && `asked again ${soon(one.until, whenUtc)}`]);
    return make('li', {}, ...breakable(one.words), times ? small(times) : null);
  }));
  setText('name', name);
  const count = troubles.length > 0 ? plural(troubles.length, 'trouble', 'troubles') : '';
  const word = status.verdict === 'draining' ? 'draining' : count;
  document.title = [word, name, 'entrepot'].filter(Boolean).join(' – ');
  setText('contact', contact ? `Run by ${contact} · ` : '');
}

export function drawErrors({ groups = [] }) {
  const mistakes = groups.filter(group => group.side === 'client');
  const failures = groups.filter(group => group.side !== 'client');
  byId('no-errors').hidden = failures.length > 0;
  byId('errors').replaceChildren(...failures.slice(0, MOST_GROUPS).map(item), ...others(failures.length));
  byId('mistakes').hidden = mistakes.length === 0;
  const kinds = plural(mistakes.length, 'kind of mistake', 'kinds of mistakes');
  setText('mistakes-title', `${kinds} by users: names that there are not, hosts that are refused`);
  byId('mistakes-list').replaceChildren(...mistakes.slice(0, MOST_GROUPS).map(item), ...others(mistakes.length));
}

const others = count => (count > MOST_GROUPS ? [make('li', { class: 'quiet' }, `and ${count - MOST_GROUPS} others`)] : []);

function item(group) {
  const [first, last] = [group.first_ms / 1000, group.last_ms / 1000];
  const whom = group.registry && !group.reason.includes(group.registry) ? `${group.registry}: ` : '';
  const often = group.count === 1
    ? `at ${when(last)}`
    : `${group.count.toLocaleString('en')} × since ${when(first)}, last at ${clock(group.last_ms, true)}`;
  return make('li', {}, ...breakable(`${whom}${group.reason}`), small(often));
}
