// How a view says that it waits, that there is nothing, or that something went wrong.

import { Refused, Unreachable } from "./api.js";
import { element } from "./dom.js";
import { say } from "./words.js";

export const loading = () => element("p", { class: "loading", role: "status" }, say("loading"));

export const empty = (words) => element("p", { class: "empty" }, words);

/** What went wrong, in the gateway's own words, with a way to try again. */
export function failure(error, again = null) {
  const problem = error instanceof Refused ? error.problem : {};
  const slug = problem.type?.split("/").pop();
  const detail = problem.errors?.length
    ? element("ul", {}, problem.errors.map((one) => element("li", {}, element("code", {}, one.name), ` ${one.detail}`)))
    : element("p", {}, words(error));
  return element(
    "div",
    { class: "failure", role: "alert" },
    element("h2", {}, problem.title ?? say("error")),
    detail,
    slug && element("p", {}, element("a", { href: `../problems/${slug}` }, say("error.meaning"))),
    problem.request_id && element("p", { class: "soft" }, say("error.request", { id: problem.request_id })),
    again && element("button", { type: "button", onclick: again }, say("error.retry")),
  );
}

function words(error) {
  if (error instanceof Unreachable) return say("error.unreachable");
  if (error instanceof Refused && error.status === 403) return say("error.scope", { detail: error.message });
  return error.message;
}
