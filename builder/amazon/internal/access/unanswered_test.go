package access

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go/middleware"
)

// TestUnanswered: an endpoint that accepts requests and does not answer is named after ten seconds,
// once, and the call fails within minutes. Only a request that may be repeated is sent again.
func TestUnanswered(t *testing.T) {
	for name, c := range map[string]struct {
		call func(context.Context, *ec2.Client) error
		sent int
	}{
		"DescribeRegions": {func(ctx context.Context, client *ec2.Client) error {
			_, err := Call(ctx, client.DescribeRegions, &ec2.DescribeRegionsInput{})
			return err
		}, 2},
		"CreateImage": {func(ctx context.Context, client *ec2.Client) error {
			_, err := Call(ctx, client.CreateImage, &ec2.CreateImageInput{InstanceId: aws.String("i-1"), Name: aws.String("x")})
			return err
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, sent := time.Now(), 0
				var said []string
				s := &Session{watchers: &Watchers{}, Cloud: Cloud{Warn: func(_ context.Context, format string, args ...any) {
					if text := fmt.Sprintf(format, args...); strings.Contains(text, "bake waits for it") {
						said = append(said, fmt.Sprintf("%s %s", time.Since(start), text))
					}
				}}}
				answers := false
				silent := httpFunc(func(r *http.Request) (*http.Response, error) {
					sent++
					if answers {
						return nil, errors.New("it answers")
					}
					<-r.Context().Done()
					return nil, &url.Error{Op: "Post", URL: r.URL.String(), Err: r.Context().Err()}
				})
				client := ec2.New(ec2.Options{
					Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("AKIA", "secret", ""), BaseEndpoint: aws.String("http://192.0.2.1:8000"),
					Retryer: retryer(), APIOptions: []func(*middleware.Stack) error{s.attempts}, HTTPClient: attentive{silent, s},
				})
				err := c.call(t.Context(), client)
				want := name + ": http://192.0.2.1:8000 has not answered within 1m30s. Check this machine's network, proxy and the endpoint"
				if err == nil || !strings.HasPrefix(err.Error(), want) || Refused(err) {
					t.Errorf("got %v, want %s", err, want)
				}
				if took := time.Since(start); sent != c.sent || took > 4*time.Minute {
					t.Errorf("%d requests in %s, want %d in less than four minutes", sent, took, c.sent)
				}
				once := "10s http://192.0.2.1:8000 has not answered EC2 " + name + " for 10s; bake waits for it up to 1m30s"
				if !slices.Equal(said, []string{once}) {
					t.Errorf("said %q, want %q", said, once)
				}
				answers = true
				_ = c.call(t.Context(), client)
				time.Sleep(time.Hour)
				if len(said) != 1 {
					t.Errorf("said of calls that were answered: %q", said[1:])
				}
			})
		})
	}
}

// TestStalledAnswer: an answer that begins and then stalls, or trickles, is reported like none. One
// that is long and goes on is not.
func TestStalledAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		begin string
		each  time.Duration // a byte
		sent  int
	}{
		"in the head of the XML": {"<", 0, 2}, "after it": {"<DescribeRegionsResponse>", 0, 2}, "trickle": {"<DescribeRegionsResponse>", time.Minute, 2},
		"slow": {"<DescribeRegionsResponse>", time.Millisecond, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, sent := time.Now(), 0
				var said []string
				s := &Session{watchers: &Watchers{}, Cloud: Cloud{Warn: func(_ context.Context, format string, args ...any) {
					said = append(said, fmt.Sprintf("%s %s", time.Since(start), fmt.Sprintf(format, args...)))
				}}}
				stalls := httpFunc(func(r *http.Request) (*http.Response, error) {
					sent++
					body, w := io.Pipe()
					context.AfterFunc(r.Context(), func() { w.CloseWithError(r.Context().Err()) })
					go func() {
						_, err := io.WriteString(w, c.begin)
						for n := 0; err == nil && c.each > 0 && n < 300_000; n++ {
							time.Sleep(c.each)
							_, err = io.WriteString(w, " ")
						}
						if c.each == time.Millisecond {
							_, _ = io.WriteString(w, "</DescribeRegionsResponse>")
							w.Close()
						}
					}()
					return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body}, nil
				})
				client := ec2.New(ec2.Options{
					Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("AKIA", "secret", ""), BaseEndpoint: aws.String("http://192.0.2.1:8000"),
					Retryer: retryer(), APIOptions: []func(*middleware.Stack) error{s.attempts, expectAnswer}, HTTPClient: attentive{stalls, s},
				})
				_, err := Call(t.Context(), client.DescribeRegions, &ec2.DescribeRegionsInput{})
				want := "DescribeRegions: http://192.0.2.1:8000 has begun an answer and not gone on with it for 1m30s. Check this machine's network, proxy and the endpoint"
				if c.sent > 1 && (err == nil || !strings.HasPrefix(err.Error(), want)) || c.sent == 1 && err != nil {
					t.Errorf("got %v, want %s", err, want)
				}
				if took := time.Since(start); sent != c.sent || took > 6*time.Minute {
					t.Errorf("%d requests in %s, want %d in less than six minutes", sent, took, c.sent)
				}
				time.Sleep(2 * time.Minute) // until the endpoint has noticed
				if len(said) == 0 || !strings.HasPrefix(said[0], "10s http://192.0.2.1:8000 has not answered EC2 DescribeRegions for 10s") {
					t.Errorf("said %q", said)
				}
			})
		})
	}
}

// TestAnswerLimit: the connections of sessions have the limit, also if the endpoint does not read a
// request.
func TestAnswerLimit(t *testing.T) {
	for _, read := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) { testAnswerLimit(t, read) })
	}
}

func testAnswerLimit(t *testing.T, read bool) {
	silent, far := net.Pipe()
	defer far.Close()
	if read {
		go func() { _, _ = io.Copy(io.Discard, far) }()
	}
	client := awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) {
		tr.DialContext = func(context.Context, string, string) (net.Conn, error) { return silent, nil }
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://192.0.2.1", strings.NewReader(strings.Repeat("x", 10_000)))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	resp, err := attentive{new(Watchers).sender(client), &Session{watchers: &Watchers{}}}.Do(req)
	if err == nil {
		resp.Body.Close()
	}
	if _, late := errors.AsType[*unansweredError](err); !late || time.Since(start) != answerLimit {
		t.Errorf("after %s: got %v, want an unansweredError after %s", time.Since(start), err, answerLimit)
	}
}

// TestSlowUpload: a request that takes longer than the limit, because its connection is slow, does not
// end.
func TestSlowUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		go func() { // a kilobyte in a second
			in := bufio.NewReaderSize(far, 1<<10)
			req, err := http.ReadRequest(in)
			for err == nil {
				time.Sleep(time.Second)
				_, err = io.CopyN(io.Discard, req.Body, 1<<10)
			}
			_, _ = io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}()
		client := awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) {
			tr.DialContext = func(context.Context, string, string) (net.Conn, error) { return near, nil }
		})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://192.0.2.1", bytes.NewReader(make([]byte, 300<<10)))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		resp, err := attentive{new(Watchers).sender(client), &Session{watchers: &Watchers{}}}.Do(req)
		if err != nil {
			t.Fatalf("after %s: %v", time.Since(start), err)
		}
		resp.Body.Close()
		if took := time.Since(start); took < 3*answerLimit {
			t.Errorf("it took only %s", took)
		}
	})
}
