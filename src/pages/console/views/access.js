// Who may use an image: what the upstream says, beside what the trail knows.

import * as api from "../api.js";
import { element, fill, labelled, table } from "../dom.js";
import { address, eventAddress, eventTable, foreign, none, origin, time } from "../parts.js";
import { briefly, empty, failure, loading } from "../states.js";
import { say } from "../words.js";

const HISTORY_EVENTS = 50;
/** So many of the latest changes of an image are held against the upstream's list. */
const HELD_EVENTS = 1000;

export async function accessView(place) {
  const stop = new AbortController();
  place.whenLeft(() => stop.abort());
  const { image_id: image = "", account_id: account = "" } = place.parameters;
  const served = await api.regions();
  const region = place.parameters.region || served.default;
  const now = element("section", { class: "now" });
  const history = element("section", { class: "history" });
  fill(
    place.main,
    element("h1", {}, say("access.title")),
    question(place, image, region, served.all),
    // What was asked for last comes first: on a phone the other is far below.
    image ? element("div", { class: account ? "beside turned" : "beside" }, account ? [history, now] : [now, history]) : empty(say("access.ask")),
  );
  if (!image) return;
  await Promise.all([
    shown(now, () => access(now, { image, region, mayAudit: place.mayAudit }, stop.signal)),
    place.mayAudit ? shown(history, () => past(history, { image, region, account }, stop.signal)) : fill(history, element("h2", {}, say("access.history.all")), empty(say("changes.forbidden"))),
  ]);
}

async function shown(place, draw) {
  fill(place, loading());
  try {
    await draw();
  } catch (error) {
    if (error.name === "AbortError" || error.status === 401) return;
    fill(place, failure(error, () => shown(place, draw)));
  }
}

function question(place, image, region, regions) {
  const field = element("input", { name: "image_id", value: image, required: true });
  const choice = element("select", { name: "region" }, regions.map((name) => element("option", { value: name, selected: name === region }, name)));
  const ask = (sent) => {
    sent.preventDefault();
    place.go("access", { image_id: field.value.trim(), region: choice.value });
  };
  return element("form", { class: "filters", onsubmit: ask }, labelled(say("image_id"), field), labelled(say("region"), choice), element("div", { class: "row" }, element("button", { type: "submit" }, say("access.show"))));
}

async function access(place, { image, region, mayAudit }, signal) {
  // Asked for before the list: what was shared by then is in it, whatever clocks say.
  const trail = mayAudit ? api.events({ image_id: image, limit: HELD_EVENTS }, { signal }).then((found) => ({ found }), (error) => ({ error })) : null;
  const held = element("div", { class: "gone" });
  if (trail) await trail;
  const { accounts } = await api.shares(image, region, { signal });
  const outside = accounts.filter((one) => one.origin === "outside");
  const columns = [
    [say("account_id"), (one) => String(one.account_id), "account_id"],
    [say("access.name"), (one) => (one.account_name === null ? none() : foreign(one.account_name))],
    [say("access.origin"), (one) => origin(one.origin), "outcome"],
    [say("access.since"), (one) => time(one.shared_at)],
    [say("access.by"), (one) => (one.shared_by === null ? none() : foreign(one.shared_by)), "subject"],
    [say("reason"), (one) => (one.reason === null ? none() : foreign(one.reason)), "reason"],
    ...(mayAudit ? [[say("access.event"), (one) => actions(one, image, region)]] : []),
  ];
  fill(
    place,
    element("h2", {}, say("access.now")),
    outside.length > 0 && element("p", { class: "warning" }, say("access.outside", { count: outside.length })),
    accounts.length === 0
      ? empty(say("access.empty"))
      : table(say("access.now"), columns, accounts, (one) => ({ class: one.origin === "outside" ? "outside" : null, "data-account": String(one.account_id) })),
    held,
  );
  if (trail) holdAgainstTrail(held, accounts, region, await trail);
}

function actions(one, image, region) {
  const history = element("a", { href: address("access", { image_id: image, region, account_id: one.account_id }), "aria-label": `${say("access.history.show")} ${one.account_id}` }, say("access.history.show"));
  const event = one.audit_id && element("a", { href: eventAddress(one.audit_id), "aria-label": `${say("access.event")} ${one.account_id}` }, say("access.event"));
  return element("span", { class: "row" }, event, history);
}

/** Names accounts whose last change says that they have access, though the upstream's list does not. */
function holdAgainstTrail(place, accounts, region, { found, error }) {
  if (error) {
    if (error.name !== "AbortError") fill(place, element("p", { class: "warning" }, say("access.gone.unknown", { why: briefly(error) })));
    return;
  }
  const listed = new Set(accounts.map((one) => one.account_id));
  const last = new Map();
  for (const event of found.events) {
    const counts = event.region === region && event.account_id !== null && ["succeeded", "unknown"].includes(event.outcome);
    if (counts && !last.has(event.account_id)) last.set(event.account_id, event);
  }
  const lost = [...last.values()].filter((event) => event.operation === "share" && event.outcome === "succeeded" && !listed.has(event.account_id));
  fill(
    place,
    lost.length > 0 && [element("p", { class: "warning" }, say("access.gone")), eventTable(say("access.gone"), lost, ["occurred_at", "account_id", "subject", "reason"])],
    found.next_cursor && element("p", { class: "soft" }, say("access.gone.part", { count: HELD_EVENTS })),
  );
}

async function past(place, { image, region, account }, signal) {
  const { events, next_cursor: more } = await api.events({ image_id: image, account_id: account, limit: HISTORY_EVENTS }, { signal });
  const heading = account ? say("access.history.of", { account }) : say("access.history.all");
  fill(
    place,
    element("h2", {}, heading),
    account && element("p", {}, element("a", { class: "button", href: address("access", { image_id: image, region }) }, say("access.history.everyone"))),
    events.length === 0
      ? empty(say("changes.empty"))
      : eventTable(heading, events, account ? ["occurred_at", "outcome", "operation", "subject", "reason"] : ["occurred_at", "outcome", "operation", "account_id"]),
    more && element("p", {}, element("a", { class: "button", href: address("changes", { image_id: image, account_id: account }) }, say("access.history.more"))),
  );
}
