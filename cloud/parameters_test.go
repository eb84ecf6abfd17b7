package cloud_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/google/go-cmp/cmp"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

func put(t *testing.T, client *ssm.Client, in ssm.PutParameterInput) {
	t.Helper()
	if _, err := client.PutParameter(t.Context(), &in); err != nil {
		t.Fatal(err)
	}
}

// get returns the value of a parameter, or the code of the error.
func get(t *testing.T, client *ssm.Client, name string, decrypt bool) string {
	t.Helper()
	out, err := client.GetParameter(t.Context(), &ssm.GetParameterInput{Name: &name, WithDecryption: &decrypt})
	if err != nil {
		return code(err)
	}
	return *out.Parameter.Value
}

func TestParameters(t *testing.T) {
	dir := t.TempDir()
	s := cloudtest.Start(t, cloud.Options{Dir: dir})
	client := ssm.NewFromConfig(s.Config("default", "us-east-1"))
	text, list, secret := types.ParameterTypeString, types.ParameterTypeStringList, types.ParameterTypeSecureString
	put(t, client, ssm.PutParameterInput{Name: aws.String("/app/db/host"), Value: aws.String("one"), Type: text, Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("a")}}})
	put(t, client, ssm.PutParameterInput{Name: aws.String("/app/db/host"), Value: aws.String("two"), Overwrite: aws.Bool(true)})
	put(t, client, ssm.PutParameterInput{Name: aws.String("/app/db/password"), Value: aws.String("hush"), Type: secret})
	put(t, client, ssm.PutParameterInput{Name: aws.String("/app/zones"), Value: aws.String("a,b"), Type: list})
	put(t, client, ssm.PutParameterInput{Name: aws.String("top"), Value: aws.String(strings.Repeat("x", 5000)), Type: text, Tier: types.ParameterTierIntelligentTiering})

	for name, want := range map[string]string{
		"/app/db/host": "two", "/app/db/host:1": "one", "/app/db/host:2": "two", "/app/db/host:3": "ParameterVersionNotFound", "/app/db/host:live": "ParameterVersionNotFound",
		"/app/db/password": "hush", "/app/zones": "a,b", "/absent": "ParameterNotFound",
		"arn:aws:ssm:us-east-1:123456789012:parameter/app/db/host": "two", "arn:aws:ssm:us-east-1:123456789012:parameter/app/db/host:1": "one",
		"arn:aws:ssm:us-east-1:987654321098:parameter/app/db/host": "ParameterNotFound",
	} {
		if got := get(t, client, name, true); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if got := get(t, client, "/app/db/password", false); strings.Contains(got, "hush") || len(got) < 20 {
		t.Errorf("without decryption the secret is %q", got)
	}
	if got := get(t, ssm.NewFromConfig(s.Config("other", "us-east-1")), "/app/zones", false); got != "ParameterNotFound" {
		t.Errorf("another account sees %s", got)
	}
	if got := get(t, ssm.NewFromConfig(s.Config("default", "eu-west-1")), "/app/zones", false); got != "ParameterNotFound" {
		t.Errorf("another region sees %s", got)
	}
	several, err := client.GetParameters(t.Context(), &ssm.GetParametersInput{Names: []string{"/app/zones", "/absent", "/app/db/host:1"}})
	if err != nil || len(several.Parameters) != 2 || *several.Parameters[1].Selector != ":1" || cmp.Diff(several.InvalidParameters, []string{"/absent"}) != "" {
		t.Errorf("GetParameters: %v, %v", several, err)
	}

	paths := func(in ssm.GetParametersByPathInput) string {
		var names []string
		for {
			out, err := client.GetParametersByPath(t.Context(), &in)
			if err != nil {
				return code(err)
			}
			for _, p := range out.Parameters {
				names = append(names, *p.Name)
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return strings.Join(names, " ")
			}
		}
	}
	for _, test := range []struct {
		in   ssm.GetParametersByPathInput
		want string
	}{
		{ssm.GetParametersByPathInput{Path: aws.String("/app")}, "/app/zones"},
		{ssm.GetParametersByPathInput{Path: aws.String("/app/"), Recursive: aws.Bool(true), MaxResults: aws.Int32(1)}, "/app/db/host /app/db/password /app/zones"},
		{ssm.GetParametersByPathInput{Path: aws.String("/"), Recursive: aws.Bool(true), ParameterFilters: []types.ParameterStringFilter{{Key: aws.String("Type"), Values: []string{"SecureString"}}}}, "/app/db/password"},
		{ssm.GetParametersByPathInput{Path: aws.String("app")}, "ValidationException"},
		{ssm.GetParametersByPathInput{Path: aws.String("/"), ParameterFilters: []types.ParameterStringFilter{{Key: aws.String("Name"), Values: []string{"x"}}}}, "InvalidFilterKey"},
	} {
		if got := paths(test.in); got != test.want {
			t.Errorf("%s: %s, want %s", *test.in.Path, got, test.want)
		}
	}

	described := func(filters ...types.ParameterStringFilter) string {
		out, err := client.DescribeParameters(t.Context(), &ssm.DescribeParametersInput{ParameterFilters: filters})
		if err != nil {
			return code(err)
		}
		var rows []string
		for _, p := range out.Parameters {
			rows = append(rows, fmt.Sprintf("%s %s %s %d %s", *p.Name, p.Type, p.Tier, p.Version, aws.ToString(p.KeyId)))
		}
		return strings.Join(rows, "; ")
	}
	filter := func(key, option string, values ...string) types.ParameterStringFilter {
		return types.ParameterStringFilter{Key: &key, Option: &option, Values: values}
	}
	for _, test := range []struct {
		filters []types.ParameterStringFilter
		want    string
	}{
		{nil, "/app/db/host String Standard 2 ; /app/db/password SecureString Standard 1 alias/aws/ssm; /app/zones StringList Standard 1 ; top String Advanced 1 "},
		{[]types.ParameterStringFilter{filter("Name", "BeginsWith", "/app/z", "top")}, "/app/zones StringList Standard 1 ; top String Advanced 1 "},
		{[]types.ParameterStringFilter{filter("Name", "Contains", "ass")}, "/app/db/password SecureString Standard 1 alias/aws/ssm"},
		{[]types.ParameterStringFilter{filter("tag:team", "Equals", "a")}, "/app/db/host String Standard 2 "},
		{[]types.ParameterStringFilter{filter("Path", "Recursive", "/app/db"), filter("Type", "Equals", "String")}, "/app/db/host String Standard 2 "},
		{[]types.ParameterStringFilter{filter("Colour", "Equals", "red")}, "InvalidFilterKey"},
		{[]types.ParameterStringFilter{filter("Type", "Contains", "S")}, "InvalidFilterOption"},
	} {
		if got := described(test.filters...); got != test.want {
			t.Errorf("%v: %s\nwant %s", test.filters, got, test.want)
		}
	}

	if _, err := client.DeleteParameter(t.Context(), &ssm.DeleteParameterInput{Name: aws.String("top")}); err != nil {
		t.Error(err)
	}
	if _, err := client.DeleteParameter(t.Context(), &ssm.DeleteParameterInput{Name: aws.String("top")}); code(err) != "ParameterNotFound" {
		t.Errorf("deleted twice: %v", err)
	}
	if _, err := client.PutParameter(t.Context(), &ssm.PutParameterInput{Name: aws.String("many"), Value: aws.String("x"), Type: types.ParameterTypeString}); err != nil {
		t.Error(err)
	}
	many, err := client.DeleteParameters(t.Context(), &ssm.DeleteParametersInput{Names: []string{"many", "top"}})
	if err != nil || len(many.DeletedParameters) != 1 || many.DeletedParameters[0] != "many" || len(many.InvalidParameters) != 1 || many.InvalidParameters[0] != "top" {
		t.Errorf("deleted several: %+v, %v", many, err)
	}
}

// A label refers to the version that got it last, also in the id of an image.
func TestParameterLabels(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	ctx := t.Context()
	client := ssm.NewFromConfig(s.Config("default", "us-east-1"))
	for n, value := range []string{"one", "two", "three"} {
		put(t, client, ssm.PutParameterInput{Name: aws.String("/app"), Value: &value, Type: types.ParameterTypeString, Overwrite: aws.Bool(n > 0)})
	}
	label := func(version int64, labels ...string) (string, []string) {
		in := &ssm.LabelParameterVersionInput{Name: aws.String("/app"), Labels: labels}
		if version > 0 {
			in.ParameterVersion = &version
		}
		out, err := client.LabelParameterVersion(ctx, in)
		if err != nil {
			return code(err), nil
		}
		return fmt.Sprint(out.ParameterVersion), out.InvalidLabels
	}
	if got, invalid := label(1, "prod", "1st", "aws-x", "SSM", "a b", "prod"); got != "1" || cmp.Diff(invalid, []string{"1st", "aws-x", "SSM", "a b"}) != "" {
		t.Errorf("labelled %s, invalid %q", got, invalid)
	}
	if got := get(t, client, "/app:prod", false); got != "one" {
		t.Errorf("prod is %s", got)
	}
	if got, _ := label(0, "prod", "next"); got != "3" {
		t.Errorf("labelled %s", got)
	}
	for name, want := range map[string]string{"/app:prod": "three", "/app:1": "one", "/app:next": "three", "/app:Prod": "ParameterVersionNotFound"} {
		if got := get(t, client, name, false); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if got, _ := label(9, "x"); got != "ParameterVersionNotFound" {
		t.Errorf("label of version 9 = %q, want ParameterVersionNotFound", got)
	}
	if got, _ := label(3, "a", "b", "c", "d", "e", "f", "g", "h", "i"); got != "ParameterVersionLabelLimitExceeded" {
		t.Errorf("11 labels = %q, want ParameterVersionLabelLimitExceeded", got)
	}
	taken, err := client.UnlabelParameterVersion(ctx, &ssm.UnlabelParameterVersionInput{Name: aws.String("/app"), ParameterVersion: aws.Int64(3), Labels: []string{"next", "absent"}})
	if err != nil || cmp.Diff(taken.RemovedLabels, []string{"next"}) != "" || cmp.Diff(taken.InvalidLabels, []string{"absent"}) != "" {
		t.Errorf("%v, %v", taken, err)
	}
	var rows []string
	in := &ssm.GetParameterHistoryInput{Name: aws.String("/app"), MaxResults: aws.Int32(2)}
	for {
		out, err := client.GetParameterHistory(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range out.Parameters {
			rows = append(rows, fmt.Sprintf("%d %s %q", p.Version, *p.Value, p.Labels))
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if diff := cmp.Diff(rows, []string{"1 one []", "2 two []", `3 three ["prod"]`}); diff != "" {
		t.Errorf("versions (-got +want):\n%s", diff)
	}

	// When there are too many versions, the oldest is deleted, unless it has a label.
	if got, _ := label(1, "old"); got != "1" {
		t.Errorf("label of version 1 = %q, want 1", got)
	}
	var full error
	for n := 0; n < 100 && full == nil; n++ {
		_, full = client.PutParameter(ctx, &ssm.PutParameterInput{Name: aws.String("/app"), Value: aws.String("more"), Overwrite: aws.Bool(true)})
	}
	if code(full) != "ParameterMaxVersionLimitExceeded" {
		t.Errorf("the labelled version may go: %v", full)
	}
}

func TestPutParameterErrors(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := ssm.NewFromConfig(s.Config("default", "us-east-1"))
	text := types.ParameterTypeString
	put(t, client, ssm.PutParameterInput{Name: aws.String("have"), Value: aws.String("v"), Type: text})
	put(t, client, ssm.PutParameterInput{Name: aws.String("big"), Value: aws.String("v"), Type: text, Tier: types.ParameterTierAdvanced})
	for _, test := range []struct {
		want string
		in   ssm.PutParameterInput
	}{
		{"ParameterAlreadyExists", ssm.PutParameterInput{Name: aws.String("have"), Value: aws.String("v"), Type: text}},
		{"HierarchyTypeMismatchException", ssm.PutParameterInput{Name: aws.String("have"), Value: aws.String("v"), Type: types.ParameterTypeSecureString, Overwrite: aws.Bool(true)}},
		{"ValidationException", ssm.PutParameterInput{Name: aws.String("have"), Value: aws.String("v"), Overwrite: aws.Bool(true), Tags: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}}},
		{"ValidationException", ssm.PutParameterInput{Name: aws.String("big"), Value: aws.String("v"), Overwrite: aws.Bool(true), Tier: types.ParameterTierStandard}},
		{"ValidationException", ssm.PutParameterInput{Name: aws.String("new"), Value: aws.String("v")}},
		{"ValidationException", ssm.PutParameterInput{Name: aws.String("new"), Value: aws.String(""), Type: text}},
		{"ValidationException", ssm.PutParameterInput{Name: aws.String("new"), Value: aws.String(strings.Repeat("x", 4097)), Type: text}},
		{"ValidationException", ssm.PutParameterInput{Name: aws.String("new"), Value: aws.String(strings.Repeat("x", 8193)), Type: text, Tier: types.ParameterTierAdvanced}},
		{"ValidationException", ssm.PutParameterInput{Name: aws.String("a b"), Value: aws.String("v"), Type: text}},
		{"ValidationException", ssm.PutParameterInput{Name: aws.String("AWSname"), Value: aws.String("v"), Type: text}},
		{"ValidationException", ssm.PutParameterInput{Name: aws.String("a/b"), Value: aws.String("v"), Type: text}},
		{"AccessDeniedException", ssm.PutParameterInput{Name: aws.String("/aws/x"), Value: aws.String("v"), Type: text}},
		{"HierarchyLevelLimitExceededException", ssm.PutParameterInput{Name: aws.String(strings.Repeat("/x", 16)), Value: aws.String("v"), Type: text}},
		{"ParameterPatternMismatchException", ssm.PutParameterInput{Name: aws.String("new"), Value: aws.String("v"), Type: text, AllowedPattern: aws.String(`\d+`)}},
		{"InvalidAllowedPatternException", ssm.PutParameterInput{Name: aws.String("new"), Value: aws.String("v"), Type: text, AllowedPattern: aws.String(`(`)}},
		{"ValidationException", ssm.PutParameterInput{Name: aws.String("new"), Value: aws.String("v"), Type: text, DataType: aws.String("aws:ec2:image")}},
		{"ValidationException", ssm.PutParameterInput{Name: aws.String("new"), Value: aws.String("v"), Type: text, KeyId: aws.String("alias/x")}},
		{"InvalidPolicyTypeException", ssm.PutParameterInput{Name: aws.String("new"), Value: aws.String("v"), Type: text, Policies: aws.String("[]")}},
	} {
		if _, err := client.PutParameter(t.Context(), &test.in); code(err) != test.want {
			t.Errorf("%s = %.20q: %v, want %s", *test.in.Name, *test.in.Value, err, test.want)
		}
	}
	if got := get(t, client, "new", false); got != "ParameterNotFound" {
		t.Errorf("a refused parameter is there: %s", got)
	}
}

// TestAdvancedParameter checks that an advanced parameter stays advanced when a new version names no tier.
func TestAdvancedParameter(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := ssm.NewFromConfig(s.Config("default", "us-east-1"))
	put(t, client, ssm.PutParameterInput{Name: aws.String("big"), Value: aws.String(strings.Repeat("x", 5000)), Type: types.ParameterTypeString, Tier: types.ParameterTierAdvanced})
	for _, size := range []int{6000, 1} {
		out, err := client.PutParameter(t.Context(), &ssm.PutParameterInput{Name: aws.String("big"), Value: aws.String(strings.Repeat("y", size)), Overwrite: aws.Bool(true)})
		if err != nil || out.Tier != types.ParameterTierAdvanced {
			t.Errorf("%d bytes: %+v, %v", size, out, err)
		}
	}
}

// TestParameterHistory checks that only the newest 100 versions are kept.
func TestParameterHistory(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := ssm.NewFromConfig(s.Config("default", "us-east-1"))
	for i := range 102 {
		put(t, client, ssm.PutParameterInput{Name: aws.String("n"), Value: aws.String(fmt.Sprint(i + 1)), Type: types.ParameterTypeString, Overwrite: aws.Bool(true)})
	}
	for name, want := range map[string]string{"n": "102", "n:3": "3", "n:2": "ParameterVersionNotFound"} {
		if got := get(t, client, name, false); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// TestPublicParameters checks that they name the images that a filter finds.
func TestPublicParameters(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := ssm.NewFromConfig(s.Config("default", "eu-west-1"))
	images, err := s.EC2("default", "eu-west-1").DescribeImages(t.Context(), &ec2.DescribeImagesInput{Owners: []string{"136693071363"}})
	if err != nil || len(images.Images) != 1 {
		t.Fatalf("%v, %v", images, err)
	}
	for _, name := range []string{"/aws/service/debian/release/12/latest/amd64", "/aws/service/debian/release/12/20250316-2053/amd64"} {
		if got := get(t, client, name, false); got != *images.Images[0].ImageId {
			t.Errorf("%s is %s, want %s", name, got, *images.Images[0].ImageId)
		}
	}
	out, err := client.GetParametersByPath(t.Context(), &ssm.GetParametersByPathInput{Path: aws.String("/aws/service/debian"), Recursive: aws.Bool(true)})
	if err != nil || len(out.Parameters) != 2 || *out.Parameters[0].ARN != "arn:aws:ssm:eu-west-1::parameter/aws/service/debian/release/12/20250316-2053/amd64" {
		t.Errorf("%+v, %v", out, err)
	}
	if got := get(t, client, "/aws/service/debian/release/11/latest/amd64", false); got != "ParameterNotFound" {
		t.Errorf("Debian 11 is %s", got)
	}
	_, err = client.GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("/aws/service/debian/release/12/latest/arm64")})
	if err == nil || !strings.Contains(err.Error(), "Similar public parameters are /aws/service/debian/release/12/latest/amd64, ") {
		t.Errorf("one that is not there: %v", err)
	}
}
