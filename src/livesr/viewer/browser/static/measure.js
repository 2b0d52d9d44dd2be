// A line or a region that is drawn over the pictures, and what it holds: a profile, or means.

import { amount, byId, cssColor, lengthText, make } from "./format.js";

const HEIGHT = 132;
const LEFT = 4;
const BOTTOM = 16;
const TOP = 14;
const KINDS = { widefield: "measured", measurement: "measured", prediction: "predicted (AI)" };
const NAMES = { widefield: "Widefield", measurement: "Measurement" };
const SVG = "http://www.w3.org/2000/svg";

const nameOf = ({ label, of }) => NAMES[of] ?? label;

/** The tools, and the card with what they found. `send` takes what the server is asked, `onDrawn(drawing)` what is drawn. */
export class MeasureTools {
  constructor({ send, onDrawn, save }) {
    Object.assign(this, { send, onDrawn, save, shape: null, at: null, found: null });
    this.buttons = { line: byId("line-tool"), region: byId("region-tool") };
    for (const [shape, button] of Object.entries(this.buttons)) button.onclick = () => this.toggle(shape);
    byId("measured-save").onclick = () => this.saveTable();
    new ResizeObserver(() => this.show()).observe(byId("measured"));
  }

  /** Take a tool in hand, or put it away with what it drew. */
  toggle(shape) {
    this.shape = this.shape === shape ? null : shape;
    for (const [name, button] of Object.entries(this.buttons)) button.setAttribute("aria-pressed", String(name === this.shape));
    this.draw(null);
  }

  /** From one place to another, [x, y] in shares each. */
  drag(from, to) {
    if (from[0] !== to[0] || from[1] !== to[1]) this.draw([...from, ...to]);
  }

  draw(at) {
    this.at = at;
    this.found = null;
    this.ask();
    this.onDrawn(at && { shape: this.shape, at });
    this.show();
  }

  /** Also after a lost connection. */
  ask() {
    this.send({ type: "measure", shape: this.shape ?? "line", at: this.at });
  }

  setFound(found) {
    if (!this.at || found.shape !== this.shape) return;
    this.found = found;
    this.show();
  }

  show() {
    const { found } = this;
    byId("measure-hint").hidden = !this.shape || Boolean(this.at);
    byId("measured").hidden = !found;
    if (!found) return;
    const { series, um, shape } = found;
    const times = [...new Set(series.map(({ t }) => t))];
    const size = um ? um.map((length) => lengthText(Number(length.toPrecision(3)))).join(" × ") : "";
    byId("measured-size").textContent = [size, `t ${times.join(" | ")}`].filter(Boolean).join(" · ");
    const units = [...new Set(series.map(({ unit }) => unit))];
    const parts = shape === "line" ? units.map((unit) => this.plot(series.filter((s) => s.unit === unit), unit)) : [this.table(series)];
    byId("measured-shown").replaceChildren(...parts);
  }

  /** One plot for each unit: from the lowest to the highest of its intensities. */
  plot(series, unit) {
    const canvas = make("canvas", { className: "plot" });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Intensity along the line, ${unit}`);
    const width = byId("measured").clientWidth;
    Object.assign(canvas.style, { width: `${width}px`, height: `${HEIGHT}px` });
    Object.assign(canvas, { width: Math.round(width * devicePixelRatio), height: Math.round(HEIGHT * devicePixelRatio) });
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    const values = series.flatMap((s) => s.values).filter((v) => v !== null);
    const [low, high] = [Math.min(0, ...values), Math.max(...values, Math.min(0, ...values) + 1e-9)];
    this.axes(context, width, [low, high], unit);
    for (const one of series) this.curve(context, width, [low, high], one);
    const legend = make("ul", { className: "legend" }, ...series.map((one) => this.entry(one)));
    return make("div", {}, canvas, legend);
  }

  axes(context, width, [low, high], unit) {
    const style = getComputedStyle(byId("measured"));
    context.fillStyle = "#000"; // as the pictures are, whose colours the curves have
    context.fillRect(LEFT, TOP, width - LEFT - 4, HEIGHT - TOP - BOTTOM + 1);
    context.fillStyle = style.getPropertyValue("--faint");
    context.font = "11px system-ui, sans-serif";
    context.fillText(`${amount(high, unit)} ${unit}`, LEFT + 1, TOP - 4);
    context.fillText(amount(low, unit), LEFT + 1, HEIGHT - 4);
    const { um } = this.found;
    context.textAlign = "right";
    if (um) context.fillText(lengthText(Number(um[0].toPrecision(3))), width - 4, HEIGHT - 4);
  }

  curve(context, width, [low, high], { values, color, of }) {
    const x = (n) => LEFT + 1 + (n / (values.length - 1)) * (width - LEFT - 6);
    const y = (v) => HEIGHT - BOTTOM - ((v - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    Object.assign(context, { strokeStyle: cssColor(color), lineWidth: 1.8 });
    context.setLineDash({ prediction: [5, 3], widefield: [1.5, 2.5] }[of] ?? []);
    context.beginPath();
    for (const [n, value] of values.entries()) if (value !== null) context.lineTo(x(n), y(value));
    context.stroke();
  }

  entry({ color, ...one }) {
    const rule = make("i", { className: "stroke", dataset: { of: one.of } }, make("b"));
    rule.firstChild.style.borderColor = cssColor(color);
    return make("li", {}, rule, make("span", { textContent: nameOf(one) }), make("small", { textContent: KINDS[one.of] }));
  }

  table(series) {
    const units = [...new Set(series.map(({ unit }) => unit))];
    const row = (one) => {
      const chip = make("i", { className: "chip" });
      chip.style.background = cssColor(one.color);
      const value = `${amount(one.mean, one.unit)} ± ${amount(one.sd, one.unit)}${units.length > 1 ? ` ${one.unit}` : ""}`;
      const cells = [value, KINDS[one.of]].map((textContent) => make("td", { textContent }));
      return make("tr", {}, make("th", { scope: "row" }, chip, ` ${nameOf(one)}`), ...cells);
    };
    const words = `mean ± SD${units.length > 1 ? "" : `, ${units[0]}`}`;
    const head = make("tr", {}, make("td"), make("th", { textContent: words }), make("td"));
    return make("table", {}, head, ...series.map(row));
  }

  /** What is shown as a table for other programs. */
  saveTable() {
    if (!this.found) return;
    const { series, um, shape } = this.found;
    const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
    const rows = [["picture", "is", "t", "unit", ...(shape === "line" ? ["um", "intensity"] : ["mean", "sd", "pixels"])]];
    for (const one of series) {
      const about = [quoted(nameOf(one)), quoted(KINDS[one.of]), one.t, quoted(one.unit)];
      if (shape === "region") rows.push([...about, one.mean, one.sd, one.pixels]);
      else for (const [n, value] of one.values.entries()) rows.push([...about, um ? ((um[0] * n) / (one.values.length - 1)).toFixed(4) : "", value]);
    }
    this.save(`livesr-${shape}-t${series[0]?.t}.csv`, new Blob([rows.map((row) => row.join(",")).join("\n") + "\n"], { type: "text/csv" }));
  }
}

/** A drawing over one picture, which moves with it. */
export class DrawnShape {
  constructor() {
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.classList.add("drawn");
  }

  /** `rectangle` is where the field lies, CSS pixels. */
  place(drawing, { left, top, width, height }) {
    this.svg.toggleAttribute("hidden", !drawing);
    if (!drawing) return;
    const [x1, y1, x2, y2] = drawing.at.map((share, n) => (n % 2 ? top + share * height : left + share * width));
    const tag = drawing.shape === "line" ? "line" : "rect";
    const about = tag === "line" ? { x1, y1, x2, y2 } : { x: Math.min(x1, x2), y: Math.min(y1, y2), width: Math.abs(x2 - x1), height: Math.abs(y2 - y1) };
    const parts = ["under", "over"].map((name) => {
      const part = document.createElementNS(SVG, tag);
      part.setAttribute("class", name);
      for (const [key, value] of Object.entries(about)) part.setAttribute(key, value.toFixed(1));
      return part;
    });
    this.svg.replaceChildren(...parts);
  }
}
