package image_test

import (
	"bake/cloud/image"
	"bake/cloud/machine/machinetest"
	"runtime"
	"strings"
	"testing"
)

// TestExplain checks that the error for a missing image explains the reason and names a command
// that helps.
func TestExplain(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the names are those of amd64")
	}
	s, err := image.Open(t.TempDir(), &machinetest.Driver{Lacks: []string{"arm64"}})
	if err != nil {
		t.Fatal(err)
	}
	const canonical = "099720109477"
	jammy := "ubuntu/images/*ubuntu-jammy-22.04-amd64-server-*"
	for _, test := range []struct {
		id      string
		owners  []string
		filters []string // name, value, and so on
		want    []string
	}{
		{"ami-0c4f7023847b90238", nil, nil, []string{"bake cloud alias ami-0c4f7023847b90238 ubuntu-22.04", "bake cloud bases"}},
		{"", []string{canonical}, []string{"name", jammy, "block-device-mapping.volume-type", "gp3", "root-device-type", "ebs"},
			[]string{"has ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20251212, but", `its block-device-mapping.volume-type is "gp2", not gp3.`}},
		{"", []string{"amazon"}, []string{"name", jammy, "virtualization-type", "paravirtual"}, []string{`its virtualization-type is "hvm", not paravirtual`}},
		{"", []string{"self"}, []string{"name", jammy}, []string{"of owner 099720109477 (Canonical), which is not among the owners self"}},
		{"", []string{canonical}, []string{"name", "ubuntu/images/*ubuntu-jammy-22.04-arm64-server-*"}, []string{"is for arm64: this host runs programs for amd64"}},
		{"", nil, []string{"name", "x", "architecture", "arm64"}, []string{"is for arm64"}},
		{"", []string{"amazon"}, []string{"name", "Windows_Server-2022-English-Full-Base-*"}, []string{"Windows images cannot run", "-except"}},
		{"", []string{"801119661308"}, nil, []string{"Windows images cannot run"}},
		{"", []string{"aws-marketplace"}, []string{"product-code", "abc"}, []string{"Images of AWS Marketplace cannot run"}},
		{"", []string{canonical}, []string{"name", "ubuntu/images/*ubuntu-xenial-16.04-amd64-server-*"},
			[]string{"these releases of Canonical", "ubuntu-20.04, ubuntu-22.04, ubuntu-24.04", "bake cloud import FILE -owner 099720109477 -name 'ubuntu/images/1ubuntu-xenial-16.04-amd64-server-1'"}},
		{"", []string{"137112412989"}, []string{"name", "amzn2-ami-hvm-*-x86_64-gp2"}, []string{"cannot make images of Amazon by itself", "-owner 137112412989"}},
		{"", []string{"amazon"}, []string{"name", "al2023-ami-2023.*-kernel-6.1-x86_64"}, []string{"This host has no base for Amazon Linux 2023 of Amazon.", "bake cloud base al2023 -from IMAGE"}},
		{"", []string{"888995627335"}, []string{"name", "hc-base-*"}, []string{"no image named hc-base-* of owner 888995627335", "-owner 888995627335 -name 'hc-base-1'"}},
		{"", []string{"self"}, []string{"name", "golden-*"}, []string{"This account has no image named golden-*", "bake cloud import FILE -name 'golden-1'"}},
		{"", nil, []string{"tag:x", "y"}, []string{""}},
	} {
		filters := map[string][]string{}
		for i := 0; i < len(test.filters); i += 2 {
			filters[test.filters[i]] = []string{test.filters[i+1]}
		}
		got, err := s.Explain(test.id, test.owners, filters)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range test.want {
			if !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("%v %v: %q lacks %q", test.owners, test.filters, got, want)
			}
		}
	}
}
