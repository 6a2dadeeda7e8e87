// This file asks the staging address, given in BRANCHLINE_STAGING, what an application would ask.

import assert from "node:assert/strict";
import { test } from "node:test";

const here = process.env.BRANCHLINE_STAGING;

test("the list leads to every house", async () => {
  const houses = await (await fetch(here)).json();
  assert.deepEqual(houses.map(({ id }) => id), [1, 2, 3, 4]);
});

test("a house has an estimate or says that there is none", async () => {
  const house = await (await fetch(`${here}1`)).json();
  assert.equal(house.price, 184000);
  assert.ok(house.estimate === null || house.by.startsWith("housing@"));
});

test("a house that is not for sale is not found", async () => {
  assert.equal((await fetch(`${here}99`)).status, 404);
});
