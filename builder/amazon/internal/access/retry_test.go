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
)

// TestRetryer: throttling is outlasted for minutes, if max_retries does not say how
// often; other failures are not. What earlier calls of the client met does not count.
func TestRetryer(t *testing.T) {
	for _, c := range []struct {
		code       string
		maxRetries int
		want       int // requests
	}{
		{"InternalError", 0, usualAttempts},
		{"RequestLimitExceeded", 0, throttledAttempts},
		{"Throttling", 0, throttledAttempts},
		{"RequestLimitExceeded", 3, 3},
		{"InternalError", 20, 20},
		{"RequestLimitExceeded", 150, 150},
		{"InsufficientInstanceCapacity", 0, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			requests := 0
			client := ec2.New(ec2.Options{
				Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("AKIA", "secret", ""),
				Retryer: retryer(c.maxRetries), RetryMaxAttempts: c.maxRetries,
				HTTPClient: httpFunc(func(*http.Request) (*http.Response, error) {
					requests++
					body := fmt.Sprintf("<Response><Errors><Error><Code>%s</Code><Message>no</Message></Error></Errors><RequestID>id</RequestID></Response>", c.code)
					return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
				}),
			})
			for range 3 {
				requests = 0
				start := time.Now()
				_, err := Call(t.Context(), client.DescribeVpcs, &ec2.DescribeVpcsInput{})
				if requests != c.want || !Is(err, c.code) {
					t.Errorf("%s, max_retries %d: %d requests, want %d; %v", c.code, c.maxRetries, requests, c.want, err)
				}
				if took := time.Since(start); c.want == throttledAttempts && (took < 5*time.Minute || took > 20*time.Minute) {
					t.Errorf("it took %s", took)
				}
			}
		})
	}
}
