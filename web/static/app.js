import { el, say } from "./dom.js";
import { ec2, list, session, where } from "./api.js";
import { later } from "./shared.js";
import { instances, instance } from "./instances.js";
import { images, image } from "./images.js";
import { snapshots, snapshot, volumes, volume } from "./storage.js";
import { keys, groups, group, parameters, parameter } from "./access.js";
import { bakes, bake, events } from "./bakes.js";
import { connect } from "./terminal.js";

// A page builds what it shows in an element, and returns what fetches it again. It may
// have a "close", for when another page follows.
const pages = {
  instances: ["Instances", instances, instance], images: ["Images", images, image], snapshots: ["Snapshots", snapshots, snapshot], volumes: ["Volumes", volumes, volume],
  keys: ["Key pairs", keys], groups: ["Security groups", groups, group], parameters: ["Parameters", parameters, parameter], events: ["Events", events], bakes: ["Bakes", bakes, bake],
  connect: [undefined, undefined, connect],
};

const main = document.getElementById("main");
let shown; // what fetches the page again

const complain = (err) => say(err.code ? `${err.code}: ${err.message}` : err.message, true);

async function show() {
  const [, name, ...rest] = location.hash.split("/");
  const page = pages[name] ?? pages.instances;
  let id = rest.join("/");
  try {
    id = decodeURIComponent(id);
  } catch { // it is as it was typed
  }
  shown?.close?.();
  shown = undefined;
  document.querySelectorAll("nav a").forEach((a) => a.toggleAttribute("aria-current", a.dataset.page === name));
  document.querySelector("nav [aria-current]")?.setAttribute("aria-current", "page");
  document.querySelectorAll("dialog").forEach((d) => d.close());
  const body = el("div");
  main.replaceChildren(body);
  document.title = `${id || page[0]} - bake`;
  main.setAttribute("aria-label", id ? `${page[0] ?? "Connect"}: ${id}` : page[0]);
  try {
    const again = await (id ? page[2](body, id) : page[1](body));
    if (body !== main.firstChild) { // another page was asked for meanwhile
      again.close?.();
      return;
    }
    shown = again;
    await again();
  } catch (err) {
    if (body === main.firstChild) body.append(el("p", { class: "error", role: "alert" }, err.code ? `${err.code}: ${err.message}` : err.message));
  }
}

// refresh fetches the page again, once for all that was heard meanwhile.
let fetching; // the page that is being fetched; another one need not wait for it
let missed; // the page that something was heard of since
const refresh = later(async () => {
  const page = shown;
  if (document.hidden || !page) return;
  if (fetching === page) {
    missed = page;
    return;
  }
  fetching = page;
  try {
    await page();
  } catch (err) {
    if (page === shown) complain(err);
  } finally {
    if (fetching === page) fetching = undefined;
    if (missed === page) {
      missed = undefined;
      refresh();
    }
  }
}, 150);

function choice(id, values, key) {
  const select = document.getElementById(id);
  select.replaceChildren(...values.map(([value, text]) => el("option", { value, selected: value === where[key] }, text ?? value)));
  select.onchange = () => {
    where[key] = select.value;
    localStorage.setItem(key, select.value);
    if (location.hash.split("/").length > 2) location.hash = `#/${location.hash.split("/")[1]}`; // what was shown is elsewhere
    else show();
  };
}

document.getElementById("pages").append(...Object.entries(pages).filter(([, [title]]) => title).map(([name, [title]]) => el("li", {}, el("a", { href: `#/${name}`, "data-page": name }, title))));
choice("account", session.accounts.map((a) => [a.id, `${a.profile} (${a.id})`]), "account");
choice("region", [[where.region]], "region");
ec2("DescribeRegions").then((r) => choice("region", list(r.regionInfo).map((i) => [i.regionName]).sort(), "region")).catch(complain);

addEventListener("hashchange", () => { show(); main.focus(); });
document.addEventListener("visibilitychange", refresh);
document.querySelector(".skip").addEventListener("click", (e) => { // its address would be that of another page
  e.preventDefault();
  main.focus();
});
if (location.hash === "") history.replaceState(null, "", "#/instances");

// A browser has six connections to a host for all of its tabs: one tab listens, and tells the
// others. Which one is decided by a lock, that another one gets when that tab is closed.
let lost = false;
function hear(what) {
  if (what === "lost" && !lost) say("The cloud does not answer. Is \"bake cloud up\" still running?", true);
  if (what === "changed" || what === "found" && lost) refresh();
  if (what !== "changed") lost = what === "lost";
}
const tabs = new BroadcastChannel(`bake ${location.pathname}`);
tabs.onmessage = (m) => hear(m.data);
function listen(after) {
  const tell = (what) => () => {
    tabs.postMessage(what);
    hear(what);
  };
  const changes = new EventSource("changes");
  changes.addEventListener("changed", tell("changed"));
  changes.onerror = tell("lost");
  changes.onopen = () => {
    tell("found")();
    if (after) tell("changed")(); // perhaps, while nobody listened
  };
  return new Promise(() => {}); // as long as the tab is there
}
const lock = `bake ${location.pathname}`;
if (!navigator.locks) listen(false); // the page does not come from this host by HTTPS: each tab for itself
else navigator.locks.request(lock, { ifAvailable: true }, (free) => free && listen(false)).then(() => navigator.locks.request(lock, () => listen(true)));

show();
