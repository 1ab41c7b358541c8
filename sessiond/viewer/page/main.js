// The page: three panes, keys, search, permalinks, and news of a file that grows.

import { Store } from "./store.js";
import { search } from "./search.js";
import { rowsOf, closedBelow, searchedPath } from "./tree.js";
import { Rows, element } from "./rows.js";
import { Timeline } from "./timeline.js";
import { factsOf, asText, asJson, summaryOf } from "./details.js";
import { printable, shellQuoted, clock, lasted, calendar, plural } from "./text.js";

const source = document.getElementById("data");
const find = (id) => document.getElementById(id);
const state = { perSession: new Map(), session: -1, process: -1, only: "", range: null, closed: new Set(), unfolded: new Set(), matches: [], found: new Set(), match: -1 };
let store = new Store(JSON.parse(source.textContent));
source.remove();
let order = [];

// --- sessions ---

const sessionRows = new Rows(find("session-list"), 58, drawSession, (index) => openSession(order[index]));

function drawSession(number) {
  const session = store.sessions[number];
  const users = session.users.map((each) => printable(each, 64));
  const shown = users.length > 3 ? [...users.slice(0, 3), "…"] : users;
  const who = element("span", {}, element("b", { text: shown[0] ?? "?" }));
  if (shown.length > 1) who.append(element("span", { className: "user", text: ` → ${shown.slice(1).join(" → ")}` }));
  const matches = state.perSession.get(number);
  const counted = element("span", { className: session.failed ? "bad" : "dim", text: session.failed ? `${session.failed}/${session.count} failed` : String(session.count) });
  const found = store.foundIn.get(number);
  const findings = found ? element("span", { className: "bad", role: "img", "aria-label": plural(found, "finding", "findings"), title: plural(found, "finding", "findings"), text: `! ${found}  ` }) : null;
  const when = session.running ? element("span", { className: "good", text: "still there" }) : element("span", { className: "dim", text: lasted(session.start, session.end) });
  const row = element("div", { role: "option" }, element("div", {}, who, element("span", {}, findings, matches ? element("b", { text: `${matches} found` }) : counted)), element("div", { className: "dim" }, element("span", { text: printable(`${session.by} · ${session.host}`, 200) }), when));
  row.title = `${calendar(session.start)} ${clock(session.start)}`;
  return row;
}

function openSession(number, process = -1) {
  if (number < 0 || number === undefined) return;
  if (number !== state.session) {
    Object.assign(state, { session: number, range: null, process: -1, closed: new Set(), unfolded: new Set() });
    timeline.set(store, store.sessions[number]);
  }
  sessionRows.select(order.indexOf(number));
  drawTree();
  const session = store.sessions[number];
  const first = session.roots.find((each) => store.flag("seen", each)) ?? session.roots[0] ?? -1;
  chooseProcess(process >= 0 ? process : first, process >= 0);
  pane("processes");
}

// --- the tree ---

const treeRows = new Rows(find("tree"), 24, drawRow, (index, event) => {
  if (event.target.closest(".fold")) toggle(index);
  chooseRow(index);
  if (event.detail > 1) toggle(index);
});

function drawTree() {
  if (state.session < 0) return;
  const session = store.sessions[state.session];
  const rows = rowsOf(store, session, state);
  find("heading").replaceChildren(element("b", { text: printable(session.users[0] ?? "?", 64) }), ` ${printable(summaryOf(store, session), 400)}`);
  treeRows.set(rows);
  treeRows.select(rows.findIndex((row) => row.process === state.process && (!row.open || row.group.length === 1)));
}

function drawRow(row, index) {
  const session = store.sessions[state.session];
  const indent = element("span", { className: "branch", text: "│ ".repeat(Math.min(row.depth, 24)) });
  const shared = { role: "treeitem", "aria-level": String(row.depth + 1) };
  if (row.mark) {
    const { start, rule, hop, text } = row.mark;
    const said = rule === undefined ? `‼ lost here (${printable(hop, 20)}): ${printable(text)}` : `! ${printable(rule)}`;
    return element("div", { className: "mark", ...shared }, element("span", { className: "when", text: clock(start, session.start) }), element("span", { className: "lasted" }), element("span", { className: "what" }, indent, element("span", { className: "fold" }), said));
  }
  const each = row.process;
  const more = store.more(each);
  const foldable = row.open !== undefined;
  const fold = element("span", { className: "fold", "aria-hidden": "true", text: foldable ? (row.open ? "▾" : "▸") : "" });
  const images = (more.images ?? []).slice(0, -1).map((image) => printable(image[2].join(" ") || image[1], 200));
  if (images.length > 4) images.splice(1, images.length - 4, `… (${more.images_count ?? more.images.length} programs)`);
  const seen = store.flag("seen", each);
  const executed = store.columns.exec[each] || store.flag("older", each);
  let said = [...images, printable(store.command(each), 1024)].join(" ⇒ ");
  if (row.depth > 24) said = `${row.depth} deep: ${said}`;
  const command = element("span", { className: store.flag("typed", each) ? "typed" : seen && executed ? "" : "dim", text: seen && !executed ? `(${said})` : said });
  const what = element("span", { className: "what" }, indent, fold, row.group.length > 1 ? element("span", { className: "dim", text: `${row.group.length} ✕ ` }) : null, command);
  const made = element("div", shared, element("span", { className: "when", text: clock(store.columns.start[each], session.start) }), element("span", { className: "lasted", text: store.running(each) ? "…" : lasted(store.columns.start[each], store.columns.end[each]) }), what, notesOf(row));
  if (foldable) made.setAttribute("aria-expanded", String(row.open));
  made.setAttribute("aria-label", `${made.querySelector(".what").textContent.replaceAll("│", "").trim()} ${made.querySelector(".notes").textContent}`.trim());
  if (state.found.has(each) || (row.group.length > 1 && row.group.some((one) => state.found.has(one)))) made.classList.add("found");
  if (said.length + 2 * row.depth < 28) made.classList.add("short");
  return made;
}

function notesOf(row) {
  const each = row.process;
  const more = store.more(each);
  const notes = element("span", { className: "notes" });
  const note = (className, text) => notes.append(element("span", { className: text.length > 16 ? `${className} long` : className, text: printable(text, 160) }));
  if (more.signal) note("bad", `→ ${more.signal}`);
  else if (store.failed(each)) note("bad", `→ exit ${store.columns.exit[each]}`);
  for (const [, rule] of more.findings ?? []) note("bad", `! ${rule}`);
  const above = store.columns.parent[each];
  const outside = row.depth === 0;
  const users = [...(more.images ?? []).map((image) => image[3]), store.text("user", each)];
  const changed = [...new Set(users)].filter((user) => user && (outside || above < 0 || user !== store.text("user", above)));
  const gained = store.gained(each);
  if (changed.length) note("user", `${gained === "root" ? "↑ " : ""}as ${changed.join("→")}`);
  if (gained && gained !== "root") note("user", `↑ ${gained}`);
  const directory = store.text("directory", each);
  if (directory && (outside || above < 0 || directory !== store.text("directory", above))) note("dim", `in ${directory}`);
  const container = store.text("container", each);
  if (container && (outside || above < 0 || container !== store.text("container", above))) note("dim", `container ${container.split(" ").at(-1).slice(0, 12)}`);
  if (more.failed) {
    if (searchedPath(store, each)) note("dim", `found after ${more.failed_count}`);
    else note("bad", `not executed${more.failed_count > 1 ? ` ✕ ${more.failed_count}` : ""} (${[...new Set(more.failed.map((one) => one[2]))].join("/")}): ${more.failed[0][1]}`);
  }
  if (more.activity) note("dim", `${more.activity_count} ${more.activity_count === 1 ? "event" : "events"}`);
  if (more.truncated?.includes("process.args")) note("dim", "cut");
  if (more.incomplete) note("bad", "incomplete");
  if (store.flag("gone", each)) note("dim", "its end was not seen");
  if (store.leadsTo.has(each)) note("user", `to ${store.sessions[store.leadsTo.get(each)].host}`);
  if (row.hidden) note("dim", `${row.hidden} below`);
  return notes;
}

function toggle(index, open) {
  const row = treeRows.rows[index];
  if (!row || row.open === undefined || row.open === open) return;
  const set = row.group.length > 1 ? state.unfolded : state.closed;
  if (set.has(row.process)) set.delete(row.process);
  else set.add(row.process);
  drawTree();
  treeRows.select(index);
}

function chooseRow(index) {
  const row = treeRows.rows[index];
  if (!row) return;
  treeRows.select(index);
  if (row.process !== undefined) chooseProcess(row.process, false, index);
}

function chooseProcess(process, reveal, index) {
  state.process = process;
  if (process < 0) {
    find("details").replaceChildren();
    return;
  }
  if (reveal) {
    for (const above of store.ancestors(process)) state.closed.delete(above);
    drawTree();
    let place = treeRows.rows.findIndex((row) => row.process === process && row.group.length === 1);
    if (place < 0) {
      const group = treeRows.rows.find((row) => row.group?.includes(process));
      if (group) {
        state.unfolded.add(group.process);
        drawTree();
        place = treeRows.rows.findIndex((row) => row.process === process && row.group.length === 1);
      }
    }
    treeRows.select(place, true);
  } else {
    treeRows.select(index ?? treeRows.rows.findIndex((row) => row.process === process));
  }
  timeline.mark(store.columns.start[process]);
  drawDetails(process);
  address(process);
}

// Put the process into the address. Browsers refuse hundreds of changes a second, which a key that is held makes.
let addressed = -Infinity;
let addressing = 0;
function address(process) {
  clearTimeout(addressing);
  const wait = addressed + 300 - performance.now();
  if (wait > 0) {
    addressing = setTimeout(() => address(process), wait);
    return;
  }
  addressed = performance.now();
  history.replaceState(null, "", linkTo(process));
}

function linkTo(process) {
  const link = new URL(location.href);
  link.hash = encodeURIComponent(store.columns.id[process]);
  return link.href;
}

// Go to a process wherever it is; filters that hide it are given up.
function goTo(process) {
  if (state.only) setOnly("");
  state.range = null;
  openSession(store.columns.session[process], process);
}

// --- details ---

function drawDetails(process) {
  const copy = (what, text) => {
    const button = element("button", { type: "button", "aria-label": `copy ${what}`, text: what });
    button.addEventListener("click", () => copyText(text(), `copy ${what}`));
    return button;
  };
  const parts = [
    element("h2", { text: printable(store.command(process), 65536) }),
    element("div", { className: "buttons" }, "copy", copy("command", () => shellQuoted(store.args(process))), copy("text", () => asText(store, process)), copy("JSON", () => asJson(store, process)), copy("link", () => linkTo(process))),
  ];
  for (const [title, facts] of factsOf(store, process)) {
    if (!facts.length) continue;
    const list = element("dl");
    for (const [name, value, from, to] of facts) {
      const shown = element("dd");
      if (to >= 0) {
        const link = element("button", { type: "button", className: "link", text: printable(value, 400) });
        link.addEventListener("click", () => goTo(to));
        shown.append(link);
      } else shown.append(printable(value));
      if (from) shown.append(element("span", { className: "source", text: `  ${printable(from)}` }));
      list.append(element("dt", { text: printable(name, 40) }), shown);
    }
    parts.push(element("h3", { text: title }), list);
  }
  find("details").replaceChildren(...parts);
  find("details").scrollTop = 0;
}

async function copyText(text, label) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(label.replace("copy ", "copied "));
}

let silence = 0;
function say(text) {
  find("said").textContent = text;
  clearTimeout(silence);
  silence = setTimeout(() => (find("said").textContent = ""), 2500);
}

// --- search and filters ---

function searchNow() {
  const { found, error } = search(store, find("query").value);
  Object.assign(state, { matches: found, found: new Set(found), match: -1, perSession: new Map() });
  for (const each of found) {
    const number = store.columns.session[each];
    state.perSession.set(number, (state.perSession.get(number) ?? 0) + 1);
  }
  find("count").textContent = error || (find("query").value.trim() ? (found.length ? `${found.length} found` : "none") : "");
  // While one searches, the list has the sessions with something found.
  order = listed(found.length ? (number) => state.perSession.has(number) : () => true);
  sessionRows.set(order);
  sessionRows.select(order.indexOf(state.session));
  treeRows.refresh();
}

function listed(wanted) {
  return store.sessions.map((_, number) => number).reverse().filter(wanted);
}

function nextMatch(step) {
  const count = state.matches.length;
  if (!count) return;
  if (state.match < 0) {
    // From where one is, not from the beginning.
    const now = state.process >= 0 ? store.columns.start[state.process] : 0;
    const after = state.matches.findIndex((each) => each !== state.process && store.columns.start[each] >= now);
    state.match = step > 0 ? (after < 0 ? 0 : after) : (after < 0 ? count : after) - 1;
    if (state.match < 0) state.match = count - 1;
  } else state.match = (state.match + step + count) % count;
  find("count").textContent = `${state.match + 1} of ${count}`;
  goTo(state.matches[state.match]);
}

function setOnly(only) {
  state.only = state.only === only ? "" : only;
  for (const each of document.querySelectorAll("[data-only]")) each.setAttribute("aria-pressed", String(each.dataset.only === state.only));
  drawTree();
}

function setRange(range) {
  state.range = range;
  drawTree();
}

// Let the range begin (side 0) or end (side 1) where the chosen process started.
function limitRange(side) {
  if (state.process < 0) return;
  const range = [...(state.range ?? [timeline.from, timeline.to])];
  range[side] = store.columns.start[state.process];
  timeline.range = range.sort((one, other) => one - other);
  timeline.draw();
  setRange(timeline.range);
}

const timeline = new Timeline(find("density"), find("span"), setRange);
for (const each of document.querySelectorAll("[data-only]")) each.addEventListener("click", () => setOnly(each.dataset.only));
let waiting = 0;
find("query").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(searchNow, 120);
});
find("search").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(waiting);
  if (state.match < 0) searchNow();
  nextMatch(1);
});

// --- panes on a narrow screen ---

function pane(name) {
  document.body.dataset.pane = name;
  for (const each of document.querySelectorAll("[data-pane]")) if (each !== document.body) each.setAttribute("aria-current", String(each.dataset.pane === name));
  sessionRows.show();
  treeRows.show();
}
for (const each of find("panes").children) each.addEventListener("click", () => pane(each.dataset.pane));
find("tree").addEventListener("dblclick", () => pane("details"));

// --- keys ---

const KEYS = [
  ["↑ ↓  j k", "previous, next row"],
  ["PageUp PageDown", "so many rows as are in sight"],
  ["Home End", "first, last row"],
  ["← →  h l", "close or go to what forked it, open or go into it"],
  ["Enter", "open or close"],
  ["[ ]", "previous, next session"],
  ["/", "search"],
  ["n N", "next, previous found process"],
  ["t f r", "only what was typed, failed, ran as root"],
  ["- +", "close the deepest level, open one more"],
  ["1 … 9", "open so many levels"],
  ["0  *", "close all, open all"],
  ["< >", "show only what ran since, until the chosen process"],
  ["c x y u", "copy the command line, the text, the JSON, the link"],
  ["Esc", "give up range, search, filter"],
  ["?", "this help"],
];
const SEARCHES = [
  ["word", "in any field"],
  ["user:ann host:web1 from:198.51.100.7", "as whom, where, from which address"],
  ["exit:0 exit:!0 signal:SIGKILL", "how it ended"],
  ["path:/usr arg:shadow dir:/etc name:sudo", "what it executed"],
  ["file:passwd pid:4711 id:… type:sshd", "what it touched; which it is; how it came"],
  ["container:… unit:… group:… cap:… tag:…", "what is around it; its rights; keys of audit rules"],
  ["is:typed is:failed is:root is:running is:raised", "what it is; raised: with more rights than its parent"],
  ["rule:T1059 is:found", "findings of sessiond detect"],
  ['-word -user:root "two words"', "not this; words with blanks"],
];

function help() {
  const list = (pairs) => element("dl", {}, ...pairs.flatMap(([name, meaning]) => [element("dt", { text: name }), element("dd", { text: meaning })]));
  const close = element("button", { type: "button", text: "close" });
  close.addEventListener("click", () => find("help").close());
  find("help").replaceChildren(element("h2", { text: "Keys" }), list(KEYS), element("h2", { text: "Search" }), list(SEARCHES), close);
  find("help").showModal();
}
find("help-button").addEventListener("click", help);

function moveInto(index) {
  const row = treeRows.rows[index];
  if (row?.open === false) toggle(index, true);
  else if (row?.open) chooseRow(index + 1);
}

function moveOut(index) {
  const row = treeRows.rows[index];
  if (!row) return;
  if (row.open) return toggle(index, false);
  for (let above = index - 1; above >= 0; above--) if (treeRows.rows[above].depth < row.depth) return chooseRow(above);
}

function moveSession(step) {
  const place = Math.min(order.length - 1, Math.max(0, order.indexOf(state.session) + step));
  openSession(order[place]);
}

function setLevel(level) {
  state.closed = closedBelow(store, store.sessions[state.session], level);
  state.unfolded = new Set();
  drawTree();
}

// Close the deepest level in sight, or open one more.
function stepLevel(step) {
  if (state.session < 0) return;
  setLevel(Math.max(0, treeRows.rows.reduce((most, row) => Math.max(most, row.depth), 0) + step));
}
find("close-level").addEventListener("click", () => stepLevel(-1));
find("open-level").addEventListener("click", () => stepLevel(1));

const page = () => Math.max(1, Math.floor(find("tree").clientHeight / 24) - 1);
const onSessions = () => document.activeElement === find("session-list");
const ACTIONS = {
  ArrowDown: () => (onSessions() ? moveSession(1) : chooseRow(Math.min(treeRows.rows.length - 1, treeRows.chosen + 1))),
  ArrowUp: () => (onSessions() ? moveSession(-1) : chooseRow(Math.max(0, treeRows.chosen - 1))),
  PageDown: () => chooseRow(Math.min(treeRows.rows.length - 1, treeRows.chosen + page())),
  PageUp: () => chooseRow(Math.max(0, treeRows.chosen - page())),
  Home: () => chooseRow(0),
  End: () => chooseRow(treeRows.rows.length - 1),
  ArrowRight: () => moveInto(treeRows.chosen),
  ArrowLeft: () => moveOut(treeRows.chosen),
  Enter: () => toggle(treeRows.chosen),
  "/": () => find("query").focus(),
  n: () => nextMatch(1),
  N: () => nextMatch(-1),
  "[": () => moveSession(-1),
  "]": () => moveSession(1),
  t: () => setOnly("typed"),
  f: () => setOnly("failed"),
  r: () => setOnly("root"),
  "-": () => stepLevel(-1),
  "+": () => stepLevel(1),
  0: () => setLevel(0),
  "*": () => setLevel(Infinity),
  c: () => state.process >= 0 && copyText(shellQuoted(store.args(state.process)), "copy command"),
  x: () => state.process >= 0 && copyText(asText(store, state.process), "copy text"),
  y: () => state.process >= 0 && copyText(asJson(store, state.process), "copy JSON"),
  u: () => state.process >= 0 && copyText(linkTo(state.process), "copy link"),
  "<": () => limitRange(0),
  ">": () => limitRange(1),
  "?": help,
};
Object.assign(ACTIONS, { j: ACTIONS.ArrowDown, k: ACTIONS.ArrowUp, l: ACTIONS.ArrowRight, h: ACTIONS.ArrowLeft });
for (let level = 1; level <= 9; level++) ACTIONS[level] = () => setLevel(level);

function escape() {
  if (state.range) {
    timeline.range = null;
    timeline.draw();
    setRange(null);
  } else if (find("query").value) {
    find("query").value = "";
    searchNow();
  } else if (state.only) setOnly(state.only);
  find("tree").focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || find("help").open) return;
  if (event.key === "Escape") return escape();
  if (event.target === find("query")) return;
  if (event.key === "Enter" && event.target.closest("button")) return;
  const action = Object.hasOwn(ACTIONS, event.key) ? ACTIONS[event.key] : null;
  if (!action || state.session < 0) return;
  event.preventDefault();
  action();
});

// --- begin, and news ---

function begin() {
  order = listed(() => true);
  sessionRows.set(order);
  if (!order.length) {
    find("tree").append(element("p", { className: "empty", text: "No session is in these events." }));
    return;
  }
  const wanted = store.number(decodeURIComponent(location.hash.slice(1)));
  // Sessions of people come first: users mostly look for these.
  const first = wanted >= 0 ? store.columns.session[wanted] : order.find((each) => store.sessions[each].kind === "sshd" || store.flag("interactive", store.sessions[each].first)) ?? order[0];
  openSession(first, wanted);
  if (wanted < 0) pane("sessions");
  document.title = `Sessions on ${[...new Set(store.sessions.map((each) => each.host))].slice(0, 3).map((each) => printable(each, 40)).join(", ")}`;
}
addEventListener("hashchange", () => {
  const wanted = store.number(decodeURIComponent(location.hash.slice(1)));
  if (wanted >= 0 && wanted !== state.process) goTo(wanted);
});
begin();

function replace(data) {
  const keep = { process: store.columns.id[state.process], session: store.sessions[state.session]?.id };
  const ids = (numbers) => [...numbers].map((each) => store.columns.id[each]);
  const closed = ids(state.closed);
  const unfolded = ids(state.unfolded);
  store = new Store(data);
  order = listed(() => true);
  sessionRows.set(order);
  const known = (list) => new Set(list.map((each) => store.number(each)).filter((each) => each >= 0));
  Object.assign(state, { closed: known(closed), unfolded: known(unfolded), process: store.number(keep.process), session: store.sessions.findIndex((each) => each.id === keep.session) });
  if (state.session < 0) return begin();
  const range = state.range;
  timeline.set(store, store.sessions[state.session]);
  timeline.range = range;
  timeline.draw();
  sessionRows.select(order.indexOf(state.session));
  drawTree();
  searchNow();
}

// The live server has more lines; its token is in the address.
async function listen() {
  let version = "";
  for (;;) {
    const begun = performance.now();
    try {
      const answer = await fetch(`data${location.search}`, { headers: version ? { "If-None-Match": version } : {}, cache: "no-store" });
      if (answer.status === 200) {
        const first = !version;
        version = answer.headers.get("ETag") ?? "";
        const data = await answer.json();
        if (!first || data.events !== store.data.events) replace(data);
      } else if (answer.status !== 304) say(`the server says ${answer.status}`);
    } catch {
      say("the server is gone");
      await new Promise((done) => setTimeout(done, 10000));
    }
    // Sending and drawing a large recording takes long: the page stays usable during that.
    await new Promise((done) => setTimeout(done, Math.max(1500, 5 * (performance.now() - begun))));
  }
}
if (source.dataset.live === "1") listen();
