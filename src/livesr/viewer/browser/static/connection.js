// The websocket: collects a header and its pictures, acknowledges, comes back by itself.
//
// From the server: JSON text ("status", "frame", "probe", "measured", "histograms", "snapshot",
//                  "movie"); after a "frame" as many
//                  binary messages as it names pictures, after a "snapshot" and a "movie" with a name one.
// To the server:   JSON text ("ack", "view", "probe", "measure", "play", "seek", "snapshot", "movie"). The server sends the next newest
//                  picture only after an "ack", so a tab in the background or on a slow network costs it nothing.

const RETRY_MS = [250, 500, 1000, 2000, 4000];

export class Connection {
  /**
   * `on` has a function for every kind of message: (message) or, for "frame" and "snapshot", (message, blobs); "open" and
   * "lost" besides. `on.frame` resolves when the picture is on the screen.
   */
  constructor(on) {
    this.on = on;
    this.failures = 0;
    document.addEventListener("visibilitychange", () => this.acknowledge());
    this.open();
  }

  open() {
    const url = new URL("stream", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.search = ""; // what lets a browser in from the network is a cookie
    this.socket = new WebSocket(url);
    this.socket.binaryType = "blob";
    this.header = null;
    this.blobs = [];
    this.drawn = [];
    this.socket.onopen = () => {
      this.failures = 0;
      this.on.open();
    };
    this.socket.onmessage = ({ data }) => (typeof data === "string" ? this.onText(JSON.parse(data)) : this.onBlob(data));
    this.socket.onclose = () => this.retry();
  }

  retry() {
    this.on.lost();
    setTimeout(() => this.open(), RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)]);
  }

  onText(message) {
    if (message.type !== "frame" && message.name === undefined) {
      this.on[message.type]?.(message);
      return;
    }
    this.header = message;
    this.blobs = [];
  }

  onBlob(blob) {
    this.blobs.push(blob);
    const { header, blobs, socket } = this;
    if (!header || blobs.length < (header.pictures?.length ?? 1)) return;
    this.header = null;
    if (header.type !== "frame") {
      this.on[header.type](header, blobs[0]);
      return;
    }
    this.on
      .frame(header, blobs)
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
    for (const id of this.drawn.splice(0)) this.send({ type: "ack", id });
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }
}
