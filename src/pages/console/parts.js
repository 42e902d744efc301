// What several views show alike: times, outcomes, links to events, tables of events.

import { element, table } from "./dom.js";
import { localTime, say } from "./words.js";

export const OUTCOMES = ["succeeded", "invalid_account", "denied", "failed", "unknown", "pending"];
export const OPERATIONS = ["share", "unshare", "update"];

export const none = () => element("span", { class: "soft" }, say("none"));

export const time = (text) => (text ? element("time", { dateTime: text, title: text }, localTime(text)) : none());

export const outcome = (word) => element("span", { class: `badge outcome-${word}` }, say(`outcome.${word}`));

export const origin = (word) => element("span", { class: `badge origin-${word}` }, say(`origin.${word}`));

/** A hash address of the console. */
export function address(view, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(given).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

export const eventAddress = (id) => `#/events/${encodeURIComponent(id)}`;

const link = (href, text) => element("a", { href }, text);

const COLUMNS = {
  occurred_at: (event) => element("a", { href: eventAddress(event.id) }, time(event.occurred_at)),
  outcome: (event) => outcome(event.outcome),
  operation: (event) => say(`operation.${event.operation}`),
  image_id: (event) => link(address("access", { image_id: event.image_id, region: event.region }), event.image_id),
  account_id: (event) => (event.account_id === null ? none() : String(event.account_id)),
  subject: (event) => event.subject,
  reason: (event) => event.reason ?? none(),
};

/** A table of events; `columns` are names of members. */
export function eventTable(caption, events, columns = Object.keys(COLUMNS), isNew = () => false) {
  const shown = columns.map((name) => [say(name), COLUMNS[name]]);
  return table(caption, shown, events, (event) => ({ "data-event": event.id, class: isNew(event) ? "new" : null }));
}
