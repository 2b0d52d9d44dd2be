// Play, pause and scrub a store.

import { byId } from "./format.js";

export class Playback {
  constructor(send) {
    this.send = send;
    this.length = 0;
    this.playing = false;
    this.scrub = byId("scrub");
    this.button = byId("play");
    this.button.onclick = () => this.toggle();
    this.scrub.oninput = () => this.seek(Number(this.scrub.value));
  }

  get active() {
    return this.length > 0;
  }

  setStatus({ length, playing }) {
    this.length = length ?? 0;
    byId("transport").hidden = !this.active;
    this.scrub.max = Math.max(this.length - 1, 0);
    this.setPlaying(Boolean(playing));
  }

  setPlaying(playing) {
    this.playing = playing;
    this.button.dataset.playing = playing;
    this.button.setAttribute("aria-pressed", String(playing));
  }

  setFrame({ index, t }) {
    if (index === null) return;
    this.index = index;
    if (this.playing || document.activeElement !== this.scrub) this.scrub.value = index;
    byId("moment").textContent = `t ${t} · ${index + 1} of ${this.length}`;
  }

  /** How far a film is; or that it is there, or why it cannot be made. */
  setMovie({ done, total, problem }) {
    const making = done !== undefined && done < total;
    byId("movie").textContent = making ? `Film ${Math.round((100 * done) / total)} %` : "Film";
    byId("movie").disabled = making;
    if (problem) byId("moment").textContent = problem;
  }

  toggle() {
    if (!this.active) return;
    this.setPlaying(!this.playing);
    this.send({ type: "play", playing: this.playing });
  }

  seek(index) {
    if (!this.active) return;
    this.setPlaying(false);
    this.send({ type: "seek", index: Math.min(Math.max(index, 0), this.length - 1) });
  }

  step(by) {
    this.seek((this.index ?? 0) + by);
  }

  /** After a lost connection: go on where it was. */
  resume() {
    if (!this.active || this.index === undefined) return;
    const { playing } = this;
    this.seek(this.index);
    if (playing) this.toggle();
  }
}
