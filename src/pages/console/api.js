// Asks the gateway's public API with the visitor's token, which stays in this module's memory and nowhere else.

const BASE = new URL("../", document.baseURI);

let token = null;

export function useToken(text) {
  token = text;
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

async function ask(path, parameters = {}, { accept = "application/json", signal, headers = {} } = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  const authorization = token === null ? {} : { Authorization: `Bearer ${token}` };
  let answer;
  try {
    answer = await fetch(url, { headers: { Accept: accept, ...authorization, ...headers }, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable(error.message);
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Refused({ status: answer.status, title: answer.statusText, ...told });
}

const segment = encodeURIComponent;
const json = async (...asked) => (await ask(...asked)).json();

export const whoami = () => json("whoami");
export const summary = (parameters, options) => json("audit/summary", parameters, options);
export const events = (parameters, options) => json("audit/events", parameters, options);
export const event = (id, options) => json(`audit/events/${segment(id)}`, {}, options);
export const shares = (image, region, options) => json(`images/${segment(image)}/shares`, { region }, options);
export const images = (parameters, options) => json("images", parameters, options);
export const sandboxTokens = () => json("console/sandbox-tokens.json");

/** All events that fit, as a file for spreadsheets. */
export async function csv(parameters) {
  return (await ask("audit/events", { ...parameters, bom: true }, { accept: "text/csv" })).blob();
}

/** The regions that this gateway serves, as its document says. */
export async function regions() {
  const described = (await json("openapi.json")).components.schemas.Region;
  return { all: described.enum, default: described.default };
}

/** Calls `take` for each row that is written to the trail from now on, until it ends or `signal` says so. */
export async function follow(take, begun, signal) {
  let last = null;
  const headers = () => (last === null ? {} : { "Last-Event-ID": last });
  const parameters = () => (last === null ? { follow: true, tail: 0 } : { follow: true });
  while (!signal.aborted) {
    const answer = await ask("audit/entries", parameters(), { accept: "text/event-stream", signal, headers: headers() });
    begun();
    for await (const sent of serverSentEvents(answer.body)) {
      last = sent.id ?? last;
      take(JSON.parse(sent.data));
    }
    // It ended in order: the gateway stops, or the token is over, which the next question says.
    await new Promise((resolve) => setTimeout(resolve, 1000));
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
