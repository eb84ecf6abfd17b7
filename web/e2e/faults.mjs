// What the console does when its host does not answer, or not in time.
//
//   CONSOLE_MODULES=DIRECTORY node faults.mjs ADDRESS
import assert from "node:assert/strict";
import { open, step } from "./browser.mjs";

const [address] = process.argv.slice(2);
const { browser, page, wrong, expected, go } = await open(address);
page.setDefaultTimeout(10_000);
const key = (name) => page.evaluate(async (KeyName) => (await import("./static/api.js")).ec2("CreateKeyPair", { KeyName }), name);

step("the rest of a log does not come: what came is shown, with two steps of one name at a time");
const event = (kind, seconds) => ({ kind, build: "null.a", step: "copy", time: new Date(1e12 + seconds * 1000).toISOString(), text: kind });
const events = [event("say", 0), event("step-started", 0), event("step-started", 1), event("step-finished", 3), event("step-failed", 7)];
let broken = true;
await page.route("**/bakes/some?after=*", (r) => {
  if (r.request().url().endsWith("after=0-0")) return r.fulfill({ json: { events, next: "1-0", more: true, past: { state: "failed" } } });
  return broken ? r.fulfill({ status: 500, body: "cannot be read" }) : r.fulfill({ json: { events: [event("say", 8)], next: "2-0", more: false, past: { state: "failed" } } });
});
expected.error = true;
await page.evaluate(() => { location.hash = "#/bakes/some"; });
await page.getByText("1 lines", { exact: true }).waitFor();
assert.deepEqual(await page.locator(".steps .number").allInnerTexts(), ["3.0\u00a0s", "6.0\u00a0s"]);
broken = false;
await page.getByText("2 lines", { exact: true }).waitFor(); // though the bake is over
expected.error = false;

step("a page whose list does not come does not keep another one from its own");
await go("Bakes");
await page.getByRole("heading", { name: "Bakes" }).waitFor();
await page.waitForTimeout(500);
const asked = new Promise((done) => { page.route("**/bakes", () => done()); }); // and is never answered
await key("one");
await asked;
await page.waitForTimeout(1000);
await go("Key pairs");
await page.getByRole("cell", { name: "one", exact: true }).waitFor();
await key("two");
await page.getByRole("cell", { name: "two", exact: true }).waitFor();

await browser.close();
assert.deepEqual(wrong, []);
