// Numbers and lengths for people. Touches no element but what it makes.

export const byId = (id) => document.getElementById(id);

/** An element with properties and children; text stays text, whatever it holds. */
export function make(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}

/** Write a value with its unit in small print. */
export function show(id, value, unit = "") {
  const element = byId(id);
  const key = `${value} ${unit}`;
  if (element.dataset.shown === key) return; // a write costs a layout
  element.dataset.shown = key;
  const text = unit ? [value, make("small", { textContent: ` ${unit}` })] : [value];
  element.replaceChildren(...text);
}

/** [number, unit] of a time in ms. */
export function duration(ms) {
  if (!Number.isFinite(ms)) return ["–", ""];
  if (ms < 999.5) return [String(Math.max(0, Math.round(ms))), "ms"];
  if (ms < 99_950) return [(ms / 1000).toFixed(1), "s"];
  if (ms < 5.7e6) return [String(Math.round(ms / 6e4)), "min"];
  return ms < 1.7e8 ? [String(Math.round(ms / 3.6e6)), "h"] : [String(Math.round(ms / 8.64e7)), "days"];
}

/** [number, unit] of a size in bytes. */
export function bytes(n) {
  if (!Number.isFinite(n)) return ["–", ""];
  return n < 1e12 ? [(n / 1e9).toFixed(n < 1e10 ? 1 : 0), "GB"] : [(n / 1e12).toFixed(1), "TB"];
}

/** An intensity for people: whole ADU, three digits of anything else. */
export function amount(value, unit = "ADU") {
  if (value == null || !Number.isFinite(value)) return "–";
  return unit === "ADU" && Math.abs(value) >= 1 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

/** The time of day at a moment, in ms since 1970, to the tenth of a second; "" of none. */
export function clock(ms) {
  if (!(ms > 0)) return "";
  const at = new Date(ms);
  return `${at.toTimeString().slice(0, 8)}.${Math.floor(at.getMilliseconds() / 100)}`;
}

/** 1, 2 or 5 times a power of ten, at most a quarter of the width. */
export function scaleBarUm(widthUm) {
  const decade = 10 ** Math.floor(Math.log10(widthUm / 4));
  return [5, 2, 1].map((n) => n * decade).find((um) => um <= widthUm / 4) ?? decade;
}

export function lengthText(um) {
  return um >= 1 ? `${um} µm` : `${Number((um * 1000).toPrecision(3))} nm`;
}

/** A colour that CSS may be given, white for anything else. */
export function cssColor(color) {
  return /^[0-9a-f]{6}$/i.test(color) ? `#${color}` : "#ffffff";
}

/** Remember a setting of this browser; a browser that forbids it forgets. */
export const remembered = {
  get(key) {
    try {
      return localStorage.getItem(`livesr.${key}`);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(`livesr.${key}`, value);
    } catch {
      // private mode
    }
  },
};
