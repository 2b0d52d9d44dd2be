// Which part of the field is looked at: zoom and centre, the same for all panes, moved by wheel, drag, pinch and keys.
//
// Places are shares of the field's width and height, so that pictures of different pixel counts stay on top of each other.

const MAX_CSS_PER_PIXEL = 64;
const TAP_PX = 4;

export class Viewport {
  /** While `draw(from, to)` is set, one pointer draws from one place to another instead of panning; in shares. */
  constructor(onChange) {
    this.onChange = onChange;
    this.draw = null;
    this.field = { width: 1, height: 1 };
    this.pane = { width: 1, height: 1 };
    this.fit();
  }

  /** Take note of the field's size in pixels; another size is looked at as a whole. */
  setField(width, height) {
    if (width === this.field.width && height === this.field.height) return;
    this.field = { width, height };
    this.fit();
  }

  fit() {
    Object.assign(this, { zoom: 1, x: 0.5, y: 0.5 });
    this.onChange();
  }

  /** CSS pixels per pixel of the field. */
  get scale() {
    return (this.pane.width / this.field.width) * this.zoom;
  }

  /** Where the whole field lies in a pane, CSS pixels. */
  get rectangle() {
    const width = this.pane.width * this.zoom;
    const height = this.pane.height * this.zoom;
    return { left: this.pane.width / 2 - this.x * width, top: this.pane.height / 2 - this.y * height, width, height };
  }

  /** The visible part as shares: [left, top, right, bottom]. */
  get visible() {
    const half = 0.5 / this.zoom;
    return [this.x - half, this.y - half, this.x + half, this.y + half].map((s) => Math.min(Math.max(s, 0), 1));
  }

  /** [x, y] in shares of a place in a pane, null outside the field. */
  shares(left, top) {
    const r = this.rectangle;
    const at = [(left - r.left) / r.width, (top - r.top) / r.height];
    return at.every((s) => s >= 0 && s < 1) ? at : null;
  }

  /** The nearest place of the field, in shares. */
  within(left, top) {
    const r = this.rectangle;
    return [(left - r.left) / r.width, (top - r.top) / r.height].map((s) => Math.min(Math.max(s, 0), 1));
  }

  /** Zoom so that the place (left, top) of the pane stays where it is. */
  zoomBy(factor, left = this.pane.width / 2, top = this.pane.height / 2) {
    const max = (MAX_CSS_PER_PIXEL * this.field.width) / this.pane.width;
    const zoom = Math.min(Math.max(this.zoom * factor, 1), Math.max(max, 1));
    const before = this.rectangle;
    const [x, y] = [(left - before.left) / before.width, (top - before.top) / before.height];
    this.zoom = zoom;
    const after = this.rectangle;
    this.panBy(left - (after.left + x * after.width), top - (after.top + y * after.height));
  }

  /** One pixel of the field on one pixel of the screen, or on several. */
  zoomToPixels(screenPixels = 1) {
    this.zoomBy(screenPixels / devicePixelRatio / this.scale);
  }

  panBy(dx, dy) {
    const half = 0.5 / this.zoom;
    const within = (s) => Math.min(Math.max(s, half), 1 - half);
    this.x = within(this.x - dx / (this.pane.width * this.zoom));
    this.y = within(this.y - dy / (this.pane.height * this.zoom));
    this.onChange();
  }

  /** Let a pane's element move the view; `onPoint(shares or null)` says what the pointer is on. */
  attach(element, onPoint) {
    const touches = new Map();
    const place = (event) => {
      const box = element.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    element.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0015)), ...place(event));
      },
      { passive: false },
    );
    element.addEventListener("pointerdown", (event) => {
      touches.set(event.pointerId, { at: place(event), from: this.within(...place(event)), moved: 0 });
      element.setPointerCapture(event.pointerId);
    });
    element.addEventListener("pointermove", (event) => {
      const at = place(event);
      const touch = touches.get(event.pointerId);
      if (touch) this.drag(touches, touch, at);
      if (event.pointerType !== "touch") onPoint(this.shares(...at));
    });
    const release = (event) => {
      const touch = touches.get(event.pointerId);
      touches.delete(event.pointerId);
      if (this.draw) return;
      if (event.type === "pointerup" && event.pointerType === "touch" && touch?.moved < TAP_PX) onPoint(this.shares(...touch.at));
    };
    element.addEventListener("pointerup", release);
    element.addEventListener("pointercancel", release);
    element.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && onPoint(null));
    element.addEventListener("dblclick", () => !this.draw && this.fit());
  }

  /** One pointer pans; two also zoom by how their distance changes. */
  drag(touches, touch, at) {
    const [dx, dy] = [at[0] - touch.at[0], at[1] - touch.at[1]];
    touch.moved += Math.hypot(dx, dy);
    const other = [...touches.values()].find((t) => t !== touch);
    if (other) {
      const distance = ([x, y]) => Math.hypot(x - other.at[0], y - other.at[1]);
      this.zoomBy(distance(at) / Math.max(distance(touch.at), 1), (at[0] + other.at[0]) / 2, (at[1] + other.at[1]) / 2);
      this.panBy(dx / 2, dy / 2);
    } else if (this.draw) {
      if (touch.moved >= TAP_PX) this.draw(touch.from, this.within(...at));
    } else {
      this.panBy(dx, dy);
    }
    touch.at = at;
  }
}
