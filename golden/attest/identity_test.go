package attest_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"bake/golden/attest"
)

var web = attest.Identity{
	Image: "web", ID: "ami-0a1b2c3d4e5f60718", Region: "eu-west-1", Account: "111122223333", Name: "web-1",
	Tags: map[string]string{"bake:image": "web", "bake:manifest": strings.Repeat("a", 64)},
}

func attested(t *testing.T, change func(*attest.Statement)) *attest.Statement {
	t.Helper()
	text, err := attest.Attested(web, strings.Repeat("a", 64), attest.Provenance{
		BuildDefinition: attest.BuildDefinition{BuildType: attest.BuildType, ExternalParameters: map[string]any{"image": "web"}},
		RunDetails:      attest.RunDetails{Builder: attest.Builder{ID: attest.BuilderID}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := attest.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	st, err := attest.Open(signed, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, st.Predicate); err != nil {
		t.Fatal(err)
	}
	st.Predicate = compact.Bytes()
	if change != nil {
		change(st)
	}
	return st
}

// TestIdentity: the attested identity of an image can be read back, unless its parts
// are inconsistent.
func TestIdentity(t *testing.T) {
	id, files, err := attested(t, nil).Identity()
	if err != nil || files != strings.Repeat("a", 64) || len(id.Differs(web, false)) > 0 {
		t.Fatalf("%+v, %s, %v", id, files, err)
	}
	predicate := func(from, to string) func(*attest.Statement) {
		return func(st *attest.Statement) {
			changed := strings.Replace(string(st.Predicate), from, to, 1)
			if changed == string(st.Predicate) {
				t.Errorf("the predicate has no %s", from)
			}
			st.Predicate = json.RawMessage(changed)
		}
	}
	for name, change := range map[string]func(*attest.Statement){
		"other image":      predicate(`"image":"web","id"`, `"image":"db","id"`),
		"other id":         predicate(web.ID, "ami-0a1b2c3d4e5f60719"),
		"other region":     predicate("eu-west-1", "eu-west-2"),
		"other account":    predicate(web.Account, "111122223334"),
		"other name":       predicate("web-1", "web-2"),
		"other tag":        predicate(`"bake:image":"web"`, `"bake:image":"db"`),
		"one more tag":     predicate(`"bake:image":"web"`, `"bake:image":"web","x":"y"`),
		"no identity":      predicate(`"identity"`, `"identities"`),
		"other build type": predicate(attest.BuildType, "urn:other"),
		"other builder":    predicate(attest.BuilderID, "urn:other"),
		"predicate type":   func(st *attest.Statement) { st.PredicateType = attest.SPDX },
		"no image":         func(st *attest.Statement) { st.Subject = st.Subject[1:] },
		"no digest":        func(st *attest.Statement) { st.Subject = slices.Delete(st.Subject, 1, 2) },
	} {
		if id, _, err := attested(t, change).Identity(); err == nil {
			t.Errorf("%s: %+v", name, id)
		}
	}
}

// TestDiffers: differences from the attested image are detected; a copy may have another
// name and location, but must have the same tags.
func TestDiffers(t *testing.T) {
	for name, tt := range map[string]struct {
		change     func(*attest.Identity)
		image, cpy int // reasons
	}{
		"same":      {func(*attest.Identity) {}, 0, 0},
		"id":        {func(i *attest.Identity) { i.ID = "ami-1" }, 1, 0},
		"region":    {func(i *attest.Identity) { i.Region = "us-east-1" }, 1, 0},
		"account":   {func(i *attest.Identity) { i.Account = "1" }, 1, 0},
		"name":      {func(i *attest.Identity) { i.Name = "x" }, 1, 0},
		"tag":       {func(i *attest.Identity) { i.Tags["bake:image"] = "x" }, 1, 1},
		"empty tag": {func(i *attest.Identity) { i.Tags["bake:image"] = "" }, 1, 1},
		"no tag":    {func(i *attest.Identity) { delete(i.Tags, "bake:manifest") }, 1, 1},
		"no tags":   {func(i *attest.Identity) { i.Tags = nil }, 2, 2},
		"other tag": {func(i *attest.Identity) { i.Tags["env"] = "x" }, 0, 0},
	} {
		have := web
		have.Tags = maps.Clone(web.Tags)
		tt.change(&have)
		if got := web.Differs(have, false); len(got) != tt.image {
			t.Errorf("%s: %q", name, got)
		}
		if got := web.Differs(have, true); len(got) != tt.cpy {
			t.Errorf("%s, of a copy: %q", name, got)
		}
	}
}
