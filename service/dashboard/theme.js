// Light or dark: as the system prefers, or as was chosen here.

const NAME = "bitwright-theme";

// A page without an origin of its own (a report in a frame) may keep nothing.
const kept = () => { try { return localStorage.getItem(NAME); } catch { return null; } };
const keep = (name) => { try { localStorage.setItem(NAME, name); } catch { /* chosen for this visit alone */ } };

export function startTheme(button) {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
  const show = (name) => { root.dataset.theme = name; };
  show(kept() ?? (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => kept() || show(dark.matches ? "dark" : "light"));
  button.addEventListener("click", () => {
    const next = root.dataset.theme === "dark" ? "light" : "dark";
    keep(next);
    show(next);
  });
}
