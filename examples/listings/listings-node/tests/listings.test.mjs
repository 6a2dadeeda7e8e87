// This file tests the microservice, with a small gateway in its place that answers, fails, or is not there.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";

import { estimate, server } from "../listings.mjs";

/** Something that listens for the length of a test; its address. */
async function listening(context, some) {
  some.listen(0, "127.0.0.1");
  await once(some, "listening");
  context.after(() => {
    some.closeAllConnections();
    some.close();
  });
  return `http://127.0.0.1:${some.address().port}`;
}

/** A gateway whose `housing` always answers the same; what it was asked last. */
async function gateway(context, status, answer) {
  const asked = {};
  const some = createServer((request, response) => {
    Object.assign(asked, { path: request.url, headers: request.headers });
    response.writeHead(status, { "x-branchline-revision": "housing@1.0.0" }).end(JSON.stringify(answer));
  });
  process.env.BRANCHLINE_GATEWAY = await listening(context, some);
  return asked;
}

test("housing is asked for the same unit and trace", async (context) => {
  const asked = await gateway(context, 200, { prediction: 1234.4 });
  const headers = { "x-branchline-unit": "me", traceparent: "00-1-2-01", cookie: "secret" };
  assert.deepEqual(await estimate({ area: 1 }, headers), { estimate: 1234, by: "housing@1.0.0" });
  assert.equal(asked.path, "/housing/");
  assert.equal(asked.headers["x-branchline-unit"], "me");
  assert.equal(asked.headers.traceparent, "00-1-2-01");
  assert.equal(asked.headers.cookie, undefined);
});

test("there is no estimate without a number", async (context) => {
  await gateway(context, 503, { title: "down" });
  assert.equal(await estimate({}, {}), null);
});

test("there is no estimate when nobody listens", async () => {
  process.env.BRANCHLINE_GATEWAY = "http://127.0.0.1:1";
  assert.equal(await estimate({}, {}), null);
});

test("who does not answer in time is not waited for", async (context) => {
  process.env.BRANCHLINE_GATEWAY = await listening(context, createServer(() => {}));
  assert.equal(await estimate({}, {}, 50), null);
});

test("a house is shown with an estimate and without", async (context) => {
  const here = await listening(context, server());
  await gateway(context, 200, { prediction: 160000 });
  const ask = async (path) => (await fetch(here + path)).json();
  assert.deepEqual((await ask("/")).map(({ id }) => id), [1, 2, 3, 4]);
  const house = { id: 1, street: "12 Elm Court", price: 184000 };
  assert.deepEqual(await ask("/1"), { ...house, estimate: 160000, by: "housing@1.0.0" });
  process.env.BRANCHLINE_GATEWAY = "http://127.0.0.1:1";
  assert.deepEqual(await ask("/1"), { ...house, estimate: null, by: null });
  assert.equal((await fetch(`${here}/99`)).status, 404);
  assert.equal((await fetch(`${here}/1`, { method: "POST" })).status, 405);
});
