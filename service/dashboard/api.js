// The API, with its problem documents as errors and its events as a subscription that survives a lost server.

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
  let answer;
  try {
    const content = body === undefined ? undefined : type === "application/json" ? JSON.stringify(body) : body;
    const sent = { ...headers, ...(content === undefined ? {} : { "Content-Type": type }) };
    const key = sessionStorage.getItem("bitwright-key");
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
    throw new Problem(problem, answer.status);
  }
  return answer;
}

export const get = async (path, options) => (await call(path, options)).json();
export const post = async (path, body, options) => (await call(path, { method: "POST", body, ...options })).json();
export const text = async (path, options) => (await call(path, options)).text();

const cache = new Map();

// Content-addressed documents: asked for once.
export function once(path) {
  if (!cache.has(path)) {
    const found = get(path);
    found.catch(() => cache.delete(path));
    cache.set(path, found);
  }
  return cache.get(path);
}

// A job until it has ended: `seen(job, event)` at once and at each change. Events when the browser may have them,
// else long polls with entity tags. Returns a function that stops watching.
export function watch(id, seen, failed) {
  const stopper = new AbortController();
  let source = null;
  const refresh = async () => {
    try {
      const job = await get(`/v1/jobs/${encodeURIComponent(id)}`, { signal: stopper.signal });
      if (stopper.signal.aborted) return null;
      seen(job, null);
      if (job.done) stop();
      return job;
    } catch (error) {
      if (stopper.signal.aborted) return null;
      if (error.status === 404 || error.status === 401 || error.status === 403) { stop(); failed(error); }
      return null;
    }
  };
  const poll = async () => {
    while (!stopper.signal.aborted) {
      const job = await refresh();
      if (!job) await pause(2000);
      else if (!job.done) await wait(job);
    }
  };
  const wait = async (job) => {
    try {
      await call(`/v1/jobs/${encodeURIComponent(id)}?wait=20`, { headers: { "If-None-Match": `"${job.version}"` }, signal: stopper.signal });
    } catch (error) { if (error.status === 0) await pause(2000); }
  };
  const stop = () => { stopper.abort(); source?.close(); };
  if (window.EventSource && !sessionStorage.getItem("bitwright-key")) {
    source = new EventSource(`/v1/jobs/${encodeURIComponent(id)}/events`);
    let waiting = null;
    const take = (message) => {
      const event = message.data ? JSON.parse(message.data) : null;
      if (event) seen(null, event);
      clearTimeout(waiting);
      waiting = setTimeout(refresh, event?.type === "progress" ? 400 : 30);
    };
    for (const type of ["queued", "started", "progress", "requeued", "cancel-requested", "succeeded", "failed", "cancelled"]) source.addEventListener(type, take);
    source.onopen = () => online(true);
    source.onerror = () => {
      if (stopper.signal.aborted) return;
      refresh();
      if (source.readyState === EventSource.CLOSED) { source.close(); setTimeout(poll, 1000); }
    };
    refresh();
  } else {
    poll();
  }
  return stop;
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
