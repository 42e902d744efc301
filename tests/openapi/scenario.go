// Twelve steps by the Go client that OpenAPI Generator makes of the document. Arguments: base URL, token.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	gateway "gatewayclient"
)

const (
	image   = "compshareImage-sandbox1"
	account = int64(12345)
	nobody  = int64(9000000000000000)
)

func must[T any](value T, err error) T {
	if err != nil {
		var told *gateway.GenericOpenAPIError
		if errors.As(err, &told) {
			panic(string(told.Body()))
		}
		panic(err)
	}
	return value
}

// The model of a refusal.
func refusal(err error) any {
	var told *gateway.GenericOpenAPIError
	if !errors.As(err, &told) {
		panic(fmt.Sprint("no refusal: ", err))
	}
	return told.Model()
}

func main() {
	configuration := gateway.NewConfiguration()
	configuration.Servers = gateway.ServerConfigurations{{URL: os.Args[1]}}
	client := gateway.NewAPIClient(configuration)
	ctx := context.WithValue(context.Background(), gateway.ContextAccessToken, os.Args[2])

	who, _, err := client.IdentityAPI.Whoami(ctx).Execute()
	fmt.Println("1 whoami:", must(who, err).Subject)

	rehearsed, _, err := client.SharesAPI.PutShare(ctx, image, account).DryRun(true).Execute()
	if must(rehearsed, err).GetWouldChange() {
		fmt.Println("2 dry run: would change")
	}

	shared, answer, err := client.SharesAPI.PutShare(ctx, image, account).Reason("OPS-17").Execute()
	id := must(shared, err).GetAuditId()
	if shared.GetShared() && answer.Header.Get("Audit-Id") == id {
		fmt.Println("3 share: shared")
	}

	listed, _, err := client.SharesAPI.ListShares(ctx, image).Execute()
	for _, one := range must(listed, err).Accounts {
		fmt.Println("4 list:", one.AccountId, one.Origin)
	}

	update := gateway.Update{Add: []int64{1}, Remove: []int64{2}}
	bulk, _, err := client.SharesAPI.UpdateShares(ctx, image).Update(update).Execute()
	succeeded := 0
	for _, one := range must(bulk, err).Results {
		if one.GetOutcome() == gateway.CHANGEOUTCOME_SUCCEEDED {
			succeeded++
		}
	}
	fmt.Println("5 bulk:", succeeded, "succeeded")

	event, _, err := client.AuditAPI.GetEvent(ctx, id).Execute()
	fmt.Printf("6 event: %s, %d rows\n", must(event, err).Outcome, len(event.Entries))

	page, _, err := client.AuditAPI.ListEvents(ctx).Limit(2).Execute()
	more := map[bool]string{true: "more", false: "no more"}
	cursor, follows := must(page, err).GetNextCursorOk()
	fmt.Printf("7 page: %d events, %s\n", len(page.Events), more[follows && cursor != nil])

	count := len(page.Events)
	for page.GetNextCursor() != "" {
		page, _, err = client.AuditAPI.ListEvents(ctx).Limit(2).Cursor(page.GetNextCursor()).Execute()
		count += len(must(page, err).Events)
	}
	fmt.Printf("8 cursor: %d events\n", count)

	rows, _, err := client.AuditAPI.FeedEntries(ctx).Execute()
	fmt.Printf("9 stream: %d rows\n", len(strings.Split(strings.TrimSpace(must(rows, err)), "\n")))

	_, _, err = client.SharesAPI.PutShare(ctx, image, nobody).Execute()
	problem := refusal(err).(gateway.InvalidAccountProblem)
	again := map[bool]string{true: "again", false: "not again"}
	fmt.Println("10 problem:", problem.Type, problem.GetEffect(), again[problem.GetRetryable()])

	_, _, err = client.SharesAPI.GetShare(ctx, "no image!", account).Execute()
	for _, one := range refusal(err).(gateway.InvalidRequestProblem).Errors {
		fmt.Println("11 invalid:", one.In, one.Name)
	}

	_, taken, err := client.SharesAPI.DeleteShare(ctx, image, account).Execute()
	must(taken, err)
	_, _, err = client.SharesAPI.GetShare(ctx, image, account).Execute()
	fmt.Println("12 unshare:", taken.StatusCode, refusal(err).(gateway.NotFoundProblem).Type)
}
