// The channels: visible or not, colour, contrast and gamma of each, and of the measurement.

import { amount, cssColor, make } from "./format.js";
import { HistogramView } from "./histogram.js";

/** What a channel can be given; which of them a colour-blind eye tells apart depends on the eye. */
export const PALETTE = ["00FF00", "FF00FF", "FFFF00", "00FFFF", "FF8000", "3C8CFF", "FF4040", "FFFFFF"];

/** Colour tables that the measurement may have, as livesr.viewer.composite has them. */
const LUTS = { gray: "Grey", inverted: "Inverted", fire: "Fire", viridis: "Viridis" };

const REFRESH_MS = 200;

/** What has a row without being a channel of the prediction, in the order of the rows. */
const MEASURED = { measurement: "Measurement", widefield: "Widefield" };
const keyOf = (name) => `\0${name}`;

class ChannelRow {
  /** `measured` is the name of what is no channel of a prediction, "" for one that is. */
  constructor(label, measured, onChange) {
    const isMeasurement = Boolean(measured);
    this.label = label;
    this.display = { label, color: null, window: null, gamma: 1, visible: true };
    this.change = (part) => {
      Object.assign(this.display, part);
      onChange();
      this.refresh(this.shown);
    };
    this.histogram = new HistogramView((window) => this.change({ window }));
    this.auto = make("button", { type: "button", className: "auto", textContent: "Auto", title: "Automatic contrast (a: all)", onclick: () => this.change({ window: null }) });
    this.range = make("span", { className: "range" });
    this.gamma = make("input", { type: "range", min: -2, max: 2, step: 0.05, value: 0, title: "Gamma; double-click: 1", oninput: () => this.change({ gamma: Number((2 ** -this.gamma.value).toFixed(3)) }) });
    const spoken = isMeasurement ? `the ${measured}` : label;
    this.spoken = spoken;
    this.gamma.setAttribute("aria-label", `Gamma of ${spoken}`);
    this.gamma.ondblclick = () => this.change({ gamma: 1 });
    this.gammaValue = make("output");
    this.element = make("section", { className: "channel", dataset: { label } }, this.head(isMeasurement), this.palette(isMeasurement));
    const gamma = make("label", { className: "gamma" }, make("span", { textContent: "Gamma" }), this.gamma, this.gammaValue);
    this.element.append(this.histogram.canvas, make("div", { className: "contrast" }, this.range, gamma));
  }

  head(isMeasurement) {
    this.chip = make("button", { type: "button", className: "chip", title: "Colour", disabled: isMeasurement, onclick: () => (this.swatches.hidden = !this.swatches.hidden) });
    this.chip.setAttribute("aria-label", `Colour of ${this.spoken}`);
    this.visible = make("input", { type: "checkbox", checked: true, title: "Show in the composite", onchange: () => this.change({ visible: this.visible.checked }) });
    this.visible.setAttribute("aria-label", `Show ${this.label}`);
    this.name = make("span", { className: "name" });
    this.word = make("span", { className: "word", hidden: true });
    const first = isMeasurement ? [] : [this.visible, this.chip];
    return make("div", { className: "head" }, ...first, this.name, this.word, ...(isMeasurement ? [this.lut()] : []), this.auto);
  }

  lut() {
    const options = Object.entries(LUTS).map(([value, textContent]) => make("option", { value, textContent }));
    const select = make("select", { className: "lut", title: "Colour table", onchange: () => this.change({ lut: select.value }) }, ...options);
    select.setAttribute("aria-label", `Colour table of ${this.spoken}`);
    return select;
  }

  palette(isMeasurement) {
    const swatch = (color) => {
      const button = make("button", { type: "button", className: "chip", title: `#${color}`, onclick: () => this.choose(color) });
      button.style.background = cssColor(color);
      return button;
    };
    this.swatches = make("div", { className: "swatches", hidden: true }, ...(isMeasurement ? [] : PALETTE.map(swatch)));
    return this.swatches;
  }

  choose(color) {
    this.swatches.hidden = true;
    this.change({ color });
  }

  /** Say in a word what the channel is worth, unless it is good; why is under the pointer. */
  judge(judged, mixing) {
    const word = judged && judged.word !== "good" ? judged.word : "";
    this.word.hidden = !word;
    if (this.word.textContent !== word) this.word.textContent = word;
    this.word.dataset.word = word;
    this.word.title = judged?.reasons?.join("\n") ?? "";
    const percent = (v) => `${Math.round(100 * v)} %`;
    this.name.title = mixing ? `${percent(mixing[0])} as bright as the brightest other structure (${percent(mixing[1])} to ${percent(mixing[2])})` : "";
  }

  /** Show how the server shows it, `shown`, under what was chosen since. */
  refresh(shown, name = this.name.textContent) {
    if (!shown) return;
    this.shown = shown;
    const window = this.display.window ?? shown.window;
    const color = cssColor(this.display.color ?? shown.color);
    this.name.textContent = name;
    this.chip.style.background = color;
    this.range.textContent = window.map((v) => amount(v, shown.unit)).join(" – ");
    this.auto.setAttribute("aria-pressed", String(this.display.window === null));
    this.visible.checked = this.display.visible;
    this.element.classList.toggle("off", !this.display.visible);
    this.gamma.value = -Math.log2(this.display.gamma);
    this.gammaValue.textContent = this.display.gamma.toFixed(2);
    this.histogram.setView({ window, color, gamma: this.display.gamma });
  }
}

export class Channels {
  constructor(container, onChange) {
    this.container = container;
    this.onChange = onChange;
    this.rows = new Map();
    this.key = "";
    this.histograms = [];
    this.shownAt = -Infinity;
  }

  /** The display settings for the server. */
  get displays() {
    const named = [...this.rows.entries()].filter(([key]) => !key.startsWith("\0"));
    const own = (name) => ({ ...this.rows.get(keyOf(name))?.display, label: "" });
    return { channels: named.map(([, row]) => row.display), measurement: own("measurement"), widefield: own("widefield") };
  }

  /** Show the channels of a frame; rows are made once and kept. */
  update(frame) {
    const named = frame.channels.map((c) => c.label);
    const measured = Object.keys(MEASURED).filter((name) => frame[name]);
    const key = JSON.stringify([named, measured]);
    if (key !== this.key) this.rebuild(key, named, measured);
    else if (performance.now() - this.shownAt < REFRESH_MS) return; // automatic contrast moves with every frame
    this.shownAt = performance.now();
    for (const channel of frame.channels) {
      this.rows.get(channel.label).refresh(channel, channel.label);
      this.rows.get(channel.label).judge(frame.judgement?.channels?.[channel.label], frame.mixing?.[channel.label]);
    }
    for (const name of measured) this.rows.get(keyOf(name)).refresh(frame[name], MEASURED[name]);
  }

  rebuild(key, named, measured) {
    this.key = key;
    const row = (label, name) => this.rows.get(label) ?? new ChannelRow(label, name, () => this.onChange());
    const rows = new Map(named.map((label) => [label, row(label, "")]));
    for (const name of measured) rows.set(keyOf(name), row(keyOf(name), name));
    this.rows = rows;
    this.container.hidden = rows.size === 0;
    this.container.replaceChildren(...[...rows.values()].map((r) => r.element));
    this.setHistograms();
  }

  /** Those of a frame may come before it is decoded: they wait for their rows. */
  setHistograms(histograms = this.histograms) {
    this.histograms = histograms;
    for (const { label, of, ...data } of histograms) this.rows.get(label ?? keyOf(of))?.histogram.setData(data);
  }

  toggle(n) {
    const row = [...this.rows.values()][n];
    if (row && !row.label.startsWith("\0")) row.change({ visible: !row.display.visible });
  }

  /** Automatic contrast and gamma 1 for all. */
  auto() {
    for (const row of this.rows.values()) row.change({ window: null, gamma: 1 });
  }
}
