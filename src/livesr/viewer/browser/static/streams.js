// Which stream is shown: acquisition channel, position and plane; what there is only one of is not asked for.

import { make } from "./format.js";

const TITLES = { channel: "Channel", position: "Position", z: "Plane" };

export class Streams {
  /** `onChange({channel, position, z})`; null follows. */
  constructor(form, onChange) {
    this.form = form;
    this.onChange = onChange;
    this.selection = { channel: null, position: null, z: null };
    this.key = "";
    this.followed = {};
  }

  /** `streams` is what the run has sent so far; a store has no newest to follow. */
  update(streams, isStore) {
    const key = JSON.stringify([streams, isStore]);
    if (key === this.key) return;
    this.key = key;
    const fields = Object.keys(TITLES).map((part) => this.field(part, streams, isStore));
    this.form.hidden = fields.every((field) => !field);
    this.form.replaceChildren(...fields.filter(Boolean));
    this.nameFollowed();
  }

  field(part, streams, isStore) {
    const named = new Map(streams.map((s) => [s[part], part === "position" ? s.position_name || s.position : s[part]]));
    if (named.size < 2) return null;
    const select = make("select", { name: part });
    const following = isStore || part === "channel" ? "First" : "Newest";
    select.append(make("option", { value: "", textContent: following }));
    for (const [value, text] of [...named].sort(([a], [b]) => (a > b ? 1 : -1))) {
      select.append(make("option", { value: JSON.stringify(value), textContent: text }));
    }
    select.value = this.selection[part] === null ? "" : JSON.stringify(this.selection[part]);
    select.onchange = () => {
      this.selection[part] = select.value ? JSON.parse(select.value) : null;
      this.onChange();
    };
    return make("label", {}, make("span", { textContent: TITLES[part] }), select);
  }

  /** Say which stream the newest picture is of, where it is followed. */
  showFollowed({ channel, position, z }, positionName) {
    this.followed = { channel, position: positionName || position, z };
    this.nameFollowed();
  }

  nameFollowed() {
    for (const select of this.form.querySelectorAll("select")) {
      const option = select.options[0];
      const word = option.textContent.split(" (")[0];
      const followed = this.followed[select.name];
      const text = followed === undefined ? word : `${word} (${followed})`;
      if (option.textContent !== text) option.textContent = text;
    }
  }
}
