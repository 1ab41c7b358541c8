// Text for people: characters made harmless, times, spans, command lines.

const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]/gu;

// Show a text as one line in which each control, bidirectional or invisible character is visible.
export function printable(text, limit = 4096) {
  const cut = text.length > limit ? text.slice(0, limit) : text;
  const safe = cut.replace(UNSAFE, (char) => {
    const code = char.codePointAt(0);
    if (char === "\n") return "\\n";
    if (char === "\t") return "\\t";
    return code < 256 ? "\\x" + code.toString(16).padStart(2, "0") : "\\u" + code.toString(16).padStart(4, "0");
  });
  return cut.length < text.length ? `${safe}… (${text.length} characters)` : safe;
}

// Quote arguments so that a shell reads them as they were.
export function shellQuoted(args) {
  return args
    .map((arg) => {
      if (/^[\w@%+=:,./-]+$/.test(arg)) return arg;
      // eslint-disable-next-line no-control-regex
      if (/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069]/.test(arg)) {
        const bytes = [...new TextEncoder().encode(arg)];
        return "$'" + bytes.map((byte) => (byte > 31 && byte < 127 && byte !== 39 && byte !== 92 ? String.fromCharCode(byte) : "\\x" + byte.toString(16).padStart(2, "0"))).join("") + "'";
      }
      return "'" + arg.replaceAll("'", "'\\''") + "'";
    })
    .join(" ");
}

const two = (number) => String(number).padStart(2, "0");

// Times are µs since the epoch; 0 is none.
export function clock(time, day = 0) {
  if (!time) return "";
  const date = new Date(time / 1000);
  if (day && date.toDateString() !== new Date(day / 1000).toDateString()) return `${calendar(time).slice(5)} ${two(date.getHours())}:${two(date.getMinutes())}`;
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

export function calendar(time) {
  const date = new Date(time / 1000);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

export function whole(time) {
  return time ? `${calendar(time)} ${clock(time)}` : "";
}

export function lasted(from, to) {
  if (!from || !to) return "";
  const seconds = Math.max(0, to - from) / 1e6;
  if (seconds < 1) return `${Math.round(seconds * 1000)}ms`;
  if (seconds < 60) return `${seconds.toFixed(1)}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m${two(Math.floor(seconds % 60))}s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours}h${two(minutes % 60)}m` : `${Math.floor(hours / 24)}d${two(hours % 24)}h`;
}

export function plural(count, one, many) {
  return `${count} ${count === 1 ? one : many}`;
}
