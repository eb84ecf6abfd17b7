package http_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"bake/config/schema"
	"bake/datasource/http"
)

// read returns the result of the data source with this body.
func read(t *testing.T, ctx context.Context, body string) (cty.Value, error) {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(body), "t.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	d, diags := http.Factory().New(schema.Input{Body: f.Body, Context: &hcl.EvalContext{}})
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	return d.Read(ctx)
}

// server answers with the request that it received.
func server(w nethttp.ResponseWriter, r *nethttp.Request) {
	switch r.URL.Path {
	case "/echo":
		body, _ := io.ReadAll(r.Body)
		w.Header().Add("X-Two", "a")
		w.Header().Add("X-Two", "b")
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.Header.Get("X-Key"), body)
	case "/moved":
		nethttp.Redirect(w, r, "/echo", nethttp.StatusFound)
	case "/loop":
		nethttp.Redirect(w, r, "/loop", nethttp.StatusFound)
	case "/binary":
		w.Write([]byte{0xff, 0xfe})
	case "/large":
		io.CopyN(w, zeros{}, 17<<20)
	case "/slow":
		<-r.Context().Done()
	default:
		nethttp.NotFound(w, r)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestRead(t *testing.T) {
	s := httptest.NewServer(nethttp.HandlerFunc(server))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	for _, test := range []struct{ body, want string }{
		{`url = "` + s.URL + `/echo"`, "GET " + host + "  "},
		{`url = "` + s.URL + `/moved"`, "GET " + host + "  "},
		{`url = "` + s.URL + `/echo"
method = "POST"
request_headers = { "x-key" = "k", host = "other.example" }
request_body = "sent"`, "POST other.example k sent"},
		{`url = "` + s.URL + `/echo"
method = "HEAD"`, ""},
		{`url = "` + s.URL + `/echo"
method = ""`, "GET " + host + "  "},
	} {
		v, err := read(t, t.Context(), test.body)
		if err != nil {
			t.Errorf("%s: %v", test.body, err)
			continue
		}
		if got := v.GetAttr("body").AsString(); got != test.want {
			t.Errorf("%s: %q, want %q", test.body, got, test.want)
		}
		if got := v.GetAttr("request_headers").AsValueMap()["X-Two"]; got.AsString() != "a, b" {
			t.Errorf("%s: X-Two is %#v", test.body, got)
		}
		if !strings.HasPrefix(v.GetAttr("url").AsString(), s.URL) {
			t.Errorf("url is %#v", v.GetAttr("url"))
		}
		for name, typ := range http.Factory().Exports(schema.Input{}).Types {
			if !v.GetAttr(name).Type().Equals(typ) {
				t.Errorf("%s is %#v", name, v.GetAttr(name))
			}
		}
	}
}

func TestReadErrors(t *testing.T) {
	s := httptest.NewServer(nethttp.HandlerFunc(server))
	defer s.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	withPassword := strings.Replace(s.URL, "http://", "http://me:hush@", 1)
	for body, want := range map[string]string{
		`url = "` + s.URL + `/absent"`:                    "/absent: the server responded with 404 Not Found.",
		`url = "` + withPassword + `/absent"`:             "http://me:xxxxx@",
		`url = "` + s.URL + `/loop"`:                      "stopped after 10 redirects",
		`url = "` + s.URL + `/binary"`:                    "is not UTF-8 text",
		`url = "` + s.URL + `/large"`:                     "the response is larger than 16 MiB",
		`url = "` + gone.URL + `"`:                        "connection refused",
		`url = "ftp://example.com/"`:                      "is not a URL such as",
		`url = "example.com"`:                             "is not a URL such as",
		"url = \"" + s.URL + "\"\nmethod = \"FETCH\"":     "FETCH",
		"url = \"" + s.URL + "\"\nrequest_header = \"x\"": "request_header",
	} {
		_, err := read(t, t.Context(), body)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the user has had enough"))
	if _, err := read(t, ctx, `url = "`+s.URL+`/slow"`); err == nil || !strings.Contains(err.Error(), "had enough") {
		t.Errorf("cancelled: %v", err)
	}
}

func TestDocs(t *testing.T) {
	if _, err := http.Factory().Docs(); err != nil {
		t.Error(err)
	}
}
