// What bakes do and did, in the console with a browser: one under way, one that failed, one
// that was killed, one that is over with its report, and the list of them.
//
//   CONSOLE_MODULES=DIRECTORY node bakes.mjs ADDRESS TEMPLATES [PICTURES]
//
// TEMPLATES is a directory with ok.pkr.hcl, whose build waits until there is a file go-on beside
// it, and fails.pkr.hcl; "bake" is the program. Pictures are as those of tutorial.mjs, and so is
// what makes it fail.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { once } from "node:events";
import { join } from "node:path";
import { open, step } from "./browser.mjs";

const [address, templates, pictures] = process.argv.slice(2);
const { browser, context, page, wrong, looks, go } = await open(address, pictures);

const build = (name) => spawn("bake", ["build", "-color=false", join(templates, name)], { stdio: "ignore" });
const result = (text) => page.locator("dd .state", { hasText: text }).first().waitFor();
const output = page.getByRole("region", { name: "Output" });
async function show(state) {
  await go("Bakes");
  await page.locator("tbody tr", { hasText: state }).getByRole("link").first().click();
  await page.getByRole("heading", { name: /^Bake / }).waitFor();
}

step("a bake that failed: why, and at which step");
const [code] = await once(build("fails.pkr.hcl"), "exit");
assert.notEqual(code, 0);
await show("failed");
await result("failed");
await page.locator("dd", { hasText: "non-zero exit status: 3" }).first().waitFor();
await page.locator("dd", { hasText: "fails.pkr.hcl:" }).first().waitFor();
assert.equal(await page.locator("dt", { hasText: "Left" }).count(), 0); // nothing is
await page.locator(".steps li", { hasText: "(failed)" }).first().waitFor();
await output.getByText("<b>going</b>").waitFor();
await looks("bake-failed");

step("a bake under way");
const baking = build("ok.pkr.hcl"), ended = once(baking, "exit");
await show("running");
await output.getByText("<script>alert(1)</script> first").waitFor();
await result("running");
const took = () => page.locator("dt", { hasText: "Takes" }).locator("xpath=following-sibling::dd[1]").innerText().then(parseFloat);
const then = await took();
await page.waitForFunction((s) => parseFloat([...document.querySelectorAll(".steps .number")].at(-1).textContent) > s + 1, then); // its step goes on, though it says nothing
assert.equal(await page.getByRole("link", { name: "the report of this run" }).count(), 0);
await looks("bake-running");

step("one that is killed");
const killed = build("ok.pkr.hcl"), gone = once(killed, "exit");
await go("Bakes");
await page.waitForFunction(() => [...document.querySelectorAll("tbody .state")].filter((s) => s.textContent === "running").length === 2);
await page.locator("tbody a").first().click(); // the newest
await output.getByText("<script>alert(1)</script> first").waitFor();
killed.kill("SIGKILL");
await gone;
await result("crashed");
assert.equal(await page.locator("dd .state", { hasText: "running" }).count(), 0);
await page.locator("dd", { hasText: "bake sweep deletes it" }).waitFor(); // what the script runs in
await looks("bake-crashed");

step("what it was: its steps, its output with a search, its report");
await show("running");
writeFileSync(join(templates, "go-on"), "");
await result("succeeded");
assert.deepEqual(await ended, [0, null]);
for (const name of ["null.machine", "null.another-machine-whose-name-is-rather-long"]) await page.getByRole("list", { name: `Steps of ${name}`, exact: true }).locator("li", { hasText: "shell-local" }).nth(1).waitFor(); // of two provisioners
await looks("bake");
await page.getByLabel("Show only lines with").fill("LAST");
await page.waitForFunction(() => document.querySelector("pre.output").textContent.split("\n").every((line) => line.endsWith("last")));
await page.getByText("2 lines", { exact: true }).waitFor();
const [report] = await Promise.all([context.waitForEvent("page"), page.getByRole("link", { name: "the report of this run" }).click()]);
await report.getByRole("heading").first().waitFor();
assert.equal(await report.evaluate(() => { try { return document.cookie + localStorage.length; } catch (e) { return e.name; } }), "SecurityError"); // it is in a sandbox
await report.close();

step("all of them");
await go("Bakes");
await page.locator("tbody tr").nth(2).waitFor();
assert.deepEqual(await page.locator("tbody .state").allInnerTexts(), ["crashed", "succeeded", "failed"]); // newest first
await looks("bakes");

await browser.close();
assert.deepEqual(wrong, []);
console.log("done");
