// Which stream is shown: acquisition channel, position and plane; what there is only one of is not asked for.

import { lengthText, make } from "./format.js";

const TITLES = { channel: "Channel", position: "Position", z: "Plane" };

const where = ({ x_um: x, y_um: y }) => (x == null || y == null ? "" : `${x.toFixed(1)}, ${y.toFixed(1)} µm`);
const depth = ({ z_um: um }) => (um == null ? "" : lengthText(Number(um.toFixed(3))));

export class Streams {
  /** `onChange({channel, position, z})`; null follows. */
  constructor(form, onChange) {
    this.form = form;
    this.onChange = onChange;
    this.selection = { channel: null, position: null, z: null };
    this.key = "";
    this.followed = {};
    this.sliders = {};
  }

  /** `streams` is what the run has sent so far; a store has no newest to follow. */
  update(streams, isStore) {
    const key = JSON.stringify([streams, isStore]);
    if (key === this.key) return;
    this.key = key;
    const held = document.activeElement?.name;
    this.isStore = isStore;
    this.sliders = {};
    const fields = [this.channels(streams), this.slider("position", streams), this.slider("z", streams)];
    this.form.hidden = fields.every((field) => !field);
    this.form.replaceChildren(...fields.filter(Boolean));
    this.form.querySelector(`[name="${held}"]`)?.focus();
    this.nameFollowed();
  }

  choose(part, value) {
    this.selection[part] = value;
    this.onChange();
    this.nameFollowed();
  }

  channels(streams) {
    const named = [...new Set(streams.map((s) => s.channel))].sort();
    if (named.length < 2) return null;
    const select = make("select", { name: "channel" }, make("option", { value: "", textContent: "First" }));
    for (const name of named) select.append(make("option", { value: JSON.stringify(name), textContent: name }));
    select.value = this.selection.channel === null ? "" : JSON.stringify(this.selection.channel);
    select.onchange = () => this.choose("channel", select.value ? JSON.parse(select.value) : null);
    return make("label", {}, make("span", { textContent: TITLES.channel }), select);
  }

  /** A slider over the places that pictures came from; beside it, in a running stream, what follows the newest. */
  slider(part, streams) {
    const places = new Map();
    for (const stream of streams) if (!places.has(stream[part])) places.set(stream[part], stream);
    if (places.size < 2) return null;
    const values = [...places.keys()].sort((a, b) => a - b);
    const range = make("input", { type: "range", name: part, min: 0, max: values.length - 1, step: 1 });
    range.setAttribute("aria-label", TITLES[part]);
    range.oninput = () => this.choose(part, values[range.value]);
    const words = make("output");
    const newest = make("button", { type: "button", className: "newest", textContent: "Newest", hidden: this.isStore, title: "Follow the newest", onclick: () => this.choose(part, this.selection[part] === null ? this.shown(part) : null) });
    const label = (value) => {
      const stream = places.get(value);
      const count = `${values.indexOf(value) + 1} of ${values.length}`;
      return part === "z" ? [count, depth(stream)] : [stream.position_name || String(value), count, where(stream)];
    };
    this.sliders[part] = { range, words, newest, values, label };
    return make("div", { className: "place" }, make("span", { textContent: TITLES[part] }), words, newest, range);
  }

  shown(part) {
    return this.selection[part] ?? this.followed[part] ?? null;
  }

  /** Say which stream the newest picture is of, where it is followed. */
  showFollowed(stream) {
    this.followed = stream;
    this.nameFollowed();
  }

  nameFollowed() {
    for (const [part, { range, words, newest, values, label }] of Object.entries(this.sliders)) {
      const value = this.shown(part) ?? values[0];
      const text = values.includes(value) ? label(value).filter(Boolean).join(" · ") : "";
      if (words.textContent !== text) words.textContent = text;
      if (Number(range.value) !== values.indexOf(value)) range.value = values.indexOf(value);
      range.setAttribute("aria-valuetext", text);
      newest.setAttribute("aria-pressed", String(this.selection[part] === null));
    }
    const first = this.form.querySelector("select")?.options[0];
    const followed = this.followed.channel === undefined ? "First" : `First (${this.followed.channel})`;
    if (first && first.textContent !== followed && (this.selection.channel === null || first.textContent === "First")) first.textContent = followed;
  }
}
