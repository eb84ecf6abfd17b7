package access

import (
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
)

// The maximum number of attempts of a request unless max_retries is set. While AWS
// throttles requests, which is temporary, retries continue for about ten minutes: the
// delays grow to 20 seconds, of which half is random.
const (
	usualAttempts     = 10
	throttledAttempts = 60
)

// retryer returns the SDK's retryer, except that it does not retry insufficient capacity,
// which AWS reports as an internal failure: another place is more likely to have capacity
// than another attempt. [Session.attempts] limits the retries after errors other than
// throttling.
func retryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = throttledAttempts
		// The SDK has one retry quota for all calls of a client. Two calls that are
		// throttled at the same time exhaust it.
		o.RateLimiter = ratelimit.None
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
			var api smithy.APIError
			if errors.As(err, &api) && (api.ErrorCode() == "InsufficientInstanceCapacity" || api.ErrorCode() == "InsufficientHostCapacity") {
				return aws.FalseTernary
			}
			return aws.UnknownTernary
		})}, o.Retryables...)
	})
}

// enough is the error of a request that is not retried, although the failure may be
// temporary.
type enough struct{ error }

func (e enough) Unwrap() error { return e.error }

// RetryableError tells the SDK's retryer that the error is permanent.
func (enough) RetryableError() bool { return false }

// isThrottled reports whether AWS has refused a request because there were too many
// requests.
func isThrottled(err error) bool {
	return retry.IsErrorThrottles(retry.DefaultThrottles).IsErrorThrottle(err) == aws.TrueTernary
}
