// The API key of this visit. When the server asks for one, or the one at hand has expired, a dialog over the view takes
// another; what was asked for is then asked again, and the view stays as it is.

import { h } from "./dom.js";

const NAME = "bitwright-key";
let asking = null, declined = false;

export const kept = () => sessionStorage.getItem(NAME);

// True when another key was given; false when the person would rather not, who is then not asked again before they say so
// (`reconsider`). Calls that are refused together ask once.
export async function askKey(problem) {
  if (declined) return false;
  asking ??= new Promise((done) => open(problem, done)).finally(() => { asking = null; });
  declined = !await asking;
  return !declined;
}

export const reconsider = () => { declined = false; };

function open(problem, done) {
  const input = h("input", { type: "password", autocomplete: "off", id: "api-key", required: true });
  let given = false;
  const take = (event) => {
    event.preventDefault();
    if (!input.value.trim()) return;
    sessionStorage.setItem(NAME, input.value.trim());
    given = true;
    dialog.close();
  };
  const close = () => { dialog.remove(); done(given); };
  const dialog = h("dialog", { "aria-labelledby": "key-title", onclose: close },
    h("form", { onsubmit: take }, h("h2", { id: "key-title" }, kept() ? "This API key is not valid any more" : "This server asks for an API key"),
      h("p", {}, sentence(problem.detail)), problem.hint && h("p", { class: "muted small" }, sentence(problem.hint)),
      h("div", { class: "field" }, h("label", { for: "api-key" }, "API key"), input, h("div", { class: "help" }, "Kept in this tab until it is closed. What you were looking at stays.")),
      h("div", { class: "row end" }, h("button", { type: "button", onclick: () => dialog.close() }, "Not now"), h("button", { class: "primary" }, "Use this key"))));
  document.body.append(dialog);
  dialog.showModal();
  input.focus();
}

const sentence = (words) => words && `${words[0].toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;
