// The time line: started and failed processes and losses over time; a range can be brushed.

import { clock, lasted, calendar } from "./text.js";

export class Timeline {
  constructor(canvas, label, changed) {
    Object.assign(this, { canvas, label, changed, times: [], bad: [], found: [], losses: [], from: 0, to: 0, range: null, marked: 0 });
    let begin = null;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return this.from + Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * (this.to - this.from);
    };
    canvas.addEventListener("pointerdown", (event) => {
      begin = at(event);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (begin === null) return;
      const end = at(event);
      this.range = begin < end ? [begin, end] : [end, begin];
      this.draw();
    });
    canvas.addEventListener("pointerup", (event) => {
      if (begin === null) return;
      const wide = Math.abs(at(event) - begin) > (this.to - this.from) / 200;
      begin = null;
      if (!wide) this.range = null;
      this.draw();
      this.changed(this.range);
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  set(store, session) {
    const { start } = store.columns;
    [this.from, this.to] = store.spanOf(session);
    this.times = [];
    this.bad = [];
    for (let each = session.first; each < session.first + session.processes; each++) {
      if (!store.flag("seen", each) || !start[each]) continue;
      this.times.push(start[each]);
      if (store.failed(each)) this.bad.push(store.columns.end[each]);
    }
    this.found = [];
    for (let each = session.first; each < session.first + session.processes; each++) {
      for (const [time] of store.more(each).findings ?? []) this.found.push(time);
    }
    for (const each of store.findingsOf(session)) this.found.push(each.start);
    this.losses = store.lossesOf(session);
    this.range = null;
    this.draw();
  }

  mark(time) {
    this.marked = time;
    this.draw();
  }

  draw() {
    const { canvas, from, to } = this;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width || !height) return;
    const scale = devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const brush = canvas.getContext("2d");
    brush.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name);
    const wide = Math.max(1, to - from);
    const x = (time) => ((time - from) / wide) * (width - 3);
    const columns = Math.max(1, Math.floor(width / 3));
    const counts = new Uint32Array(columns);
    for (const time of this.times) counts[Math.min(columns - 1, Math.max(0, Math.floor(((time - from) / wide) * columns)))]++;
    const most = counts.reduce((one, other) => Math.max(one, other), 1);
    brush.fillStyle = colour("--line");
    brush.fillRect(0, height - 1, width, 1);
    brush.fillStyle = colour("--accent");
    counts.forEach((count, column) => {
      if (!count) return;
      const tall = 3 + (Math.sqrt(count) / Math.sqrt(most)) * (height - 12);
      brush.fillRect(column * 3, height - tall, 2, tall);
    });
    brush.fillStyle = colour("--bad");
    for (const time of this.bad) brush.fillRect(x(time), height - 3, 3, 3);
    for (const loss of this.losses) {
      brush.globalAlpha = 0.35;
      brush.fillRect(x(Math.max(from, loss.start)), 0, Math.max(3, x(Math.min(to, loss.end)) - x(Math.max(from, loss.start))), height);
      brush.globalAlpha = 1;
    }
    for (const time of this.found) {
      const middle = Math.min(width - 4, Math.max(4, x(time)));
      brush.beginPath();
      brush.moveTo(middle - 4, 0);
      brush.lineTo(middle + 4, 0);
      brush.lineTo(middle, 7);
      brush.fill();
    }
    if (this.marked >= from && this.marked <= to) {
      brush.fillStyle = colour("--text");
      brush.fillRect(x(this.marked), 0, 1, height);
    }
    if (this.range) {
      brush.fillStyle = colour("--ground");
      brush.globalAlpha = 0.7;
      brush.fillRect(0, 0, x(this.range[0]), height);
      brush.fillRect(x(this.range[1]), 0, width, height);
      brush.globalAlpha = 1;
    }
    const [left, right] = this.range ?? [from, to];
    const ends = [`${calendar(left)} ${clock(left)}`, lasted(left, right) + (this.range ? " chosen, Esc for all" : ""), clock(right, left)];
    this.label.replaceChildren(...ends.map((text) => Object.assign(document.createElement("span"), { textContent: text })));
    canvas.setAttribute("aria-label", `${this.times.length} processes in ${lasted(from, to)}, ${this.bad.length} failed, ${this.losses.length} losses, ${this.found.length} findings`);
  }
}
