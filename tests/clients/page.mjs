// The operator's page in a real browser: a dispute from the log-in to the till's replay, with and
// without scripts, on a desk and on a phone. Arguments: a JSON document, see tests/it/page_browser.rs.
import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";
import { strict as assert } from "node:assert";

const given = JSON.parse(process.argv[2]);
const require = createRequire(`${given.modules}/`);
const { chromium } = require("playwright-core");
const { AxeBuilder } = require("@axe-core/playwright");

mkdirSync(given.screenshots, { recursive: true });
const browser = await chromium.launch({
  executablePath: given.chromium,
  args: ["--no-sandbox", "--disable-gpu"],
});

// Everything that the page's policy keeps from loading, and every error, fails the test.
function watch(page, complaints) {
  page.on("console", (message) => {
    // The browser reports the statuses of refusals, which are wanted here.
    if (message.type() === "error" && !message.text().includes("the server responded with a status")) {
      complaints.push(message.text());
    }
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
}

async function accessible(page, name) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  const told = violations.map((it) => `${it.id}: ${it.nodes.map((node) => node.html).join(" | ")}`);
  assert.deepEqual(told, [], `${name} is not accessible`);
}

async function logIn(page) {
  await page.goto(given.admin);
  await page.getByLabel("Token of").fill(given.token);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Overview" }).waitFor();
}

async function dispute({ scripts, voucher, lost, other }) {
  const context = await browser.newContext({ javaScriptEnabled: scripts });
  const page = await context.newPage();
  page.setDefaultTimeout(given.patience);
  const complaints = [];
  watch(page, complaints);
  await page.goto(given.admin);
  if (scripts) await accessible(page, "the log-in");
  await logIn(page);
  if (scripts) {
    await accessible(page, "the overview");
    const heights = await page.locator("rect.requests").evaluateAll((bars) =>
      bars.map((bar) => bar.getBoundingClientRect().height));
    assert.ok(heights.some((height) => height > 10), "the traffic is drawn");
    await page.screenshot({ path: `${given.screenshots}/overview.png`, fullPage: true });
  }
  await page.getByLabel("Voucher (business id)").fill(voucher);
  await page.getByRole("button", { name: "Find" }).click();
  await page.getByRole("heading", { name: "Every key that touched" }).waitFor();
  const rows = page.getByRole("region", { name: "Records found" }).locator("tbody tr");
  const keys = await rows.locator("a").allInnerTexts();
  assert.deepEqual(keys, [lost, other], "both keys, in order");
  assert.match(await rows.nth(0).innerText(), /unknown/);
  assert.match(await rows.nth(1).innerText(), /final\s+200/);
  if (scripts) {
    await accessible(page, "the records");
    await page.screenshot({ path: `${given.screenshots}/voucher.png`, fullPage: true });
  }
  await page.getByRole("link", { name: lost }).click();
  await page.getByRole("heading", { name: "Settle the outcome" }).waitFor();
  if (scripts) await accessible(page, "an unknown record");
  await page.getByLabel("carried the request out: it is final").check();
  await page.getByText("The answer to replay").click();
  await page.getByLabel("Status").fill("201");
  await page.getByLabel("Body").fill('{"redeemed":true}');
  await page.getByLabel("Reason: what you looked at").fill("It is in the books of the backend.");
  await page.getByLabel("Your name").fill("Ann");
  // Without the confirmation the browser does not even send the form.
  await page.getByRole("button", { name: "Settle" }).click();
  assert.ok(await page.getByRole("heading", { name: "Settle the outcome" }).isVisible());
  await page.getByLabel("I have checked this").check();
  if (scripts) await page.screenshot({ path: `${given.screenshots}/settle.png`, fullPage: true });
  await page.getByRole("button", { name: "Settle" }).click();
  await page.getByRole("heading", { name: "The answer that is replayed" }).waitFor();
  const story = await page.locator(".timeline").innerText();
  assert.match(story, /executed, about attempt 1, by Ann: It is in the books of the backend\./);
  if (scripts) {
    await accessible(page, "a settled record");
    await page.screenshot({ path: `${given.screenshots}/record.png`, fullPage: true });
  }
  // The till asks once more, with the same key.
  const replay = await fetch(`${given.public}/v1/vouchers/redeem`, {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": lost },
    body: JSON.stringify({ qr: voucher }),
  });
  assert.equal(replay.status, 201);
  assert.equal(replay.headers.get("idempotency-status"), "recovered");
  assert.equal(await replay.text(), '{"redeemed":true}');
  await page.getByRole("link", { name: "Overview" }).click();
  await page.getByText("None: every outcome is known.").or(page.locator("#queue ~ *")).first().waitFor();
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  assert.deepEqual(complaints, []);
  await context.close();
}

// The keyboard alone reaches the first field and the menu; nothing is wider than the phone.
async function phone() {
  const context = await browser.newContext({
    viewport: { width: 390, height: 844 },
    colorScheme: "dark",
    deviceScaleFactor: 2,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(given.patience);
  await logIn(page);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "To the content");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Overview");
  for (const path of ["/", "/records"]) {
    await page.goto(given.admin + path);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= 390, `${path} is ${wide} wide`);
    await accessible(page, `${path} in the dark`);
  }
  await page.goto(given.admin);
  await page.screenshot({ path: `${given.screenshots}/phone-dark.png` });
  await context.close();
}

await phone();
for (const one of given.disputes) await dispute(one);
await browser.close();
console.log("ok");
