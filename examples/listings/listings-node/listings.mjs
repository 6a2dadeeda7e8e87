// This file is the microservice: houses for sale, each with what `housing` thinks that it is worth.
//
// Where other services are is told by BRANCHLINE_GATEWAY. The caller's unit is passed on, so that who looks at houses
// meets the same revision of `housing` each time; so is the trace, if the caller has one.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const PASSED_ON = ["x-branchline-unit", "traceparent", "tracestate"];
const MILLISECONDS = 1000;
const HOUSES = JSON.parse(readFileSync(new URL("houses.json", import.meta.url), "utf-8"));

/** What a house is worth in dollars and who says so; null when that cannot be had in time. */
export async function estimate(facts, headers, milliseconds = MILLISECONDS) {
  const passedOn = PASSED_ON.filter((name) => headers[name]).map((name) => [name, headers[name]]);
  try {
    const answer = await fetch(`${process.env.BRANCHLINE_GATEWAY}/housing/`, {
      method: "POST",
      body: JSON.stringify(facts),
      headers: { "content-type": "application/json", ...Object.fromEntries(passedOn) },
      signal: AbortSignal.timeout(milliseconds),
    });
    const { prediction } = await answer.json();
    return Number.isFinite(prediction)
      ? { estimate: Math.round(prediction), by: answer.headers.get("x-branchline-revision") }
      : null;
  } catch {
    return null; // down, slow, or no JSON: a page without an estimate is a page all the same
  }
}

/** Status and answer for a request. */
async function answered(method, path, headers) {
  if (method !== "GET") return [405, { detail: "only GET is answered here" }];
  if (path === "/healthz") return [200, "ok"];
  if (path === "/") return [200, HOUSES.map(({ id, street, price }) => ({ id, street, price }))];
  const house = HOUSES.find(({ id }) => path === `/${id}`);
  if (!house) return [404, { detail: `there is nothing at ${path}` }];
  const { id, street, price, facts } = house;
  return [200, { id, street, price, ...((await estimate(facts, headers)) ?? { estimate: null, by: null }) }];
}

/** The server, not listening yet. */
export function server() {
  return createServer(async (request, response) => {
    const [status, body] = await answered(request.method, new URL(request.url, "http://here").pathname, request.headers);
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  });
}
