// One change: what was asked, how it went, where its rows stand in the chain, and what belongs to it.

import * as api from "../api.js";
import { element, fill, table } from "../dom.js";
import { account, address, eventTable, foreign, none, outcome } from "../parts.js";
import { briefly, empty, loading } from "../states.js";
import { exactTime, say } from "../words.js";

/** Changes of one call were asked for and done within so long of one another, retries included. */
const COMPANY_MS = 120_000;
const COMPANY_EVENTS = 1000;
/** How soon a change without an outcome is looked at again, at first and at last. */
const PENDING_MS = 1000;
const PENDING_MS_MAX = 10_000;

export async function eventView(place) {
  if (!place.mayAudit) {
    fill(place.main, element("h1", {}, say("event.title")), empty(say("changes.forbidden")));
    return;
  }
  const stop = new AbortController();
  place.whenLeft(() => stop.abort());
  const event = await api.event(place.rest[0] ?? "", { signal: stop.signal });
  const draw = (drawn) => {
    const company = element("section", {});
    fill(
      place.main,
      element("div", { class: "heading" }, element("h1", {}, say("event.title")), outcome(drawn.outcome)),
      element("p", {}, element("b", {}, say(`operation.${drawn.operation}`)), ` ${drawn.image_id} → `, account(drawn.account_id), " · ", foreign(drawn.subject)),
      asked(drawn),
      phases(drawn),
      upstream(drawn),
      chain(drawn),
      drawn.outcome !== "denied" && company,
    );
    return drawn.outcome === "denied" ? null : keepCompany(company, drawn, stop.signal);
  };
  if (event.outcome === "pending") untilItEnds(event.id, draw, stop.signal);
  await draw(event);
}

/** Looks again until there is an outcome; what stands there stays until then. */
async function untilItEnds(id, draw, signal) {
  for (let pause = PENDING_MS; !signal.aborted; pause = Math.min(pause * 1.5, PENDING_MS_MAX)) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    const now = signal.aborted ? null : await api.event(id, { signal }).catch(() => null);
    if (now !== null && now.outcome !== "pending") {
      await draw(now);
      return;
    }
  }
}

function list(pairs) {
  return element("dl", {}, pairs.map(([term, value]) => [element("dt", {}, term), element("dd", {}, value ?? none())]));
}

const moment = (text) => element("time", { dateTime: text, title: text }, exactTime(text));
const code = (text) => text && element("code", {}, foreign(text));

function asked(event) {
  const link = (view, parameters, key) => element("a", { class: "button", href: address(view, parameters) }, say(key));
  return element(
    "section",
    {},
    element("h2", {}, say("event.what")),
    list([
      [say("event.id"), code(event.id)],
      [say("occurred_at"), moment(event.occurred_at)],
      [say("reason"), event.reason && foreign(event.reason)],
      [say("region"), event.region],
      [say("issuer"), event.issuer && foreign(event.issuer)],
      [say("token_id"), event.token_id && foreign(event.token_id)],
      [say("client_ip"), event.client_ip],
      [say("user_agent"), event.user_agent && foreign(event.user_agent)],
      [say("request_id"), code(event.request_id)],
      [say("trace_id"), code(event.trace_id)],
      [say("policy_ids"), event.policy_ids.length > 0 ? event.policy_ids.join(", ") : null],
      [say("expires_at"), event.expires_at && moment(event.expires_at)],
      [say("http_status"), event.http_status === null ? null : String(event.http_status)],
      [say("detail"), event.detail && element("span", { lang: "en" }, foreign(event.detail))],
    ]),
    element("div", { class: "row" },
      event.request_id && link("changes", { request_id: event.request_id }, "event.request"),
      link("access", { image_id: event.image_id, region: event.region }, "event.access"),
      event.account_id !== null && link("changes", { image_id: event.image_id, account_id: event.account_id }, "event.history"),
    ),
  );
}

function phases(event) {
  const begun = Date.parse(event.entries[0]?.recorded_at);
  const phase = ({ kind, recorded_at: at }, index) =>
    element("li", {}, element("b", {}, say(`event.phase.${kind}`)), " ", moment(at),
      index > 0 && element("span", { class: "soft" }, ` · ${say("event.phase.after", { ms: Date.parse(at) - begun })}`));
  return element(
    "section",
    {},
    element("h2", {}, say("event.phases")),
    element("ol", { class: `phases of-${event.outcome}` }, event.entries.map(phase), event.outcome === "pending" && element("li", { class: "open" }, say("event.phase.open"))),
    event.duration_ms !== null && element("p", { class: "soft" }, say("event.duration", { ms: event.duration_ms })),
  );
}

function upstream(event) {
  const sent = event.upstream_calls !== 0 && event.outcome !== "denied";
  const facts = list([
    [say("event.upstream.calls"), event.upstream_calls === null ? null : String(event.upstream_calls)],
    [say("event.upstream.code"), event.upstream_ret_code === null ? null : String(event.upstream_ret_code)],
    [say("event.upstream.id"), code(event.upstream_request_id)],
  ]);
  return element("section", {}, element("h2", {}, say("event.upstream")), sent ? facts : empty(say("event.upstream.none")));
}

function chain(event) {
  const columns = [
    [say("event.chain.kind"), (row) => say(`event.phase.${row.kind}`)],
    [say("event.chain.place"), (row) => `${row.chain_id}:${row.sequence}`],
    [say("event.chain.hash"), (row) => element("code", { class: "hash" }, row.hash)],
  ];
  const last = event.entries.at(-1);
  return element(
    "section",
    {},
    element("h2", {}, say("event.chain")),
    table(say("event.chain"), columns, event.entries),
    last && element("p", { class: "soft" }, `${say("event.chain.verify")} `, element("code", {}, `image-share-gateway audit verify --expect ${last.chain_id}:${last.sequence}:${last.hash}`)),
  );
}

/** Other changes that the same call of the upstream carried; it is known by the name that the upstream's answer gave it. */
async function keepCompany(place, event, signal) {
  const heading = element("h2", {}, say("event.company"));
  const tell = (...told) => fill(place, heading, ...told);
  if (event.outcome === "pending") return tell(empty(say("event.company.open")));
  if (!event.upstream_request_id) return tell(empty(say(event.upstream_calls === 0 ? "event.upstream.none" : "event.company.unknown")));
  tell(loading());
  const moment = (text, by) => new Date(Date.parse(text) + by).toISOString();
  const around = {
    image_id: event.image_id,
    from: moment(event.occurred_at, -COMPANY_MS),
    to: moment(event.completed_at ?? event.occurred_at, COMPANY_MS),
    limit: COMPANY_EVENTS,
  };
  let found;
  try {
    found = await api.events(around, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return tell(empty(briefly(error)));
  }
  const others = found.events.filter((one) => one.upstream_request_id === event.upstream_request_id && one.id !== event.id);
  return tell(
    others.length === 0 ? empty(say("event.company.none")) : eventTable(say("event.company"), others, ["occurred_at", "outcome", "operation", "account_id", "subject"]),
    found.next_cursor && element("p", { class: "soft" }, say("event.company.part", { count: COMPANY_EVENTS })),
  );
}
