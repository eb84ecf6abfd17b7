package knownplugins

import (
	"path"
	"strings"
	"testing"

	"github.com/hashicorp/go-version"
)

func TestOf(t *testing.T) {
	for component, want := range map[string]Plugin{
		"qemu":                  {"qemu", "github.com/hashicorp/qemu", "~> 1"},
		"vsphere-iso":           {"vsphere", "github.com/hashicorp/vsphere", "~> 1"},
		"windows-update":        {"windows-update", "github.com/rgl/windows-update", ">= 0.14.0"},
		"amazon-ebs":            {"amazon", "github.com/hashicorp/amazon", "~> 1"},
		"amazon-ami-management": {"amazon-ami-management", "github.com/wata727/amazon-ami-management", "~> 1"},
		"git-commit":            {"git", "github.com/ethanmdavidson/git", ">= 0.6.0"},
		"qemux":                 {},
		"":                      {},
		"windows-shell":         {},
	} {
		if got, ok := Of(component); got != want || ok != (want != Plugin{}) {
			t.Errorf("%s comes with %+v, want %+v", component, got, want)
		}
	}
}

func TestPublished(t *testing.T) {
	for _, name := range Names() {
		p, ok := Of(name)
		if _, err := version.NewConstraint(p.Version); !ok || err != nil || p.Name != name || path.Base(p.Source) != name || strings.Count(p.Source, "/") != 2 {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}
