"""Twelve steps by the client that openapi-python-client makes of the document. Arguments: base URL, token."""

import sys
from uuid import UUID

from image_share_gateway_client import AuthenticatedClient
from image_share_gateway_client.api.audit import feed_entries, get_event, list_events
from image_share_gateway_client.api.identity import whoami
from image_share_gateway_client.api.shares import delete_share, get_share, list_shares, put_share, update_shares
from image_share_gateway_client.models import (
    BulkResults, EventList, EventWithEntries, InvalidAccountProblem, InvalidRequestProblem, NotFoundProblem, Share,
    ShareList, Update, Whoami,
)

IMAGE, ACCOUNT, NOBODY = "compshareImage-sandbox1", 12345, 9_000_000_000_000_000
client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])

who = whoami.sync(client=client)
assert isinstance(who, Whoami)
print("1 whoami:", who.subject)

rehearsed = put_share.sync(IMAGE, ACCOUNT, client=client, dry_run=True)
assert isinstance(rehearsed, Share)
print("2 dry run:", "would change" if rehearsed.would_change else "would not")

shared = put_share.sync_detailed(IMAGE, ACCOUNT, client=client, reason="OPS-17")
assert isinstance(shared.parsed, Share)
event_id = UUID(shared.headers["Audit-Id"])
print("3 share:", "shared" if shared.parsed.shared and shared.parsed.audit_id == event_id else "not")

listed = list_shares.sync(IMAGE, client=client)
assert isinstance(listed, ShareList)
print("4 list:", *(f"{one.account_id} {one.origin.value}" for one in listed.accounts))

bulk = update_shares.sync(IMAGE, client=client, body=Update(add=[1], remove=[2]))
assert isinstance(bulk, BulkResults)
print("5 bulk:", sum(str(one.outcome) == "succeeded" for one in bulk.results), "succeeded")

event = get_event.sync(event_id, client=client)
assert isinstance(event, EventWithEntries)
print(f"6 event: {event.outcome.value}, {len(event.entries)} rows")

page = list_events.sync(client=client, limit=2)
assert isinstance(page, EventList)
print(f"7 page: {len(page.events)} events,", "more" if page.next_cursor else "no more")

count = len(page.events)
while isinstance(page, EventList) and page.next_cursor:
    page = list_events.sync(client=client, limit=2, cursor=page.next_cursor)
    assert isinstance(page, EventList)
    count += len(page.events)
print(f"8 cursor: {count} events")

rows = feed_entries.sync_detailed(client=client).content.decode()
print(f"9 stream: {len(rows.splitlines())} rows")

problem = put_share.sync(IMAGE, NOBODY, client=client)
assert isinstance(problem, InvalidAccountProblem)
print("10 problem:", problem.type_.value, str(problem.effect), "again" if problem.retryable else "not again")

invalid = get_share.sync("no image!", ACCOUNT, client=client)
assert isinstance(invalid, InvalidRequestProblem)
print("11 invalid:", *(f"{one.in_.value} {one.name}" for one in invalid.errors))

taken = delete_share.sync_detailed(IMAGE, ACCOUNT, client=client)
absent = get_share.sync(IMAGE, ACCOUNT, client=client)
assert isinstance(absent, NotFoundProblem)
print("12 unshare:", int(taken.status_code), absent.type_.value)
