package ebs_test

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/builder"
	"bake/builder/amazon/ebs"
)

// TestSharingByDefaultKey: if an image that is to be shared would be encrypted with a
// key that AWS manages, that is an error before a machine is launched.
func TestSharingByDefaultKey(t *testing.T) {
	const undecryptable = "Sharing an image that others cannot decrypt"
	mapping := func(lines string) string {
		return "launch_block_device_mappings {\n device_name = \"/dev/sdf\"\n volume_size = 1\n" + lines + "\n}\n"
	}
	theirs := builder.Distribution{Accounts: []string{"987654321098"}}
	in := func(regions ...string) builder.Distribution {
		return builder.Distribution{Regions: regions, Accounts: theirs.Accounts}
	}
	users := "ami_users = [\"123456789012\"]\n"
	for name, tt := range map[string]struct {
		more        string
		key         string               // the default one in place of that of AWS
		off         bool                 // nothing is encrypted unless the template says so
		west        bool                 // the region where everything is encrypted
		to          builder.Distribution // of a bake file
		summary, at string
	}{
		"shared":                              {more: users, summary: undecryptable, at: `["123456789012"]`},
		"public":                              {more: "ami_groups = [\"all\"]\n", summary: "Sharing an encrypted image with everyone", at: `["all"]`},
		"a copy":                              {more: users + "ami_regions = [\"us-west-2\"]\n", west: true, summary: undecryptable, at: `["123456789012"]`},
		"a mapping":                           {more: users + mapping("encrypted = true"), off: true, summary: undecryptable, at: `["123456789012"]`},
		"a mapping, public":                   {more: "ami_groups = [\"all\"]\n" + mapping("encrypted = true"), off: true, summary: "Sharing an encrypted image with everyone", at: `["all"]`},
		"a copy of what the account encrypts": {more: users + "ami_regions = [\"us-west-2\"]\n", key: "alias/golden", summary: undecryptable, at: `["123456789012"]`},
		"a copy of what a mapping encrypts":   {more: users + "ami_regions = [\"us-west-2\"]\n" + mapping("encrypted = true\nkms_key_id = \"alias/golden\""), off: true, summary: undecryptable, at: `["123456789012"]`},
		"a mapping with a key":                {more: users + mapping("encrypted = true\nkms_key_id = \"alias/golden\""), off: true},
		"a mapping, for nobody":               {more: mapping("encrypted = true"), off: true},
		"a mapping that is no volume":         {more: users + "launch_block_device_mappings {\n device_name = \"/dev/sdf\"\n virtual_name = \"ephemeral0\"\n}\n", off: true},
		"by a bake file":                      {to: theirs, summary: undecryptable, at: `"web"`},
		"encrypted for it":                    {more: "encrypt_boot = true\n", to: theirs, summary: undecryptable, at: `"web"`},
		"a copy for it":                       {more: "ami_regions = [\"us-west-2\"]\n", west: true, to: theirs, summary: undecryptable, at: `"web"`},
		"a copy by it":                        {west: true, to: in("us-west-2"), summary: undecryptable, at: `"web"`},
		"a copy by it of what is encrypted":   {more: "encrypt_boot = true\nkms_key_id = \"alias/golden\"\n", off: true, to: in("us-west-2"), summary: undecryptable, at: `"web"`},
		"a copy by it of what is encrypted by default": {key: "alias/golden", to: in(region, "us-west-2"), summary: undecryptable, at: `"web"`},
		"a copy by it, public before":                  {more: "ami_groups = [\"all\"]\n", west: true, to: in("us-west-2"), summary: undecryptable, at: `"web"`},
		"nobody gets it":                               {},
		"only the own account gets it":                 {to: builder.Distribution{Accounts: []string{"123456789012"}}},
		"another default key":                          {more: users, key: "alias/golden"},
		"another default key for copies":               {west: true, key: "alias/golden", to: in("us-west-2")},
		"a key of its own":                             {more: "encrypt_boot = true\nkms_key_id = \"alias/golden\"\n", to: theirs},
		"a key for the copy by it":                     {west: true, to: builder.Distribution{Regions: []string{"us-west-2"}, Accounts: theirs.Accounts, Keys: map[string]string{"us-west-2": "alias/golden"}}},
		"elsewhere":                                    {more: users, west: true},
		"a bake file elsewhere":                        {more: "ami_regions = [\"us-west-2\"]\n", west: true, to: in(region)},
		"for nobody elsewhere":                         {west: true, to: builder.Distribution{Regions: []string{"us-west-2"}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			encrypting := region
			if tt.west {
				encrypting = "us-west-2"
			}
			w.Quietly(func() {
				if tt.off {
					return
				}
				if _, err := w.Client(encrypting).EnableEbsEncryptionByDefault(t.Context(), &awsec2.EnableEbsEncryptionByDefaultInput{}); err != nil {
					t.Fatal(err)
				}
				if tt.key == "" {
					return
				}
				if _, err := w.Client(encrypting).ModifyEbsDefaultKmsKeyId(t.Context(), &awsec2.ModifyEbsDefaultKmsKeyIdInput{KmsKeyId: aws.String(tt.key)}); err != nil {
					t.Fatal(err)
				}
			})
			body := plain("ami_name = \"web\"\n" + tt.more)
			maker, diags := ebs.Factory(w.Cloud).New(input(body))
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			maker.(interface{ SetDistribution(builder.Distribution) }).SetDistribution(tt.to)
			b := w.Bake(t)
			_, err := maker.Build(t.Context(), b.Scope, builder.Hooks{Provision: func(context.Context, builder.Machine) error { return nil }})
			if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
				t.Error(err)
			}
			if tt.summary == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantDiagnostic(t, err, body, tt.summary, tt.at)
			nothingMade(t, w)
		})
	}
}
