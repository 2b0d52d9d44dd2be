// The pictures: one pane for each, laid out as large as they fit, with badge, scale bar and split line.

import { clock, cssColor, lengthText, make, scaleBarUm } from "./format.js";
import { DrawnShape } from "./measure.js";
import { composePlanes } from "./planes.js";
import { Viewport } from "./viewport.js";

const GAP = 8;

/** What no network has touched, and what it is called. */
const MEASURED = { measurement: "Measurement", widefield: "Widefield (measured)" };
const isMeasured = (name) => name in MEASURED;

/** What the panes of a mode show: for each its layers, bottom first. */
function layersOf(mode, frame) {
  const sent = (name) => frame.pictures.some((p) => p.name === name);
  const measured = sent("measurement") ? [["measurement"]] : [];
  const beside = sent("widefield") ? [["widefield"]] : [];
  if (!frame.prediction || (mode === "measurement" && measured.length)) return [...beside, ...measured];
  if (mode === "channels") return [...beside, ...measured, ...frame.channels.map((c) => [`channel:${c.label}`])];
  if (mode === "split" && measured.length && (sent("composite") || sent("planes"))) return [...beside, ["composite", "measurement"]];
  return mode === "beside" ? [...beside, ...measured, ["composite"]] : [...beside, ["composite"]];
}

/** The word for what a prediction is worth; its reasons are under the pointer. */
function qualityBadge({ word, reasons }) {
  return make("span", { className: "badge quality", textContent: word, title: reasons?.join("\n") || "Nothing speaks against it.", dataset: { word } });
}

/** One picture, or two with a line between them. */
class Pane {
  constructor(layers, viewport, onPoint, onSplit) {
    this.layers = layers;
    this.viewport = viewport;
    this.canvas = make("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.badges = make("div", { className: "badges" });
    this.title = make("span", { className: "title" });
    this.time = make("span", { className: "time" });
    this.length = make("span", { className: "length" });
    this.rule = make("span", { className: "rule" });
    this.scale = make("div", { className: "scale", hidden: true }, this.length, this.rule);
    this.ghost = make("span", { className: "ghost", hidden: true });
    this.figure = make("figure", { className: "pane", dataset: { shows: layers.join(" ") } });
    this.drawn = new DrawnShape();
    this.figure.append(this.canvas, this.drawn.svg, this.badges, this.title, this.time, this.scale, this.ghost);
    viewport.attach(this.canvas, (at) => onPoint(at, this));
    if (layers.length > 1) this.figure.append(this.makeLine(onSplit));
  }

  makeLine(onSplit) {
    this.line = make("div", { className: "line", tabIndex: 0 }, make("i"));
    this.line.setAttribute("role", "slider");
    this.line.setAttribute("aria-label", "Line between measurement and prediction");
    const move = (event) => {
      const { left, width } = this.viewport.rectangle;
      onSplit((event.clientX - this.figure.getBoundingClientRect().left - left) / width);
    };
    this.line.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      this.line.setPointerCapture(event.pointerId);
      this.line.onpointermove = move;
    });
    for (const end of ["pointerup", "pointercancel"]) this.line.addEventListener(end, () => (this.line.onpointermove = null));
    this.line.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
      if (!step) return;
      event.stopPropagation();
      onSplit(this.split + step);
    });
    return this.line;
  }

  resize(width, height) {
    Object.assign(this.figure.style, { width: `${width}px`, height: `${height}px` });
    const [w, h] = [Math.round(width * devicePixelRatio), Math.round(height * devicePixelRatio)];
    if (this.canvas.width !== w || this.canvas.height !== h) Object.assign(this.canvas, { width: w, height: h });
  }

  draw(bitmaps, split, drawing) {
    const { context, canvas } = this;
    const ratio = canvas.width / this.viewport.pane.width;
    const r = this.viewport.rectangle;
    const [left, top, width, height] = [r.left, r.top, r.width, r.height].map((v) => v * ratio);
    this.split = split;
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    for (const [n, name] of this.layers.entries()) {
      const bitmap = bitmaps.get(name);
      if (!bitmap) continue;
      // Twice enlarged or more, pixels are shown as pixels: smoothing would draw detail that is not there.
      context.imageSmoothingEnabled = width / bitmap.width < 2;
      context.imageSmoothingQuality = "low";
      context.save();
      if (n > 0) {
        context.beginPath();
        context.rect(left, 0, split * width, canvas.height);
        context.clip();
      }
      context.drawImage(bitmap, left, top, width, height);
      context.restore();
    }
    this.drawn.place(drawing, r);
    if (this.line) this.placeLine(r, split);
  }

  placeLine(r, split) {
    const x = r.left + split * r.width;
    this.line.style.left = `${x}px`;
    this.line.hidden = x < 0 || x > this.viewport.pane.width;
    this.line.setAttribute("aria-valuenow", String(Math.round(split * 100)));
  }

  describe(frame) {
    const shown = this.layers.map((name) => frame.pictures.find((p) => p.name === name || (p.name === "planes" && !isMeasured(name))));
    const badges = [...this.layers].reverse().map((name) => (isMeasured(name) ? "measurement" : "prediction"));
    const provisional = frame.provisional && badges.includes("prediction");
    const channelOf = (name) => (name?.startsWith("channel:") ? name.slice("channel:".length) : null);
    const judged = badges.includes("prediction") ? (frame.judgement?.channels?.[channelOf(this.layers[0])] ?? frame.judgement) : null;
    const key = `${this.layers} ${provisional} ${frame.overlay} ${judged?.word} ${judged?.reasons}`;
    if (this.badges.dataset.key !== key) {
      this.badges.dataset.key = key;
      const made = [...this.layers].reverse().map((name, n) => make("span", { className: `badge ${badges[n]}`, textContent: MEASURED[name] ?? "Prediction (AI)" }));
      if (frame.overlay && this.layers.includes("composite")) made.at(-1).append(` · ${frame.overlay}`);
      if (provisional) made.push(make("span", { className: "badge provisional", textContent: "Provisional", title: "Made without the frame that follows; the final picture replaces it." }));
      if (judged) made.push(qualityBadge(judged));
      this.badges.replaceChildren(...made);
    }
    const label = this.layers[0].startsWith("channel:") ? this.layers[0].slice("channel:".length) : "";
    if (this.title.textContent !== label) this.title.textContent = label;
    const channel = frame.channels.find((c) => c.label === label);
    if (channel) this.title.style.setProperty("--color", cssColor(channel.color));
    const times = `t ${[...new Set(shown.filter(Boolean).map((p) => p.t))].reverse().join(" | ")} · ${clock(frame.t_acq_ms)}`;
    if (this.time.textContent !== times) this.time.textContent = times;
  }

  /** A bar of round length for what is visible. */
  drawScale(pixelSizeUm) {
    const { viewport } = this;
    this.scale.hidden = !(pixelSizeUm > 0);
    if (this.scale.hidden) return;
    const um = scaleBarUm((viewport.pane.width / viewport.scale) * pixelSizeUm);
    const width = `${(um / pixelSizeUm) * viewport.scale}px`;
    if (this.rule.style.width === width) return;
    this.length.textContent = lengthText(um);
    this.rule.style.width = width;
  }

  /** Mark in this pane what the pointer is on in another. */
  mark(at) {
    this.ghost.hidden = !at;
    if (!at) return;
    const r = this.viewport.rectangle;
    this.ghost.style.transform = `translate(${r.left + at[0] * r.width}px, ${r.top + at[1] * r.height}px)`;
  }
}

/** All panes. `onPoint(shares or null)` is told what the pointer is on. */
export class Panes {
  constructor(container, onPoint) {
    this.container = container;
    this.onPoint = onPoint;
    this.panes = [];
    this.bitmaps = new Map();
    this.frame = null;
    this.mode = "beside";
    this.split = 0.5;
    this.newest = -1;
    this.drawing = null;
    this.viewport = new Viewport(() => this.draw());
    new ResizeObserver(() => this.layOut()).observe(container);
  }

  /** A new connection counts its frames from the start. */
  reset() {
    this.newest = -1;
  }

  setMode(mode) {
    this.mode = mode;
    if (this.frame) this.arrange();
  }

  /** Draw a line or a region over every picture; null takes it away. */
  setDrawing(drawing) {
    this.drawing = drawing;
    this.draw();
  }

  setSplit(share) {
    this.split = Math.min(Math.max(share, 0), 1);
    this.draw();
  }

  /** Draw a frame when all of its pictures are here; an older one never over a newer one. */
  async present(frame, blobs) {
    const bitmaps = frame.pictures.some((p) => p.planes)
      ? await composePlanes(frame, await Promise.all(blobs.map((blob) => blob.arrayBuffer())))
      : new Map(await Promise.all(blobs.map(async (blob, n) => [frame.pictures[n].name, await createImageBitmap(blob)])));
    if (frame.id <= this.newest) {
      for (const bitmap of bitmaps.values()) bitmap.close();
      return false;
    }
    this.newest = frame.id;
    for (const bitmap of this.bitmaps.values()) bitmap.close();
    Object.assign(this, { bitmaps, frame });
    this.arrange();
    return true;
  }

  /** Make the panes that the mode needs for this frame, then draw. */
  arrange() {
    const layers = layersOf(this.mode, this.frame);
    const { pictures } = this.frame;
    const reference = pictures.find((p) => !isMeasured(p.name)) ?? pictures.find((p) => p.name === "measurement") ?? pictures[0];
    this.pixelSizeUm = reference.pixel_size_um;
    const key = JSON.stringify([layers, reference.width, reference.height]);
    if (key !== this.key) {
      this.key = key;
      const point = (at, on) => {
        for (const pane of this.panes) pane.mark(pane === on ? null : at);
        this.onPoint(at);
      };
      this.panes = layers.map((l) => new Pane(l, this.viewport, point, (share) => this.setSplit(share)));
      this.container.replaceChildren(...this.panes.map((pane) => pane.figure));
      this.viewport.setField(reference.width, reference.height);
      this.layOut();
    } else {
      this.draw();
    }
    for (const pane of this.panes) pane.describe(this.frame);
  }

  /** Give every pane the largest size at which all of them fit. */
  layOut() {
    if (!this.panes.length) return;
    const { clientWidth, clientHeight } = this.container;
    const { width, height } = this.viewport.field;
    let best = { scale: 0, columns: 1 };
    for (let columns = 1; columns <= this.panes.length; columns++) {
      const rows = Math.ceil(this.panes.length / columns);
      const scale = Math.min((clientWidth - GAP * (columns - 1)) / columns / width, (clientHeight - GAP * (rows - 1)) / rows / height);
      if (scale > best.scale) best = { scale, columns };
    }
    const pane = { width: Math.max(Math.floor(width * best.scale), 16), height: Math.max(Math.floor(height * best.scale), 16) };
    this.viewport.pane = pane;
    this.container.style.gridTemplateColumns = `repeat(${best.columns}, ${pane.width}px)`;
    for (const each of this.panes) each.resize(pane.width, pane.height);
    this.placeWarnings();
    this.draw();
  }

  /** Tell the style sheet where the first prediction is; a picture that is split or measured only is the first one. */
  placeWarnings() {
    const { figure } = this.panes.find((pane) => !pane.layers.some(isMeasured)) ?? this.panes.at(-1);
    const stage = this.container.parentElement;
    stage.style.setProperty("--panes", this.panes.length);
    const place = { left: figure.offsetLeft, top: figure.offsetTop, width: figure.offsetWidth };
    for (const [name, px] of Object.entries(place)) stage.style.setProperty(`--pane-${name}`, `${px}px`);
  }

  draw() {
    for (const pane of this.panes ?? []) {
      pane.draw(this.bitmaps, this.split, this.drawing);
      pane.drawScale(this.pixelSizeUm);
    }
  }
}
