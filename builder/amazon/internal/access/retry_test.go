package access

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go/middleware"
)

// TestRetryer: throttled calls are retried for minutes unless max_retries is set; other failures
// are not. Failures of earlier calls of the client have no effect.
func TestRetryer(t *testing.T) {
	for _, c := range []struct {
		code       string // of the responses, in order; the last one repeats
		maxRetries int
		want       int // number of requests
	}{
		{"InternalError", 0, usualAttempts},
		{"RequestLimitExceeded", 0, throttledAttempts},
		{"Throttling", 0, throttledAttempts},
		{"RequestLimitExceeded", 3, 3},
		{"InternalError", 20, 20},
		{"RequestLimitExceeded", 150, 150},
		{"InsufficientInstanceCapacity", 0, 1},
		{strings.Repeat("RequestLimitExceeded ", 15) + "InternalError", 0, 15 + usualAttempts},
		{strings.Repeat("InternalError RequestLimitExceeded ", 8) + "UnauthorizedOperation", 0, 17},
	} {
		synctest.Test(t, func(t *testing.T) {
			requests, codes := 0, strings.Fields(c.code)
			client := ec2.New(ec2.Options{
				Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("AKIA", "secret", ""),
				Retryer: retryer(), RetryMaxAttempts: c.maxRetries, APIOptions: []func(*middleware.Stack) error{(&Session{persistent: c.maxRetries > 0}).attempts},
				HTTPClient: httpFunc(func(*http.Request) (*http.Response, error) {
					code := codes[min(requests, len(codes)-1)]
					requests++
					status := http.StatusServiceUnavailable
					if code == "UnauthorizedOperation" {
						status = http.StatusForbidden
					}
					body := fmt.Sprintf("<Response><Errors><Error><Code>%s</Code><Message>no</Message></Error></Errors><RequestID>id</RequestID></Response>", code)
					return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
				}),
			})
			for range 3 {
				requests = 0
				start := time.Now()
				_, err := Call(t.Context(), client.DescribeVpcs, &ec2.DescribeVpcsInput{})
				if requests != c.want || !Is(err, codes[len(codes)-1]) {
					t.Errorf("%s, max_retries %d: %d requests, want %d; %v", c.code, c.maxRetries, requests, c.want, err)
				}
				if took := time.Since(start); c.want == throttledAttempts && (took < 5*time.Minute || took > 20*time.Minute) {
					t.Errorf("it took %s", took)
				}
			}
		})
	}
}
