package ec2

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/authorization"
	"bake/cloud/wire"
)

// Delays say how long transitions take, in addition to the time that the machines
// themselves need. The zero value means no delay. In JSON, each delay is a text such as
// "30s". Instead of an object, the name of a profile is allowed: "instant" or "aws".
// {"profile": "aws", "factor": 0.1} scales a profile; delays in the same object are not
// scaled.
type Delays struct {
	Launch    time.Duration // pending to running, before the machine boots
	Stop      time.Duration // stopping to stopped, after the machine has stopped
	Terminate time.Duration // shutting-down to terminated, likewise
	Snapshot  time.Duration // pending to completed
	Image     time.Duration // pending to available, after the snapshots
	Copy      time.Duration // of an image to another region
	Usage     time.Duration // from a launch until the image's LastLaunchedTime shows it
}

// awsDelays returns approximately the delays of a small image on EC2.
func awsDelays() Delays {
	return Delays{Launch: 8 * time.Second, Stop: 20 * time.Second, Terminate: 25 * time.Second,
		Snapshot: 60 * time.Second, Image: 20 * time.Second, Copy: 150 * time.Second, Usage: 24 * time.Hour}
}

// UnmarshalJSON implements [json.Unmarshaler].
func (d *Delays) UnmarshalJSON(data []byte) error {
	var profile string
	if json.Unmarshal(data, &profile) == nil {
		return d.setProfile(profile)
	}
	var named map[string]json.RawMessage
	if err := json.Unmarshal(data, &named); err != nil {
		return fmt.Errorf("delays: %w", err)
	}
	var head struct {
		Profile string   `json:"profile"`
		Factor  *float64 `json:"factor"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("delays: %w", err)
	}
	delete(named, "profile")
	delete(named, "factor")
	if err := d.setProfile(cmp.Or(head.Profile, "instant")); err != nil {
		return err
	}
	fields := d.fields()
	if f := head.Factor; f != nil {
		if *f < 0 || *f > 1000 {
			return fmt.Errorf("delays: factor %v is not between 0 and 1000", *f)
		}
		if head.Profile == "" {
			return errors.New("delays: factor multiplies the delays of a profile: specify one, such as aws")
		}
		for _, field := range fields {
			*field = time.Duration(float64(*field) * *f)
		}
	}
	for name, raw := range named {
		field := fields[name]
		if field == nil {
			return fmt.Errorf("delays: unknown delay %q; use launch, stop, terminate, snapshot, image, copy, usage, profile or factor", name)
		}
		var text string
		err := json.Unmarshal(raw, &text)
		v, malformed := time.ParseDuration(text)
		if err != nil || malformed != nil || v < 0 {
			return fmt.Errorf("delays: %s: %q is not a duration such as 30s", name, strings.Trim(string(raw), `"`))
		}
		*field = v
	}
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (d Delays) MarshalJSON() ([]byte, error) {
	named := map[string]string{}
	for name, v := range d.fields() {
		if *v != 0 {
			named[name] = v.String()
		}
	}
	return json.Marshal(named)
}

// fields returns the delays by their names in JSON.
func (d *Delays) fields() map[string]*time.Duration {
	return map[string]*time.Duration{"launch": &d.Launch, "stop": &d.Stop, "terminate": &d.Terminate,
		"snapshot": &d.Snapshot, "image": &d.Image, "copy": &d.Copy, "usage": &d.Usage}
}

func (d *Delays) setProfile(name string) error {
	switch name {
	case "instant":
		*d = Delays{}
	case "aws":
		*d = awsDelays()
	default:
		return fmt.Errorf(`delays: there is no profile %q; use instant, aws or a JSON object such as {"copy":"30s"} or {"profile":"aws","factor":0.1}`, name)
	}
	return nil
}

// Effect is what a [Fault] does.
type Effect string

const (
	// EffectError refuses the call with Code and Message.
	EffectError Effect = "error"
	// EffectFail accepts the call and fails the work that it started: the launch, the
	// image, the snapshot or the copy.
	EffectFail Effect = "fail"
	// EffectHide accepts the call; the next Times calls that ask for the new resource do
	// not find it.
	EffectHide Effect = "hide"
	// EffectDelay answers the call after For.
	EffectDelay Effect = "delay"
	// EffectStuck accepts the call and delays the end of its work by For: the instance
	// stays pending, stopping or shutting-down, the image or snapshot pending.
	EffectStuck Effect = "stuck"
	// EffectLoseRequest closes the connection without making the call.
	EffectLoseRequest Effect = "lose-request"
	// EffectLoseAnswer makes the call and closes the connection without an answer.
	EffectLoseAnswer Effect = "lose-answer"
	// EffectTruncate makes the call and sends half of the answer.
	EffectTruncate Effect = "truncate"
	// EffectInterrupt takes a Spot Instance back: when the instance has run for After, the
	// metadata service gives notice, and the instance is terminated For later (two minutes
	// if For is 0).
	EffectInterrupt Effect = "interrupt"
	// EffectDie ends an instance that has run for After, like a failure of its host.
	EffectDie Effect = "die"
	// EffectHang suspends an instance that has run for After, for the time For: its ports
	// accept connections but do not answer, and existing connections stall.
	EffectHang Effect = "hang"
	// EffectUnreachable disconnects an instance that has run for After, for the time For:
	// its ports refuse connections, existing connections are reset, and it cannot open new
	// ones.
	EffectUnreachable Effect = "unreachable"
	// EffectMetadata makes the metadata service refuse the requests of an instance that
	// has run for After, with Status (503 if 0), for the time For.
	EffectMetadata Effect = "metadata"
)

// effects are all effects.
var effects = []Effect{EffectError, EffectFail, EffectHide, EffectDelay, EffectStuck, EffectLoseRequest, EffectLoseAnswer, EffectTruncate,
	EffectInterrupt, EffectDie, EffectHang, EffectUnreachable, EffectMetadata}

// onMachine reports whether the effect applies to a running instance.
func (e Effect) onMachine() bool { return slices.Contains(onMachine, e) }

var onMachine = []Effect{EffectInterrupt, EffectDie, EffectHang, EffectUnreachable, EffectMetadata}

// lasting reports whether the effect has a duration.
func (e Effect) lasting() bool {
	return e == EffectDelay || e == EffectStuck || e.onMachine() && e != EffectDie
}

// Fault is a rule that makes calls fail or misbehave.
type Fault struct {
	Service string `json:"service,omitempty"` // such as ec2 or ssm; "" means every service
	Action  string `json:"action,omitempty"`  // may contain * and ?; "" means every action
	Region  string `json:"region,omitempty"`  // "" means every region
	Account string `json:"account,omitempty"` // "" means every account

	// Zone and InstanceType restrict the rule to launches in that zone and of that type. A
	// launch that names no zone tries the next one.
	Zone         string `json:"zone,omitempty"`
	InstanceType string `json:"instance_type,omitempty"`

	// Nth is the number, from 1, of the first matching call to which the rule applies; 0
	// means the first. Calls is the number of calls from there on; 0 means one if Nth is
	// set, else all.
	Nth   int `json:"nth,omitempty"`
	Calls int `json:"calls,omitempty"`
	// Probability is the probability that the rule applies to such a call; 0 means always.
	Probability float64 `json:"probability,omitempty"`

	Effect  Effect `json:"effect,omitempty"` // "" means EffectError
	Code    string `json:"code,omitempty"`   // such as RequestLimitExceeded
	Message string `json:"message,omitempty"`
	Status  int    `json:"status,omitempty"` // HTTP status; 0 means the code's usual one
	Times   int    `json:"times,omitempty"`  // for EffectHide; 0 means once

	// For is how long the effect lasts; 0 means for ever, except for EffectDelay and
	// EffectInterrupt. An effect on an instance also ends when the rules are replaced.
	// After is how long an instance has run when an effect on it begins. In JSON they are
	// "for" and "after", texts such as "30s".
	For   time.Duration `json:"-"`
	After time.Duration `json:"-"`
}

// Faults are rules with a random source; a nil *Faults has no rules. The same seed and
// order of calls give the same faults.
type Faults struct {
	mu       sync.Mutex
	rules    []Fault
	counts   []Counts
	seed     uint64
	chance   *rand.Rand
	replaced chan struct{} // closed when these rules are replaced
}

// Counts are the number of calls or launches that a rule matched, and the number to which
// it was applied.
type Counts struct {
	Seen    int `json:"seen"`
	Applied int `json:"applied"`
}

// NewFaults returns the rules after checking them.
func NewFaults(seed uint64, rules ...Fault) (*Faults, error) {
	rules = slices.Clone(rules)
	for i := range rules {
		if rules[i].Effect == "" {
			rules[i].Effect = EffectError
		}
		if err := rules[i].check(); err != nil {
			return nil, ruleError(i, err)
		}
	}
	return &Faults{
		rules: rules, counts: make([]Counts, len(rules)), seed: seed, chance: rand.New(rand.NewPCG(seed, seed)), replaced: make(chan struct{}),
	}, nil
}

// Replace replaces the rules of f with those of other, which must not be used any more.
// Effects of the old rules on instances end.
func (f *Faults) Replace(other *Faults) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.replaced)
	f.rules, f.counts, f.seed, f.chance, f.replaced = other.rules, other.counts, other.seed, other.chance, make(chan struct{})
}

// Rules returns the rules and their counts.
func (f *Faults) Rules() ([]Fault, []Counts) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.rules), slices.Clone(f.counts)
}

// Replaced returns a channel that is closed when the current rules are replaced.
func (f *Faults) Replaced() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replaced
}

// RuleError is an error in a rule.
type RuleError struct {
	Index int    // of the rule, from 0
	Field string // of the rule, if known
	Err   error
}

func (e *RuleError) Error() string { return fmt.Sprintf("rule %d: %v", e.Index+1, e.Err) }
func (e *RuleError) Unwrap() error { return e.Err }

// call is what rules are matched against.
type call struct {
	service, action, region, account string
	dry                              bool
}

// matches reports whether the rule's service, action, region and account match the call.
func (r Fault) matches(c call) bool {
	same := func(want, is string) bool { return want == "" || want == is }
	action, _ := path.Match(r.Action, c.action) // the pattern has been checked
	return same(r.Service, c.service) && (r.Action == "" || action) && same(r.Region, c.region) && same(r.Account, c.account)
}

// applying returns the rules that apply to this call, and counts it. A dry run is refused
// like the call itself, but rules about capacity or about the work of the call do not
// apply to it.
func (f *Faults) applying(c call) []Fault {
	return f.pick(func(r Fault) bool {
		starts := r.Effect == EffectFail || r.Effect == EffectHide || r.Effect == EffectStuck
		if c.dry && (starts || strings.HasPrefix(r.Code, "Insufficient")) {
			return false
		}
		return !r.aboutPools() && !r.aboutLaunch() && r.matches(c)
	})
}

// aboutPools reports whether the rule is about the capacity of launches rather than the
// call itself: missing capacity is not an error of a CreateFleet call.
func (r Fault) aboutPools() bool {
	fleet := r.Action == "CreateFleet" && strings.HasPrefix(r.Code, "Insufficient")
	return r.Effect == EffectError && (r.Zone != "" || r.InstanceType != "" || fleet)
}

// aboutLaunch reports whether the rule's effect is on an instance after its placement.
func (r Fault) aboutLaunch() bool {
	return r.Effect.onMachine() || r.Effect != EffectError && (r.Zone != "" || r.InstanceType != "")
}

// full returns the error that a rule prescribes for launching an instance type in a zone,
// or nil.
func (f *Faults) full(c call, zone, instanceType string) error {
	for _, r := range f.pick(func(r Fault) bool { return r.aboutPools() && r.matches(c) && r.in(zone, instanceType) }) {
		return r.failure()
	}
	return nil
}

func (r Fault) in(zone, instanceType string) bool {
	return (r.Zone == "" || r.Zone == zone) && (r.InstanceType == "" || r.InstanceType == instanceType)
}

// atLaunch returns the rules that apply to the launch of in by the call of ctx: those of
// the call, and those about the launched instance.
func (f *Faults) atLaunch(ctx context.Context, in *instance) []Fault {
	made, _ := ctx.Value(faultKey{}).(faulty)
	return append(f.pick(func(r Fault) bool {
		return r.aboutLaunch() && r.matches(made.call) && r.in(aws.ToString(in.Placement.AvailabilityZone), string(in.InstanceType)) &&
			(r.Effect != EffectInterrupt || in.SpotInstanceRequestId != nil)
	}), made.rules...)
}

// Seed returns the seed of the random source.
func (f *Faults) Seed() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seed
}

// pick returns the rules for which about returns true and that apply this time. It updates
// their counts.
func (f *Faults) pick(about func(Fault) bool) []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Fault
	for i, r := range f.rules {
		if !about(r) {
			continue
		}
		n, calls := f.counts[i].Seen-max(r.Nth-1, 0), r.Calls
		f.counts[i].Seen++
		if r.Nth > 0 && calls == 0 {
			calls = 1
		}
		if n < 0 || calls > 0 && n >= calls || r.Probability > 0 && f.chance.Float64() >= r.Probability {
			continue
		}
		f.counts[i].Applied++
		out = append(out, r)
	}
	return out
}

type faultKey struct{}

// faulty is a call with the rules that apply to it.
type faulty struct {
	call  call
	rules []Fault
}

// Before returns the function that runs before every action of a service. It rejects
// unknown regions, applies the fault rules, and answers dry runs. RunInstances handles its
// own dry runs, since clients use them to validate the parameters.
func (s *Service) Before(service string) func(ctx context.Context, action string, input any) (context.Context, error) {
	return func(ctx context.Context, action string, input any) (context.Context, error) {
		caller := wire.CallerFrom(ctx)
		if _, ok := findRegion(caller.Region); !ok {
			return nil, invalidValue("There is no region '%s'", caller.Region)
		}
		c := call{service: service, action: action, region: caller.Region, account: caller.Account}
		if field := reflect.ValueOf(input).Elem().FieldByName("DryRun"); field.IsValid() {
			flag, _ := field.Interface().(*bool)
			c.dry = aws.ToBool(flag)
		}
		var rules []Fault
		if !caller.Looks || !wire.Reads(action) {
			var err error
			if ctx, rules, err = s.applyRules(ctx, c); err != nil {
				return nil, err
			}
		}
		if c.dry && action != "RunInstances" {
			return ctx, errDryRun()
		}
		return context.WithValue(ctx, faultKey{}, faulty{c, rules}), nil
	}
}

// BeforeObjects is [Service.Before] for S3, which is not a wire service.
func (s *Service) BeforeObjects(ctx context.Context, action string) (context.Context, error) {
	caller := wire.CallerFrom(ctx)
	ctx, _, err := s.applyRules(ctx, call{service: "s3", action: action, region: caller.Region, account: caller.Account})
	return ctx, err
}

// applyRules applies the rules that take effect before a call, and records the rules that change its
// answer.
func (s *Service) applyRules(ctx context.Context, c call) (context.Context, []Fault, error) {
	rules := s.opts.Faults.applying(c)
	var refused error
	for _, f := range rules {
		switch f.Effect {
		case EffectDelay:
			if err := s.opts.Clock.Sleep(s.ctx, f.For); err != nil {
				return ctx, rules, err
			}
		case EffectLoseRequest:
			return ctx, rules, wire.ErrLost
		case EffectLoseAnswer:
			ctx = wire.WithDelivery(ctx, wire.Lost)
		case EffectTruncate:
			ctx = wire.WithDelivery(ctx, wire.Truncated)
		case EffectError:
			if refused == nil {
				refused = f.refusal(ctx, c.service+":"+c.action)
			}
		}
	}
	return ctx, rules, refused
}

// refusal returns the error with which a rule refuses a call to EC2. The message of a permission
// error ends with the encoded details: see package authorization.
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
		"AccessDenied":                 {"Access Denied", 403},
		"SlowDown":                     {"Please reduce your request rate.", 503},
		"ServiceUnavailable":           {"Service is unable to handle request.", 503},
		"AccessDeniedException":        {"You are not authorized to perform this operation.", 400},
		"AuthFailure":                  {"AWS was not able to validate the provided access credentials", 401},
		"ExpiredToken":                 {"The security token included in the request is expired", 403},
		"RequestExpired":               {"Request has expired.", 400},
		"Throttling":                   {"Rate exceeded", 400},
		"ThrottlingException":          {"Rate exceeded", 400},
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

// failing returns the error that a rule prescribes for the work of this call, or nil.
func failing(ctx context.Context) error { return failureOf(rulesOf(ctx)) }

// stuck returns the additional time before the work of this call may end.
func stuck(ctx context.Context) time.Duration { return stuckFor(rulesOf(ctx)) }

func rulesOf(ctx context.Context) []Fault {
	made, _ := ctx.Value(faultKey{}).(faulty)
	return made.rules
}

func failureOf(rules []Fault) error {
	for _, f := range rules {
		if f.Effect == EffectFail {
			return f.failure()
		}
	}
	return nil
}

func stuckFor(rules []Fault) (longest time.Duration) {
	for _, f := range rules {
		if f.Effect == EffectStuck {
			longest = max(longest, f.lasts())
		}
	}
	return longest
}

// later returns the sum of two durations; the sum with "for ever" is "for ever".
func later(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// lasts returns For, or "for ever" if For is 0.
func (f Fault) lasts() time.Duration {
	if f.For == 0 {
		return math.MaxInt64
	}
	return f.For
}

// hide conceals the ids that this call created from a number of later calls, if a rule says so.
func (s *state) hide(ctx context.Context, ids ...string) {
	for _, f := range rulesOf(ctx) {
		if f.Effect == EffectHide {
			for _, id := range ids {
				s.hidden[id] = max(f.Times, 1)
			}
		}
	}
}

// concealed returns the ids that are still hidden. It counts the call unless it is made by a client
// that only displays the state (see [cloud.Cloud.Looks]).
func (s *state) concealed(ids []string) (hidden []string) {
	for _, id := range ids {
		if n := s.hidden[id]; n > 0 {
			hidden = append(hidden, id)
			if !s.looked {
				s.hidden[id]--
			}
		}
	}
	return hidden
}
