package ec2

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFaultRules(t *testing.T) {
	faults, err := NewFaults(7,
		Fault{Action: "RunInstances", Nth: 2, Code: "second"},
		Fault{Action: "RunInstances", Calls: 1, Region: "eu-west-1", Code: "first in eu-west-1"},
		Fault{Action: "RunInstances", Nth: 3, Calls: 2, Code: "third and fourth"},
	)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, region := range []string{"us-east-1", "eu-west-1", "us-east-1", "eu-west-1", "us-east-1"} {
		var codes []string
		for _, f := range faults.applying(call{action: "RunInstances", region: region}) {
			codes = append(codes, f.Code)
		}
		got = append(got, strings.Join(codes, "+"))
	}
	if want := []string{"", "second+first in eu-west-1", "third and fourth", "third and fourth", ""}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := faults.applying(call{action: "StopInstances", region: "us-east-1"}); got != nil {
		t.Errorf("another action: %v", got)
	}
}

// TestWrittenFaults checks that rules are written in the form in which they are read.
func TestWrittenFaults(t *testing.T) {
	const text = `{"seed":7,"rules":[{"action":"RunInstances","nth":2,"effect":"error","code":"X"},{"effect":"hide","times":3},{"effect":"hang","for":"1m0s","after":"3s"}]}`
	var f Faults
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(&f); err != nil || string(got) != text {
		t.Errorf("%s, %v", got, err)
	}
}

func TestFaultProbability(t *testing.T) {
	sequence := func(seed uint64) (hits int, order string) {
		faults, err := NewFaults(seed, Fault{Probability: 0.25, Code: "x"})
		if err != nil {
			t.Fatal(err)
		}
		for range 400 {
			n := len(faults.applying(call{action: "A", region: "r"}))
			hits += n
			order += string(rune('0' + n))
		}
		return hits, order
	}
	hits, order := sequence(1)
	if hits < 60 || hits > 140 {
		t.Errorf("%d of 400 with a probability of 1/4", hits)
	}
	if _, again := sequence(1); again != order {
		t.Error("a seed does not repeat its faults")
	}
}

func TestRehearsalFile(t *testing.T) {
	var d Delays
	for _, test := range []struct {
		text string
		want Delays
		err  string
	}{
		{`"instant"`, Delays{}, ""},
		{`"aws"`, awsDelays(), ""},
		{`{"copy": "2m", "stop": "1s"}`, Delays{Copy: 2 * time.Minute, Stop: time.Second}, ""},
		{`{"profile": "aws", "factor": 0.5, "copy": "1s"}`, Delays{Launch: 4 * time.Second, Stop: 10 * time.Second, Terminate: 12500 * time.Millisecond,
			Snapshot: 30 * time.Second, Image: 10 * time.Second, Copy: time.Second, Usage: 12 * time.Hour}, ""},
		{`{"factor": 2}`, Delays{}, "specify one, such as aws"},
		{`{"profile": "aws", "factor": -1}`, Delays{}, "not between 0 and 1000"},
		{`"slow"`, Delays{}, `there is no profile "slow"; use instant, aws`},
		{`{"boot": "1s"}`, Delays{}, `unknown delay "boot"; use launch`},
		{`{"copy": "long"}`, Delays{}, `"long" is not a duration`},
		{`{"copy": "-1s"}`, Delays{}, `"-1s" is not a duration`},
	} {
		d = Delays{}
		err := json.Unmarshal([]byte(test.text), &d)
		if test.err == "" && (err != nil || d != test.want) || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: %+v, %v", test.text, d, err)
		}
	}
	var f Faults
	for text, want := range map[string]string{
		`{"seed": 1, "rules": [{"code": "X"}]}`:        "",
		`{"rules": [{}]}`:                              "the effect error needs a code",
		`{"rules": [{"effect": "melt"}]}`:              `there is no effect "melt"`,
		`{"rules": [{"code": "X", "chance": 1}]}`:      `unknown field "chance"`,
		`{"rules": [{"code": "X", "probability": 2}]}`: "not between 0 and 1",
		`{"rules": [{"code": "X", "nth": -1}]}`:        "cannot be negative",

		`{"rules": [{"effect": "hang", "after": "3s", "for": "1m"}]}`:            "",
		`{"rules": [{"effect": "hang", "after": "soon"}]}`:                       `"soon" is not a duration`,
		`{"rules": [{"effect": "delay"}]}`:                                       `the effect delay needs "for"`,
		`{"rules": [{"effect": "fail", "after": "1s"}]}`:                         "not for fail",
		`{"rules": [{"code": "X", "for": "1m"}]}`:                                "not for error",
		`{"rules": [{"effect": "die", "for": "1m"}]}`:                            "not for die",
		`{"rules": [{"code": "X", "times": 2}]}`:                                 `"calls" is the number of`,
		`{"rules": [{"effect": "delay", "for": "1s", "code": "X"}]}`:             "not for delay",
		`{"rules": [{"effect": "fail", "status": 503}]}`:                         "not for fail",
		`{"rules": [{"effect": "die", "action": "Describe*"}]}`:                  "about launches",
		`{"rules": [{"effect": "die", "service": "ssm"}]}`:                       "about launches",
		`{"rules": [{"effect": "hang", "action": "*Instances"}]}`:                "",
		`{"rules": [{"code": "X", "zone": "z", "action": "Stop*"}]}`:             "about capacity",
		`{"rules": [{"effect": "hide", "zone": "us-east-1a"}]}`:                  "the effect hide does not apply to launches",
		`{"rules": [{"code": "X", "service": "rds"}]}`:                           `there is no service "rds"`,
		`{"rules": [{"code": "X", "status": 200}]}`:                              "use one from 400 to 599",
		`{"rules": [{"code": "X", "action": "[a"}]}`:                             "not a valid pattern",
		`{"rules": [{"code": "X", "service": "ec3"}]}`:                           `there is no service "ec3" (did you mean "ec2"?)`,
		`{"rules": [{"effect": "hung"}]}`:                                        `there is no effect "hung" (did you mean "hang"?)`,
		`{"rules": [{"code": "X", "action": "RunInstance"}]}`:                    `no action of the local cloud matches "RunInstance" (did you mean "RunInstances"?)`,
		`{"rules": [{"code": "X", "action": "Frob*"}]}`:                          `no action of the local cloud matches "Frob*"`,
		`{"rules": [{"code": "X", "service": "ssm", "action": "RunInstances"}]}`: `no action of the local cloud's ssm matches "RunInstances"`,
		`{"rules": [{"code": "X", "service": "s3", "action": "getobject"}]}`:     `(did you mean "GetObject"?)`,
		`{"rules": [{"code": "X", "service": "s3", "action": "GetObject"}]}`:     "",
		`{"rules": [{"effect": "truncate", "action": "GetObject"}]}`:             "",
		`{"rules": [{"effect": "hide", "action": "GetObject"}]}`:                 "the effect hide applies only to these actions of ec2: CreateImage,",
		`{"rules": [{"effect": "stuck", "service": "s3"}]}`:                      "the effect stuck applies only to these actions of ec2",
		`{"rules": [{"effect": "fail", "action": "DescribeImages"}]}`:            "the effect fail applies only to these actions of ec2",
		`{"rules": [{"effect": "stuck", "action": "*Instances"}]}`:               "",
		`{"rules": [{"effect": "unreachable", "after": "1s", "for": "1m"}]}`:     "",
		`{"rules": [{"effect": "unreachable", "action": "StopInstances"}]}`:      "about launches",
		`{"rules": [{"effect": "metadata", "status": 500}]}`:                     "",
		`{"rules": [{"effect": "metadata", "code": "X"}]}`:                       "not for metadata",
		`{"rules": [{"code": "X"}, {"effect": "lose-answer", "a": 1}]}`:          `rule 2: json: unknown field "a"`,
	} {
		err := json.Unmarshal([]byte(text), &f)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
