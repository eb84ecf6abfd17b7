// The tutorial of making an image, done in the console with a browser: launch an instance,
// see the page that it serves, connect to it, make an image of it, launch from that, copy
// it, share it, deregister it, and delete what is left.
//
//   CONSOLE_MODULES=DIRECTORY node tutorial.mjs ADDRESS [PICTURES]
//
// ADDRESS is the one that "bake cloud up" prints. Pictures of the pages, in several widths,
// light and dark, are written to a directory PICTURES. It fails on any error that the
// browser tells, on a request to anywhere else, and on what axe-core calls serious.
import assert from "node:assert/strict";
import { open, step } from "./browser.mjs";

const [address, pictures] = process.argv.slice(2);
const { browser, context, page, wrong, expected, looks, go } = await open(address, pictures);

const dialog = page.locator("dialog[open]");
const row = (text) => page.locator("tbody tr", { hasText: text }).first();
const press = (name) => page.getByRole("main").getByRole("button", { name, exact: true }).click();
const fill = (label, value) => dialog.getByLabel(label, { exact: true }).fill(value);
const submit = async (name) => {
  await dialog.getByRole("button", { name, exact: true }).click();
  await dialog.waitFor({ state: "detached", timeout: 20_000 }).catch(async (e) => { throw new Error(`${name}: ${(await dialog.locator(".error").allInnerTexts()).join(" ")}: ${e.message}`); });
};
const pick = (text) => row(text).getByRole("checkbox").check();

// tab goes on by the keyboard until an element has the focus, and sees that each can be seen
// to have it.
async function tab(target, key = "Tab") {
  for (let n = 0; n < 80; n++) {
    await page.keyboard.press(key);
    const stop = await page.evaluate(() => {
      const e = document.activeElement, style = getComputedStyle(e), own = e.closest(".xterm");
      return { seen: own || e === document.body || style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0, name: e.outerHTML.slice(0, 100) };
    });
    if (!stop.seen) wrong.push(`the focus is not seen on ${stop.name}`);
    if (await target.evaluate((e) => e === document.activeElement)) return;
  }
  throw new Error(`the keyboard does not reach ${target}`);
}
const type = (text) => page.keyboard.type(text);
const focused = (what) => page.waitForFunction((text) => (document.activeElement.id || document.activeElement.textContent) === text, what);
const heard = (text) => page.waitForFunction((t) => document.getElementById("live").textContent.includes(t), text);
const button = (name) => page.getByRole("main").getByRole("button", { name, exact: true });
async function follow(target, key) {
  await tab(target, key);
  await page.keyboard.press("Enter");
}
// reads fails if a screen reader is not told what is there by these roles, names and states.
async function reads(target, ...lines) {
  const tree = await target.ariaSnapshot();
  for (const line of lines) assert.ok(typeof line === "string" ? tree.includes(line) : line.test(tree), `${line} is not in\n${tree}`);
}

step("the address lets in, and its token is not in the one that stays");
assert.equal(page.url().includes("token"), false);

step("a key pair, whose private key is downloaded");
await go("Key pairs");
await press("Create a key pair");
await fill("Name", "tutorial");
const download = page.waitForEvent("download");
await submit("Create");
assert.equal((await download).suggestedFilename(), "tutorial.pem");
await row("tutorial").waitFor();
await looks("keys");

step("a security group that lets HTTP in");
await go("Security groups");
await press("Create a security group");
await fill("Name", "web");
await fill("Description", "lets HTTP in");
assert.match(await dialog.locator("pre").innerText(), /^aws ec2 create-security-group --region us-east-1 --group-name web --description 'lets HTTP in'$/);
await submit("Create");
await page.getByRole("heading", { name: /^sg-/ }).waitFor();
for (const port of ["80", "22"]) {
  await press("Add a rule");
  await fill("From port", port);
  await fill("To port", port);
  await submit("Add");
  await row(port).waitFor();
}
await looks("group");

step("an instance of a public image, with name, type, key pair, group and user data");
await go("Images");
await page.getByLabel("Which images").selectOption("public");
await page.getByLabel("Name contains").fill("debian-12-amd64");
await pick("debian-12-amd64");
await looks("images");
await press("Launch");
await fill("Name", "web");
await dialog.getByLabel("Key pair").selectOption("tutorial");
await dialog.getByLabel("Security group").selectOption({ label: "web: lets HTTP in" });
await fill("User data", "#!/bin/sh\nprintf '\\033]0;<img src=x onerror=alert(2)>\\007\\033[31m<script>alert(3)</script>\\033[2J\\n' >/dev/console\nmkdir -p /srv/web\necho '<h1>Hello from bake</h1>' >/srv/web/index.html\ncd /srv/web && nohup python3 -m http.server 80 >/dev/null 2>&1 &\n");
await looks("launch");
await submit("Launch");
await row("web").getByText("running").waitFor({ timeout: 600_000 }); // the first launch makes the base
await row("web").getByRole("link").first().click();
await page.getByText("Public address").waitFor();
await looks("instance");
const ip = (await page.locator("dd", { has: page.getByRole("button", { name: "Copy" }) }).innerText()).split(" ")[0].trim();
await page.locator("dd").getByRole("button", { name: "Copy", exact: true }).first().click();
assert.equal(await page.evaluate(() => navigator.clipboard.readText()), ip);

step("its console: what it writes there is text");
await page.waitForFunction(() => document.querySelector("pre.output").textContent.includes("<script>alert(3)</script>"));
assert.equal(await page.evaluate(() => /[\x00-\x08\x0b\x0c\x0e-\x1f]/.test(document.querySelector("pre.output").textContent)), false);

step(`the page that it serves at ${ip}`);
const link = await page.getByRole("link", { name: "Open the page it serves" }).getAttribute("href");
assert.equal(new URL(link).hostname, ip);
let served = "";
for (let n = 0; n < 60 && !served.includes("Hello from bake"); n++) {
  served = await fetch(link).then((r) => r.text(), () => "");
  if (!served) await new Promise((r) => setTimeout(r, 1000));
}
assert.match(served, /Hello from bake/);

step("a terminal on it");
await press("Connect");
await page.locator(".xterm").waitFor();
await page.waitForFunction(() => /\$/.test(document.querySelector(".xterm-accessibility-tree")?.textContent ?? ""));
await page.keyboard.type("echo $((6 * 7)) is the answer; printf '\\033]0;<img src=x onerror=alert(1)>\\007'; sudo cat /srv/web/index.html\n");
await page.waitForFunction(() => /42 is the answer[\s\S]*Hello from bake/.test(document.querySelector(".xterm-accessibility-tree")?.textContent ?? ""));
await looks("terminal");
await page.locator(".xterm").click();
await page.keyboard.type("exit\n");
await page.waitForFunction(() => /The session has ended/.test(document.querySelector(".xterm-accessibility-tree")?.textContent ?? ""));

step("an image of it: name, description, no reboot, tags");
await go("Instances");
await pick("web");
await press("Create an image");
await fill("Name", "x");
expected.error = true;
await dialog.getByRole("button", { name: "Create the image", exact: true }).click();
await dialog.locator("input[aria-invalid]").waitFor(); // the API refuses the name, at its field
assert.match(await dialog.locator(".field .error").first().innerText(), /InvalidAMIName/);
expected.error = false;
await fill("Name", "web-1");
await fill("Description", "says hello");
await dialog.getByLabel("No reboot").check();
await fill("Tags", "Name=web-1\nnote=<b onmouseover=alert(1)>bold</b>");
await looks("create-image");
await submit("Create the image");
await page.locator("dd").getByText("available").waitFor();
await page.getByText("note = <b onmouseover=alert(1)>bold</b>").waitFor();
const ami = await page.getByRole("heading", { name: /^ami-/ }).innerText();
const snapshot = await page.locator("dd a", { hasText: "snap-" }).first().innerText();
await looks("image");

step("without a mouse: a second instance, of that image");
await follow(page.getByRole("link", { name: "Skip to the content" }));
await focused("main");
assert.equal(new URL(page.url()).hash, `#/images/${ami}`);
await follow(page.getByRole("navigation").getByRole("link", { name: "Images" }));
await page.getByRole("heading", { name: "Images", exact: true }).waitFor();
await focused("main");
await tab(page.getByLabel("Which images"));
await type("Private");
await tab(page.getByLabel("Name contains"));
await type("web-1");
await row("web-1").waitFor();
await tab(page.getByRole("checkbox", { name: `Select ${ami}` }));
await page.keyboard.press("Space");
await reads(page.getByRole("main"), 'main "Images"', 'combobox "Which images"', 'searchbox "Name contains"', 'region "Images"', `checkbox "Select ${ami}" [checked]`, 'button "Launch"', 'columnheader "State"');
await follow(button("Launch"), "Shift+Tab");
await dialog.waitFor();
await reads(dialog, 'dialog "Launch an instance"', 'textbox "Name"', `textbox "Image": ${ami}`, 'combobox "Key pair"', 'textbox "User data"', 'spinbutton "How many"', 'The AWS CLI command that does the same', 'button "Cancel"');
await type("web-2");
await tab(dialog.getByLabel("Key pair"));
await type("tutorial");
await tab(dialog.getByLabel("Security group"));
await type("web");
await follow(dialog.getByRole("button", { name: "Launch", exact: true }));
await page.getByRole("heading", { name: "Instances", exact: true }).waitFor();
await focused("main");
await row("web-2").getByText("running").waitFor();
await heard("web-2: running");

step("without a mouse: in its terminal, and out of it");
await tab(row("web-2").getByRole("checkbox"));
await page.keyboard.press("Space");
await follow(button("Connect"), "Shift+Tab");
await page.getByRole("heading", { name: "Connect to web-2" }).waitFor();
const shown = page.locator(".xterm-accessibility-tree");
for (let n = 0; ; n++) { // the machine may not let in yet
  await page.waitForFunction(() => /[$\]]/.test(document.querySelector(".xterm-accessibility-tree")?.textContent ?? ""));
  if ((await shown.textContent()).includes("$")) break;
  assert.ok(n < 30, await shown.textContent());
  await focused("Connect");
  await page.waitForTimeout(1000);
  await page.keyboard.press("Enter");
}
await reads(page.getByRole("main"), 'textbox "User": admin', 'region "Terminal"', 'textbox "Terminal input"', "Ctrl+M leaves the terminal");
await type("echo $((6 * 9)) by keys\n");
await page.waitForFunction(() => /54 by keys/.test(document.querySelector(".xterm-accessibility-tree").textContent));
await page.keyboard.press("Tab");
assert.equal(await page.evaluate(() => Boolean(document.activeElement.closest(".xterm"))), true); // it is the shell's
await page.keyboard.press("Control+m");
assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "User");
await tab(page.getByRole("textbox", { name: "Terminal input" }));
await type("exit\n");
await focused("Connect");
await heard("The session has ended.");

step("without a mouse: an image of it, shared and deregistered");
await follow(page.getByRole("navigation").getByRole("link", { name: "Instances" }));
await row("web-2").waitFor();
await tab(row("web-2").getByRole("checkbox"));
await page.keyboard.press("Space");
await follow(button("Create an image"), "Shift+Tab");
await dialog.waitFor();
await page.keyboard.press("Escape");
await focused("Create an image");
await page.keyboard.press("Enter");
await dialog.waitFor();
await type("web-2");
await page.keyboard.press("Enter");
await page.locator("dd").getByText("available").waitFor();
await heard("web-2: available");
await follow(button("Share"));
await dialog.waitFor();
await reads(dialog, 'dialog "Share an image"', 'combobox "With"', /textbox "Account": "?\d{12}/);
await follow(dialog.getByRole("button", { name: "Share", exact: true }));
await page.locator("dt", { hasText: "Shared with" }).waitFor();
await focused("Share"); // also though the page was made anew
await follow(button("Deregister"));
await dialog.getByText("It is in use:").waitFor();
await dialog.locator("li", { hasText: "shared" }).waitFor();
await looks("deregister");
await tab(dialog.getByRole("checkbox", { name: /Delete its snapshots too/ }));
await page.keyboard.press("Space");
await follow(dialog.getByRole("button", { name: "Deregister", exact: true }));
await page.getByRole("heading", { name: "Images", exact: true }).waitFor();
await focused("main");

step("a copy in another region");
await go("Images");
await page.getByLabel("Which images").selectOption("self");
await pick("web-1");
await press("Copy");
await dialog.getByLabel("To region").selectOption("eu-west-1");
await submit("Copy");
await page.getByLabel("Region", { exact: true }).selectOption("eu-west-1");
await row("web-1").getByText("available").waitFor();
await page.getByLabel("Region", { exact: true }).selectOption("us-east-1");

step("shared with another account, and with everyone after a warning");
await pick("web-1");
await press("Share");
await submit("Share");
await page.getByLabel("Account", { exact: true }).selectOption({ index: 1 });
await page.getByLabel("Which images").selectOption("shared");
await row("web-1").waitFor();
await page.getByLabel("Account", { exact: true }).selectOption({ index: 0 });
await pick("web-1");
await press("Share");
await dialog.getByLabel("With").selectOption("all");
await dialog.getByRole("button", { name: "Share", exact: true }).click();
await dialog.getByText("confirm first").waitFor();
await dialog.getByLabel(/I know that everyone/).check();
await submit("Share");
await row("web-1").getByText("public").waitFor();

step("deregistered; its snapshot is found and deleted");
await pick("web-1");
await press("Deregister");
await dialog.locator("li", { hasText: /^instance i-.*running/ }).waitFor(); // web-2, which goes on
await submit("Deregister");
await page.locator("tbody").getByText("There are none.").waitFor();
await go("Snapshots");
await pick(snapshot);
await looks("snapshots");
await press("Delete");
await submit("Delete");
await row(snapshot).waitFor({ state: "detached" });

step("what happened, and what else there is");
await go("Events");
await row("DeleteSnapshot").waitFor();
await row("InvalidAMIName").waitFor();
await looks("events");
for (const name of ["Volumes", "Parameters"]) {
  await go(name);
  await page.getByRole("heading", { name, exact: true }).waitFor();
  await page.locator("tbody tr").first().waitFor();
  await looks(name.toLowerCase());
}

step("terminated");
await go("Instances");
for (const name of ["web", "web-2"]) await page.locator("tbody tr", { has: page.getByRole("cell", { name, exact: true }) }).getByRole("checkbox").check();
await press("Terminate");
await submit("Terminate");
await page.waitForFunction(() => [...document.querySelectorAll("tbody .state")].every((s) => ["terminated", "shutting-down"].includes(s.textContent)));

step("eight tabs, which are all seen, hear of changes; also when the first one is closed");
const home = page.url().replace(/#.*/, "");
const tabs = await Promise.all(Array.from({ length: 7 }, () => context.newPage()));
await go("Key pairs");
await Promise.all(tabs.map((t) => t.goto(`${home}#/keys`)));
const everywhere = (pages, count) => Promise.all(pages.map((t) => t.waitForFunction((n) => document.querySelectorAll("tbody input").length === n, count)));
const change = (t, Action) => t.evaluate(async (a) => {
  const { ec2 } = await import("./static/api.js");
  await ec2(a, { KeyName: "eight" });
}, Action);
await everywhere([page, ...tabs], 1);
await change(tabs[6], "CreateKeyPair");
await everywhere([page, ...tabs], 2);
await page.close();
await change(tabs[0], "DeleteKeyPair");
await everywhere(tabs, 1);
await browser.close();
assert.deepEqual(wrong, []);
console.log("done");
