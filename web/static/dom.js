// Elements, built without HTML: what machines, tags and errors say is only ever text.

export function el(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (key in e && typeof value !== "string") e[key] = value;
    else e.setAttribute(key, value === true ? "" : value);
  }
  e.append(...children.flat(Infinity).filter((c) => c !== undefined && c !== null && c !== false));
  return e;
}

export const link = (text, hash) => el("a", { href: hash }, text);

// external is a link to another address, which learns nothing of this one.
export const external = (text, href) => el("a", { href, target: "_blank", rel: "noreferrer noopener" }, text);

const kinds = {
  good: ["running", "available", "completed", "in-use", "succeeded", "ok"],
  bad: ["failed", "error", "crashed", "invalid", "terminated", "deregistered"],
  busy: ["pending", "stopping", "shutting-down", "creating", "attaching", "detaching", "deleting"],
};

export function state(text) {
  const kind = Object.keys(kinds).find((k) => kinds[k].includes(text)) ?? "";
  return el("span", { class: `state ${kind}` }, text ?? "");
}

export const time = (text) => (text ? el("time", { datetime: text }, new Date(text).toLocaleString()) : "");

// facts is a list of names and what they are; what is empty is left out.
export function facts(pairs) {
  return el("dl", {}, pairs.filter(([, v]) => v !== undefined && v !== null && v !== "").map(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]));
}

export function copyButton(text, name = "Copy") {
  return el("button", {
    type: "button",
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(typeof text === "function" ? text() : text);
        say("Copied.");
      } catch {
        say("The browser does not let this page copy: select the text and copy it.", true);
      }
    },
  }, name);
}

// say tells the user something for a few seconds.
export function say(text, bad) {
  const p = el("p", { class: bad ? "bad" : "" }, text);
  document.getElementById("status").append(p);
  setTimeout(() => p.remove(), bad ? 12000 : 5000);
}

// table shows rows. columns are [title, cell of a row]. With "select", rows can be chosen,
// and it hears of the ids that are. It returns an element whose "show" takes rows.
export function table({ label, columns, id, select, none = "There are none." }) {
  const chosen = new Set();
  let rows = [];
  const body = el("tbody");
  const all = select && el("input", { type: "checkbox", "aria-label": "Select all", onchange: () => { choose(all.checked ? rows.map(id) : []); } });
  const box = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    el("table", {}, el("thead", {}, el("tr", {}, select && el("th", { scope: "col" }, all), columns.map(([title]) => el("th", { scope: "col" }, title)))), body));
  function choose(ids) {
    chosen.clear();
    ids.forEach((i) => chosen.add(i));
    draw();
    select(rows.filter((r) => chosen.has(id(r))));
  }
  function draw() {
    const focused = document.activeElement?.dataset?.row;
    body.replaceChildren(...rows.map((r) => {
      const key = id(r);
      return el("tr", { "aria-selected": select ? String(chosen.has(key)) : undefined },
        select && el("td", {}, el("input", {
          type: "checkbox", checked: chosen.has(key), "aria-label": `Select ${key}`, "data-row": key,
          onchange: (e) => choose(e.target.checked ? [...chosen, key] : [...chosen].filter((k) => k !== key)),
        })),
        columns.map(([, cell]) => el("td", {}, cell(r) ?? "")));
    }));
    if (rows.length === 0) body.append(el("tr", {}, el("td", { colspan: String(columns.length + (select ? 1 : 0)), class: "none" }, none)));
    if (focused) body.querySelector(`[data-row="${CSS.escape(focused)}"]`)?.focus();
    if (all) all.checked = rows.length > 0 && rows.every((r) => chosen.has(id(r)));
  }
  box.show = (next) => {
    rows = next;
    const there = new Set(rows.map(id));
    [...chosen].forEach((k) => there.has(k) || chosen.delete(k));
    draw();
    if (select) select(rows.filter((r) => chosen.has(id(r))));
  };
  return box;
}
