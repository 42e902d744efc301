// What several views show alike: times, outcomes, links to events, tables of events, texts that others wrote.

import { element, table } from "./dom.js";
import { localTime, say } from "./words.js";

export const OUTCOMES = ["succeeded", "invalid_account", "denied", "failed", "unknown", "pending"];
export const OPERATIONS = ["share", "unshare", "update"];

export const none = () => element("span", { class: "soft" }, say("none"));

export const time = (text) => (text ? element("time", { dateTime: text, title: text }, localTime(text)) : none());

export const outcome = (word) => element("span", { class: `badge outcome-${word}` }, say(`outcome.${word}`));

export const origin = (word) => element("span", { class: `badge origin-${word}` }, say(`origin.${word}`));

// Format and control characters, separators, what Unicode calls ignorable and a blank of Braille: what turns the direction of text or
// is not to be seen.
const UNSEEN = /[\p{Cf}\p{Cc}\p{Zl}\p{Zp}\p{DI}\u2800]/gu;

/** A text that a caller chose: it turns nothing around it, and what cannot be seen in it is named. */
export function foreign(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(UNSEEN)) {
    const code = found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    parts.push(text.slice(end, found.index), element("span", { class: "unseen" }, `U+${code}`));
    end = found.index + found[0].length;
  }
  return element("bdi", {}, parts, text.slice(end));
}

/** A hash address of the console. */
export function address(view, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(given).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

export const eventAddress = (id) => `#/events/${encodeURIComponent(id)}`;

export const account = (number) => (number === null ? element("span", { class: "soft" }, say("event.several")) : String(number));

const COLUMNS = {
  occurred_at: (event) => element("a", { href: eventAddress(event.id) }, time(event.occurred_at)),
  outcome: (event) => outcome(event.outcome),
  operation: (event) => say(`operation.${event.operation}`),
  image_id: (event) => element("a", { href: address("access", { image_id: event.image_id, region: event.region }) }, event.image_id),
  account_id: (event) => account(event.account_id),
  subject: (event) => foreign(event.subject),
  reason: (event) => (event.reason === null ? none() : foreign(event.reason)),
};

/** A table of events; `columns` are names of members. */
export function eventTable(caption, events, columns = Object.keys(COLUMNS), isNew = () => false) {
  const shown = columns.map((name) => [say(name), COLUMNS[name], name]);
  return table(caption, shown, events, (event) => ({ "data-event": event.id, class: isNew(event) ? "new" : null }));
}
