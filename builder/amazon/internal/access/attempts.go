package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"bake/builder/amazon/internal/wait"
)

// attempts are the requests of one [Call].
type attempts struct {
	requests    atomic.Int32
	failures    int // except for throttling
	start, said time.Time
}

type attemptsKey struct{}

// attempts observes each request of a [Call], including retries: it counts them, makes the
// SDK retry requests that may be repeated if the answer is unusable, ends the call after
// the usual number of failures, unless max_retries is set, and reports that the service
// keeps failing.
func (s *Session) attempts(stack *middleware.Stack) error {
	err := stack.Serialize.Add(middleware.SerializeMiddlewareFunc("bake:Repeatable",
		func(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (middleware.SerializeOutput, middleware.Metadata, error) {
			ctx = middleware.WithStackValue(ctx, repeatableKey{}, repeatable(middleware.GetOperationName(ctx), in.Parameters))
			return next.HandleSerialize(ctx, in)
		}), middleware.Before)
	if err != nil {
		return err
	}
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("bake:Attempts",
		func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			a, ok := ctx.Value(attemptsKey{}).(*attempts)
			if !ok {
				return next.HandleFinalize(ctx, in)
			}
			a.requests.Add(1)
			out, metadata, err := next.HandleFinalize(ctx, in)
			if err != nil {
				s.complain(ctx, a, err)
			}
			if again, _ := middleware.GetStackValue(ctx, repeatableKey{}).(bool); again && useless(err) {
				err = torn{err}
			}
			if err != nil && !s.persistent && !isThrottled(err) {
				if a.failures++; a.failures >= s.attemptsAfter(ctx, err) {
					err = enough{err}
				}
			}
			return out, metadata, err
		}), "Retry", middleware.After)
}

// attemptsAfter returns the number of attempts of a request that has failed with err. One that was
// not answered may have been carried out.
func (s *Session) attemptsAfter(ctx context.Context, err error) int {
	if _, late := errors.AsType[*unansweredError](err); !late {
		return usualAttempts
	}
	if again, _ := middleware.GetStackValue(ctx, repeatableKey{}).(bool); !again {
		return 1
	}
	return unansweredAttempts
}

type repeatableKey struct{}

// repeatable reports whether a call may be sent twice: it changes nothing, or it carries a
// token by which EC2 recognizes the repetition.
func repeatable(operation string, in any) bool {
	if slices.ContainsFunc([]string{"Describe", "Get", "List", "Head"}, func(p string) bool { return strings.HasPrefix(operation, p) }) {
		return true
	}
	v := reflect.Indirect(reflect.ValueOf(in))
	if v.Kind() != reflect.Struct {
		return false
	}
	token := v.FieldByName("ClientToken")
	if !token.IsValid() {
		return false
	}
	text, _ := token.Interface().(*string)
	return aws.ToString(text) != ""
}

// useless reports whether err means that a successful response was truncated or garbled.
func useless(err error) bool {
	if _, large := errors.AsType[tooLarge](err); large { // so will the next one be
		return false
	}
	var unreadable *smithy.DeserializationError
	var resp *smithyhttp.ResponseError
	return errors.As(err, &unreadable) && errors.As(err, &resp) && resp.HTTPStatusCode()/100 == 2
}

// torn is the error of an unusable response to a call that may be repeated.
type torn struct{ error }

func (t torn) Unwrap() error { return t.error }

// RetryableError tells the SDK's retryer that the error is temporary.
func (torn) RetryableError() bool { return true }

// complain warns that a call has been failing for a long time.
func (s *Session) complain(ctx context.Context, a *attempts, err error) {
	lasted := time.Since(a.start)
	if s.Cloud.Warn == nil || ctx.Err() != nil || lasted < wait.Trouble || !a.said.IsZero() && time.Since(a.said) < wait.Again {
		return
	}
	a.said = time.Now()
	why := explain(err, 0)
	var e *Error
	if errors.As(why, &e) {
		e.Op = middleware.GetOperationName(ctx)
	}
	s.Cloud.Warn(ctx, "%s in %s has been failing for %s: %s", middleware.GetServiceID(ctx), awsmiddleware.GetRegion(ctx), lasted.Round(time.Second), why)
}

// expectAnswer turns an invalid response of EC2 into an error: the SDK accepts any XML, and
// even an empty body, as a response without values, and reads it to its end, however large it is.
func expectAnswer(stack *middleware.Stack) error {
	return stack.Deserialize.Insert(middleware.DeserializeMiddlewareFunc("bake:ExpectAnswer",
		func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
			out, metadata, err := next.HandleDeserialize(ctx, in)
			resp, ok := out.RawResponse.(*smithyhttp.Response)
			if err != nil || !ok || middleware.GetServiceID(ctx) != ec2.ServiceID {
				return out, metadata, err
			}
			resp.Body = &boundedBody{resp.Body, maxAnswer}
			if resp.StatusCode/100 != 2 {
				return out, metadata, nil
			}
			start := make([]byte, 512)
			n, err := io.ReadFull(resp.Body, start)
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return out, metadata, &smithy.DeserializationError{Err: err}
			}
			root := "<" + middleware.GetOperationName(ctx) + "Response"
			if !bytes.Contains(start[:n], []byte(root)) {
				return out, metadata, &smithy.DeserializationError{Err: fmt.Errorf("the answer does not begin with %s>", root)}
			}
			resp.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(bytes.NewReader(start[:n]), resp.Body), resp.Body}
			return out, metadata, nil
		}), "OperationDeserializer", middleware.After)
}

// boundedBody is a body whose reader gets the error [tooLarge] after maxAnswer bytes.
type boundedBody struct {
	io.ReadCloser
	left int64
}

// Read implements [io.Reader].
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, tooLarge(maxAnswer)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
