// Shows what the server serves, by what it says of itself, and calls it. Text comes from the server: it is only ever set
// as text, never as HTML.
"use strict";

const MAX_SHOWN = 200000; // characters of an answer
const MAX_INDENT = 3; // levels of an answer that get lines of their own
const MAX_DEPTH = 4; // levels of an example that is made of a schema

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function find(id) {
  return document.getElementById(id);
}

class Unauthorized extends Error {}

async function getJson(path) {
  const answer = await fetch(path, { headers: authorization() });
  if (answer.status === 401) throw new Unauthorized();
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

function authorization() {
  const token = find("token").value.trim();
  return token ? { authorization: `Bearer ${token}` } : {};
}

// -- schemas ----------------------------------------------------------------------------------------------------------

function resolve(api, value) {
  let found = value;
  while (found && found.$ref) {
    found = found.$ref.slice(2).split("/").reduce((at, key) => at[key], api);
  }
  return found || {};
}

// A value that fits a schema, to begin with.
function sample(api, given, depth = 0) {
  const schema = resolve(api, given);
  if (schema.example !== undefined) return schema.example;
  if (schema.examples) return schema.examples[0];
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf) return sample(api, schema.anyOf[0], depth);
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  if (type === "object") {
    const made = {};
    if (depth >= MAX_DEPTH) return made;
    // Of fields that exclude each other the first.
    const chosen = new Set();
    const left = new Set();
    for (const group of schema.allOf || []) {
      const names = (group.oneOf || []).flatMap((each) => each.required || []);
      names.forEach((name, number) => (number ? left : chosen).add(name));
    }
    for (const [name, property] of Object.entries(schema.properties || {})) {
      if (!left.has(name)) made[name] = sample(api, property, depth + 1);
    }
    return made;
  }
  if (type === "array") return depth >= MAX_DEPTH ? [] : [sample(api, schema.items || {}, depth + 1)];
  if (type === "boolean") return true;
  if (type === "integer" || type === "number") return type === "number" ? 0.5 : 0;
  if (type === "string") return schema.format === "int64" || schema.format === "uint64" ? "0" : "";
  return null;
}

function describe(api, given) {
  const schema = resolve(api, given);
  if (schema["x-tensor"]) return `${schema["x-tensor"].type} [${schema["x-tensor"].shape.map((size) => (size < 0 ? "any" : size)).join(", ")}]`;
  if (given.$ref) return given.$ref.split("/").pop();
  if (schema.items) return `array of ${describe(api, schema.items)}`;
  if (schema.anyOf) return schema.anyOf.map((each) => describe(api, each)).join(" or ");
  return [schema.type || "any"].flat().join(" or ");
}

// -- calls ------------------------------------------------------------------------------------------------------------

function fieldsTable(api, title, schema) {
  const rows = Object.entries(resolve(api, schema).properties || {}).map(([name, property]) =>
    element("tr", {}, element("td", {}, element("code", { textContent: name })), element("td", { textContent: describe(api, property) })));
  if (!rows.length) return "";
  const head = element("thead", {}, element("tr", {}, element("th", { textContent: title }), element("th", { textContent: "type" })));
  return element("table", {}, head, element("tbody", {}, ...rows));
}

// The schema of what is of interest in a request: for servables' methods an instance.
function innerSchema(api, schema) {
  const properties = resolve(api, schema).properties || {};
  return properties.instances ? properties.instances.items : schema;
}

// A line of JSON for each instance, or indented where there is none.
function write(value, lines) {
  if (lines) return JSON.stringify(value);
  if (value && Array.isArray(value.instances)) {
    return `{"instances": [\n${value.instances.map((each) => "  " + JSON.stringify(each)).join(",\n")}\n]}`;
  }
  return JSON.stringify(value, null, 2);
}

async function show(answer, status, output, began) {
  const told = () => {
    const seconds = (performance.now() - began) / 1000;
    status.textContent = `${answer.status} ${answer.statusText}, ${seconds.toFixed(3)} s, request ${answer.headers.get("x-request-id") || ""}`;
    status.className = answer.ok ? "good" : "bad";
  };
  told();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const lines = (answer.headers.get("content-type") || "").includes("ndjson");
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    text = (text + part.value).slice(0, MAX_SHOWN);
    if (lines) output.textContent = text;
    told();
  }
  output.textContent = (lines ? text : indent(text)) + (text.length >= MAX_SHOWN ? "\n…" : "");
}

// JSON with lines and indentation. Its text, not its value: a number would not be written as it came.
function indent(text) {
  let made = "";
  let depth = 0;
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"?|[[\]{}]|[^"[\]{},]+|,/g)) {
    if ("]}".includes(token) && --depth < MAX_INDENT) made += "\n" + " ".repeat(2 * Math.max(depth, 0));
    made += token;
    if ("[{".includes(token)) depth += 1;
    if ("[{,".includes(token) && depth <= MAX_INDENT) made += "\n" + " ".repeat(2 * depth);
  }
  return made;
}

function operationForm(api, path, verb, operation) {
  const form = element("form", {});
  const content = Object.entries((operation.requestBody || {}).content || {})[0];
  const parameters = (operation.parameters || []).map((each) => resolve(api, each));
  let body = null;
  if (content) {
    const [type, media] = content;
    const lines = type.includes("ndjson");
    form.append(fieldsTable(api, "input", innerSchema(api, media.schema)));
    const value = media.example !== undefined ? media.example : sample(api, media.schema);
    body = element("textarea", { value: write(value, lines), spellcheck: false });
    form.append(element("label", { className: "wide" }, lines ? "Messages, one on each line" : "Body", body));
  }
  const inputs = parameters.map((parameter) => {
    const input = element("input", { required: Boolean(parameter.required), name: parameter.name, placeholder: parameter.name, title: parameter.description || "" });
    form.append(element("label", { className: "wide" }, `${parameter.name} `, input));
    return [parameter, input];
  });
  const send = element("button", { type: "submit", textContent: "Send" });
  const status = element("p", { className: "muted" });
  const output = element("pre", { hidden: true });
  form.append(send, status, output);
  let running = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) {
      running.abort();
      return;
    }
    running = new AbortController();
    send.textContent = "Cancel";
    output.textContent = "";
    output.hidden = false;
    try {
      let target = `.${path}`; // The page may lie behind a prefix: paths are taken from where it is.
      const headers = authorization();
      for (const [parameter, input] of inputs) {
        if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
        else if (input.value) headers[parameter.name] = input.value;
      }
      const options = { method: verb.toUpperCase(), headers, signal: running.signal };
      if (body) {
        headers["content-type"] = content[0];
        options.body = body.value;
      }
      const began = performance.now();
      await show(await fetch(target, options), status, output, began);
    } catch (error) {
      status.textContent = String(error);
      status.className = "bad";
    } finally {
      running = null;
      send.textContent = "Send";
    }
  });
  return form;
}

function operationDetails(api, path, verb, operation) {
  const details = element("details", { id: `call-${operation.operationId}` });
  details.append(element("summary", {},
    element("span", { className: "verb", textContent: verb.toUpperCase() }),
    element("span", { className: "path", textContent: decodeURI(path) }),
    element("span", { className: "about", textContent: operation.summary || "" })));
  // A form is made when it is asked for: there may be thousands.
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(operationForm(api, path, verb, operation));
  });
  return details;
}

function showOperations(api) {
  const groups = new Map((api.tags || []).map((tag) => [tag.name, []]));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const [verb, operation] of Object.entries(item)) {
      const tag = (operation.tags || ["Server"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operationDetails(api, path, verb, operation));
    }
  }
  const children = [];
  for (const [tag, made] of groups) {
    if (made.length) children.push(element("h3", { textContent: tag }), ...made);
  }
  find("operations").replaceChildren(...children);
}

function showServables(servables) {
  const row = (name, which, workers, served) => element("tr", {},
    element("td", { textContent: name }),
    element("td", { textContent: which }),
    element("td", { textContent: served.ready ? workers : "not ready", className: served.ready ? "good" : "bad" }),
    element("td", { textContent: [
      ...served.methods.map((method) => `${method.name}(${method.inputs.join(", ")}) → ${method.outputs.join(", ")}`),
      ...served.services,
    ].join("; ") }));
  const rows = servables.flatMap((servable) => [
    ...(servable.variations ? [row(servable.name, `split: ${servable.variations.map((each) => each.name).join(", ")}`, "ready", servable)] : []),
    ...servable.versions.map((version) => row(servable.name, String(version.version), String(version.workers), version)),
  ]);
  if (!rows.length) rows.push(element("tr", {}, element("td", { colSpan: 4, className: "muted", textContent: "none" })));
  find("servables").tBodies[0].replaceChildren(...rows);
}

async function refresh() {
  const problem = find("problem");
  try {
    const [api, served] = await Promise.all([getJson("openapi.json"), getJson("servables")]);
    showServables(served.servables);
    showOperations(api);
    problem.hidden = true;
  } catch (error) {
    problem.textContent = error instanceof Unauthorized ? tokenNeeded() : String(error);
    problem.hidden = false;
  }
}

// What is shown is for those who have a token: nothing is left of what a better one has shown.
function tokenNeeded() {
  find("servables").tBodies[0].replaceChildren();
  find("operations").replaceChildren();
  find("token").focus();
  const given = find("token").value.trim() !== "";
  return given
    ? "The server does not take this token: it has expired, or is not one of its own. POST /token gives one for a consumer key and its secret."
    : "The server asks who you are: put a token into the field above. POST /token gives one for a consumer key and its secret.";
}

find("refresh").addEventListener("click", refresh);
find("token").addEventListener("change", refresh);
refresh();
