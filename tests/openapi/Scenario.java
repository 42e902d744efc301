// Twelve steps by the Java client that OpenAPI Generator makes of the document. Arguments: base URL, token.

import java.net.URI;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Set;
import java.util.stream.Collectors;

import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.AuditApi;
import org.openapitools.client.api.IdentityApi;
import org.openapitools.client.api.SharesApi;
import org.openapitools.client.model.*;

public final class Scenario {
    private static final String IMAGE = "compshareImage-sandbox1";
    private static final long ACCOUNT = 12345L;
    private static final long NOBODY = 9_000_000_000_000_000L;

    private interface Call {
        void run() throws ApiException;
    }

    private static <T> T refused(ApiClient client, Class<T> problem, Call call) throws Exception {
        try {
            call.run();
        } catch (ApiException refusal) {
            return client.getObjectMapper().readValue(refusal.getResponseBody(), problem);
        }
        throw new IllegalStateException("it was not refused");
    }

    public static void main(String[] arguments) throws Exception {
        ApiClient client = new ApiClient();
        client.updateBaseUri(arguments[0]);
        client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + arguments[1]));
        SharesApi shares = new SharesApi(client);
        AuditApi audit = new AuditApi(client);

        System.out.println("1 whoami: " + new IdentityApi(client).whoami().getSubject());

        Share rehearsed = shares.putShare(IMAGE, ACCOUNT, null, null, true, null, null);
        System.out.println("2 dry run: " + (rehearsed.getWouldChange() ? "would change" : "would not"));

        var shared = shares.putShareWithHttpInfo(IMAGE, ACCOUNT, null, "OPS-17", null, null, null);
        String id = shared.getHeaders().get("Audit-Id").get(0);
        boolean done = shared.getData().getShared() && shared.getData().getAuditId().toString().equals(id);
        System.out.println("3 share: " + (done ? "shared" : "not"));

        for (ListedAccount one : shares.listShares(IMAGE, null).getAccounts()) {
            System.out.println("4 list: " + one.getAccountId() + " " + one.getOrigin());
        }

        Update update = new Update().add(Set.of(1L)).remove(Set.of(2L));
        var results = shares.updateShares(IMAGE, update, null, null, null).getResults();
        long succeeded = results.stream().filter(one -> one.getOutcome() == ChangeOutcome.SUCCEEDED).count();
        System.out.println("5 bulk: " + succeeded + " succeeded");

        EventWithEntries event = audit.getEvent(shared.getData().getAuditId());
        System.out.println("6 event: " + event.getOutcome() + ", " + event.getEntries().size() + " rows");

        EventList page = audit.listEvents(null, null, null, null, null, null, null, null, 2L, null, null, null);
        System.out.println("7 page: " + page.getEvents().size() + " events, " + (page.getNextCursor() == null ? "no more" : "more"));

        int count = page.getEvents().size();
        while (page.getNextCursor() != null) {
            page = audit.listEvents(null, null, null, null, null, null, null, null, 2L, page.getNextCursor(), null, null);
            count += page.getEvents().size();
        }
        System.out.println("8 cursor: " + count + " events");

        // The generated method reads one JSON value; a stream is for the HTTP client under it.
        HttpRequest stream = HttpRequest.newBuilder(URI.create(client.getBaseUri() + "/audit/entries"))
            .header("Authorization", "Bearer " + arguments[1])
            .build();
        long rows = client.getHttpClient().send(stream, HttpResponse.BodyHandlers.ofLines()).body().count();
        System.out.println("9 stream: " + rows + " rows");

        var problem = refused(client, InvalidAccountProblem.class,
            () -> shares.putShare(IMAGE, NOBODY, null, null, null, null, null));
        System.out.println("10 problem: " + problem.getType() + " " + problem.getEffect() + (problem.getRetryable() ? " again" : " not again"));

        var invalid = refused(client, InvalidRequestProblem.class, () -> shares.getShare("no image!", ACCOUNT, null));
        String faults = invalid.getErrors().stream().map(one -> one.getIn() + " " + one.getName()).collect(Collectors.joining(" "));
        System.out.println("11 invalid: " + faults);

        int taken = shares.deleteShareWithHttpInfo(IMAGE, ACCOUNT, null, null, null, null).getStatusCode();
        var absent = refused(client, NotFoundProblem.class, () -> shares.getShare(IMAGE, ACCOUNT, null));
        System.out.println("12 unshare: " + taken + " " + absent.getType());
    }
}
