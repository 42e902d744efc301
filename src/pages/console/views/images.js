// The images that can be shared, as the upstream lists them.

import * as api from "../api.js";
import { element, fill, labelled, table } from "../dom.js";
import { address, foreign, none, time } from "../parts.js";
import { empty } from "../states.js";
import { say } from "../words.js";

const PAGE_IMAGES = 50;

export async function imagesView(place) {
  const stop = new AbortController();
  place.whenLeft(() => stop.abort());
  const { cursor = "" } = place.parameters;
  const served = await api.regions();
  const region = place.parameters.region || served.default;
  const page = await api.images({ cursor, region, limit: PAGE_IMAGES }, { signal: stop.signal });
  const columns = [
    [say("image_id"), (one) => element("a", { href: address("access", { image_id: one.image_id, region }), title: say("images.access") }, one.image_id)],
    [say("images.name"), (one) => (one.name === null ? none() : foreign(one.name))],
    [say("images.status"), (one) => one.status ?? none()],
    [say("images.size"), (one) => (one.size_mb === null ? none() : `${one.size_mb} MB`)],
    [say("images.made"), (one) => time(one.created_at)],
    [say("images.description"), (one) => (one.description ? foreign(one.description) : none())],
  ];
  const choice = element("select", { name: "region", onchange: (chosen) => place.go("images", { region: chosen.target.value }) }, served.all.map((name) => element("option", { value: name, selected: name === region }, name)));
  const nothing = page.next_cursor || cursor ? say("images.page") : say("images.empty");
  fill(
    place.main,
    element("h1", {}, say("images.title")),
    served.all.length > 1 && element("div", { class: "filters" }, labelled(say("region"), choice)),
    page.images.length === 0 ? empty(nothing) : table(say("images.title"), columns, page.images),
    element("div", { class: "row pages" },
      cursor && element("a", { class: "button", href: address("images", { region }) }, say("changes.first")),
      page.next_cursor && element("a", { class: "button", href: address("images", { region, cursor: page.next_cursor }), rel: "next" }, say("changes.next")),
    ),
  );
}
