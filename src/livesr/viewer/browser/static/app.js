// The preview page: puts the parts together. What the user chose is one object, `view`, that is sent as a whole.

import { Channels } from "./channels.js";
import { Connection } from "./connection.js";
import { byId, make, remembered } from "./format.js";
import { MeasureTools } from "./measure.js";
import { Panes } from "./panes.js";
import { Playback } from "./playback.js";
import { Readout } from "./readout.js";
import { listen } from "./shortcuts.js";
import { Streams } from "./streams.js";

const MODES = ["beside", "split", "prediction", "channels", "measurement"];
const THEMES = ["system", "dark", "light"];

const display = { mode: "beside", residual: false, uncertainty: false, error: false, depth: true, raw: false, safe: false, widefield: false };
const readout = new Readout();
const channels = new Channels(byId("channels"), sendView);
const streams = new Streams(byId("streams"), sendView);
const playback = new Playback((message) => connection.send(message));
const panes = new Panes(byId("panes"), point);
const tools = new MeasureTools({ send: (message) => connection.send(message), onDrawn: drawn, save });
let pending = 0;
let pointed = null;

const connection = new Connection({
  open() {
    panes.reset();
    sendView();
    playback.resume();
    if (tools.at) tools.ask();
  },
  lost: () => readout.setStatus({ ...readout.status, state: "reconnecting" }),
  status(status) {
    readout.setStatus(status);
    streams.update(status.streams, status.length !== null);
    playback.setStatus(status);
  },
  async frame(frame, blobs) {
    if (!(await panes.present(frame, blobs))) return;
    readout.setFrame(frame);
    byId("uncertainty-on").disabled = !frame.uncertainty && !display.uncertainty;
    byId("error-on").disabled = !frame.error && !display.error;
    channels.update(frame);
    streams.showFollowed(frame.stream);
    byId("widefield-on").disabled = frame.exposures < 2 && !display.widefield;
    playback.setFrame(frame);
    showModes(frame.separated);
    document.dispatchEvent(new CustomEvent("livesr:shown", { detail: frame }));
  },
  measured: (found) => tools.setFound(found),
  probe: (probe) => pointed && readout.setProbe(probe),
  histograms: ({ histograms }) => channels.setHistograms(histograms),
  snapshot: ({ name }, blob) => save(name, blob),
  movie(said, blob) {
    playback.setMovie(said);
    if (blob) save(said.name, blob);
  },
});

/** Send what is chosen, once per turn of the screen however often it changed. */
function sendView() {
  if (pending) return;
  pending = setTimeout(() => {
    pending = 0;
    const histogram = document.body.dataset.panel !== "hidden";
    const displays = channels.displays;
    const widefield = display.widefield ? displays.widefield : null;
    connection.send({ type: "view", view: { ...display, histogram, ...streams.selection, ...displays, widefield } });
  }, 16);
}

function point(at) {
  if (!at && !pointed) return;
  pointed = at;
  connection.send({ type: "probe", at });
  if (!at) readout.setProbe(null);
}

let separated = true; // until a picture says otherwise

/** What is shown is pressed, and never disabled: of what is not separated that is the measurement, whatever was chosen. */
function showModes(isSeparated) {
  separated = isSeparated;
  const shown = separated ? display.mode : "measurement";
  for (const button of byId("modes").children) {
    button.disabled = !separated && button.dataset.mode !== "measurement";
    button.setAttribute("aria-pressed", String(button.dataset.mode === shown));
  }
}

function setMode(mode) {
  display.mode = mode;
  remembered.set("mode", mode);
  showModes(separated);
  panes.setMode(mode);
  sendView();
}

function setPanel(shown) {
  document.body.dataset.panel = shown ? "shown" : "hidden";
  byId("panel-toggle").setAttribute("aria-pressed", String(shown));
  sendView();
}

function setTheme(theme) {
  remembered.set("theme", theme);
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
}

function toggle(id, part) {
  byId(id).checked = display[part] = !display[part];
  sendView();
}

/** Show one overlay or none: each takes the place of the prediction. */
function toggleOverlay(part) {
  for (const other of ["residual", "uncertainty", "error"]) if (other !== part && display[other]) toggle(`${other}-on`, other);
  toggle(`${part}-on`, part);
}

function toggleSafe() {
  toggle("safe-on", "safe");
  remembered.set("safe", display.safe);
}

/** With a tool in hand a drag over a picture draws; what it draws is over every picture. */
function drawn(drawing) {
  panes.setDrawing(drawing);
  panes.viewport.draw = tools.shape ? (from, to) => tools.drag(from, to) : null;
  byId("panes").classList.toggle("drawing", Boolean(tools.shape));
  if (tools.shape && document.body.dataset.panel === "hidden") setPanel(true);
}

/** Show the mean of the exposures beside whatever is shown, or not. */
function setWidefield(shown) {
  display.widefield = shown;
  remembered.set("widefield", shown);
  byId("widefield-on").setAttribute("aria-pressed", String(shown));
  sendView();
}

function save(name, blob) {
  const href = URL.createObjectURL(blob);
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

const snapshot = () => connection.send({ type: "snapshot", field: panes.viewport.visible, split: panes.split });
const nextTheme = () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
const togglePanel = () => setPanel(document.body.dataset.panel === "hidden");
const help = () => byId("help").showModal();
const fullScreen = () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen());

byId("modes").addEventListener("click", ({ target }) => target.dataset.mode && setMode(target.dataset.mode));
byId("snapshot").onclick = snapshot;
byId("movie").onclick = () => connection.send({ type: "movie", field: panes.viewport.visible, split: panes.split });
byId("theme").onclick = nextTheme;
byId("panel-toggle").onclick = togglePanel;
byId("help-open").onclick = help;
byId("residual-on").onchange = () => toggleOverlay("residual");
byId("uncertainty-on").onchange = () => toggleOverlay("uncertainty");
byId("error-on").onchange = () => toggleOverlay("error");
byId("depth-on").onchange = () => toggle("depth-on", "depth");
byId("raw-on").onchange = () => toggle("raw-on", "raw");
byId("safe-on").onchange = toggleSafe;
byId("widefield-on").onclick = () => setWidefield(!display.widefield);

listen([
  ...MODES.map((mode, n) => [String(n + 1), byId("modes").querySelector(`[data-mode=${mode}]`).textContent, () => setMode(mode)]),
  [["shift+1", "shift+2", "shift+3", "shift+4"], "Show or hide a channel", (key) => channels.toggle(Number(key.at(-1)) - 1), "shift + 1 … 4"],
  ["a", "Automatic contrast, gamma 1", () => channels.auto()],
  ["r", "Residual: where the channels do not add up", () => toggleOverlay("residual")],
  ["u", "Uncertainty: where the network is not sure (runs with --uncertainty)", () => toggleOverlay("uncertainty")],
  ["e", "Error map: where the picture contradicts widefield (runs with --error-map)", () => toggleOverlay("error")],
  ["z", "Depth in colour, in STORM with a cylindrical lens", () => toggle("depth-on", "depth")],
  ["w", "Widefield beside it: the mean of the exposures", () => !byId("widefield-on").disabled && setWidefield(!display.widefield)],
  ["l", "Line profile: draw over a picture; again puts it away", () => tools.toggle("line")],
  ["m", "Mean of a region: draw over a picture; again puts it away", () => tools.toggle("region")],
  ["c", "Colours for a red-green blind eye", toggleSafe],
  ["b", "16 bit instead of JPEG", () => toggle("raw-on", "raw")],
  ["s", "Snapshot", snapshot],
  [" ", "Freeze a live picture; play or pause a recording", () => playback.toggle(), "space"],
  [["ArrowLeft", "ArrowRight"], "Step through a recording, or the last seconds of a frozen stream", (key) => playback.step(key === "ArrowLeft" ? -1 : 1), "← →"],
  ["+", "Zoom in", () => panes.viewport.zoomBy(1.5)],
  ["-", "Zoom out", () => panes.viewport.zoomBy(1 / 1.5)],
  ["0", "Fit", () => panes.viewport.fit()],
  ["x", "One pixel on one pixel of the screen", () => panes.viewport.zoomToPixels()],
  ["p", "Controls and numbers", togglePanel],
  ["d", "Dark, light or as the system", nextTheme],
  ["f", "Full screen", fullScreen],
  ["?", "This list", help],
]);

setTheme(THEMES.includes(remembered.get("theme")) ? remembered.get("theme") : "system");
setPanel(true);
if (remembered.get("safe") === "true") toggleSafe();
if (remembered.get("widefield") === "true") setWidefield(true);
if (MODES.includes(remembered.get("mode"))) setMode(remembered.get("mode"));
