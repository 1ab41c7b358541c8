// Text for people: characters made harmless, times, spans, command lines.

// Control, format and unassigned characters, and blanks other than the space: as in sessiond/text.py.
const UNSAFE = /(?! )[\p{C}\p{Z}]/gu;

const hex = (code, digits) => code.toString(16).padStart(digits, "0");

// Show a text as one line in which each control, bidirectional or invisible character is visible.
export function printable(text, limit = 4096) {
  const cut = text.length > limit ? text.slice(0, limit) : text;
  const safe = cut.replace(UNSAFE, (char) => {
    const code = char.codePointAt(0);
    if (char === "\n") return "\\n";
    if (char === "\t") return "\\t";
    return code < 0x100 ? `\\x${hex(code, 2)}` : code < 0x10000 ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`;
  });
  return cut.length < text.length ? `${safe}… (${text.length} characters)` : safe;
}

// Write a value as JSON in which such characters are escaped.
export function safeJson(value) {
  return JSON.stringify(value, null, 2).replace(UNSAFE, (char) => (char === "\n" ? char : [...Array(char.length).keys()].map((place) => `\\u${hex(char.charCodeAt(place), 4)}`).join("")));
}

// Quote arguments so that a shell reads them as they were.
export function shellQuoted(args) {
  return args
    .map((arg) => {
      if (/^[\w@%+=:,./-]+$/.test(arg)) return arg;
      if (arg.search(UNSAFE) >= 0) {
        const bytes = [...new TextEncoder().encode(arg)];
        return "$'" + bytes.map((byte) => (byte > 31 && byte < 127 && byte !== 39 && byte !== 92 ? String.fromCharCode(byte) : `\\x${hex(byte, 2)}`)).join("") + "'";
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
