package access

import (
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
)

// How often a request is sent unless max_retries says otherwise. While AWS throttles,
// which passes and only means that others have their turn first, that is for about ten
// minutes: the delays grow to 20 seconds, of which chance takes half.
const (
	usualAttempts     = 10
	throttledAttempts = 60
)

// retryer is the SDK's, but for a want of capacity, which AWS reports as a failure
// of its own: another place is more likely to have some than another try. Of an error
// that is no throttling it makes no more than the usual attempts, if maxRetries is 0.
func retryer(maxRetries int) aws.Retryer {
	standard := retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = throttledAttempts
		// The SDK's quota is one of all calls of a client, which two of them use up that
		// are throttled at once.
		o.RateLimiter = ratelimit.None
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
			var api smithy.APIError
			if errors.As(err, &api) && (api.ErrorCode() == "InsufficientInstanceCapacity" || api.ErrorCode() == "InsufficientHostCapacity") {
				return aws.FalseTernary
			}
			return aws.UnknownTernary
		})}, o.Retryables...)
	})
	if maxRetries > 0 {
		return standard
	}
	return patient{standard}
}

// patient makes more attempts while AWS throttles.
type patient struct{ *retry.Standard }

// RetryDelay implements [aws.Retryer]. Its error ends the call.
func (p patient) RetryDelay(attempt int, err error) (time.Duration, error) {
	throttled := retry.IsErrorThrottles(retry.DefaultThrottles).IsErrorThrottle(err) == aws.TrueTernary
	if attempt >= usualAttempts && !throttled {
		return 0, err
	}
	return p.Standard.RetryDelay(attempt, err)
}
