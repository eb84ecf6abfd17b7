// What bakes do and did: their steps as a timeline, their output, their images.
import { el, link, external, state, time, facts, table, changes, replace } from "./dom.js";
import { list, session } from "./api.js";
import { later } from "./shared.js";

const seconds = (ns) => `${(ns / 1e9).toFixed(1)}\u00a0s`;
const imagesOf = (r) => list(r.builds).flatMap((b) => Object.entries(b.images ?? {}));
const imageLink = ([region, id]) => [link(id, `#/images/${id}`), ` ${region} `];
const poll = 3000;

async function get(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(60_000) }); // one that does not come would keep the page from asking again
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

export async function bakes(main) {
  const note = el("p", { class: "error", hidden: true });
  const t = table({
    label: "Bakes", id: (r) => r.run, tells: (r) => [`Bake ${r.run.slice(0, 8)}`, r.state], none: "There are no logs of bakes: bake build -local makes one.",
    columns: [
      ["Run", (r) => el("span", { class: "whole" }, link(r.run.slice(0, 8), `#/bakes/${r.run}`))], ["Result", (r) => state(r.state)], ["Started", (r) => time(r.started)], ["Took", (r) => seconds(r.elapsed)],
      ["Images", (r) => imagesOf(r).map(imageLink)], ["Left", (r) => String(list(r.left_behind).length)], ["Command", (r) => r.command_line],
    ],
  });
  main.append(el("h1", {}, "Bakes"), note, t);
  const show = async () => {
    const r = await get("bakes");
    note.hidden = !r.error;
    note.textContent = r.error ?? "";
    t.show(r.runs);
  };
  const timer = setInterval(() => { document.hidden || show().catch(() => {}); }, poll);
  return Object.assign(show, { close: () => clearInterval(timer) });
}

const maxLines = 5000; // on the page at a time

export async function bake(main, id) {
  const head = el("div"), steps = el("div"), output = el("pre", { class: "output", tabindex: "0", role: "region", "aria-label": "Output" });
  const search = el("input", { type: "search", placeholder: "Lines with", "aria-label": "Show only lines with", oninput: later(() => drawOutput()) });
  const count = el("span", { role: "status" });
  main.append(el("h1", {}, `Bake ${id.slice(0, 8)}`), head, el("h2", {}, "Steps"), steps, el("h2", {}, "Output"), el("div", { class: "bar" }, search, count), output);
  const lines = [], rows = [], open = new Map(), places = new Map(), heard = changes();
  let next = "0-0", begin = 0, last = 0, error, command = "", past = { state: "running" };

  function take(e) {
    const at = Date.parse(e.time);
    begin ||= at;
    last = Math.max(last, at);
    const key = `${e.build ?? ""}\n${e.step ?? ""}`;
    switch (e.kind) {
      case "run-started": command = e.command_line ?? ""; break;
      case "run-finished": error = e.error; break;
      case "build-failed": places.set(e.build, e.place); break;
      case "step-started": // there may be several of one name
        rows.push({ build: e.build, step: e.step ?? "", from: at });
        if (!open.has(key)) open.set(key, []);
        open.get(key).push(rows.at(-1));
        break;
      case "step-finished": case "step-failed": // of several at a time, the first
        Object.assign(open.get(key)?.shift() ?? {}, { to: at, failed: e.kind === "step-failed" });
        break;
    }
    if (["say", "output", "error-output", "warning"].includes(e.kind)) String(e.text ?? "").split("\n").forEach((l) => lines.push(`${e.build ? `${e.build}: ` : ""}${l}`));
    if (e.error) lines.push(`${e.build ? `${e.build}: ` : ""}${e.error}`);
  }

  function drawSteps() {
    const running = past.state === "running", now = running ? Math.max(last, Date.now()) : last; // the page is on the host of the bake
    const span = Math.max(1, now - begin);
    const left = list(past.left_behind);
    replace(head,
      facts([
        ["Result", state(past.state)], ["Started", begin ? time(new Date(begin).toISOString()) : ""], [running ? "Takes" : "Took", begin > 0 && seconds((now - begin) * 1e6)], ["Command", command],
        ["Error", error], ["Left", !running && left.length > 0 && [left.map((r) => `${r.kind} ${r.id ?? r.key} `), "(bake sweep deletes it)"]], ["Damage", past.damage],
        ["Report", !running && external("the report of this run", `bakes/${encodeURIComponent(id)}/report`)],
      ]),
      ...list(past.builds).map((b) => el("div", {}, el("h2", {}, b.name), facts([
        ["Result", state(b.state)], ["Error", b.error], ["At", places.get(b.name)], ["Images", Object.keys(b.images ?? {}).length > 0 && imagesOf({ builds: [b] }).map(imageLink)],
      ]))));
    const bars = (rows) => rows.map((r) => {
      const to = r.to ?? now;
      const bar = el("span", { class: r.failed ? "bad" : r.to || !running ? "" : "busy" });
      bar.style.left = `min(${((r.from - begin) / span) * 100}%, 100% - 2px)`; // where a short one is seen
      bar.style.width = `${((to - r.from) / span) * 100}%`;
      const depth = r.step.split(" > ").length - 1;
      const title = el("span", {}, r.step.split(" > ").at(-1), r.failed && " (failed)");
      title.style.paddingLeft = `${depth}em`;
      return el("li", {}, title, el("span", { class: "number" }, seconds((to - r.from) * 1e6)), el("span", { class: "track", "aria-hidden": "true" }, bar));
    });
    steps.replaceChildren(...[...Map.groupBy(rows, (r) => r.build)].flatMap(([name, its], _, all) => [
      all.length > 1 && el("h3", {}, name ?? "All builds"), el("ol", { class: "steps", "aria-label": `Steps of ${name ?? "all builds"}` }, bars(its)),
    ]).filter(Boolean));
  }

  function drawOutput() {
    const found = search.value ? lines.filter((l) => l.toLowerCase().includes(search.value.toLowerCase())) : lines;
    const shown = found.slice(-maxLines);
    const end = output.scrollTop + output.clientHeight >= output.scrollHeight - 30;
    output.textContent = shown.join("\n");
    if (end) output.scrollTop = output.scrollHeight;
    count.textContent = shown.length < found.length ? `the last ${shown.length} of ${found.length} lines` : `${found.length} lines`;
  }

  let busy = false, more = true; // more: there are events that were not read, if only as the host did not answer
  async function show() {
    if (busy) return;
    busy = true;
    let got = false;
    try {
      do {
        const r = await get(`bakes/${encodeURIComponent(id)}?after=${next}`);
        r.events.forEach(take);
        got ||= r.events.length > 0;
        ({ next, more, past } = r);
        heard([[id, "The bake", past.state]]);
      } while (more);
    } finally {
      busy = false;
      if (next !== "0-0") drawSteps();
      if (got) drawOutput(); // else what is selected in it stays so
    }
  }
  const timer = setInterval(() => { (past.state !== "running" && !more) || document.hidden || show().catch(() => {}); }, 1000);
  return Object.assign(show, { close: () => clearInterval(timer) });
}

export async function events(main) {
  const t = table({
    label: "Events", id: (c) => `${c.time} ${c.action}`, none: "Nothing has been changed since the cloud came up.",
    columns: [["Time", (c) => time(c.time)], ["Action", (c) => c.action], ["Service", (c) => c.service], ["Region", (c) => c.region], ["Account", (c) => session.accounts.find((a) => a.id === c.account)?.profile ?? c.account], ["Error", (c) => (c.code ? `${c.code}: ${c.message}` : "")]],
  });
  main.append(el("h1", {}, "Events"), el("p", {}, "The last calls that changed something or failed, of all clients, newest first."), t);
  return async () => t.show(list(await get("calls")).reverse());
}
