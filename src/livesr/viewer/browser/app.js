// The preview page: draws what the server sends and says honestly how old it is.
//
// From the server: a JSON header ("frame", "status"), and after a "frame" as many JPEG pictures as it names.
// To the server:   {"type": "ack", "id": n} once picture n is on the screen. The server sends the next newest only then,
//                  so a tab in the background or on a slow network costs it nothing.

const RETRY_MS = [250, 500, 1000, 2000, 4000];
const FPS_SPAN_MS = 2000;
const byId = (id) => document.getElementById(id);

/** Text with the unit in small print, as DOM nodes (nothing from the network is ever read as markup). */
function quantity(value, unit) {
  const small = document.createElement("small");
  small.textContent = unit ? ` ${unit}` : "";
  return [document.createTextNode(value), small];
}

function show(id, value, unit = "") {
  byId(id).replaceChildren(...quantity(value, unit));
}

function duration(ms) {
  if (!Number.isFinite(ms)) return ["–", ""];
  if (ms < 999.5) return [String(Math.max(0, Math.round(ms))), "ms"];
  if (ms < 99_950) return [(ms / 1000).toFixed(1), "s"];
  if (ms < 5.7e6) return [String(Math.round(ms / 6e4)), "min"];
  return ms < 1.7e8 ? [String(Math.round(ms / 3.6e6)), "h"] : [String(Math.round(ms / 8.64e7)), "days"];
}

/** 1, 2 or 5 times a power of ten, at most a quarter of the width. */
export function scaleBarUm(widthUm) {
  const decade = 10 ** Math.floor(Math.log10(widthUm / 4));
  return [5, 2, 1].map((n) => n * decade).find((um) => um <= widthUm / 4);
}

/** One canvas with its badge and scale bar. */
class PictureView {
  constructor(figure) {
    this.canvas = figure.querySelector("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.scale = figure.querySelector(".scale");
    this.time = figure.querySelector(".time");
    this.pixelSizeUm = 0;
    new ResizeObserver(() => this.layOut()).observe(this.canvas);
  }

  draw(bitmap, pixelSizeUm, t) {
    const resized = this.canvas.width !== bitmap.width || this.canvas.height !== bitmap.height;
    if (resized) {
      Object.assign(this.canvas, { width: bitmap.width, height: bitmap.height });
      this.canvas.parentElement.style.setProperty("--aspect", bitmap.width / bitmap.height);
    }
    this.context.drawImage(bitmap, 0, 0);
    bitmap.close();
    this.time.textContent = `t ${t}`;
    if (resized || pixelSizeUm !== this.pixelSizeUm) {
      this.pixelSizeUm = pixelSizeUm;
      this.layOut();
    }
  }

  layOut() {
    const { canvas, scale, pixelSizeUm } = this;
    const cssPerPixel = canvas.clientWidth / canvas.width;
    // Twice enlarged or more, camera pixels are shown as pixels: smoothing would draw detail that is not there.
    canvas.classList.toggle("enlarged", cssPerPixel * devicePixelRatio >= 2);
    scale.hidden = !(pixelSizeUm > 0);
    if (scale.hidden) return;
    const um = scaleBarUm(canvas.width * pixelSizeUm);
    scale.querySelector(".length").textContent = um >= 1 ? `${um} µm` : `${Math.round(um * 1000)} nm`;
    scale.querySelector(".rule").style.width = `${(um / pixelSizeUm) * cssPerPixel}px`;
  }
}

/** Everything on the page that is not a pixel. */
class Readout {
  constructor() {
    this.status = { state: "connecting" };
    this.frame = null;
    this.receivedAt = 0;
    this.drawn = [];
    setInterval(() => this.tick(), 200);
  }

  setStatus(status) {
    this.status = status;
    this.tick();
    this.showWarnings();
    show("engine", status.engine || "–");
    show("backend", status.backend || "–");
    show("skipped", status.skipped == null ? "–" : String(status.skipped), status.skipped == null ? "" : "frames");
    byId("stream").textContent = status.source || "";
  }

  setFrame(frame) {
    this.frame = frame;
    this.receivedAt = performance.now();
    this.drawn.push(this.receivedAt);
    show("latency", ...duration(frame.latency_ms ?? NaN));
    show("residual", frame.residual == null ? "–" : (100 * frame.residual).toFixed(1), frame.residual == null ? "" : "%");
    this.showLegend(frame.channels ?? []);
    this.showWarnings();
    this.tick();
  }

  /** What changes without a message: ages, rates, silence. */
  tick() {
    const now = performance.now();
    this.drawn = this.drawn.filter((t) => now - t < FPS_SPAN_MS);
    show("age", ...(this.frame ? duration(this.frame.age_ms + now - this.receivedAt) : ["–", ""]));
    const { state, fps } = this.status;
    const shown = `${((this.drawn.length * 1000) / FPS_SPAN_MS).toFixed(1)} shown here`;
    show("fps", fps == null ? "–" : fps.toFixed(1), { live: shown, recorded: "when recorded", ended: "over the whole run" }[state] ?? "");
    this.showState(state);
  }

  showState(state) {
    const [short, notice] = {
      connecting: ["Connecting", ""],
      reconnecting: ["Reconnecting", "Connection to the viewer lost. Reconnecting …"],
      waiting: ["Waiting", `Waiting for a stream${this.status.source ? ` at ${this.status.source}` : ""}`],
      starting: ["Connected", "Waiting for the first picture"],
      live: ["Live", ""],
      recorded: ["Recorded", ""],
      silent: ["No signal", "The stream has gone silent. This is its last picture."],
      ended: ["Ended", "Stream ended. This is its last picture."],
    }[state] ?? [state, ""];
    if (byId("state").dataset.state !== state) byId("state").dataset.state = state;
    if (byId("state-text").textContent !== short) byId("state-text").textContent = short;
    if (byId("notice").textContent !== notice) byId("notice").textContent = notice;
    byId("notice").hidden = !notice;
    if (["live", "recorded", "connecting"].includes(state)) delete document.body.dataset.stale;
    else document.body.dataset.stale = state;
    document.title = state === "live" ? "livesr" : `${short} · livesr`;
  }

  showWarnings() {
    const texts = [...new Set([...(this.status.warnings ?? []), ...(this.frame?.warnings ?? [])])];
    if (this.frame?.provisional) texts.push("Provisional: made without the frame that follows");
    const list = byId("warnings");
    if (list.dataset.texts === texts.join("\n")) return;
    list.dataset.texts = texts.join("\n");
    list.hidden = texts.length === 0;
    list.replaceChildren(...texts.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  }

  showLegend(channels) {
    const key = JSON.stringify(channels);
    const list = byId("legend");
    if (list.dataset.key === key) return;
    list.dataset.key = key;
    list.replaceChildren(...channels.map(legendEntry));
  }
}

function legendEntry({ label, color, window }) {
  const entry = document.createElement("li");
  const chip = Object.assign(document.createElement("span"), { className: "chip" });
  chip.style.background = /^[0-9a-f]{6}$/i.test(color) ? `#${color}` : "#fff";
  const name = Object.assign(document.createElement("span"), { textContent: label });
  const range = Object.assign(document.createElement("span"), { className: "window" });
  range.textContent = window ? `${Math.round(window[0])}–${Math.round(window[1])} ADU` : "";
  entry.append(chip, name, range);
  return entry;
}

/** Draws a frame when all of its pictures are here; an older one never over a newer one. */
class Stage {
  constructor(readout) {
    this.readout = readout;
    this.views = { composite: new PictureView(byId("composite")), measurement: new PictureView(byId("measurement")) };
    this.newest = -1;
  }

  reset() {
    this.newest = -1;
  }

  async present(header, blobs) {
    const bitmaps = await Promise.all(blobs.map((blob) => createImageBitmap(blob)));
    if (header.id <= this.newest) return bitmaps.forEach((bitmap) => bitmap.close());
    this.newest = header.id;
    header.pictures.forEach(({ name, t, pixel_size_um }, n) => this.views[name]?.draw(bitmaps[n], pixel_size_um, t));
    this.readout.setFrame(header);
  }
}

/** The websocket: collects a header and its pictures, acknowledges, comes back by itself. */
class Connection {
  constructor(stage, readout) {
    this.stage = stage;
    this.readout = readout;
    this.failures = 0;
    document.addEventListener("visibilitychange", () => this.acknowledge());
    this.open();
  }

  open() {
    const url = new URL("stream", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.search = location.search; // carries the token of a viewer that is open to the network
    this.socket = new WebSocket(url);
    this.socket.binaryType = "blob";
    this.header = null;
    this.blobs = [];
    this.drawn = [];
    this.socket.onopen = () => {
      this.failures = 0;
      this.stage.reset();
    };
    this.socket.onmessage = ({ data }) => (typeof data === "string" ? this.onText(JSON.parse(data)) : this.onPicture(data));
    this.socket.onclose = () => this.retry();
  }

  retry() {
    this.readout.setStatus({ ...this.readout.status, state: "reconnecting" });
    setTimeout(() => this.open(), RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)]);
  }

  onText(message) {
    if (message.type === "status") this.readout.setStatus(message);
    if (message.type !== "frame") return;
    this.header = message;
    this.blobs = [];
  }

  onPicture(blob) {
    this.blobs.push(blob);
    if (!this.header || this.blobs.length < this.header.pictures.length) return;
    const { socket, header, blobs } = this;
    this.stage
      .present(header, blobs)
      .catch((error) => console.error("picture could not be shown", error))
      .finally(() => {
        if (socket !== this.socket) return;
        this.drawn.push(header.id);
        this.acknowledge();
      });
  }

  /** A hidden tab asks for nothing more: the last acknowledgement waits until somebody looks again. */
  acknowledge() {
    if (document.hidden || this.socket.readyState !== WebSocket.OPEN) return;
    for (const id of this.drawn.splice(0)) this.socket.send(JSON.stringify({ type: "ack", id }));
  }
}

const readout = new Readout();
new Connection(new Stage(readout), readout);
