package ec2

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/authorization"
	"bake/cloud/wire"
)

// Delays say how long transitions take; the zero value is instant, apart from
// what the machines themselves need. In JSON each is a text such as "30s", or
// the whole is the name of a profile: "instant" or "aws".
type Delays struct {
	Launch    time.Duration // pending to running, before the machine boots
	Stop      time.Duration // stopping to stopped, after the machine has stopped
	Terminate time.Duration // shutting-down to terminated, likewise
	Snapshot  time.Duration // pending to completed
	Image     time.Duration // pending to available, after the snapshots
	Copy      time.Duration // of an image to another region
	Usage     time.Duration // from a launch until the image's LastLaunchedTime says so
}

// AWSDelays are about what a small image takes on EC2.
func AWSDelays() Delays {
	return Delays{Launch: 8 * time.Second, Stop: 20 * time.Second, Terminate: 25 * time.Second,
		Snapshot: 60 * time.Second, Image: 20 * time.Second, Copy: 150 * time.Second, Usage: 24 * time.Hour}
}

// UnmarshalJSON implements [json.Unmarshaler].
func (d *Delays) UnmarshalJSON(data []byte) error {
	var profile string
	if json.Unmarshal(data, &profile) == nil {
		switch profile {
		case "instant":
			*d = Delays{}
		case "aws":
			*d = AWSDelays()
		default:
			return fmt.Errorf(`delays: there is no profile %q; use instant, aws or a JSON object of durations such as {"copy":"30s"}`, profile)
		}
		return nil
	}
	var named map[string]string
	if err := json.Unmarshal(data, &named); err != nil {
		return fmt.Errorf("delays: %w", err)
	}
	fields := map[string]*time.Duration{"launch": &d.Launch, "stop": &d.Stop, "terminate": &d.Terminate,
		"snapshot": &d.Snapshot, "image": &d.Image, "copy": &d.Copy, "usage": &d.Usage}
	for name, text := range named {
		field := fields[name]
		if field == nil {
			return fmt.Errorf("delays: there is no delay %q; there are launch, stop, terminate, snapshot, image, copy and usage", name)
		}
		v, err := time.ParseDuration(text)
		if err != nil || v < 0 {
			return fmt.Errorf("delays: %s: %q is not a duration such as 30s", name, text)
		}
		*field = v
	}
	return nil
}

// Effect is what a [Fault] does.
type Effect string

const (
	// EffectError refuses the call with Code and Message.
	EffectError Effect = "error"
	// EffectFail accepts the call and fails what it started: the launch, the
	// image, the snapshot or the copy.
	EffectFail Effect = "fail"
	// EffectHide accepts the call, and what it made is not found by the next
	// Times calls that ask for it.
	EffectHide Effect = "hide"
)

// Fault is a rule that makes calls go wrong.
type Fault struct {
	Action string `json:"action,omitempty"` // "" is every action
	Region string `json:"region,omitempty"` // "" is every region

	// Zone and InstanceType make a rule one about launches there, of that type. A
	// launch that names no zone goes on to the next one.
	Zone         string `json:"zone,omitempty"`
	InstanceType string `json:"instance_type,omitempty"`

	// Nth is the first call that the rule applies to, of those that it is about,
	// counted from 1; 0 is the first. Calls is to how many from there on; 0
	// means one if Nth is given, else all.
	Nth   int `json:"nth,omitempty"`
	Calls int `json:"calls,omitempty"`
	// Probability is how likely it then is to apply; 0 means always.
	Probability float64 `json:"probability,omitempty"`

	Effect  Effect `json:"effect,omitempty"` // "" is EffectError
	Code    string `json:"code,omitempty"`   // such as RequestLimitExceeded
	Message string `json:"message,omitempty"`
	Status  int    `json:"status,omitempty"` // of HTTP; 0 is the code's usual one
	Times   int    `json:"times,omitempty"`  // for EffectHide; 0 is once
}

// Faults are rules with a source of chance; nil has none. A seed and an order
// of calls give the same faults again.
type Faults struct {
	mu     sync.Mutex
	rules  []Fault
	counts []int
	chance *rand.Rand
}

// NewFaults checks the rules.
func NewFaults(seed uint64, rules ...Fault) (*Faults, error) {
	for i := range rules {
		r := &rules[i]
		if r.Effect == "" {
			r.Effect = EffectError
		}
		switch {
		case r.Effect != EffectError && r.Effect != EffectFail && r.Effect != EffectHide:
			return nil, fmt.Errorf("fault %d: there is no effect %q; use error, fail or hide", i+1, r.Effect)
		case r.Effect == EffectError && r.Code == "":
			return nil, fmt.Errorf("fault %d: the effect error needs a code", i+1)
		case r.Probability < 0 || r.Probability > 1:
			return nil, fmt.Errorf("fault %d: probability %v is not between 0 and 1", i+1, r.Probability)
		case r.Nth < 0 || r.Calls < 0 || r.Times < 0:
			return nil, fmt.Errorf("fault %d: nth, calls and times cannot be negative", i+1)
		}
		if r.Times == 0 {
			r.Times = 1
		}
		if r.Nth > 0 && r.Calls == 0 {
			r.Calls = 1
		}
		r.Nth = max(r.Nth, 1)
	}
	return &Faults{rules: rules, counts: make([]int, len(rules)), chance: rand.New(rand.NewPCG(seed, seed))}, nil
}

// applying returns the rules that apply to this call, which it counts. A dry run
// is refused as the call would be, but it does not look for capacity and starts
// nothing that can fail.
func (f *Faults) applying(action, region string, dry bool) []Fault {
	return f.pick(func(r Fault) bool {
		if dry && (r.Effect != EffectError || strings.HasPrefix(r.Code, "Insufficient")) {
			return false
		}
		return !r.aboutPools() && (r.Action == "" || r.Action == action) && (r.Region == "" || r.Region == region)
	})
}

// aboutPools reports whether the rule is about where a launch goes, and not about
// the call: a fleet without capacity is no error of its call.
func (r Fault) aboutPools() bool {
	fleet := r.Action == "CreateFleet" && strings.HasPrefix(r.Code, "Insufficient")
	return r.Effect == EffectError && (r.Zone != "" || r.InstanceType != "" || fleet)
}

// full returns the failure that a rule wants for a launch of an instance type in a
// zone, or nil.
func (f *Faults) full(action, region, zone, instanceType string) error {
	for _, r := range f.pick(func(r Fault) bool {
		return r.aboutPools() && (r.Action == "" || r.Action == action) && (r.Region == "" || r.Region == region) &&
			(r.Zone == "" || r.Zone == zone) && (r.InstanceType == "" || r.InstanceType == instanceType)
	}) {
		return r.failure()
	}
	return nil
}

// pick returns the rules that are about something and apply to it this time, which
// they count.
func (f *Faults) pick(about func(Fault) bool) []Fault {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Fault
	for i, r := range f.rules {
		if !about(r) {
			continue
		}
		f.counts[i]++
		n := f.counts[i] - r.Nth
		if n < 0 || r.Calls > 0 && n >= r.Calls || r.Probability > 0 && f.chance.Float64() >= r.Probability {
			continue
		}
		out = append(out, r)
	}
	return out
}

type faultKey struct{}

// Before runs ahead of every action, of the neighbours' too: regions that do not
// exist, rules that make it fail, and dry runs. RunInstances looks at its own dry
// run, since callers use that to test whether the parameters hold.
func (s *Service) Before(ctx context.Context, action string, input any) (context.Context, error) {
	if _, ok := findRegion(wire.CallerFrom(ctx).Region); !ok {
		return nil, invalidValue("There is no region '%s'", wire.CallerFrom(ctx).Region)
	}
	dry := false
	if field := reflect.ValueOf(input).Elem().FieldByName("DryRun"); field.IsValid() {
		flag, _ := field.Interface().(*bool)
		dry = aws.ToBool(flag)
	}
	applying := s.opts.Faults.applying(action, wire.CallerFrom(ctx).Region, dry)
	for _, f := range applying {
		if f.Effect == EffectError {
			return nil, f.refusal(ctx, "ec2:"+action)
		}
	}
	if dry && action != "RunInstances" {
		return nil, errDryRun()
	}
	return context.WithValue(ctx, faultKey{}, applying), nil
}

// refusal is the failure of a call to EC2. One for want of permission says,
// encoded, who wanted to do what.
func (f Fault) refusal(ctx context.Context, action string) *wire.Error {
	e := f.failure()
	if e.Code == "UnauthorizedOperation" {
		arn, id := wire.CallerFrom(ctx).Principal()
		e.Message += " Encoded authorization failure message: " + authorization.Encode(authorization.Message{
			MatchedStatements: authorization.Statements{Items: []struct{}{}}, Failures: authorization.Statements{Items: []struct{}{}},
			Context: authorization.Context{Principal: authorization.Principal{ID: id, ARN: arn}, Action: action, Resource: "*",
				Conditions: authorization.Statements{Items: []struct{}{}}},
		})
	}
	return e
}

func errDryRun() error {
	return &wire.Error{Code: "DryRunOperation", Message: "Request would have succeeded, but DryRun flag is set.", Status: 412}
}

func (f Fault) failure() *wire.Error {
	e := &wire.Error{Code: f.Code, Message: f.Message, Status: f.Status}
	if e.Code == "" {
		e.Code = "InternalError"
	}
	usual := map[string]struct {
		message string
		status  int
	}{
		"RequestLimitExceeded":         {"Request limit exceeded.", 503},
		"InsufficientInstanceCapacity": {"We currently do not have sufficient capacity in the Availability Zone you requested. Our system will be working on provisioning additional capacity.", 500},
		"InternalError":                {"An internal error has occurred", 500},
		"Unavailable":                  {"The service is unavailable. Please try again shortly.", 503},
		"UnauthorizedOperation":        {"You are not authorized to perform this operation.", 403},
	}[e.Code]
	if e.Message == "" {
		e.Message = usual.message
	}
	if e.Message == "" {
		e.Message = "A fault rule refused this call."
	}
	if e.Status == 0 {
		e.Status = usual.status
	}
	return e
}

// failing returns the failure that a rule wants for the work that this call
// starts, or nil.
func failing(ctx context.Context) error {
	rules, _ := ctx.Value(faultKey{}).([]Fault)
	for _, f := range rules {
		if f.Effect == EffectFail {
			return f.failure()
		}
	}
	return nil
}

// hide makes ids, which this call made, not found for a while if a rule wants it.
func (s *state) hide(ctx context.Context, ids ...string) {
	rules, _ := ctx.Value(faultKey{}).([]Fault)
	for _, f := range rules {
		if f.Effect == EffectHide {
			for _, id := range ids {
				s.hidden[id] = f.Times
			}
		}
	}
}

// concealed reports whether one of ids is still to be not found, and counts that.
func (s *state) concealed(ids []string) (hidden []string) {
	for _, id := range ids {
		if n := s.hidden[id]; n > 0 {
			hidden = append(hidden, id)
			s.hidden[id]--
		}
	}
	return hidden
}

// UnmarshalJSON reads {"seed": 1, "rules": [ … ]}.
func (f *Faults) UnmarshalJSON(data []byte) error {
	var file struct {
		Seed  uint64  `json:"seed"`
		Rules []Fault `json:"rules"`
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	made, err := NewFaults(file.Seed, file.Rules...)
	if err != nil {
		return err
	}
	f.rules, f.counts, f.chance = made.rules, made.counts, made.chance
	return nil
}
