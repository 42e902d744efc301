// The console's frame: who is signed in, which view the address names, in which language.

import * as api from "./api.js";
import { element, fill, labelled } from "./dom.js";
import { failure, loading } from "./states.js";
import { currentLanguage, languageTag, localTime, say, switchLanguage } from "./words.js";
import { accessView } from "./views/access.js";
import { changesView } from "./views/changes.js";
import { eventView } from "./views/event.js";
import { imagesView } from "./views/images.js";

const VIEWS = { changes: changesView, events: eventView, access: accessView, images: imagesView };
const page = document.getElementById("page");

let visitor = null;
let leave = () => {};
let shown = 0;

/** `#/events/ID?x=y` as view, rest of the path and parameters. */
function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name = "", ...rest] = path.split("/").map(decodeURIComponent);
  const view = Object.hasOwn(VIEWS, name) ? name : "changes";
  return { view, rest, parameters: Object.fromEntries(new URLSearchParams(query)) };
}

function header() {
  const { view } = address();
  const entry = (name, key) =>
    element("a", { href: `#/${name}`, "aria-current": view === name ? "page" : null }, say(key));
  return element(
    "header",
    { class: "top" },
    element("a", { class: "skip", href: "#main", onclick: skip }, say("skip")),
    element("a", { class: "brand", href: "#/changes" }, "image-share-gateway"),
    visitor && element("nav", { "aria-label": say("nav") }, entry("changes", "nav.changes"), entry("access", "nav.access"), entry("images", "nav.images")),
    element("div", { class: "aside" },
      element("a", { href: "../swagger-ui/" }, say("nav.api")),
      element("button", { type: "button", class: "plain", lang: currentLanguage() === "zh" ? "en" : "zh-CN", onclick: turnLanguage }, say("language.other")),
      visitor && element("span", { class: "visitor", title: say("signedin.until", { time: localTime(visitor.expires_at) }) }, say("signedin", { subject: visitor.subject })),
      visitor && element("button", { type: "button", class: "plain", onclick: () => signOut() }, say("signout")),
    ),
  );
}

function skip(clicked) {
  clicked.preventDefault();
  document.getElementById("main").focus();
}

function turnLanguage() {
  switchLanguage();
  show();
  page.querySelector("header .aside button").focus();
}

function signOut(why = null) {
  api.useToken(null);
  visitor = null;
  show(why);
}

async function signIn(token, tell) {
  try {
    api.useToken(token.trim());
    visitor = await api.whoami();
  } catch (error) {
    api.useToken(null);
    fill(tell, failure(error));
    return;
  }
  await show();
}

function signInView(why) {
  const field = element("input", { type: "password", name: "token", autocomplete: "off", required: true, spellcheck: false });
  const tell = element("div", { "aria-live": "polite" }, why && element("p", { class: "note" }, why));
  const offered = element("div", { class: "offered" });
  const form = element(
    "form",
    { class: "signin", onsubmit: (sent) => { sent.preventDefault(); signIn(field.value, tell); } },
    element("h1", {}, say("signin.title")),
    labelled(say("signin.token"), field),
    element("button", { type: "submit" }, say("signin.button")),
    element("p", { class: "soft" }, say("signin.hint")),
    tell,
    offered,
  );
  api.sandboxTokens().then((tokens) => {
    if (tokens.length === 0) return;
    const button = ({ role, token }) =>
      element("button", { type: "button", onclick: () => signIn(token, tell) }, say(`signin.use.${role}`));
    fill(offered, element("p", {}, say("signin.sandbox")), element("div", { class: "row" }, tokens.map(button)));
  }, () => {});
  return form;
}

/** Draws all of it anew. */
async function show(why = null) {
  leave();
  leave = () => {};
  const turn = (shown += 1);
  document.documentElement.lang = languageTag();
  const main = element("main", { id: "main", tabIndex: -1 });
  fill(page, header(), main);
  if (!visitor) {
    document.title = `${say("signin.title")} · image-share-gateway`;
    fill(main, signInView(why));
    main.querySelector("input").focus();
    return;
  }
  const { view, rest, parameters } = address();
  const title = say(`${view === "events" ? "event" : view}.title`);
  document.title = `${title} · image-share-gateway`;
  fill(main, element("h1", {}, title), loading());
  const place = { main, parameters, rest, go, whenLeft: (ended) => { leave = ended; }, isShown: () => turn === shown };
  try {
    await VIEWS[view](place);
  } catch (error) {
    if (turn === shown) refuse(main, title, error);
  }
}

function refuse(main, title, error) {
  if (error.name === "AbortError") return;
  if (error instanceof api.Refused && error.status === 401) {
    signOut(say("signin.over"));
    return;
  }
  fill(main, element("h1", {}, title), failure(error, () => show()));
}

/** To another address; the same one is shown anew. */
function go(view, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(given).toString();
  const hash = `#/${view}${query ? `?${query}` : ""}`;
  if (location.hash === hash) show();
  else location.hash = hash;
}

addEventListener("hashchange", async () => {
  if (location.hash === "#main") return;
  await show();
  if (visitor) document.getElementById("main").focus({ preventScroll: true });
});
addEventListener("unhandledrejection", (rejected) => {
  if (rejected.reason?.name === "AbortError") rejected.preventDefault();
});
show();
