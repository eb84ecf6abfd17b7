package pipeline

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bake/builder"
	"bake/golden/bakefile"
	"bake/golden/notice"
	"bake/step"
)

// TestWebhook: a webhook receives what a channel names, with at most three attempts, and
// never at another address; messages about failures contain no secrets.
func TestWebhook(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers []int // the last one repeats
		calls   int32
		warning string
	}{
		"told":       {[]int{200}, 1, ""},
		"told later": {[]int{500, 204}, 2, ""},
		"broken":     {[]int{503}, 3, "answers 503"},
		"redirected": {[]int{307}, 3, "answers 307"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls, strayed atomic.Int32
			elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Add(1) }))
			defer elsewhere.Close()
			hook := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				n := int(calls.Add(1))
				body, err := io.ReadAll(r.Body)
				var told notice.Notice
				if err != nil || json.Unmarshal(body, &told) != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
					t.Errorf("%s %v: %s", r.Method, err, body)
				}
				if told.Image != "web" || told.Channel != "stable" || told.Run != "run-1" || len(told.Images) != 1 || told.Images[0].ID != "ami-1" || strings.Join(told.Passed, ",") != "verify.boot" {
					t.Errorf("told %s", body)
				}
				rw.Header().Set("Location", elsewhere.URL)
				rw.WriteHeader(c.answers[min(n, len(c.answers))-1])
			}))
			defer hook.Close()
			var log strings.Builder
			s := step.NewScope(step.Scope{Run: step.Invocation{ID: "run-1"}, Emit: func(e step.Event) { log.WriteString(e.Text) }})
			p := &pipeline{Options: Options{Now: time.Now}, image: bakefile.Pipeline{Name: "web"}, placed: []builder.Placement{{Account: "1", Region: "us-east-1", ID: "ami-1"}}}
			p.notify(t.Context(), s, &bakefile.Channel{Name: "stable", Webhook: hook.URL + "/hush?token=hush"}, []string{"verify.boot"})
			if calls.Load() != c.calls || strayed.Load() != 0 {
				t.Errorf("%d calls, %d elsewhere", calls.Load(), strayed.Load())
			}
			if !strings.Contains(log.String(), c.warning) || (c.warning == "") != (log.Len() == 0) || strings.Contains(log.String(), "hush") {
				t.Errorf("warned %q", log.String())
			}
		})
	}
}

// If no run passed anything, the list is empty.
func TestWebhookOfNothing(t *testing.T) {
	t.Parallel()
	var told string
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		told = string(body)
	}))
	defer hook.Close()
	s := step.NewScope(step.Scope{Emit: func(step.Event) {}})
	p := &pipeline{Options: Options{Now: time.Now}, image: bakefile.Pipeline{Name: "web"}}
	p.notify(t.Context(), s, &bakefile.Channel{Name: "stable", Webhook: hook.URL}, nil)
	hook.Close()
	if !strings.Contains(told, `"images":[],"passed":[]`) {
		t.Errorf("told %s", told)
	}
}
