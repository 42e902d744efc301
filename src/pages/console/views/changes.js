// What was changed: plot over time, filters, table, page by page, and what is written now.

import * as api from "../api.js";
import { element, fill, labelled } from "../dom.js";
import { OPERATIONS, OUTCOMES, address, eventTable, foreign } from "../parts.js";
import { briefly, empty, failure, loading } from "../states.js";
import { localTime, say } from "../words.js";
import { timeline } from "../timeline.js";
import { Live } from "./live.js";

const FILTERS = ["from", "to", "subject", "image_id", "account_id", "operation", "outcome", "request_id"];
const PAGE_EVENTS = 50;
const DAY_MS = 86_400_000;
/** Up to so long a time is counted by the hour, and so many days at most: the API counts a thousand buckets. */
const BY_HOUR_MS = 14 * DAY_MS;
const DAYS_MAX = 999;
/** What the API counts where no beginning is given. */
const REACH_DEFAULT_MS = 30 * DAY_MS;
const WIDE = "(min-width: 40rem)";

export async function changesView(place) {
  if (!place.mayAudit) {
    fill(place.main, element("h1", {}, say("changes.title")), empty(say("changes.forbidden")));
    return;
  }
  const filters = Object.fromEntries(FILTERS.map((name) => [name, place.parameters[name] ?? ""]));
  const others = Object.keys(place.parameters).filter((name) => !FILTERS.includes(name) && name !== "cursor");
  const stop = new AbortController();
  const view = {
    place, filters, cursor: place.parameters.cursor ?? "", signal: stop.signal, turns: { plot: 0, list: 0 },
    plotPlace: element("section", { class: "plot", "aria-label": say("changes.over") }, loading()),
    listPlace: element("section", {}, loading()),
    told: element("p", { class: "note", role: "status" }),
  };
  const live = new Live(view, { drawList, drawPlot });
  fill(
    place.main,
    element("div", { class: "heading" }, element("h1", {}, say("changes.title")), presets(place, filters), live.button),
    others.length > 0 && element("p", { class: "warning" }, say("changes.ignored"), " ", others.map((name) => [foreign(name), " "])),
    filterForm(place, filters),
    view.told,
    view.plotPlace,
    view.listPlace,
  );
  // Colours are read when a plot is drawn: another scheme is another plot.
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawPlot(view), { signal: stop.signal });
  place.whenLeft(() => {
    stop.abort();
    live.leave();
    view.plot?.destroy();
  });
  const [events] = await Promise.all([drawList(view), drawPlot(view)]);
  live.know(events);
  live.resume();
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

/** A time of the address, as a field of the visitor's zone shows it. */
function toField(text) {
  const at = new Date(text);
  return text && !Number.isNaN(at.getTime()) ? localTime(text).replace(" ", "T") : "";
}

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
  // As the browser writes them: what is not touched stays what the address says, to its last digit.
  const before = { from: controls.from.value, to: controls.to.value };
  const apply = (sent) => {
    sent.preventDefault();
    const given = Object.fromEntries(Object.entries(controls).map(([name, control]) => [name, control.value.trim()]));
    for (const name of ["from", "to"]) {
      if (given[name] !== "" && given[name] === before[name]) given[name] = filters[name];
      else if (given[name]) given[name] = new Date(given[name]).toISOString();
    }
    place.go("changes", given);
  };
  const event = element("input", { name: "event_id" });
  const find = (sent) => {
    sent.preventDefault();
    if (event.value.trim()) place.go(`events/${encodeURIComponent(event.value.trim())}`);
  };
  return element(
    "details",
    { class: "filterbox", open: matchMedia(WIDE).matches },
    element("summary", {}, say("changes.filters")),
    element(
      "form",
      { class: "filters", onsubmit: apply, "aria-label": say("changes.filters") },
      Object.entries(controls).map(([name, control]) => labelled(say(name), control)),
      element("div", { class: "row" },
        element("button", { type: "submit" }, say("changes.apply")),
        element("button", { type: "button", class: "plain", onclick: () => place.go("changes") }, say("changes.clear")),
      ),
    ),
    element("form", { class: "filters find", onsubmit: find, "aria-label": say("changes.find") }, labelled("Audit-Id", event), element("div", { class: "row" }, element("button", { type: "submit", class: "plain" }, say("changes.find")))),
  );
}

/** What of the time asked for is counted, and by which buckets. */
function counted({ from, to }) {
  const end = to ? Date.parse(to) : Date.now();
  // What is no time is for the API to refuse.
  if (Number.isNaN(end) || (from && Number.isNaN(Date.parse(from)))) return { bucket: "day", from };
  if (!from) return { bucket: "day", from: new Date(end - REACH_DEFAULT_MS).toISOString(), note: say("changes.reach", { days: REACH_DEFAULT_MS / DAY_MS }) };
  const span = end - Date.parse(from);
  if (span <= BY_HOUR_MS) return { bucket: "hour", from };
  if (span <= DAYS_MAX * DAY_MS) return { bucket: "day", from };
  return { bucket: "day", from: new Date(end - DAYS_MAX * DAY_MS).toISOString(), note: say("changes.reach", { days: DAYS_MAX }) };
}

/** Draws the plot; an answer that another was asked for since is left out. */
async function drawPlot(view, { quietly = false } = {}) {
  const turn = (view.turns.plot += 1);
  const asked = counted(view.filters);
  let answer;
  try {
    answer = await api.summary({ ...view.filters, from: asked.from, bucket: asked.bucket }, { signal: view.signal });
  } catch (error) {
    if (error.name === "AbortError" || error.status === 401 || turn !== view.turns.plot || quietly) return;
    fill(view.plotPlace, failure(error, () => drawPlot(view)));
    return;
  }
  if (turn !== view.turns.plot || view.signal.aborted) return;
  const opened = view.plotPlace.querySelector("details")?.open ?? false;
  const held = view.plotPlace.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  const zoom = (from, to) => view.place.go("changes", { ...view.filters, from: from.toISOString(), to: to.toISOString() });
  view.plot?.destroy();
  view.plot = timeline(view.plotPlace, answer, { from: view.filters.from, to: view.filters.to, note: asked.note }, zoom);
  // Drawn anew while somebody reads its table: it stays open, and the keyboard where it was.
  view.plotPlace.querySelector("details").open = opened;
  if (held) view.plotPlace.querySelector(`[aria-label="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
}

/** Draws the table; gives the events that it shows, or nothing where they are not there. */
async function drawList(view, { quietly = false, isNew = () => false } = {}) {
  const { filters, cursor, listPlace } = view;
  const turn = (view.turns.list += 1);
  let page;
  try {
    page = await api.events({ ...filters, cursor, limit: PAGE_EVENTS }, { signal: view.signal });
  } catch (error) {
    if (error.name === "AbortError" || error.status === 401 || turn !== view.turns.list) return null;
    // What stands there is still true of a moment ago.
    if (quietly) view.told.textContent = briefly(error);
    else fill(listPlace, failure(error, () => drawList(view)));
    return null;
  }
  if (turn !== view.turns.list || view.signal.aborted) return null;
  const pages = element(
    "div",
    { class: "row pages" },
    cursor && element("a", { class: "button", href: address("changes", filters) }, say("changes.first")),
    page.next_cursor && element("a", { class: "button", href: address("changes", { ...filters, cursor: page.next_cursor }), rel: "next" }, say("changes.next")),
    element("button", { type: "button", class: "plain", onclick: (clicked) => download(clicked.currentTarget, filters, view.told) }, say("changes.csv")),
  );
  const focused = listPlace.contains(document.activeElement) ? placeOf(document.activeElement) : null;
  const rows = page.events.length === 0 ? empty(say("changes.empty")) : eventTable(say("changes.table"), page.events, undefined, isNew);
  fill(listPlace, rows, pages);
  // Drawn anew while somebody reads it: the keyboard stays where it was.
  if (focused) listPlace.querySelector(focused)?.focus({ preventScroll: true });
  return page.events;
}

/** What finds the same control once the table is drawn anew. */
function placeOf(control) {
  const row = control.closest("[data-event]")?.dataset.event;
  const within = row ? `[data-event="${CSS.escape(row)}"] ` : "";
  const href = control.getAttribute("href");
  return href ? `${within}a[href="${CSS.escape(href)}"]` : control.tagName === "BUTTON" ? ".pages button" : ".table";
}

async function download(button, filters, told) {
  button.disabled = true;
  try {
    const saved = URL.createObjectURL(await api.csv(filters));
    element("a", { href: saved, download: "changes.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(saved), 60_000);
  } catch (error) {
    told.textContent = briefly(error);
  }
  button.disabled = false;
}
