// Figures, shares and times as text.

/** How far the clock of the daemon is ahead of ours. */
export const daemonClock = { aheadMs: 0 };
export const DASH = "–";

export function figure(value) {
  if (value === null || !Number.isFinite(value)) return DASH;
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)}M`;
  if (value >= 10000) return `${(value / 1000).toPrecision(3)}k`;
  return value >= 10 || Number.isInteger(value) ? String(Math.round(value)) : String(Number(value.toFixed(1)));
}

export function perSecond(value) {
  return value === null ? DASH : `${figure(value)}/s`;
}

export function bytesPerSecond(value) {
  if (value === null) return DASH;
  let scaled = value;
  for (const unit of ["B/s", "kB/s", "MB/s"]) {
    if (scaled < 999.5) return `${scaled < 10 && unit !== "B/s" ? scaled.toFixed(1) : Math.round(scaled)} ${unit}`;
    scaled /= 1000;
  }
  return `${scaled.toPrecision(3)} GB/s`;
}

export function share(part, whole) {
  return whole > 0 ? `${Math.floor((100 * part) / whole)}%` : DASH;
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return s < 86400 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
}

export function ago(stamp) {
  const at = Date.parse(stamp ?? "");
  return Number.isNaN(at) ? "" : span((Date.now() + daemonClock.aheadMs - at) / 1000);
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

export function clock(at) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "";
  const today = date.toDateString() === new Date().toDateString();
  return today ? TIME.format(date) : `${DAY.format(date)}, ${TIME.format(date)}`;
}

export function sinceText(stamp) {
  const passed = ago(stamp);
  return passed && `for ${passed}`;
}

export function valueText(value) {
  if (value === null || typeof value !== "object") return String(value);
  return JSON.stringify(value);
}
