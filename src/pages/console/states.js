// How a view says that it waits, that there is nothing, or that something went wrong.

import { Refused, Unreachable } from "./api.js";
import { element } from "./dom.js";
import { problemTitle, say } from "./words.js";

export const loading = (words = say("loading")) => element("p", { class: "loading", role: "status" }, words);

export const empty = (words) => element("p", { class: "empty" }, words);

/** In a few words, for a line of its own. */
export function briefly(error) {
  if (error instanceof Unreachable) return say("error.unreachable");
  const slug = error.problem?.type?.split("/").pop();
  return problemTitle(slug, error.problem?.title ?? error.message);
}

/** What went wrong, in the gateway's own words, with a way to try again where that can help. */
export function failure(error, again = null) {
  const problem = error instanceof Refused ? error.problem : {};
  const slug = problem.type?.split("/").pop();
  const helps = again && error.status !== 403;
  return element(
    "div",
    { class: "failure", role: "alert" },
    element("h2", {}, error instanceof Refused ? briefly(error) : say("error")),
    details(error, problem),
    slug && element("p", {}, element("a", { href: `../problems/${slug}`, target: "_blank", rel: "noopener" }, say("error.meaning"))),
    problem.request_id && element("p", { class: "soft" }, say("error.request", { id: problem.request_id })),
    helps && element("button", { type: "button", onclick: again }, say("error.retry")),
  );
}

// The gateway speaks English.
function details(error, problem) {
  if (error instanceof Unreachable) return element("p", {}, say("error.unreachable"));
  if (problem.errors?.length) {
    return element("ul", { lang: "en" }, problem.errors.map((one) => element("li", {}, element("code", {}, one.name), ` ${one.detail}`)));
  }
  return element("p", { lang: "en" }, error.message);
}
