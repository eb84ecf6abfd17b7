package access

import (
	"context"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go/middleware"

	"bake/internal/debuglog"
)

// logRequests adds a middleware that writes a line to the developers' log at the end of
// each operation.
func logRequests(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("bake:LogRequests",
		func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
			start := time.Now()
			out, metadata, err := next.HandleInitialize(ctx, in)
			id, _ := awsmiddleware.GetRequestIDMetadata(metadata)
			attempts := 1
			if results, ok := retry.GetAttemptResults(metadata); ok {
				attempts = len(results.Results)
			}
			args := []any{
				"service", awsmiddleware.GetServiceID(ctx), "operation", awsmiddleware.GetOperationName(ctx), "region", awsmiddleware.GetRegion(ctx),
				"took", time.Since(start), "attempts", attempts, "request", id,
			}
			if err != nil {
				args = append(args, "error", err)
			}
			debuglog.From(ctx).DebugContext(ctx, "aws call", args...)
			return out, metadata, err
		}), middleware.After)
}
