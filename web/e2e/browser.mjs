// A browser for what the console is tried with: Chromium, which Playwright drives, with the eyes
// of axe-core. CONSOLE_MODULES is a directory with both in its node_modules; scripts/console
// makes it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.CONSOLE_MODULES}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export const step = (text) => console.log(`- ${text}`);

// open lets a browser in at an address of a console. "wrong" is what went wrong: any error that
// the browser tells, any request to anywhere else, and what "looks" finds. If the program fails,
// it ends with what the page shows. Pictures of pages are written to a directory "pictures".
export async function open(address, pictures) {
  const origin = new URL(address).origin;
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, bypassCSP: false });
  await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const wrong = [], expected = { error: false }; // an error of the API is logged by the browser as one of loading
  context.on("console", (m) => { if (m.type() === "error" && !expected.error) wrong.push(`console: ${m.text()}`); });
  context.on("weberror", (e) => wrong.push(`page: ${e.error().message}`));
  context.on("dialog", (d) => { // somebody's text has become a script
    wrong.push(`an alert: ${d.message()}`);
    d.dismiss();
  });
  context.on("request", (r) => { if (!r.url().startsWith(origin) && !r.url().startsWith("data:") && !r.url().startsWith("blob:")) wrong.push(`a request to ${r.url()}`); });
  process.on("uncaughtException", async (err) => {
    console.error(err);
    if (pictures) await page.screenshot({ path: `${pictures}/failed.png` }).catch(() => {});
    console.error(await page.locator("main").innerText().catch(() => ""), wrong);
    await browser.close();
    process.exit(1);
  });

  // looks sees that a page can be read: light and dark, in several widths, and on paper.
  async function looks(name) {
    await page.evaluate((source) => { if (!window.axe) (0, eval)(source); }, axe).catch(async () => page.addScriptTag({ content: axe }));
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      violations.filter((v) => ["serious", "critical"].includes(v.impact)).forEach((v) => wrong.push(`axe, ${name}, ${colorScheme}: ${v.id}: ${v.nodes.map((n) => n.html.slice(0, 120)).join("; ")}`));
      for (const width of [360, 1280, 2560]) {
        await page.setViewportSize({ width, height: 900 });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        if (wide > width) wrong.push(`${name} is ${wide} wide at ${width}`);
        if (pictures) await page.screenshot({ path: `${pictures}/${name}-${width}-${colorScheme}.png` });
      }
    }
    await page.emulateMedia({ media: "print", colorScheme: "dark" });
    await page.setViewportSize({ width: 680, height: 900 }); // of A4, between its margins
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    if (wide > 680) wrong.push(`${name} is ${wide} wide on paper`);
    assert.equal(await page.getByRole("navigation").isVisible(), false);
    if (pictures) await page.screenshot({ path: `${pictures}/${name}-print.png`, fullPage: true });
    if (pictures) await page.pdf({ path: `${pictures}/${name}.pdf`, format: "A4" });
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.emulateMedia({ media: "screen", colorScheme: "light" });
  }
  await page.goto(address);
  await page.getByRole("heading", { name: "Instances" }).waitFor();
  const go = (name) => page.getByRole("navigation").getByRole("link", { name, exact: true }).click();
  return { browser, context, page, wrong, expected, looks, go };
}
