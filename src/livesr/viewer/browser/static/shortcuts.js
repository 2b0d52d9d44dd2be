// The keys, and the list of them behind "?".

import { byId, make } from "./format.js";

/** `keys` is a list of [key or keys, words, action(key), how the key is written]; the digits with shift come as "shift+1". */
export function listen(keys) {
  const actions = new Map(keys.flatMap(([names, , action]) => [names].flat().map((name) => [name, action])));
  byId("keys").replaceChildren(
    ...keys.map(([names, words, , shown]) => make("div", {}, make("dt", {}, make("kbd", { textContent: shown ?? names })), make("dd", { textContent: words }))),
  );
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    if (event.target.matches("select, input[type=range]") && event.key !== "?") return;
    const digit = /^Digit(\d)$/.exec(event.code);
    const key = event.shiftKey && digit ? `shift+${digit[1]}` : event.key;
    if (!actions.has(key)) return;
    event.preventDefault();
    actions.get(key)(key);
  });
}
