// Everything that is known of one process, as facts with their sources, and as text and JSON.

import { printable, safeJson, whole, clock, lasted, plural } from "./text.js";

// Sections of facts: [title, [[name, value, source, process number to go to or -1]]].
export function factsOf(store, process) {
  const { columns } = store;
  const more = store.more(process);
  const text = (name) => store.text(name, process);
  const session = store.sessions[columns.session[process]];
  const happened = [];
  for (const [time, executable, args, user] of more.images ?? []) happened.push([time, `executed ${executable}: ${args.join(" ")}, as ${user}`, text("providers")]);
  if (!more.images && columns.exec[process]) happened.push([columns.exec[process], `executed ${text("executable")}`, text("providers")]);
  for (const [time, path, error] of more.failed ?? []) happened.push([time, `could not execute ${path}: ${error || "it failed"}`, "auditd"]);
  for (const [time, action, what, outcome] of more.activity ?? []) happened.push([time, `${action} ${what}${outcome === "failure" ? " (failure)" : ""}`, "auditd"]);
  if (columns.end[process]) {
    const how = more.signal ? `ended by ${more.signal}${store.flag("core", process) ? ", core dumped" : ""}` : columns.exit[process] < 0 ? "ended" : `ended with exit code ${columns.exit[process]}`;
    happened.push([columns.end[process], `${how} after ${lasted(columns.start[process], columns.end[process])}`, text("end_providers")]);
  }
  happened.sort((one, other) => one[0] - other[0]);
  if (columns.start[process]) happened.unshift([columns.start[process], "was forked", store.flag("seen", process) ? text("providers") : "told with others"]);
  if (store.flag("older", process)) happened.unshift([0, "was there before sessiond listened", ""]);
  const history = happened.map(([time, what, source]) => [whole(time).slice(11) || "earlier", what, source, -1]);
  for (const [name, kept] of [["images", "executed programs"], ["failed", "failed executions"], ["activity", "events"]]) {
    const further = (more[`${name}_count`] ?? 0) - (more[name] ?? []).length;
    if (further > 0) history.push(["", `${further} further ${kept}, not kept`, "", -1]);
  }
  const other = (name, than) => (text(name) === text(than) ? "" : text(name));
  const capabilities = text("capabilities").split(" ").filter(Boolean);
  const known = [
    ["pid", `${columns.pid[process] || "?"}${more.vpid ? ` (${more.vpid} in its namespace)` : ""}`],
    ["host", text("host")],
    ["executable", text("executable")],
    ["arguments", `${more.args_count ?? store.args(process).length}`],
    ["title", text("title") === store.command(process) ? "" : text("title"), "auditd"],
    ["user", text("user")],
    ["real user", other("real_user", "user")],
    ["saved user", other("saved_user", "user")],
    ["login user", text("login_user"), "kept since the login"],
    ["audit session", text("audit_session"), "kept since the login"],
    ["group", text("group_name")],
    ["real group", other("real_group", "group_name")],
    ["saved group", other("saved_group", "group_name")],
    ["other groups", other("groups", "group_name")],
    ["capabilities", capabilities.length > 38 ? "all" : capabilities.join(" ")],
    ["directory", text("directory")],
    ["terminal", text("tty")],
    ["container", text("container"), "its control group"],
    ["pod", text("pod"), "its control group"],
    ["unit", text("unit"), "its control group"],
    ["labels", text("labels"), "the configuration"],
    ["audit keys", text("tags"), "auditd"],
    ["entity id", columns.id[process]],
  ].map(([name, value, source = ""]) => [name, value, source, -1]);
  const named = (each) => `${store.command(each)} (pid ${columns.pid[each] || "?"}${store.text("user", each) ? `, ${store.text("user", each)}` : ""})`;
  const origin = store.ancestors(process).map((each) => ["forked by", named(each), store.flag("seen", each) ? "" : "told with others", each]);
  if (more.reparented) origin.push(["parent now", `pid ${more.reparented}`, "", -1]);
  for (const [name, column] of [["group leader", "group"], ["session leader", "leader"]]) {
    const leader = columns[column][process];
    if (leader >= 0) origin.push([name, leader === process ? "itself" : named(leader), "", leader === process ? -1 : leader]);
  }
  origin.push(["entry", session.leader === process ? `itself, by ${session.by}` : `${session.leader >= 0 ? named(session.leader) : "?"}, by ${session.by}`, "the entry rules", session.leader === process ? -1 : session.leader]);
  if (session.origin >= 0) origin.push(["came by", `${named(session.origin)} on ${store.text("host", session.origin)}`, "inferred: address and time", session.origin]);
  if (store.leadsTo.has(process)) {
    const there = store.sessions[store.leadsTo.get(process)];
    origin.push(["leads to", `${there.by} on ${there.host}`, "inferred: address and time", there.leader]);
  }
  const unknown = (more.incomplete ?? []).map((words) => ["incomplete", words, "sessiond", -1]);
  if (more.truncated) unknown.push(["cut", more.truncated.join(", "), "a limit", -1]);
  if (store.flag("gone", process)) unknown.push(["end", "it ended while nobody listened", "inferred", -1]);
  if (!store.flag("seen", process)) unknown.push(["events", "none of its own: it is known as a relative of others", "", -1]);
  for (const loss of store.lossesOf(session)) {
    if (loss.end >= columns.start[process] && (!columns.end[process] || loss.start <= columns.end[process])) unknown.push(["lost then", loss.text, loss.hop, -1]);
  }
  return [
    [`What happened${columns.start[process] ? `, ${whole(columns.start[process]).slice(0, 10)}` : ""}`, history],
    ["As whom and where", known],
    ["Where it came from", origin],
    ["Findings", (more.findings ?? []).map(([time, rule, level, techniques]) => [level || "finding", `${rule} ${techniques.join(" ")}`.trim(), clock(time), -1])],
    ["What is not known", unknown],
  ].map(([title, facts]) => [title, facts.filter(([, value]) => value)]);
}

export function asText(store, process) {
  const sections = factsOf(store, process).filter(([, facts]) => facts.length);
  return [printable(store.command(process), 65536), ...sections.map(([title, facts]) => `\n${title}\n` + facts.map(([name, value, source]) => `  ${printable(name, 40)}  ${printable(value, 65536)}${source ? `  (${printable(source)})` : ""}`).join("\n"))].join("\n") + "\n";
}

export function asJson(store, process) {
  const { columns } = store;
  const members = {};
  for (const name of Object.keys(columns)) {
    const value = columns[name][process];
    if (name === "alike") continue; // a number of this page's alone
    if (["parent", "group", "leader"].includes(name)) members[name] = value < 0 ? undefined : columns.id[value];
    else if (["start", "end", "last", "exec"].includes(name)) members[name] = value ? new Date(value / 1000).toISOString() : undefined;
    else if (name === "session") members[name] = store.sessions[value].id;
    else if (name === "exit") members.exit_code = value < 0 ? undefined : value;
    else if (name === "flags") for (const flag of ["typed", "interactive", "older", "gone"]) members[flag] = store.flag(flag, process) || undefined;
    else if (name === "args") members[name] = store.args(process);
    else if (["id", "pid"].includes(name)) members[name] = value;
    else members[name] = store.text(name, process) || undefined;
  }
  return safeJson({ ...members, ...store.more(process) }) + "\n";
}

export function summaryOf(store, session) {
  const parts = [`by ${session.by} on ${session.host}`, session.running ? "still there" : lasted(session.start, session.end), plural(session.count, "process", "processes")];
  if (session.failed) parts.push(`${session.failed} failed`);
  if (session.root) parts.push("became root");
  const lost = store.lossesOf(session).length;
  if (lost) parts.push(plural(lost, "loss", "losses"));
  const found = store.foundIn.get(store.sessions.indexOf(session));
  if (found) parts.push(plural(found, "finding", "findings"));
  return parts.join(", ");
}
