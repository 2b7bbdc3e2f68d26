package check

import (
	"context"
	"fmt"
	"time"
)

// checkTCP is healthy when a connection opens, in the words of Yelp's hacheck: "Connected in 0.00s".
// What the service then says or does with it is not looked at.
func checkTCP(ctx context.Context, t Target) Result {
	return ask(ctx, t, func(x *exchange) Result {
		return Result{Code: 200, Body: fmt.Appendf(nil, "Connected in %.2fs", time.Since(x.start).Seconds())}
	})
}
