// Everything on the page that is said in words and numbers: state, strip, warnings, intensity under the pointer.

import { amount, byId, bytes, cssColor, duration, make, show } from "./format.js";

const FPS_SPAN_MS = 2000;
const LATE_MS = 1000; // what a person notices; and more than a few frames behind
const LATE_FRAMES = 3;
const MANY_SKIPPED = 0.05;
const FEW = 2; // warnings that are read at a glance

const STATES = {
  connecting: ["Connecting", ""],
  reconnecting: ["Reconnecting", "Connection to the viewer lost. Reconnecting …"],
  waiting: ["Waiting", "Waiting for a stream"],
  starting: ["Connected", "Waiting for the first picture"],
  live: ["Live", ""],
  frozen: ["Frozen", ""],
  recorded: ["Recorded", ""],
  silent: ["No signal", "The stream has gone silent. This is its last picture."],
  ended: ["Ended", "Stream ended. This is its last picture."],
};

/** Say by weight, colour and a sign that a number is bad. */
const looksBad = (id, bad) => byId(id).parentElement.classList.toggle("bad", Boolean(bad));

export class Readout {
  constructor() {
    this.status = { state: "connecting" };
    this.frame = null;
    this.receivedAt = 0;
    this.drawn = [];
    this.folded = "few";
    this.texts = [];
    setInterval(() => this.tick(), 200);
  }

  setStatus(status) {
    this.status = status;
    show("engine", status.engine || "–");
    show("backend", status.backend || "–");
    byId("backend").title = status.computes || "";
    this.showTrust((status.audits ?? []).filter((audit) => audit.pcc !== null));
    byId("dose-row").hidden = !status.dose;
    show("dose", status.dose || "–");
    const share = status.skipped_share;
    show("skipped", status.skipped == null ? "–" : String(status.skipped), share > 0 ? `${Math.ceil(100 * share)} %` : "");
    looksBad("skipped", share > MANY_SKIPPED);
    show("disk", ...bytes(status.disk_free_bytes ?? NaN));
    byId("source").textContent = status.source || "";
    byId("source").title = status.source || "";
    this.showWarnings();
    this.tick();
  }

  /** The curve of trust: a point for each audit, 1 at the top. */
  showTrust(audits) {
    byId("audit-row").hidden = audits.length === 0;
    if (!audits.length) return;
    const first = audits[0].t;
    const span = Math.max(audits.at(-1).t - first, 1);
    const points = audits.map(({ t, pcc }) => `${(100 * (t - first)) / span},${(23 - 22 * Math.max(pcc, 0)).toFixed(1)}`);
    byId("trust").firstElementChild.setAttribute("points", points.join(" "));
    const last = audits.at(-1);
    show("audit", `PCC ${last.pcc.toFixed(2)} at t=${last.t}`);
  }

  setFrame(frame) {
    this.frame = frame;
    this.receivedAt = performance.now();
    this.drawn.push(this.receivedAt);
    this.showWarnings();
  }

  /** What changes with every picture or without any: numbers that nobody could read any faster. */
  tick() {
    const now = performance.now();
    this.drawn = this.drawn.filter((t) => now - t < FPS_SPAN_MS);
    const age = this.frame?.age_ms == null ? NaN : this.frame.age_ms + now - this.receivedAt;
    show("age", ...duration(age));
    show("latency", ...duration(this.frame?.latency_ms ?? NaN));
    const residual = this.frame?.residual ?? null;
    show("residual", residual === null ? "–" : (100 * residual).toFixed(1), residual === null ? "" : "%");
    const compared = this.frame?.error;
    byId("rsp-row").hidden = !compared;
    if (compared) show("rsp", Object.entries(compared.rsp).map(([what, rsp]) => `${what} ${rsp === null ? "–" : rsp.toFixed(3)}`).join(" · "));
    const score = Object.entries(this.frame?.score ?? {});
    byId("score-row").hidden = score.length === 0;
    if (score.length) show("score", score.map(([name, pcc]) => `${name} ${pcc === null ? "–" : pcc.toFixed(2)}`).join(" · "));
    const { fps, frozen } = this.status;
    const state = frozen ? "frozen" : this.status.state;
    const shown = `${((this.drawn.length * 1000) / FPS_SPAN_MS).toFixed(1)} shown here`;
    const measuredOnly = this.frame?.separated === false; // there are no SR frames to count
    show("fps-name", measuredOnly ? "Pictures/s" : "SR frames/s");
    if (measuredOnly) show("fps", state === "live" ? shown.split(" ")[0] : "–", state === "live" ? "measured, not separated" : "");
    else show("fps", fps == null ? "–" : fps.toFixed(1), { live: shown, recorded: "when recorded", ended: "over the whole run" }[state] ?? "");
    const rate = measuredOnly ? (this.drawn.length * 1000) / FPS_SPAN_MS : fps;
    const latency = this.frame?.latency_ms ?? 0;
    looksBad("latency", state === "live" && latency > LATE_MS && latency * rate > LATE_FRAMES * 1000);
    this.showOverlay();
    this.showDepth();
    this.showState(state);
  }

  /** The scale of the overlay: where its colours begin, and where they are full. */
  showOverlay() {
    const { overlay, overlay_range: range, unit } = this.frame ?? {};
    for (const name of ["residual", "uncertainty"]) {
      const text = overlay === name && range ? `${range.map((value) => amount(value, unit)).join(" … ")} ${unit}` : "";
      if (byId(`${name}-scale`).textContent !== text) byId(`${name}-scale`).textContent = text;
    }
  }

  /** The colours of z, and what is at their ends. */
  showDepth() {
    const depth = this.frame?.depth;
    byId("depth-row").hidden = !depth;
    if (!depth) return;
    const [low, ramp, high] = byId("depth-scale").children;
    [low.textContent, high.textContent] = depth.range_nm.map((z) => `${Math.round(z)} nm`);
    ramp.style.background = `linear-gradient(90deg, ${depth.colors.map(cssColor).join(", ")})`;
  }

  showState(state) {
    const [short, sentence] = STATES[state] ?? [state, ""];
    const notice = state === "waiting" && this.status.source ? `${sentence} at ${this.status.source}` : sentence;
    const write = (id, text) => byId(id).textContent !== text && (byId(id).textContent = text);
    if (byId("state").dataset.state !== state) byId("state").dataset.state = state;
    write("state-text", short);
    write("notice", notice);
    byId("notice").hidden = !notice;
    if (["live", "frozen", "recorded", "connecting"].includes(state)) delete document.body.dataset.stale;
    else document.body.dataset.stale = state;
    document.title = state === "live" ? "livesr" : `${short} · livesr`;
  }

  /** Where the eye is: over the prediction, under its badge. A click shows all of them, or puts them away until a new one. */
  showWarnings() {
    const texts = [...new Set([...(this.status.warnings ?? []), ...(this.frame?.warnings ?? [])])];
    if (texts.some((text) => !this.texts.includes(text)) && this.folded === "none") this.folded = "few";
    this.texts = texts;
    const list = byId("warnings");
    const key = `${this.folded} ${texts.join("\n")}`;
    if (list.dataset.key === key) return;
    list.dataset.key = key;
    list.hidden = texts.length === 0;
    const shown = { few: texts.slice(0, FEW), all: texts, none: [] }[this.folded];
    const rest = texts.length - shown.length;
    const [words, next] = {
      few: rest ? [`${rest} more`, "all"] : ["Hide", "none"],
      all: ["Hide", "none"],
      none: [`⚠\uFE0E ${rest} ${rest === 1 ? "warning" : "warnings"}`, "few"],
    }[this.folded];
    const button = make("button", { type: "button", textContent: words, onclick: () => this.fold(next) });
    list.replaceChildren(...shown.map((text) => make("li", { textContent: text })), make("li", { className: "more" }, button));
  }

  fold(folded) {
    this.folded = folded;
    this.showWarnings();
  }

  /** Intensities under the pointer; null when it is on no picture. */
  setProbe(probe) {
    const line = byId("probe");
    line.hidden = !probe;
    if (!probe) return;
    const place = probe.um ? `${probe.um[0].toFixed(2)}, ${probe.um[1].toFixed(2)} µm` : "";
    const value = (name, number, color, unit) => {
      const chip = make("i", { className: "chip" });
      chip.style.background = color;
      return make("span", { className: "value" }, chip, `${name} `, make("b", { textContent: amount(number, unit) }));
    };
    const channelOf = (label) => this.frame?.channels.find((c) => c.label === label);
    const unit = this.frame?.unit ?? "ADU";
    const parts = Object.entries(probe.channels ?? {}).map(([label, number]) => value(label, number, cssColor(channelOf(label)?.color), unit));
    if (probe.measurement !== undefined) parts.push(value("measured", probe.measurement, "#ffffff", unit));
    parts.push(make("span", { textContent: unit }));
    if (probe.widefield !== undefined) parts.push(value("widefield", probe.widefield, "#b9c2cc", "ADU"), make("span", { textContent: "ADU" }));
    line.replaceChildren(make("span", { textContent: `x ${probe.x}  y ${probe.y}` }), make("span", { textContent: place }), ...parts);
  }
}
