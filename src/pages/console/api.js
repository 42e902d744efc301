// Asks the gateway's public API with the visitor's token, which stays in this module's memory and nowhere else.

const BASE = new URL("../", document.baseURI);
const PAUSES_MS = [500, 1000, 2000, 5000];

let token = null;
let whenOver = () => {};

export function useToken(text) {
  token = text;
}

/** Calls `over` once the token that is used is not accepted any more, whatever was asked with it. */
export function whenTokenIsOver(over) {
  whenOver = over;
}

/** The token of what somebody pasted; null for what can be none (RFC 6750, section 2.1). */
export function tokenOf(pasted) {
  const text = pasted.trim().replace(/^Bearer\s+/i, "");
  return /^[A-Za-z0-9._~+/=-]+$/.test(text) ? text : null;
}

/** What the gateway answered instead of what was asked: problem details (RFC 9457). */
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail ?? problem.title);
    this.problem = problem;
    this.status = problem.status;
  }
}

/** The gateway could not be asked at all. */
export class Unreachable extends Error {}

async function ask(path, parameters = {}, { accept = "application/json", signal, headers = {}, as = token } = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  const authorization = as === null ? {} : { Authorization: `Bearer ${as}` };
  let answer;
  try {
    answer = await fetch(url, { headers: { Accept: accept, ...authorization, ...headers }, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable(error.message);
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  // Of a token that nobody uses any more, nobody has to be told.
  if (answer.status === 401 && as !== null && as === token) whenOver();
  throw new Refused({ title: answer.statusText || `HTTP ${answer.status}`, ...told, status: answer.status });
}

const segment = encodeURIComponent;
const json = async (...asked) => (await ask(...asked)).json();

export const whoami = (as) => json("whoami", {}, { as });
export const summary = (parameters, options) => json("audit/summary", parameters, options);
export const events = (parameters, options) => json("audit/events", parameters, options);
export const event = (id, options) => json(`audit/events/${segment(id)}`, {}, options);
export const shares = (image, region, options) => json(`images/${segment(image)}/shares`, { region }, options);
export const images = (parameters, options) => json("images", parameters, options);
export const sandboxTokens = () => json("console/sandbox-tokens.json", {}, { as: null });

/** All events that fit, as a file for spreadsheets. */
export async function csv(parameters) {
  return (await ask("audit/events", { ...parameters, bom: true }, { accept: "text/csv" })).blob();
}

/** The regions that this gateway serves, as its document says. */
export async function regions() {
  const described = (await json("openapi.json", {}, { as: null })).components.schemas.Region;
  return { all: described.enum, default: described.default };
}

// What passes by itself: a proxy without a gateway behind it, a trail that cannot be read, too much at once.
const PASSES = [429, 500, 502, 503, 504];

/**
 * Calls `take` for each row that is written to the trail from now on, until `signal` says so. `tell()` once it follows,
 * `tell(error)` while it cannot: then it goes on behind the last row that came, so that none is missed; where none came yet,
 * with what is written from then on.
 */
export async function follow(take, tell, signal) {
  let last = null;
  let failures = 0;
  while (!signal.aborted) {
    let ended = new Unreachable("");
    try {
      const headers = last === null ? {} : { "Last-Event-ID": last };
      const parameters = last === null ? { follow: true, tail: 0 } : { follow: true };
      const answer = await ask("audit/entries", parameters, { accept: "text/event-stream", signal, headers });
      failures = 0;
      tell();
      for await (const sent of serverSentEvents(answer.body)) {
        last = sent.id ?? last;
        take(JSON.parse(sent.data));
      }
    } catch (error) {
      const passes = error instanceof Unreachable || error instanceof TypeError || PASSES.includes(error.status);
      if (signal.aborted || !passes) throw error;
      ended = error instanceof TypeError ? ended : error;
    }
    // It ends in order too where the gateway stops.
    tell(ended);
    await new Promise((resolve) => setTimeout(resolve, PAUSES_MS[Math.min(failures, PAUSES_MS.length - 1)]));
    failures += 1;
  }
}

/** The events of a stream of server-sent events (WHATWG HTML, section 9.2); EventSource cannot send a token. */
async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = block.split("\n").map((line) => line.match(/^(id|data): ?(.*)$/)).filter(Boolean);
      const sent = Object.fromEntries(fields.map(([, name, text]) => [name, text]));
      if (sent.data !== undefined) yield sent;
    }
  }
}
