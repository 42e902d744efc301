// What was changed: plot over time, filters, table, page by page, and what is written now.

import * as api from "../api.js";
import { element, fill, labelled } from "../dom.js";
import { OPERATIONS, OUTCOMES, address, eventTable } from "../parts.js";
import { empty, failure, loading } from "../states.js";
import { localTime, say, zone } from "../words.js";
import { timeline } from "../timeline.js";

const FILTERS = ["from", "to", "subject", "image_id", "account_id", "operation", "outcome", "request_id"];
const PAGE_EVENTS = 50;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** Up to so many hours are counted by the hour; the API counts a thousand buckets at most. */
const BY_HOUR_MS = 14 * DAY_MS;
/** How soon after a row was written the table shows it: many rows that come at once are asked for once. */
const LIVE_TABLE_MS = 300;
const LIVE_PLOT_MS = 3000;

export async function changesView(place) {
  const filters = Object.fromEntries(FILTERS.map((name) => [name, place.parameters[name] ?? ""]));
  const cursor = place.parameters.cursor ?? "";
  const stop = new AbortController();
  const parts = {
    plot: element("section", { class: "plot", "aria-label": say("changes.over") }, loading()),
    list: element("section", {}, loading()),
    told: element("p", { class: "note", role: "status" }),
  };
  let live = null;
  const toggle = element("button", { type: "button", "aria-pressed": "false", onclick: () => turnLive() }, say("changes.live"));
  fill(
    place.main,
    element("div", { class: "heading" }, element("h1", {}, say("changes.title")), presets(place, filters), toggle),
    filterForm(place, filters),
    parts.told,
    parts.plot,
    parts.list,
    element("p", { class: "soft" }, say("zone", { zone: zone() })),
  );
  place.whenLeft(() => {
    stop.abort();
    live?.abort();
  });
  const view = { place, filters, cursor, parts, signal: stop.signal, known: null };
  await Promise.all([drawPlot(view), drawList(view)]);

  function turnLive() {
    if (live) {
      live.abort();
      live = null;
      parts.told.textContent = "";
    } else {
      live = new AbortController();
      followChanges(view, live.signal).catch((error) => {
        if (error.name !== "AbortError") parts.told.textContent = `${say("changes.live.over")} ${error.message}`;
        live = null;
        toggle.setAttribute("aria-pressed", "false");
      });
    }
    toggle.setAttribute("aria-pressed", String(live !== null));
  }
}

function presets(place, filters) {
  const preset = (key, milliseconds) =>
    element("button", { type: "button", class: "plain", onclick: () => place.go("changes", { ...filters, from: new Date(Date.now() - milliseconds).toISOString(), to: "" }) }, say(key));
  return element(
    "div",
    { class: "row presets", role: "group", "aria-label": say("changes.presets") },
    preset("changes.preset.day", DAY_MS),
    preset("changes.preset.week", 7 * DAY_MS),
    preset("changes.preset.month", 30 * DAY_MS),
  );
}

/** A time of the address as a field of the visitor's zone shows it, and back. */
const toField = (text) => {
  const at = new Date(text);
  return text && !Number.isNaN(at.getTime()) ? localTime(text).replace(" ", "T") : "";
};
const fromField = (text) => (text ? new Date(text).toISOString() : "");
const second = (text) => Math.floor(new Date(text).getTime() / 1000);
const isSameSecond = (field, text) => field !== "" && text !== "" && second(field) === second(text);

function filterForm(place, filters) {
  const text = (name, more = {}) => element("input", { name, value: filters[name], ...more });
  const moment = (name) => element("input", { name, type: "datetime-local", step: "1", value: toField(filters[name]) });
  const choice = (name, words) =>
    element("select", { name }, element("option", { value: "" }, say("any")), words.map((word) => element("option", { value: word, selected: filters[name] === word }, say(`${name}.${word}`))));
  const controls = {
    from: moment("from"),
    to: moment("to"),
    outcome: choice("outcome", OUTCOMES),
    operation: choice("operation", OPERATIONS),
    image_id: text("image_id"),
    account_id: text("account_id", { inputMode: "numeric", pattern: "[1-9][0-9]*" }),
    subject: text("subject"),
    request_id: text("request_id"),
  };
  const apply = (sent) => {
    sent.preventDefault();
    const asked = Object.entries(controls).map(([name, control]) => [name, control.value.trim()]);
    const given = Object.fromEntries(asked);
    // What the field rounds, the address keeps, unless it was touched.
    for (const name of ["from", "to"]) {
      given[name] = isSameSecond(given[name], filters[name]) ? filters[name] : fromField(given[name]);
    }
    place.go("changes", given);
  };
  return element(
    "form",
    { class: "filters", onsubmit: apply, "aria-label": say("changes.filters") },
    Object.entries(controls).map(([name, control]) => labelled(say(name), control)),
    element("div", { class: "row" },
      element("button", { type: "submit" }, say("changes.apply")),
      element("button", { type: "button", class: "plain", onclick: () => place.go("changes") }, say("changes.clear")),
    ),
  );
}

function bucketFor({ from, to }) {
  const end = to ? Date.parse(to) : Date.now();
  return from && end - Date.parse(from) <= BY_HOUR_MS ? "hour" : "day";
}

async function drawPlot(view) {
  const { parts, filters, place, signal } = view;
  const bucket = bucketFor(filters);
  let counted;
  try {
    counted = await api.summary({ ...filters, bucket }, { signal });
  } catch (error) {
    // The table says the same where it fails too.
    if (error.name !== "AbortError") fill(parts.plot);
    return;
  }
  const zoom = (from, to) => place.go("changes", { ...filters, from: from.toISOString(), to: to.toISOString() });
  view.plot?.destroy();
  view.plot = timeline(parts.plot, counted, zoom, signal);
}

async function drawList(view) {
  const { parts, filters, cursor, place, signal } = view;
  let page;
  try {
    page = await api.events({ ...filters, cursor, limit: PAGE_EVENTS }, { signal });
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) throw error;
    fill(parts.list, failure(error, () => drawList(view)));
    return;
  }
  const known = view.known;
  const isNew = (event) => known !== null && !known.has(event.id);
  view.known = new Set([...(known ?? []), ...page.events.map((event) => event.id)]);
  const pages = element(
    "div",
    { class: "row pages" },
    cursor && element("a", { class: "button", href: address("changes", filters) }, say("changes.first")),
    page.next_cursor && element("a", { class: "button", href: address("changes", { ...filters, cursor: page.next_cursor }), rel: "next" }, say("changes.next")),
    element("button", { type: "button", class: "plain", onclick: (clicked) => download(clicked.currentTarget, filters, parts.told) }, say("changes.csv")),
  );
  const focused = parts.list.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  fill(parts.list, page.events.length === 0 ? empty(say("changes.empty")) : eventTable(say("changes.table"), page.events, undefined, isNew), pages);
  // Drawn anew while somebody reads it: the keyboard stays where it was.
  if (focused) parts.list.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  return page.events.filter(isNew);
}

async function download(button, filters, told) {
  button.disabled = true;
  try {
    const saved = URL.createObjectURL(await api.csv(filters));
    element("a", { href: saved, download: "changes.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(saved), 60_000);
  } catch (error) {
    told.textContent = error.message;
  }
  button.disabled = false;
}

async function followChanges(view, signal) {
  const { parts } = view;
  let tableSoon = null;
  let plotSoon = null;
  const redrawTable = async () => {
    tableSoon = null;
    const fresh = (await drawList(view)) ?? [];
    if (fresh.length > 0 && !signal.aborted) {
      const { operation, image_id: image } = fresh[0];
      parts.told.textContent = say("changes.live.new", { operation: say(`operation.${operation}`), image });
    }
  };
  const take = () => {
    // Deeper pages stand still: what is new is on the first.
    if (!view.cursor) tableSoon ??= setTimeout(redrawTable, LIVE_TABLE_MS);
    plotSoon ??= setTimeout(() => { plotSoon = null; drawPlot(view); }, LIVE_PLOT_MS);
  };
  signal.addEventListener("abort", () => {
    clearTimeout(tableSoon);
    clearTimeout(plotSoon);
  });
  const begun = () => {
    parts.told.textContent = say("changes.live.on");
    // What was written between the page and the beginning of the stream.
    take();
  };
  await api.follow(take, begun, signal);
}
