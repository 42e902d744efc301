// Twelve steps by openapi-fetch with the types that openapi-typescript makes of the document. Arguments: base URL, token.

import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[] };

const [image, account, nobody] = ["compshareImage-sandbox1", 12345, 9_000_000_000_000_000];
const [, , baseUrl = "", token = ""] = process.argv;
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });
const path = { image_id: image, account_id: account };

function got<T>({ data, error }: { data?: T; error?: { detail: string } }): T {
  if (data === undefined) throw new Error(error?.detail ?? "no answer");
  return data;
}

// The same question has other formats, which are texts.
function events(answer: components["schemas"]["EventList"] | string): components["schemas"]["EventList"] {
  if (typeof answer === "string") throw new Error("it is no JSON");
  return answer;
}

const who = got(await client.GET("/whoami"));
console.log("1 whoami:", who.subject);

const rehearsed = got(await client.PUT("/images/{image_id}/shares/{account_id}", { params: { path, query: { dry_run: true } } }));
console.log("2 dry run:", rehearsed.would_change ? "would change" : "would not");

const shared = await client.PUT("/images/{image_id}/shares/{account_id}", { params: { path }, body: { reason: "OPS-17" } });
const eventId = shared.response.headers.get("Audit-Id") ?? "";
console.log("3 share:", got(shared).shared && got(shared).audit_id === eventId ? "shared" : "not");

const listed: components["schemas"]["ShareList"] = got(await client.GET("/images/{image_id}/shares", { params: { path: { image_id: image } } }));
console.log("4 list:", ...listed.accounts.map((one) => `${one.account_id} ${one.origin}`));

const bulk = got(await client.PATCH("/images/{image_id}/shares", { params: { path: { image_id: image } }, body: { add: [1], remove: [2] } }));
console.log("5 bulk:", bulk.results.filter((one) => one.outcome === "succeeded").length, "succeeded");

const event = got(await client.GET("/audit/events/{id}", { params: { path: { id: eventId } } }));
console.log(`6 event: ${event.outcome}, ${event.entries.length} rows`);

let page = events(got(await client.GET("/audit/events", { params: { query: { limit: 2 } } })));
console.log(`7 page: ${page.events.length} events,`, page.next_cursor === null ? "no more" : "more");

let count = page.events.length;
while (page.next_cursor !== null) {
  page = events(got(await client.GET("/audit/events", { params: { query: { limit: 2, cursor: page.next_cursor } } })));
  count += page.events.length;
}
console.log(`8 cursor: ${count} events`);

const stream = got(await client.GET("/audit/entries", { parseAs: "stream" }));
let rows = "";
for await (const text of stream!.pipeThrough(new TextDecoderStream())) rows += text;
console.log(`9 stream: ${rows.trim().split("\n").length} rows`);

const refused = await client.PUT("/images/{image_id}/shares/{account_id}", { params: { path: { image_id: image, account_id: nobody } } });
const problem = refused.error;
if (problem?.type !== "/problems/invalid-account") throw new Error(problem?.type ?? "no problem");
console.log("10 problem:", problem.type, problem.effect, problem.retryable ? "again" : "not again");

const invalid = (await client.GET("/images/{image_id}/shares/{account_id}", { params: { path: { image_id: "no image!", account_id: account } } })).error;
if (invalid?.type !== "/problems/invalid-request") throw new Error(invalid?.type ?? "no problem");
console.log("11 invalid:", ...invalid.errors.map((one) => `${one.in} ${one.name}`));

const taken = await client.DELETE("/images/{image_id}/shares/{account_id}", { params: { path } });
const absent = await client.GET("/images/{image_id}/shares/{account_id}", { params: { path } });
console.log("12 unshare:", taken.response.status, absent.error?.type);
