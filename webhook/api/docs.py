"""The page at `/docs`: the OpenAPI document made readable, in one file, with nothing fetched from elsewhere."""

from __future__ import annotations

import base64
import functools
import hashlib

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>webhook API</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0; }
summary { cursor: pointer; padding: .5rem .75rem; }
summary code { font-weight: 600; }
.method { display: inline-block; width: 4.5rem; font: 600 .8rem ui-monospace, monospace; }
.GET { color: #2a7ae2; } .POST { color: #1f9d55; } .PATCH { color: #b7791f; } .DELETE { color: #c53030; }
.body { border-top: 1px solid var(--line); padding: .5rem .75rem 1rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; } td, th { border-bottom: 1px solid var(--line); padding: .25rem .5rem;
  text-align: left; vertical-align: top; } th { font-weight: 600; }
code, pre { font: .85rem/1.4 ui-monospace, monospace; } pre { background: var(--soft); padding: .6rem;
  border-radius: 4px; overflow-x: auto; }
.soft { opacity: .7; }
</style>
<h1>webhook API</h1>
<p class="soft">Every call under <code>/v1</code> takes <code>Authorization: Bearer KEY</code>. The same as a document:
<a href="/openapi.json">/openapi.json</a>.</p>
<main id="main"><noscript>This page needs JavaScript; /openapi.json does not.</noscript></main>
<script>
const make = (tag, text, cls) => {
  const e = document.createElement(tag);
  if (text) e.textContent = text;
  if (cls) e.className = cls;
  return e;
};
const named = ref => ref.split("/").pop();
function kind(s) {
  if (!s) return "";
  if (s.$ref) return named(s.$ref);
  if (s.anyOf) return s.anyOf.map(kind).join(" | ");
  if (s.enum) return s.enum.map(v => JSON.stringify(v)).join(" | ");
  if (s.const !== undefined) return JSON.stringify(s.const);
  if (s.type === "array") return "[" + kind(s.items) + "]";
  return s.type + (s.format ? " (" + s.format + ")" : "");
}
function sample(s, all, depth) {
  if (!s || depth > 6) return null;
  if (s.$ref) return sample(all[named(s.$ref)], all, depth + 1);
  if (s.default !== undefined) return s.default;
  if (s.examples) return s.examples[0];
  if (s.anyOf) return sample(s.anyOf[0], all, depth + 1);
  if (s.enum) return s.enum[0];
  if (s.type === "object") return Object.fromEntries(
    Object.entries(s.properties || {}).map(([k, v]) => [k, sample(v, all, depth + 1)]));
  if (s.type === "array") return [sample(s.items, all, depth + 1)].filter(v => v !== null);
  const text = s.format === "date-time" ? "2026-01-31T12:00:00Z" : "\\u2026";
  return { string: text, integer: 0, number: 0, boolean: true }[s.type] ?? null;
}
function table(rows) {
  const t = make("table");
  for (const cells of rows) {
    const tr = t.appendChild(make("tr"));
    cells.forEach((c, i) => tr.appendChild(make("td")).appendChild(i ? make("span", c) : make("code", c)));
  }
  return t;
}
fetch("/openapi.json").then(r => r.json()).then(doc => {
  const main = document.getElementById("main"), all = doc.components.schemas, groups = {};
  for (const [path, methods] of Object.entries(doc.paths))
    for (const [method, op] of Object.entries(methods))
      (groups[op.tags[0]] ??= []).push([method.toUpperCase(), path, op]);
  for (const [tag, ops] of Object.entries(groups)) {
    main.appendChild(make("h2", tag));
    for (const [method, path, op] of ops) {
      const d = main.appendChild(make("details")), s = d.appendChild(make("summary"));
      s.append(make("span", method, "method " + method), make("code", path), " \\u2014 " + op.summary);
      const b = d.appendChild(make("div", "", "body"));
      b.appendChild(make("p", op.description, "soft"));
      if (op.parameters.length) {
        b.appendChild(make("strong", "Parameters"));
        b.appendChild(table(op.parameters.map(p =>
          [p.name, p.in, kind(p.schema), p.description || p.schema.description || ""])));
      }
      if (op.requestBody) {
        const schema = op.requestBody.content["application/json"].schema;
        b.appendChild(make("strong", "Body: " + kind(schema)));
        b.appendChild(make("pre", JSON.stringify(sample(schema, all, 0), null, 2)));
      }
      b.appendChild(make("strong", "Answers"));
      b.appendChild(table(Object.entries(op.responses).map(([code, r]) =>
        [code, r.description, Object.entries(r.content || {}).map(([t, c]) => t + ": " + kind(c.schema)).join()])));
      const ok = Object.values(op.responses).map(r => r.content && r.content["application/json"]).find(Boolean);
      if (ok) b.appendChild(make("pre", JSON.stringify(sample(ok.schema, all, 0), null, 2)));
    }
  }
});
</script>
</html>
"""


@functools.cache
def page_headers() -> dict[str, str]:
    """Return the page's own policy: its script and its style, known by their hashes, and the document it shows."""
    script, style = (_hash(PAGE.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]) for tag in ("script", "style"))
    policy = f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
    return {"Content-Security-Policy": f"{policy}base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
