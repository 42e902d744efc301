// Live mode of the changes: the trail's feed says when to ask anew, and what came is shown and said.

import * as api from "../api.js";
import { element } from "../dom.js";
import { address } from "../parts.js";
import { briefly } from "../states.js";
import { say } from "../words.js";

/** How soon after a row was written the table shows it: many rows that come at once are asked for once. */
const TABLE_MS = 300;
const PLOT_MS = 3000;
/** What is drawn so long after it came still stands out. */
const NEW_MS = 10_000;

// Whoever turned it on keeps it over filters, pages and languages, until he signs out.
let wanted = false;

export function forgetLive() {
  wanted = false;
}

export class Live {
  constructor(view, draw) {
    this.view = view;
    this.draw = draw;
    this.stop = null;
    /** Outcomes as they were last seen, by event, and when an event came or ended. */
    this.seen = null;
    this.since = new Map();
    this.button = element("button", { type: "button", "aria-pressed": String(wanted && !view.cursor), onclick: () => this.turn() }, say("changes.live"));
  }

  /** What is shown already is not new; null where nothing could be shown. */
  know(events) {
    if (events !== null) this.seen ??= outcomesOf(events);
  }

  turn() {
    wanted = !(wanted && !this.view.cursor);
    this.press();
    if (!wanted) {
      this.leave();
      this.view.told.textContent = "";
    } else if (this.view.cursor) {
      // What is new is on the first page.
      location.hash = address("changes", this.view.filters);
    } else {
      this.begin();
    }
  }

  press() {
    this.button.setAttribute("aria-pressed", String(wanted));
  }

  resume() {
    if (wanted && !this.view.cursor && !this.view.signal.aborted) this.begin();
  }

  leave() {
    this.stop?.abort();
    this.stop = null;
    clearTimeout(this.tableSoon);
    clearTimeout(this.plotSoon);
    this.tableSoon = this.plotSoon = null;
  }

  async begin() {
    if (this.stop !== null) return;
    const stop = (this.stop = new AbortController());
    const tell = (error = null) => {
      this.view.told.textContent = error === null ? say("changes.live.on") : `${say("changes.live.waits")} ${briefly(error)}`;
      // What was written before the stream began, or while it was not there.
      if (error === null) this.note();
    };
    try {
      await api.follow(() => this.note(), tell, stop.signal);
    } catch (error) {
      if (stop.signal.aborted) return;
      wanted = false;
      this.press();
      this.leave();
      this.view.told.textContent = `${say("changes.live.over")} ${briefly(error)}`;
    }
  }

  /** Something was written. */
  note() {
    this.tableSoon ??= setTimeout(() => this.redraw(), TABLE_MS);
    this.plotSoon ??= setTimeout(() => {
      this.plotSoon = null;
      this.draw.drawPlot(this.view, { quietly: true });
    }, PLOT_MS);
  }

  /** What is written while it is asked for is asked for after it; of two answers the later one is shown. */
  async redraw() {
    const stop = this.stop;
    this.tableSoon = null;
    const events = await this.draw.drawList(this.view, { quietly: true, isNew: (event) => this.isNew(event) });
    if (stop === null || stop.signal.aborted || events === null) return;
    const before = this.seen;
    this.seen = new Map([...(before ?? []), ...outcomesOf(events)]);
    const fresh = before === null ? [] : events.filter((event) => before.get(event.id) !== event.outcome);
    if (fresh.length === 0) return;
    const [newest] = fresh;
    const words = { count: fresh.length, outcome: say(`outcome.${newest.outcome}`), operation: say(`operation.${newest.operation}`), image: newest.image_id };
    this.view.told.textContent = say(fresh.length === 1 ? "changes.live.one" : "changes.live.several", words);
  }

  /** Whether an event came, or ended, a moment ago. */
  isNew(event) {
    if (this.seen === null) return false;
    const now = Date.now();
    if (this.seen.get(event.id) !== event.outcome) this.since.set(event.id, now);
    return now - (this.since.get(event.id) ?? 0) < NEW_MS;
  }
}

const outcomesOf = (events) => new Map(events.map((event) => [event.id, event.outcome]));
