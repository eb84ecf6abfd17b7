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
  return el("dl", {}, pairs.filter(([, v]) => v !== undefined && v !== null && v !== false && v !== "").map(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]));
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
  const p = el("p", { class: bad ? "bad" : "", role: bad ? "alert" : undefined }, text);
  document.getElementById("status").append(p);
  setTimeout(() => p.remove(), bad ? 12000 : 5000);
}

// announce tells those who hear the page what has changed on it by itself.
export function announce(text) {
  document.getElementById("live").textContent = text;
}

// changes returns what announces the states of things that it was told before with another
// one. It takes [id, name, state] of each.
export function changes() {
  let before = new Map();
  return (all) => {
    const told = all.filter(([id, , is]) => before.has(id) && before.get(id) !== is).map(([, name, is]) => `${name}: ${is}`);
    before = new Map(all.map(([id, , is]) => [id, is]));
    if (told.length > 3) told.splice(3, told.length, `and ${told.length - 3} more have changed`);
    if (told.length) announce(told.join(", "));
  };
}

// finder returns what finds an element again after it was made anew.
export function finder(element, box = document.getElementById("main")) {
  const key = (e) => [e.tagName, e.getAttribute("aria-label"), e.getAttribute("href"), e.textContent].join("\n");
  const same = () => [...box.querySelectorAll(element.tagName)].filter((e) => key(e) === wanted);
  const wanted = key(element), nth = same().indexOf(element);
  return () => (box.contains(element) ? element : same()[nth]);
}

// refocus gives the focus back to what had it, or else to the page, so that it is never lost.
export function refocus(find) {
  const element = find?.();
  if (element && !element.disabled) element.focus({ preventScroll: true });
  else document.getElementById("main").focus();
}

// replace changes what is in an element, and leaves the focus where it was.
export function replace(box, ...children) {
  const active = document.activeElement;
  const find = box !== active && box.contains(active) ? finder(active, box) : undefined;
  box.replaceChildren(...children.flat(Infinity));
  if (find) refocus(find);
}

// enable lets a button be pressed, or not: it does not take the focus with it then.
export function enable(button, yes) {
  const focused = document.activeElement === button;
  button.disabled = !yes;
  if (focused && !yes) refocus();
}

// table shows rows. columns are [title, cell of a row]. With "select", rows can be chosen,
// and it hears of the ids that are. With "tells", which returns name and state of a row, changes
// of states are announced. It returns an element whose "show" takes rows.
export function table({ label, columns, id, select, tells, none = "There are none." }) {
  const chosen = new Set();
  const heard = changes();
  let rows = [];
  const body = el("tbody");
  const all = select && el("input", { type: "checkbox", "aria-label": "Select all", onchange: () => { choose(all.checked ? rows.map(id) : []); } });
  const box = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    el("table", {}, el("thead", {}, el("tr", {}, select && el("th", { scope: "col", class: "pick" }, all), columns.map(([title]) => el("th", { scope: "col" }, title)))), body));
  function choose(ids) {
    chosen.clear();
    ids.forEach((i) => chosen.add(i));
    draw();
    select(rows.filter((r) => chosen.has(id(r))));
  }
  function draw() {
    replace(body, rows.map((r) => {
      const key = id(r);
      return el("tr", { "aria-selected": select ? String(chosen.has(key)) : undefined },
        select && el("td", { class: "pick" }, el("input", {
          type: "checkbox", checked: chosen.has(key), "aria-label": `Select ${key}`,
          onchange: (e) => choose(e.target.checked ? [...chosen, key] : [...chosen].filter((k) => k !== key)),
        })),
        columns.map(([, cell]) => el("td", {}, cell(r) ?? "")));
    }));
    if (rows.length === 0) body.append(el("tr", {}, el("td", { colspan: String(columns.length + (select ? 1 : 0)), class: "none" }, none)));
    if (all) all.checked = rows.length > 0 && rows.every((r) => chosen.has(id(r)));
  }
  box.show = (next) => {
    rows = next;
    const there = new Set(rows.map(id));
    [...chosen].forEach((k) => there.has(k) || chosen.delete(k));
    draw();
    if (tells) heard(rows.map((r) => [id(r), ...tells(r)]));
    if (select) select(rows.filter((r) => chosen.has(id(r))));
  };
  return box;
}
