// Lists of many instances or images in the console: what it takes to show them, to turn the
// page, and to hear of a change.
//
//   CONSOLE_MODULES=DIRECTORY node many.mjs ADDRESS instances|images
//
// There are more than a page of them, in the first region of the console whose address is ADDRESS. It
// prints what each took, and fails if a list is more than the call of a page, or a change more
// than one call of who makes it and one of who hears of it.
import assert from "node:assert/strict";
import { open } from "./browser.mjs";

const [address, what] = process.argv.slice(2);
const { browser, page, wrong, go } = await open(address);
let calls = [], bytes = 0;
page.on("response", async (r) => {
  if (!r.url().includes("/api/")) return;
  calls.push(new URLSearchParams(r.request().postData() ?? "").get("Action"));
  bytes += (await r.body().catch(() => "")).length;
});
async function measure(name, most, act, until) {
  [calls, bytes] = [[], 0];
  const start = performance.now();
  await act();
  await until();
  const took = performance.now() - start;
  await page.waitForTimeout(1000); // what is fetched though it is not needed
  console.log(`${what}: ${name}: ${Math.round(took)} ms, ${Math.round(bytes / 1024)} KiB: ${calls.join(" ")}`);
  if (calls.length > most) wrong.push(`${name} takes the calls ${calls.join(" ")}`);
}
const title = what === "instances" ? "Instances" : "Images";
const rows = page.locator("tbody tr"), id = (n) => rows.nth(n).getByRole("link").first().innerText();
const call = (action, params) => page.evaluate(async ([a, p]) => (await import("./static/api.js")).ec2(a, p), [action, params]);

const keyPairs = page.waitForResponse((r) => (r.request().postData() ?? "").includes("Action=DescribeKeyPairs"));
await go("Key pairs");
await keyPairs; // else it counts as one of the calls of the list
await measure("the first list", 1, () => go(title), () => rows.nth(99).waitFor());
const newest = await id(0);
await measure("the next page", 1, () => page.getByRole("button", { name: "Next page" }).click(), () => page.getByText("Page 2").waitFor());
assert.notEqual(await id(0), newest);
await page.getByRole("button", { name: "Previous page" }).click();
await page.getByText("Page 1").waitFor();
await measure("choosing all of the page", 0, () => page.getByLabel("Select all").check(), () => page.waitForFunction(() => document.querySelectorAll("tbody input:checked").length === 100));
await page.getByLabel("Select all").uncheck();
if (what === "instances") {
  await measure("a change", 2, () => call("CreateTags", { Resources: [newest], Tags: [{ Key: "Name", Value: "changed" }] }), () => page.getByRole("cell", { name: "changed", exact: true }).waitFor());
} else {
  await measure("a change", 2, () => call("DeregisterImage", { ImageId: newest }), () => page.waitForFunction((was) => document.querySelector("tbody a").textContent !== was, newest));
  const name = await rows.nth(0).getByRole("cell").nth(1).innerText();
  await measure("a name", 1, () => page.getByLabel("Name contains").fill(name), () => page.waitForFunction((n) => document.querySelectorAll("tbody tr").length === 1 && document.querySelector("tbody").textContent.includes(n), name));
}
await browser.close();
assert.deepEqual(wrong, []);
