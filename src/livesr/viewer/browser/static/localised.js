// What each group of a STORM stream localised: a table of the newest groups, and histograms. Hidden where nothing is localised.

import { byId, make } from "./format.js";

const ROWS = 8;
const HEIGHT = 34;
const TITLES = {
  frame: "Localisations over the frames of the group",
  photons: "Photons",
  uncertainty_nm: "Uncertainty, nm",
  z_nm: "z, nm",
  z_uncertainty_nm: "Uncertainty of z, nm",
};

const table = make("table", {}, make("thead", {}, row("th", ["group", "a frame", "per \u00b5m\u00b2", "photons", "\u00b1 nm"])), make("tbody"));
const plots = make("div");
const card = make("section", { id: "localised", className: "card localised", hidden: true, ariaLabel: "Localisations" }, make("h2", { textContent: "Localisations" }), table, plots);
byId("panel").append(card);

let stream = "";
let groups = []; // newest first

document.addEventListener("livesr:shown", ({ detail: frame }) => {
  card.hidden = !frame.localised;
  if (!frame.localised) return;
  const now = JSON.stringify(frame.stream);
  if (now !== stream || frame.t < groups[0]?.t) groups = [];
  stream = now;
  if (frame.t === groups[0]?.t) return;
  groups = [{ t: frame.t, ...frame.localised }, ...groups].slice(0, ROWS);
  table.tBodies[0].replaceChildren(...groups.map((group) => row("td", cells(group))));
  plots.replaceChildren(...Object.entries(frame.localised.histograms).filter(([name]) => name in TITLES).map(([name, counted]) => plot(name, counted)));
});

function row(kind, texts) {
  return make("tr", {}, ...texts.map((textContent) => make(kind, { textContent })));
}

/** A group without localisations has no median. */
function cells({ t, count, per_um2, median, histograms }) {
  const frames = histograms.frame ? histograms.frame.high - histograms.frame.low : 1;
  const number = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : "\u2013");
  return [String(t), number(count / frames, 1), number(per_um2, 2), number(median.photons, 0), number(median.uncertainty_nm, 1)];
}

function plot(name, { low, high, counts }) {
  const scale = devicePixelRatio;
  const canvas = make("canvas", { width: 240 * scale, height: HEIGHT * scale });
  const context = canvas.getContext("2d");
  const most = Math.max(...counts, 1);
  const step = canvas.width / counts.length;
  context.fillStyle = getComputedStyle(card).color;
  context.globalAlpha = 0.6;
  for (const [n, count] of counts.entries()) {
    const bar = (count / most) * (canvas.height - 2);
    context.fillRect(n * step, canvas.height - bar, Math.max(step - scale, scale), bar);
  }
  const digits = high - low < 20 ? 1 : 0;
  const ends = [low, high].map((end) => make("span", { textContent: end.toFixed(digits) }));
  return make("figure", { dataset: { of: name } }, make("figcaption", {}, ends[0], make("span", { textContent: TITLES[name] }), ends[1]), canvas);
}
