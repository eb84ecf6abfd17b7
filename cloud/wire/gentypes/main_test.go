package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStructsAreThoseOfTheSDK checks that cloud/api contains what the actions need, from
// the SDK release in go.mod.
func TestStructsAreThoseOfTheSDK(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	for service := range services {
		want, err := generate(root, service)
		if err != nil {
			t.Errorf("%s: %v", service, err)
			continue
		}
		got, err := os.ReadFile(filepath.Join(root, "cloud", "api", service, service+".go"))
		if err != nil {
			t.Error(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("cloud/api/%s is not what its actions need: go run ./cloud/wire/gentypes", service)
		}
	}
	entries, err := os.ReadDir(filepath.Join(root, "cloud", "api"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if services[e.Name()] == "" {
			t.Errorf("nothing writes cloud/api/%s", e.Name())
		}
	}
}

// TestRefusals checks the errors for services that cannot be written.
func TestRefusals(t *testing.T) {
	for _, test := range []struct{ name, sdk, want string }{
		{"no action", "type PutOutput struct{}", "the SDK has no type PutInput"},
		{"a union", "type PutInput struct { Value Union }\ntype PutOutput struct{}\ntype Union interface{ isUnion() }", "PutInput.Value: Union is neither a struct nor an enumeration"},
		{"a document", "type PutInput struct { Value document.Interface }\ntype PutOutput struct{}", "PutInput.Value: a type of package document"},
		{"something else", "type PutInput struct { Value func() }\ntype PutOutput struct{}", "PutInput.Value: a type that is a *ast.FuncType"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "sdk.go"), []byte("package sdk\n"+test.sdk), 0o644); err != nil {
				t.Fatal(err)
			}
			s := newSource()
			if err := s.read(dir); err != nil {
				t.Fatal(err)
			}
			reached := map[string]bool{}
			err := s.reach("PutInput", reached)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}
