import { announce, el, copyButton, say } from "./dom.js";
import { quote, served, tag, where } from "./api.js";
import { find, loginUser } from "./instances.js";
import { privateKeys } from "./access.js";

export async function connect(main, id) {
  const i = await find(id);
  const user = el("input", { "aria-label": "User", value: await loginUser(i), size: "12", autocomplete: "off", spellcheck: "false" });
  const box = el("div", { class: "terminal", role: "region", "aria-label": "Terminal" });
  const line = () => ["ssh", ...(i.keyName ? ["-i", quote(`./${i.keyName}.pem`)] : []), ...(served(22) === 22 ? [] : ["-p", served(22)]), quote(`${user.value}@${i.ipAddress}`)].join(" ");
  const ssh = el("code", {}, line());
  user.addEventListener("input", () => { ssh.textContent = line(); });
  const file = el("input", { type: "file", "aria-label": "Private key", onchange: async () => { key = (await file.files[0]?.text()) ?? ""; } });
  let key = privateKeys.get(i.keyName) ?? "";
  const button = el("button", { class: "main", onclick: () => open() }, "Connect");
  main.append(el("h1", {}, `Connect to ${tag(i, "Name") || id}`), el("div", { class: "bar" }, el("label", {}, "User ", user), el("label", {}, `Private key${key ? " (that of the key pair is known)" : ""} `, file), button, el("span", {}, "In a shell: ", ssh, " ", copyButton(line))), el("p", { id: "way-out" }, "Tab is for the shell: Ctrl+M leaves the terminal."), box);

  let ws, term;
  const sizes = new ResizeObserver(() => fit());
  let fit = () => {};
  async function open() {
    button.disabled = true;
    const [{ Terminal }, { FitAddon }] = await Promise.all([import("./vendor/xterm.mjs"), import("./vendor/addon-fit.mjs")]);
    if (!document.getElementById("xterm-css")) document.head.append(el("link", { id: "xterm-css", rel: "stylesheet", href: "static/vendor/xterm.css" }));
    term?.dispose();
    term = new Terminal({ cursorBlink: true, screenReaderMode: true });
    const addon = new FitAddon();
    term.loadAddon(addon);
    term.open(box);
    term.textarea.setAttribute("aria-describedby", "way-out");
    term.attachCustomKeyEventHandler((e) => {
      if (e.key === "Tab" && ws.readyState > WebSocket.OPEN) return false; // there is no shell to have it
      // Ctrl+M stands for Enter in terminals, which has a key of its own.
      if (!e.ctrlKey || e.altKey || e.metaKey || e.key.toLowerCase() !== "m") return true;
      e.preventDefault();
      if (e.type === "keydown") user.focus();
      return false;
    });
    const url = new URL(`terminal/${where.account}/${where.region}/${id}?user=${encodeURIComponent(user.value)}`, location.href.replace(/#.*/, ""));
    url.protocol = "ws:";
    ws = new WebSocket(url);
    ws.binaryType = "arraybuffer";
    const encoder = new TextEncoder();
    const send = (data) => { if (ws.readyState === WebSocket.OPEN) ws.send(data); };
    fit = () => {
      addon.fit();
      send(JSON.stringify({ cols: term.cols, rows: term.rows }));
    };
    sizes.observe(box);
    let end;
    ws.onopen = () => {
      send(JSON.stringify({ key }));
      fit();
      term.focus();
    };
    ws.onmessage = (m) => {
      if (typeof m.data === "string") ({ end } = JSON.parse(m.data));
      else term.write(new Uint8Array(m.data));
    };
    term.onData((data) => send(encoder.encode(data)));
    term.onBinary((data) => send(Uint8Array.from(data, (c) => c.charCodeAt(0))));
    ws.onclose = () => {
      term.write(`\r\n[${(end ?? "The connection is closed.").replace(/[^\x20-\x7e]/g, " ")}]\r\n`);
      button.disabled = false;
      announce(end ?? "The connection is closed.");
      if (box.contains(document.activeElement)) button.focus();
    };
    ws.onerror = () => say("The terminal cannot be opened. Twenty can be open at a time.", true);
  }
  if (i.instanceState.name === "running") open();
  else button.disabled = true;
  return Object.assign(async () => {}, { close: () => { sizes.disconnect(); ws?.close(); term?.dispose(); } });
}
