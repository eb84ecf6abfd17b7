// Lists of many images in the console: what it takes to show them, to look for a name, to turn
// the page, and to hear of a change.
//
//   CONSOLE_MODULES=DIRECTORY node many.mjs ADDRESS [NUMBER [FROM]]
//
// It registers images in the cloud whose console is at ADDRESS, so that there are NUMBER
// (10,000), FROM of which there are already, and prints what it takes. Have the directory of
// the cloud (BAKE_CLOUD_DIR) in memory: it waits for the disk to have each image.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.CONSOLE_MODULES}/`);
const { chromium } = require("playwright-core");
const [address, number = "10000", from = "0"] = process.argv.slice(2);
const many = Number(number);

// ec2 makes a call as the page does, without the page.
const entered = await fetch(address, { redirect: "manual" });
const home = new URL(entered.headers.get("location"), address), cookie = entered.headers.get("set-cookie").split(";")[0];
const { accounts: [{ id: account }] } = await (await fetch(new URL("session", home), { headers: { cookie } })).json();
async function ec2(Action, params) {
  const headers = { cookie, origin: home.origin, "content-type": "application/x-www-form-urlencoded" };
  const answer = await fetch(new URL(`api/${account}/us-east-1/ec2`, home), { method: "POST", headers, body: new URLSearchParams({ Action, Version: "2016-11-15", ...params }).toString() });
  const text = await answer.text();
  if (!answer.ok) throw new Error(text);
  return text;
}
const id = (text, name) => new RegExp(`<${name}>([^<]*)`).exec(text)[1];

const volume = id(await ec2("CreateVolume", { AvailabilityZone: "us-east-1a", Size: 1 }), "volumeId");
for (let n = 0; !(await ec2("DescribeVolumes", { "VolumeId.1": volume })).includes("<status>available"); n++) assert.ok(n < 100);
const snapshot = id(await ec2("CreateSnapshot", { VolumeId: volume }), "snapshotId");
const register = (n) => ec2("RegisterImage", { Name: `web-${String(n).padStart(6, "0")}`, RootDeviceName: "/dev/xvda", Architecture: "x86_64", "BlockDeviceMapping.1.DeviceName": "/dev/xvda", "BlockDeviceMapping.1.Ebs.SnapshotId": snapshot });
const began = Date.now();
for (let n = Number(from); n < many; n += 20) await Promise.all(Array.from({ length: 20 }, (_, i) => register(n + i)));
console.log(`${many - from} images registered in ${((Date.now() - began) / 1000).toFixed(1)} s`);

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
const page = await (await browser.newContext()).newPage();
page.setDefaultTimeout(120_000);
await page.goto(address);
await page.getByRole("heading", { name: "Instances" }).waitFor();
let calls = [];
page.on("request", (r) => { if (r.url().includes("/api/")) calls.push(new URLSearchParams(r.postData() ?? "").get("Action") ?? r.url()); });
async function measure(name, act, until) {
  calls = [];
  const start = performance.now();
  await act();
  await until();
  console.log(`${name}: ${Math.round(performance.now() - start)} ms, ${calls.length} call(s): ${calls.join(" ")}`);
  return calls.length;
}
const cell = (text) => page.getByRole("cell", { name: text, exact: true }).first();
const go = (name) => page.getByRole("navigation").getByRole("link", { name, exact: true }).click();

await page.reload();
await measure("the first list", () => go("Images"), () => page.locator("tbody tr").nth(99).waitFor());
await measure("the next page", () => page.getByRole("button", { name: "Next page" }).click(), () => page.getByText("Page 2").waitFor());
await page.getByRole("button", { name: "Previous page" }).click();
const last = `web-${String(many - 1).padStart(6, "0")}`;
await measure("a name", () => page.getByLabel("Name contains").fill(last), () => page.waitForFunction((name) => document.querySelectorAll("tbody tr").length === 1 && document.querySelector("tbody").textContent.includes(name), last));
await measure("a change by somebody else", () => register("-changed"), async () => {});
await page.getByLabel("Name contains").fill("changed");
await cell("web--changed").waitFor();
await measure("an image that is deregistered", async () => {
  const image = await page.locator("tbody a").first().innerText();
  await ec2("DeregisterImage", { ImageId: image });
}, () => page.getByText("There are none.").waitFor());
await go("Instances");
await page.getByRole("heading", { name: "Instances" }).waitFor();
await measure("the dialog to launch", () => page.getByRole("button", { name: "Launch an instance" }).click(), () => page.getByRole("dialog").waitFor());
await browser.close();
