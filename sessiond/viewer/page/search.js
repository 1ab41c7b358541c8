// Search: words and operators against every field of a process.

// Operators that compare a text of a process, whole or in part; the columns and the members of
// `more` that hold it.
const OPERATORS = {
  user: { whole: true, texts: ["user", "user_id", "real_user", "saved_user", "login_user"] },
  host: { whole: true, texts: ["host"] },
  name: { whole: true, texts: ["name"] },
  path: { texts: ["executable"], more: (more) => [...(more.images ?? []).map((image) => image[1]), ...(more.failed ?? []).map((one) => one[1])] },
  arg: { args: true, more: (more) => (more.images ?? []).flatMap((image) => image[2]) },
  dir: { texts: ["directory"] },
  group: { texts: ["group_name", "real_group", "saved_group", "groups"] },
  cap: { texts: ["capabilities"] },
  container: { texts: ["container", "pod"] },
  unit: { texts: ["unit"] },
  tag: { texts: ["tags"] },
  file: { more: (more) => (more.activity ?? []).map((one) => one[2]) },
  signal: { whole: true, more: (more) => [more.signal ?? ""] },
  rule: { more: (more) => (more.findings ?? []).flatMap((one) => [one[1], ...one[3]]) },
  id: { own: (store, each) => store.columns.id[each] },
  pid: { whole: true, own: (store, each) => String(store.columns.pid[each]) },
  exit: { whole: true, own: (store, each) => (store.columns.exit[each] < 0 ? "" : String(store.columns.exit[each])) },
  from: { session: (session) => session.from },
  type: { whole: true, session: (session) => session.kind },
};

const IS = {
  typed: (store, each) => store.flag("typed", each),
  older: (store, each) => store.flag("older", each),
  gone: (store, each) => store.flag("gone", each),
  failed: (store, each) => store.failed(each),
  root: (store, each) => store.isRoot(each),
  running: (store, each) => store.running(each),
  raised: (store, each) => store.gained(each) !== "",
  found: (store, each) => store.more(each).findings !== undefined,
};

const TEXTS = ["executable", "name", "title", "user", "user_id", "real_user", "saved_user", "group_name", "real_group", "saved_group", "groups", "login_user", "audit_session", "capabilities", "directory", "tty", "container", "pod", "unit", "labels", "host", "providers", "tags"];

// Split a query into terms; returns an error message for an unknown operator.
export function parseQuery(text) {
  const terms = [];
  for (const [, minus, field, quoted, plain] of text.matchAll(/(-?)(?:([a-z]+):)?(?:"([^"]*)"?|(\S+))/g)) {
    let value = quoted ?? plain;
    let negated = minus === "-";
    if (field && field !== "is" && !Object.hasOwn(OPERATORS, field)) return { terms: [], error: `no operator ${field}:` };
    if (field && quoted === undefined && value.startsWith("!")) {
      negated = !negated;
      value = value.slice(1);
    }
    if (field === "is" && !Object.hasOwn(IS, value)) return { terms: [], error: `is: ${Object.keys(IS).join(", ")}` };
    if (value) terms.push({ field, value: value.toLowerCase(), negated });
  }
  return { terms, error: "" };
}

// Make the question whether a process fits a term. Each distinct text is compared once.
function asks(store, { field, value }) {
  if (field === "is") return (each) => IS[value](store, each);
  const word = !field;
  const { texts = [], args = word, whole = false, more, own, session } = word ? { texts: TEXTS, more: textsOf, session: (each) => `${each.from} ${each.kind}` } : OPERATORS[field];
  const fits = (text) => (whole ? text.toLowerCase() === value : text.toLowerCase().includes(value));
  const inTexts = texts.length ? store.data.texts.map(fits) : [];
  const columns = inTexts.includes(true) ? texts.map((name) => store.columns[name]) : [];
  const inLists = args ? store.data.lists.map((list) => (word ? fits(list.join(" ")) : list.some(fits))) : [];
  const inSessions = session ? store.sessions.map((each) => fits(session(each))) : [];
  const inMore = new Set(more ? Object.entries(store.data.more).filter(([, members]) => more(members).some(fits)).map(([each]) => Number(each)) : []);
  const { columns: all } = store;
  const hasText = (each) => {
    for (const column of columns) if (inTexts[column[each]]) return true;
    return false;
  };
  return (each) =>
    hasText(each) ||
    (args && inLists[all.args[each]]) ||
    inMore.has(each) ||
    (session !== undefined && inSessions[all.session[each]]) ||
    (own !== undefined && fits(own(store, each))) ||
    (word && (String(all.pid[each]) === value || all.id[each].toLowerCase() === value));
}

// All texts of the members that few processes have; argument lists as command lines.
function textsOf(more) {
  const command = (args) => (Array.isArray(args) ? args.join(" ") : args);
  const found = Object.values(more).flatMap((member) => (Array.isArray(member) ? member.flatMap((one) => (Array.isArray(one) ? one.map(command) : one)) : member));
  return found.filter((each) => typeof each === "string");
}

// The processes that fit all terms, in the order of their start.
export function search(store, text) {
  const { terms, error } = parseQuery(text);
  if (error || !terms.length) return { found: [], error };
  const questions = terms.map((term) => [asks(store, term), term]);
  const { start, exit } = store.columns;
  const found = [];
  for (let each = 0; each < store.count; each++) {
    // exit:!0 selects processes that have an exit code other than 0.
    if (questions.every(([asked, { field, negated }]) => asked(each) !== negated && !(negated && field === "exit" && exit[each] < 0))) found.push(each);
  }
  return { found: found.sort((one, other) => start[one] - start[other]), error: "" };
}
