// The data of the page: processes as columns, and values derived from them.

const FLAGS = { seen: 1, typed: 2, interactive: 4, older: 8, gone: 16, core: 32, canary: 64 };

export class Store {
  constructor(data) {
    this.data = data;
    this.columns = data.processes;
    this.count = data.processes.id.length;
    for (const [name, column] of Object.entries(this.columns)) if (!Array.isArray(column)) this.columns[name] = new Array(this.count).fill(column);
    this.sessions = data.sessions;
    this.children = new Array(this.count);
    this.numbers = null;
    const { parent, session, start, pid } = this.columns;
    for (let each = 0; each < this.count; each++) {
      const above = parent[each];
      // A session is drawn alone: a process forked in another session is a root.
      if (above < 0 || above === each || session[above] !== session[each]) continue;
      (this.children[above] ??= []).push(each);
    }
    for (const siblings of this.children) siblings?.sort((one, other) => start[one] - start[other] || pid[one] - pid[other]);
    this.foundIn = new Map();
    for (const [each, { findings }] of Object.entries(data.more)) {
      if (findings) this.foundIn.set(session[each], (this.foundIn.get(session[each]) ?? 0) + findings.length);
    }
    this.leadsTo = new Map();
    data.sessions.forEach((each, number) => {
      if (each.origin >= 0) this.leadsTo.set(each.origin, number);
    });
  }

  text(column, process) {
    return this.data.texts[this.columns[column][process]];
  }

  flag(name, process) {
    return (this.columns.flags[process] & FLAGS[name]) !== 0;
  }

  more(process) {
    return this.data.more[process] ?? {};
  }

  below(process) {
    return this.children[process] ?? [];
  }

  args(process) {
    return this.data.lists[this.columns.args[process]];
  }

  command(process) {
    const args = this.args(process);
    return args.length ? args.join(" ") : this.text("executable", process) || this.text("name", process) || "?";
  }

  failed(process) {
    return this.columns.exit[process] > 0;
  }

  isRoot(process) {
    return this.text("user_id", process) === "0";
  }

  // The privileges that a process has and the one that forked it has not: "root", or capabilities.
  gained(process) {
    const above = this.columns.parent[process];
    if (above < 0 || !this.text("user_id", above) || this.isRoot(above)) return "";
    if (this.isRoot(process) || this.more(process).images?.some((image) => image[3] === "root")) return "root";
    const { capabilities } = this.columns;
    if (!this.flag("seen", above) || capabilities[process] === capabilities[above]) return "";
    const known = new Set(this.text("capabilities", above).split(" "));
    return this.text("capabilities", process).split(" ").filter((each) => each && !known.has(each)).join(" ");
  }

  running(process) {
    return this.flag("seen", process) && !this.columns.end[process] && !this.flag("gone", process);
  }

  number(id) {
    this.numbers ??= new Map(this.columns.id.map((each, number) => [each, number]));
    return this.numbers.get(id) ?? -1;
  }

  // The processes above one, nearest first, across sessions.
  ancestors(process) {
    const found = [];
    const known = new Set([process]);
    for (let above = this.columns.parent[process]; above >= 0 && !known.has(above); above = this.columns.parent[above]) {
      known.add(above);
      found.push(above);
    }
    return found;
  }

  // When the session was, for the time line: to its last event where it still runs.
  spanOf(session) {
    const { start, end, last } = this.columns;
    let from = Infinity;
    let to = session.end || 0;
    for (let each = session.first; each < session.first + session.processes; each++) {
      if (this.flag("seen", each) && start[each] && start[each] < from) from = start[each];
      to = Math.max(to, end[each], last[each], start[each]);
    }
    return [from === Infinity ? session.start : from, to];
  }

  lossesOf(session) {
    return during(session, this.data.losses);
  }

  // The findings about the session's host, not about a process of it.
  findingsOf(session) {
    return during(session, this.data.findings);
  }
}

function during(session, marks) {
  return marks.filter((each) => each.host === session.host && each.end >= session.start && (!session.end || each.start <= session.end));
}
