// Play, pause and scrub a store; freeze a live picture and look back over the last seconds.

import { byId, clock } from "./format.js";

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
    return this.length > 0 || this.live;
  }

  setStatus({ state, length, playing, frozen = 0 }) {
    this.live = length === null && ["live", "silent", "ended"].includes(state);
    this.frozen = frozen > 0;
    this.length = length ?? frozen;
    byId("transport").hidden = !this.active;
    this.scrub.hidden = this.length === 0;
    byId("movie").hidden = length === null; // a film is made of what is stored
    this.scrub.max = Math.max(this.length - 1, 0);
    this.button.title = this.live ? "Freeze the picture, or follow the stream again (space)" : "Play or pause (space)";
    this.setPlaying(this.live ? !this.frozen : Boolean(playing));
    this.showMoment();
  }

  setPlaying(playing) {
    this.playing = playing;
    this.button.dataset.playing = playing;
    this.button.setAttribute("aria-pressed", String(playing));
  }

  setFrame({ index, t, t_acq_ms }) {
    this.words = index === null ? null : [t, index, clock(t_acq_ms)];
    if (index !== null) this.index = index;
    this.showMoment();
  }

  /** A status may come before its picture, or after it. */
  showMoment() {
    const [t, index, time] = this.words ?? [];
    const known = index < this.length;
    byId("moment").textContent = known ? `t ${t} · ${index + 1} of ${this.length} · ${time}` : "";
    if (known && (this.playing || document.activeElement !== this.scrub)) this.scrub.value = index;
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
    this.index = Math.min(Math.max(index, 0), this.length - 1); // before its picture is here: keys come faster
    this.send({ type: "seek", index: this.index });
  }

  step(by) {
    if (this.live && !this.frozen) this.toggle();
    else this.seek((this.index ?? 0) + by);
  }

  /** After a lost connection: go on where it was. */
  resume() {
    if (!this.active || this.live || this.index === undefined) return;
    const { playing } = this;
    this.seek(this.index);
    if (playing) this.toggle();
  }
}
