// A histogram whose two ends are the contrast of a channel: drag them, double-click for automatic.

import { make } from "./format.js";

const HEIGHT = 40;

export class HistogramView {
  /** `onWindow([low, high])` while an end is dragged, `onWindow(null)` for automatic. */
  constructor(onWindow) {
    this.onWindow = onWindow;
    this.data = { low: 0, high: 1, counts: [] };
    this.window = [0, 1];
    this.color = "#ffffff";
    this.gamma = 1;
    this.canvas = make("canvas", { className: "histogram", tabIndex: 0, title: "Drag the ends: contrast. Double-click: automatic." });
    this.canvas.ariaBusy = "true"; // until there is a scale to drag on
    this.canvas.addEventListener("pointerdown", (event) => this.grab(event));
    this.canvas.addEventListener("pointermove", (event) => this.end !== undefined && this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => this.drop());
    this.canvas.addEventListener("dblclick", () => this.onWindow(null));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  grab(event) {
    if (this.canvas.ariaBusy) return;
    const value = this.valueAt(event);
    this.end = Math.abs(value - this.window[0]) < Math.abs(value - this.window[1]) ? 0 : 1;
    this.held = this.data; // the scale stays while an end is held
    this.moved = false;
    this.canvas.setPointerCapture(event.pointerId);
  }

  drag(event) {
    this.moved ||= Math.abs(event.movementX) > 0;
    if (!this.moved) return;
    const window = [...this.window];
    window[this.end] = this.valueAt(event);
    const least = (this.data.high - this.data.low) / 200;
    if (window[1] - window[0] < least) window[this.end] = this.end ? window[0] + least : window[1] - least;
    this.onWindow(window.map((v) => Math.round(v * 10) / 10));
  }

  drop() {
    this.end = this.held = undefined;
  }

  valueAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const { low, high } = this.data;
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    return low + share * (high - low);
  }

  setData(data) {
    if (this.held) return;
    this.data = data;
    this.canvas.ariaBusy = null;
    this.draw();
  }

  setView({ window, color, gamma }) {
    Object.assign(this, { window, color, gamma });
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const [width, height] = [Math.round(canvas.clientWidth * devicePixelRatio), Math.round(HEIGHT * devicePixelRatio)];
    if (width === 0) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    this.drawCounts(context, width, height);
    this.drawWindow(context, width, height);
  }

  drawCounts(context, width, height) {
    const { counts } = this.data;
    const most = Math.log1p(Math.max(...counts, 1));
    context.fillStyle = getComputedStyle(context.canvas).color;
    context.globalAlpha = 0.45;
    const step = width / counts.length;
    for (const [n, count] of counts.entries()) {
      const bar = (Math.log1p(count) / most) * (height - 2);
      context.fillRect(n * step, height - bar, Math.ceil(step), bar);
    }
    context.globalAlpha = 1;
  }

  /** The curve from black to the full colour, and its two ends. */
  drawWindow(context, width, height) {
    const { low, high } = this.data;
    const x = (value) => ((value - low) / (high - low)) * width;
    const [left, right] = this.window.map(x);
    context.beginPath();
    for (let n = 0; n <= 24; n++) {
      const share = n / 24;
      context.lineTo(left + share * (right - left), height - 1 - share ** this.gamma * (height - 2));
    }
    context.lineWidth = 3.5 * devicePixelRatio;
    context.strokeStyle = "rgb(0 0 0 / 0.55)"; // a yellow line on white would not be seen
    context.stroke();
    context.lineWidth = 2 * devicePixelRatio;
    context.strokeStyle = this.color;
    context.stroke();
    context.fillStyle = getComputedStyle(context.canvas).color;
    for (const [end, place] of [left, right].entries()) {
      const grip = 5 * devicePixelRatio;
      const at = Math.min(Math.max(place, 1), width - 1);
      context.fillRect(at - devicePixelRatio, 0, 2 * devicePixelRatio, height);
      context.fillRect(at - (end ? grip : 0), end ? 0 : height - grip, grip, grip);
    }
  }
}

