// The plot of changes over time: a stacked bar a bucket, one colour an outcome; the same as a table beside it.

import uPlot from "./vendor/uPlot.esm.js";
import { element, fill, table } from "./dom.js";
import { OUTCOMES, outcome } from "./parts.js";
import { localTime, say } from "./words.js";

const HEIGHT = 220;
const BAR_SHARE = 0.8;
const BAR_PIXELS_MAX = 48;
/** Room for a day on the axis. */
const LABEL_PIXELS = 90;
const DRAG_PIXELS_MIN = 4;
const WIDTH_MS = { hour: 3_600_000, day: 86_400_000 };

/**
 * Draws `counted`, a summary of the API, into `place`, with `asked.note` beside it. `zoom(from, to)` is called with two dates
 * within what was asked for where a visitor drags, or takes one bucket.
 */
export function timeline(place, counted, asked, zoom) {
  const { bucket, buckets } = counted;
  const totals = Object.fromEntries(OUTCOMES.map((word) => [word, buckets.reduce((sum, one) => sum + one.counts[word], 0)]));
  const present = OUTCOMES.filter((word) => totals[word] > 0);
  const all = present.reduce((sum, word) => sum + totals[word], 0);
  const counts = present.map((word) => `${totals[word]} ${say(`outcome.${word}`)}`);
  const described = all === 0 ? say("changes.plot.nothing") : say("changes.plot", { total: all, counts: counts.join(", ") });
  const canvas = element("div", { class: "canvas", role: "img", "aria-label": described });
  const legend = present.map((word) => element("li", {}, outcome(word), ` ${totals[word]}`));
  const times = buckets.map((one) => Date.parse(one.start));
  const span = [times[0], times.at(-1) + WIDTH_MS[bucket]];
  const low = Math.max(span[0], asked.from ? Date.parse(asked.from) : -Infinity);
  const high = Math.min(span[1], asked.to ? Date.parse(asked.to) : Date.now());
  const within = (from, to) => {
    const [begin, end] = [Math.max(from, low), Math.min(to, high)];
    if (begin < end) zoom(new Date(begin), new Date(end));
  };
  fill(
    place,
    canvas,
    element("div", { class: "row" },
      all === 0 ? element("span", { class: "soft" }, say("changes.plot.nothing")) : element("ul", { class: "legend" }, legend),
      element("span", { class: "soft" }, [say(`bucket.${bucket}`), asked.note].filter(Boolean).join(" · "), element("span", { class: "draghint" }, ` · ${say("changes.plot.hint")}`)),
    ),
    asTable(bucket, buckets, within),
  );
  const plot = draw(canvas, times.map((time) => time + WIDTH_MS[bucket] / 2), span, buckets, within);
  const resized = new ResizeObserver(() => plot.setSize({ width: canvas.clientWidth, height: HEIGHT }));
  resized.observe(canvas);
  return {
    destroy() {
      resized.disconnect();
      plot.destroy();
    },
  };
}

const pad = (number) => String(number).padStart(2, "0");

/** A place on the axis: the time of day, or the day where one begins. */
function moment(seconds) {
  const at = new Date(seconds * 1000);
  const begins = at.getHours() === 0 && at.getMinutes() === 0;
  return begins ? `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}` : `${pad(at.getHours())}:${pad(at.getMinutes())}`;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function draw(canvas, middles, [begin, end], buckets, zoom) {
  // Each series reaches from the ground to the top of its own part, the tallest drawn first.
  const stacked = OUTCOMES.map((_, index) =>
    buckets.map((one) => OUTCOMES.slice(index).reduce((sum, word) => sum + one.counts[word], 0)));
  const bars = uPlot.paths.bars({ size: [BAR_SHARE, BAR_PIXELS_MAX] });
  const line = { stroke: colour("--line"), width: 1 };
  const axis = { stroke: colour("--soft"), grid: line, ticks: line, font: "12px system-ui" };
  const options = {
    width: canvas.clientWidth || 600,
    height: HEIGHT,
    padding: [8, LABEL_PIXELS / 2, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: true, y: false, setScale: false }, points: { show: false } },
    // What is counted, whatever lies in it: of one bucket alone the library would not know how wide it is.
    scales: { x: { range: () => [begin / 1000, end / 1000] }, y: { range: (_, low, high) => [0, Math.max(high * 1.05, 1)] } },
    axes: [
      { ...axis, space: LABEL_PIXELS, values: (_, splits) => splits.map(moment) },
      { ...axis, size: 52, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 1000000] },
    ],
    series: [{}, ...OUTCOMES.map((word) => ({ label: word, fill: colour(`--outcome-${word}`), stroke: colour(`--outcome-${word}`), width: 0, paths: bars, points: { show: false } }))],
    hooks: {
      setSelect: [(plot) => {
        const { left, width } = plot.select;
        if (width < DRAG_PIXELS_MIN) return;
        const at = (pixels) => Math.round(plot.posToVal(pixels, "x") * 1000);
        zoom(at(left), at(left + width));
      }],
    },
  };
  return new uPlot(options, [middles.map((time) => time / 1000), ...stacked], canvas);
}

function asTable(bucket, buckets, zoom) {
  const shown = buckets.filter((one) => OUTCOMES.some((word) => one.counts[word] > 0)).reverse();
  const into = (one) => {
    const [time, begin] = [localTime(one.start), Date.parse(one.start)];
    return element("button", { type: "button", class: "link", "aria-label": say("changes.plot.zoom", { time }), onclick: () => zoom(begin, begin + WIDTH_MS[bucket]) }, time);
  };
  const columns = [[say("start"), into], ...OUTCOMES.map((word) => [say(`outcome.${word}`), (one) => String(one.counts[word])])];
  return element(
    "details",
    {},
    element("summary", {}, say("changes.plot.table")),
    table(say("changes.plot.table"), columns, shown),
  );
}
