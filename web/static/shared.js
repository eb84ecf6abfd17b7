import { el, enable } from "./dom.js";
import { list } from "./api.js";

export const tagsList = (row) => (list(row.tagSet).length ? el("ul", {}, list(row.tagSet).map((t) => el("li", {}, `${t.key} = ${t.value}`))) : "");

// pages walks through what an action describes, a page at a time, so that long lists stay
// quick. "fetch" takes NextToken and returns [rows, next token].
export function pages(table, fetch) {
  let tokens = [undefined];
  const back = el("button", { disabled: true, onclick: () => { tokens.pop(); show(); } }, "Previous page");
  const on = el("button", { disabled: true, onclick: () => { tokens.push(next); show(); } }, "Next page");
  const number = el("span", { "aria-live": "polite" });
  let next;
  async function show() {
    const [rows, token] = await fetch(tokens.at(-1));
    next = token;
    table.show(rows);
    enable(back, tokens.length > 1);
    enable(on, next);
    back.hidden = on.hidden = tokens.length === 1 && !next;
    number.textContent = tokens.length > 1 || next ? `Page ${tokens.length}` : "";
  }
  return { bar: [back, on, number], show, again: () => { tokens = [undefined]; return show(); } };
}

// later calls f when nobody has called for a while.
export function later(f, ms = 300) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(f, ms);
  };
}
