// Search: words and operators against every field of a process.

const FIELDS = {
  user: (store, each) => [store.text("user", each), store.text("user_id", each), store.text("real_user", each), store.text("login_user", each)],
  host: (store, each) => [store.text("host", each)],
  pid: (store, each) => [String(store.columns.pid[each])],
  id: (store, each) => [store.columns.id[each]],
  exit: (store, each) => (store.columns.exit[each] < 0 ? [] : [String(store.columns.exit[each])]),
  signal: (store, each) => [store.more(each).signal ?? ""],
  path: (store, each) => [store.text("executable", each), ...(store.more(each).images ?? []).map((image) => image[1]), ...(store.more(each).failed ?? []).map((one) => one[1])],
  name: (store, each) => [store.text("name", each)],
  arg: (store, each) => [...store.args(each), ...(store.more(each).images ?? []).flatMap((image) => image[2])],
  dir: (store, each) => [store.text("directory", each)],
  from: (store, each) => [store.sessions[store.columns.session[each]].from],
  type: (store, each) => [store.sessions[store.columns.session[each]].kind],
  container: (store, each) => [store.text("container", each)],
  unit: (store, each) => [store.text("unit", each)],
  tag: (store, each) => [store.text("tags", each)],
  file: (store, each) => (store.more(each).activity ?? []).map((one) => one[2]),
  rule: (store, each) => (store.more(each).findings ?? []).flatMap((one) => [one[1], ...one[3]]),
  is: (store, each) => ["typed", "older", "gone"].filter((name) => store.flag(name, each)).concat(store.failed(each) ? "failed" : [], store.isRoot(each) ? "root" : [], store.running(each) ? "running" : [], store.more(each).findings ? "found" : []),
};

const EXACT = new Set(["pid", "exit", "host", "user", "type", "is", "signal", "name"]);

// Split a query into terms; returns an error in words for an operator that there is not.
export function parseQuery(text) {
  const terms = [];
  for (const [, minus, field, quoted, plain] of text.matchAll(/(-?)(?:([a-z]+):)?(?:"([^"]*)"?|(\S+))/g)) {
    let value = quoted ?? plain;
    let negated = minus === "-";
    if (field && !(field in FIELDS)) return { terms: [], error: `no operator ${field}:` };
    if (field && quoted === undefined && value.startsWith("!")) {
      negated = !negated;
      value = value.slice(1);
    }
    if (value) terms.push({ field, value: value.toLowerCase(), negated });
  }
  return { terms, error: "" };
}

function holds(store, process, { field, value }) {
  if (field) {
    const values = FIELDS[field](store, process);
    if (EXACT.has(field)) return values.some((each) => each.toLowerCase() === value);
    return values.some((each) => each.toLowerCase().includes(value));
  }
  for (const name of ["executable", "user", "directory", "title", "container", "unit"]) {
    if (store.text(name, process).toLowerCase().includes(value)) return true;
  }
  if (store.command(process).toLowerCase().includes(value)) return true;
  const more = store.more(process);
  return (
    (more.images ?? []).some((image) => image[2].join(" ").toLowerCase().includes(value)) ||
    (more.failed ?? []).some((each) => each[1].toLowerCase().includes(value)) ||
    (more.activity ?? []).some((each) => (each[1] + " " + each[2]).toLowerCase().includes(value)) ||
    String(store.columns.pid[process]) === value
  );
}

// The processes that fit all terms, in the order of their start.
export function search(store, text) {
  const { terms, error } = parseQuery(text);
  if (error || !terms.length) return { found: [], error };
  const found = [];
  for (let each = 0; each < store.count; each++) {
    // exit:!0 asks for an exit code other than 0: one that is there.
    if (terms.every((term) => holds(store, each, term) !== term.negated && !(term.negated && term.field === "exit" && store.columns.exit[each] < 0))) found.push(each);
  }
  const { start } = store.columns;
  return { found: found.sort((one, other) => start[one] - start[other]), error: "" };
}
