// The API, with its problem documents as errors and its events as a subscription that survives a lost server.

import { readColumns } from "./columns.js";
import { askKey, kept } from "./key.js";

export class Problem extends Error {
  constructor(document, status) {
    super(document.detail ?? document.title ?? `HTTP ${status}`);
    this.document = document;
    this.status = status;
  }
}

const banner = () => document.getElementById("offline");
let away = false;

export function online(yes) {
  if (away === !yes) return;
  away = !yes;
  const element = banner();
  element.hidden = yes;
  element.textContent = yes ? "" : "The server does not answer. Trying again …";
}

export async function call(path, { method = "GET", body, headers = {}, type = "application/json", signal } = {}) {
  let answer, key;
  try {
    const content = body === undefined ? undefined : type === "application/json" ? JSON.stringify(body) : body;
    const sent = { ...headers, ...(content === undefined ? {} : { "Content-Type": type }) };
    key = kept();
    if (key) sent.Authorization = `Bearer ${key}`;
    answer = await fetch(path, { method, headers: sent, body: content, signal, cache: "no-cache" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    online(false);
    throw new Problem({ title: "The server does not answer", detail: "The server does not answer.", hint: "Is `bitwright serve` still running?" }, 0);
  }
  online(true);
  if (!answer.ok) {
    let problem;
    try { problem = await answer.json(); } catch { problem = { detail: `HTTP ${answer.status}` }; }
    // Another call may have been given a new key meanwhile.
    if (answer.status === 401 && !signal?.aborted && (key !== kept() || await askKey(problem))) return call(path, { method, body, headers, type, signal });
    throw new Problem(problem, answer.status);
  }
  return answer;
}

export const get = async (path, options) => (await call(path, options)).json();
export const post = async (path, body, options) => (await call(path, { method: "POST", body, ...options })).json();
export const text = async (path, options) => (await call(path, options)).text();

const cache = new Map();

// Content-addressed documents: asked for once.
export function once(path, ask = get) {
  if (!cache.has(path)) {
    const found = ask(path);
    found.catch(() => cache.delete(path));
    cache.set(path, found);
  }
  return cache.get(path);
}

// A sensitivity table with what each engine loads of it.
export const tableOf = (digest) => once(`/v1/sensitivities/${encodeURIComponent(digest)}`, async (path) => readColumns(await (await call(path, { headers: { Accept: "application/vnd.bitwright.columns" } })).arrayBuffer()));

// A job until it has ended: `seen(job, null)` for each state, `seen(null, event)` for each event. The stream of events is
// read by fetch (an EventSource can carry no key); where streams are refused, long polls with entity tags take over.
// `failed` is told when the job is gone or may not be seen (any more). Returns a function that stops watching.
export function watch(id, seen, failed) {
  const here = `/v1/jobs/${encodeURIComponent(id)}`, stopper = new AbortController(), { signal } = stopper;
  let last = 0, streams = true, waiting = null;
  const stop = () => { stopper.abort(); clearTimeout(waiting); clearInterval(beat); };
  const refuse = (error) => {
    if (signal.aborted || ![401, 403, 404].includes(error.status)) return false;
    stop();
    failed(error);
    return true;
  };
  const refresh = async () => {
    try {
      const job = await get(here, { signal });
      if (signal.aborted) return null;
      seen(job, null);
      if (job.done) stop();
      return job;
    } catch (error) { refuse(error); return null; }
  };
  const follow = async () => {
    for await (const event of events(`${here}/events`, last, signal)) {
      last = event.id;
      seen(null, event);
      clearTimeout(waiting);
      waiting = setTimeout(refresh, event.type === "progress" ? 400 : 30);
    }
  };
  const poll = (job) => call(`${here}?wait=20`, { headers: { "If-None-Match": `"${job.version}"` }, signal });
  const run = async () => {
    while (!signal.aborted) {
      const job = await refresh();
      if (signal.aborted) return;
      if (!job) { await pause(1500); continue; }
      try {
        await (streams ? follow() : poll(job));
      } catch (error) {
        if (signal.aborted || refuse(error)) return;
        if (error.status === 304) continue;
        if (error.status > 0) streams = false;
        await pause(1500);
      }
    }
  };
  const beat = setInterval(refresh, 15000); // a proxy may hold a stream back
  run();
  return stop;
}

// Server-sent events after `last`, until the stream ends. Throws Problem.
async function* events(path, last, signal) {
  const answer = await call(path, { headers: { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": String(last) } : {}) }, signal });
  if (!answer.body || answer.status === 204) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ;) {
    let part;
    try { part = await reader.read(); } catch (error) { if (signal.aborted) return; throw new Problem({ detail: "the stream broke" }, 0); }
    if (part.done) return;
    const blocks = (text + part.value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").find((row) => row.startsWith("data: "));
      const event = data && JSON.parse(data.slice(6));
      if (event?.job_id) yield event;
    }
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
