package access

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go/middleware"
)

// endless is a body that repeats text and never ends. It counts what is read of it.
type endless struct {
	text string
	read int64
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.text[e.read%int64(len(e.text)):])
	e.read += int64(n)
	return n, nil
}

// TestEndlessAnswer: an answer of EC2 that does not end is read up to the limit, once, whatever its
// status and contents are.
func TestEndlessAnswer(t *testing.T) {
	for _, c := range []struct {
		status       int
		begin, again string
	}{
		{http.StatusOK, "<DescribeRegionsResponse><regionInfo><item><regionName>", strings.Repeat("x", 4096)},
		{http.StatusBadRequest, "<Response><Errors><Error><Code>", strings.Repeat("x", 4096)},
	} {
		body, requests := &endless{text: c.again}, 0
		client := ec2.New(ec2.Options{
			Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("AKIA", "secret", ""),
			Retryer: retryer(), APIOptions: []func(*middleware.Stack) error{(&Session{}).attempts, expectAnswer},
			HTTPClient: httpFunc(func(*http.Request) (*http.Response, error) {
				requests++
				return &http.Response{StatusCode: c.status, Header: http.Header{}, Body: io.NopCloser(io.MultiReader(strings.NewReader(c.begin), body))}, nil
			}),
		})
		_, err := Call(t.Context(), client.DescribeRegions, &ec2.DescribeRegionsInput{})
		if want := "larger than the limit"; err == nil || !strings.Contains(err.Error(), want) && !errors.Is(err, tooLarge(maxAnswer)) {
			t.Errorf("%d %s: %v, want %q", c.status, c.begin, err, want)
		}
		if requests != 1 || body.read > maxAnswer+1<<20 {
			t.Errorf("%d %s: %d requests, %d bytes were read", c.status, c.begin, requests, body.read)
		}
	}
}
