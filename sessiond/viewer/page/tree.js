// A session as rows: open and folded processes, search results, losses.

// Give the same number to processes that repeat each other with all that is below them.
function signaturesOf(store, session, wanted, marks) {
  const order = [...session.roots];
  const below = (each) => (wanted ? store.below(each).filter((one) => wanted.has(one)) : store.below(each));
  for (let place = 0; place < order.length; place++) for (const child of below(order[place])) order.push(child);
  const { alike } = store.columns;
  const numbers = new Map();
  const signatures = new Int32Array(store.count);
  let next = 0;
  for (const each of order.reverse()) {
    const alone = alike[each] < 0 || marks.has(each) || store.more(each).findings;
    const inside = alone ? [] : below(each);
    const key = inside.length ? `${alike[each]} ${inside.map((one) => signatures[one])}` : alike[each];
    const known = alone ? undefined : numbers.get(key);
    signatures[each] = known ?? next++;
    if (!alone && known === undefined) numbers.set(key, signatures[each]);
  }
  return signatures;
}

function groupsOf(siblings, signatures) {
  if (siblings.length === 1) return [siblings];
  const groups = new Map();
  for (const each of siblings) {
    const group = groups.get(signatures[each]);
    if (group) group.push(each);
    else groups.set(signatures[each], [each]);
  }
  return [...groups.values()];
}

// Whether failed execs are a search along PATH that found the program in the end.
export function searchedPath(store, process) {
  const executed = store.columns.exec[process];
  return executed > 0 && (store.more(process).failed ?? []).every(([time, , error]) => error === "ENOENT" && time <= executed);
}

// Put each loss, and each finding about the host, below the process that ran then and had started last.
function placedMarks(store, session) {
  const placed = new Map();
  const marks = [...store.lossesOf(session), ...store.findingsOf(session)].sort((one, other) => one.start - other.start);
  if (!marks.length) return placed;
  const { start, end } = store.columns;
  const byStart = Array.from({ length: session.processes }, (_, number) => session.first + number).sort((one, other) => start[one] - start[other]);
  let before = 0;
  for (const mark of marks) {
    while (before < byStart.length && start[byStart[before]] <= mark.start) before++;
    let last = before - 1;
    while (last >= 0 && end[byStart[last]] && end[byStart[last]] < mark.start) last--;
    const process = last < 0 ? -1 : byStart[last];
    if (placed.has(process)) placed.get(process).push(mark);
    else placed.set(process, [mark]);
  }
  return placed;
}

function asked(store, each, only) {
  if (only === "typed") return store.flag("typed", each);
  return only === "failed" ? store.failed(each) : store.isRoot(each);
}

// The processes that are asked for, with all above them; null for all.
function wantedOf(store, session, options) {
  if (!options.only && !options.range) return null;
  const wanted = new Set();
  const { parent, start, end } = store.columns;
  for (let each = session.first; each < session.first + session.processes; each++) {
    if (options.only && !asked(store, each, options.only)) continue;
    if (options.range && (start[each] > options.range[1] || (end[each] || Infinity) < options.range[0])) continue;
    for (let above = each; above >= 0 && !wanted.has(above); above = parent[above]) wanted.add(above);
  }
  return wanted;
}

// Rows of a session: {process, depth, group, open, last}, or {mark, depth} for a loss or a finding.
// `closed` has the processes with hidden children, `unfolded` the first ones of open groups.
export function rowsOf(store, session, options) {
  const { start } = store.columns;
  const wanted = wantedOf(store, session, options);
  const marks = placedMarks(store, session);
  const signatures = signaturesOf(store, session, wanted, marks);
  const rows = (marks.get(-1) ?? []).map((mark) => ({ mark, depth: 0 }));
  const waiting = [];
  const push = (processes, depth, below) => {
    const visible = wanted ? processes.filter((each) => wanted.has(each)) : processes;
    const inner = [];
    let next = 0;
    for (const group of groupsOf(visible, signatures)) {
      while (next < below.length && below[next].start < start[group[0]]) inner.push({ mark: below[next++], depth });
      inner.push({ process: group[0], group, depth });
    }
    while (next < below.length) inner.push({ mark: below[next++], depth });
    for (const row of inner.reverse()) waiting.push(row);
  };
  push(session.roots, 0, []);
  while (waiting.length) {
    const row = waiting.pop();
    rows.push(row);
    if (row.mark) continue;
    if (row.group.length > 1) {
      row.open = options.unfolded.has(row.process);
      if (row.open) for (const each of row.group.toReversed()) waiting.push({ process: each, group: [each], depth: row.depth + 1 });
      else row.hidden = countBelow(store, row.process);
      continue;
    }
    const below = store.below(row.process);
    const inside = marks.get(row.process) ?? [];
    const visible = wanted ? below.filter((each) => wanted.has(each)) : below;
    if (!visible.length && !inside.length) continue;
    row.open = !options.closed.has(row.process);
    if (row.open) push(below, row.depth + 1, inside);
    else row.hidden = countBelow(store, row.process);
  }
  return rows;
}

export function countBelow(store, process) {
  let count = 0;
  const waiting = [process];
  while (waiting.length) {
    const below = store.below(waiting.pop());
    count += below.length;
    for (const each of below) waiting.push(each);
  }
  return count;
}

// Close everything deeper than a level; returns the processes to close.
export function closedBelow(store, session, level) {
  const closed = new Set();
  const waiting = session.roots.map((each) => [each, 0]);
  while (waiting.length) {
    const [each, depth] = waiting.pop();
    if (depth >= level && store.below(each).length) closed.add(each);
    for (const child of store.below(each)) waiting.push([child, depth + 1]);
  }
  return closed;
}
