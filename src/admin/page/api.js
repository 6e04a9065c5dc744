// The way to the admin API.
'use strict';

const LONGEST_EVENT = 8 * 1024 * 1024;
const TOKEN = 'entrepot-token';

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: text => sessionStorage.setItem(TOKEN, text),
  forget: () => sessionStorage.removeItem(TOKEN),
};

export class Refused extends Error {
  constructor(status, words) { super(words); this.status = status; }
}

export async function ask(path, { method = 'GET', signal = undefined } = {}) {
  const shown = token.get();
  const headers = shown ? { Authorization: `Bearer ${shown}` } : {};
  const answer = await fetch(path, { method, headers, signal, cache: 'no-store' });
  if (answer.ok) return answer;
  let words = `the proxy answered ${answer.status}`;
  try { words = (await answer.json()).errors[0].message; } catch { /* the number has to do */ }
  throw new Refused(answer.status, words);
}

export const asked = async (path, options) => (await ask(path, options)).json();

// A document that an older proxy has not: its part of the page stays away.
export async function askedIfThere(path, options) {
  try {
    return await asked(path, options);
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return null;
    throw error;
  }
}

// Each part of a stream that ends with `end`.
async function parts(stream, end, each) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const all = (rest + value).split(end);
    rest = all.pop();
    if (rest.length > LONGEST_EVENT) throw new Error('an event without an end');
    all.forEach(each);
  }
}

// Events of a stream: `event: NAME`, `data: JSON`.
export const follow = (stream, handlers) => parts(stream, '\n\n', text => {
  const field = name => text.split('\n').find(line => line.startsWith(`${name}: `))?.slice(name.length + 2);
  const draw = handlers[field('event')];
  if (draw) draw(JSON.parse(field('data')));
});

// JSON lines.
export const lines = (stream, each) => parts(stream, '\n', line => { if (line) each(JSON.parse(line)); });
