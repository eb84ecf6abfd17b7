package ebs_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"bake/builder/amazon"
	"bake/cloud/ec2"
	"bake/step"
)

const withPolicy = `
ami_name = "profile"
run_tags = { team = "a" }
temporary_iam_instance_profile_policy_document {
  Version = "2012-10-17"
  Statement {
    Effect   = "Allow"
    Action   = ["logs:*"]
    Resource = ["*"]
  }
  Statement {
    Effect   = "Deny"
    Action   = ["logs:Delete*", "logs:Put*"]
    Resource = ["arn:aws:logs:*:*:*"]
  }
}
`

// TestTemporaryProfile uses a temporary profile that EC2 does not know at first.
func TestTemporaryProfile(t *testing.T) {
	w := newWorld(t, ec2.Fault{Action: "RunInstances", Calls: 2, Code: "InvalidParameterValue",
		Message: "Value (packer-x) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"})
	w.MustBuild(t, plain(withPolicy))
	if left := w.Identities(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	var order []string
	for _, c := range w.Calls {
		name := c.Params["InstanceProfileName"] + c.Params["RoleName"]
		switch {
		case c.Action == "CreateRole":
			if !strings.Contains(c.Params["AssumeRolePolicyDocument"], `"Service":"ec2.amazonaws.com"`) || c.Params["Tags.member.1.Key"] != "bake:build" || c.Params["Tags.member.3.Key"] != "team" {
				t.Errorf("CreateRole: %v", c.Params)
			}
		case c.Action == "PutRolePolicy":
			want := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["logs:*"],"Resource":["*"]},{"Effect":"Deny","Action":["logs:Delete*","logs:Put*"],"Resource":["arn:aws:logs:*:*:*"]}]}`
			if got := c.Params["PolicyDocument"]; got != want {
				t.Errorf("the policy is %s", got)
			}
		case c.Action == "RunInstances":
			name = c.Params["IamInstanceProfile.Name"]
			if c.Params["DryRun"] == "true" {
				c.Action = "dry run"
			}
		case strings.Contains(c.Action, "Role") || strings.Contains(c.Action, "InstanceProfile"):
		case c.Action == "TerminateInstances":
			order = append(order, c.Action)
			continue
		default:
			continue
		}
		if !strings.HasPrefix(name, "packer-") {
			t.Errorf("%s is about %q", c.Action, name)
		}
		order = append(order, c.Action)
	}
	want := []string{"CreateInstanceProfile", "GetInstanceProfile", "CreateRole", "GetRole", "PutRolePolicy", "AddRoleToInstanceProfile",
		"dry run", "dry run", "dry run", "RunInstances", "TerminateInstances",
		"RemoveRoleFromInstanceProfile", "DeleteRolePolicy", "DeleteRole", "DeleteInstanceProfile"}
	if !slices.Equal(order, want) {
		t.Errorf("the calls were\n%s, want\n%s", strings.Join(order, " "), strings.Join(want, " "))
	}
}

// TestTemporaryProfileSwept kills a build after each call to IAM: the remaining
// resources can be deleted by ledger and by tags.
func TestTemporaryProfileSwept(t *testing.T) {
	for _, failing := range []string{"CreateInstanceProfile", "CreateRole", "PutRolePolicy", "AddRoleToInstanceProfile", "RunInstances"} {
		t.Run(failing, func(t *testing.T) {
			for _, byTags := range []bool{false, true} {
				w := newWorld(t, ec2.Fault{Action: failing, Code: "Unavailable", Status: 400})
				b := w.Bake(t)
				if _, err := b.Build(t.Context(), plain(withPolicy)); err == nil {
					t.Fatal("it did not fail")
				}
				ledger, err := os.ReadFile(b.Ledger)
				if err != nil {
					t.Fatal(err)
				}
				if byTags {
					found, err := amazon.FindTagged(t.Context(), amazon.Place{Cloud: w.Cloud}, b.Scope.Run.ID)
					if err != nil {
						t.Fatal(err)
					}
					d := amazon.Destroyer(func(context.Context, string) (amazon.Cloud, error) { return w.Cloud, nil })
					for _, r := range found {
						if err := d.Destroy(t.Context(), r); err != nil {
							t.Error(err)
						}
					}
				} else if err := b.Sweep(t, ledger); err != nil {
					t.Error(err)
				}
				if left := w.Holdings(); len(left) > 0 {
					t.Errorf("by tags %t: left behind: %v", byTags, left)
				}
			}
		})
	}
}

// TestProfileNotHere bakes a template with a profile that exists only in the real
// account.
func TestProfileNotHere(t *testing.T) {
	w := newWorld(t)
	b := w.Bake(t)
	_, err := b.Build(t.Context(), plain("ami_name = \"profile\"\niam_instance_profile = \"builders\""))
	if err == nil {
		err = b.Scope.Close(t.Context(), context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.Said(), `There is no instance profile "builders" here`) {
		t.Errorf("it said:\n%s", b.Said())
	}
}

// TestSessionProfileNotHere: where Session Manager needs the profile that exists only in the
// real account, the machine has a temporary one, which does not stay.
func TestSessionProfileNotHere(t *testing.T) {
	w := newWorld(t)
	before := w.Holdings()
	b := w.Bake(t)
	_, err := b.Build(t.Context(), plain("ami_name = \"profile\"\niam_instance_profile = \"builders\"\nssh_interface = \"session_manager\"\nssh_timeout = \"1s\""))
	if cerr := b.Scope.Close(t.Context(), context.Background()); cerr != nil {
		t.Fatal(cerr)
	}
	if want := `There is no instance profile "builders" here; the machine has a temporary one`; !strings.Contains(b.Said(), want) {
		t.Errorf("it did not say %q, but\n%s\n%v", want, b.Said(), err)
	}
	attached := func(e step.Event) bool {
		return e.Kind == step.StepFinished && strings.Contains(e.Step, "attach the policy to the role")
	}
	if !slices.ContainsFunc(b.Events, attached) {
		t.Errorf("no policy was attached: %v", err)
	}
	if after := w.Holdings(); err != nil && !slices.Equal(before, after) {
		t.Errorf("left behind: %v", after)
	}
}
