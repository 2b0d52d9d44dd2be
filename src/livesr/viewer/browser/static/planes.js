// 16-bit planes to pictures, for the lossless mode: the same arithmetic as livesr.viewer.composite.

const LEVELS = 1 << 16;
const tables = new Map();

/** Red, green and blue of every 16-bit value, 10 bits each in one word: four full channels fit. */
function table({ color, window, gamma, lut, palette, offset = 0, scale = 1 }) {
  const [low, high] = window.map((end) => end / scale + offset); // windows are intensities, planes are numbers
  const key = `${color} ${lut} ${low} ${high} ${gamma}`;
  if (tables.has(key)) return tables.get(key);
  const part = [0, 2, 4].map((i) => Number.parseInt(color.slice(i, i + 2), 16));
  const words = new Uint32Array(LEVELS);
  const width = Math.max(high - low, 1e-3);
  for (let value = 0; value < LEVELS; value++) {
    const share = Math.min(Math.max((value - low) / width, 0), 1);
    const level = Math.round((gamma === 1 ? share : share ** gamma) * 255);
    const [r, g, b] = palette ? palette[level] : part.map((p) => Math.floor((level * p + 127) / 255));
    words[value] = r | (g << 10) | (b << 20);
  }
  if (tables.size > 16) tables.delete(tables.keys().next().value);
  tables.set(key, words);
  return words;
}

/** Add up the colours of some planes (each {plane: Uint16Array, color, window, gamma}); a bitmap of width x height. */
export async function compose(shown, width, height) {
  const image = new ImageData(width, height);
  const out = new Uint32Array(image.data.buffer);
  out.fill(0xff000000);
  for (const { plane, ...view } of shown) {
    const words = table(view);
    for (let i = 0; i < out.length; i++) {
      const word = words[plane[i]];
      if (word === 0) continue;
      const before = out[i];
      const r = Math.min((before & 255) + (word & 1023), 255);
      const g = Math.min(((before >> 8) & 255) + ((word >> 10) & 1023), 255);
      const b = Math.min(((before >> 16) & 255) + (word >> 20), 255);
      out[i] = (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
    }
  }
  return createImageBitmap(image);
}

/** Bitmaps by name for a frame that came as planes. */
export async function composePlanes(frame, buffers) {
  const bitmaps = new Map();
  for (const [n, { name, width, height, planes, offset_adu: offset, unit_scale: scale }] of frame.pictures.entries()) {
    const all = new Uint16Array(buffers[n]);
    const plane = (c) => all.subarray(c * width * height, (c + 1) * width * height);
    if (name !== "planes") {
      bitmaps.set(name, await compose([{ ...frame[name], color: "FFFFFF", offset, scale, plane: plane(0) }], width, height));
      continue;
    }
    const shown = frame.channels.slice(0, planes).map((channel, c) => ({ ...channel, offset, scale, plane: plane(c) }));
    bitmaps.set("composite", await compose(shown.filter((s) => s.visible), width, height));
    for (const channel of shown) bitmaps.set(`channel:${channel.label}`, await compose([channel], width, height));
  }
  return bitmaps;
}
