// Makes ecs-9.4.0.json, the schema that tests hold documents against, from Elastic's own field list.
//
// Source: the npm package @elastic/ecs, version 9.4.0 (Apache-2.0, https://github.com/elastic/ecs-typescript):
//     npm pack @elastic/ecs@9.4.0 && tar -xzf elastic-ecs-9.4.0.tgz
//     node generate.js package > ecs-9.4.0.json
"use strict";
const path = require("node:path");

const build = path.resolve(process.argv[2], "build", "commonjs");
const { EcsVersion } = require(build);
const { EcsFlat } = require(path.join(build, "ecs_flat.js"));

const fields = {};
const allowed = {};
const patterns = {};
for (const [name, field] of Object.entries(EcsFlat).sort()) {
  fields[name] = field.type + (field.normalize.includes("array") ? "[]" : "");
  // entity.type and its copies aren't categorisation; sessiond writes none of them.
  if (field.allowed_values && name.startsWith("event.")) allowed[name] = field.allowed_values.map((value) => value.name);
  if (field.pattern) patterns[name] = field.pattern;
}
// Field sets that ECS puts in process as a list of objects (schemas/process.yml and schemas/group.yml, `normalize`); the
// package's flat list has only their members.
const lists = Object.keys(fields)
  .map((name) => /^process\.(?:.*\.)?(?:previous|supplemental_groups)(?=\.)/.exec(name)?.[0])
  .filter((name, index, all) => name && all.indexOf(name) === index);
const typesOfCategory = Object.fromEntries(
  EcsFlat["event.category"].allowed_values.map((value) => [value.name, value.expected_event_types]),
);
const schema = { version: EcsVersion, allowed, types_of_category: typesOfCategory, patterns, lists, fields };
const lines = Object.entries(schema).map(([key, value]) =>
  key === "fields"
    ? `"fields": {\n${Object.entries(value).map((pair) => pair.map((part) => JSON.stringify(part)).join(": ")).join(",\n")}\n}`
    : `${JSON.stringify(key)}: ${JSON.stringify(value)}`,
);
console.log(`{\n${lines.join(",\n")}\n}`);
