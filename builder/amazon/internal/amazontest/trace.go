package amazontest

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/communicator/commtest"
)

// trace bakes the template in a directory and compares the calls that change something
// with those that Packer made for it, which are recorded there. The directories have
// the names of the recordings; before prepares the world. Intended differences:
//
//   - Tags and description are given to an image when it is made, and not in
//     CreateTags and ModifyImageAttribute afterwards; TestBuild looks at the result.
//   - Everything carries the tags bake:run and bake:build, which kept images lose
//     at the end (DeleteTags).
//   - The temporary security group lets in only this machine, and has another description.
//     With source CIDRs it lets in this machine too, since the cloud is on it.
//   - Launch permissions are sent once, not twice in two forms.
//   - Metadata options that the template does not set are left to the image.
func trace(t *testing.T, maker Maker, name string, before func(*World)) {
	dir, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	w := NewWorld(t, maker)
	loginByFile(t, w)
	if before != nil {
		before(w)
		w.Calls = nil
	}
	b := w.Bake(t)
	if _, err := b.BuildInput(t.Context(), blockIn(t, filepath.Join(dir, "template.pkr.hcl"))); err != nil {
		t.Fatal(err)
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Fatal(err)
	}
	got, want := changes(w.Calls), changes(readCalls(t, filepath.Join(dir, "calls.jsonl")))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("calls differ (-Packer +bake):\n%s", diff)
	}
}

// loginByFile writes the private key that the recorded templates name to the working
// directory, and makes the address in those templates lead to a machine that accepts the
// key.
func loginByFile(t *testing.T, w *World) {
	key, err := commtest.NewKeyPair("ed25519", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("id_ed25519", []byte(key.PrivateKey), 0o600); err != nil {
		t.Fatal(err)
	}
	server := commtest.Serve(t, t.TempDir(), commtest.Login{User: "root", Key: key.Signer.PublicKey(), HostKey: w.HostKey.Signer})
	usual := w.Cloud.Dial
	w.Cloud.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == "127.0.0.1:2222" {
			return net.Dial("tcp", net.JoinHostPort(server.Host, strconv.Itoa(server.Port)))
		}
		return usual(ctx, network, addr)
	}
}

var (
	ids     = regexp.MustCompile(`\b(ami|sg|i|snap|vol)-([0-9a-f]{17}|<\d+>)`)
	uuids   = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|uuid-<\d+>`)
	tags    = regexp.MustCompile(`^TagSpecification\.(\d+)\.(ResourceType$|Tag\.(\d+)\.(Key|Value)$)`)
	names   = regexp.MustCompile(`^[A-Za-z0-9]{7}$`) // of temporary images
	moments = regexp.MustCompile(`20\d\d-\d\d-\d\d \d\d:.*$`)
	ranges  = regexp.MustCompile(`^IpPermissions\.1\.IpRanges\.\d+\.CidrIp$`)
	twice   = regexp.MustCompile(`^User(Id|Group)\.\d+$`)
)

// changes returns the calls that change something, in a form and an order that can be
// compared.
func changes(calls []Call) (out []string) {
	for _, c := range calls {
		if !c.Changes() || c.Action == "CreateTags" || c.Action == "DeleteTags" {
			continue
		}
		params := map[string]string{}
		var sources []string
		specs := map[string]map[string]string{}
		for k, v := range c.Params {
			if m := tags.FindStringSubmatch(k); m != nil {
				if m[4] == "Key" && !strings.HasPrefix(v, "bake:") {
					kind := c.Params["TagSpecification."+m[1]+".ResourceType"]
					if specs[kind] == nil {
						specs[kind] = map[string]string{}
					}
					specs[kind][v] = c.Params["TagSpecification."+m[1]+".Tag."+m[3]+".Value"]
				}
				continue
			}
			if ranges.MatchString(k) {
				if v != "0.0.0.0/0" && v != "127.0.0.1/32" {
					sources = append(sources, v)
				}
				continue
			}
			if k == "MetadataOptions.HttpTokens" && v == "optional" || k == "MetadataOptions.HttpPutResponseHopLimit" && v == "1" {
				continue
			}
			v = uuids.ReplaceAllString(ids.ReplaceAllString(v, "$1-<>"), "uuid")
			if !twice.MatchString(k) && k != "GroupDescription" {
				params[k] = v
			}
		}
		if slices.Sort(sources); len(sources) > 0 {
			params["sources"] = strings.Join(sources, " ")
		}
		switch {
		case c.Action == "ModifyImageAttribute" && params["Description.Value"] != "":
			continue
		case c.Action == "CreateSnapshot":
			params["Description"] = moments.ReplaceAllString(params["Description"], "time")
		case c.Action == "CreateImage" || c.Action == "CopyImage":
			delete(params, "Description")
			if names.MatchString(params["Name"]) {
				params["Name"] = "random"
			}
			clear(specs)
		}
		b, err := json.Marshal([]any{c.Action, c.Region, params, specs})
		if err != nil {
			panic(err)
		}
		out = append(out, string(b))
	}
	slices.Sort(out)
	return out
}
