// The plot of changes over time: a stacked bar a bucket, one colour an outcome; the same as a table beside it.

import uPlot from "./vendor/uPlot.esm.js";
import { element, fill, table } from "./dom.js";
import { OUTCOMES, outcome } from "./parts.js";
import { localTime, say } from "./words.js";

const HEIGHT = 220;
const BAR_SHARE = 0.8;
const BAR_PIXELS_MAX = 48;
const WIDTH_MS = { hour: 3_600_000, day: 86_400_000 };

/**
 * Draws `counted`, a summary of the API, into `place`. `zoom(from, to)` is called with two dates where a visitor drags.
 */
export function timeline(place, counted, zoom, signal) {
  const { bucket, buckets } = counted;
  const totals = Object.fromEntries(OUTCOMES.map((word) => [word, buckets.reduce((sum, one) => sum + one.counts[word], 0)]));
  const all = OUTCOMES.reduce((sum, word) => sum + totals[word], 0);
  const counts = OUTCOMES.filter((word) => totals[word] > 0).map((word) => `${totals[word]} ${say(`outcome.${word}`)}`);
  const described = say("changes.plot", { total: all, counts: counts.join(", ") || "0" });
  const canvas = element("div", { class: "canvas", role: "img", "aria-label": described });
  const legend = OUTCOMES.filter((word) => totals[word] > 0).map((word) => element("li", {}, outcome(word), ` ${totals[word]}`));
  fill(
    place,
    canvas,
    element("div", { class: "row" }, element("ul", { class: "legend" }, legend), element("span", { class: "soft" }, `${say(`bucket.${bucket}`)} · ${say("changes.plot.hint")}`)),
    asTable(bucket, buckets, zoom),
  );
  const plot = draw(canvas, bucket, buckets, zoom);
  const resized = new ResizeObserver(() => plot.setSize({ width: canvas.clientWidth, height: HEIGHT }));
  resized.observe(canvas);
  // Colours are read once: another scheme is another plot.
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", () => { end(); timeline(place, counted, zoom, signal); }, { once: true, signal });
  signal.addEventListener("abort", end);
  function end() {
    resized.disconnect();
    plot.destroy();
  }
  return { destroy: end };
}

const pad = (number) => String(number).padStart(2, "0");

/** A place on the axis: the time of day, or the day where one begins. */
function moment(seconds) {
  const at = new Date(seconds * 1000);
  const begins = at.getHours() === 0 && at.getMinutes() === 0;
  return begins ? `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}` : `${pad(at.getHours())}:${pad(at.getMinutes())}`;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function draw(canvas, bucket, buckets, zoom) {
  // In the middle of its time, so that bars stand over their bucket.
  const half = WIDTH_MS[bucket] / 2000;
  const times = buckets.map((one) => Date.parse(one.start) / 1000 + half);
  // Each series reaches from the ground to the top of its own part, the tallest drawn first.
  const stacked = OUTCOMES.map((_, index) =>
    buckets.map((one) => OUTCOMES.slice(index).reduce((sum, word) => sum + one.counts[word], 0)));
  const bars = uPlot.paths.bars({ size: [BAR_SHARE, BAR_PIXELS_MAX] });
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "12px system-ui" };
  const options = {
    width: canvas.clientWidth || 600,
    height: HEIGHT,
    legend: { show: false },
    cursor: { drag: { x: true, y: false, setScale: false }, points: { show: false } },
    scales: { x: { range: (_, low, high) => [low - half, high + half] }, y: { range: (_, low, high) => [0, Math.max(high * 1.05, 1)] } },
    axes: [{ ...axis, values: (_, splits) => splits.map(moment) }, { ...axis, size: 52, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000] }],
    series: [{}, ...OUTCOMES.map((word) => ({ label: word, fill: colour(`--outcome-${word}`), stroke: colour(`--outcome-${word}`), width: 0, paths: bars, points: { show: false } }))],
    hooks: {
      setSelect: [(plot) => {
        const { left, width } = plot.select;
        if (width < 4) return;
        const at = (pixels) => new Date(Math.round(plot.posToVal(pixels, "x") * 1000));
        zoom(at(left), at(left + width));
      }],
    },
  };
  return new uPlot(options, [times, ...stacked], canvas);
}

function asTable(bucket, buckets, zoom) {
  const shown = buckets.filter((one) => OUTCOMES.some((word) => one.counts[word] > 0)).reverse();
  const until = (one) => new Date(Date.parse(one.start) + WIDTH_MS[bucket]);
  const into = (one) => {
    const time = localTime(one.start);
    return element("button", { type: "button", class: "link", "aria-label": say("changes.plot.zoom", { time }), onclick: () => zoom(new Date(one.start), until(one)) }, time);
  };
  const columns = [[say("start"), into], ...OUTCOMES.map((word) => [say(`outcome.${word}`), (one) => String(one.counts[word])])];
  return element(
    "details",
    {},
    element("summary", {}, say("changes.plot.table")),
    table(say("changes.plot.table"), columns, shown),
  );
}
