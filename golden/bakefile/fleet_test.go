package bakefile_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bake/config"
	"bake/golden/bakefile"
)

const twoImages = `
image "base" { sources = ["web.null.*"] }
image "web" { sources = ["none.*"] }
`

// Errors in a fleet are reported at their line.
func TestWrongFleets(t *testing.T) {
	const (
		one    = "\nmatrix {\naccount = [\"111111111111\"]\nregion = [\"eu-west-1\"]\n}\n"                   // 4 to 7
		two    = "\nmatrix {\naccount = [\"111111111111\", \"222222222222\"]\nregion = [\"eu-west-1\"]\n}\n" // likewise
		base   = "images = [image.base]" + one                                                               // 3 to 7
		hook   = base + "notify \"webhook\" {\non = [\"failed\"]\n"                                          // 8 and 9
		nights = base + "schedule {\ncron = \"30 2 * * *\"\n"                                                // likewise
		each   = "role = \"arn:aws:iam::${each.account}:role/bake\"\n"
	)
	for _, test := range []struct {
		body string // of a fleet block, from line 3 on
		line string
		want string
	}{
		{"", "2", "argument \"images\" is required"},
		{"images = [image.base]", "2", "A fleet has a matrix block"},
		{"images = [image.bass]" + one, "3", "There is no image \"bass\". Did you mean \"base\"?"},
		{"images = [image.base,\nimage.base]" + one, "4", "has image.base already"},
		{"images = [image.base,\nimage.base[\"a\"]]" + one, "4", "has image.base[\"a\"] already"},
		{"images = []" + one, "3", "would have no cells"},
		{"images = image.base" + one, "3", "a list of references"},
		{"images = [\"base\"]" + one, "3", "as in image.NAME"},
		{"images = [image.base.id]" + one, "3", "as in image.NAME"},
		{"images = [image.base]\nmatrix {\naccount = []\nregion = [\"eu-west-1\"]\n}", "5", "account is empty"},
		{"images = [image.base]\nmatrix {\naccount = [\"1234\"]\nregion = [\"eu-west-1\"]\n}", "5", "12 digits"},
		{"images = [image.base]\nmatrix {\naccount = [\"111111111111\"]\nregion = [\"europe\"]\n}", "6", "not the name of a region"},
		{"images = [image.base]\nmatrix {\naccount = [\"111111111111\"]\nregion = [\"eu-west-1\", \"eu-west-1\"]\n}", "6", "there twice"},
		{"images = [image.base]" + two, "2", "set role to an ARN"},
		{"images = [image.base]" + two + "role = \"arn:aws:iam::111111111111:role/bake\"", "8", "Write ${each.account}"},
		{base + "role = \"arn:aws:iam::222222222222:role/bake\"", "8", "which is in another account"},
		{base + "role = \"bake\"", "8", "is not the ARN of a role"},
		{base + "role = \"arn:aws:iam::${each.acount}:role/bake\"", "8", "acount"},
		{nights + "}\nschedule {\ncron = \"0 1 * * *\"\n}", "11", "Duplicate block"},
		{base + "schedule {\ncron = \"30 2 * *\"\n}", "9", "five fields"},
		{base + "schedule {\ncron = \"@daily\"\n}", "9", "five fields"},
		{base + "schedule {\ncron = \"61 2 * * *\"\n}", "9", "above maximum"},
		{base + "schedule {\ncron = \"0 0 31 2 *\"\n}", "9", "never comes"},
		{base + "schedule {\ncron = \"TZ=UTC 0 0 1 2 *\"\n}", "9", "an argument of its own"},
		{nights + "timezone = \"Europe/Berln\"\n}", "10", "no time zone \"Europe/Berln\""},
		{nights + "timezone = \"Local\"\n}", "10", "Name the zone"},
		{nights + "jitter = \"-1m\"\n}", "10", "cannot be negative"},
		{nights + "jitter = \"soon\"\n}", "10", "not a duration"},
		{nights + "overlap = \"terminate_other\"\n}", "10", "is not one of"},
		{nights + "catch_up = \"1s\"\n}", "10", "10s or more"},
		{nights + "pause_after_failures = -1\n}", "10", "cannot be negative"},
		{base + "limits {\nparallel = -1\n}", "9", "1 or more"},
		{base + "limits {\nper_account = 1.5\n}", "9", "whole number"},
		{base + "limits {\napi_rate = { ec3 = 5 }\n}", "9", "Did you mean \"ec2\"?"},
		{base + "limits {\napi_rate = { ec2 = 0 }\n}", "9", "more than 0"},
		{base + "limits {\nparallels = 1\n}", "9", "Did you mean \"parallel\"?"},
		{hook + "url = \"http://ci.example.com\"\n}", "10", "must use https"},
		{hook + "url = \"ci\"\n}", "10", "URL of a web server"},
		{hook + "url = \"https://ci\"\ntimeout = \"-1s\"\n}", "11", "timeout must be a duration"},
		{hook + "url = \"https://ci\"\ntimeout = \"3h\"\n}", "11", "1m0s at most"},
		{hook + "url = \"https://ci\"\nheaders = { \"a b\" = \"c\" }\n}", "11", "cannot be sent"},
		{base + "notify \"mail\" {\non = [\"failed\"]\nurl = \"https://ci\"\n}", "8", "only kind is webhook"},
		{base + "notify \"webhook\" {\non = [\"fail\"]\nurl = \"https://ci\"\n}", "9", "Did you mean \"failed\"?"},
		{base + "notify \"webhook\" {\non = []\nurl = \"https://ci\"\n}", "9", "on is empty"},
		{base + "}\nfleet \"nightly\" {\n" + base, "9", "There is a fleet \"nightly\" already"},
		{base + "}\nfleet \"a b\" {\n" + base, "9", "cannot be the name of a fleet"},
		{base + "}\nengine \"cron\" {\naddress = \"h:1\"", "9", "only engine is temporal"},
		{base + "}\nengine \"temporal\" {\naddress = \"host\"", "10", "not a host and a port"},
		{base + "}\nengine \"temporal\" {\naddress = \"http://host:1\"", "10", "is a URL"},
		{base + "}\nengine \"temporal\" {\naddress = \"h:1\"\n}\nengine \"temporal\" {\naddress = \"h:1\"", "12", "only one \"engine\" block"},
		{base + "}\nengine \"temporal\" {\naddress = \"h:1\"\ntls {\ncert_file = \"c\"\n}", "11", "both cert_file and key_file"},
		{base + "}\nimage \"web\" {\nsources = [\"null.*\"]\ndistribute {\nregions = [\"eu-west-1\"]\n}\n}\nfleet \"b\" {\nimages = [image.web]" + one + each, "16", "the fleet bakes it there too"},
	} {
		images := twoImages
		if strings.Contains(test.body, "image \"web\"") {
			images = "image \"base\" { sources = [\"web.null.*\"] }"
		}
		_, said := read(t, "\nfleet \"nightly\" {\n"+test.body+"\n}\n"+images)
		if !slices.ContainsFunc(said, func(s string) bool {
			return strings.HasPrefix(s, "x.bake.hcl:"+test.line+" ") && strings.Contains(s, test.want)
		}) {
			t.Errorf("%s\nshould be %q at line %s:\n%s", test.body, test.want, test.line, strings.Join(said, "\n"))
		}
	}
}

// A fleet must not bake an image in a region that its source copies it to.
func TestCopiedTwice(t *testing.T) {
	for regions, wrong := range map[string]bool{
		`["eu-west-1", "us-east-1"]`: true,
		`["eu-west-1"]`:              false, // that of the cell itself
		`["us-east-1", "us-west-2"]`: false,
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{
			"x.pkr.hcl":  "variable \"to\" { default = [\"sa-east-1\", \"eu-west-1\"] }\nsource \"amazon-ebs\" \"web\" {\nami_regions = var.to\n}\nbuild { sources = [\"amazon-ebs.web\"] }\n",
			"x.bake.hcl": "image \"web\" { sources = [\"amazon-ebs.web\"] }\nfleet \"f\" {\nimages = [image.web]\nmatrix {\naccount = [\"111111111111\"]\nregion = " + regions + "\n}\n}\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		loaded, diags := config.Load(t.Context(), config.Options{Path: ".", Cwd: dir})
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		_, diags = bakefile.Check(t.Context(), loaded)
		if diags.HasErrors() != wrong {
			t.Errorf("%s: %v", regions, diags)
		} else if wrong && (diags[0].Subject.Filename != "x.pkr.hcl" || diags[0].Subject.Start.Line != 3 || !strings.Contains(diags[0].Detail, "copied to eu-west-1, and the fleet")) {
			t.Errorf("%s: %v", regions, diags)
		}
	}
}

// A fleet has the defaults that its documentation says, and a role for each cell.
func TestFleets(t *testing.T) {
	settings, said := read(t, `
image "base" { sources = ["web.null.*"] }
fleet "nightly" {
  images = [image.base]
  matrix {
    account = ["111111111111", "222222222222"]
    region  = ["eu-west-1", "us-gov-west-1"]
  }
  role = "arn:aws:iam::${each.account}:role/bake-${each.region}"
  schedule {
    cron = "30 2 * * MON-FRI"
  }
  limits {
    api_rate = { ec2 = 2.5 }
  }
  notify "webhook" {
    on  = ["failed"]
    url = "http://127.0.0.1:8080/hook"
  }
}
engine "temporal" {
  address = "[::1]:7233"
}
`)
	if len(said) > 0 {
		t.Fatalf("%q", said)
	}
	f := settings.Fleets()[0]
	if got := f.Role("222222222222", "us-gov-west-1"); got != "arn:aws:iam::222222222222:role/bake-us-gov-west-1" {
		t.Errorf("the role is %q", got)
	}
	o := f.Options
	if s := o.Schedule; s.Timezone != "UTC" || s.Overlap != "skip" || s.CatchUp != time.Hour {
		t.Errorf("%+v", s)
	}
	if l := o.Limits; l.Parallel != 10 || l.PerAccount != 0 || l.APIRate["ec2"] != 2.5 {
		t.Errorf("%+v", l)
	}
	if o.Notify[0].Timeout != 10*time.Second || settings.Engine().Address != "[::1]:7233" {
		t.Errorf("%+v %+v", o.Notify[0], settings.Engine())
	}
}
