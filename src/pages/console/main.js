// The console's frame: who is signed in, which view the address names, in which language.

import * as api from "./api.js";
import { element, fill, labelled } from "./dom.js";
import { foreign } from "./parts.js";
import { empty, failure, loading } from "./states.js";
import { languageTag, localTime, otherLanguageTag, say, switchLanguage, zone } from "./words.js";
import { accessView } from "./views/access.js";
import { changesView } from "./views/changes.js";
import { eventView } from "./views/event.js";
import { imagesView } from "./views/images.js";
import { forgetLive } from "./views/live.js";

const VIEWS = { changes: changesView, events: eventView, access: accessView, images: imagesView };
const page = document.getElementById("page");

let visitor = null;
let leave = () => {};
let shown = 0;
let attempts = 0;
/** Why the visitor was signed out. */
let told = null;

const mayAudit = () => visitor?.scopes.includes("audit:read") ?? false;

/** `#/events/ID?x=y` as view, rest of the path and parameters; a view of null is none that there is. */
function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const parameters = Object.fromEntries(new URLSearchParams(query));
  if (path === "") return { view: mayAudit() ? "changes" : "access", rest: [], parameters };
  try {
    const [name, ...rest] = path.split("/").map(decodeURIComponent);
    return { view: Object.hasOwn(VIEWS, name) ? name : null, rest, parameters };
  } catch {
    return { view: null, rest: [], parameters };
  }
}

function header(view) {
  const entry = (name, key) =>
    element("a", { href: `#/${name}`, "aria-current": view === name ? "page" : null }, say(key));
  return element(
    "header",
    { class: "top" },
    element("a", { class: "skip", href: "#main", onclick: skip }, say("skip")),
    element("a", { class: "brand", href: "#/" }, "image-share-gateway"),
    visitor && element("nav", { "aria-label": say("nav") }, mayAudit() && entry("changes", "nav.changes"), entry("access", "nav.access"), entry("images", "nav.images")),
    element("div", { class: "aside" },
      element("a", { href: "../swagger-ui/", target: "_blank", rel: "noopener" }, say("nav.api")),
      element("button", { type: "button", class: "plain language", lang: otherLanguageTag(), onclick: turnLanguage }, say("language.other")),
      visitor && element("span", { class: "visitor" }, say("signedin"), " ", foreign(visitor.subject), element("span", { class: "until" }, ` · ${say("signedin.until", { time: localTime(visitor.expires_at) })}`)),
      visitor && element("button", { type: "button", class: "plain", onclick: () => signOut() }, say("signout")),
    ),
  );
}

function skip(clicked) {
  clicked.preventDefault();
  document.getElementById("main").focus();
}

/** What was filled in, and is there at once, stays. */
function turnLanguage() {
  const token = visitor ? null : page.querySelector("[name=token]").value;
  switchLanguage();
  show({ why: told });
  if (token) page.querySelector("[name=token]").value = token;
  page.querySelector("button.language").focus();
}

function signOut(why = null) {
  api.useToken(null);
  forgetLive();
  visitor = null;
  show({ why });
}

api.whenTokenIsOver(() => signOut(say("signin.over")));

/** The last one to try is the one who is signed in. */
async function signIn(pasted, tell) {
  const attempt = (attempts += 1);
  told = null;
  const token = api.tokenOf(pasted);
  if (token === null) {
    fill(tell, element("p", { class: "failure", role: "alert" }, say("signin.odd")));
    return;
  }
  fill(tell, loading(say("signin.waits")));
  let found;
  try {
    found = await api.whoami(token);
  } catch (error) {
    if (attempt === attempts) fill(tell, failure(error));
    return;
  }
  if (attempt !== attempts) return;
  api.useToken(token);
  visitor = found;
  await show({ focus: true });
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

/** Draws all of it anew. `focus`: what is read next is the view, also before its data is there. */
async function show({ why = null, focus = false } = {}) {
  leave();
  leave = () => {};
  told = why;
  const turn = (shown += 1);
  document.documentElement.lang = languageTag();
  const main = element("main", { id: "main", tabIndex: -1 });
  const { view, rest, parameters } = address();
  fill(page, header(view), main, element("footer", { class: "soft" }, say("zone", { zone: zone() })));
  if (!visitor) {
    document.title = `${say("signin.title")} · image-share-gateway`;
    fill(main, signInView(why));
    main.querySelector("input").focus();
    return;
  }
  const title = view === null ? say("nowhere.title") : say(`${view === "events" ? "event" : view}.title`);
  document.title = `${title} · image-share-gateway`;
  fill(main, element("h1", {}, title), view === null ? empty(say("nowhere")) : loading());
  if (focus) main.focus({ preventScroll: true });
  if (view === null) return;
  const place = {
    main, parameters, rest, go, mayAudit: mayAudit(),
    whenLeft: (ended) => { leave = ended; },
  };
  try {
    await VIEWS[view](place);
  } catch (error) {
    if (turn !== shown || error.name === "AbortError" || error.status === 401) return;
    fill(main, element("h1", {}, title), failure(error, () => show()));
  }
}

/** To another address; the same one is shown anew. */
function go(view, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(given).toString();
  const hash = `#/${view}${query ? `?${query}` : ""}`;
  if (location.hash === hash) show({ focus: true });
  else location.hash = hash;
}

// An entry of the history knows how far it was read; a new one begins at its top.
history.scrollRestoration = "manual";
let drawing = 0;
let moved = false;
addEventListener("scrollend", () => { if (drawing === 0) history.replaceState({ scroll: scrollY }, ""); }, { passive: true });
for (const by of ["wheel", "touchmove", "keydown"]) addEventListener(by, () => { moved = true; }, { passive: true });

addEventListener("hashchange", async () => {
  if (location.hash === "#main") return;
  const read = history.state?.scroll ?? 0;
  // While it is drawn the page is short: how far it is read then says nothing.
  drawing += 1;
  moved = false;
  const drawn = show({ focus: true });
  const turn = shown;
  scrollTo(0, 0);
  await drawn;
  drawing -= 1;
  if (turn !== shown) return;
  if (read > 0 && !moved) scrollTo(0, read);
});
addEventListener("unhandledrejection", (rejected) => {
  // Of what was left, and of a token that is over, it is told elsewhere.
  if (rejected.reason?.name === "AbortError" || rejected.reason?.status === 401) rejected.preventDefault();
});
show();
