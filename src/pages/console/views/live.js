// Live mode of the changes: the trail's feed says when to ask anew, and what came is shown and said.

import * as api from "../api.js";
import { element } from "../dom.js";
import { address } from "../parts.js";
import { briefly } from "../states.js";
import { say } from "../words.js";

/** How soon after a row was written the table shows it: many rows that come at once are asked for once. */
const TABLE_MS = 300;
const PLOT_MS = 3000;
/** For how long what is new stands out. */
const NEW_MS = 10_000;

// Whoever turned it on keeps it over filters, pages and languages.
let wanted = false;

export class Live {
  constructor(view, draw) {
    this.view = view;
    this.draw = draw;
    this.stop = null;
    /** Outcomes as they were last seen, by event; when an event came or ended. */
    this.seen = null;
    this.since = new Map();
    this.button = element("button", { type: "button", "aria-pressed": "false", onclick: () => this.turn() }, say("changes.live"));
  }

  /** What is shown already is not new; null where nothing could be shown. */
  know(events) {
    this.seen = events === null ? null : new Map(events.map((event) => [event.id, event.outcome]));
  }

  turn() {
    wanted = this.stop === null;
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

  resume() {
    if (wanted && !this.view.cursor && !this.view.signal.aborted) this.begin();
  }

  leave() {
    this.stop?.abort();
    this.stop = null;
    clearTimeout(this.tableSoon);
    clearTimeout(this.plotSoon);
    this.button.setAttribute("aria-pressed", "false");
  }

  async begin() {
    const stop = (this.stop = new AbortController());
    this.button.setAttribute("aria-pressed", "true");
    const tell = (state) => {
      this.view.told.textContent = say(state === "on" ? "changes.live.on" : "changes.live.waits");
      // What was written before the stream began, or while it was not there.
      if (state === "on") this.note();
    };
    try {
      await api.follow(() => this.note(), tell, stop.signal);
    } catch (error) {
      if (error.name === "AbortError" || stop.signal.aborted) return;
      wanted = false;
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

  /** One at a time: what comes meanwhile is asked for after it. */
  async redraw() {
    const stop = this.stop;
    const isNew = (event) => this.compare(event);
    const events = await this.draw.drawList(this.view, { quietly: true, isNew });
    this.tableSoon = null;
    if (events === null || stop === null || stop.signal.aborted) return;
    const first = this.seen === null;
    const fresh = events.filter((event) => this.seen?.get(event.id) !== event.outcome);
    this.seen = new Map([...(this.seen ?? []), ...events.map((event) => [event.id, event.outcome])]);
    if (first || fresh.length === 0) return;
    const [newest] = fresh;
    const words = { count: fresh.length, outcome: say(`outcome.${newest.outcome}`), operation: say(`operation.${newest.operation}`), image: newest.image_id };
    this.view.told.textContent = say(fresh.length === 1 ? "changes.live.one" : "changes.live.several", words);
  }

  /** Whether an event came, or ended, a moment ago. */
  compare(event) {
    if (this.seen === null) return false;
    const now = Date.now();
    if (this.seen.get(event.id) !== event.outcome) this.since.set(event.id, now);
    return now - (this.since.get(event.id) ?? 0) < NEW_MS;
  }
}
