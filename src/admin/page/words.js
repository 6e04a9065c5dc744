// Numbers, times and names as people read them.
'use strict';

const DAY = 86400;

export function bytes(count) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let [unit, size] = [0, Math.abs(count)];
  while (size >= 999.95 && unit < units.length - 1) { size /= 1000; unit += 1; }
  const sign = count < 0 ? '−' : '';
  return `${sign}${unit === 0 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

export function took(millis) {
  if (millis < 1000) return `${Math.round(millis)} ms`;
  return millis < 600000 ? `${(millis / 1000).toFixed(1)} s` : `${Math.round(millis / 60000)} min`;
}

export function span(seconds) {
  const steps = [[DAY, 'd'], [3600, 'h'], [60, 'min']];
  const step = steps.find(([length]) => seconds >= length);
  return step ? `${Math.floor(seconds / step[0])} ${step[1]}` : `${Math.max(0, Math.floor(seconds))} s`;
}

const now = () => Date.now() / 1000;
export const ago = at => `${span(now() - at)} ago`;
export const percent = (part, whole) => (whole > 0 ? `${Math.floor(100 * part / whole)} %` : '–');
export const plural = (count, one, many) => `${count.toLocaleString('en')} ${count === 1 ? one : many}`;
export const listed = parts => parts.filter(Boolean).join(', ');
export const clock = (millis, withSeconds) => new Date(millis).toLocaleTimeString([], {
  hour: '2-digit', minute: '2-digit', second: withSeconds ? '2-digit' : undefined, hour12: false,
});
export const day = at => new Date(at * 1000).toLocaleDateString('en-GB', { day: 'numeric', month: 'short', year: 'numeric' });

// A time of today by the clock, another one with its day: by this browser's clock, or that of the
// log and of the proxy's own sentences.
function dated(at, timeZone, suffix) {
  const [date, today] = [at * 1000, Date.now()].map(time => new Date(time)
    .toLocaleDateString('en-GB', { day: 'numeric', month: 'short', timeZone }));
  const time = new Date(at * 1000).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hour12: false, timeZone });
  return `${date === today ? '' : `${date} `}${time}${suffix}`;
}

export const when = at => dated(at, undefined, '');
export const whenUtc = at => dated(at, 'UTC', ' UTC');

// When something is to be: shortly, or by the clock.
export const soon = (at, by = when) => (at - now() < 3600 ? `in ${span(at - now())}` : `at ${by(at)}`);

export function money(amount, currency) {
  const digits = Math.abs(amount) < 100 ? 2 : 0;
  const round = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  try {
    return amount.toLocaleString('en', { style: 'currency', currency, ...round });
  } catch {
    return `${amount.toLocaleString('en', round)} ${currency}`;
  }
}

// What people call the program that sends this User-Agent.
const AGENTS = [
  [/\bbuildkit\b/i, 'BuildKit'], [/\bcontainerd\b/i, 'containerd'], [/\bcri-?o\b/i, 'CRI-O'], [/\bskopeo\b/i, 'skopeo'],
  [/\bbuildah\b/i, 'Buildah'], [/\b(libpod|podman)\b/i, 'Podman'], [/\bkaniko\b/i, 'kaniko'], [/\bcrane\b/i, 'crane'],
  [/\boras\b/i, 'oras'], [/\bhelm\b/i, 'Helm'], [/\bentrepot\b/i, 'entrepot'], [/\bdocker\b/i, 'docker'],
];
export function agent(text) {
  if (!text) return '';
  const known = AGENTS.find(([pattern]) => pattern.test(text));
  return known ? known[1] : text.split(/[/ ]/)[0].slice(0, 24);
}

// A digest that is cut to what tells it apart.
export const short = digest => `${digest.slice(0, 19)}…`;

// The full name of what was pulled, with the tag where there is one.
export function image(pull) {
  const hub = pull.registry === 'docker.io' ? '' : `${pull.registry}/`;
  const reference = pull.tag || pull.reference || '';
  const behind = reference.includes(':') ? `@${short(reference)}` : `:${reference}`;
  return `${hub}${pull.repository}${reference ? behind : ''}`;
}
