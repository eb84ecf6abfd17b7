package ec2

import (
	"bytes"
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

// Delays say how long transitions take; the zero value is instant, apart from
// what the machines themselves need. In JSON each is a text such as "30s", or
// the whole is the name of a profile: "instant" or "aws". {"profile": "aws", "factor":
// 0.1} is a tenth of a profile; single delays beside it count as they are.
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
	fields := map[string]*time.Duration{"launch": &d.Launch, "stop": &d.Stop, "terminate": &d.Terminate,
		"snapshot": &d.Snapshot, "image": &d.Image, "copy": &d.Copy, "usage": &d.Usage}
	if f := head.Factor; f != nil {
		if *f < 0 || *f > 1000 {
			return fmt.Errorf("delays: factor %v is not between 0 and 1000", *f)
		}
		if head.Profile == "" {
			return errors.New("delays: factor multiplies the delays of a profile: name one, such as aws")
		}
		for _, field := range fields {
			*field = time.Duration(float64(*field) * *f)
		}
	}
	for name, raw := range named {
		field := fields[name]
		if field == nil {
			return fmt.Errorf("delays: there is no delay %q; there are launch, stop, terminate, snapshot, image, copy and usage, besides profile and factor", name)
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

func (d *Delays) setProfile(name string) error {
	switch name {
	case "instant":
		*d = Delays{}
	case "aws":
		*d = AWSDelays()
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
	// EffectFail accepts the call and fails what it started: the launch, the
	// image, the snapshot or the copy.
	EffectFail Effect = "fail"
	// EffectHide accepts the call, and what it made is not found by the next
	// Times calls that ask for it.
	EffectHide Effect = "hide"
	// EffectDelay answers the call after For.
	EffectDelay Effect = "delay"
	// EffectStuck accepts the call, and what it started stays on its way for For:
	// the instance pending, stopping or shutting-down, the image or snapshot pending.
	EffectStuck Effect = "stuck"
	// EffectLoseRequest closes the connection; the call has not been made.
	EffectLoseRequest Effect = "lose-request"
	// EffectLoseAnswer makes the call and closes the connection without an answer.
	EffectLoseAnswer Effect = "lose-answer"
	// EffectTruncate makes the call and sends half of the answer.
	EffectTruncate Effect = "truncate"
	// EffectInterrupt takes a Spot Instance back, After it has started: the metadata
	// service gives notice, and it is terminated For later, two minutes if that is 0.
	EffectInterrupt Effect = "interrupt"
	// EffectDie ends an instance After it has started, as a failed host does.
	EffectDie Effect = "die"
	// EffectHang suspends an instance After it has started, for For: its ports
	// accept connections and say nothing, and existing connections stand still.
	EffectHang Effect = "hang"
)

// effects are all of them.
var effects = []Effect{EffectError, EffectFail, EffectHide, EffectDelay, EffectStuck, EffectLoseRequest, EffectLoseAnswer, EffectTruncate,
	EffectInterrupt, EffectDie, EffectHang}

// onMachine reports whether the effect is one on an instance that runs.
func (e Effect) onMachine() bool { return e == EffectInterrupt || e == EffectDie || e == EffectHang }

// lasting reports whether the effect has a duration.
func (e Effect) lasting() bool {
	return e == EffectDelay || e == EffectStuck || e == EffectInterrupt || e == EffectHang
}

// Fault is a rule that makes calls go wrong.
type Fault struct {
	Service string `json:"service,omitempty"` // such as ec2 or ssm; "" is every service
	Action  string `json:"action,omitempty"`  // may have * and ?; "" is every action
	Region  string `json:"region,omitempty"`  // "" is every region
	Account string `json:"account,omitempty"` // "" is every account

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

	// For is how long the effect lasts; 0 is for ever, but for EffectDelay and
	// EffectInterrupt. After is how long an instance has run when one on it begins.
	// In JSON they are "for" and "after", texts such as "30s".
	For   time.Duration `json:"-"`
	After time.Duration `json:"-"`
}

// Faults are rules with a source of chance; nil has none. A seed and an order
// of calls give the same faults again.
type Faults struct {
	mu     sync.Mutex
	rules  []Fault
	counts []int
	seed   uint64
	chance *rand.Rand
}

// NewFaults checks the rules.
func NewFaults(seed uint64, rules ...Fault) (*Faults, error) {
	for i := range rules {
		r := &rules[i]
		if r.Effect == "" {
			r.Effect = EffectError
		}
		if err := r.check(); err != nil {
			return nil, &RuleError{i, err}
		}
		if r.Times == 0 {
			r.Times = 1
		}
		if r.Nth > 0 && r.Calls == 0 {
			r.Calls = 1
		}
		r.Nth = max(r.Nth, 1)
	}
	return &Faults{rules: rules, counts: make([]int, len(rules)), seed: seed, chance: rand.New(rand.NewPCG(seed, seed))}, nil
}

// RuleError says what is wrong with a rule.
type RuleError struct {
	Index int // of the rule, from 0
	Err   error
}

func (e *RuleError) Error() string { return fmt.Sprintf("rule %d: %v", e.Index+1, e.Err) }
func (e *RuleError) Unwrap() error { return e.Err }

func (r *Fault) check() error {
	_, pattern := path.Match(r.Action, "")
	launches := r.Effect == EffectError || r.Effect == EffectFail || r.Effect == EffectStuck || r.Effect.onMachine()
	switch {
	case !slices.Contains(effects, r.Effect):
		return fmt.Errorf("there is no effect %q; use %s", r.Effect, oneOf(effects))
	case r.Effect == EffectError && r.Code == "":
		return errors.New("the effect error needs a code")
	case r.Service != "" && !slices.Contains(services, r.Service):
		return fmt.Errorf("there is no service %q; use %s", r.Service, oneOf(services))
	case pattern != nil:
		return fmt.Errorf("action %q is not a valid pattern", r.Action)
	case r.Probability < 0 || r.Probability > 1:
		return fmt.Errorf("probability %v is not between 0 and 1", r.Probability)
	case r.Nth < 0 || r.Calls < 0 || r.Times < 0:
		return errors.New("nth, calls and times cannot be negative")
	case r.For < 0 || r.After < 0:
		return errors.New("for and after cannot be negative")
	case r.Status != 0 && (r.Status < 400 || r.Status > 599):
		return fmt.Errorf("status %d is not an HTTP error: use one from 400 to 599", r.Status)
	case r.Effect == EffectDelay && r.For == 0:
		return errors.New(`the effect delay needs "for", such as "10s"`)
	case r.For != 0 && !r.Effect.lasting():
		return fmt.Errorf(`"for" is for the effects delay, stuck, interrupt and hang, not for %s`, r.Effect)
	case r.Times != 0 && r.Effect != EffectHide:
		return fmt.Errorf(`"times" is for the effect hide, not for %s; "calls" is to how many calls a rule applies`, r.Effect)
	case (r.Code != "" || r.Message != "") && r.Effect != EffectError && r.Effect != EffectFail:
		return fmt.Errorf(`"code" and "message" are for the effects error and fail, not for %s`, r.Effect)
	case r.Status != 0 && r.Effect != EffectError:
		return fmt.Errorf(`"status" is for the effect error, not for %s`, r.Effect)
	case r.After != 0 && !r.Effect.onMachine():
		return fmt.Errorf(`"after" is for the effects interrupt, die and hang, not for %s`, r.Effect)
	case (r.Zone != "" || r.InstanceType != "") && !launches:
		return fmt.Errorf("zone and instance_type are about launches, which the effect %s is not", r.Effect)
	case r.aboutLaunch() && !r.isFor("RunInstances", "CreateFleet", "StartInstances"):
		return errors.New("the rule is about launches: its action can be RunInstances, CreateFleet or StartInstances, of ec2")
	case r.aboutPools() && !r.isFor("RunInstances", "CreateFleet"):
		return errors.New("the rule is about capacity for launches: its action can be RunInstances or CreateFleet, of ec2")
	}
	return nil
}

// isFor reports whether the rule can be about one of these actions of EC2.
func (r *Fault) isFor(actions ...string) bool {
	return slices.ContainsFunc(actions, func(action string) bool {
		return r.matches(call{service: "ec2", action: action, region: r.Region, account: r.Account})
	})
}

// services are those whose calls rules can be about.
var services = []string{"autoscaling", "ec2", "ec2-instance-connect", "iam", "kms", "organizations", "secretsmanager", "ssm", "sts"}

// oneOf joins values for a message.
func oneOf[T ~string](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	last := len(texts) - 1
	return strings.Join(texts[:last], ", ") + " or " + texts[last]
}

// call is what a rule is compared with.
type call struct {
	service, action, region, account string
	dry                              bool
}

// matches reports whether the rule is about the call, as far as that tells.
func (r Fault) matches(c call) bool {
	same := func(want, is string) bool { return want == "" || want == is }
	action, _ := path.Match(r.Action, c.action) // the pattern has been checked
	return same(r.Service, c.service) && (r.Action == "" || action) && same(r.Region, c.region) && same(r.Account, c.account)
}

// applying returns the rules that apply to this call, which it counts. A dry run
// is refused as the call would be, but it does not look for capacity and starts
// nothing that can fail.
func (f *Faults) applying(c call) []Fault {
	return f.pick(func(r Fault) bool {
		starts := r.Effect == EffectFail || r.Effect == EffectHide || r.Effect == EffectStuck
		if c.dry && (starts || strings.HasPrefix(r.Code, "Insufficient")) {
			return false
		}
		return !r.aboutPools() && !r.aboutLaunch() && r.matches(c)
	})
}

// aboutPools reports whether the rule is about where a launch goes, and not about
// the call: a fleet without capacity is no error of its call.
func (r Fault) aboutPools() bool {
	fleet := r.Action == "CreateFleet" && strings.HasPrefix(r.Code, "Insufficient")
	return r.Effect == EffectError && (r.Zone != "" || r.InstanceType != "" || fleet)
}

// aboutLaunch reports whether the rule is about what becomes of an instance that has
// been placed.
func (r Fault) aboutLaunch() bool {
	return r.Effect.onMachine() || r.Effect != EffectError && (r.Zone != "" || r.InstanceType != "")
}

// full returns the failure that a rule wants for a launch of an instance type in a
// zone, or nil.
func (f *Faults) full(c call, zone, instanceType string) error {
	for _, r := range f.pick(func(r Fault) bool { return r.aboutPools() && r.matches(c) && r.in(zone, instanceType) }) {
		return r.failure()
	}
	return nil
}

func (r Fault) in(zone, instanceType string) bool {
	return (r.Zone == "" || r.Zone == zone) && (r.InstanceType == "" || r.InstanceType == instanceType)
}

// atLaunch returns the rules that apply to the launch of in by the call that ctx
// belongs to: those of the call, and those about what it launches.
func (f *Faults) atLaunch(ctx context.Context, in *instance) []Fault {
	made, _ := ctx.Value(faultKey{}).(faulty)
	return append(f.pick(func(r Fault) bool {
		return r.aboutLaunch() && r.matches(made.call) && r.in(aws.ToString(in.Placement.AvailabilityZone), string(in.InstanceType)) &&
			(r.Effect != EffectInterrupt || in.SpotInstanceRequestId != nil)
	}), made.rules...)
}

// Seed is the seed of chance.
func (f *Faults) Seed() uint64 { return f.seed }

// Len is how many rules there are.
func (f *Faults) Len() int { return len(f.rules) }

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

// faulty is a call with the rules that apply to it.
type faulty struct {
	call  call
	rules []Fault
}

// Before returns what runs ahead of every action of a service: regions that do not
// exist, rules that make it fail, and dry runs. RunInstances looks at its own dry
// run, since callers use that to test whether the parameters hold.
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
		rules := s.opts.Faults.applying(c)
		ctx, err := s.meet(ctx, c, rules)
		if err != nil {
			return nil, err
		}
		if c.dry && action != "RunInstances" {
			return ctx, errDryRun()
		}
		return context.WithValue(ctx, faultKey{}, faulty{c, rules}), nil
	}
}

// meet does what rules want ahead of a call, and notes what is to become of its answer.
func (s *Service) meet(ctx context.Context, c call, rules []Fault) (context.Context, error) {
	var refused error
	for _, f := range rules {
		switch f.Effect {
		case EffectDelay:
			if err := s.opts.Clock.Sleep(s.ctx, f.For); err != nil {
				return ctx, err
			}
		case EffectLoseRequest:
			return ctx, wire.ErrLost
		case EffectLoseAnswer:
			ctx = wire.WithFate(ctx, wire.Lost)
		case EffectTruncate:
			ctx = wire.WithFate(ctx, wire.Truncated)
		case EffectError:
			if refused == nil {
				refused = f.refusal(ctx, c.service+":"+c.action)
			}
		}
	}
	return ctx, refused
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

// failing returns the failure that a rule wants for the work that this call
// starts, or nil.
func failing(ctx context.Context) error { return failureOf(rulesOf(ctx)) }

// stuck returns for how long the work that this call starts shall not end.
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

// later is the sum of two durations, or for ever.
func later(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// lasts is For, where 0 is for ever.
func (f Fault) lasts() time.Duration {
	if f.For == 0 {
		return math.MaxInt64
	}
	return f.For
}

// hide makes ids, which this call made, not found for a while if a rule wants it.
func (s *state) hide(ctx context.Context, ids ...string) {
	for _, f := range rulesOf(ctx) {
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

// UnmarshalJSON reads {"seed": 1, "rules": [ … ]}. Without a seed there is a new one.
func (f *Faults) UnmarshalJSON(data []byte) error {
	var file struct {
		Seed  *uint64           `json:"seed"`
		Rules []json.RawMessage `json:"rules"`
	}
	if err := strict(data, &file); err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	seed := uint64(rand.Uint32())
	if file.Seed != nil {
		seed = *file.Seed
	}
	rules := make([]Fault, len(file.Rules))
	for i, raw := range file.Rules {
		if err := rules[i].read(raw); err != nil {
			return &RuleError{i, err}
		}
	}
	made, err := NewFaults(seed, rules...)
	if err != nil {
		return err
	}
	f.rules, f.counts, f.seed, f.chance = made.rules, made.counts, made.seed, made.chance
	return nil
}

// read fills the rule in from JSON.
func (r *Fault) read(data []byte) error {
	var rule struct {
		*Fault
		For   string `json:"for"`
		After string `json:"after"`
	}
	rule.Fault = r
	if err := strict(data, &rule); err != nil {
		return fmt.Errorf("%w; a rule may have service, action, region, account, zone, instance_type, nth, calls, probability, effect, code, message, status, times, for and after", err)
	}
	for _, d := range []struct {
		name, text string
		into       *time.Duration
	}{{"for", rule.For, &r.For}, {"after", rule.After, &r.After}} {
		v, err := time.ParseDuration(cmp.Or(d.text, "0"))
		if err != nil {
			return fmt.Errorf("%s: %q is not a duration such as 30s", d.name, d.text)
		}
		*d.into = v
	}
	return nil
}

// strict decodes data, which is to have no other fields than v.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
